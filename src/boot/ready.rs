//! The ready file: a stable contract for tools that start `dispatcher dev`.

use std::path::Path;

use super::folder::{Error, write_whole};

/// What the file says, as JSON with these keys.
#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    /// Plain HTTP on loopback: the APIs.
    pub(super) url: String,
    /// TLS only: for guests.
    pub(super) agent_url: String,
    /// Access key of the seeded API key.
    pub(super) access_key: String,
    /// Its secret.
    pub(super) secret_key: String,
    /// The console.
    pub(super) console_url: String,
    /// Its login.
    pub(super) console_user: String,
    /// Its password.
    pub(super) console_password: String,
    /// Health and metrics.
    pub(super) ops_url: String,
    /// This process.
    pub(super) pid: u32,
}

impl Ready {
    /// Writes the file, readable by its owner only, renamed into place.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_whole(path, &text)
    }
}

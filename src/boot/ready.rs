//! The ready file: a stable contract for tools that start `dispatcher dev`.

use std::path::Path;

use super::folder::{Error, write_whole};
use super::role::Role;

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

/// What the ready file of a role says, as JSON with these keys; it holds no secret.
#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleReady {
    /// The role.
    pub(super) role: &'static str,
    /// This process.
    pub(super) pid: u32,
    /// Health and metrics.
    pub(super) ops_url: String,
    /// The APIs and the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// TLS only: for guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent_url: Option<String>,
    /// Leases of credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) km: Option<String>,
}

impl RoleReady {
    pub(super) fn new(role: Role, ops_url: String) -> Self {
        Self { role: role.as_str(), pid: std::process::id(), ops_url, url: None, agent_url: None, km: None }
    }

    /// Where it listens, with a word for each.
    pub(super) fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("api", self.url.as_deref()),
            ("agents", self.agent_url.as_deref()),
            ("leases", self.km.as_deref()),
            ("health", Some(self.ops_url.as_str())),
        ];
        all.into_iter().filter_map(|(what, url)| Some((what, url?)))
    }

    /// Writes the file, readable by its owner only, renamed into place.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        write_whole(path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}

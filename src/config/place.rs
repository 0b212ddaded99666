//! Sections about the process itself: its files, its listeners, the installation's keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

use super::Error;

/// Section `[process]`: files of this process, and as whom it runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Folder of this process's own files: its lock, the ports it took, embedded databases.
    pub data: PathBuf,
    /// User to run as once the listeners are open; empty: as started. Only root can become somebody else.
    pub user: String,
    /// Group to run as; empty: the user's own.
    pub group: String,
}

impl Default for Process {
    fn default() -> Self {
        Self { data: PathBuf::from("dispatcher-data"), user: String::new(), group: String::new() }
    }
}

/// Section `[listen]`: addresses of each listener, for roles that have it. Port 0 takes the one used last, or any.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Console and API (`serve`).
    pub api: Vec<SocketAddr>,
    /// Certificate of the API listener, a PEM file; empty: plain HTTP, on loopback only.
    pub certificate: String,
    /// Its private key, a PEM file that only its owner can read.
    pub key: String,
    /// Handshakes of guests, always TLS (`serve`).
    pub agents: Vec<SocketAddr>,
    /// What guests are told to shake hands with, as `https://host:port`: those of all nodes, or of what stands before
    /// them; empty: the first address of `agents`.
    pub agent_urls: Vec<String>,
    /// Health, metrics, actors (every role); loopback only.
    pub ops: Vec<SocketAddr>,
    /// Leases of credentials, always mutual TLS (`km`).
    pub km: Vec<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        let local = |port| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        Self {
            api: local(3302),
            certificate: String::new(),
            key: String::new(),
            agents: local(3303),
            agent_urls: Vec::new(),
            ops: local(0),
            km: local(2013),
        }
    }
}

impl Listen {
    /// Refuses what would show plain traffic outside this machine.
    pub(super) fn check(&self) -> Result<(), Error> {
        let outside = |addresses: &[SocketAddr]| addresses.iter().find(|a| !a.ip().is_loopback()).copied();
        let refuse = |key, value: String, remedy| Err(Error::Value { key, value, remedy });
        if self.certificate.is_empty() != self.key.is_empty() {
            let one = if self.key.is_empty() { "listen.key" } else { "listen.certificate" };
            return refuse(one, "empty".to_owned(), "name both files, or neither");
        }
        if let (true, Some(address)) = (self.certificate.is_empty(), outside(&self.api)) {
            return refuse(
                "listen.api",
                address.to_string(),
                "name listen.certificate and listen.key, or listen on loopback only: the API is plain HTTP without them",
            );
        }
        if let Some(address) = outside(&self.ops) {
            return refuse("listen.ops", address.to_string(), "write a loopback address: it is plain HTTP");
        }
        if let Some(url) = self.agent_urls.iter().find(|url| !url.starts_with("https://")) {
            return refuse(
                "listen.agent_urls",
                url.clone(),
                "write https://host:port: guests speak TLS only",
            );
        }
        for (key, addresses) in [
            ("listen.api", &self.api),
            ("listen.agents", &self.agents),
            ("listen.ops", &self.ops),
            ("listen.km", &self.km),
        ] {
            if addresses.is_empty() || addresses.len() > 8 {
                return refuse(
                    key,
                    format!("{} addresses", addresses.len()),
                    "write between 1 and 8 addresses",
                );
            }
        }
        Ok(())
    }
}

/// Section `[keys]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Folder with the keys and certificates of the role, as `dispatcher keys` made it; empty: `keys` in the data folder.
    pub folder: PathBuf,
}

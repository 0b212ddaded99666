//! The agent's data folder: who uses it, the key, the certificate, and the user data beside it.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::{Process, json};
use super::{Error, files};
use crate::crypto::{Secret, pki};
use crate::model::ServerId;

/// An open data folder. While it lives no other agent uses the folder.
#[derive(Debug)]
pub(super) struct Home {
    data: PathBuf,
    _lock: File,
}

/// What the guest was given at its start by whoever made it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserData {
    /// URLs of the dispatcher's listeners for guests, one or several: any of them will do.
    #[serde(deserialize_with = "one_or_several")]
    pub(super) dispatcher: Vec<String>,
    /// The services root, PEM.
    pub(super) root: String,
    /// The enrolment token.
    #[serde(default)]
    pub(super) token: Option<String>,
    /// The guest's name at its cloud.
    #[serde(default)]
    pub(super) instance_id: Option<String>,
}

fn one_or_several<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    use serde::{Deserialize as _, de::Error as _};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Urls {
        One(String),
        Several(Vec<String>),
    }
    match Urls::deserialize(from)? {
        Urls::One(url) => Ok(vec![url]),
        Urls::Several(urls) if urls.is_empty() => Err(D::Error::custom("dispatcher names no URL")),
        Urls::Several(urls) => Ok(urls),
    }
}

/// Who this guest is, as its TLS listener shows it.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) server: ServerId,
    pub(super) tls: Arc<rustls::ServerConfig>,
}

impl UserData {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(Error::file("read the user data", path))?;
        serde_json::from_slice(&text).map_err(|source| Error::UserData { path: path.to_owned(), source })
    }
}

impl Home {
    /// Takes the folder into use.
    pub(super) fn open(data: &Path) -> Result<Self, Error> {
        files::make_dir(data)?;
        let path = data.join("lock");
        let lock = files::append(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { data: data.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::AlreadyRunning(data.to_owned())),
            Err(TryLockError::Error(e)) => Err(Error::file("lock", &path)(e)),
        }
    }

    /// Writes `pid`: pid, start time in the kernel's ticks and address, by which others find this process again.
    pub(super) fn write_pid(&self, address: SocketAddr) -> Result<(), Error> {
        let own = Process::of(std::process::id());
        let text = serde_json::json!({
            "pid": std::process::id(),
            "startTime": own.map(|process| process.start_time),
            "address": address,
        });
        files::replace(&self.data.join("pid"), &json(&text))
    }

    /// The guest's private key, made at the first start; it never leaves the guest.
    pub(super) fn key(&self) -> Result<Secret, Error> {
        let path = self.data.join("key.pem");
        if let Some(text) = files::read(&path)? {
            return Ok(Secret::new(text));
        }
        let key = pki::new_key_pem()?;
        files::replace(&path, key.expose())?;
        Ok(key)
    }

    /// The identity of an earlier enrolment, if it is still of use with this key and root.
    pub(super) fn identity(&self, key: &Secret, root: &str) -> Option<Identity> {
        let cert = files::read(&self.data.join("cert.pem")).ok()??;
        match Identity::new(&String::from_utf8(cert).ok()?, key, root) {
            Ok(identity) => Some(identity),
            Err(e) => {
                log::warn!("the certificate on disk is of no use: {}", crate::ops::Chain(&e));
                None
            }
        }
    }

    pub(super) fn keep_cert(&self, cert_pem: &str) -> Result<(), Error> {
        files::replace(&self.data.join("cert.pem"), cert_pem.as_bytes())
    }
}

impl Identity {
    /// TLS with this certificate, for clients of this root only.
    pub(super) fn new(cert_pem: &str, key: &Secret, root: &str) -> Result<Self, Error> {
        let pair =
            pki::Identity { cert_pem: cert_pem.to_owned(), key_pem: Secret::new(key.expose().to_vec()) };
        let tls = pki::server_config(&pair, Some(root), true)?;
        let server = pki::first_der(cert_pem)
            .and_then(|der| pki::uri_of(&der))
            .and_then(|uri| pki::server_of_agent_uri(&uri))
            .ok_or_else(|| pki::Error::Request("the certificate names no guest".to_owned()))?;
        Ok(Self { server, tls: Arc::new(tls) })
    }
}

#[cfg(test)]
mod tests {
    use super::Home;
    use crate::agent::Error;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_serves_one_agent_and_keeps_its_key_to_itself() {
        let folder = tempfile::tempdir().expect("folder");
        let data = folder.path().join("agent");
        let home = Home::open(&data).expect("opens");
        let error = Home::open(&data).expect_err("in use");
        assert!(matches!(error, Error::AlreadyRunning(_)) && error.exit_code() == 4, "{error}");
        let key = home.key().expect("made");
        assert_eq!(home.key().expect("read").expose(), key.expose());
        home.write_pid("127.1.0.1:2003".parse().expect("address")).expect("written");
        for name in ["lock", "key.pem", "pid"] {
            let mode = std::fs::metadata(data.join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::metadata(&data).expect("there").permissions().mode() & 0o777, 0o700);
        drop(home);
        Home::open(&data).expect("free again");
    }
}

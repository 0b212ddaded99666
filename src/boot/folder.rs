//! The data folder of an embedded installation: one process at a time, keys in files of their own, ports kept.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::crypto::{Key, hex, pki};
use crate::km::keyfile::{self, KeyFileError};

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("data folder: cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("data folder {path} is in use by another dispatcher; stop that one, or give another --data")]
    InUse {
        /// The folder.
        path: String,
        /// What the lock said.
        #[source]
        errno: nix::errno::Errno,
    },
    /// A key file is not as it must be.
    #[error("key file of the data folder")]
    Key(#[from] KeyFileError),
    /// A certificate cannot be made or read.
    #[error("certificates of the data folder")]
    Pki(#[from] pki::Error),
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { what, path, source }
}

/// A data folder held by this process.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes the folder where it is missing (only the owner may look in) and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(io("make", path))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("protect", path))?;
        let path = path.canonicalize().map_err(io("find", path))?;
        let name = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&name)
            .map_err(io("open", &name))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| Error::InUse { path: path.display().to_string(), errno })?;
        Ok(Self { path, _lock: lock })
    }

    /// A key file of the folder, made at its first use.
    pub(super) fn key(&self, name: &str) -> Result<Key, Error> {
        let folder = self.path.join("keys");
        Self::make_keys(&folder)?;
        Ok(keyfile::load_or_make(&folder.join(name))?)
    }

    /// Makes a folder of keys where it is missing; only the owner may look in.
    pub(super) fn make_keys(folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(io("protect", folder))
    }

    /// A root of certificates, made at its first use.
    pub(super) fn authority(&self, name: &str) -> Result<pki::Authority, Error> {
        let folder = self.path.join("pki");
        std::fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        if let (Ok(cert), Ok(key)) = (std::fs::read_to_string(&cert), std::fs::read_to_string(&key)) {
            return Ok(pki::Authority::load(&cert, &key)?);
        }
        let made = pki::Authority::create(&format!("dispatcher {name}"))?;
        let secret = made.key_pem();
        // The key first: a certificate without its key would be taken for a whole root at the next start.
        write_whole(&key, secret.expose())?;
        write_whole(&cert, made.cert_pem().as_bytes())?;
        Ok(made)
    }

    /// Binds a listener: the wished port, or the one used last, or any.
    pub(super) fn listener(&self, name: &str, wish: SocketAddr) -> Result<TcpListener, Error> {
        let file = self.path.join(format!("port.{name}"));
        let last = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u16>().ok());
        let again = match (wish.port(), last) {
            (0, Some(port)) => TcpListener::bind(SocketAddr::new(wish.ip(), port)).ok(),
            _ => None,
        };
        let listener = match again {
            Some(listener) => listener,
            None => TcpListener::bind(wish).map_err(io("listen for", &PathBuf::from(wish.to_string())))?,
        };
        let port = listener.local_addr().map_err(io("listen for", &file))?.port();
        write_whole(&file, port.to_string().as_bytes())?;
        Ok(listener)
    }
}

/// A text made from a key for one purpose: the same for one data folder, useless for any other.
pub(super) fn derived(key: &Key, purpose: &str, bytes: usize) -> String {
    let text = hex::encode(key.derive(purpose).expose());
    text.chars().take(bytes * 2).collect()
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(io("write", path))
}

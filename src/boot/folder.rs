//! The data folder of an embedded installation: one process at a time, keys in files of their own, ports kept.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, chown};
use socket2::{Domain, Protocol, Socket, Type};

use crate::crypto::{Key, hex, pki};
use crate::km::keyfile::{self, KeyFileError};
use crate::model::Boot;
use crate::ops::privileges;

/// Connections that may wait to be taken; the kernel's own limit may be lower.
const BACKLOG: i32 = 4096;

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
    /// It belongs to somebody else.
    #[error(
        "data folder {path} belongs to user {owner}, and this process runs as user {user}; give it to that user (chown), or name another folder"
    )]
    Foreign {
        /// The folder.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        user: u32,
    },
    /// A key file is not as it must be.
    #[error("key file of the data folder")]
    Key(#[from] KeyFileError),
    /// A key or certificate that a role needs is not there.
    #[error(
        "{path} cannot be read; make the installation's keys with \"dispatcher keys make\" and name the role's folder in keys.folder"
    )]
    NoKey {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate has ended.
    #[error(
        "certificate {path} ended at {ends}; run \"dispatcher keys renew\" where the installation's keys are, and copy the role's folder"
    )]
    Ended {
        /// The file.
        path: String,
        /// When.
        ends: String,
    },
    /// A certificate cannot be made or read.
    #[error("certificates of the data folder")]
    Pki(#[from] pki::Error),
}

pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
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
        make_own(path)?;
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
        authority_in(&folder, name)
    }

    /// The life that used this folder before, which has ended: the lock proves it.
    pub(super) fn former(&self) -> Option<Boot> {
        std::fs::read_to_string(self.path.join("boot")).ok().and_then(|text| text.trim().parse().ok())
    }

    /// Writes down that this life uses the folder.
    pub(super) fn occupied_by(&self, boot: Boot) -> Result<(), Error> {
        write_whole(&self.path.join("boot"), boot.to_string().as_bytes())
    }

    /// Binds a listener: the wished port, or the one used last, or any.
    pub(super) fn listener(&self, name: &str, wish: SocketAddr) -> Result<TcpListener, Error> {
        let file = self.path.join(format!("port.{name}"));
        let last = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u16>().ok());
        let again = match (wish.port(), last) {
            (0, Some(port)) => bind(SocketAddr::new(wish.ip(), port)).ok(),
            _ => None,
        };
        let listener = match again {
            Some(listener) => listener,
            None => bind(wish).map_err(io("listen for", &PathBuf::from(wish.to_string())))?,
        };
        let port = listener.local_addr().map_err(io("listen for", &file))?.port();
        write_whole(&file, port.to_string().as_bytes())?;
        Ok(listener)
    }
}

/// Makes a folder that belongs to who this process acts as, below folders that may be root's. An existing one must be
/// theirs already: what others could have put there is never given away.
fn make_own(path: &Path) -> Result<(), Error> {
    let (user, group) = (Uid::effective(), Gid::effective());
    let make = || -> std::io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(path)?;
        Ok(chown(path, Some(user), Some(group))?)
    };
    privileges::raised(make).map_err(io("make", path))?;
    let owner = std::fs::metadata(path).map_err(io("read", path))?.uid();
    if owner == user.as_raw() || user.is_root() {
        return Ok(());
    }
    Err(Error::Foreign { path: path.display().to_string(), owner, user: user.as_raw() })
}

/// Binds a listener; `[::]` takes IPv4 as well, whatever the machine's own setting is.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // A port below 1024 is root's to give.
    privileges::raised(|| socket.bind(&address.into()))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A root of certificates kept in a folder, made at its first use.
pub(super) fn authority_in(folder: &Path, name: &str) -> Result<pki::Authority, Error> {
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

#[cfg(test)]
mod tests {
    use super::bind;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    #[test]
    fn one_listener_takes_both_families() {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            eprintln!("SKIPPED: this machine has no IPv6");
            return;
        }
        let listener = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).expect("bound");
        let port = listener.local_addr().expect("bound").port();
        for to in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
        {
            TcpStream::connect(to).unwrap_or_else(|e| panic!("{to}: {e}"));
            listener.accept().expect("taken");
        }
    }
}

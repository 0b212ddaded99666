//! Keys and certificates of an installation whose roles are processes of their own.
//!
//! One folder holds all of it and stays with the operator; below it each role has a folder with what it needs and
//! nothing else, to be copied to the hosts of that role. No role holds the key that signs roles.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folder::{Error, authority_in, io, write_whole};
use super::role::{CHANNEL, INSTALL, KEK, Role, SEAL};
use crate::crypto::pki::{self, Authority, Identity};
use crate::crypto::{Key, Secret};
use crate::km::keyfile;
use crate::model::Micros;

/// Life of a role's certificate; `dispatcher keys renew` makes new ones.
const ROLE_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// The root that signs roles and listeners, and the one that signs guests.
const SERVICES: &str = "services";
const AGENTS: &str = "agents";
/// A role's own certificate, and that of the listener for guests.
const OWN: &str = "role";
const LISTENER: &str = "listener";
/// Name a client of the key manager asks for.
pub(super) const KM_NAME: &str = "km";

/// A certificate as `dispatcher keys show` lists it.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The file, below the folder.
    pub file: String,
    /// When it ends; nothing for a key.
    pub ends: Option<String>,
    /// Whether it has ended, or ends within 30 days.
    pub renew: bool,
}

/// Makes what is missing in an installation's folder. With `renew`, the certificates of roles are made anew; keys and
/// roots never are.
///
/// # Errors
/// What the file system or the certificate library reports.
pub fn make(folder: &Path, names: &[String], renew: bool) -> Result<(), Error> {
    private(folder)?;
    for key in [INSTALL, SEAL, CHANNEL, KEK] {
        keyfile::load_or_make(&folder.join(key))?;
    }
    let services = authority_in(folder, SERVICES)?;
    let agents = authority_in(folder, AGENTS)?;
    for role in Role::ALL {
        outfit(folder, role, (&services, &agents), (names, renew))?;
    }
    Ok(())
}

/// Fills the folder of one role.
fn outfit(
    root: &Path,
    role: Role,
    (services, agents): (&Authority, &Authority),
    (names, renew): (&[String], bool),
) -> Result<(), Error> {
    let folder = root.join(role.as_str());
    private(&folder)?;
    for key in role.keys() {
        let text = Secret::from(fs::read_to_string(root.join(key)).map_err(io("read", &root.join(key)))?);
        write_whole(&folder.join(key), text.expose())?;
    }
    write_whole(&folder.join("services.pem"), services.cert_pem().as_bytes())?;
    let missing = |name: &str| renew || !folder.join(format!("{name}.pem")).exists();
    if let Some(uri) = role.uri().filter(|_| missing(OWN)) {
        let name = if role == Role::Km { KM_NAME } else { "dispatcher" };
        keep(&folder, OWN, &services.issue_role(uri, &[name.to_owned()], ROLE_LIFE)?)?;
    }
    match role {
        Role::Serve => {
            write_whole(&folder.join("agents.key"), agents.key_pem().expose())?;
            write_whole(&folder.join("agents.pem"), agents.cert_pem().as_bytes())?;
            if missing(LISTENER) {
                keep(&folder, LISTENER, &services.issue_server(names, ROLE_LIFE)?)?;
            }
        }
        Role::Pinger => write_whole(&folder.join("agents.pem"), agents.cert_pem().as_bytes())?,
        Role::Monitor | Role::Worker | Role::Km => {}
    }
    Ok(())
}

fn private(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(io("protect", folder))
}

/// The key first: a certificate without its key would be taken for a whole identity.
fn keep(folder: &Path, name: &str, identity: &Identity) -> Result<(), Error> {
    write_whole(&folder.join(format!("{name}.key")), identity.key_pem.expose())?;
    write_whole(&folder.join(format!("{name}.pem")), identity.cert_pem.as_bytes())
}

/// Every file of an installation's folder, with the ends of certificates.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<Listed>, Error> {
    let soon = Micros::wall().plus(Duration::from_secs(30 * 24 * 3600));
    let mut found = Vec::new();
    let folders = std::iter::once(folder.to_owned()).chain(Role::ALL.map(|role| folder.join(role.as_str())));
    for inside in folders {
        let mut names: Vec<PathBuf> = fs::read_dir(&inside)
            .map_err(io("read", &inside))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .collect();
        names.sort();
        for path in names {
            let text = fs::read_to_string(&path).map_err(io("read", &path))?;
            let ends = pki::not_after(&text);
            found.push(Listed {
                file: path.strip_prefix(folder).unwrap_or(&path).display().to_string(),
                ends: ends.map(Micros::rfc3339),
                renew: ends.is_some_and(|ends| ends < soon),
            });
        }
    }
    Ok(found)
}

/// The keys a process reads: an installation's folder, or that of one role.
pub(super) struct Safe {
    folder: PathBuf,
}

impl Safe {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn key(&self, name: &str) -> Result<Key, Error> {
        Ok(keyfile::load(&self.folder.join(name))?)
    }

    fn text(&self, name: &str) -> Result<String, Error> {
        let path = self.folder.join(name);
        fs::read_to_string(&path).map_err(|source| Error::NoKey { path: path.display().to_string(), source })
    }

    /// The root that signs roles, as others trust it.
    pub(super) fn services(&self) -> Result<String, Error> {
        self.text("services.pem")
    }

    /// The root that signs guests, as others trust it.
    pub(super) fn agents_root(&self) -> Result<String, Error> {
        self.text("agents.pem")
    }

    /// The root that signs guests.
    pub(super) fn agents(&self) -> Result<Authority, Error> {
        let key = Secret::from(self.text("agents.key")?);
        Ok(Authority::load(&self.agents_root()?, key.expose_text().unwrap_or_default())?)
    }

    /// Who this process is.
    pub(super) fn role(&self) -> Result<Identity, Error> {
        self.identity(OWN)
    }

    /// What the listener for guests shows.
    pub(super) fn listener(&self) -> Result<Identity, Error> {
        self.identity(LISTENER)
    }

    fn identity(&self, name: &str) -> Result<Identity, Error> {
        let cert_pem = self.text(&format!("{name}.pem"))?;
        if let Some(ends) = pki::not_after(&cert_pem).filter(|ends| *ends < Micros::wall()) {
            let path = self.folder.join(format!("{name}.pem")).display().to_string();
            return Err(Error::Ended { path, ends: ends.rfc3339() });
        }
        Ok(Identity { cert_pem, key_pem: Secret::from(self.text(&format!("{name}.key"))?) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Listed, Role, Safe, list, make};
    use crate::crypto::pki::{self, uri_of};

    fn names() -> Vec<String> {
        vec!["localhost".to_owned()]
    }

    #[test]
    fn every_role_gets_what_it_needs_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), &names(), false).expect("made");
        let files: Vec<String> = list(folder.path()).expect("listed").into_iter().map(|l| l.file).collect();
        let of = |role: &str| -> Vec<&str> {
            files.iter().filter_map(|file| file.strip_prefix(&format!("{role}/"))).collect()
        };
        assert_eq!(of("km"), ["channel.key", "kek.key", "role.key", "role.pem", "services.pem"]);
        assert_eq!(of("monitor"), ["channel.key", "role.key", "role.pem", "services.pem"]);
        assert_eq!(of("worker"), ["services.pem"]);
        assert_eq!(of("pinger"), ["agents.pem", "role.key", "role.pem", "services.pem"]);
        assert!(of("serve").contains(&"agents.key") && !of("serve").contains(&"kek.key"));
        for role in Role::ALL {
            assert!(!of(role.as_str()).contains(&"services.key"), "{role} must not sign roles");
            let safe = Safe::new(&folder.path().join(role.as_str()));
            let shown = safe.role().ok().and_then(|own| uri_of(&pki::first_der(&own.cert_pem)?));
            assert_eq!(shown.as_deref(), role.uri());
        }
    }

    #[test]
    fn a_repeat_changes_nothing_and_a_renewal_only_certificates_of_roles() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = || {
            let files = list(folder.path()).expect("listed");
            files
                .into_iter()
                .map(|Listed { file, .. }| {
                    let bytes = std::fs::read(folder.path().join(&file)).expect("read");
                    (file, bytes)
                })
                .collect::<std::collections::BTreeMap<_, _>>()
        };
        make(folder.path(), &names(), false).expect("made");
        let first = bytes();
        make(folder.path(), &names(), false).expect("again");
        assert_eq!(bytes(), first);
        make(folder.path(), &names(), true).expect("renewed");
        let renewed = bytes();
        let changed: Vec<&String> = first.keys().filter(|file| first[*file] != renewed[*file]).collect();
        assert!(!changed.is_empty());
        assert!(
            changed.iter().all(|file| file.contains("/role.") || file.contains("/listener.")),
            "{changed:?}"
        );
    }

    #[test]
    fn a_missing_file_says_what_to_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Safe::new(folder.path()).services().expect_err("nothing there").to_string();
        assert!(error.contains("services.pem") && error.contains("dispatcher keys make"), "{error}");
    }
}

//! Where the databases of an installation are: files of its folder, or databases of a server.

use std::path::{Path, PathBuf};

use super::Error;
use super::base::Company;
use crate::config;
use crate::store::{ANALYTICS, AnyConnection, CREDENTIALS, Database, Manager, PROVISIONING};

/// Every database of an installation.
pub const ALL: [Database; 3] = [PROVISIONING, ANALYTICS, CREDENTIALS];

/// The databases as the settings name them.
#[derive(Clone, Copy)]
pub struct Databases<'a> {
    settings: &'a config::Database,
    folder: &'a Path,
}

impl<'a> Databases<'a> {
    /// The databases of these settings; what they leave out are files of the folder.
    #[must_use]
    pub const fn new(settings: &'a config::Database, folder: &'a Path) -> Self {
        Self { settings, folder }
    }

    /// Opens connections to one of them.
    ///
    /// # Errors
    /// When its URL is not understood.
    pub fn manager(&self, which: Database) -> Result<Manager, Error> {
        let key = format!("database.{}", which.name);
        let urls = self.settings.urls();
        let url = urls.iter().find(|(name, _)| *name == key).map_or("", |(_, url)| url.as_str());
        let fault = |source| Error::Url { name: which.name, source };
        if url.is_empty() {
            let file = self.folder.join(format!("{}.db", which.name));
            return Manager::new(&format!("sqlite://{}", file.display())).map_err(fault);
        }
        let manager = Manager::new(url).map_err(fault)?;
        Ok(match self.settings.password_file.as_str() {
            "" => manager,
            file => manager.with_password_file(PathBuf::from(file)),
        })
    }

    /// Makes databases that a server does not have, and takes the one with the jobs for this process where it is to be
    /// alone: a lock that the server lets go with the connection, as the lock on the folder goes with the process.
    pub(super) fn hold(&self, with: Company) -> Result<Option<AnyConnection>, Error> {
        let fault = |name| move |source| Error::Database { name, source };
        let manager = self.manager(PROVISIONING)?;
        if with == Company::Others {
            if !manager.is_server() {
                return Err(Error::NoServer);
            }
            let mut connection = manager.open().map_err(fault(PROVISIONING.name))?;
            return match connection.is_free().map_err(fault(PROVISIONING.name))? {
                true => Ok(None),
                false => Err(Error::DatabaseInUse(manager.target().to_string())),
            };
        }
        for which in ALL {
            match self.manager(which)?.create() {
                Ok(()) => {}
                // It can be spared: its writer makes it when it is there.
                Err(error) if which.name == ANALYTICS.name => {
                    log::warn!("the database of analytics is away: {error}");
                }
                Err(error) => return Err(fault(which.name)(error)),
            }
        }
        if !manager.is_server() {
            return Ok(None);
        }
        let mut connection = manager.open().map_err(fault(PROVISIONING.name))?;
        match connection.hold().map_err(fault(PROVISIONING.name))? {
            true => Ok(Some(connection)),
            false => Err(Error::DatabaseInUse(manager.target().to_string())),
        }
    }
}

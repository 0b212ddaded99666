//! First rows of an installation whose roles are processes of their own: done once, harmless to repeat.

use std::path::{Path, PathBuf};

use super::Error;
use super::base::Ops;
use super::credentials;
use super::databases::{ALL, Databases};
use super::parts::{self, Keys, LOGIN};
use super::role::{INSTALL, KEK, SEAL};
use super::safe::Safe;
use crate::config::Config;
use crate::crypto::{Key, hex};
use crate::store::{CREDENTIALS, PROVISIONING};

/// What `dispatcher setup` was asked for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Settings: where the databases are.
    pub config: Config,
    /// The installation's whole folder of keys.
    pub keys: PathBuf,
}

/// How to get in afterwards. Holds secrets, made at random and shown this once: rows keep a hash and a seal.
#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entrance {
    /// Access key of the first API key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The console's login.
    pub console_user: String,
    /// Its password.
    pub console_password: String,
}

/// Makes the databases and their tables, the first tenant with its administrator and its account at the simulated
/// cloud, and that account's credential. Nothing where all this was done before.
///
/// # Errors
/// [`Error`] says which database or key is the matter.
pub async fn setup(options: &Setup) -> Result<Option<Entrance>, Error> {
    let safe = Safe::new(&options.keys);
    let keys = Keys {
        access_key: random(10).to_uppercase(),
        secret_key: random(20),
        password: random(8),
        ..Keys::of(safe.key(INSTALL)?, &safe.key(SEAL)?)
    };
    let databases = Databases::new(&options.config.database, Path::new(""));
    if !databases.manager(PROVISIONING)?.is_server() {
        return Err(Error::NoServer);
    }
    for which in ALL {
        let fault = |source| Error::Database { name: which.name, source };
        let manager = databases.manager(which)?;
        manager.create().map_err(fault)?;
        which.migrate(&mut manager.open().map_err(fault)?).map_err(fault)?;
    }
    let ops = Ops::new();
    let store = ops.database(&databases, PROVISIONING)?;
    let planted = parts::plant(&store, &keys).await?;
    let credentials = credentials::open(databases.manager(CREDENTIALS)?, &safe.key(KEK)?, &ops).await?;
    credentials::enter(&credentials, &keys.cloud).await?;
    Ok(planted.then(|| Entrance {
        access_key: keys.access_key,
        secret_key: keys.secret_key,
        console_user: LOGIN.to_owned(),
        console_password: keys.password,
    }))
}

/// So many random bytes as text.
fn random(bytes: usize) -> String {
    hex::encode(Key::random().expose()).chars().take(bytes * 2).collect()
}

//! The parts of an embedded installation that are made before anything is started.

use std::sync::Arc;
use std::time::Duration;

use super::cloud::ACCOUNT_NUMBER;
use super::credentials::{CloudCredential, REFERENCE};
use super::databases::Databases;
use super::folder::{Folder, derived};
use super::{Error, adapters};
use crate::access;
use crate::crypto::{Key, KeyRing};
use crate::jobs::DatabaseClock;
use crate::model::Boot;
use crate::ops::Metrics;
use crate::store::provisioning::{node, seed};
use crate::store::{self, ANALYTICS, AnyConnection, Database, PROVISIONING, Store};
use crate::supervision::Supervisor;

/// Console login of the seeded administrator.
pub(super) const LOGIN: &str = "admin";

/// Keys of the installation and what is made from them: the same for one data folder.
pub(super) struct Keys {
    pub(super) install: Arc<Key>,
    pub(super) ring: Arc<KeyRing>,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) password: String,
    pub(super) cloud: CloudCredential,
}

impl Keys {
    pub(super) fn of(folder: &Folder) -> Result<Self, Error> {
        let install = folder.key("install.key")?;
        let seal = folder.key("seal.key")?;
        Ok(Self {
            ring: Arc::new(KeyRing::new(seal.derive("at-rest"))),
            access_key: derived(&install, "dev.access-key", 10).to_uppercase(),
            secret_key: derived(&install, "dev.secret-key", 20),
            password: derived(&install, "dev.console-password", 8),
            cloud: CloudCredential::of(&install),
            install: Arc::new(install),
        })
    }
}

/// The open databases and what belongs to them.
pub(super) struct Rows {
    pub(super) store: Store,
    pub(super) analytics: Store,
    pub(super) boot: Boot,
    pub(super) clock: DatabaseClock,
    /// Keeps other processes away from a server's database.
    pub(super) hold: Option<AnyConnection>,
}

/// Opens the databases, begins this life, and writes the first rows where they are missing.
pub(super) async fn rows(
    databases: &Databases<'_>,
    keys: &Keys,
    (supervisor, metrics): (&Supervisor, &Metrics),
) -> Result<Rows, Error> {
    let hold = databases.hold()?;
    let store = database(databases, PROVISIONING, metrics)?;
    let analytics = database(databases, ANALYTICS, metrics)?;
    let boot = Boot::random();
    for kept in [&store, &analytics] {
        kept.keep(supervisor, &supervisor.arbiter("plumbing"));
    }
    begin_life(&store, boot).await?;
    plant(&store, keys).await?;
    let fault = |source| Error::Database { name: PROVISIONING.name, source };
    let clock = DatabaseClock::start(&store).await.map_err(fault)?;
    Ok(Rows { store, analytics, boot, clock, hold })
}

/// Opens a database.
fn database(databases: &Databases<'_>, which: Database, metrics: &Metrics) -> Result<Store, Error> {
    let manager = databases.manager(which)?;
    let metrics = metrics.clone();
    let told = move |items: usize, took: Duration| metrics.commit(items as u64, took);
    Store::open(which, &store::Settings::new(manager), Arc::new(told))
        .map_err(|source| Error::Database { name: which.name, source })
}

/// Writes this life and declares every earlier one dead: the locks on the folder and on the database prove that none runs.
async fn begin_life(store: &Store, boot: Boot) -> Result<(), Error> {
    let fault = |source| Error::Database { name: "provisioning", source };
    store.write(move |c| node::register(c, boot, "dev")).await.map_err(fault)?;
    store.write(move |c| node::only_i_live(c, boot)).await.map(drop).map_err(fault)
}

/// Writes the first rows where they are missing.
async fn plant(store: &Store, keys: &Keys) -> Result<(), Error> {
    let fault = |source| Error::Database { name: "provisioning", source };
    if store.read(seed::is_seeded).await.map_err(fault)? {
        return Ok(());
    }
    let password_hash = access::hash_password(&keys.password)
        .ok_or_else(|| Error::Part { part: "seeds", text: "the password cannot be hashed".to_owned() })?;
    let secrets = seed::Secrets {
        account_number: ACCOUNT_NUMBER.to_owned(),
        credential: REFERENCE.to_owned(),
        access_key: keys.access_key.clone(),
        sealed_secret: access::seal_api_secret(
            &keys.ring,
            seed::CUSTOMER,
            &keys.access_key,
            keys.secret_key.as_bytes(),
        ),
        login: LOGIN.to_owned(),
        password_hash,
    };
    let catalogue = adapters::catalogue();
    store.write(move |c| seed::seed(c, &catalogue, &secrets)).await.map_err(fault)
}

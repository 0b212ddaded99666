//! The key manager: its database, its first credential, its listener, and the client other roles ask it with.

use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::sync::watch;

use super::Error;
use super::base::{Base, Ops};
use super::folder::derived;
use super::safe::KM_NAME;
use crate::config;
use crate::crypto::pki::{self, Identity};
use crate::crypto::{Algorithm, Key, Secret};
use crate::km::server::{
    Asked, Credential, CredentialError, CredentialStore, Kek, Limits, Place, Rate, Refusal, Server, Settings,
};
use crate::km::{self, Channel, Km, Target};
use crate::store::provisioning::seed;
use crate::store::{self, CREDENTIALS, Manager, Store};

/// Reference of the seeded account's credential.
pub(super) const REFERENCE: &str = "simulated-account";
/// Endpoint the credential may be shown to.
const ENDPOINT: &str = "simulated://local";

/// The seeded account's credential at the simulated cloud.
pub(super) struct CloudCredential {
    pub(super) access_key: String,
    pub(super) secret: String,
}

impl CloudCredential {
    /// The same for every process that has the installation's key.
    pub(super) fn of(install: &Key) -> Self {
        Self {
            access_key: derived(install, "dev.cloud-access-key", 10),
            secret: derived(install, "dev.cloud-secret-key", 20),
        }
    }
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::part("key manager", error)
}

/// Opens the credentials.
pub(super) async fn open(manager: Manager, kek: &Key, ops: &Ops) -> Result<CredentialStore, Error> {
    let opening = store::Settings { readers: 1, ..store::Settings::new(manager) };
    let database = Store::open(CREDENTIALS, &opening, Arc::new(|_, _| {}))
        .map_err(|source| Error::Database { name: CREDENTIALS.name, source })?;
    database.tell(&ops.health, [CREDENTIALS.name, "credentials writes"]);
    database.keep(&ops.supervisor, &ops.supervisor.arbiter("plumbing"));
    let credentials = CredentialStore::new(database, Kek::new(kek, Algorithm::default()));
    credentials.check().await.map_err(|e| fault(&e))?;
    Ok(credentials)
}

/// What both ends of the line to the key manager have.
pub(super) struct Line {
    /// The root of roles.
    pub(super) services: String,
    /// Who this end is.
    pub(super) role: Identity,
    /// Seals what is said.
    pub(super) channel: Key,
}

/// Serves leases until `stop` says so.
pub(super) fn serve(
    credentials: &CredentialStore,
    line: &Line,
    (settings, listeners): (&config::Km, Vec<TcpListener>),
    stop: &watch::Receiver<bool>,
) -> Result<(), Error> {
    let tls = pki::server_config(&line.role, Some(&line.services), true).map_err(|e| fault(&e))?;
    let rate = |per_second: u32| Rate { burst: per_second.saturating_mul(5), per_second };
    let limits =
        Limits { node: rate(settings.per_node), customer: rate(settings.per_tenant), ..Limits::default() };
    let server = Server::new(
        Arc::new(tls),
        Channel::new(&line.channel, Algorithm::default()),
        credentials.clone(),
        Settings { limits, ..Settings::default() },
    );
    for listener in listeners {
        listener.set_nonblocking(true).map_err(|e| fault(&e))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| fault(&e))?;
        let mut stop = stop.clone();
        actix_rt::spawn(server.clone().serve(listener, async move {
            // A dropped sender ends it too.
            let _ = stop.wait_for(|stop| *stop).await;
        }));
    }
    Ok(())
}

/// Enters the first credential where it is missing.
pub(super) async fn enter(store: &CredentialStore, credential: &CloudCredential) -> Result<(), Error> {
    let place = Place {
        reference: REFERENCE.to_owned(),
        customer: seed::CUSTOMER,
        account: seed::ACCOUNT,
        endpoint: ENDPOINT.to_owned(),
    };
    let asked = Asked { reference: REFERENCE, customer: seed::CUSTOMER, account: seed::ACCOUNT };
    match store.get(&asked).await {
        Ok(_) => return Ok(()),
        Err(CredentialError::Refused(Refusal::Unknown)) => {}
        Err(error) => return Err(fault(&error)),
    }
    let entered = Credential {
        access_key: credential.access_key.clone(),
        secret: Secret::from(credential.secret.clone()),
    };
    store.put(&place, entered).await.map(drop).map_err(|e| fault(&e))
}

/// Starts the client of the key manager at this address.
pub(super) fn client(base: &Base, line: &Line, address: String) -> Result<Km, Error> {
    let fault = |error: &(dyn std::error::Error + 'static)| Error::part("key manager client", error);
    let tls = pki::client_config(&line.services, Some(&line.role)).map_err(|e| fault(&e))?;
    let target = Target {
        address,
        server_name: ServerName::try_from(KM_NAME).map_err(|e| fault(&e))?,
        tls: Arc::new(tls),
        channel: Channel::new(&line.channel, Algorithm::default()),
    };
    let ops = &base.ops;
    let links = km::Links { node: base.boot, health: ops.health.clone(), metrics: ops.metrics.clone() };
    let plumbing = ops.supervisor.arbiter("plumbing");
    Ok(km::start(&ops.supervisor, &plumbing, target, km::Settings::default(), links))
}

//! The key manager of an embedded installation: its database, its first credential, its listener, and the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Error;
use super::folder::{Folder, derived};
use crate::config;
use crate::crypto::{Algorithm, Key, Secret, pki};
use crate::km::server::{
    Asked, Credential, CredentialError, CredentialStore, Kek, Limits, Place, Rate, Refusal, Server, Settings,
};
use crate::km::{self, Channel, Km, Target};
use crate::model::Boot;
use crate::ops::{Health, Metrics};
use crate::store::provisioning::seed;
use crate::store::{self, CREDENTIALS, Manager, Store};
use crate::supervision::Supervisor;

/// Reference of the seeded account's credential.
pub(super) const REFERENCE: &str = "simulated-account";
/// Endpoint the credential may be shown to.
const ENDPOINT: &str = "simulated://local";
/// Life of the service certificates; they are made anew at each start.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// URI of the key manager's certificate.
const ROLE: &str = "urn:dispatcher:role:km";
/// Name the client asks for.
const NAME: &str = "km";

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

/// Starts the key manager's server; it ends when `stop` says so.
pub(super) async fn serve(
    folder: &Folder,
    services: &pki::Authority,
    (credential, manager): (&CloudCredential, Manager),
    ((settings, mut stop), supervisor): ((&config::Km, watch::Receiver<bool>), &Supervisor),
) -> Result<(), Error> {
    let fault = |error: &(dyn std::error::Error + 'static)| Error::part("key manager", error);
    let opening = store::Settings { readers: 1, ..store::Settings::new(manager) };
    let database = Store::open(CREDENTIALS, &opening, Arc::new(|_, _| {}))
        .map_err(|source| Error::Database { name: "credentials", source })?;
    database.keep(supervisor, &supervisor.arbiter("plumbing"));
    let kek = Kek::new(&folder.key("kek.key")?, Algorithm::default());
    let credentials = CredentialStore::new(database, kek);
    credentials.check().await.map_err(|e| fault(&e))?;
    enter(&credentials, credential).await?;
    let identity = services.issue_role(ROLE, &[NAME.to_owned()], LIFE).map_err(|e| fault(&e))?;
    let tls = pki::server_config(&identity, Some(services.cert_pem()), true).map_err(|e| fault(&e))?;
    let listener = folder.listener("km", SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listen = || {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let listener = listen().map_err(|e| fault(&e))?;
    let rate = |per_second: u32| Rate { burst: per_second.saturating_mul(5), per_second };
    let limits =
        Limits { node: rate(settings.per_node), customer: rate(settings.per_tenant), ..Limits::default() };
    let server = Server::new(
        Arc::new(tls),
        Channel::new(&folder.key("channel.key")?, Algorithm::default()),
        credentials,
        Settings { limits, ..Settings::default() },
    );
    actix_rt::spawn(server.serve(listener, async move {
        // A dropped sender ends it too.
        let _ = stop.wait_for(|stop| *stop).await;
    }));
    Ok(())
}

/// Enters the first credential where it is missing.
async fn enter(store: &CredentialStore, credential: &CloudCredential) -> Result<(), Error> {
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
        Err(error) => return Err(Error::part("key manager", &error)),
    }
    let entered = Credential {
        access_key: credential.access_key.clone(),
        secret: Secret::from(credential.secret.clone()),
    };
    store.put(&place, entered).await.map(drop).map_err(|e| Error::part("key manager", &e))
}

/// What the client is wired to.
pub(super) struct Client<'a> {
    supervisor: &'a Supervisor,
    boot: Boot,
    health: Health,
    metrics: Metrics,
}

impl<'a> Client<'a> {
    pub(super) fn new(supervisor: &'a Supervisor, boot: Boot, (health, metrics): (Health, Metrics)) -> Self {
        Self { supervisor, boot, health, metrics }
    }
}

/// Starts the dispatcher's client of the key manager.
pub(super) fn client(folder: &Folder, services: &pki::Authority, wired: Client<'_>) -> Result<Km, Error> {
    let fault = |error: &(dyn std::error::Error + 'static)| Error::part("key manager client", error);
    let identity = services
        .issue_role("urn:dispatcher:role:dispatcher", &["dispatcher".to_owned()], LIFE)
        .map_err(|e| fault(&e))?;
    let tls = pki::client_config(services.cert_pem(), Some(&identity)).map_err(|e| fault(&e))?;
    let port = std::fs::read_to_string(folder.path.join("port.km")).unwrap_or_default();
    let key: Key = folder.key("channel.key")?;
    let target = Target {
        address: format!("127.0.0.1:{}", if port.is_empty() { "1" } else { port.trim() }),
        server_name: ServerName::try_from(NAME).map_err(|e| fault(&e))?,
        tls: Arc::new(tls),
        channel: Channel::new(&key, Algorithm::default()),
    };
    let links = km::Links { node: wired.boot, health: wired.health, metrics: wired.metrics };
    Ok(km::start(
        wired.supervisor,
        &wired.supervisor.arbiter("plumbing"),
        target,
        km::Settings::default(),
        links,
    ))
}

//! The key manager: the only process that reads the credentials database.
//!
//! A request passes the transport (mutual TLS 1.3), its seal, [`admission`](Limits) (rate, clock, replay), the
//! tenant's and account's right to the credential, and the credential's own seal. Whatever fails behind the seal is
//! answered by the one word *denied*; why stands in the audit log (target `dispatcher::km::audit`), a line for each
//! lease and each refusal. What says nothing about credentials is answered plainly, so that an honest asker can wait:
//! too many requests, the database is down, the clocks differ.

mod admission;
mod connection;
mod credentials;
mod schema;
mod vault;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use admission::{Limits, Rate};
pub use credentials::{Asked, CredentialError, CredentialStore, Found, Refusal};
pub use vault::{Credential, Kek, Place};

use super::Channel;
use admission::Admission;

/// How the key manager serves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rates and memory.
    pub limits: Limits,
    /// How long a lease is good.
    pub lease: Duration,
    /// Connections at once; further ones wait in the listener's queue.
    pub connections: usize,
    /// Longest TLS handshake, and longest time for sending one answer.
    pub patience: Duration,
    /// A connection without any request for so long is closed.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lease: Duration::from_secs(300),
            connections: 256,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(120),
        }
    }
}

/// The key manager, ready to serve.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    tls: tokio_rustls::TlsAcceptor,
    channel: Channel,
    credentials: CredentialStore,
    settings: Settings,
    admission: Mutex<Admission>,
    started: Instant,
}

impl Server {
    /// `tls` must demand client certificates; connections without one, or below TLS 1.3, are refused here again.
    #[must_use]
    pub fn new(
        tls: Arc<ServerConfig>,
        channel: Channel,
        credentials: CredentialStore,
        settings: Settings,
    ) -> Self {
        let shared = Shared {
            tls: tls.into(),
            channel,
            credentials,
            settings,
            admission: Mutex::new(Admission::new(settings.limits)),
            started: Instant::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves until `shutdown` resolves, then closes every connection: a request cut off so is asked again.
    /// Dropping the future does the same.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.shared.settings.connections));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&listener, &places) => accepted,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(e) = ended && e.is_panic() {
                        log::error!("a connection to the key manager panicked; others are not touched");
                    }
                    continue;
                }
            };
            let Some((stream, from, place)) = accepted else { continue };
            let shared = Arc::clone(&self.shared);
            connections.spawn(async move {
                connection::serve(&shared, stream, from).await;
                drop(place);
            });
        }
    }
}

type Accepted = (tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, from)) => Some((stream, from, place)),
        Err(e) => {
            log::warn!("the key manager could not accept a connection: {e}");
            // Out of file descriptors, most likely: trying again at once would only spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests;

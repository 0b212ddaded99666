//! The listeners of a process, and the servers behind them.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use rustls::ServerConfig;

use super::Error;
use super::base::Ops;
use super::folder::Folder;
use crate::store::Store;
use crate::supervision::limited;
use crate::web;

/// How long health can still be read after the process was found unable to go on.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Open listeners. Health is told by the last one.
#[derive(Default)]
pub(super) struct Doors {
    servers: Vec<ServerHandle>,
    ops: Option<ServerHandle>,
}

impl Doors {
    /// Runs a server.
    pub(super) fn open(&mut self, server: Server) {
        self.servers.push(server.handle());
        actix_rt::spawn(server);
    }

    /// Opens the operators' listeners; the URL of the first.
    pub(super) fn open_ops(
        &mut self,
        (ops, store): (&Ops, Option<&Store>),
        (folder, addresses): (&Folder, &[SocketAddr]),
    ) -> Result<String, Error> {
        let listeners = bind(folder, "ops", addresses)?;
        let url = url("http", &listeners)?;
        let shown = web::Ops {
            store: store.cloned(),
            health: ops.health.clone(),
            metrics: ops.metrics.clone(),
            supervisor: ops.supervisor.clone(),
        };
        let server = web::ops_server(shown, listeners).map_err(|e| Error::part("ops listener", &e))?;
        self.ops = Some(server.handle());
        actix_rt::spawn(server);
        Ok(url)
    }

    /// Takes no more requests, and lets those at work come to their end.
    pub(super) async fn close(&self) {
        for server in &self.servers {
            server.stop(true).await;
        }
    }

    /// Ends the operators' listeners: the last thing that is heard of a process.
    pub(super) async fn close_ops(&self) {
        if let Some(ops) = &self.ops {
            ops.stop(true).await;
        }
    }

    /// Ends what cannot go on: nothing is waited for that may never come. Health can be read for a moment, so that
    /// whoever asks every second or so hears why.
    pub(super) async fn abandon(self) {
        let said = tokio::time::Instant::now();
        for server in self.servers {
            // Sent at once; whether the last request got its answer is not waited for.
            drop(server.stop(false));
        }
        tokio::time::sleep_until(said + LAST_WORDS).await;
        if let Some(ops) = self.ops {
            let _late = limited(LAST_WORDS, ops.stop(false)).await;
        }
    }
}

/// Binds a listener to each address; the ports are kept in the folder.
pub(super) fn bind(folder: &Folder, name: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Error> {
    let named = addresses.iter().enumerate().map(|(number, address)| {
        let name = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
        folder.listener(&name, *address)
    });
    Ok(named.collect::<Result<_, _>>()?)
}

/// URL of the first of these listeners.
pub(super) fn url(scheme: &str, listeners: &[TcpListener]) -> Result<String, Error> {
    let first = listeners
        .first()
        .ok_or_else(|| Error::Part { part: "listener", text: "no address is given".to_owned() })?;
    let address = first.local_addr().map_err(|e| Error::part("listener", &e))?;
    Ok(format!("{scheme}://{address}"))
}

/// What the listener for guests shows.
pub(super) fn shown_to_guests(identity: &crate::crypto::pki::Identity) -> Result<ServerConfig, Error> {
    crate::crypto::pki::server_config(identity, None, false).map_err(|e| Error::part("agent listener", &e))
}

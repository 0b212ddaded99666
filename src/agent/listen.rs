//! The listener: lets in the dispatcher's role and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::core::Event;
use super::home::Identity;
use super::{Settings, session};
use crate::crypto::pki;
use crate::wire::{FRAME_LIMIT, SESSION_PATH, SUBPROTOCOL};

/// Connections at once; the dispatcher needs one, two while it changes over.
const CONNECTIONS: usize = 16;

/// Size of a connection's read and write buffers; the library's are 128 KiB each.
const BUFFER: usize = 16 * 1024;

/// What a connection is after all greetings.
pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Takes connections for as long as the agent lives.
pub(super) async fn accept(
    listener: TcpListener,
    mut identities: watch::Receiver<Option<Identity>>,
    events: mpsc::Sender<Event>,
    settings: Arc<Settings>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let numbers = AtomicU64::new(0);
    // Dropped with this future: sessions end with the listener.
    let mut sessions = tokio::task::JoinSet::new();
    // Before enrolment there is nothing to show a client.
    if identities.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        while sessions.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                log::warn!("a connection could not be taken: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Ok(place), Some(identity)) =
            (Arc::clone(&places).try_acquire_owned(), identities.borrow().clone())
        else {
            log::warn!("{peer} is turned away: {CONNECTIONS} connections are open");
            continue;
        };
        let connection = numbers.fetch_add(1, Ordering::Relaxed);
        let (events, settings) = (events.clone(), Arc::clone(&settings));
        sessions.spawn(async move {
            let server = identity.server;
            match tokio::time::timeout(settings.limits.greeting, greet(stream, identity)).await {
                Ok(Ok(socket)) => session::run(socket, connection, server, &events, &settings.limits).await,
                Ok(Err(reason)) => log::warn!("{peer} is turned away: {reason}"),
                Err(_) => log::warn!("{peer} is turned away: it did not greet in time"),
            }
            drop(place);
        });
    }
}

/// TLS with a client certificate of the services root, the dispatcher's role, and the WebSocket of our subprotocol.
async fn greet(stream: TcpStream, identity: Identity) -> Result<Socket, String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let tls = TlsAcceptor::from(identity.tls).accept(stream).await.map_err(|e| e.to_string())?;
    let peer = tls.get_ref().1.peer_certificates().and_then(|certs| certs.first());
    let uri = peer.and_then(|cert| pki::uri_of(cert));
    if uri.as_deref() != Some(pki::DISPATCHER_ROLE) {
        return Err(format!("its certificate names {}", uri.as_deref().unwrap_or("nobody")));
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_LIMIT))
        .max_frame_size(Some(FRAME_LIMIT))
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    tokio_tungstenite::accept_hdr_async_with_config(tls, check_request, Some(config))
        .await
        .map_err(|e| e.to_string())
}

#[expect(clippy::result_large_err, reason = "the signature is the WebSocket library's")]
fn check_request(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let ours = offered.is_some_and(|names| names.split(',').any(|name| name.trim() == SUBPROTOCOL));
    if request.uri().path() != SESSION_PATH || !ours {
        let mut refusal =
            ErrorResponse::new(Some(format!("only {SESSION_PATH} with {SUBPROTOCOL} is served")));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

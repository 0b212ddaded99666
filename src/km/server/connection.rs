//! One connection to the key manager: TLS, hello, then requests and answers in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::PoisonError;

use rustls::ProtocolVersion;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::super::frame;
use super::super::wire::{Answer, Granted, LaterCause, LeaseRequest, Question, Session, WireError};
use super::Shared;
use super::admission::{Moment, Turn};
use super::credentials::{Asked, CredentialError, Found};
use crate::crypto::{self, pki};
use crate::model::Micros;
use crate::ops::Chain;
use crate::ops::failpoint::hit;

/// Where leases and refusals are written down.
const AUDIT: &str = "dispatcher::km::audit";

/// Who is at the other end.
struct Peer {
    from: SocketAddr,
    /// Hash of the certificate: the identity that rates are counted by.
    certificate: [u8; 32],
}

/// Why a connection ended otherwise than by the peer's leave.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("nothing came or went in time")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("the peer speaks no TLS 1.3 or showed no certificate")]
    Unidentified,
    #[error("its certificate names {0}, which asks for no credentials")]
    Stranger(String),
    #[error("a message was refused")]
    Wire(#[from] WireError),
}

pub(super) async fn serve(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    match talk(shared, stream, from).await {
        Ok(()) | Err(End::TimedOut(_)) => log::debug!("key manager: connection from {from} ended"),
        Err(End::Io(e)) => log::debug!("key manager: connection from {from} broke: {e}"),
        Err(e @ (End::Unidentified | End::Stranger(_) | End::Wire(_))) => {
            log::warn!(target: AUDIT, from:% = from; "connection from {from} refused: {}", Chain(&e));
        }
    }
}

async fn talk(shared: &Shared, stream: TcpStream, from: SocketAddr) -> Result<(), End> {
    let patience = shared.settings.patience;
    stream.set_nodelay(true)?;
    let mut stream = timeout(patience, shared.tls.accept(stream)).await??;
    let certificate = certificate(&stream).ok_or(End::Unidentified)?;
    if let Some(uri) = stranger(&stream) {
        return Err(End::Stranger(uri));
    }
    let peer = Peer { from, certificate };
    let session = Session::random();
    timeout(patience, frame::write(&mut stream, &shared.channel.seal_hello(session))).await??;
    while let Some(bytes) = timeout(shared.settings.idle, frame::read(&mut stream)).await?? {
        // An empty frame asks whether somebody is there.
        let reply =
            if bytes.is_empty() { Vec::new() } else { answer(shared, &peer, session, &bytes).await? };
        timeout(patience, frame::write(&mut stream, &reply)).await??;
    }
    Ok(())
}

fn certificate(stream: &TlsStream<TcpStream>) -> Option<[u8; 32]> {
    let (_, tls) = stream.get_ref();
    if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    tls.peer_certificates()?.first().map(crypto::sha256)
}

/// Who a peer says it is that has no business with credentials.
fn stranger(stream: &TlsStream<TcpStream>) -> Option<String> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let uri = shown.and_then(|certificate| pki::uri_of(certificate));
    match uri.as_deref() {
        Some(pki::DISPATCHER_ROLE | pki::MONITOR_ROLE) => None,
        other => Some(other.unwrap_or("nobody").to_owned()),
    }
}

async fn answer(shared: &Shared, peer: &Peer, session: Session, bytes: &[u8]) -> Result<Vec<u8>, End> {
    let question = shared.channel.open_request(session, bytes)?;
    let answer = decide(shared, peer, &question).await;
    Ok(shared.channel.seal_answer(&question, &answer))
}

async fn decide(shared: &Shared, peer: &Peer, question: &Question) -> Answer {
    let request = question.request();
    let now = Moment { wall: Micros::wall(), uptime: shared.started.elapsed() };
    let turn = {
        let mut admission = shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        admission.decide(peer.certificate, request, now)
    };
    match turn {
        Turn::Admitted => lease(shared, peer, request, now.wall).await,
        Turn::Clock => {
            refused(peer, request, &format!("its clock is {} s away", request.skew(now.wall).as_secs()));
            Answer::Clock(now.wall)
        }
        Turn::Replayed => {
            refused(peer, request, "its request id was used before");
            Answer::Denied
        }
        Turn::Limited { whose, first } => {
            if first {
                refused(peer, request, &format!("too many requests ({whose}); further ones are not listed"));
            }
            Answer::Later(LaterCause::Rate)
        }
    }
}

async fn lease(shared: &Shared, peer: &Peer, request: &LeaseRequest, now: Micros) -> Answer {
    let asked =
        Asked { reference: &request.credential, customer: request.customer, account: request.account };
    hit("lease.answer");
    match shared.credentials.get(&asked).await {
        Ok(found) => {
            granted(peer, request, &found);
            Answer::Lease(Granted {
                access_key: found.credential.access_key,
                secret: found.credential.secret,
                endpoint: found.place.endpoint,
                expires_at: now.plus(shared.settings.lease),
            })
        }
        Err(CredentialError::Database(e)) => {
            log::error!("key manager: {}", Chain(&e));
            Answer::Later(LaterCause::Database)
        }
        Err(e @ CredentialError::Keys(_)) => {
            log::error!("key manager: {}", Chain(&e));
            Answer::Later(LaterCause::Keys)
        }
        Err(e) => {
            refused(peer, request, &Chain(&e).to_string());
            Answer::Denied
        }
    }
}

fn granted(peer: &Peer, r: &LeaseRequest, found: &Found) {
    log::info!(
        target: AUDIT,
        request:% = r.request_id, job:% = r.job, attempt:% = r.attempt, node = r.node;
        "lease granted: credential {} version {} of tenant {}, account {}, endpoint {}, for {} (job {}, attempt {}, request {}, node {} at {})",
        r.credential, found.version, r.customer, r.account, found.place.endpoint, r.purpose, r.job, r.attempt,
        r.request_id, r.node, peer.from
    );
}

fn refused(peer: &Peer, r: &LeaseRequest, why: &str) {
    log::warn!(
        target: AUDIT,
        request:% = r.request_id, job:% = r.job, attempt:% = r.attempt, node = r.node;
        "lease refused: {why}; asked for credential {} of tenant {}, account {}, for {} (job {}, attempt {}, request {}, node {} at {})",
        r.credential, r.customer, r.account, r.purpose, r.job, r.attempt, r.request_id, r.node, peer.from
    );
}

//! Who signed a request, and what makes it unique.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, USER_AGENT};

use super::{Fault, RequestId, State};
use crate::access::signature::{dated, native};
use crate::access::{Error, Principal};
use crate::crypto::{Aad, hex, sha256};
use crate::model::Uid;
use crate::store::provisioning::accept::{Entry, IdemKey};

/// Header of a client's idempotency key.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest idempotency key, in bytes.
const LONGEST_KEY: usize = 255;

/// Somebody who signed a request, with the request's marks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// Name of the request.
    pub request: Uid,
    /// What makes a write unique; none for reads.
    pub replay: Option<String>,
    /// Idempotency key with the hash of what is asked.
    pub idem: Option<IdemKey>,
    /// Whether a repeat with the same replay value may be answered by its idempotency key (dated API).
    pub repeat_by_key: bool,
}

impl Caller {
    /// The record that a write begins with.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry {
            customer: self.principal.customer,
            access_key: self.principal.access_key.clone(),
            request: self.request,
            replay: self.replay.clone(),
            idem: self.idem.clone(),
            repeat_by_key: self.repeat_by_key,
        }
    }
}

/// Who signed a request of the dated API.
///
/// # Errors
/// 403 with what is wrong, 400 for an unusable idempotency key, 503 when keys cannot be checked.
pub async fn dated(request: &HttpRequest, body: &[u8], state: &State) -> Result<Caller, Fault> {
    let access_key = header(request, "x-esauth-access")?;
    let timestamp = header(request, "x-esauth-timestamp")?;
    let signature = header(request, "x-esauth-signature")?;
    let user_agent = header(request, USER_AGENT.as_str())?;
    let method = request.method().as_str();
    let parts = dated::Parts { access_key, method, path: request.uri().path(), timestamp, user_agent };
    let principal = state.access.dated(&parts, signature).await?;
    let idem = idempotency(request, body)?;
    let key = idem.as_ref().map(|idem| idem.key.as_str());
    let replay =
        (!is_read(method)).then(|| dated::replay_value(signature, request.query_string(), body, key));
    Ok(Caller { principal, request: RequestId::of(request).0, replay, idem, repeat_by_key: true })
}

/// Who signed a request of the native API. The nonce of a write is the replay value of [`Caller::entry`] and must be
/// stored with the write; that of a read was checked in memory.
///
/// # Errors
/// As [`dated()`].
pub async fn native(request: &HttpRequest, body: &[u8], state: &State) -> Result<Caller, Fault> {
    let timestamp = header(request, native::TIMESTAMP_HEADER)?;
    let method = request.method().as_str();
    let nonce = header(request, native::NONCE_HEADER)?;
    let parts = native::Parts {
        method,
        path: request.uri().path(),
        query: request.query_string(),
        body,
        host: host(request)?,
        timestamp_ms: timestamp.parse().ok().ok_or(Error::BadHeader {
            name: native::TIMESTAMP_HEADER,
            remedy: "milliseconds since 1970 as decimal digits",
        })?,
        nonce,
        key_id: header(request, native::KEY_HEADER)?,
    };
    let principal = state.access.native(&parts, header(request, native::SIGNATURE_HEADER)?).await?;
    let replay = (!is_read(method)).then(|| native::replay_value(nonce));
    let idem = idempotency(request, body)?;
    Ok(Caller { principal, request: RequestId::of(request).0, replay, idem, repeat_by_key: false })
}

fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

/// The host as signed: the header as sent, never what a proxy claims.
fn host(request: &HttpRequest) -> Result<&str, Fault> {
    match request.uri().authority() {
        Some(authority) => Ok(authority.as_str()),
        None => header(request, HOST.as_str()),
    }
}

/// The one value of a header that a signature covers. Two values could be read differently by two readers.
fn header<'a>(request: &'a HttpRequest, name: &'static str) -> Result<&'a str, Fault> {
    let mut values = request.headers().get_all(name);
    let value = values.next().ok_or(Error::MissingHeader(name))?;
    if values.next().is_some() {
        return Err(Error::BadHeader { name, remedy: "it must be there once" }.into());
    }
    let remedy = "only visible ASCII may stand in it";
    value.to_str().ok().ok_or_else(|| Error::BadHeader { name, remedy }.into())
}

/// The idempotency key of a write with the hash of what is asked; reads need none.
///
/// # Errors
/// 400 when the header is there twice, empty, too long or no visible ASCII.
pub fn idempotency(request: &HttpRequest, body: &[u8]) -> Result<Option<IdemKey>, Fault> {
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next().filter(|_| !is_read(request.method().as_str())) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    let (Some(key), None) = (key, values.next()) else {
        let message = "header Idempotency-Key must be there once, with 1 to 255 visible ASCII characters";
        return Err(Fault::bad(message));
    };
    let what = Aad::new("idempotency")
        .with("method", request.method().as_str())
        .with("path", request.uri().path())
        .with("query", request.query_string())
        .with("body", body);
    Ok(Some(IdemKey { key: key.to_owned(), body_hash: hex::encode(&sha256(what.as_bytes())) }))
}

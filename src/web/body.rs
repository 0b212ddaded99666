//! Reading a body within limits: of size, and of time.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::StreamExt as _;

use super::Fault;

/// How much of a too large body is read and thrown away, so that the client gets to read our answer instead of a
/// reset connection.
const DRAIN: usize = 8 * 1024 * 1024;

/// The whole body.
///
/// # Errors
/// 413 above `limit` bytes, 408 when it is not there in time, 400 when the connection breaks.
pub async fn read(
    request: &HttpRequest,
    payload: Payload,
    limit: usize,
    deadline: Duration,
) -> Result<Bytes, Fault> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced == Some(0) || (announced.is_none() && !request.chunked().unwrap_or(false)) {
        return Ok(Bytes::new());
    }
    tokio::time::timeout(deadline, collect(payload, limit)).await.unwrap_or_else(|_| {
        let message =
            format!("the body was not complete after {} seconds; send it faster", deadline.as_secs());
        Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", message))
    })
}

async fn collect(mut payload: Payload, limit: usize) -> Result<Bytes, Fault> {
    let mut body = BytesMut::new();
    let mut total = 0_usize;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| Fault::bad(format!("the body could not be read: {e}")))?;
        total = total.saturating_add(chunk.len());
        if total > DRAIN {
            break;
        }
        if total <= limit {
            body.extend_from_slice(&chunk);
        }
    }
    if total > limit { Err(Fault::too_large(limit)) } else { Ok(body.freeze()) }
}

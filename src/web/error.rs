//! Errors as answers: a status and `{"error":{"message": …}}`. The message names the thing, the value and the remedy.
//!
//! 500 is our fault, 503 means try later and says when.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};

use super::RequestId;
use crate::{access, ops, registry, store};

/// Header with the name of the request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer that is not what was asked for. One shape for all APIs: the dated one reads `error.message` only.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    request: Option<RequestId>,
}

impl Fault {
    /// Status, machine code and a message for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), request: None }
    }

    /// 400: the request cannot be understood, or a value in it is wrong.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// 403: known who, but not allowed; or not known who.
    #[must_use]
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404: there is no such thing, or it is another tenant's.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// 409: it stands against what is there.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 413: more bytes than taken.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than the {limit} bytes taken; send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    /// 501: known, but not built.
    #[must_use]
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", message)
    }

    /// 503: try again in a second.
    #[must_use]
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// 500: our fault. The cause goes to the log, not to the client.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        log::error!("a request failed by our fault: {}", ops::Chain(cause));
        let message =
            "the request failed by a fault of the server; its log has the cause under this request id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The same, with the name of the request in it.
    #[must_use]
    pub const fn of(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The machine code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl std::error::Error for Fault {}

#[derive(serde::Serialize)]
struct Answer<'a> {
    error: Body<'a>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        let request_id = self.request.map(|id| id.0.to_string());
        if let Some(id) = &request_id {
            response.insert_header((REQUEST_ID, id.as_str()));
        }
        response.json(Answer { error: Body { message: &self.message, code: self.code, request_id } })
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Busy | store::Error::Unknown => Self::busy(error.to_string()),
            store::Error::Unavailable(_) | store::Error::Connect(_) => {
                log::warn!("the provisioning database is not available: {}", ops::Chain(&error));
                let message =
                    "the provisioning database is not available; nothing was stored, try again in a second";
                Self::busy(message)
            }
            store::Error::Query(_)
            | store::Error::Panicked(_)
            | store::Error::Corrupt { .. }
            | store::Error::Migration { .. } => Self::internal(&error),
        }
    }
}

impl From<registry::Error> for Fault {
    fn from(error: registry::Error) -> Self {
        use registry::Error as E;
        let message = error.to_string();
        match &error {
            E::Conflict => Self::new(StatusCode::CONFLICT, "idempotency-conflict", message),
            E::Replayed => Self::forbidden("replayed", message),
            E::Busy | E::Unknown => Self::busy(message),
            E::Unavailable(_) => {
                log::warn!("a submit was refused: {}", ops::Chain(&error));
                Self::busy(message)
            }
            E::NoSuchJob(_) | E::NoSuchPause(_) | E::NoSuchLimit(..) => Self::not_found(message),
            E::Ended(_)
            | E::NotSetAside(..)
            | E::NotComplete(_)
            | E::TooManyPauses(_)
            | E::TooManyLimits(_) => Self::conflict(message),
            E::Internal(_) => Self::internal(&error),
        }
    }
}

impl From<access::Error> for Fault {
    fn from(error: access::Error) -> Self {
        use access::Error as E;
        let message = error.to_string();
        match error {
            E::MissingHeader(_) => Self::forbidden("unsigned", message),
            E::BadHeader { .. } => Self::forbidden("bad-header", message),
            E::Stale { .. } => Self::forbidden("stale", message),
            E::UnknownKey(_) => Self::forbidden("unknown-key", message),
            E::WrongSignature(_) => Self::forbidden("wrong-signature", message),
            E::Replayed => Self::forbidden("replayed", message),
            E::Forbidden { .. } => Self::forbidden("not-allowed", message),
            E::Store(error) => error.into(),
            E::Unreadable(..) => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::body::MessageBody as _;

    use super::{Fault, RequestId};
    use crate::model::Uid;

    #[test]
    fn an_error_is_json_with_its_request_and_503_says_when() {
        let request = RequestId(Uid::random());
        let response = Fault::busy("too many").of(request).error_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers().get("retry-after").expect("says when"), "1");
        assert_eq!(response.headers().get("x-request-id").expect("named"), &request.0.to_string());
        let body = response.into_body().try_into_bytes().unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["message"], "too many");
        assert_eq!(body["error"]["requestId"], request.0.to_string());
    }
}

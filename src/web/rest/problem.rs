//! Errors of the native API: `application/problem+json` (RFC 9457) with the field at fault and the request's id.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde_json::json;

use crate::web::{Fault, RequestId, error::REQUEST_ID};

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    more: Option<Box<More>>,
    request: Option<RequestId>,
}

/// Faults of several fields.
#[derive(Debug)]
struct More {
    /// What is said about the first.
    first: String,
    /// The other fields, each with what is said about it.
    others: Vec<(String, String)>,
}

impl Problem {
    /// 400: this field of the body or the query is at fault.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "bad-field",
            detail: detail.into(),
            field: Some(field.into()),
            more: None,
            request: None,
        }
    }

    /// 404: a field names something that is not there, or is another tenant's.
    #[must_use]
    pub fn absent(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not-found", ..Self::field(field, detail) }
    }

    /// The same fault of a field within another.
    #[must_use]
    pub fn moved(&self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status: self.status, code: self.code, ..Self::field(field, detail) }
    }

    /// The same, naming the request.
    #[must_use]
    pub fn of(mut self, request: &HttpRequest) -> Self {
        self.request = Some(RequestId::of(request));
        self
    }

    /// This problem, telling of another one too.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        let more = self
            .more
            .get_or_insert_with(|| Box::new(More { first: self.detail.clone(), others: Vec::new() }));
        more.others
            .extend(other.faults().iter().map(|(field, said)| ((*field).to_owned(), (*said).to_owned())));
        self.detail = format!("{}; {}", self.detail, other.detail);
        self
    }

    /// Every field at fault, each with what is said about it: what a form shows.
    #[must_use]
    pub fn faults(&self) -> Vec<(&str, &str)> {
        let said = self.more.as_ref().map_or(self.detail.as_str(), |more| more.first.as_str());
        let first = self.field.as_deref().map(|field| (field, said));
        let others = self.more.iter().flat_map(|more| &more.others);
        let others = others.map(|(field, said)| (field.as_str(), said.as_str()));
        first.into_iter().chain(others).collect()
    }

    /// The machine word for what is wrong.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What is said about it.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The field at fault.
    #[must_use]
    pub fn at_fault(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl<E: Into<Fault>> From<E> for Problem {
    fn from(error: E) -> Self {
        let fault = error.into();
        let (status, code, detail) = (fault.status(), fault.code(), fault.message().to_owned());
        Self { status, code, detail, field: None, more: None, request: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        let request = self.request.map(|id| id.0.to_string());
        if let Some(id) = &request {
            response.insert_header((REQUEST_ID, id.as_str()));
        }
        let mut body = json!({
            "type": format!("urn:dispatcher:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "requestId": request,
        });
        if let (Some(field), Some(fields)) = (&self.field, body.as_object_mut()) {
            fields.insert("field".to_owned(), json!(field));
        }
        response.body(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Problem;
    use crate::web::Fault;
    use actix_web::ResponseError as _;
    use actix_web::body::MessageBody as _;

    #[test]
    fn a_problem_names_field_status_and_kind() {
        let response = Problem::field("params.name", "is missing").error_response();
        assert_eq!(response.headers().get("content-type").expect("typed"), "application/problem+json");
        let body = response.into_body().try_into_bytes().unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&body["status"], &body["field"]), (&400.into(), &"params.name".into()));
        assert_eq!(body["type"], "urn:dispatcher:problem:bad-field");
        let both = Problem::field("a", "one").and(&Problem::field("b", "two"));
        assert_eq!((both.detail(), both.faults()), ("one; two", vec![("a", "one"), ("b", "two")]));
        let busy = Problem::from(Fault::busy("later"));
        assert_eq!(busy.error_response().headers().get("retry-after").expect("says when"), "1");
    }
}

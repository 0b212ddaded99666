//! `GET /openapi.json`: what this API is, for programs. It tells nothing of any tenant, so nobody is asked who they are.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;

/// OpenAPI 3.1.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(DOCUMENT)
}

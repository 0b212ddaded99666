//! The route tables. What is not here does not exist.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Fault, RequestId, console, enstratus, ops, rest};

/// The listener of the APIs and the console.
pub fn api(config: &mut web::ServiceConfig) {
    config
        // GET /api/enstratus (unsigned), /api/enstratus/{version}/{area}/{resource}[/{id}]: its own table.
        .configure(enstratus::configure)
        // /api/v1/…
        .configure(rest::configure)
        // /, /login, /assets/…
        .configure(console::configure)
        .default_service(web::route().to(unknown));
}

/// The operators' listener.
pub fn ops(config: &mut web::ServiceConfig) {
    config.configure(ops::configure).default_service(web::route().to(unknown));
}

/// Answer for a path nobody serves.
///
/// # Errors
/// Always 404.
pub async fn unknown(request: HttpRequest) -> Result<HttpResponse, Fault> {
    let path: String = request.path().chars().take(200).collect();
    Err(Fault::not_found(format!("there is nothing at {path}")).of(RequestId::of(&request)))
}

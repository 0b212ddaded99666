//! Routes of this part.

/// Attempts to log in.
#[derive(Debug, Default)]
pub struct Desk;

/// Adds the routes.
pub fn configure(_config: &mut actix_web::web::ServiceConfig) {}

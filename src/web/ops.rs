//! Routes of the operators' listener.

/// Adds the routes.
pub fn configure(_config: &mut actix_web::web::ServiceConfig) {}

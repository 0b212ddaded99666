//! Routes of this part.

/// Adds the routes.
pub fn configure(_config: &mut actix_web::web::ServiceConfig) {}

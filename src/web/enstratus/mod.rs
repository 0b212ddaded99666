//! The dated API, as the clients of the original product speak it: `/api/enstratus/<version>/<area>/<resource>[/<id>]`.
//!
//! One entry for all of it (`entry`): read the body, check the signature, find the row of the `table`, check the
//! permission the row names, answer a repeat by its idempotency key, run the row's function. A resource cannot be
//! reached without a row, and a row cannot be written without a permission.

mod account;
mod api_key;
mod billing_code;
mod call;
mod cloud;
mod customer;
mod entry;
mod group;
mod image;
mod input;
mod job;
mod product;
mod query;
mod region;
mod reply;
mod role;
mod server;
mod server_edit;
mod server_json;
mod server_launch;
mod server_operate;
mod submit;
mod subscription;
mod table;
mod user;
mod write;

#[cfg(test)]
mod tests;

pub use entry::VERSIONS;

use actix_web::dev::HttpServiceFactory;
use actix_web::middleware::from_fn;
use actix_web::web;

use super::stale;

/// Things at a path, whose reads are remembered for the time the database is away.
fn remembered(path: &str) -> impl HttpServiceFactory + use<> + 'static {
    web::resource(path).route(web::route().to(entry::serve)).wrap(from_fn(stale::remembering))
}

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/api/enstratus", web::get().to(entry::versions))
        .service(remembered("/api/enstratus/{version}/{area}/{resource}"))
        .service(remembered("/api/enstratus/{version}/{area}/{resource}/{id}"));
}

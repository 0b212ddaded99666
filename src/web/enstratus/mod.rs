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

use actix_web::web;

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/api/enstratus", web::get().to(entry::versions))
        .route("/api/enstratus/{version}/{area}/{resource}", web::route().to(entry::serve))
        .route("/api/enstratus/{version}/{area}/{resource}/{id}", web::route().to(entry::serve));
}

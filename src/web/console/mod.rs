//! The console: pages for people, behind a login. Pages work without script; with it they are live.
//!
//! Everything shown goes through escaping templates and, where it comes from outside, through `words::plain`; no
//! page has inline script or style, and the policy sent with each says so to the browser.

mod actors;
mod acts;
mod agent;
mod answer;
mod assets;
mod bars;
mod command;
mod door;
mod events;
mod facets;
mod figures;
mod fleet;
mod forms;
#[cfg(test)]
mod forms_tests;
mod frame;
mod jobs;
mod launch;
mod moves;
mod overview;
mod pages;
mod plans;
mod raw;
mod remembered;
mod said;
mod server;
mod show;
mod taste;
#[cfg(test)]
mod tests;
mod witness;
mod words;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;

pub use door::Desk;

use super::{Fault, State};
use crate::access::Principal;

/// What a browser may load and do: our own files, nothing inline, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        // --- the door
        .route("/login", web::get().to(door::form))
        .route("/login", web::post().to(door::login))
        .route("/logout", web::post().to(door::logout))
        .route("/taste", web::post().to(taste::keep))
        // --- the same as the API shows it
        .route("/{page:.+}.json", web::get().to(raw::redirect))
        // --- pages
        .route("/", web::get().to(overview::overview))
        .route("/jobs", web::get().to(jobs::jobs))
        .route("/jobs/views", web::post().to(jobs::views))
        .route("/plans", web::post().to(plans::make))
        .route("/plans/{id}", web::get().to(plans::show))
        .route("/plans/{id}/run", web::post().to(plans::run))
        .route("/jump", web::get().to(pages::jump))
        .route("/jobs/new", web::get().to(launch::choose))
        .route("/jobs/new/launch", web::get().to(launch::form))
        .route("/jobs/new/launch", web::post().to(launch::submit))
        .route("/jobs/new/command", web::get().to(fleet::guests))
        .route("/jobs/{id}", web::get().to(pages::job))
        .route("/jobs/{id}/output", web::get().to(pages::output))
        .route("/jobs/{id}/cancel", web::post().to(acts::cancel))
        .route("/jobs/{id}/retry", web::post().to(acts::retry))
        .route("/jobs/{id}/resolve", web::post().to(acts::resolve))
        .route("/jobs/{id}/{act:cancel|retry|resolve}", web::get().to(acts::back))
        .route("/servers", web::get().to(fleet::servers))
        .route("/servers/{id}", web::get().to(server::server))
        .route("/servers/{id}/{move}", web::get().to(moves::plan))
        .route("/servers/{id}/{move}", web::post().to(moves::submit))
        .route("/agents", web::get().to(fleet::agents))
        .route("/agents/{id}", web::get().to(agent::agent))
        .route("/agents/{id}", web::post().to(agent::run))
        .route("/actors", web::get().to(actors::actors))
        .route("/actors/{kind}/{key:.+}", web::get().to(actors::one))
        // --- what keeps them live
        .route("/console/events", web::get().to(events::events))
        .route("/console/suggest", web::get().to(jobs::suggest))
        .route("/console/jobs/{id}/timeline", web::get().to(pages::timeline))
        // --- files
        .route("/assets/{name}", web::get().to(assets::serve));
}

/// Whose session a request carries.
pub(super) async fn person(request: &HttpRequest, state: &State) -> Result<Option<Principal>, Fault> {
    Ok(door::visitor(request, state).await?.map(|visitor| visitor.principal))
}

fn guarded(status: StatusCode) -> HttpResponseBuilder {
    let mut answer = HttpResponse::build(status);
    answer
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    answer
}

/// A page of data: never kept by the browser.
fn page(status: StatusCode, template: &impl Template) -> Result<HttpResponse, Fault> {
    let html = template.render().map_err(|e| Fault::internal(&e))?;
    Ok(guarded(status)
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(html))
}

fn see_other(to: &str) -> HttpResponse {
    guarded(StatusCode::SEE_OTHER)
        .insert_header(("location", to))
        .insert_header((CACHE_CONTROL, "no-store"))
        .finish()
}

//! The native API, `/api/v1`: JSON with names in camel case, native signatures, problems as problem+json.

mod events;
mod fields;
pub(super) mod jobs;
mod launch;
pub(super) mod lists;
mod problem;
pub mod show;
pub(super) mod submit;
#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};

pub use problem::Problem;

use super::auth::{self, Caller};
use super::{State, body, routes};
use crate::access::{Action, Resource, Verb};

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/api/v1")
            // --- jobs
            .route("/jobs", web::post().to(submit::submit))
            .route("/jobs", web::get().to(jobs::list))
            .route("/jobs/{id}", web::get().to(jobs::one))
            .route("/jobs/{id}/events", web::get().to(events::events))
            .route("/jobs/{id}/output", web::get().to(jobs::output))
            .route("/jobs/{id}/cancel", web::post().to(jobs::cancel))
            // --- what there is
            .route("/servers", web::get().to(lists::servers))
            .route("/agents", web::get().to(lists::agents))
            .route("/actors", web::get().to(lists::actors))
            .route("/health", web::get().to(lists::health))
            .default_service(web::route().to(unknown)),
    );
}

async fn unknown(request: HttpRequest) -> Result<HttpResponse, Problem> {
    match routes::unknown(request.clone()).await {
        Ok(answer) => Ok(answer),
        Err(fault) => Err(Problem::from(fault).of(&request)),
    }
}

/// Who signed a request, if their roles grant this action; the body with it.
async fn admit(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    action: Action,
) -> Result<(Caller, web::Bytes), Problem> {
    let bytes = body::read(request, payload, state.limits.body, state.limits.body_deadline).await?;
    let caller = auth::native(request, &bytes, state).await?;
    caller.principal.must(action)?;
    Ok((caller, bytes))
}

/// The same for a read.
async fn reader(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    resource: Resource,
) -> Result<Caller, Problem> {
    admit(request, payload, state, Action::new(Verb::Read, resource)).await.map(|(caller, _)| caller)
}

/// Longest time a job may be given.
const LONGEST_JOB: Duration = Duration::from_secs(7 * 86_400);

//! The native API, `/api/v1`: JSON with names in camel case, native signatures, problems as problem+json.

pub(super) mod acts;
#[cfg(test)]
mod acts_tests;
mod events;
mod fields;
pub(super) mod group;
#[cfg(test)]
mod group_tests;
pub(super) mod jobs;
pub(super) mod launch;
pub(super) mod limits;
pub(super) mod lists;
mod obligations;
mod openapi;
mod pauses;
mod problem;
mod schedules;
#[cfg(test)]
mod schedules_tests;
pub mod show;
pub(super) mod submit;
#[cfg(test)]
pub(super) mod tests;
mod things;

use std::time::Duration;

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, Route, web};

pub use problem::Problem;

use super::auth::{self, Caller};
use super::stale::{self, Admitted};
use super::{RequestId, State, body, routes};
use crate::access::signature::native;
use crate::access::{Action, Resource, Verb};

/// Method, path below `/api/v1`, handler.
type Line = (&'static str, &'static str, fn(Route) -> Route);

/// Every route. What is not here does not exist; the OpenAPI document has the same lines.
const ROUTES: &[Line] = &[
    // --- jobs
    ("POST", "/jobs", |route| route.to(submit::submit)),
    ("GET", "/jobs", |route| route.to(jobs::list)),
    ("GET", "/jobs/{id}", |route| route.to(jobs::one)),
    ("GET", "/jobs/{id}/why", |route| route.to(acts::why)),
    ("GET", "/jobs/{id}/events", |route| route.to(events::events)),
    ("GET", "/jobs/{id}/output", |route| route.to(jobs::output)),
    ("POST", "/jobs/{id}/cancel", |route| route.to(acts::cancel)),
    ("POST", "/jobs/{id}/retry", |route| route.to(acts::retry)),
    ("POST", "/jobs/{id}/resolve", |route| route.to(acts::resolve)),
    // --- jobs again and again
    ("GET", "/schedules", |route| route.to(schedules::list)),
    ("POST", "/schedules", |route| route.to(schedules::add)),
    ("GET", "/schedules/{id}", |route| route.to(schedules::one)),
    ("DELETE", "/schedules/{id}", |route| route.to(schedules::remove)),
    ("POST", "/schedules/{id}/enable", |route| route.to(schedules::enable)),
    ("POST", "/schedules/{id}/disable", |route| route.to(schedules::disable)),
    ("POST", "/schedules/{id}/fire", |route| route.to(schedules::fire)),
    // --- what is not begun
    ("GET", "/pauses", |route| route.to(pauses::list)),
    ("POST", "/pauses", |route| route.to(pauses::add)),
    ("DELETE", "/pauses/{id}", |route| route.to(pauses::remove)),
    // --- how much at once
    ("GET", "/limits", |route| route.to(limits::list)),
    ("POST", "/limits", |route| route.to(limits::set)),
    ("DELETE", "/limits/{id}", |route| route.to(limits::clear)),
    // --- what jobs may have left behind
    ("GET", "/obligations", |route| route.to(obligations::list)),
    // --- servers and their agents
    ("GET", "/servers", |route| route.to(lists::servers)),
    ("GET", "/servers/{id}", |route| route.to(things::server)),
    ("POST", "/servers/{id}/start", |route| route.to(things::start)),
    ("POST", "/servers/{id}/stop", |route| route.to(things::stop)),
    ("POST", "/servers/{id}/pause", |route| route.to(things::pause)),
    ("POST", "/servers/{id}/terminate", |route| route.to(things::terminate)),
    ("GET", "/agents", |route| route.to(lists::agents)),
    ("GET", "/agents/{server}", |route| route.to(things::agent)),
    ("POST", "/agents/{server}/commands", |route| route.to(things::command)),
    // --- this process, this API
    ("GET", "/actors", |route| route.to(lists::actors)),
    ("GET", "/actors/{kind}/{key}", |route| route.to(lists::actor)),
    ("GET", "/health", |route| route.to(lists::health)),
    ("GET", "/openapi.json", |route| route.to(openapi::document)),
];

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    let mut scope = web::scope("/api/v1");
    for (method, path, handled) in ROUTES {
        // A method that is none would be a route that nobody reaches; the table's test asks for each.
        if let Ok(method) = Method::from_bytes(method.as_bytes()) {
            // The key of an actor may hold slashes.
            let path = path.replace("{key}", "{key:.+}");
            scope = scope.route(&path, handled(web::method(method)));
        }
    }
    config.service(scope.default_service(web::route().to(unknown)).wrap(from_fn(stale::remembering)));
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
    let caller = caller(request, &bytes, state).await?;
    caller.principal.must(action)?;
    Ok((caller, bytes))
}

/// Who asks: by signature; for a read without one, also by a session of the console, so that a link on a page shows
/// what the API says of the same thing.
async fn caller(request: &HttpRequest, bytes: &[u8], state: &State) -> Result<Caller, Problem> {
    let unsigned = !request.headers().contains_key(native::KEY_HEADER);
    if request.method() == Method::GET
        && unsigned
        && let Some(principal) = super::console::person(request, state).await?
    {
        Admitted::mark(request, &format!("person {}", principal.person));
        let request = RequestId::of(request).0;
        return Ok(Caller { principal, request, replay: None, idem: None, repeat_by_key: false });
    }
    let caller = auth::native(request, bytes, state).await?;
    Admitted::mark(request, &format!("key {}", caller.principal.access_key));
    Ok(caller)
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

//! `GET /jobs/{id}/events`: a job's timeline as it happens, until the job ends.

use actix_web::{HttpRequest, HttpResponse, web};

use super::jobs::{find, id_of};
use super::{Problem, reader};
use crate::access::Resource;
use crate::store::provisioning::job;
use crate::web::State;
use crate::web::live::{self, Line};

/// The stream.
pub(super) async fn events(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    opened(&request, payload, &state).await.map_err(|problem| problem.of(&request))
}

async fn opened(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
) -> Result<HttpResponse, Problem> {
    let caller = reader(request, payload, state, Resource::Job).await?;
    // Before the first read, so that no change falls between.
    let changes = state.registry.changes();
    let uid = find(state, caller.principal.customer, id_of(request)?).await?.job.uid;
    let seat = state.streams.seat(&caller.principal.access_key)?;
    let last =
        request.headers().get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (line, answer) = Line::open(seat);
    let store = state.store.clone();
    actix_web::rt::spawn(async move {
        let load = || {
            let store = store.clone();
            async move { store.read(move |c| job::history(c, uid)).await }
        };
        if live::follow(line, changes, uid, last.as_deref(), load).await.is_err() {
            log::debug!("a reader of job {uid} is gone");
        }
    });
    Ok(answer)
}

//! Servers, agents, actors, health.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::jobs::query;
use super::{Problem, reader, show};
use crate::access::Resource;
use crate::model::{CustomerId, Micros, ServerId};
use crate::ops::PartState;
use crate::ops::mode::{self, Mode};
use crate::store::provisioning::{agent, job, server};
use crate::supervision::{Snapshot, Supervisor};
use crate::web::State;

/// Most agents in one answer.
const MOST: i64 = 1000;

/// A tenant's servers; terminated ones with `terminated=true`.
pub(super) async fn servers(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Server).await?;
        let terminated = match query(&request, &["terminated"])?.first().map(|(_, value)| value.as_str()) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(Problem::field("terminated", "parameter terminated must be true or false"));
            }
        };
        let customer = caller.principal.customer;
        Ok(state.store.read(move |c| server::list(c, customer, None, terminated)).await?)
    };
    let rows = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let shown: Vec<Value> = rows.iter().map(show::server).collect();
    Ok(HttpResponse::Ok().json(json!({ "servers": shown })))
}

/// A tenant's agents.
pub(super) async fn agents(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Server).await?;
        query(&request, &[])?;
        let customer = caller.principal.customer;
        Ok(state.store.read(move |c| agent::list(c, customer, MOST)).await?)
    };
    let rows = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let shown: Vec<Value> = rows.iter().map(show::agent).collect();
    Ok(HttpResponse::Ok().json(json!({ "agents": shown })))
}

/// Lets a reader in whose query asks for nothing.
async fn bare(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    resource: Resource,
) -> Result<(), Problem> {
    reader(request, payload, state, resource).await?;
    query(request, &[]).map(|_| ())
}

/// The actors of this process: an operator's view, so the right to read customers is asked for.
pub(super) async fn actors(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        reader(&request, payload, &state, Resource::Customer).await?;
        let pairs = query(&request, &["kind"])?;
        let kind = pairs.first().map(|(_, kind)| kind.as_str());
        known_kind(&state, kind)?;
        Ok(actors_of(&state.supervisor, kind))
    };
    let found = found.await.map_err(|problem: Problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(found))
}

/// Refuses a kind that no actor ever had.
pub(in crate::web) fn known_kind(state: &State, kind: Option<&str>) -> Result<(), Problem> {
    let kinds = state.supervisor.kinds();
    let known: Vec<&str> = kinds.iter().map(|kind| kind.kind).collect();
    match kind.filter(|kind| !known.contains(kind)) {
        None => Ok(()),
        Some(kind) => {
            let shown: String = kind.chars().take(40).collect();
            let text = format!("no actor is of kind \"{shown}\"; known are {}", known.join(", "));
            Err(Problem::field("kind", text))
        }
    }
}

/// Actors, those of one kind or all, with the sums of their kinds and the arbiters, as JSON.
pub(in crate::web) fn actors_of(supervisor: &Supervisor, kind: Option<&str>) -> Value {
    let snapshots = supervisor.snapshots();
    let wanted = snapshots.iter().filter(|actor| kind.is_none_or(|kind| actor.kind == kind));
    let actors: Vec<Value> = wanted.map(show::actor).collect();
    let kinds: Vec<Value> = supervisor.kinds().iter().map(show::kind).collect();
    let arbiters: Vec<Value> = supervisor
        .arbiters()
        .iter()
        .map(|arbiter| json!({ "name": arbiter.name, "lagMs": arbiter.lag_ms, "red": arbiter.red }))
        .collect();
    json!({ "actors": actors, "kinds": kinds, "arbiters": arbiters })
}

/// What an actor works for, as far as a tenant may know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::web) struct Works {
    /// The job, with its fence.
    pub(in crate::web) job: Option<(i64, i64)>,
    /// The server whose agent it speaks with.
    pub(in crate::web) server: Option<i64>,
}

/// The actor a path names, with what it works for.
pub(in crate::web) async fn actor_of(
    request: &HttpRequest,
    state: &State,
    customer: CustomerId,
) -> Result<(Snapshot, Works), Problem> {
    let (kind, key) = (request.match_info().query("kind"), request.match_info().query("key"));
    let found = state.supervisor.snapshots().into_iter().rev().find(|a| a.kind == kind && a.key == key);
    let actor = found.ok_or_else(|| {
        let shown: String = format!("{kind}/{key}").chars().take(100).collect();
        let text = format!(
            "there is no actor {shown}; it may have ended, list those there are with GET /api/v1/actors"
        );
        Problem::absent("key", text)
    })?;
    let mut works = Works::default();
    match actor.kind {
        "job" => {
            if let Ok(uid) = actor.key.parse() {
                let row = state.store.read(move |c| job::by_uid(c, uid)).await?;
                works.job = row.filter(|row| row.customer == customer.0).map(|row| (row.id, row.epoch));
            }
        }
        "agent" => {
            let id: Option<i64> = actor.key.split('#').next().and_then(|id| id.parse().ok());
            if let Some(id) = id {
                let row = state.store.read(move |c| server::by_id(c, customer, ServerId(id))).await?;
                works.server = row.map(|row| row.id);
            }
        }
        _ => {}
    }
    Ok((actor, works))
}

/// One actor.
pub(super) async fn actor(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Customer).await?;
        query(&request, &[])?;
        actor_of(&request, &state, caller.principal.customer).await
    };
    let (actor, works) = found.await.map_err(|problem| problem.of(&request))?;
    let mut shown = show::actor(&actor);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("job".to_owned(), json!(works.job.map(|(id, _)| id)));
        fields.insert("epoch".to_owned(), json!(works.job.map(|(_, epoch)| epoch)));
        fields.insert("server".to_owned(), json!(works.server));
    }
    Ok(HttpResponse::Ok().json(shown))
}

/// How this process is.
pub(super) async fn health(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    bare(&request, payload, &state, Resource::Job).await.map_err(|problem| problem.of(&request))?;
    let (ready, parts) = state.health.ready();
    Ok(HttpResponse::Ok().json(health_of(ready, &parts)))
}

/// Health as JSON: the parts, and what those that are down mean for users.
pub(in crate::web) fn health_of(well: bool, parts: &[PartState]) -> Value {
    let modes = mode::modes(parts);
    let shown: Vec<Value> = modes.iter().map(mode_of).collect();
    let waits: Vec<&str> = modes.iter().flat_map(|mode| mode.waits.iter().copied()).collect();
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| {
            json!({ "part": part.part, "state": part.state, "reason": part.reason, "since": part.since.rfc3339() })
        })
        .collect();
    json!({
        "ok": well,
        "mode": mode::name(&modes),
        "since": modes.iter().map(|mode| mode.since).min().map(Micros::rfc3339),
        "works": mode::left(&modes),
        "waits": waits,
        "modes": shown,
        "parts": parts,
    })
}

fn mode_of(mode: &Mode) -> Value {
    json!({
        "part": mode.part,
        "mode": mode.name,
        "state": mode.state,
        "since": mode.since.rfc3339(),
        "reason": mode.reason,
        "works": mode.works(),
        "waits": mode.waits,
        "sees": mode.sees,
    })
}

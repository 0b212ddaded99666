//! Servers, agents, actors, health.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::jobs::query;
use super::{Problem, reader, show};
use crate::access::Resource;
use crate::store::provisioning::{agent, server};
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
    bare(&request, payload, &state, Resource::Customer).await.map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(actors_of(&state)))
}

/// Actors and arbiters as JSON.
pub(in crate::web) fn actors_of(state: &State) -> Value {
    let actors: Vec<Value> = state.supervisor.snapshots().iter().map(show::actor).collect();
    let arbiters: Vec<Value> = state
        .supervisor
        .arbiters()
        .iter()
        .map(|arbiter| json!({ "name": arbiter.name, "lagMs": arbiter.lag_ms, "red": arbiter.red }))
        .collect();
    json!({ "actors": actors, "arbiters": arbiters })
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

/// Health as JSON.
pub(in crate::web) fn health_of(well: bool, parts: &[crate::ops::PartState]) -> Value {
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| {
            json!({ "part": part.part, "state": part.state, "reason": part.reason, "since": part.since.rfc3339() })
        })
        .collect();
    json!({ "ok": well, "parts": parts })
}

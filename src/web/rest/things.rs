//! One server, its moves; one agent, its commands. A move or a command is a job: 202 with it.

use actix_web::{HttpRequest, HttpResponse, web};

use super::jobs::query;
use super::submit::{self, Asked};
use super::{Problem, admit, reader, show};
use crate::access::Resource;
use crate::model::{JobKind, ServerId};
use crate::store::provisioning::{agent as agents, server as servers};
use crate::web::State;

/// The server a path names.
fn server_of(request: &HttpRequest, part: &'static str) -> Result<ServerId, Problem> {
    let text = request.match_info().query(part);
    let id = text.parse().ok().filter(|id| *id > 0).map(ServerId);
    id.ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        Problem::absent(part, format!("there is no server {text}; list yours with GET /api/v1/servers"))
    })
}

/// One server.
pub(super) async fn server(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Server).await?;
        query(&request, &[])?;
        let (customer, id) = (caller.principal.customer, server_of(&request, "id")?);
        let row = state.store.read(move |c| servers::by_id(c, customer, id)).await?;
        row.ok_or_else(|| {
            Problem::absent("id", format!("there is no server {id}; list yours with GET /api/v1/servers"))
        })
    };
    let row = found.await.map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(show::server(&row)))
}

/// One agent, named by its server.
pub(super) async fn agent(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Server).await?;
        query(&request, &[])?;
        let (customer, id) = (caller.principal.customer, server_of(&request, "server")?);
        let row = state.store.read(move |c| agents::by_server(c, id)).await?;
        row.filter(|row| row.customer == customer.0).ok_or_else(|| {
            let text = format!("there is no agent on server {id}; list yours with GET /api/v1/agents");
            Problem::absent("server", text)
        })
    };
    let row = found.await.map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(show::agent(&row)))
}

/// Runs a command on a guest.
pub(super) async fn command(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let asked = async {
        let may = submit::action(JobKind::RunCommand);
        let (caller, bytes) = admit(&request, payload, &state, may).await?;
        let asked = Asked::command(server_of(&request, "server")?, &bytes)?;
        submit::take(&state, &caller, asked).await
    };
    asked.await.map_err(|problem| problem.of(&request))
}

async fn moved(
    kind: JobKind,
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let asked = async {
        let (caller, bytes) = admit(&request, payload, &state, submit::action(kind)).await?;
        let asked = Asked::operation(kind, server_of(&request, "id")?, &bytes)?;
        submit::take(&state, &caller, asked).await
    };
    asked.await.map_err(|problem| problem.of(&request))
}

/// Starts a stopped server.
pub(super) async fn start(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    moved(JobKind::StartServer, request, payload, state).await
}

/// Stops a server.
pub(super) async fn stop(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    moved(JobKind::StopServer, request, payload, state).await
}

/// Freezes a server.
pub(super) async fn pause(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    moved(JobKind::PauseServer, request, payload, state).await
}

/// Destroys a server.
pub(super) async fn terminate(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    moved(JobKind::TerminateServer, request, payload, state).await
}

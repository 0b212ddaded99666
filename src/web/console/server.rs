//! One server: its agent, its jobs, and what can be done with it.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::fleet::{Agent, Server};
use super::frame::{Me, with};
use super::moves::{self, Button};
use super::page;
use super::show::Row;
use crate::access::{Action, Resource, Verb};
use crate::model::ServerId;
use crate::store::provisioning::agent;
use crate::store::provisioning::job::{self, Filter, Job};
use crate::store::provisioning::{server as servers, view};
use crate::web::rest::Problem;
use crate::web::{Fault, State};

/// Jobs of a server on its page.
const JOBS: i64 = 10;
/// Waiting commands counted.
const WAITING: i64 = 100;

#[derive(Template)]
#[template(path = "server.html")]
struct Page {
    me: Me,
    server: Server,
    agent: Option<Agent>,
    waiting: usize,
    jobs: Vec<Row>,
    moves: Vec<Button>,
    /// Why no command can be run; empty when one can.
    refused: &'static str,
}

/// The number in a path such as `/servers/{id}`.
pub(super) fn id_of(request: &HttpRequest) -> Result<ServerId, Problem> {
    let text = request.match_info().query("id");
    let id = text.parse().ok().filter(|id| *id > 0).map(ServerId);
    let shown = || text.chars().take(40).collect::<String>();
    id.ok_or_else(|| Problem::absent("id", format!("there is no server {}", shown())))
}

/// The page.
pub(super) async fn server(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Server))?;
        let (customer, id) = (visitor.principal.customer, id_of(&request)?);
        let filter = Filter { server: Some(id), limit: JOBS };
        let read = state.store.read(move |c| {
            let Some(row) = servers::by_id(c, customer, id)? else { return Ok(None) };
            let (agent, jobs) = (agent::by_server(c, id)?, job::list(c, customer, &filter)?);
            Ok(Some((row, agent, jobs, agent::open_commands(c, id, WAITING)?.len(), view::now(c)?)))
        });
        let found = read.await?;
        let (row, agent, jobs, waiting, now) =
            found.ok_or_else(|| Problem::absent("id", format!("there is no server {id}")))?;
        let jobs: Vec<Job> = jobs.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let refused = if !visitor.principal.can(Action::new(Verb::Execute, Resource::Server)) {
            "You lack the right to execute on servers; who manages roles can give it."
        } else if agent.is_none() {
            "This server has no agent, so nothing can be run on it."
        } else {
            ""
        };
        let shown = Page {
            me: Me::of(&visitor, now, "servers"),
            server: Server::of(&row, now),
            agent: agent.map(|row| Agent::of(&row, now)),
            waiting,
            moves: moves::buttons(&row, &visitor.principal),
            jobs: jobs.iter().map(|job| Row::of(job, now)).collect(),
            refused,
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

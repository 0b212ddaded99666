//! One server: its agent, its jobs, and a form that runs a command on it.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde_json::json;

use super::fleet::{Agent, Server};
use super::frame::{Me, with};
use super::show::Row;
use super::{door, page, see_other};
use crate::access::{Action, Resource, Verb};
use crate::model::ServerId;
use crate::store::provisioning::accept::Entry;
use crate::store::provisioning::agent;
use crate::store::provisioning::job::{self, Filter, Job};
use crate::store::provisioning::{server as servers, view};
use crate::web::rest::{Problem, submit};
use crate::web::{Fault, RequestId, State};

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
    /// Why no command can be run; empty when one can.
    refused: &'static str,
}

fn id_of(request: &HttpRequest) -> Result<ServerId, Problem> {
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
            jobs: jobs.iter().map(|job| Row::of(job, now)).collect(),
            refused,
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// Submits a command as the API does, then shows its job.
pub(super) async fn run(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let form = door::with_csrf(&request, payload, &state, &visitor).await?;
        let argv = arguments(&form.command).map_err(|text| Problem::field("command", text))?;
        let body = json!({ "kind": "run-command", "params": { "server": id_of(&request)?, "argv": argv } });
        let who = &visitor.principal;
        let entry = Entry {
            customer: who.customer,
            access_key: who.access_key.clone(),
            request: RequestId::of(&request).0,
            replay: None,
            idem: None,
            repeat_by_key: false,
        };
        let job = submit::put(&state, who, entry, body.to_string().as_bytes()).await?;
        Ok(see_other(&format!("/jobs/{}", job.id)))
    })
    .await
}

/// Program and arguments of a typed line: apart by blanks; quotes hold together what is between them. Nothing is
/// expanded: there is no shell.
fn arguments(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    match quote {
        Some(_) => Err("a quote in the command is not closed; close it"),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn a_line_becomes_arguments_and_nothing_is_expanded() {
        assert_eq!(arguments("  /bin/echo  $HOME *").expect("good"), ["/bin/echo", "$HOME", "*"]);
        assert_eq!(
            arguments("sh -c 'a \"b\"' \"\" x\"y z\"").expect("good"),
            ["sh", "-c", "a \"b\"", "", "xy z"]
        );
        assert!(arguments("").expect("good").is_empty());
        assert!(arguments("a 'b").is_err());
    }
}

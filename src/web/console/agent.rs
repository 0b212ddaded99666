//! One agent: who it is, who has seen it, what waits for it, and a form that runs a command with its output beside it.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::command::{self, DEADLINE, Field};
use super::door::Visitor;
use super::fleet::{Agent, Server};
use super::forms::{self, Filled};
use super::frame::{Me, with};
use super::pages::Piece;
use super::said::Said;
use super::show::{Card, Row};
use super::witness::{self, Witness};
use super::{page, see_other, words};
use crate::access::{Action, Resource, Verb};
use crate::agents::AgentView;
use crate::model::{JobId, JobKind, Micros, ServerId};
use crate::store::AnyConnection;
use crate::store::provisioning::agent::{self as agents, AgentRow, CommandRow};
use crate::store::provisioning::job::{self, Filter, Job};
use crate::store::provisioning::server::{self as servers, ServerRow};
use crate::store::provisioning::{figures, view};
use crate::web::rest::{Problem, submit};
use crate::web::{Fault, State};
use crate::wire::{CATALOGUE, Described, Operation};

/// Recent commands on the page.
const RECENT: usize = 20;
/// Jobs of the server among which they are looked for.
const NEWEST: i64 = 100;
/// Waiting commands on the page.
const QUEUE: i64 = 100;
/// Bytes of output on the page; the rest is read on by the script, or raw.
const OUTPUT: usize = 64 * 1024;

/// A command that has no answer yet.
struct Waiting {
    job: i64,
    text: String,
    icon: &'static str,
    hue: &'static str,
    state: &'static str,
    made: String,
    made_clock: String,
    expires: String,
    expires_in: String,
}

/// What a command wrote so far.
struct Output {
    card: Card,
    id: i64,
    version: i64,
    command: String,
    stdout: Piece,
    stderr: Piece,
    ended: bool,
}

#[derive(Template)]
#[template(path = "agent.html")]
struct Page {
    me: Me,
    agent: Agent,
    server: Option<Server>,
    facts: Vec<super::show::Fact>,
    /// Figures of the last heartbeat, in words.
    figures: String,
    witnesses: Vec<Witness>,
    queue: Vec<Waiting>,
    recent: Vec<Row>,
    output: Option<Output>,
    operations: &'static [Described],
    fields: Vec<Field>,
    deadline: String,
    said: Said,
    once: String,
    /// Why nothing can be run; empty when something can.
    refused: String,
    /// What happens to a command that is sent now.
    now_or_later: String,
    away: bool,
}

/// What the rows say.
struct Found {
    row: AgentRow,
    server: Option<ServerRow>,
    made_by: Option<i64>,
    cloud: Option<(String, String, i64)>,
    queue: Vec<(CommandRow, i64)>,
    recent: Vec<Job>,
    /// The command whose output stands on the page.
    chosen: Option<Job>,
    now: Micros,
}

fn id_of(request: &HttpRequest) -> Result<i64, Problem> {
    let text = request.match_info().query("id");
    text.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        Problem::absent("id", format!("there is no agent {text}"))
    })
}

/// The page.
pub(super) async fn agent(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let asked = Filled::of_query(request.query_string())?;
        let shown = shown(&request, &state, &visitor, (asked, Said::default(), forms::once())).await?;
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// Submits a command; its output then comes in on the same page. What is wrong is said at its field.
pub(super) async fn run(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let (entry, id) = (typed.entry(&request, &visitor)?, id_of(&request)?);
        let made = match command::body(&typed, server_of(&state, &visitor, id).await?) {
            Ok(body) => submit::put(&state, &visitor.principal, entry, body.to_string().as_bytes()).await,
            Err(problem) => Err(problem),
        };
        match made {
            Ok(job) => Ok(see_other(&format!("/agents/{id}?job={}#output", job.id))),
            Err(problem) => {
                let once = match forms::sent_before(&problem) {
                    true => forms::once(),
                    false => typed.text("once").to_owned(),
                };
                let said = Said::of(&problem, &["op", "argv", "timeoutSecs", DEADLINE]);
                let again = shown(&request, &state, &visitor, (typed, said, once)).await?;
                Ok(page(problem.status(), &again)?)
            }
        }
    })
    .await
}

async fn server_of(state: &State, visitor: &Visitor, id: i64) -> Result<ServerId, Problem> {
    visitor.principal.must(submit::action(JobKind::RunCommand))?;
    let customer = visitor.principal.customer;
    let row = state.store.read(move |c| agents::by_id(c, customer, id)).await?;
    let row = row.ok_or_else(|| Problem::absent("id", format!("there is no agent {id}")))?;
    row.server.map(ServerId).ok_or_else(|| {
        Problem::field("op", format!("agent {id} has no server yet, so nothing can be run through it"))
    })
}

/// `asked` is the job whose output is wanted; without it that of a command that is not done yet.
fn read(c: &mut AnyConnection, row: AgentRow, asked: Option<JobId>) -> diesel::QueryResult<Found> {
    let customer = crate::model::CustomerId(row.customer);
    let id = row.server.map(ServerId);
    let server = id.map(|id| servers::by_id(c, customer, id)).transpose()?.flatten();
    let cloud = id.map(|id| figures::cloud_said(c, id)).transpose()?.flatten();
    let open = id.map(|id| agents::open_commands(c, id, QUEUE)).transpose()?.unwrap_or_default();
    let mut uids: Vec<String> = open.iter().map(|command| command.job.clone()).collect();
    uids.push(row.job.clone());
    let numbers = figures::numbers(c, &uids)?;
    let number = |uid: &str| numbers.iter().find(|(of, _)| of == uid).map(|(_, id)| *id);
    let queue = open.into_iter().map(|command| (number(&command.job).unwrap_or(0), command));
    let queue = queue.map(|(id, command)| (command, id)).collect();
    let filter = Filter { server: id, limit: NEWEST };
    let rows = if id.is_some() { job::list(c, customer, &filter)? } else { Vec::new() };
    let jobs: Result<Vec<Job>, _> = rows.into_iter().map(Job::try_from).collect();
    let mut recent = jobs.map_err(crate::store::provisioning::corrupt)?;
    recent.retain(|job| job.params.kind() == JobKind::RunCommand);
    recent.truncate(RECENT);
    let chosen = match asked {
        Some(asked) => {
            let job = job::by_id(c, customer, asked)?.and_then(|row| Job::try_from(row).ok());
            job.filter(|job| job.server == id && job.params.kind() == JobKind::RunCommand)
        }
        None => recent.iter().find(|job| job.ended_at.is_none()).cloned(),
    };
    Ok(Found { made_by: number(&row.job), row, server, cloud, queue, recent, chosen, now: view::now(c)? })
}

async fn shown(
    request: &HttpRequest,
    state: &State,
    visitor: &Visitor,
    (typed, said, once): (Filled, Said, String),
) -> Result<Page, Problem> {
    let (who, id) = (&visitor.principal, id_of(request)?);
    who.must(Action::new(Verb::Read, Resource::Server))?;
    let customer = who.customer;
    let asked = typed.text("job").parse().ok().map(JobId);
    let found = state.store.read(move |c| match agents::by_id(c, customer, id)? {
        Some(row) => read(c, row, asked).map(Some),
        None => Ok(None),
    });
    let found = found.await?.ok_or_else(|| Problem::absent("id", format!("there is no agent {id}")))?;
    let server = found.row.server.map(ServerId);
    let session = state.agents.as_ref().map(|agents| {
        agents.connected().into_iter().find(|view| Some(view.server) == server && view.customer == customer)
    });
    let output = match &found.chosen {
        Some(job) => Some(written(state, job, found.now).await?),
        None => None,
    };
    let may =
        who.must(submit::action(JobKind::RunCommand)).err().map(|error| words::plain(&error.to_string()));
    let mut page = page_of(&found, session.as_ref().map(Option::as_ref), (visitor, typed));
    page.refused = may.unwrap_or(page.refused);
    Ok(Page { output, said, once, ..page })
}

async fn written(state: &State, job: &Job, now: Micros) -> Result<Output, Problem> {
    let uid = job.uid;
    let read = state.store.read(move |c| {
        Ok((view::output(c, uid, "stdout", 0, OUTPUT)?, view::output(c, uid, "stderr", 0, OUTPUT)?))
    });
    let (stdout, stderr) = read.await?;
    Ok(Output {
        card: Card { job: Row::of(job, now) },
        id: job.id.0,
        version: job.version,
        command: super::show::command(job).unwrap_or_default(),
        stdout: Piece::of(&stdout),
        stderr: Piece::of(&stderr),
        ended: job.ended_at.is_some(),
    })
}

/// `session` is nothing where this process holds no sessions at all.
fn page_of(found: &Found, session: Option<Option<&AgentView>>, (visitor, typed): (&Visitor, Filled)) -> Page {
    let (row, now) = (&found.row, found.now);
    let operation = CATALOGUE.iter().find(|d| d.word == typed.text("op") && d.is_job);
    let operation = operation.or_else(|| CATALOGUE.iter().find(|described| described.is_job));
    let connected = session.flatten().is_some_and(|view| view.connected);
    let gone = found.server.as_ref().is_none_or(|server| server.status == "TERMINATED");
    let refused = match (row.state.as_str(), gone) {
        (agents::state::REVOKED, _) => "This agent is refused for good; nothing is sent to it any more.",
        (_, true) => "Its server is gone, so nothing can be run on it.",
        (agents::state::PENDING, _) => "This agent has not joined yet; commands can be given once it has.",
        _ => "",
    };
    Page {
        me: Me::of(visitor, now, "agents"),
        agent: Agent::of(row, now),
        server: found.server.as_ref().map(|server| Server::of(server, now)),
        facts: witness::facts(row, found.made_by, now),
        figures: session
            .flatten()
            .and_then(|view| view.stats.as_ref())
            .map(witness::figures)
            .unwrap_or_default(),
        witnesses: witness::of(row, session, (found.server.as_ref(), found.cloud.as_ref()), now),
        queue: found.queue.iter().map(|(command, id)| waiting(command, *id, now)).collect(),
        recent: found.recent.iter().map(|job| Row::of(job, now)).collect(),
        output: None,
        operations: CATALOGUE,
        fields: operation.map(|described| command::fields(described, &typed)).unwrap_or_default(),
        deadline: words::plain(typed.text(DEADLINE)),
        said: Said::default(),
        once: String::new(),
        refused: refused.to_owned(),
        now_or_later: command::now_or_later(session, connected, found.queue.len()),
        away: !connected,
    }
}

fn waiting(command: &CommandRow, job: i64, now: Micros) -> Waiting {
    let (icon, hue, state) = match command.state.as_str() {
        agents::command::SENT => ("running", "c-busy", "sent"),
        _ => ("queued", "c-idle", "waiting"),
    };
    let (made, expires) = (Micros(command.made_at), Micros(command.expires_at));
    Waiting {
        job,
        text: words::plain(&operation_text(&command.operation)),
        icon,
        hue,
        state,
        made: made.rfc3339(),
        made_clock: words::clock(made),
        expires: expires.rfc3339(),
        expires_in: match (command.state.as_str(), now < expires) {
            (agents::command::SENT, _) => "–, it was sent".to_owned(),
            (_, true) => format!("{}, in {}", words::clock(expires), words::took(expires.since(now))),
            (_, false) => format!("{}, over", words::clock(expires)),
        },
    }
}

fn operation_text(text: &str) -> String {
    match serde_json::from_str::<Operation>(text) {
        Ok(Operation::RunCommand { argv, .. }) => {
            argv.iter().map(|arg| words::shell(arg)).collect::<Vec<_>>().join(" ")
        }
        Ok(other) => other.word().to_owned(),
        Err(_) => "an operation this version does not know".to_owned(),
    }
}

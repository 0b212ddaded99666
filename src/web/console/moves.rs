//! Moves of a server: which are legal now and why the others are not, the page that asks first, and the submit.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde_json::json;

use super::door::Visitor;
use super::fleet::Server;
use super::forms::{self, Filled};
use super::frame::{Me, with};
use super::said::Said;
use super::server::id_of;
use super::{page, see_other, words};
use crate::access::Principal;
use crate::model::JobKind;
use crate::store::provisioning::server::{self as servers, ServerRow};
use crate::store::provisioning::view;
use crate::web::rest::{Problem, submit};
use crate::web::{Fault, State};

/// A move of a server.
pub(super) struct Move {
    /// Its word in addresses and on the command line.
    pub(super) word: &'static str,
    /// Its button.
    pub(super) verb: &'static str,
    kind: JobKind,
    /// States of a server from which it goes.
    from: &'static [&'static str],
    /// What it does, in one sentence.
    what: &'static str,
    /// Whether something is destroyed.
    pub(super) destroys: bool,
}

/// Every move.
pub(super) const MOVES: [Move; 4] = [
    Move {
        word: "start",
        verb: "Start",
        kind: JobKind::StartServer,
        from: &["STOPPED", "PAUSED"],
        what: "The cloud is asked to start it; the job ends when it is seen running.",
        destroys: false,
    },
    Move {
        word: "stop",
        verb: "Stop",
        kind: JobKind::StopServer,
        from: &["RUNNING"],
        what: "The cloud is asked to stop it; its disk stays. The job ends when it is seen stopped.",
        destroys: false,
    },
    Move {
        word: "pause",
        verb: "Pause",
        kind: JobKind::PauseServer,
        from: &["RUNNING"],
        what: "The cloud is asked to freeze it in memory; the job ends when it is seen paused.",
        destroys: false,
    },
    Move {
        word: "terminate",
        verb: "Terminate",
        kind: JobKind::TerminateServer,
        from: &["PENDING", "RUNNING", "PAUSED", "REBOOTING", "STOPPING", "STOPPED", "ERROR"],
        what: "The server and its disk are destroyed, and nobody can bring them back. Commands that wait for it are \
               never sent; its agent is refused from then on.",
        destroys: true,
    },
];

/// A move as a button.
pub(super) struct Button {
    pub(super) word: &'static str,
    pub(super) verb: &'static str,
    pub(super) destroys: bool,
    /// Why it cannot be asked for; empty when it can.
    pub(super) refused: String,
    pub(super) once: String,
}

/// The moves of a server for somebody.
pub(super) fn buttons(row: &ServerRow, who: &Principal) -> Vec<Button> {
    let of = |way: &Move| Button {
        word: way.word,
        verb: way.verb,
        destroys: way.destroys,
        refused: refused(way, row, who),
        once: forms::once(),
    };
    MOVES.iter().map(of).collect()
}

/// Why a move is not possible now; empty when it is.
fn refused(way: &Move, row: &ServerRow, who: &Principal) -> String {
    if let Err(error) = who.must(submit::action(way.kind)) {
        return words::plain(&error.to_string());
    }
    if way.from.contains(&row.status.as_str()) {
        return String::new();
    }
    let from: Vec<String> = way.from.iter().map(|status| status.to_lowercase()).collect();
    let status = words::plain(&row.status.to_lowercase());
    if way.destroys {
        return format!("it is {status}");
    }
    format!("it is {status}; only a {} server can be {}", from.join(" or "), past(way.word))
}

fn past(word: &str) -> &'static str {
    match word {
        "start" => "started",
        "stop" => "stopped",
        "pause" => "paused",
        _ => "terminated",
    }
}

#[derive(Template)]
#[template(path = "move.html")]
struct Plan {
    me: Me,
    server: Server,
    button: Button,
    what: &'static str,
    said: Said,
    reason: String,
    /// Commands without an answer, which end with the server.
    waiting: usize,
}

/// The page that asks first.
pub(super) async fn plan(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let again = planned(&request, &state, &visitor, (Said::default(), String::new())).await?;
        Ok(page(StatusCode::OK, &again)?)
    })
    .await
}

fn way_of(request: &HttpRequest) -> Result<&'static Move, Problem> {
    let word = request.match_info().query("move");
    MOVES.iter().find(|way| way.word == word).ok_or_else(|| {
        let word: String = word.chars().take(40).collect();
        Problem::absent(
            "move",
            format!("a server has no move {word}; it has start, stop, pause and terminate"),
        )
    })
}

async fn planned(
    request: &HttpRequest,
    state: &State,
    visitor: &Visitor,
    (said, reason): (Said, String),
) -> Result<Plan, Problem> {
    let (way, id, who) = (way_of(request)?, id_of(request)?, &visitor.principal);
    who.must(submit::action(way.kind))?;
    let customer = who.customer;
    let read = state.store.read(move |c| {
        let row = servers::by_id(c, customer, id)?;
        let waiting = crate::store::provisioning::agent::open_commands(c, id, 100)?.len();
        Ok((row, waiting, view::now(c)?))
    });
    let (row, waiting, now) = read.await?;
    let row = row.ok_or_else(|| Problem::absent("id", format!("there is no server {id}")))?;
    let button = Button {
        word: way.word,
        verb: way.verb,
        destroys: way.destroys,
        refused: refused(way, &row, who),
        once: forms::once(),
    };
    let (me, server) = (Me::of(visitor, now, "servers"), Server::of(&row, now));
    Ok(Plan { me, server, button, what: way.what, said, reason, waiting })
}

/// Submits a move, then shows its job.
pub(super) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let (way, id) = (way_of(&request)?, id_of(&request)?);
        let entry = typed.entry(&request, &visitor)?;
        let reason = typed.text("reason");
        let body = json!({ "kind": way.kind.as_str(), "params": { "server": id, "reason": reason } });
        match submit::put(&state, &visitor.principal, entry, body.to_string().as_bytes()).await {
            Ok(job) => Ok(see_other(&format!("/jobs/{}", job.id))),
            Err(problem) => {
                let said = Said::of(&problem, &["reason"]);
                let again = planned(&request, &state, &visitor, (said, reason.to_owned())).await?;
                Ok(page(problem.status(), &again)?)
            }
        }
    })
    .await
}

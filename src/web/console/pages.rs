//! One job, and the small answers around it.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::acts::{self, Act};
use super::bars::Bars;
use super::door::Visitor;
use super::frame::{Me, with};
use super::show::{self, JobLive, Row, Timeline};
use super::{page, see_other, words};
use crate::access::{Action, Resource, Verb};
use crate::model::{CustomerId, Micros};
use crate::store::provisioning::job::{History, Job};
use crate::store::provisioning::{agent as agents, group as children, obligation, view};
use crate::web::rest::acts::fresh_why;
use crate::web::rest::group::progress;
use crate::web::rest::{Problem, jobs as api};
use crate::web::{Fault, State};

/// Bytes of output on a page; the rest is read on by the script, or raw.
const OUTPUT: usize = 64 * 1024;

/// A piece of output, ready to be shown, and where it goes on.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) next: i64,
}

impl Piece {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let next = i64::try_from(bytes.len()).unwrap_or(0);
        let text = String::from_utf8_lossy(bytes);
        // Line by line, because one piece may be longer than a shown text may be.
        Self { text: text.split('\n').map(words::plain).collect::<Vec<_>>().join("\n"), next }
    }
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    me: Me,
    job: Row,
    best: String,
    banner: &'static str,
    facts: Vec<show::Fact>,
    bars: Bars,
    entries: Vec<show::Line>,
    evidence: Vec<show::Seen>,
    acts: Vec<Act>,
    csrf: String,
    has_output: bool,
    command: String,
    stdout: Piece,
    stderr: Piece,
    /// The command line that gives the same.
    same: String,
    agent: Option<i64>,
    /// Of a group.
    family: Option<Family>,
}

/// The children of a group.
struct Family {
    told: String,
    rows: Vec<Row>,
}

/// Children shown on the page of their group; the list shows all.
const CHILDREN: i64 = 100;

async fn family(state: &State, group: &Job, now: Micros) -> Result<Option<Family>, Problem> {
    let Some(progress) = progress(state, group).await? else { return Ok(None) };
    let id = group.id.0;
    let rows = state.store.read(move |c| children::of_page(c, id, CHILDREN)).await?;
    let rows: Result<Vec<Job>, _> = rows.into_iter().map(Job::try_from).collect();
    let rows = rows?.iter().map(|job| Row::of(job, now)).collect();
    Ok(Some(Family { told: format!("{} of {} have ended", progress.ended(), progress.children), rows }))
}

/// One job.
pub(super) async fn job(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let mut history = found(&request, &state, &visitor).await?;
        fresh_why(&state, &mut history.job).await?;
        let (uid, server) = (history.job.uid, history.job.server);
        let (customer, owed) = (visitor.principal.customer, show::owed_by(uid));
        let read = state.store.read(move |c| {
            let agent = server.map(|id| agents::by_server(c, id)).transpose()?.flatten();
            Ok((
                view::now(c)?,
                view::output(c, uid, "stdout", 0, OUTPUT)?,
                view::output(c, uid, "stderr", 0, OUTPUT)?,
                agent.map(|agent| agent.id),
                obligation::list(c, customer, &owed)?,
            ))
        });
        let (now, stdout, stderr, agent, owed) = read.await?;
        let command = show::command(&history.job);
        let family = family(&state, &history.job, now).await?;
        let JobLive { job, best, banner, facts, bars, entries, evidence, .. } =
            JobLive::of(&history, &owed, now);
        let shown = JobPage {
            me: Me::of(&visitor, now, "jobs"),
            acts: acts::of(&history.job, &visitor),
            csrf: visitor.csrf.clone(),
            same: acts::command(&history.job),
            job,
            best,
            banner,
            facts,
            bars,
            entries,
            evidence,
            has_output: command.is_some(),
            command: command.unwrap_or_default(),
            stdout: Piece::of(&stdout),
            stderr: Piece::of(&stderr),
            agent,
            family,
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

async fn found(request: &HttpRequest, state: &State, visitor: &Visitor) -> Result<History, Problem> {
    visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
    find(state, visitor.principal.customer, request).await
}

async fn find(state: &State, customer: CustomerId, request: &HttpRequest) -> Result<History, Problem> {
    api::find(state, customer, api::id_of(request)?).await
}

/// A job's timeline on its own, for an opened row.
pub(super) async fn timeline(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let history = found(&request, &state, &visitor).await?;
        Ok(page(StatusCode::OK, &Timeline { entries: show::lines(&history) })?)
    })
    .await
}

/// What a job's command wrote, as bytes.
pub(super) async fn output(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let window = api::window(&api::query(&request, &["stream", "from", "limit"])?)?;
        let uid = found(&request, &state, &visitor).await?.job.uid;
        let bytes =
            state.store.read(move |c| view::output(c, uid, window.stream, window.from, window.limit)).await?;
        Ok(api::raw(window.from, bytes))
    })
    .await
}

/// From a number typed to its job.
pub(super) async fn jump(request: HttpRequest) -> HttpResponse {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let id = pairs.ok().and_then(|pairs| pairs.into_inner().into_iter().find(|(name, _)| name == "id"));
    match id.and_then(|(_, id)| id.trim().parse::<i64>().ok()) {
        Some(id) => see_other(&format!("/jobs/{id}")),
        None => see_other("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::Piece;

    #[test]
    fn output_is_shown_without_obeying_it() {
        let piece = Piece::of(b"a\x1b[2J\nb\xff");
        assert_eq!((piece.text.as_str(), piece.next), ("a␛[2J\nb\u{fffd}", 8));
    }
}

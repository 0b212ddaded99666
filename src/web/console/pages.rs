//! The pages: jobs, one job, and the small answers around them.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use askama::Template;

use super::door::{self, Visitor};
use super::show::{self, JobLive, Row, Timeline};
use super::words::{self, Look};
use super::{page, see_other};
use crate::access::{Action, Resource, Verb};
use crate::model::{CustomerId, JobKind, JobState, Micros};
use crate::store::provisioning::job::{self, Filter, History, Job};
use crate::store::provisioning::view;
use crate::web::rest::{Problem, jobs as api};
use crate::web::{Fault, RequestId, State};

/// Jobs on one page.
const ROWS: i64 = 50;
/// Bytes of output on a page; the rest is read on by the script, or raw.
const OUTPUT: usize = 64 * 1024;

/// Who looks, and when.
pub(super) struct Me {
    pub(super) name: String,
    pub(super) csrf: String,
    pub(super) on_jobs: bool,
    pub(super) now: String,
    pub(super) clock: String,
}

impl Me {
    fn of(visitor: &Visitor, now: Micros, on_jobs: bool) -> Self {
        Self {
            name: words::plain(&visitor.principal.name),
            csrf: visitor.csrf.clone(),
            on_jobs,
            now: now.rfc3339(),
            clock: words::clock(now),
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Failed {
    me: Me,
    title: &'static str,
    text: String,
    request: String,
}

/// Lets a visitor in and runs `work`; sends others to the door. What goes wrong becomes a page.
async fn with<F>(
    request: &HttpRequest,
    state: &State,
    work: impl FnOnce(Visitor) -> F,
) -> Result<HttpResponse, Fault>
where
    F: Future<Output = Result<HttpResponse, Problem>>,
{
    let id = RequestId::of(request);
    let found = door::visitor(request, state).await.map_err(|fault| fault.of(id))?;
    let Some(visitor) = found else { return Ok(door::to_the_door(request)) };
    let me = Me::of(&visitor, Micros::wall(), false);
    match work(visitor).await {
        Ok(answer) => Ok(answer),
        Err(problem) => {
            let status = problem.status_code();
            let title = match status.as_u16() {
                404 => "Not found",
                403 => "Not allowed",
                409 => "Not possible now",
                503 => "Busy",
                500.. => "Our fault",
                _ => "Not understood",
            };
            page(
                status,
                &Failed { me, title, text: words::plain(problem.detail()), request: id.0.to_string() },
            )
        }
    }
}

/// A state as a link to its jobs.
pub(super) struct Facet {
    pub(super) state: &'static str,
    pub(super) look: Look,
    pub(super) count: String,
    pub(super) href: String,
    pub(super) on: bool,
}

/// Counts of all states.
pub(super) struct Facets {
    pub(super) all: String,
    pub(super) all_href: String,
    pub(super) all_on: bool,
    pub(super) states: Vec<Facet>,
}

/// Counts of all states on their own.
#[derive(Template)]
#[template(path = "facets.html")]
pub(super) struct FacetsPart {
    pub(super) facets: Facets,
}

impl Facets {
    /// `kind` and `state` are what the page is filtered by.
    pub(super) fn of(counts: &[(String, i64)], kind: &str, state: &str) -> Self {
        let of =
            |wanted: JobState| counts.iter().find(|(word, _)| word == wanted.as_str()).map_or(0, |(_, n)| *n);
        let states = JobState::ALL
            .iter()
            .map(|wanted| Facet {
                state: wanted.as_str(),
                look: words::look(*wanted),
                count: words::count(of(*wanted)),
                href: href(wanted.as_str(), kind, None),
                on: state == wanted.as_str(),
            })
            .collect();
        Self {
            all: words::count(counts.iter().map(|(_, n)| n).sum()),
            all_href: href("", kind, None),
            all_on: state.is_empty(),
            states,
        }
    }
}

/// A list's address. `state` and `kind` were checked, so nothing in them needs escaping.
fn href(state: &str, kind: &str, before: Option<i64>) -> String {
    let mut pairs: Vec<String> = Vec::new();
    if !state.is_empty() {
        pairs.push(format!("state={state}"));
    }
    if !kind.is_empty() {
        pairs.push(format!("kind={kind}"));
    }
    pairs.extend(before.map(|id| format!("before={id}")));
    if pairs.is_empty() { "/".to_owned() } else { format!("/?{}", pairs.join("&")) }
}

/// What a list is filtered by, as typed.
struct Typed {
    state: String,
    kind: String,
    is_set: bool,
    href: String,
    live: String,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct Jobs {
    me: Me,
    lead: String,
    troubled: i64,
    troubled_text: String,
    facets: Facets,
    filter: Typed,
    kinds: Vec<&'static str>,
    said: Option<String>,
    rows: Vec<Row>,
    newest: i64,
    empty: &'static str,
    older: Option<String>,
    command: String,
}

/// A list's filter from its query. What cannot be understood is said on the page and leaves the list unfiltered.
pub(super) fn filter_of(request: &HttpRequest) -> (Filter, String, String, Option<String>) {
    let pairs = api::query(request, &["state", "kind", "before"]);
    let pairs: Result<Vec<_>, _> =
        pairs.map(|pairs| pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect());
    let read = pairs.and_then(|pairs| api::filter(&pairs).map(|filter| (pairs, filter)));
    match read {
        Ok((pairs, filter)) => {
            let typed = |name: &str| {
                pairs.iter().find(|(n, _)| n == name).map_or_else(String::new, |(_, v)| v.clone())
            };
            (Filter { limit: ROWS, ..filter }, typed("state"), typed("kind"), None)
        }
        Err(problem) => {
            let all = Filter { limit: ROWS, ..Filter::default() };
            (all, String::new(), String::new(), Some(words::plain(problem.detail())))
        }
    }
}

/// Overview and list of jobs.
pub(super) async fn jobs(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let customer = visitor.principal.customer;
        let (filter, typed_state, typed_kind, said) = filter_of(&request);
        let shown = filter.clone();
        let read = state
            .store
            .read(move |c| Ok((job::list(c, customer, &shown)?, view::counts(c, customer)?, view::now(c)?)));
        let (found, counts, now) = read.await?;
        let jobs: Vec<Job> = found.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let list = List {
            jobs,
            counts,
            now,
            paged: filter.before.is_some(),
            state: typed_state,
            kind: typed_kind,
            said,
        };
        Ok(page(StatusCode::OK, &list.page(&visitor))?)
    })
    .await
}

struct List {
    jobs: Vec<Job>,
    counts: Vec<(String, i64)>,
    now: Micros,
    paged: bool,
    state: String,
    kind: String,
    said: Option<String>,
}

impl List {
    fn page(self, visitor: &Visitor) -> Jobs {
        let of = |states: &[JobState]| -> i64 {
            let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            self.counts.iter().filter(|(word, _)| words.contains(&word.as_str())).map(|(_, n)| n).sum()
        };
        let ended: Vec<JobState> = JobState::ALL.iter().copied().filter(|state| state.is_end()).collect();
        let open: Vec<JobState> = JobState::ALL.iter().copied().filter(|state| !state.is_end()).collect();
        let troubled = of(&[JobState::Quarantined, JobState::Unresolved]);
        let (state, kind) = (self.state.as_str(), self.kind.as_str());
        let is_set = !state.is_empty() || !kind.is_empty();
        let list = href(state, kind, None);
        let last = self.jobs.last().map(|job| job.id.0);
        let full = i64::try_from(self.jobs.len()).is_ok_and(|n| n >= ROWS);
        let mut command = "dispatcher jobs list".to_owned();
        for (name, value) in [("--state", state), ("--kind", kind)] {
            if !value.is_empty() {
                command.push_str(&format!(" {name} {value}"));
            }
        }
        Jobs {
            me: Me::of(visitor, self.now, true),
            lead: format!("{} open · {} ended", words::count(of(&open)), words::count(of(&ended))),
            troubled,
            troubled_text: if troubled == 1 {
                "1 job has an outcome nobody knows.".to_owned()
            } else {
                format!("{} jobs have an outcome nobody knows.", words::count(troubled))
            },
            facets: Facets::of(&self.counts, kind, state),
            kinds: JobKind::ALL.iter().map(|kind| kind.as_str()).collect(),
            said: self.said,
            rows: self.jobs.iter().map(|job| Row::of(job, self.now)).collect(),
            newest: self.jobs.first().map_or(0, |job| job.id.0),
            empty: if is_set {
                "No job matches. Clear the filter to see all."
            } else {
                "Jobs stand here as soon as somebody asks for one."
            },
            older: last.filter(|_| full).map(|last| href(state, kind, Some(last))),
            command,
            filter: Typed {
                is_set,
                live: if self.paged { format!("{}&paged=1", live(&list)) } else { live(&list) },
                href: list,
                state: self.state,
                kind: self.kind,
            },
        }
    }
}

/// The stream that belongs to a list.
fn live(list: &str) -> String {
    match list.split_once('?') {
        Some((_, query)) => format!("/console/events?{query}"),
        None => "/console/events?all=1".to_owned(),
    }
}

/// A piece of output, ready to be shown, and where it goes on.
struct Piece {
    text: String,
    next: i64,
}

impl Piece {
    fn of(bytes: &[u8]) -> Self {
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
    best: Option<String>,
    banner: &'static str,
    facts: Vec<show::Fact>,
    entries: Vec<show::Line>,
    evidence: Vec<show::Seen>,
    has_output: bool,
    command: String,
    stdout: Piece,
    stderr: Piece,
    cancel: bool,
}

/// One job.
pub(super) async fn job(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let history = found(&request, &state, &visitor).await?;
        let uid = history.job.uid;
        let read = state.store.read(move |c| {
            Ok((
                view::now(c)?,
                view::output(c, uid, "stdout", 0, OUTPUT)?,
                view::output(c, uid, "stderr", 0, OUTPUT)?,
            ))
        });
        let (now, stdout, stderr) = read.await?;
        let command = show::command(&history.job);
        let open = history.job.ended_at.is_none() && history.job.cancel_by.is_none();
        let JobLive { job, best, banner, facts, entries, evidence } = JobLive::of(&history, now);
        let shown = JobPage {
            me: Me::of(&visitor, now, false),
            job,
            best,
            banner,
            facts,
            entries,
            evidence,
            has_output: command.is_some(),
            command: command.unwrap_or_default(),
            stdout: Piece::of(&stdout),
            stderr: Piece::of(&stderr),
            cancel: open && visitor.principal.can(Action::new(Verb::Cancel, Resource::Job)),
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

/// Asks for a cancel, then shows the job.
pub(super) async fn cancel(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        door::with_csrf(&request, payload, &state, &visitor).await?;
        visitor.principal.must(Action::new(Verb::Cancel, Resource::Job))?;
        let id = api::id_of(&request)?;
        state.registry.cancel(visitor.principal.customer, id, visitor.principal.name.clone()).await?;
        Ok(see_other(&format!("/jobs/{id}")))
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
    use super::{Facets, FacetsPart, Piece, filter_of, href, live};
    use actix_web::test::TestRequest;
    use askama::Template as _;

    #[test]
    fn the_view_is_in_the_address() {
        assert_eq!(href("", "", None), "/");
        assert_eq!(href("open", "noop", Some(9)), "/?state=open&kind=noop&before=9");
        assert_eq!(
            (live("/").as_str(), live("/?state=open").as_str()),
            ("/console/events?all=1", "/console/events?state=open")
        );
    }

    #[test]
    fn what_cannot_be_understood_is_said_and_filters_nothing() {
        let of = |query: &str| filter_of(&TestRequest::with_uri(&format!("/?{query}")).to_http_request());
        let (filter, state, kind, said) = of("state=open&kind=");
        assert_eq!((filter.states.len(), state.as_str(), kind.as_str(), said), (5, "open", "", None));
        let (filter, state, _, said) = of("state=%3Cscript%3E");
        assert!(filter.states.is_empty() && state.is_empty() && said.is_some());
        assert!(of("nonsense=1").3.expect("said").contains("nonsense"));
    }

    #[test]
    fn counts_link_to_their_jobs_and_keep_the_kind() {
        let facets = Facets::of(&[("queued".to_owned(), 1200), ("failed".to_owned(), 7)], "noop", "failed");
        let html = FacetsPart { facets }.render().expect("renders");
        assert!(html.contains("1,200") && html.contains("1,207"), "{html}");
        assert!(
            html.contains("state=failed&#38;kind=noop\" aria-current")
                || html.contains("state=failed&amp;kind=noop\" aria-current"),
            "{html}"
        );
    }

    #[test]
    fn output_is_shown_without_obeying_it() {
        let piece = Piece::of(b"a\x1b[2J\nb\xff");
        assert_eq!((piece.text.as_str(), piece.next), ("a␛[2J\nb\u{fffd}", 8));
    }
}

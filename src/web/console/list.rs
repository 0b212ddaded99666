//! The overview and the list of jobs: one page in two manners. On the overview new jobs come in by themselves while
//! nobody is in the list; on the list they wait until somebody asks.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::answer::Answer;
use super::door::Visitor;
use super::frame::{Me, with};
use super::page;
use super::show::Row;
use super::words::{self, Look};
use crate::access::{Action, Resource, Verb};
use crate::model::{JobKind, JobState, Micros};
use crate::store::provisioning::job::{self, Filter, Job};
use crate::store::provisioning::view;
use crate::web::rest::jobs as api;
use crate::web::{Fault, State};

/// Jobs on one page.
const ROWS: i64 = 50;
/// Marks in the address of a stream, which are no filter.
const MARKS: [&str; 3] = ["all", "paged", "feed"];

/// A state as a link to its jobs.
pub(super) struct Facet {
    pub(super) state: &'static str,
    pub(super) look: Look,
    pub(super) count: String,
    pub(super) none: bool,
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
                none: of(*wanted) == 0,
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
    if pairs.is_empty() { "/jobs".to_owned() } else { format!("/jobs?{}", pairs.join("&")) }
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
    title: &'static str,
    feed: bool,
    answer: Answer,
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
    let pairs = api::query(request, &["state", "kind", "before", "all", "paged", "feed"]);
    let meant = |(name, value): &(String, String)| !value.is_empty() && !MARKS.contains(&name.as_str());
    let pairs: Result<Vec<_>, _> = pairs.map(|pairs| pairs.into_iter().filter(meant).collect());
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
        let read = state.store.read(move |c| {
            let found = job::list(c, customer, &shown)?;
            Ok((found, view::counts(c, customer)?, view::oldest_open(c, customer)?, view::now(c)?))
        });
        let (found, counts, oldest, now) = read.await?;
        let feed = request.path() == "/" && typed_state.is_empty() && typed_kind.is_empty();
        let jobs: Vec<Job> = found.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let list = List {
            answer: Answer::of(&counts, oldest, now, feed),
            feed,
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
    answer: Answer,
    feed: bool,
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
        let (state, kind) = (self.state.as_str(), self.kind.as_str());
        let is_set = !state.is_empty() || !kind.is_empty();
        let list = href(state, kind, None);
        let mark = match (self.feed, self.paged) {
            (true, _) => "feed",
            (_, true) => "paged",
            (false, false) => "all",
        };
        let last = self.jobs.last().map(|job| job.id.0);
        let full = i64::try_from(self.jobs.len()).is_ok_and(|n| n >= ROWS);
        let mut command = "dispatcher jobs list".to_owned();
        for (name, value) in [("--state", state), ("--kind", kind)] {
            if !value.is_empty() {
                command.push_str(&format!(" {name} {value}"));
            }
        }
        Jobs {
            me: Me::of(visitor, self.now, if self.feed { "overview" } else { "jobs" }),
            title: if self.feed { "Overview" } else { "Jobs" },
            feed: self.feed,
            answer: self.answer,
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
            filter: Typed { is_set, live: live(&list, mark), href: list, state: self.state, kind: self.kind },
        }
    }
}

/// The stream that belongs to a list.
fn live(list: &str, mark: &str) -> String {
    match list.split_once('?') {
        Some((_, query)) => format!("/console/events?{query}&{mark}=1"),
        None => format!("/console/events?{mark}=1"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Facets, FacetsPart, filter_of, href, live};
    use actix_web::test::TestRequest;
    use askama::Template as _;

    #[test]
    fn the_view_is_in_the_address() {
        assert_eq!(href("", "", None), "/jobs");
        assert_eq!(href("open", "noop", Some(9)), "/jobs?state=open&kind=noop&before=9");
        assert_eq!(live("/jobs", "feed"), "/console/events?feed=1");
        assert_eq!(live("/jobs?state=open", "paged"), "/console/events?state=open&paged=1");
    }

    #[test]
    fn what_cannot_be_understood_is_said_and_filters_nothing() {
        let of = |query: &str| filter_of(&TestRequest::with_uri(&format!("/?{query}")).to_http_request());
        let (filter, state, kind, said) = of("state=open&kind=");
        assert_eq!((filter.states.len(), state.as_str(), kind.as_str(), said), (5, "open", "", None));
        let (filter, state, _, said) = of("state=%3Cscript%3E");
        assert!(filter.states.is_empty() && state.is_empty() && said.is_some());
        let (filter, state, _, said) = of("state=open&paged=1");
        assert_eq!((filter.states.len(), state.as_str(), said), (5, "open", None));
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
}

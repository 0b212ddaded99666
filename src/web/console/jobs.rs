//! The list of jobs: searched by one text, what needs a person first, then newest; it stands still until somebody asks.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde_json::{Value, json};

use super::answer::Answer;
use super::door::Visitor;
use super::facets::{Facets, counted, href};
use super::forms::Filled;
use super::frame::{Me, with};
use super::show::Row;
use super::{page, see_other, words};
use crate::access::{Action, Resource, Verb};
use crate::model::query::{self, Query};
use crate::model::{JobState, Micros};
use crate::store::AnyConnection;
use crate::store::provisioning::job::{Job, JobRow};
use crate::store::provisioning::search::{self, Counts, Page, Search};
use crate::store::provisioning::{catalog, saved, view};
use crate::web::rest::Problem;
use crate::web::rest::jobs::{self as api, Asked};
use crate::web::{Fault, State};

/// Jobs on one page.
const ROWS: i64 = 50;
/// States that sort up: only a person can say what became of the job.
const NEEDY: [JobState; 2] = [JobState::Quarantined, JobState::Unresolved];
/// Parameters of the page; the last three belong to its stream.
const KNOWN: [&str; 8] = ["q", "state", "kind", "server", "before", "all", "paged", "feed"];
const MARKS: [&str; 3] = ["all", "paged", "feed"];
/// Longest name of a saved view, in characters.
const LONGEST_NAME: usize = 40;

/// What a list is asked for, as it was typed, and what is wrong with it.
pub(super) struct Typed {
    pub(super) asked: Asked,
    /// Kept in the box, whatever it is.
    text: String,
    said: Option<String>,
}

/// Reads the address of a list. What cannot be understood is said on the page, and the text kept.
pub(super) fn typed(request: &HttpRequest) -> Typed {
    let meant = |(name, value): &(String, String)| !value.is_empty() && !MARKS.contains(&name.as_str());
    let pairs = api::query(request, &KNOWN).map(|pairs| pairs.into_iter().filter(meant).collect::<Vec<_>>());
    let text = |pairs: &[(String, String)]| {
        pairs.iter().find(|(name, _)| name == "q").map_or_else(String::new, |(_, value)| value.clone())
    };
    let read = pairs.map(|pairs| (text(&pairs), api::asked(&pairs)));
    let (text, problem) = match read {
        Ok((_, Ok(asked))) => {
            let text = asked.query.to_string();
            return Typed { asked: Asked { limit: ROWS, ..asked }, text, said: None };
        }
        Ok((text, Err(problem))) => (text, problem),
        Err(problem) => (String::new(), problem),
    };
    let text = words::plain(&text.chars().take(query::LONGEST).collect::<String>());
    Typed { asked: Asked::default(), text, said: Some(words::plain(problem.detail())) }
}

/// The search of somebody.
pub(super) fn search_of(visitor: &Visitor, query: Query) -> Search {
    let who = &visitor.principal;
    Search { customer: who.customer, person: who.person, query, scope: None }
}

/// A query kept under a name.
struct Saved {
    name: String,
    href: String,
    on: bool,
}

/// Why nothing is shown.
struct Nothing {
    /// The query without its last term: address, words, count.
    fewer: Option<(String, String, String)>,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct Jobs {
    me: Me,
    answer: Answer,
    facets: Facets,
    views: Vec<Saved>,
    view_on: String,
    q: String,
    said: Option<String>,
    suggestions: Vec<query::Suggestion>,
    needy: Vec<Row>,
    needy_more: bool,
    rows: Vec<Row>,
    is_set: bool,
    nothing: Option<Nothing>,
    newest: i64,
    live: String,
    here: String,
    older: Option<(String, &'static str)>,
    cancels: bool,
    command: String,
}

/// All that the page shows, as rows.
#[derive(Default)]
struct Found {
    needy: Page,
    rest: Page,
    counts: Counts,
    all: Vec<(String, i64)>,
    attempts: HashMap<String, i64>,
    accounts: HashMap<i64, String>,
    views: Vec<(String, String)>,
    fewer: Option<(Query, Counts)>,
    newest: i64,
    now: Micros,
}

/// The page.
pub(super) async fn jobs(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let typed = typed(&request);
        if let Some(id) = typed.asked.query.only_number() {
            return Ok(see_other(&format!("/jobs/{id}")));
        }
        let search = search_of(&visitor, typed.asked.query.clone());
        let (asked, refused) = (typed.asked.clone(), typed.said.is_some());
        let found = state.store.read(move |c| read(c, &search, &asked, refused)).await?;
        Ok(page(StatusCode::OK, &shown(&visitor, typed, found)?)?)
    })
    .await
}

fn read(c: &mut AnyConnection, search: &Search, asked: &Asked, refused: bool) -> diesel::QueryResult<Found> {
    let customer = search.customer;
    let all = view::counts(c, customer)?;
    let mut found = Found {
        now: view::now(c)?,
        views: saved::list(c, search.person)?,
        counts: if search.query.is_empty() {
            Counts { states: all.clone(), whole: true }
        } else {
            let query = counted(&search.query);
            search::counts(c, &Search { query, ..search.clone() })?
        },
        all,
        ..Found::default()
    };
    let newest = search::page(c, &Search::all(customer), None, 1)?;
    found.newest = newest.rows.first().map_or(0, |row| row.id);
    if refused {
        return Ok(found);
    }
    let rest: Vec<JobState> = JobState::ALL.iter().copied().filter(|state| !NEEDY.contains(state)).collect();
    if asked.before.is_none() {
        found.needy = search::page(c, &search.only(&NEEDY), None, ROWS)?;
    }
    found.rest = search::page(c, &search.only(&rest), asked.before, ROWS)?;
    let rows = || found.needy.rows.iter().chain(&found.rest.rows);
    let uids: Vec<String> = rows().map(|row| row.uid.clone()).collect();
    let none = uids.is_empty();
    found.attempts = search::attempts(c, &uids)?;
    let accounts = catalog::accounts(c, customer, None)?;
    found.accounts = accounts.into_iter().map(|row| (row.id, row.name)).collect();
    if let Some((query, _)) = search.query.without_last().filter(|_| none) {
        let counts = search::counts(c, &Search { query: query.clone(), ..search.clone() })?;
        found.fewer = Some((query, counts));
    }
    Ok(found)
}

fn shown(visitor: &Visitor, typed: Typed, found: Found) -> Result<Jobs, Problem> {
    let query = &typed.asked.query;
    let here = href(query);
    let paged = typed.asked.before.is_some();
    let row = |row: JobRow| -> Result<Row, Problem> {
        let attempts = found.attempts.get(&row.uid).copied().unwrap_or(0);
        let account = found.accounts.get(&row.account).map_or("", String::as_str);
        Ok(Row::of(&Job::try_from(row)?, found.now).listed(attempts, account))
    };
    let needy_more = found.needy.before.is_some();
    let needy: Vec<Row> = found.needy.rows.into_iter().map(row).collect::<Result<_, _>>()?;
    let rows: Vec<Row> = found.rest.rows.into_iter().map(row).collect::<Result<_, _>>()?;
    let text = query.to_string();
    let views: Vec<Saved> = found
        .views
        .iter()
        .map(|(name, kept)| Saved {
            name: words::plain(name),
            href: format!("/jobs?q={}", words::escaped(kept)),
            on: *kept == text,
        })
        .collect();
    let (next, cut) = (found.rest.before, found.rest.cut);
    let nothing = (needy.is_empty() && rows.is_empty()).then(|| Nothing {
        fewer: found.fewer.as_ref().map(|(query, counts)| {
            let n: i64 = counts.states.iter().map(|(_, n)| n).sum();
            (href(query), query.to_string(), words::about(n))
        }),
    });
    Ok(Jobs {
        me: Me::of(visitor, found.now, "jobs"),
        answer: Answer::of(&found.all),
        facets: Facets::of(&found.counts, query),
        view_on: views.iter().find(|view| view.on).map_or_else(String::new, |view| view.name.clone()),
        views,
        suggestions: suggestions(&typed.text),
        q: typed.text,
        said: typed.said,
        needy,
        needy_more,
        rows,
        is_set: !query.is_empty(),
        nothing,
        newest: found.newest,
        live: live(&text, paged),
        older: next.map(|id| {
            let apart = if here.contains('?') { '&' } else { '?' };
            let word = if cut { "Look further back" } else { "Older jobs" };
            (format!("{here}{apart}before={id}"), word)
        }),
        here,
        cancels: visitor.principal.can(Action::new(Verb::Cancel, Resource::Job)),
        command: if text.is_empty() {
            "dispatcher jobs list".to_owned()
        } else {
            format!("dispatcher jobs list --q '{}'", words::plain(&text).replace('\'', "'\\''"))
        },
    })
}

/// For a browser without script: what may stand behind what was typed.
fn suggestions(text: &str) -> Vec<query::Suggestion> {
    let apart = if text.is_empty() { "" } else { " " };
    query::suggest(&format!("{text}{apart}"))
}

/// The stream that belongs to a list.
fn live(text: &str, paged: bool) -> String {
    let mark = if paged { "paged" } else { "all" };
    if text.is_empty() {
        return format!("/console/events?{mark}=1");
    }
    format!("/console/events?q={}&{mark}=1", words::escaped(text))
}

/// How a text goes on, for the box.
pub(super) async fn suggest(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let pairs = api::query(&request, &["q"])?;
        let text = pairs.first().map_or("", |(_, text)| text.as_str());
        let found: Vec<Value> = query::suggest(text)
            .iter()
            .take(20)
            .map(|one| json!({ "text": one.text, "shown": one.shown, "hint": one.hint }))
            .collect();
        Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(found))
    })
    .await
}

/// Keeps the query of a list under a name, or forgets one.
pub(super) async fn views(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let pairs = Filled::of(&request, payload, &state, &visitor).await?.into_pairs();
        let of = |wanted: &str| {
            pairs.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.trim())
        };
        let (name, person) = (of("name").to_owned(), visitor.principal.person);
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            let text = format!("a view needs a name of 1 to {LONGEST_NAME} characters; type one");
            return Err(Problem::field("name", text));
        }
        if of("act") == "forget" {
            state.store.write(move |c| saved::forget(c, person, &name)).await?;
            return Ok(see_other("/jobs"));
        }
        let query: Query = of("q").parse().map_err(|e: query::Refused| Problem::field("q", e.to_string()))?;
        let (there, text) = (href(&query), query.to_string());
        if !state.store.write(move |c| saved::keep(c, person, &name, &text)).await? {
            let text = format!("you keep {} views; forget one first", saved::MOST);
            return Err(Fault::conflict(text).into());
        }
        Ok(see_other(&there))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{live, typed};
    use crate::model::query::Field;
    use actix_web::test::TestRequest;

    #[test]
    fn what_cannot_be_understood_is_said_and_kept_in_the_box() {
        let of = |query: &str| typed(&TestRequest::with_uri(&format!("/jobs?{query}")).to_http_request());
        let good = of("state=open&kind=&q=-kind%3Anoop&paged=1&before=7");
        assert_eq!((good.text.as_str(), good.said), ("state:open -kind:noop", None));
        assert_eq!(good.asked.query.says(Field::State).as_deref(), Some("open"));
        assert_eq!(good.asked.before.map(|id| id.0), Some(7));
        let bad = of("q=stat%3Afailed+%3Cscript%3E");
        assert_eq!(bad.text, "stat:failed <script>");
        assert!(bad.asked.query.is_empty() && bad.said.expect("said").contains("did you mean state?"));
        assert!(of("nonsense=1").said.expect("said").contains("nonsense"));
    }

    #[test]
    fn a_stream_shows_what_the_page_shows() {
        assert_eq!(live("", false), "/console/events?all=1");
        assert_eq!(live("state:open", true), "/console/events?q=state:open&paged=1");
    }
}

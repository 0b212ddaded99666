//! What is about to be done to many jobs: shown first, frozen for some minutes, then carried out as it was shown or
//! not at all.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::door::Visitor;
use super::facets::href;
use super::forms::Filled;
use super::frame::{Me, with};
use super::jobs::search_of;
use super::{page, see_other, words};
use crate::access::{Action, Principal, Resource, Verb};
use crate::crypto::{hex, sha256};
use crate::model::query::{Field, Query, Refused};
use crate::model::{JobId, JobKind, JobState, Micros, Uid};
use crate::store::AnyConnection;
use crate::store::provisioning::accept::{Entry, IdemKey};
use crate::store::provisioning::job::Job;
use crate::store::provisioning::plan::{self, New, PlanRow};
use crate::store::provisioning::search::{self, Search};
use crate::store::provisioning::view;
use crate::web::rest::{Problem, acts, submit};
use crate::web::{Fault, RequestId, State};

/// Jobs in one plan.
const MOST: usize = 500;
/// How long a plan may be carried out.
const LASTS: Duration = Duration::from_secs(600);
/// Jobs acted on at the same time; their writes share commits.
const AT_ONCE: usize = 16;

/// What a plan does to each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Cancel,
    Retry,
}

impl Act {
    fn of(word: &str) -> Result<Self, Problem> {
        match word {
            "cancel" => Ok(Self::Cancel),
            "retry" => Ok(Self::Retry),
            _ => Err(Problem::field("act", "a plan cancels or retries; press one of the two buttons")),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Cancel => "Cancel",
            Self::Retry => "Retry",
        }
    }

    /// Why it cannot be done to a job; nothing when it can.
    fn refusal(self, job: &Job, who: &Principal) -> Option<String> {
        match self {
            Self::Cancel if job.ended_at.is_some() => Some(format!("has ended: {}", job.state)),
            Self::Cancel => job.cancel_by.as_ref().map(|by| format!("its cancel was asked by {by}")),
            Self::Retry if job.ended_at.is_none() => Some(format!("is {} and goes on", job.state)),
            Self::Retry if job.state == JobState::Complete => Some("is complete".to_owned()),
            Self::Retry if job.account != who.account => {
                Some(format!("used account {}, yours is {}", job.account, who.account))
            }
            Self::Retry if !who.can(submit::action(job.params.kind())) => {
                Some(format!("you lack the right to ask for {}", job.params.kind()))
            }
            Self::Retry => None,
        }
    }
}

/// A job in a plan, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    id: i64,
    kind: String,
    what: String,
    account: i64,
    /// Why nothing is done to it.
    skipped: Option<String>,
}

/// What came of a job of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outcome {
    id: i64,
    /// The job that was made.
    made: Option<i64>,
    /// Why nothing was done.
    failed: Option<String>,
}

fn item(act: Act, job: &Job, who: &Principal) -> Item {
    Item {
        id: job.id.0,
        kind: job.params.kind().to_string(),
        what: job.description.clone(),
        account: job.account.0,
        skipped: act.refusal(job, who),
    }
}

/// Reads what was marked: numbers, or all that a query found when the page was made.
fn wanted(pairs: &[(String, String)]) -> Result<(Act, Query), Problem> {
    let of =
        |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str());
    let act = Act::of(of("act"))?;
    let refused = |e: Refused| Problem::field("q", e.to_string());
    if of("all") == "1" {
        let query: Query = of("q").parse().map_err(refused)?;
        return Ok((act, query));
    }
    let ids: Vec<&str> = pairs
        .iter()
        .filter(|(name, _)| name == "id")
        .map(|(_, value)| value.as_str())
        .take(MOST + 1)
        .collect();
    if ids.is_empty() {
        return Err(Problem::field("id", "no job is selected; go back and mark some, or all that match"));
    }
    Ok((act, Query::default().and(Field::Id, &ids.join(",")).map_err(refused)?))
}

fn found(
    c: &mut AnyConnection,
    search: &Search,
    newest: Option<i64>,
) -> diesel::QueryResult<(search::Page, Micros)> {
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    let before = newest.map(|newest| JobId(newest.saturating_add(1)));
    Ok((search::page(c, search, before, most)?, view::now(c)?))
}

/// Freezes a plan, then shows it. Nothing is done yet.
pub(super) async fn make(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let pairs = Filled::of(&request, payload, &state, &visitor).await?.into_pairs();
        let (act, query) = wanted(&pairs)?;
        let right = if act == Act::Cancel { Verb::Cancel } else { Verb::Read };
        visitor.principal.must(Action::new(right, Resource::Job))?;
        let mark = pairs.iter().find(|(name, _)| name == "newest").and_then(|(_, value)| value.parse().ok());
        let search = search_of(&visitor, query);
        let asked = search.clone();
        let (page, _) = state.store.read(move |c| found(c, &asked, mark)).await?;
        if page.before.is_some() {
            let text = format!(
                "more than {MOST} jobs, or more than one look finds, match \"{}\"; narrow the query, such as with newer:1h",
                search.query
            );
            return Err(Fault::conflict(text).into());
        }
        let jobs: Vec<Job> = page.rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let items: Vec<Item> = jobs.iter().map(|job| item(act, job, &visitor.principal)).collect();
        let new = New {
            id: Uid::random(),
            customer: search.customer,
            person: search.person,
            act: act.word(),
            query: search.query.to_string(),
            jobs: serde_json::to_string(&items).map_err(|e| Fault::internal(&e))?,
        };
        let id = new.id;
        state.store.write(move |c| plan::make(c, &new, LASTS)).await?;
        Ok(see_other(&format!("/plans/{id}")))
    })
    .await
}

/// A job on the page of a plan.
struct Line {
    id: i64,
    kind: String,
    what: String,
    account: i64,
    skipped: Option<String>,
    made: Option<i64>,
    failed: Option<String>,
}

#[derive(Template)]
#[template(path = "plan.html")]
struct Shown {
    me: Me,
    id: String,
    act: &'static str,
    verb: &'static str,
    all: String,
    will: usize,
    will_words: String,
    skips: usize,
    accounts: String,
    riskiest: &'static str,
    lines: Vec<Line>,
    done: Option<String>,
    expired: Option<String>,
    until: String,
    back: String,
}

struct Plan {
    row: PlanRow,
    act: Act,
    items: Vec<Item>,
}

async fn plan_of(request: &HttpRequest, state: &State, visitor: &Visitor) -> Result<(Plan, Micros), Problem> {
    let id: String = request.match_info().query("id").chars().take(40).collect();
    let (person, wanted) = (visitor.principal.person, id.clone());
    let read = state.store.read(move |c| Ok((plan::find(c, person, &wanted)?, view::now(c)?)));
    let (row, now) = read.await?;
    let row = row.ok_or_else(|| {
        Problem::absent(
            "id",
            format!("there is no plan {id} of yours; plans are kept for a day, make a new one"),
        )
    })?;
    let act = Act::of(&row.act)?;
    let items = serde_json::from_str(&row.jobs).map_err(|e| Fault::internal(&e))?;
    Ok((Plan { row, act, items }, now))
}

/// The riskiest thing a plan does, in words.
fn riskiest(act: Act, items: &[Item]) -> &'static str {
    let will = |kind: JobKind| items.iter().any(|item| item.skipped.is_none() && item.kind == kind.as_str());
    match act {
        _ if items.iter().all(|item| item.skipped.is_some()) => "nothing is done",
        Act::Cancel if will(JobKind::LaunchServer) => "takes back servers that were just made",
        Act::Cancel => "stops what goes on; what was made is taken back",
        Act::Retry if will(JobKind::TerminateServer) || will(JobKind::TakeBack) => "destroys servers",
        Act::Retry if will(JobKind::RunCommand) => "runs commands on guests once more",
        Act::Retry if will(JobKind::StopServer) || will(JobKind::PauseServer) => "stops servers",
        Act::Retry if will(JobKind::LaunchServer) => "makes servers, which cost money",
        Act::Retry => "asks for the same once more",
    }
}

fn jobs_of(n: usize) -> String {
    if n == 1 { "1 job".to_owned() } else { format!("{} jobs", words::count(i64::try_from(n).unwrap_or(0))) }
}

/// The page of a plan.
pub(super) async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let (plan, now) = plan_of(&request, &state, &visitor).await?;
        Ok(page(StatusCode::OK, &shown(&visitor, &plan, now)?)?)
    })
    .await
}

fn shown(visitor: &Visitor, plan: &Plan, now: Micros) -> Result<Shown, Problem> {
    let Plan { row, act, items } = plan;
    let outcomes: Vec<Outcome> = match &row.result {
        Some(text) => serde_json::from_str(text).map_err(|e| Fault::internal(&e))?,
        None => Vec::new(),
    };
    let lines = items.iter().map(|item| {
        let outcome = outcomes.iter().find(|outcome| outcome.id == item.id);
        Line {
            id: item.id,
            kind: words::plain(&item.kind),
            what: words::plain(&item.what),
            account: item.account,
            skipped: item.skipped.as_deref().map(words::plain),
            made: outcome.and_then(|outcome| outcome.made),
            failed: outcome.and_then(|outcome| outcome.failed.as_deref()).map(words::plain),
        }
    });
    let will: Vec<&Item> = items.iter().filter(|item| item.skipped.is_none()).collect();
    let mut accounts: Vec<i64> = will.iter().map(|item| item.account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let accounts: Vec<String> = accounts.iter().map(ToString::to_string).collect();
    let expires = Micros(row.expires_at);
    let query: Query = row.query.parse().unwrap_or_default();
    let failed = outcomes.iter().filter(|outcome| outcome.failed.is_some()).count();
    Ok(Shown {
        me: Me::of(visitor, now, "jobs"),
        id: row.id.clone(),
        act: act.word(),
        verb: act.verb(),
        all: jobs_of(items.len()),
        will: will.len(),
        will_words: jobs_of(will.len()),
        skips: items.len() - will.len(),
        accounts: if accounts.is_empty() { "–".to_owned() } else { accounts.join(", ") },
        riskiest: riskiest(*act, items),
        lines: lines.collect(),
        done: row.done_at.map(|at| {
            let clock = words::clock(Micros(at));
            match failed {
                0 => format!("Carried out at {clock}: {} of {} done.", will.len(), will.len()),
                n => {
                    format!("Carried out at {clock}: {} of {} done, {n} refused.", will.len() - n, will.len())
                }
            }
        }),
        expired: (row.done_at.is_none() && now >= expires).then(|| {
            format!(
                "It expired at {} and can no longer be carried out; make a new one.",
                words::clock(expires)
            )
        }),
        until: words::clock(expires),
        back: href(&query),
    })
}

/// Carries a plan out, if what it shows still holds.
pub(super) async fn run(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        Filled::of(&request, payload, &state, &visitor).await?;
        let (plan, now) = plan_of(&request, &state, &visitor).await?;
        let there = format!("/plans/{}", plan.row.id);
        if plan.row.done_at.is_some() {
            return Ok(see_other(&there));
        }
        if now >= Micros(plan.row.expires_at) {
            return Err(Fault::conflict("this plan has expired, nothing was done; make a new one").into());
        }
        if plan.act == Act::Cancel {
            visitor.principal.must(Action::new(Verb::Cancel, Resource::Job))?;
        }
        still_holds(&state, &visitor, &plan).await?;
        let request_id = RequestId::of(&request).0;
        let work = plan.items.iter().filter(|item| item.skipped.is_none()).map(|item| {
            let (state, who) = (&state, &visitor.principal);
            let entry = entry_of(who, request_id, &plan, item.id);
            async move { outcome(state, who, (plan.act, entry), JobId(item.id)).await }
        });
        let outcomes: Vec<Outcome> = futures_util::stream::iter(work).buffered(AT_ONCE).collect().await;
        let text = serde_json::to_string(&outcomes).map_err(|e| Fault::internal(&e))?;
        let id = plan.row.id.clone();
        state.store.write(move |c| plan::done(c, &id, &text)).await?;
        Ok(see_other(&there))
    })
    .await
}

/// The same plan and job is one request, however often the button is pressed and wherever the process dies.
fn entry_of(who: &Principal, request: Uid, plan: &Plan, job: i64) -> Entry {
    let key = format!("plan-{}-{job}", plan.row.id);
    let body_hash = hex::encode(&sha256(&key));
    Entry {
        customer: who.customer,
        access_key: who.access_key.clone(),
        request,
        replay: None,
        idem: Some(IdemKey { key, body_hash }),
        repeat_by_key: false,
    }
}

async fn outcome(state: &State, who: &Principal, (act, entry): (Act, Entry), id: JobId) -> Outcome {
    let done = match act {
        Act::Cancel => {
            let asked = state.registry.cancel_once(entry, id, who.name.clone()).await;
            asked.map(|()| None).map_err(Problem::from)
        }
        Act::Retry => acts::repeat(state, who, entry, id).await.map(|job| Some(job.id.0)),
    };
    match done {
        Ok(made) => Outcome { id: id.0, made, failed: None },
        Err(problem) => Outcome { id: id.0, made: None, failed: Some(problem.detail().to_owned()) },
    }
}

/// Refuses a plan when the world is no longer as it shows: it is never adapted behind somebody's back.
async fn still_holds(state: &State, visitor: &Visitor, plan: &Plan) -> Result<(), Problem> {
    let ids: Vec<String> = plan.items.iter().map(|item| item.id.to_string()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let refused = |e: Refused| Problem::field("q", e.to_string());
    let query = Query::default().and(Field::Id, &ids.join(",")).map_err(refused)?;
    let search = search_of(visitor, query);
    let (page, _) = state.store.read(move |c| found(c, &search, None)).await?;
    let jobs: Vec<Job> = page.rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
    for item in &plan.items {
        let job = jobs.iter().find(|job| job.id.0 == item.id);
        let now = job.map(|job| plan.act.refusal(job, &visitor.principal));
        // An own earlier run that broke off has asked already for some of it.
        let ours = item.skipped.is_none()
            && job.is_some_and(|job| job.cancel_by.as_deref() == Some(visitor.principal.name.as_str()));
        if now.as_ref() == Some(&item.skipped) || ours {
            continue;
        }
        let why = now.flatten().unwrap_or_else(|| "can be acted on now".to_owned());
        let text =
            format!("job {} {why}, so the plan no longer holds; nothing was done, make a new one", item.id);
        return Err(Fault::conflict(text).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Act, Item, riskiest, wanted};

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn marked_numbers_or_a_query_become_a_search() {
        let (act, query) = wanted(&pairs(&[("act", "cancel"), ("id", "7"), ("id", "9")])).expect("good");
        assert_eq!((act, query.to_string()), (Act::Cancel, "id:7,9".to_owned()));
        let all = pairs(&[("act", "retry"), ("all", "1"), ("q", "state:failed"), ("id", "7")]);
        assert_eq!(wanted(&all).expect("good").1.to_string(), "state:failed");
        for (bad, field) in [
            (pairs(&[("act", "cancel")]), "id"),
            (pairs(&[("act", "destroy"), ("id", "7")]), "act"),
            (pairs(&[("act", "retry"), ("id", "x")]), "q"),
        ] {
            assert_eq!(wanted(&bad).expect_err("bad").at_fault(), Some(field));
        }
    }

    #[test]
    fn the_riskiest_thing_is_told_and_skipped_jobs_are_no_risk() {
        let item = |kind: &str, skipped: bool| Item {
            id: 1,
            kind: kind.to_owned(),
            what: String::new(),
            account: 1,
            skipped: skipped.then(|| "no".to_owned()),
        };
        let items = [item("terminate-server", true), item("run-command", false)];
        assert!(riskiest(Act::Retry, &items).contains("runs commands"));
        assert_eq!(riskiest(Act::Retry, &items[..1]), "nothing is done");
        assert!(riskiest(Act::Cancel, &[item("launch-server", false)]).contains("takes back"));
    }
}

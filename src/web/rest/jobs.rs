//! `/jobs`: lists, one job, what its command wrote, its cancel.

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::acts::fresh_why;
use super::fields::nearest;
use super::{Problem, group, obligations, reader, show};
use crate::access::Resource;
use crate::model::query::{Field, Query, Refused};
use crate::model::{CustomerId, JobId};
use crate::registry;
use crate::store::provisioning::job::{self, History, Job};
use crate::store::provisioning::obligation::{self, Filter};
use crate::store::provisioning::search::{self, Search};
use crate::store::provisioning::view;
use crate::web::State;

/// Most jobs in one answer.
const MOST: i64 = 500;
/// Most bytes of output in one answer.
const WINDOW: usize = 1024 * 1024;

/// The parameters of a query; names nobody knows are refused.
pub(in crate::web) fn query(request: &HttpRequest, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|e| Problem::field("query", format!("the query cannot be read: {e}")))?
        .into_inner();
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        None => Ok(pairs),
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            let hint = nearest(&name, known).map_or_else(
                || format!("known are {}", known.join(", ")),
                |meant| format!("did you mean {meant}?"),
            );
            Err(Problem::field(name.clone(), format!("parameter {name} is not known; {hint}")))
        }
    }
}

pub(super) fn number(name: &str, value: &str, least: i64, most: i64) -> Result<i64, Problem> {
    value.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        let value: String = value.chars().take(40).collect();
        Problem::field(
            name,
            format!("parameter {name} must be a whole number from {least} to {most}, not \"{value}\""),
        )
    })
}

/// Which jobs a list shows.
#[derive(Clone, Debug, Default)]
pub(in crate::web) struct Asked {
    pub(in crate::web) query: Query,
    pub(in crate::web) before: Option<JobId>,
    pub(in crate::web) limit: i64,
}

/// The parameters of a list. `state`, `kind` and `server` say the same as the terms of that name in `q`.
const LISTED: [&str; 6] = ["q", "state", "kind", "server", "before", "limit"];

/// Reads what a list is asked for.
pub(in crate::web) fn asked(pairs: &[(String, String)]) -> Result<Asked, Problem> {
    let mut asked = Asked { limit: 50, ..Asked::default() };
    for (name, value) in pairs {
        let term = |field| asked.query.clone().and(field, value);
        let refused = |refused: Refused| Problem::field(name, refused.to_string());
        match name.as_str() {
            "q" => {
                let typed: Query = value.parse().map_err(refused)?;
                asked.query.terms.extend(typed.terms);
            }
            "state" => asked.query = term(Field::State).map_err(refused)?,
            "kind" => asked.query = term(Field::Kind).map_err(refused)?,
            "server" => asked.query = term(Field::Server).map_err(refused)?,
            "before" => asked.before = Some(JobId(number(name, value, 1, i64::MAX)?)),
            "limit" => asked.limit = number(name, value, 1, MOST)?,
            _ => {}
        }
    }
    Ok(asked)
}

/// A tenant's jobs, newest first.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    listed(&request, payload, &state).await.map_err(|problem| problem.of(&request))
}

async fn listed(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
) -> Result<HttpResponse, Problem> {
    let caller = reader(request, payload, state, Resource::Job).await?;
    let Asked { query, before, limit } = asked(&query(request, &LISTED)?)?;
    let search =
        Search { customer: caller.principal.customer, person: caller.principal.person, query, scope: None };
    let found = state.store.read(move |c| search::page(c, &search, before, limit)).await?;
    let jobs: Vec<Job> = found.rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
    let shown: Vec<Value> = jobs.iter().map(show::job).collect();
    Ok(HttpResponse::Ok().json(json!({ "jobs": shown, "before": found.before })))
}

/// The number in a path such as `/jobs/{id}`.
pub(in crate::web) fn id_of(request: &HttpRequest) -> Result<JobId, Problem> {
    let text = request.match_info().query("id");
    let id = text.parse().ok().filter(|id| *id > 0).map(JobId);
    id.ok_or_else(|| {
        Problem::absent("id", format!("there is no job {}", text.chars().take(40).collect::<String>()))
    })
}

/// A tenant's job with all that belongs to it.
pub(in crate::web) async fn find(state: &State, customer: CustomerId, id: JobId) -> Result<History, Problem> {
    let found = state
        .store
        .read(move |c| match job::by_id(c, customer, id)? {
            Some(row) => match row.uid.parse() {
                Ok(uid) => job::history(c, uid),
                Err(_) => Ok(None),
            },
            None => Ok(None),
        })
        .await?;
    found.ok_or_else(|| registry::Error::NoSuchJob(id).into())
}

/// One job.
pub(super) async fn one(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        let customer = caller.principal.customer;
        let mut history = find(&state, customer, id_of(&request)?).await?;
        fresh_why(&state, &mut history.job).await?;
        let progress = group::progress(&state, &history.job).await?;
        let of = Filter { job: Some(history.job.uid), closed: true, limit: MOST, ..Filter::default() };
        let owed = state.store.read(move |c| obligation::list(c, customer, &of)).await?;
        Ok((history, progress, owed))
    };
    let (history, progress, owed) = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let mut shown = show::history(&history);
    if let Some(fields) = shown.as_object_mut() {
        if let Some(progress) = progress {
            fields.insert("children".to_owned(), progress.shown());
        }
        let owed = owed.iter().map(|row| obligations::shown(row, Some(history.job.id.0))).collect();
        fields.insert("obligations".to_owned(), owed);
    }
    Ok(HttpResponse::Ok().json(shown))
}

/// What a job's command wrote, as bytes.
pub(super) async fn output(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let read = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        let window = window(&query(&request, &["stream", "from", "limit"])?)?;
        let history = find(&state, caller.principal.customer, id_of(&request)?).await?;
        let (uid, from) = (history.job.uid, window.from);
        let bytes =
            state.store.read(move |c| view::output(c, uid, window.stream, from, window.limit)).await?;
        Ok::<_, Problem>((from, bytes))
    };
    let (from, bytes) = read.await.map_err(|problem| problem.of(&request))?;
    Ok(raw(from, bytes))
}

/// Bytes a guest wrote: hostile, so never anything a browser would run.
pub(in crate::web) fn raw(from: i64, bytes: Vec<u8>) -> HttpResponse {
    let next = from.saturating_add(i64::try_from(bytes.len()).unwrap_or(0));
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"output\""))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header(("x-next-from", next))
        .body(bytes)
}

/// Which part of which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) struct Window {
    pub(in crate::web) stream: &'static str,
    pub(in crate::web) from: i64,
    pub(in crate::web) limit: usize,
}

/// Reads `stream`, `from` and `limit`.
pub(in crate::web) fn window(pairs: &[(String, String)]) -> Result<Window, Problem> {
    let mut window = Window { stream: "stdout", from: 0, limit: WINDOW };
    for (name, value) in pairs {
        match (name.as_str(), value.as_str()) {
            ("stream", "stdout") => window.stream = "stdout",
            ("stream", "stderr") => window.stream = "stderr",
            ("stream", _) => {
                return Err(Problem::field("stream", "parameter stream must be stdout or stderr"));
            }
            ("from", value) => window.from = number(name, value, 0, i64::MAX)?,
            ("limit", value) => {
                let most = i64::try_from(WINDOW).unwrap_or(i64::MAX);
                window.limit = usize::try_from(number(name, value, 1, most)?).unwrap_or(WINDOW);
            }
            _ => {}
        }
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::{LISTED, Window, asked, query, window};
    use crate::model::JobId;
    use actix_web::test::TestRequest;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, super::Problem> {
        let request = TestRequest::with_uri(&format!("/x?{text}")).to_http_request();
        query(&request, &[&LISTED[..], &["stream", "from"]].concat())
    }

    #[test]
    fn lists_are_searched_and_bounded() {
        let found = asked(
            &pairs("q=-class:auth&state=open,failed&kind=noop&server=3&before=9&limit=500").expect("known"),
        )
        .expect("good");
        assert_eq!(found.query.to_string(), "-class:auth state:open,failed kind:noop server:3");
        assert_eq!((found.before, found.limit), (Some(JobId(9)), 500));
        for (bad, field, said) in [
            ("limit=501", "limit", "1 to 500"),
            ("limit=-1", "limit", "1 to 500"),
            ("state=done", "state", "queued"),
            ("kind=x", "kind", "noop"),
            ("server=web", "server", "number"),
            ("before=", "before", "whole number"),
            ("q=stat:failed", "q", "did you mean state?"),
            ("stat=open", "stat", "did you mean state?"),
        ] {
            let problem = pairs(bad).and_then(|pairs| asked(&pairs)).expect_err(bad);
            assert!(problem.detail().contains(said), "{bad}: {problem}");
            assert_eq!(problem.at_fault(), Some(field), "{bad}");
        }
    }

    #[test]
    fn output_is_asked_for_by_bytes() {
        let whole = window(&pairs("stream=stderr&from=10&limit=5").expect("known")).expect("good");
        assert_eq!(whole, Window { stream: "stderr", from: 10, limit: 5 });
        for bad in ["stream=stdin", "from=-1", "limit=0", "limit=99999999"] {
            assert!(window(&pairs(bad).expect("known")).is_err(), "{bad}");
        }
    }
}

//! `/schedules`: jobs that are submitted again and again, by a cron expression.

use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use diesel::QueryResult;
use serde_json::{Value, json};

use super::jobs::query;
use super::submit::{self, Asked, Plain, body};
use super::{Problem, admit, reader, show};
use crate::access::{Action, Principal, Resource, Verb};
use crate::model::{CustomerId, JobParams, Micros};
use crate::registry::{Cron, described};
use crate::store::AnyConnection;
use crate::store::provisioning::accept::{self, Answer, Entered, Entry};
use crate::store::provisioning::schedule::{self, MISFIRES, MOST, ScheduleRow};
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::view;
use crate::web::{Fault, State};

/// What a role must grant before a schedule is switched or taken away.
const CHANGE: Action = Action::new(Verb::Update, Resource::Job);
/// What everybody needs; making one needs the right of its job too.
const READ: Action = Action::new(Verb::Read, Resource::Job);

fn params_of(row: &ScheduleRow) -> Result<JobParams, Problem> {
    serde_json::from_str(&row.params).map_err(|e| Fault::internal(&e).into())
}

fn time(at: Option<i64>) -> Option<String> {
    at.map(|at| Micros(at).rfc3339())
}

/// A schedule as the API shows it.
fn shown(row: &ScheduleRow) -> Result<Value, Problem> {
    let params = params_of(row)?;
    Ok(json!({
        "id": row.id,
        "name": row.name,
        "cron": row.cron,
        "enabled": row.enabled,
        "misfire": row.misfire,
        "kind": params.kind().as_str(),
        "params": show::params(&params),
        "description": row.description,
        "priority": row.priority,
        "deadlineSeconds": row.time_limit / 1_000_000,
        "account": row.account,
        "person": row.person,
        "nextAt": time(row.next_at),
        "lastAt": time(row.last_at),
        "lastJob": row.last_job,
        "createdAt": Micros(row.made_at).rfc3339(),
    }))
}

/// A tenant's schedules.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        let customer = caller.principal.customer;
        let rows = state.store.read(move |c| schedule::list(c, customer)).await?;
        rows.iter().map(shown).collect::<Result<Vec<Value>, Problem>>()
    };
    let shown = found.await.map_err(|problem: Problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(json!({ "schedules": shown })))
}

/// The schedule that a path names.
async fn find(request: &HttpRequest, state: &State, customer: CustomerId) -> Result<ScheduleRow, Problem> {
    let word = request.match_info().query("id");
    let found = match word.parse() {
        Ok(id) => state.store.read(move |c| schedule::by_id(c, customer, id)).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| absent(word))
}

fn absent(word: &str) -> Problem {
    let shown: String = word.chars().take(40).collect();
    Problem::absent("id", format!("there is no schedule {shown}; list yours with GET /api/v1/schedules"))
}

/// One schedule.
pub(super) async fn one(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        shown(&find(&request, &state, caller.principal.customer).await?)
    };
    Ok(HttpResponse::Ok().json(found.await.map_err(|problem: Problem| problem.of(&request))?))
}

/// What is asked for: when, and which job.
#[derive(Debug)]
struct Wish {
    name: String,
    text: String,
    cron: Cron,
    misfire: String,
    enabled: bool,
    job: Asked,
}

impl Wish {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"name\": …, \"cron\": \"30 3 * * *\", \"job\": {\"kind\": …}}")?;
        let name = fields.needed_text("name", 64)?;
        let text = fields.needed_text("cron", 128)?;
        let cron = text.parse::<Cron>().map_err(|said| Problem::field("cron", said))?;
        let misfire = fields.text("misfire", 16)?.unwrap_or_else(|| "skip".to_owned());
        let enabled = fields.value("enabled").unwrap_or(Value::Bool(true)).as_bool();
        let job = fields.value("job").unwrap_or_else(|| json!({}));
        fields.end()?;
        if !MISFIRES.contains(&misfire.as_str()) {
            let text = "field misfire must be skip (a missed time is left out) or once (it is made up for)";
            return Err(Problem::field("misfire", text));
        }
        let enabled =
            enabled.ok_or_else(|| Problem::field("enabled", "field enabled must be true or false"))?;
        let job = Asked::read(job.to_string().as_bytes()).map_err(|problem| {
            let field = problem.at_fault().unwrap_or_default();
            Problem::field(
                format!("job.{field}").trim_end_matches('.'),
                format!("in job: {}", problem.detail()),
            )
        })?;
        if job.is_put_off() {
            let text = "a job of a schedule starts when the schedule fires; leave delaySeconds out";
            return Err(Problem::field("job.delaySeconds", text));
        }
        Ok(Self { name, text, cron, misfire, enabled, job })
    }
}

/// Makes a schedule. Its job is looked up now, and its jobs do what was meant now.
pub(super) async fn add(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let made = async {
        let (caller, bytes) = admit(&request, payload, &state, READ).await?;
        let wish = Wish::read(&bytes)?;
        let row = row_of(&state, &caller.principal, wish).await?;
        stored(&state, caller.entry(), row).await
    };
    let row = made.await.map_err(|problem: Problem| problem.of(&request))?;
    let place = format!("/api/v1/schedules/{}", row.id);
    let shown = shown(&row).map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::Created().insert_header((LOCATION, place)).json(shown))
}

async fn row_of(state: &State, who: &Principal, wish: Wish) -> Result<ScheduleRow, Problem> {
    let now = state.store.read(view::now).await?;
    let next = wish
        .cron
        .after(now)
        .ok_or_else(|| Problem::field("cron", format!("\"{}\" names no time that ever comes", wish.text)))?;
    let plain = submit::plain(state, who, wish.job).await?;
    let params = serde_json::to_string(&plain.params).map_err(|e| Fault::internal(&e))?;
    Ok(ScheduleRow {
        id: state.sequencer.next(Sequence::Resource).await?,
        customer: who.customer.0,
        account: who.account.0,
        person: who.person.0,
        name: wish.name,
        cron: wish.text,
        params,
        description: plain.description,
        priority: plain.priority,
        time_limit: i64::try_from(plain.limit.as_micros()).unwrap_or(i64::MAX),
        misfire: wish.misfire,
        enabled: wish.enabled,
        next_at: wish.enabled.then_some(next.0),
        last_at: None,
        last_job: None,
        made_at: now.0,
        version: 1,
    })
}

const fn answer(id: i64, status: i32) -> Answer {
    Answer { job: None, status, created: Some(id) }
}

/// Whether a write may go on; false when it was done before.
fn fresh(entered: &Entered) -> Result<bool, Problem> {
    match entered {
        Entered::Fresh => Ok(true),
        Entered::Same(_) => Ok(false),
        Entered::Conflict => Err(crate::registry::Error::Conflict.into()),
        Entered::Replayed => Err(crate::registry::Error::Replayed.into()),
    }
}

async fn stored(state: &State, entry: Entry, row: ScheduleRow) -> Result<ScheduleRow, Problem> {
    let (customer, name, new) = (entry.customer, row.name.clone(), row.clone());
    let item = move |c: &mut AnyConnection| {
        let there = schedule::list(c, customer)?;
        let known = match &entry.idem {
            Some(key) => accept::earlier(c, &entry, key)?.is_some(),
            None => false,
        };
        let full = i64::try_from(there.len()).unwrap_or(MOST) >= MOST;
        if !known && (full || there.iter().any(|other| other.name == row.name)) {
            return Ok(None);
        }
        let entered = accept::enter(c, &entry, &answer(row.id, 201))?;
        if entered == Entered::Fresh && !schedule::insert(c, &row)? {
            return Err(diesel::result::Error::RollbackTransaction);
        }
        Ok(Some(entered))
    };
    let Some(entered) = state.store.write(item).await? else {
        let text =
            format!("there is a schedule \"{name}\" already, or there are {MOST} of them; delete one first");
        return Err(Fault::conflict(text).into());
    };
    match (fresh(&entered)?, entered) {
        (false, Entered::Same(first)) => {
            let id = first.created.unwrap_or_default();
            let row = state.store.read(move |c| schedule::by_id(c, customer, id)).await?;
            row.ok_or_else(|| absent(&id.to_string()))
        }
        _ => Ok(new),
    }
}

/// Does something to the schedule that a path names, once.
async fn change(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    act: impl Fn(&mut AnyConnection, &ScheduleRow) -> QueryResult<bool> + Send + 'static,
) -> Result<ScheduleRow, Problem> {
    let (caller, bytes) = admit(request, payload, state, CHANGE).await?;
    body(&bytes, "nothing")?.end()?;
    let (entry, customer) = (caller.entry(), caller.principal.customer);
    let row = find(request, state, customer).await?;
    let id = row.id;
    let item = move |c: &mut AnyConnection| {
        let entered = accept::enter(c, &entry, &answer(id, 200))?;
        if entered == Entered::Fresh {
            act(c, &row)?;
        }
        Ok((entered, schedule::by_id(c, customer, id)?.unwrap_or_else(|| row.clone())))
    };
    let (entered, row) = state.store.write(item).await?;
    fresh(&entered)?;
    Ok(row)
}

/// Has a schedule fire again, from its next time on.
pub(super) async fn enable(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let act = |c: &mut AnyConnection, row: &ScheduleRow| {
        let now = c.now()?;
        let next = row.next_at.map(Micros).or_else(|| row.cron.parse::<Cron>().ok()?.after(now));
        schedule::set_next(c, (CustomerId(row.customer), row.id), next)
    };
    let row = change(&request, payload, &state, act).await.and_then(|row| shown(&row));
    Ok(HttpResponse::Ok().json(row.map_err(|problem| problem.of(&request))?))
}

/// Has a schedule fire no more until it is enabled.
pub(super) async fn disable(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let act = |c: &mut AnyConnection, row: &ScheduleRow| {
        schedule::set_next(c, (CustomerId(row.customer), row.id), None)
    };
    let row = change(&request, payload, &state, act).await.and_then(|row| shown(&row));
    Ok(HttpResponse::Ok().json(row.map_err(|problem| problem.of(&request))?))
}

/// Takes a schedule away; its jobs stay.
pub(super) async fn remove(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let act =
        |c: &mut AnyConnection, row: &ScheduleRow| schedule::remove(c, CustomerId(row.customer), row.id);
    change(&request, payload, &state, act).await.map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Submits the job of a schedule now, whatever its time; when it fires next stays as it is.
pub(super) async fn fire(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let fired = async {
        let (caller, bytes) = admit(&request, payload, &state, READ).await?;
        body(&bytes, "nothing")?.end()?;
        let row = find(&request, &state, caller.principal.customer).await?;
        let params = params_of(&row)?;
        caller.principal.must(submit::action(params.kind()))?;
        if row.account != caller.principal.account.0 {
            let text = format!(
                "schedule {} uses account {}; fire it with a key of that account",
                row.id, row.account
            );
            return Err(Fault::conflict(text).into());
        }
        let plain = Plain {
            params,
            description: described(&row),
            delay: Duration::ZERO,
            limit: Duration::from_micros(u64::try_from(row.time_limit).unwrap_or(0)),
            priority: row.priority,
        };
        submit::durable(&state, &caller, plain).await
    };
    fired.await.map_err(|problem: Problem| problem.of(&request))
}

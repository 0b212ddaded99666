//! Accepting a write once: replay record, idempotency record, then the job, all in one item.

use std::time::Duration;

use diesel::prelude::*;

use super::job::JobRow;
use super::schema::{idem, job, replay};
use crate::model::{
    AccountId, CustomerId, JobId, JobParams, JobState, JobUid, Micros, ServerId, Uid, UserId,
};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::{AnyConnection, Prepared};

/// Who asks, and what makes the request unique.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The tenant.
    pub customer: CustomerId,
    /// The API key; for the console the person's login.
    pub access_key: String,
    /// Id of this request, made by the server: a hit on one's own is "already done".
    pub request: Uid,
    /// Replay value: signature and hash of query, body and idempotency key, or a nonce. None where the caller is
    /// protected otherwise (a console session).
    pub replay: Option<String>,
    /// Idempotency key and hash of what was asked.
    pub idem: Option<IdemKey>,
    /// Whether a repeat with the same replay value may be answered by its idempotency key (the dated API, whose
    /// clients cannot sign the same request anew within a millisecond).
    pub repeat_by_key: bool,
}

/// A client's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdemKey {
    /// The key, at most 255 bytes.
    pub key: String,
    /// SHA-256 of method, path, query and body, in hexadecimal digits.
    pub body_hash: String,
}

/// What an idempotency record keeps of the first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The job, for answers 202.
    pub job: Option<JobUid>,
    /// HTTP status.
    pub status: i32,
    /// Id of what was made, for answers 201.
    pub created: Option<i64>,
}

/// Whether a write may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is new: the item goes on.
    Fresh,
    /// It was done before under the same key: this is the first answer.
    Same(Answer),
    /// The same key stands for another request.
    Conflict,
    /// The same signed request was seen before.
    Replayed,
}

/// Records a write, or says why it must not be done. The first statement of the item.
///
/// # Errors
/// What the database reports.
pub fn enter(connection: &mut AnyConnection, entry: &Entry, answer: &Answer) -> QueryResult<Entered> {
    let now = connection.now()?;
    if let Some(value) = &entry.replay
        && !first_seen(connection, entry, value, now)?
    {
        return match &entry.idem {
            Some(key) if entry.repeat_by_key => {
                Ok(earlier(connection, entry, key)?.unwrap_or(Entered::Replayed))
            }
            _ => Ok(Entered::Replayed),
        };
    }
    let Some(key) = &entry.idem else { return Ok(Entered::Fresh) };
    let row = (
        idem::customer.eq(entry.customer.0),
        idem::access_key.eq(&entry.access_key),
        idem::idem_key.eq(&key.key),
        idem::body_hash.eq(&key.body_hash),
        idem::job.eq(answer.job.map(|uid| uid.to_string())),
        idem::status.eq(answer.status),
        idem::created_id.eq(answer.created),
        idem::made_at.eq(now.0),
    );
    if super::insert_new(Prepared(diesel::insert_into(idem::table).values(row)).execute(connection))? {
        return Ok(Entered::Fresh);
    }
    let earlier = earlier(connection, entry, key)?.unwrap_or(Entered::Conflict);
    // The commit of this very item was unknown and it runs again.
    if matches!(&earlier, Entered::Same(first) if first == answer && answer.job.is_some()) {
        return Ok(Entered::Fresh);
    }
    Ok(earlier)
}

fn first_seen(connection: &mut AnyConnection, entry: &Entry, value: &str, now: Micros) -> QueryResult<bool> {
    let request = entry.request.to_string();
    let row = (
        replay::access_key.eq(&entry.access_key),
        replay::value.eq(value),
        replay::request.eq(&request),
        replay::made_at.eq(now.0),
    );
    if super::insert_new(Prepared(diesel::insert_into(replay::table).values(row)).execute(connection))? {
        return Ok(true);
    }
    let first: Option<String> = replay::table
        .find((&entry.access_key, value))
        .select(replay::request)
        .first(connection)
        .optional()?;
    Ok(first.as_deref() == Some(&request))
}

/// The answer an idempotency key got first, if it has one.
///
/// # Errors
/// What the database reports.
pub fn earlier(connection: &mut AnyConnection, entry: &Entry, key: &IdemKey) -> QueryResult<Option<Entered>> {
    let row: Option<(String, Option<String>, i32, Option<i64>)> = idem::table
        .find((entry.customer.0, &entry.access_key, &key.key))
        .select((idem::body_hash, idem::job, idem::status, idem::created_id))
        .first(connection)
        .optional()?;
    Ok(row.map(|(hash, uid, status, created)| {
        if hash == key.body_hash {
            Entered::Same(Answer { job: uid.and_then(|text| text.parse().ok()), status, created })
        } else {
            Entered::Conflict
        }
    }))
}

/// A job to be accepted.
#[derive(Clone, Debug)]
pub struct Submit {
    /// Who asks.
    pub entry: Entry,
    /// The job's uid, made before the first write.
    pub uid: JobUid,
    /// The job's number.
    pub id: JobId,
    /// The account it uses.
    pub account: AccountId,
    /// The person behind the key.
    pub person: UserId,
    /// What is to be done.
    pub params: JobParams,
    /// In words, as lists show it.
    pub description: String,
    /// Larger runs first.
    pub priority: i32,
    /// How long after it was accepted it starts at the earliest; most start at once.
    pub delay: Duration,
    /// How long it may take, counted from its start.
    pub limit: Duration,
    /// The server it is about.
    pub server: Option<ServerId>,
}

/// What became of a submit.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// Stored, as this row.
    Stored(Box<JobRow>),
    /// Done before under the same key: the first answer.
    Same(Answer),
    /// The same key stands for another request.
    Conflict,
    /// The same signed request was seen before.
    Replayed,
}

/// Accepts a job: durable when the item is committed.
///
/// # Errors
/// What the database reports.
pub fn accept(connection: &mut AnyConnection, submit: &Submit) -> QueryResult<Accepted> {
    if sabotaged(Fault::NoUid) {
        return accept_as_named(connection, &named_anew(submit));
    }
    accept_as_named(connection, submit)
}

/// For the deliberate fault: names made by whoever stores the job, instead of by whoever asks.
fn named_anew(submit: &Submit) -> Submit {
    // Beyond every number that is handed out, and within what JSON can say exactly.
    let [far] = crate::crypto::random_bytes::<1>();
    let id = JobId(submit.id.0 + ((i64::from(far) + 1) << 40));
    Submit { uid: JobUid::random(), id, ..submit.clone() }
}

fn accept_as_named(connection: &mut AnyConnection, submit: &Submit) -> QueryResult<Accepted> {
    let answer = Answer { job: Some(submit.uid), status: 202, created: None };
    match enter(connection, &submit.entry, &answer)? {
        Entered::Fresh => store(connection, submit).map(|row| Accepted::Stored(Box::new(row))),
        Entered::Same(first) => Ok(Accepted::Same(first)),
        Entered::Conflict => Ok(Accepted::Conflict),
        Entered::Replayed => Ok(Accepted::Replayed),
    }
}

fn store(connection: &mut AnyConnection, submit: &Submit) -> QueryResult<JobRow> {
    let row = row_of(submit, connection.now()?)?;
    insert(connection, submit.uid, row)
}

/// Stores the row of a job, once.
pub(super) fn insert(connection: &mut AnyConnection, uid: JobUid, row: JobRow) -> QueryResult<JobRow> {
    let new = Prepared(diesel::insert_into(job::table).values(&row));
    let Err(error) = new.execute(connection) else { return Ok(row) };
    // A hit on the own uid means the item was stored before its answer was lost; a hit on the number alone would be
    // another's job, and nothing of this one may stay.
    match super::job::by_uid(connection, uid)? {
        Some(stored) if super::is_duplicate(&error) => Ok(stored),
        _ => Err(error),
    }
}

/// The row of a job accepted now.
///
/// # Errors
/// When its parameters have no text.
pub fn row_of(submit: &Submit, now: Micros) -> QueryResult<JobRow> {
    let params = serde_json::to_value(&submit.params)
        .and_then(|value| serde_json::to_string(&value))
        .map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))?;
    let starts = now.plus(submit.delay);
    let (why_code, why) = if starts > now {
        ("scheduled", format!("starts at {}", starts.rfc3339()))
    } else {
        ("dispatch", "accepted; waiting for a dispatcher to claim it".to_owned())
    };
    Ok(JobRow {
        uid: submit.uid.to_string(),
        id: submit.id.0,
        customer: submit.entry.customer.0,
        account: submit.account.0,
        person: submit.person.0,
        access_key: submit.entry.access_key.clone(),
        request: submit.entry.request.to_string(),
        kind: submit.params.kind().to_string(),
        params,
        description: submit.description.clone(),
        state: JobState::Queued.to_string(),
        epoch: 0,
        owner: None,
        try_no: 1,
        crashes: 0,
        undo_begun: false,
        cancel_by: None,
        due_at: Some(starts.0),
        why_code: why_code.to_owned(),
        why,
        server: submit.server.map(|id| id.0),
        resource: None,
        message: None,
        priority: submit.priority,
        created_at: now.0,
        claimed_at: None,
        changed_at: now.0,
        deadline: starts.plus(submit.limit).0,
        ended_at: None,
        version: 1,
        parent: None,
        limited: false,
    })
}

/// Records of a kind that one write forgets, but for those of the same moment: others wait behind it.
const FORGOTTEN: i64 = 1000;

/// Forgets replay records and idempotency records made before these points, the oldest first and not many at once; how
/// many. As long as it was some, there may be more.
///
/// # Errors
/// What the database reports.
pub fn forget(connection: &mut AnyConnection, replays: Micros, keys: Micros) -> QueryResult<usize> {
    let old = replay::table.filter(replay::made_at.lt(replays.0)).order(replay::made_at.asc());
    let last: Option<i64> = old.select(replay::made_at).offset(FORGOTTEN).first(connection).optional()?;
    let end = last.map_or(replays.0, |last| last + 1);
    let forgotten = diesel::delete(replay::table.filter(replay::made_at.lt(end))).execute(connection)?;
    let old = idem::table.filter(idem::made_at.lt(keys.0)).order(idem::made_at.asc());
    let last: Option<i64> = old.select(idem::made_at).offset(FORGOTTEN).first(connection).optional()?;
    let end = last.map_or(keys.0, |last| last + 1);
    Ok(forgotten + diesel::delete(idem::table.filter(idem::made_at.lt(end))).execute(connection)?)
}

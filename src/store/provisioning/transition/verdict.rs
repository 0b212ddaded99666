//! What was seen: accepted from anyone, keyed by the watch and never by an epoch.

use diesel::prelude::*;

use crate::model::WatchUid;
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::insert_new;
use crate::store::provisioning::job::{Evidence, EvidenceRow};
use crate::store::provisioning::schema::{attempt, evidence, job, watch};
use crate::store::{AnyConnection, Prepared};

/// A verdict: what was seen of a watch, and whether that decides it.
///
/// # Errors
/// What the database reports.
pub fn verdict(
    connection: &mut AnyConnection,
    seen: &Evidence,
    decides: Option<WatchUid>,
) -> QueryResult<bool> {
    if sabotaged(Fault::VerdictByEpoch) && is_old(connection, seen)? {
        return Ok(false);
    }
    let now = connection.now()?.0;
    let new = EvidenceRow { made_at: now, ..EvidenceRow::from(seen) };
    let first = insert_new(Prepared(diesel::insert_into(evidence::table).values(&new)).execute(connection))?;
    if let Some(uid) = decides {
        let open = watch::table.filter(watch::uid.eq(uid.to_string()).and(watch::done_at.is_null()));
        Prepared(diesel::update(open).set(watch::done_at.eq(Some(now)))).execute(connection)?;
    }
    Ok(first)
}

/// For the deliberate fault: whether the job was claimed again after its last attempt.
fn is_old(connection: &mut AnyConnection, seen: &Evidence) -> QueryResult<bool> {
    let name = seen.job.to_string();
    let epoch: i64 = job::table.find(&name).select(job::epoch).first(connection)?;
    let attempts = attempt::table.filter(attempt::job.eq(&name));
    let last: Option<i64> = attempts.select(diesel::dsl::max(attempt::epoch)).first(connection)?;
    Ok(last.is_some_and(|last| last < epoch))
}

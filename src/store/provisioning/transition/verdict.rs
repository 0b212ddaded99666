//! What was seen: accepted from anyone, keyed by the watch and never by an epoch.

use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};

use crate::model::WatchUid;
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::insert_new;
use crate::store::provisioning::job::{Evidence, EvidenceRow};
use crate::store::provisioning::schema::{attempt, evidence, job, watch};
use crate::store::{AnyConnection, Later, Prepared, later};

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
        later::<Decided>(connection, |watches| watches.0.push(uid.to_string()))?;
    }
    Ok(first)
}

/// Watches that are over, unless they were before.
#[derive(Default)]
struct Decided(Vec<String>);

impl Later for Decided {
    const ORDER: u8 = 1;

    fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        let now = Some(connection.now()?.0).into_sql::<Nullable<BigInt>>();
        // By their names alone: asked for open ones, a server might go through all that are, and lock them.
        let over = watch::done_at.eq(case_when(watch::done_at.is_null(), now).otherwise(watch::done_at));
        match self.0.as_slice() {
            [one] => Prepared(diesel::update(watch::table.find(one)).set(over)).execute(connection),
            many => {
                diesel::update(watch::table.filter(watch::uid.eq_any(many))).set(over).execute(connection)
            }
        }
        .map(drop)
    }
}

/// For the deliberate fault: whether the job was claimed again after its last attempt.
fn is_old(connection: &mut AnyConnection, seen: &Evidence) -> QueryResult<bool> {
    let name = seen.job.to_string();
    let epoch: i64 = job::table.find(&name).select(job::epoch).first(connection)?;
    let attempts = attempt::table.filter(attempt::job.eq(&name));
    let last: Option<i64> = attempts.select(diesel::dsl::max(attempt::epoch)).first(connection)?;
    Ok(last.is_some_and(|last| last < epoch))
}

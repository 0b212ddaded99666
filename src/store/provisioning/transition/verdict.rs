//! What was seen: accepted from anyone, keyed by the watch and never by an epoch.

use diesel::prelude::*;

use crate::model::WatchUid;
use crate::store::provisioning::insert_new;
use crate::store::provisioning::job::{Evidence, EvidenceRow};
use crate::store::provisioning::schema::{evidence, watch};
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
    let now = connection.now()?.0;
    let new = EvidenceRow { made_at: now, ..EvidenceRow::from(seen) };
    let first = insert_new(Prepared(diesel::insert_into(evidence::table).values(&new)).execute(connection))?;
    if let Some(uid) = decides {
        let open = watch::table.filter(watch::uid.eq(uid.to_string()).and(watch::done_at.is_null()));
        Prepared(diesel::update(open).set(watch::done_at.eq(Some(now)))).execute(connection)?;
    }
    Ok(first)
}

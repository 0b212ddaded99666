//! Records of who did what about what.

use diesel::prelude::*;

use super::schema::audit;
use crate::model::CustomerId;
use crate::store::AnyConnection;

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Who.
    pub actor: &'a str,
    /// What they did, such as `job.resolve`.
    pub action: &'a str,
    /// About what, such as `job/…`.
    pub subject: &'a str,
    /// More in words.
    pub detail: &'a str,
}

/// Writes a record; one with this number is there already when the item runs again.
///
/// # Errors
/// What the database reports.
pub fn record(
    connection: &mut AnyConnection,
    number: i64,
    customer: CustomerId,
    line: &Line<'_>,
) -> QueryResult<()> {
    let now = connection.now()?.0;
    let row = (
        audit::id.eq(number),
        audit::customer.eq(customer.0),
        audit::actor.eq(line.actor),
        audit::action.eq(line.action),
        audit::subject.eq(line.subject),
        audit::detail.eq(line.detail),
        audit::made_at.eq(now),
    );
    super::insert_new(diesel::insert_into(audit::table).values(row).execute(connection)).map(drop)
}

//! Audit records: who did what, in which words. Written once, with what they tell of.

use diesel::prelude::*;

use super::schema::audit;
use crate::model::CustomerId;
use crate::store::AnyConnection;

/// Writes a record, once: its number was taken before the first write.
///
/// # Errors
/// What the database reports.
pub fn note(
    connection: &mut AnyConnection,
    (id, customer): (i64, CustomerId),
    (actor, action): (&str, &str),
    (subject, detail): (&str, &str),
) -> QueryResult<()> {
    let now = connection.now()?;
    let row = (
        audit::id.eq(id),
        audit::customer.eq(customer.0),
        audit::actor.eq(actor),
        audit::action.eq(action),
        audit::subject.eq(subject),
        audit::detail.eq(detail),
        audit::made_at.eq(now.0),
    );
    super::insert_new(diesel::insert_into(audit::table).values(row).execute(connection)).map(drop)
}

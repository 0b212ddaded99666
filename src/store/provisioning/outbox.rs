//! The outbox: messages for a broker outside, stored with the change they announce and deleted after its confirm.

use diesel::prelude::*;

use super::schema::outbox;
use crate::model::Micros;
use crate::store::{AnyConnection, Prepared};

/// A message that waits to be published.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = outbox)]
pub struct OutboxRow {
    /// Its place in the line; see [`next_id`].
    pub id: i64,
    /// The exchange it goes to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// The message.
    pub body: String,
    /// When it was stored.
    pub made_at: i64,
}

/// Bits of an id that name who wrote it. So many leave room for microseconds until the year 2255.
const TAG_BITS: u32 = 10;
/// Largest tag of a writer.
pub const LARGEST_TAG: i64 = (1 << TAG_BITS) - 1;

/// The id after `last` for a row of this writer, made now: ids of one writer rise with time, and those of two differ.
#[must_use]
pub const fn next_id(last: i64, now: Micros, tag: i64) -> i64 {
    let after = (last >> TAG_BITS) + 1;
    let moment = if now.0 > after { now.0 } else { after };
    (moment << TAG_BITS) | (tag & LARGEST_TAG)
}

/// Who wrote a row.
#[must_use]
pub const fn tag_of(id: i64) -> i64 {
    id & LARGEST_TAG
}

/// Stores messages. An id that another writer took already moves on by one moment.
///
/// # Errors
/// What the database reports.
pub fn insert_all(connection: &mut AnyConnection, rows: Vec<OutboxRow>) -> QueryResult<()> {
    if super::insert_together!(connection, outbox::table, &rows)? {
        return Ok(());
    }
    rows.into_iter().try_for_each(|row| insert(connection, row))
}

fn insert(connection: &mut AnyConnection, mut row: OutboxRow) -> QueryResult<()> {
    let mut new = |row: &OutboxRow| {
        super::insert_new(Prepared(diesel::insert_into(outbox::table).values(row)).execute(connection))
    };
    while !new(&row)? {
        row.id = next_id(row.id, Micros(0), tag_of(row.id));
    }
    Ok(())
}

/// Messages after an id, oldest first.
///
/// # Errors
/// What the database reports.
pub fn page(connection: &mut AnyConnection, after: i64, limit: i64) -> QueryResult<Vec<OutboxRow>> {
    outbox::table
        .filter(outbox::id.gt(after))
        .order(outbox::id.asc())
        .limit(limit)
        .select(OutboxRow::as_select())
        .load(connection)
}

/// Deletes messages that a broker confirmed.
///
/// # Errors
/// What the database reports.
pub fn delete(connection: &mut AnyConnection, ids: &[i64]) -> QueryResult<usize> {
    diesel::delete(outbox::table.filter(outbox::id.eq_any(ids))).execute(connection)
}

/// How many wait, and since when the oldest does.
///
/// # Errors
/// What the database reports.
pub fn backlog(connection: &mut AnyConnection) -> QueryResult<(i64, Option<Micros>)> {
    let count: i64 = outbox::table.count().get_result(connection)?;
    let oldest: Option<i64> =
        outbox::table.order(outbox::id.asc()).select(outbox::made_at).first(connection).optional()?;
    Ok((count, oldest.map(Micros)))
}

#[cfg(test)]
mod tests {
    use super::{LARGEST_TAG, next_id, tag_of};
    use crate::model::Micros;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_of_one_writer_rise_and_those_of_two_differ(
            moments in prop::collection::vec(0_i64..4_000_000_000_000_000, 1..50), tag in 0_i64..LARGEST_TAG
        ) {
            let (mut mine, mut others) = (0, 0);
            for moment in moments {
                let (next, other) = (next_id(mine, Micros(moment), tag), next_id(others, Micros(moment), tag + 1));
                prop_assert!(next > mine && tag_of(next) == tag);
                prop_assert_ne!(next, other);
                (mine, others) = (next, other);
            }
        }
    }
}

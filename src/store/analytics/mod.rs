//! Measurements of guests. Not critical: nothing is decided from them.

pub mod schema;

use diesel::prelude::*;
use schema::guest_point;

use super::AnyConnection;

/// One measurement of one guest.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = guest_point)]
#[expect(missing_docs, reason = "one field a column, units in the names")]
pub struct GuestPoint {
    pub server: i64,
    pub at: i64,
    pub customer: i64,
    pub round_trip_micros: i64,
    pub cpu_load: f64,
    pub ram_used_mb: i64,
    pub ram_total_mb: i64,
    pub processes: i64,
}

/// Writes points; one that is there already is left.
///
/// # Errors
/// What the database reports.
pub fn insert(connection: &mut AnyConnection, points: &[GuestPoint]) -> QueryResult<usize> {
    let mut new = 0;
    for point in points {
        let row = diesel::insert_into(guest_point::table).values(point).execute(connection);
        new += usize::from(super::provisioning::insert_new(row)?);
    }
    Ok(new)
}

/// The newest points of a guest, newest first.
///
/// # Errors
/// What the database reports.
pub fn newest(connection: &mut AnyConnection, server: i64, limit: i64) -> QueryResult<Vec<GuestPoint>> {
    guest_point::table
        .filter(guest_point::server.eq(server))
        .order(guest_point::at.desc())
        .limit(limit)
        .select(GuestPoint::as_select())
        .load(connection)
}

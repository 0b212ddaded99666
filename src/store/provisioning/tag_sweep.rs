//! The look at everything that carries a tag of ours: one row for each account and region, one life at a time.

use diesel::dsl::exists;
use diesel::prelude::*;

use super::node as lives;
use super::schema::{account, node, region, tag_sweep};
use crate::model::{Boot, Micros};
use crate::store::AnyConnection;

/// A row of `tag_sweep`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = tag_sweep, treat_none_as_default_value = false)]
pub struct SweepRow {
    /// The account.
    pub account: i64,
    /// The region.
    pub region: i64,
    /// Whose account it is.
    pub customer: i64,
    /// The life that looks now.
    pub owner: Option<String>,
    /// When it is looked at next.
    pub look_at: i64,
    /// When it was looked at last.
    pub looked_at: Option<i64>,
    /// Counts the changes of the row.
    pub version: i64,
}

/// Whether an account and region is not swept yet.
///
/// # Errors
/// What the database reports.
pub fn missing(connection: &mut AnyConnection) -> QueryResult<bool> {
    Ok(!not_swept(connection, 1)?.is_empty())
}

/// Accounts and regions that are not swept, with the tenant.
fn not_swept(connection: &mut AnyConnection, limit: i64) -> QueryResult<Vec<(i64, i64, i64)>> {
    let swept =
        tag_sweep::table.filter(tag_sweep::account.eq(account::id).and(tag_sweep::region.eq(region::id)));
    let of = region::cloud.eq(account::cloud).and(region::customer.eq(account::customer));
    account::table
        .inner_join(region::table.on(of))
        .filter(diesel::dsl::not(exists(swept)))
        .select((account::id, region::id, account::customer))
        .limit(limit)
        .load(connection)
}

/// Enters accounts and regions that are not swept yet, due at once; at most `limit`.
///
/// # Errors
/// What the database reports.
pub fn enter(connection: &mut AnyConnection, limit: i64) -> QueryResult<usize> {
    let now = connection.now()?.0;
    let missing = not_swept(connection, limit)?;
    for (account, region, customer) in &missing {
        let row = SweepRow {
            account: *account,
            region: *region,
            customer: *customer,
            owner: None,
            look_at: now,
            looked_at: None,
            version: 1,
        };
        super::insert_new(diesel::insert_into(tag_sweep::table).values(&row).execute(connection))?;
    }
    Ok(missing.len())
}

/// Sweeps that are due, the longest due first.
///
/// # Errors
/// What the database reports.
pub fn due(connection: &mut AnyConnection, limit: i64) -> QueryResult<Vec<SweepRow>> {
    let now = connection.now()?.0;
    tag_sweep::table
        .filter(tag_sweep::look_at.le(now))
        .order(tag_sweep::look_at.asc())
        .limit(limit)
        .select(SweepRow::as_select())
        .load(connection)
}

/// Takes a sweep, if nobody living has it and it is as it was seen.
///
/// # Errors
/// What the database reports.
pub fn claim(connection: &mut AnyConnection, boot: Boot, seen: &SweepRow) -> QueryResult<Option<SweepRow>> {
    let me = boot.to_string();
    let dead = node::table.filter(node::state.eq(lives::DEAD)).select(node::boot.nullable());
    let i_live = node::table.filter(node::boot.eq(&me).and(node::state.eq(lives::ALIVE)));
    let free = tag_sweep::table
        .filter(tag_sweep::account.eq(seen.account).and(tag_sweep::region.eq(seen.region)))
        .filter(tag_sweep::version.eq(seen.version))
        .filter(tag_sweep::owner.is_null().or(tag_sweep::owner.eq(&me)).or(tag_sweep::owner.eq_any(dead)))
        .filter(exists(i_live));
    let taken = SweepRow { owner: Some(me.clone()), version: seen.version + 1, ..seen.clone() };
    let set = (tag_sweep::owner.eq(Some(&me)), tag_sweep::version.eq(taken.version));
    let rows = diesel::update(free).set(set).execute(connection)?;
    Ok((rows == 1).then_some(taken))
}

/// Gives a sweep up until its next time; the guard of what follows from it. False when it is another's by now.
///
/// # Errors
/// What the database reports.
pub fn done(
    connection: &mut AnyConnection,
    held: &SweepRow,
    (next, answered): (Micros, bool),
) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mine = tag_sweep::table
        .filter(tag_sweep::account.eq(held.account).and(tag_sweep::region.eq(held.region)))
        .filter(tag_sweep::version.eq(held.version).and(tag_sweep::owner.eq(&held.owner)));
    let rows = diesel::update(mine)
        .set((
            tag_sweep::owner.eq(None::<String>),
            tag_sweep::look_at.eq(next.0),
            tag_sweep::looked_at.eq(if answered { Some(now) } else { held.looked_at }),
            tag_sweep::version.eq(held.version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

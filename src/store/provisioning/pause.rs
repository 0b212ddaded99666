//! Pauses: which queued jobs of a tenant are not begun, by whose word and why.

use diesel::prelude::*;

use super::schema::pause;
use crate::model::{CustomerId, Micros};
use crate::store::AnyConnection;

/// Pauses one tenant may have at the same time.
pub const MOST: i64 = 100;

/// A row of `pause`. At least one of kind and account is there; where both are, a job must have both.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = pause, treat_none_as_default_value = false)]
pub struct PauseRow {
    /// Its number.
    pub id: i64,
    /// The tenant.
    pub customer: i64,
    /// Jobs of this kind; none for any.
    pub kind: Option<String>,
    /// Jobs that use this account; none for any.
    pub account: Option<i64>,
    /// Who asked for it.
    pub made_by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Since when.
    pub made_at: i64,
}

impl PauseRow {
    /// What a job that it holds says of it.
    #[must_use]
    pub fn why(&self) -> String {
        let since = Micros(self.made_at).rfc3339();
        match self.reason.as_str() {
            "" => format!("paused by {} since {since}", self.made_by),
            reason => format!("paused by {} since {since}: {reason}", self.made_by),
        }
    }

    /// Whether it holds jobs of this kind and account.
    #[must_use]
    pub fn holds(&self, kind: &str, account: i64) -> bool {
        self.kind.as_deref().is_none_or(|held| held == kind)
            && self.account.is_none_or(|held| held == account)
    }
}

/// A tenant's pauses, oldest first.
///
/// # Errors
/// What the database reports.
pub fn list(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<PauseRow>> {
    pause::table
        .filter(pause::customer.eq(customer.0))
        .order(pause::id.asc())
        .limit(MOST)
        .select(PauseRow::as_select())
        .load(connection)
}

/// One of a tenant's pauses.
///
/// # Errors
/// What the database reports.
pub fn by_id(connection: &mut AnyConnection, customer: CustomerId, id: i64) -> QueryResult<Option<PauseRow>> {
    pause::table
        .filter(pause::id.eq(id).and(pause::customer.eq(customer.0)))
        .select(PauseRow::as_select())
        .first(connection)
        .optional()
}

/// Stores a pause.
///
/// # Errors
/// What the database reports.
pub fn insert(connection: &mut AnyConnection, row: &PauseRow) -> QueryResult<()> {
    super::insert_new(diesel::insert_into(pause::table).values(row).execute(connection)).map(|_| ())
}

/// Takes a tenant's pause away; whether it was there.
///
/// # Errors
/// What the database reports.
pub fn remove(connection: &mut AnyConnection, customer: CustomerId, id: i64) -> QueryResult<bool> {
    let mine = pause::table.filter(pause::id.eq(id).and(pause::customer.eq(customer.0)));
    Ok(diesel::delete(mine).execute(connection)? == 1)
}

#[cfg(test)]
mod tests {
    use super::PauseRow;

    #[test]
    fn a_pause_holds_what_fits_all_it_names_and_says_so() {
        let mut pause = PauseRow {
            id: 1,
            customer: 1,
            kind: Some("noop".into()),
            account: None,
            made_by: "admin".into(),
            reason: String::new(),
            made_at: 0,
        };
        assert!(pause.holds("noop", 7) && !pause.holds("stop-server", 7));
        pause.account = Some(7);
        assert!(pause.holds("noop", 7) && !pause.holds("noop", 8));
        pause.kind = None;
        assert!(pause.holds("stop-server", 7));
        assert_eq!(pause.why(), "paused by admin since 1970-01-01T00:00:00.000000Z");
        pause.reason = "invoice".into();
        assert!(pause.why().ends_with("Z: invoice"));
    }
}

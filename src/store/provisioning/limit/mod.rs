//! Limits of accounts: how many jobs may be at work together, and how many may start in which time.
//!
//! What people set and what throttling answers taught stand in one row, so that a claim asks once.

mod pace;

use diesel::prelude::*;

pub use pace::{Learned, Pace};

use super::schema::{job, job_limit, turn};
use crate::model::{AccountId, CustomerId, JobState, Micros};
use crate::store::AnyConnection;

/// Limits one tenant may have at the same time.
pub const MOST: i64 = 500;

/// However long a provider asks to be left alone, it is asked again after this.
pub const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// What a row of `turn` says of its job.
pub(crate) mod standing {
    /// It waits in the line of its account.
    pub(crate) const WAITS: &str = "waits";
    /// It was called and has not begun yet.
    pub(crate) const CALLED: &str = "called";
    /// It began; whether it still is at work its own row says.
    pub(crate) const WORKS: &str = "works";
}

/// States in which a job takes a place.
pub const AT_WORK: [JobState; 3] = [JobState::Running, JobState::Awaiting, JobState::Undoing];

/// A row of `job_limit`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = job_limit, treat_none_as_default_value = false)]
pub struct LimitRow {
    /// The account.
    pub account: i64,
    /// Jobs of this kind; empty for any.
    pub kind: String,
    /// The tenant.
    pub customer: i64,
    /// Jobs at work together at the most.
    pub together: Option<i32>,
    /// Starts in [`LimitRow::per_secs`] at the most.
    pub starts: Option<i32>,
    /// The time that `starts` is counted in, in seconds.
    pub per_secs: Option<i32>,
    /// Starts that may come at once.
    pub burst: Option<i32>,
    /// Who set it; empty where it was only learned.
    pub made_by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Since when.
    pub made_at: i64,
    /// Up to when the starts so far have used the pace up.
    pub spent_until: i64,
    /// What throttling taught: thousandths of a start a second, as of `learned_at`.
    pub learned_rate: Option<i64>,
    /// When the provider throttled the account last.
    pub learned_at: Option<i64>,
    /// Before this the provider wants no call.
    pub retry_at: Option<i64>,
    /// When it was looked at last: writing it is what makes claims of one account follow one another.
    pub touched_at: i64,
}

impl LimitRow {
    /// A row that limits nothing.
    #[must_use]
    pub const fn empty(customer: CustomerId, account: AccountId, kind: String, now: Micros) -> Self {
        Self {
            account: account.0,
            kind,
            customer: customer.0,
            together: None,
            starts: None,
            per_secs: None,
            burst: None,
            made_by: String::new(),
            reason: String::new(),
            made_at: now.0,
            spent_until: 0,
            learned_rate: None,
            learned_at: None,
            retry_at: None,
            touched_at: now.0,
        }
    }

    /// Whether people set anything.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.together.is_some() || self.starts.is_some()
    }

    /// Whether it counts jobs of this kind.
    #[must_use]
    pub fn counts(&self, kind: &str) -> bool {
        self.kind.is_empty() || self.kind == kind
    }

    /// The pace that people set.
    #[must_use]
    pub fn set_pace(&self) -> Option<Pace> {
        Some(Pace::new(self.starts?, self.per_secs.unwrap_or(1), self.burst.unwrap_or(1)))
    }

    /// What throttling taught, whether or not it still holds.
    #[must_use]
    pub fn learned(&self) -> Option<Learned> {
        Some(Learned { rate: self.learned_rate?, at: Micros(self.learned_at?) })
    }

    /// The learned rate by now; none where it is forgotten.
    #[must_use]
    pub fn learned_now(&self, now: Micros) -> Option<i64> {
        self.learned()?.now(self.set_pace(), now)
    }

    /// The pace that holds now.
    #[must_use]
    pub fn pace(&self, now: Micros) -> Option<Pace> {
        match (self.set_pace(), self.learned_now(now)) {
            (Some(set), Some(rate)) => Some(set.at_most(rate)),
            (None, Some(rate)) => Some(Pace::of_rate(rate)),
            (set, None) => set,
        }
    }

    /// Until when the provider wants no call.
    #[must_use]
    pub fn shut_until(&self, now: Micros) -> Option<Micros> {
        self.retry_at.map(Micros).filter(|at| *at > now)
    }

    /// Starts that are free now; none where no pace counts them.
    #[must_use]
    pub fn free_starts(&self, now: Micros) -> Option<i64> {
        if self.shut_until(now).is_some() {
            return Some(0);
        }
        self.pace(now).map(|pace| pace.free(Micros(self.spent_until), now))
    }

    /// When the next start is free.
    #[must_use]
    pub fn next_start(&self, now: Micros) -> Micros {
        let by_pace = self.pace(now).map_or(now, |pace| pace.next(Micros(self.spent_until), now));
        self.shut_until(now).map_or(by_pace, |shut| shut.max(by_pace))
    }

    /// Why no further job of it begins now, without the count of those that wait.
    #[must_use]
    pub fn why(&self, at_work: i64, now: Micros) -> String {
        let account = self.account;
        if let Some(most) = self.together.filter(|most| at_work >= i64::from(*most)) {
            let of = if self.kind.is_empty() { String::new() } else { format!("{} ", self.kind) };
            return format!("account {account} has {at_work} of {most} {of}jobs at work");
        }
        if let (Some(shut), Some(at)) = (self.shut_until(now), self.learned_at) {
            let (at, shut) = (Micros(at).rfc3339(), shut.rfc3339());
            return format!(
                "the provider throttled account {account} at {at} and wants no call before {shut}"
            );
        }
        if let (Some(rate), Some(at)) = (self.learned_now(now), self.learned_at) {
            let (at, rate) = (Micros(at).rfc3339(), Learned::told(rate));
            return format!("the provider throttled account {account} at {at}; {rate} for now");
        }
        match (self.starts, self.per_secs) {
            (Some(starts), Some(secs)) => {
                let of = if self.kind.is_empty() { "" } else { self.kind.as_str() };
                let what = if of.is_empty() { "jobs".to_owned() } else { format!("{of} jobs") };
                format!("account {account} starts {starts} {what} in {secs} s")
            }
            _ => format!("account {account} has a limit"),
        }
    }
}

/// A tenant's limits, by account and kind.
///
/// # Errors
/// What the database reports.
pub fn list(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<LimitRow>> {
    job_limit::table
        .filter(job_limit::customer.eq(customer.0))
        .order((job_limit::account.asc(), job_limit::kind.asc()))
        .limit(MOST)
        .select(LimitRow::as_select())
        .load(connection)
}

/// The limits of an account.
///
/// # Errors
/// What the database reports.
pub fn of_account(connection: &mut AnyConnection, account: i64) -> QueryResult<Vec<LimitRow>> {
    job_limit::table
        .filter(job_limit::account.eq(account))
        .order(job_limit::kind.asc())
        .select(LimitRow::as_select())
        .load(connection)
}

/// The accounts that have limits.
///
/// # Errors
/// What the database reports.
pub fn accounts(connection: &mut AnyConnection) -> QueryResult<Vec<i64>> {
    job_limit::table.select(job_limit::account).distinct().load(connection)
}

/// Takes the limits of an account for this transaction: whoever else wants them waits, and what is read afterwards is what
/// stands then.
///
/// # Errors
/// What the database reports.
pub fn lock(connection: &mut AnyConnection, account: i64) -> QueryResult<Vec<LimitRow>> {
    let now = connection.now()?.0;
    let mine = job_limit::table.filter(job_limit::account.eq(account));
    diesel::update(mine).set(job_limit::touched_at.eq(now)).execute(connection)?;
    of_account(connection, account)
}

/// Jobs of an account that are at work and counted; of one kind, or of any where `kind` is empty.
///
/// # Errors
/// What the database reports.
pub fn at_work(connection: &mut AnyConnection, account: i64, kind: &str) -> QueryResult<i64> {
    let mut counted = turn::table
        .inner_join(job::table.on(job::uid.eq(turn::job)))
        .filter(turn::account.eq(account).and(turn::state.eq(standing::WORKS)))
        .filter(job::ended_at.is_null())
        .filter(job::state.eq_any(AT_WORK.map(JobState::as_str)))
        .into_boxed();
    if !kind.is_empty() {
        counted = counted.filter(turn::kind.eq(kind.to_owned()));
    }
    counted.count().get_result(connection)
}

/// Jobs of an account that wait in its line; of one kind, or of any where `kind` is empty.
///
/// # Errors
/// What the database reports.
pub fn waiting(connection: &mut AnyConnection, account: i64, kind: &str) -> QueryResult<i64> {
    let mut line =
        turn::table.filter(turn::account.eq(account).and(turn::state.ne(standing::WORKS))).into_boxed();
    if !kind.is_empty() {
        line = line.filter(turn::kind.eq(kind.to_owned()));
    }
    line.count().get_result(connection)
}

/// What people set of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Jobs at work together.
    pub together: Option<i32>,
    /// Starts, in so many seconds, and so many at once.
    pub pace: Option<(i32, i32, i32)>,
    /// Who.
    pub made_by: String,
    /// Why.
    pub reason: String,
}

/// Sets a limit in the place of what people set before; what was learned stays.
///
/// # Errors
/// What the database reports.
pub fn set(
    connection: &mut AnyConnection,
    (customer, account, kind): (CustomerId, AccountId, &str),
    wish: &Wish,
) -> QueryResult<LimitRow> {
    let now = connection.now()?;
    let empty = LimitRow::empty(customer, account, kind.to_owned(), now);
    super::insert_new(diesel::insert_into(job_limit::table).values(&empty).execute(connection))?;
    let mine = job_limit::table.filter(job_limit::account.eq(account.0).and(job_limit::kind.eq(kind)));
    let (starts, secs, burst) = wish.pace.map_or((None, None, None), |(s, p, b)| (Some(s), Some(p), Some(b)));
    diesel::update(mine)
        .set((
            job_limit::together.eq(wish.together),
            job_limit::starts.eq(starts),
            job_limit::per_secs.eq(secs),
            job_limit::burst.eq(burst),
            job_limit::made_by.eq(&wish.made_by),
            job_limit::reason.eq(&wish.reason),
            job_limit::made_at.eq(now.0),
            job_limit::touched_at.eq(now.0),
        ))
        .execute(connection)?;
    mine.select(LimitRow::as_select()).first(connection)
}

/// Takes a tenant's limit away, with what was learned; whether it was there.
///
/// # Errors
/// What the database reports.
pub fn remove(
    connection: &mut AnyConnection,
    (customer, account, kind): (CustomerId, AccountId, &str),
) -> QueryResult<bool> {
    let mine = job_limit::table
        .filter(job_limit::account.eq(account.0).and(job_limit::kind.eq(kind)))
        .filter(job_limit::customer.eq(customer.0));
    Ok(diesel::delete(mine).execute(connection)? == 1)
}

/// Learns from a throttling answer; `wait` is how long the provider asked to be left alone.
///
/// # Errors
/// What the database reports.
pub fn throttled(
    connection: &mut AnyConnection,
    (customer, account): (CustomerId, AccountId),
    wait: Option<std::time::Duration>,
) -> QueryResult<()> {
    let now = connection.now()?;
    let empty = LimitRow::empty(customer, account, String::new(), now);
    super::insert_new(diesel::insert_into(job_limit::table).values(&empty).execute(connection))?;
    let rows = lock(connection, account.0)?;
    let Some(row) = rows.iter().find(|row| row.kind.is_empty()) else { return Ok(()) };
    let learned = Learned::throttled(row.learned(), row.set_pace(), now);
    let retry_at = wait.map(|wait| now.plus(wait.min(LONGEST_WAIT)).0).max(row.retry_at);
    diesel::update(job_limit::table.filter(job_limit::account.eq(account.0).and(job_limit::kind.eq(""))))
        .set((
            job_limit::learned_rate.eq(Some(learned.rate)),
            job_limit::learned_at.eq(Some(learned.at.0)),
            job_limit::retry_at.eq(retry_at),
        ))
        .execute(connection)
        .map(drop)
}

/// Writes what a start has used up.
pub(super) fn spend(connection: &mut AnyConnection, row: &LimitRow, now: Micros) -> QueryResult<()> {
    let Some(pace) = row.pace(now) else { return Ok(()) };
    let spent = pace.spend(Micros(row.spent_until), now);
    let mine = job_limit::table.filter(job_limit::account.eq(row.account).and(job_limit::kind.eq(&row.kind)));
    diesel::update(mine).set(job_limit::spent_until.eq(spent.0)).execute(connection).map(drop)
}

/// Forgets what was learned of an account and holds no more; a row that says nothing else goes. Whether it went.
pub(super) fn forget(connection: &mut AnyConnection, row: &LimitRow, now: Micros) -> QueryResult<bool> {
    if row.learned_rate.is_none() || row.learned_now(now).is_some() || row.shut_until(now).is_some() {
        return Ok(false);
    }
    let mine = job_limit::table.filter(job_limit::account.eq(row.account).and(job_limit::kind.eq(&row.kind)));
    if !row.is_set() {
        return Ok(diesel::delete(mine).execute(connection)? == 1);
    }
    let nothing = (
        job_limit::learned_rate.eq(None::<i64>),
        job_limit::learned_at.eq(None::<i64>),
        job_limit::retry_at.eq(None::<i64>),
    );
    diesel::update(mine).set(nothing).execute(connection).map(|_| false)
}

//! Jobs of accounts with limits: who may begin now, who waits in line, and who is called when there is room.
//!
//! Every decision is made in one item that has taken the rows of the account's limits first, so that two claims of the
//! last place follow one another, on whichever node they are made. What is at work is counted, never kept as a number:
//! a crash loses nothing and leaks nothing.

use std::collections::HashSet;

use diesel::prelude::*;

use super::hold::{Cond, resting};
use crate::model::{JobState, Micros};
use crate::store::AnyConnection;
use crate::store::provisioning::insert_new;
use crate::store::provisioning::limit::{self, AT_WORK, LimitRow, standing};
use crate::store::provisioning::schema::{job, job_limit, turn};

/// Machine code of a job that waits for a place.
pub const PLACE: &str = "limit";
/// Machine code of a job that waits for its account's pace.
pub const PACE: &str = "rate";
/// Jobs called in one item; the next claim, or the sweep, calls more.
const CALLS: usize = 100;
/// How far a line is counted for people.
const COUNTED: i64 = 1000;

#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = turn)]
struct TurnRow {
    job: String,
    account: i64,
    kind: String,
    state: String,
    behind: i32,
    id: i64,
}

/// A queued job as a limit sees it.
#[derive(Clone, Debug, Queryable)]
pub(super) struct Asker {
    pub(super) uid: String,
    pub(super) account: i64,
    pub(super) kind: String,
    pub(super) priority: i32,
    pub(super) id: i64,
}

impl Asker {
    fn row(&self, state: &str) -> TurnRow {
        TurnRow {
            job: self.uid.clone(),
            account: self.account,
            kind: self.kind.clone(),
            state: state.to_owned(),
            behind: self.priority.saturating_neg(),
            id: self.id,
        }
    }
}

/// A limit with what of it is free.
struct Rule {
    row: LimitRow,
    at_work: i64,
    /// Jobs that were called and have not begun: their room is theirs.
    called: i64,
    now: Micros,
}

impl Rule {
    /// Places left; none where any number may be at work.
    fn places(&self) -> Option<i64> {
        self.row.together.map(|most| i64::from(most) - self.at_work)
    }

    /// Jobs that may begin now, called ones included.
    fn room(&self) -> i64 {
        [self.places(), self.row.free_starts(self.now)].into_iter().flatten().min().unwrap_or(i64::MAX)
    }

    fn has_places(&self) -> bool {
        self.places().is_none_or(|places| places > self.called)
    }

    fn has_starts(&self) -> bool {
        self.row.free_starts(self.now).is_none_or(|starts| starts > self.called)
    }

    fn is_open(&self) -> bool {
        self.has_places() && self.has_starts()
    }

    /// Machine code and sentence for the next one in line.
    fn told(&self, before: i64) -> (&'static str, String) {
        let code = if self.places().is_some_and(|places| places <= 0) { PLACE } else { PACE };
        let line = match before {
            0 => "this one is next".to_owned(),
            COUNTED.. => format!("{COUNTED} or more before this one"),
            n => format!("{n} before this one"),
        };
        (code, format!("{}; {line}", self.row.why(self.at_work, self.now)))
    }
}

/// Whether a limit counts a row of `job`. Without a limit this is one look into an empty index.
pub(super) fn is_limited() -> Cond {
    Box::new(diesel::dsl::exists(job_limit::table.filter(
        job_limit::account.eq(job::account).and(job_limit::kind.eq("").or(job_limit::kind.eq(job::kind))),
    )))
}

/// What became of a job that asked whether it may begin.
pub(super) enum Asked {
    /// It may; [`begun`] must follow its claim.
    May(Account),
    /// It waits in line, or no limit counts it any more.
    Waits,
}

/// An account whose limits this item has taken.
pub(super) struct Account {
    rules: Vec<Rule>,
    account: i64,
    now: Micros,
}

/// Asks for a queued job whether it may begin now, and puts it in line where it may not.
pub(super) fn ask(c: &mut AnyConnection, me: &Asker, called: &mut Vec<String>) -> QueryResult<Asked> {
    let account = Account::take(c, me.account)?;
    let mut blocked = None;
    for rule in account.rules.iter().filter(|rule| rule.row.counts(&me.kind)) {
        let before = account.before(c, rule, me)?;
        if rule.room() <= before {
            blocked = Some(rule.told(before));
            break;
        }
    }
    if account.rules.iter().all(|rule| !rule.row.counts(&me.kind)) {
        return Ok(Asked::Waits);
    }
    let Some((code, why)) = blocked else { return Ok(Asked::May(account)) };
    put_in_line(c, me, (code, &why), account.now)?;
    refill(c, account.account, called)?;
    Ok(Asked::Waits)
}

/// Writes what a start takes, and calls who comes next.
pub(super) fn begun(
    c: &mut AnyConnection,
    account: &Account,
    me: &Asker,
    called: &mut Vec<String>,
) -> QueryResult<()> {
    stand(c, me, standing::WORKS)?;
    for rule in account.rules.iter().filter(|rule| rule.row.counts(&me.kind)) {
        limit::spend(c, &rule.row, account.now)?;
    }
    refill(c, account.account, called)
}

/// Takes a job out of the line that something else holds. Who comes after it may be next.
pub(super) fn leave(c: &mut AnyConnection, uid: &str, called: &mut Vec<String>) -> QueryResult<()> {
    let line = || turn::table.find(uid.to_owned()).filter(turn::state.ne(standing::WORKS));
    let found: Option<i64> = line().select(turn::account).first(c).optional()?;
    let Some(account) = found else { return Ok(()) };
    diesel::delete(line()).execute(c)?;
    refill(c, account, called)
}

/// Calls those that may begin now, after a job of the account gave its place up or a limit changed.
pub(super) fn refill(c: &mut AnyConnection, account: i64, called: &mut Vec<String>) -> QueryResult<()> {
    let mut account = Account::take(c, account)?;
    account.call(c, called)
}

impl Account {
    fn take(c: &mut AnyConnection, account: i64) -> QueryResult<Self> {
        limit::lock(c, account)?;
        forget_called(c, account)?;
        Self::seen(c, account)
    }

    /// The same without taking anything: for telling only.
    fn seen(c: &mut AnyConnection, account: i64) -> QueryResult<Self> {
        let now = c.now()?;
        let rows = limit::of_account(c, account)?;
        let mut rules = Vec::with_capacity(rows.len());
        for row in rows {
            let at_work = limit::at_work(c, account, &row.kind)?;
            let called = in_scope(account, &row, standing::CALLED).count().get_result(c)?;
            rules.push(Rule { row, at_work, called, now });
        }
        Ok(Self { rules, account, now })
    }

    /// Jobs in line before this one that the rule counts. Kinds whose own limit leaves no room hold nobody else up.
    fn before(&self, c: &mut AnyConnection, rule: &Rule, me: &Asker) -> QueryResult<i64> {
        let behind = me.priority.saturating_neg();
        let full: Vec<String> = self.full().filter(|kind| *kind != me.kind).collect();
        let earlier = turn::behind.lt(behind).or(turn::behind.eq(behind).and(turn::id.lt(me.id)));
        let mut before = 0;
        for state in [standing::CALLED, standing::WAITS] {
            let ids: Vec<i64> = in_scope(self.account, &rule.row, state)
                .filter(earlier)
                .filter(turn::kind.ne_all(full.clone()))
                .select(turn::id)
                .limit(COUNTED)
                .load(c)?;
            before += i64::try_from(ids.len()).unwrap_or(COUNTED);
        }
        Ok(before.min(COUNTED))
    }

    /// Kinds with a limit of their own that leaves no room.
    fn full(&self) -> impl Iterator<Item = String> + '_ {
        self.rules
            .iter()
            .filter(|rule| !rule.row.kind.is_empty() && !rule.is_open())
            .map(|rule| rule.row.kind.clone())
    }

    /// Calls whoever may begin, the most urgent first; where only the pace is used up, the first in line is called for
    /// the time of the next start.
    fn call(&mut self, c: &mut AnyConnection, called: &mut Vec<String>) -> QueryResult<()> {
        let mut closed: HashSet<String> = HashSet::new();
        for _ in 0..CALLS {
            let Some(next) = self.first(c, &closed)? else { break };
            match self.due(&next.kind) {
                Due::At(at) => {
                    if call_one(c, &next.job, at, self.now)? {
                        called.push(next.job.clone());
                        self.count(&next.kind);
                    }
                }
                Due::Closed(kind) if kind.is_empty() => break,
                Due::Closed(kind) => {
                    closed.insert(kind);
                }
            }
        }
        Ok(())
    }

    fn first(&self, c: &mut AnyConnection, closed: &HashSet<String>) -> QueryResult<Option<TurnRow>> {
        turn::table
            .filter(turn::account.eq(self.account).and(turn::state.eq(standing::WAITS)))
            .filter(turn::kind.ne_all(closed.iter().cloned().collect::<Vec<_>>()))
            .order((turn::behind.asc(), turn::id.asc()))
            .select(TurnRow::as_select())
            .first(c)
            .optional()
    }

    /// When a job of this kind may begin, or the limit that is used up.
    fn due(&self, kind: &str) -> Due {
        let mut at = self.now;
        for rule in self.rules.iter().filter(|rule| rule.row.counts(kind)) {
            if !rule.has_places() {
                return Due::Closed(rule.row.kind.clone());
            }
            if !rule.has_starts() {
                // One is called ahead of time; when it begins it calls the next.
                if rule.called > 0 {
                    return Due::Closed(rule.row.kind.clone());
                }
                at = at.max(rule.row.next_start(self.now));
            }
        }
        Due::At(at)
    }

    fn count(&mut self, kind: &str) {
        for rule in self.rules.iter_mut().filter(|rule| rule.row.counts(kind)) {
            rule.called += 1;
        }
    }
}

enum Due {
    At(Micros),
    /// The kind whose limit is used up; empty for the account's own.
    Closed(String),
}

type Backend = <AnyConnection as Connection>::Backend;
type Turns = turn::BoxedQuery<'static, Backend>;

/// Rows of the line that a limit counts.
fn in_scope(account: i64, row: &LimitRow, state: &str) -> Turns {
    let mut rows =
        turn::table.filter(turn::account.eq(account).and(turn::state.eq(state.to_owned()))).into_boxed();
    if !row.kind.is_empty() {
        rows = rows.filter(turn::kind.eq(row.kind.clone()));
    }
    rows
}

/// Writes where a job stands.
fn stand(c: &mut AnyConnection, me: &Asker, state: &str) -> QueryResult<()> {
    if diesel::update(turn::table.find(&me.uid)).set(turn::state.eq(state)).execute(c)? == 0 {
        insert_new(diesel::insert_into(turn::table).values(me.row(state)).execute(c))?;
    }
    Ok(())
}

fn put_in_line(c: &mut AnyConnection, me: &Asker, (code, why): (&str, &str), now: Micros) -> QueryResult<()> {
    let rows = diesel::update(job::table.filter(job::uid.eq(&me.uid)).filter(resting()))
        .set((
            job::due_at.eq(None::<i64>),
            job::why_code.eq(code),
            job::why.eq(why),
            job::changed_at.eq(now.0),
            job::version.eq(job::version + 1),
        ))
        .execute(c)?;
    if rows == 1 { stand(c, me, standing::WAITS) } else { Ok(()) }
}

/// Makes a job due and gives it back the time it waited; false when it does not wait any more.
fn call_one(c: &mut AnyConnection, uid: &str, at: Micros, now: Micros) -> QueryResult<bool> {
    let waits = || job::table.filter(job::uid.eq(uid.to_owned())).filter(resting());
    let given = (
        job::due_at.eq(Some(at.0)),
        // Counted from its start: what it waited in line does not count. The row changed last when it was put there.
        job::deadline.eq(job::deadline - job::changed_at + now.0),
        job::changed_at.eq(now.0),
        job::version.eq(job::version + 1),
    );
    let rows = if at > now {
        diesel::update(waits()).set(given).execute(c)?
    } else {
        let why =
            (job::why_code.eq("dispatch"), job::why.eq("accepted; waiting for a dispatcher to claim it"));
        diesel::update(waits()).set((given, why)).execute(c)?
    };
    if rows == 0 {
        diesel::delete(turn::table.find(uid)).execute(c)?;
        return Ok(false);
    }
    diesel::update(turn::table.find(uid)).set(turn::state.eq(standing::CALLED)).execute(c)?;
    Ok(true)
}

/// Takes those out of the line that were called and will not come: a pause holds them, or they are cancelled or began.
fn forget_called(c: &mut AnyConnection, account: i64) -> QueryResult<()> {
    let comes = job::table
        .filter(job::uid.eq(turn::job))
        .filter(job::ended_at.is_null().and(job::owner.is_null()).and(job::cancel_by.is_null()))
        .filter(job::state.eq(JobState::Queued.as_str()).and(job::due_at.is_not_null()));
    let gone = turn::table
        .filter(turn::account.eq(account).and(turn::state.eq(standing::CALLED)))
        .filter(diesel::dsl::not(diesel::dsl::exists(comes)));
    diesel::delete(gone).execute(c).map(drop)
}

/// Gives a job's place back with its end and calls who comes next.
pub(super) fn over(
    c: &mut AnyConnection,
    (uid, account): (&str, i64),
    called: &mut Vec<String>,
) -> QueryResult<()> {
    diesel::delete(turn::table.find(uid)).execute(c)?;
    refill(c, account, called)
}

/// Jobs of an account at work that no limit counts yet, because they began before it was set.
fn enlist(c: &mut AnyConnection, customer: i64, account: i64) -> QueryResult<()> {
    let counted = diesel::dsl::exists(turn::table.filter(turn::job.eq(job::uid)));
    let found: Vec<Asker> = job::table
        .filter(job::customer.eq(customer).and(job::state.eq_any(AT_WORK.map(JobState::as_str))))
        .filter(job::account.eq(account).and(job::kind.ne(GROUP)))
        .filter(diesel::dsl::not(counted))
        .select((job::uid, job::account, job::kind, job::priority, job::id))
        .load(c)?;
    for me in &found {
        stand(c, me, standing::WORKS)?;
        diesel::update(job::table.find(&me.uid)).set(job::limited.eq(true)).execute(c)?;
    }
    Ok(())
}

/// Kind of the jobs that only wait for others and take no place.
const GROUP: &str = crate::model::JobKind::Group.as_str();

/// Takes up a limit that was set: counts what is at work, and calls those for whom there is room now.
///
/// # Errors
/// What the database reports.
pub fn limit_set(c: &mut AnyConnection, row: &LimitRow) -> QueryResult<Vec<String>> {
    let mut called = Vec::new();
    limit::lock(c, row.account)?;
    enlist(c, row.customer, row.account)?;
    refill(c, row.account, &mut called)?;
    Ok(called)
}

/// Lets go what a limit held that is there no more.
///
/// # Errors
/// What the database reports.
pub fn limit_gone(c: &mut AnyConnection, account: i64) -> QueryResult<Vec<String>> {
    let mut called = Vec::new();
    refill(c, account, &mut called)?;
    if limit::of_account(c, account)?.is_empty() {
        let began = turn::table.filter(turn::account.eq(account).and(turn::state.eq(standing::WORKS)));
        diesel::delete(began).execute(c)?;
    }
    Ok(called)
}

/// Accounts that something has to be done for: those with limits, and those whose line outlived them.
///
/// # Errors
/// What the database reports.
pub fn limited_accounts(c: &mut AnyConnection) -> QueryResult<Vec<i64>> {
    let mut found = limit::accounts(c)?;
    let left: Vec<i64> = turn::table
        .filter(diesel::dsl::not(diesel::dsl::exists(
            job_limit::table.filter(job_limit::account.eq(turn::account)),
        )))
        .select(turn::account)
        .distinct()
        .load(c)?;
    found.extend(left);
    Ok(found)
}

/// Puts an account's line in order: the net under everything above.
///
/// What began before its limit is counted, what ended or left is forgotten, a learned
/// rate that has recovered goes, and whoever has room is called.
///
/// # Errors
/// What the database reports.
pub fn look_over(c: &mut AnyConnection, account: i64) -> QueryResult<Vec<String>> {
    let now = c.now()?;
    let rows = limit::lock(c, account)?;
    for row in &rows {
        limit::forget(c, row, now)?;
    }
    if let Some(row) = rows.iter().find(|row| row.together.is_some()) {
        enlist(c, row.customer, account)?;
    }
    let open = job::table.filter(job::uid.eq(turn::job)).filter(job::ended_at.is_null());
    let over =
        turn::table.filter(turn::account.eq(account)).filter(diesel::dsl::not(diesel::dsl::exists(open)));
    diesel::delete(over).execute(c)?;
    let queued = job::table.filter(job::uid.eq(turn::job)).filter(job::state.eq(JobState::Queued.as_str()));
    let began = turn::table
        .filter(turn::account.eq(account).and(turn::state.eq(standing::WAITS)))
        .filter(diesel::dsl::not(diesel::dsl::exists(queued)));
    diesel::delete(began).execute(c)?;
    limit_gone(c, account)
}

/// Why a job that waits for a limit waits now; none where it does not wait in a line.
///
/// # Errors
/// What the database reports.
pub fn why_now(c: &mut AnyConnection, uid: &str) -> QueryResult<Option<(&'static str, String)>> {
    let mine = turn::table.find(uid).filter(turn::state.eq(standing::WAITS));
    let Some(row) = mine.select(TurnRow::as_select()).first(c).optional()? else { return Ok(None) };
    let me = Asker {
        uid: row.job,
        account: row.account,
        kind: row.kind,
        priority: row.behind.saturating_neg(),
        id: row.id,
    };
    let account = Account::seen(c, me.account)?;
    for rule in account.rules.iter().filter(|rule| rule.row.counts(&me.kind)) {
        let before = account.before(c, rule, &me)?;
        if rule.room() <= before {
            return Ok(Some(rule.told(before)));
        }
    }
    Ok(None)
}

//! Finding jobs by a [`Query`], newest first, with bounded work: no statement here ever reads the whole table.
//!
//! Each index on `job` is paid for by every submit and, where its columns change, by every move of a job. So only what
//! is asked most and changes seldom has one of its own, and the rest is walked:
//!
//! | term | served by |
//! |---|---|
//! | number | `job_id` |
//! | state, needs, waits, `outcome:unknown` | `job_state (customer, state, id)`, one lane a state |
//! | parent | the primary key of `child`, then `job_id` |
//! | server | `job_server (server, id)`, one lane a server |
//! | older, newer, from, to | bisection along `job_customer`: numbers grow with time, so a time becomes a number |
//! | all others | a walk along the lane, at most [`WALK`] rows an answer; related rows by `attempt_job` and primary keys |
//!
//! A walk that ends before it found enough says where it ended, and the next answer goes on from there.

mod cond;
mod pieces;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use diesel::prelude::*;

use self::pieces::{PIECE, Pieces, Windows};
use super::job::JobRow;
use super::schema::{attempt, child, job};
use crate::model::query::{Query, Term, Test};
use crate::model::{CustomerId, JobId, JobState, Micros, UserId};
use crate::store::AnyConnection;

/// Rows looked at for one answer, in each lane.
pub const WALK: i64 = 10_000;
/// Up to here counts are exact.
pub const COUNTED: i64 = 10_000;
/// Numbers are handed out in blocks of 256 a process, so a later number may be a little older.
const SLACK: i64 = 1024;
/// More states than this are not worth a lane each: they are nearly all rows.
const LANES: usize = 5;

pub(super) type Backend = <AnyConnection as Connection>::Backend;
type Jobs = job::BoxedQuery<'static, Backend>;

/// Whose jobs, and which.
#[derive(Clone, Debug)]
pub struct Search {
    /// The tenant.
    pub customer: CustomerId,
    /// Who searches; `by:me` means them.
    pub person: UserId,
    /// What for.
    pub query: Query,
    /// Only these states, besides what the query says.
    pub scope: Option<Vec<JobState>>,
}

/// A page of what was found.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Newest first.
    pub rows: Vec<JobRow>,
    /// Where the next page begins; nothing when all was seen.
    pub before: Option<JobId>,
    /// Whether the walk ended before the page was full.
    pub cut: bool,
}

/// How many were found in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Words of states with their counts; a count above [`COUNTED`] means more than that.
    pub states: Vec<(String, i64)>,
    /// Whether all jobs were looked at; else only the newest [`WALK`].
    pub whole: bool,
}

/// A way through an index, newest first.
#[derive(Clone, Debug)]
enum Lane {
    All,
    State(JobState),
    Server(i64),
    Ids(Vec<i64>),
    /// The children of groups, in one go: a group has a thousand at the most.
    Children(Vec<i64>),
}

/// Numbers between these two, without them.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    above: Option<i64>,
    below: Option<i64>,
}

impl Span {
    fn under(self, id: i64) -> Self {
        Self { below: Some(self.below.map_or(id, |below| below.min(id))), ..self }
    }

    fn over(self, id: i64) -> Self {
        Self { above: Some(self.above.map_or(id, |above| above.max(id))), ..self }
    }
}

impl Search {
    /// All jobs of a tenant.
    #[must_use]
    pub fn all(customer: CustomerId) -> Self {
        Self { customer, person: UserId(0), query: Query::default(), scope: None }
    }

    /// The same, with only these states of what was found.
    #[must_use]
    pub fn only(&self, states: &[JobState]) -> Self {
        Self { scope: Some(states.to_vec()), ..self.clone() }
    }

    /// The states that can fit at all.
    fn states(&self) -> Vec<JobState> {
        let fits = |state: JobState, term: &Term| match &term.test {
            Test::States(states) => states.contains(&state) != term.negated,
            Test::Waits(_) if !term.negated => !state.is_end(),
            Test::OutcomeUnknown if !term.negated => !state.is_end() || state == JobState::Unresolved,
            _ => true,
        };
        let all = JobState::ALL.iter().copied();
        all.filter(|state| self.scope.as_ref().is_none_or(|scope| scope.contains(state)))
            .filter(|state| self.query.terms.iter().all(|term| fits(*state, term)))
            .collect()
    }

    /// The narrowest ways to what is searched; none when nothing can fit.
    fn lanes(&self) -> Vec<Lane> {
        let states = self.states();
        if states.is_empty() {
            return Vec::new();
        }
        let wanted = || self.query.terms.iter().filter(|term| !term.negated).map(|term| &term.test);
        if let Some(ids) = wanted().find_map(|test| if let Test::Ids(ids) = test { Some(ids) } else { None })
        {
            return vec![Lane::Ids(ids.clone())];
        }
        if let Some(parents) = wanted().find_map(|test| match test {
            Test::Parents(parents) if parents.len() <= LANES => Some(parents),
            _ => None,
        }) {
            return vec![Lane::Children(parents.clone())];
        }
        let servers = wanted().find_map(|test| match test {
            Test::Servers(servers) if servers.len() <= LANES => Some(servers),
            _ => None,
        });
        match servers {
            Some(servers) => servers.iter().copied().map(Lane::Server).collect(),
            None if states.len() <= LANES => states.into_iter().map(Lane::State).collect(),
            None => vec![Lane::All],
        }
    }

    /// Whether rows of a lane may not fit, so that a page needs a walk.
    fn walks(&self, lane: &Lane) -> bool {
        let open = self.states().len() < JobState::ALL.len() && !matches!(lane, Lane::State(_));
        let beside = |term: &Term| match &term.test {
            Test::States(_) => false,
            Test::Older(_) | Test::Newer(_) | Test::From(_) | Test::To(_) => term.negated,
            Test::Servers(_) => term.negated || !matches!(lane, Lane::Server(_)),
            _ => true,
        };
        !matches!(lane, Lane::Ids(_) | Lane::Children(_)) && (open || self.query.terms.iter().any(beside))
    }

    /// The rows of a lane, without any other condition.
    fn lane(&self, lane: &Lane, span: Span) -> Jobs {
        let mut rows = job::table.filter(job::customer.eq(self.customer.0)).into_boxed();
        rows = match lane {
            Lane::All => rows,
            Lane::State(state) => rows.filter(job::state.eq(state.as_str())),
            Lane::Server(server) => rows.filter(job::server.eq(*server)),
            Lane::Ids(ids) => rows.filter(job::id.eq_any(ids.clone())),
            Lane::Children(parents) => {
                let children = child::table.filter(child::parent.eq_any(parents.clone())).select(child::id);
                rows.filter(job::id.eq_any(children))
            }
        };
        if let Some(above) = span.above {
            rows = rows.filter(job::id.gt(above));
        }
        if let Some(below) = span.below {
            rows = rows.filter(job::id.lt(below));
        }
        rows
    }

    /// The rows of a lane that fit.
    fn fitting(&self, lane: &Lane, span: Span, now: Micros) -> Jobs {
        let mut rows = self.lane(lane, span);
        let states = self.states();
        if !matches!(lane, Lane::State(_)) && states.len() < JobState::ALL.len() {
            // What does not fit is left out: a list of what does would invite the planner to gather and sort by state.
            let others = JobState::ALL.iter().filter(|state| !states.contains(state)).map(|s| s.as_str());
            rows = rows.filter(job::state.ne_all(others.collect::<Vec<_>>()));
        }
        for term in &self.query.terms {
            if let Some(cond) = cond::of(self, &term.test, now) {
                rows = if term.negated { rows.filter(diesel::dsl::not(cond)) } else { rows.filter(cond) };
            }
        }
        rows
    }

    /// The numbers that the times of the query leave.
    fn span(&self, connection: &mut AnyConnection, now: Micros) -> QueryResult<Span> {
        let mut span = Span::default();
        for term in self.query.terms.iter().filter(|term| !term.negated) {
            span = match &term.test {
                Test::Older(age) => span.under(self.first_since(connection, now.minus(*age))? + SLACK),
                Test::To(at) => span.under(self.first_since(connection, *at)? + SLACK),
                Test::Newer(age) => span.over(self.first_since(connection, now.minus(*age))? - SLACK),
                Test::From(at) => span.over(self.first_since(connection, *at)? - SLACK),
                _ => span,
            };
        }
        Ok(span)
    }

    /// About the first number of a job that was made at this time or later: some twenty looks into an index.
    fn first_since(&self, connection: &mut AnyConnection, at: Micros) -> QueryResult<i64> {
        let mine = job::table.filter(job::customer.eq(self.customer.0));
        let newest: Option<i64> = mine.order(job::id.desc()).select(job::id).first(connection).optional()?;
        let (mut low, mut high) = (0, newest.unwrap_or(0) + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            // From the index alone, and its row by its number; see `Pieces`.
            let next: Option<i64> = mine
                .filter(job::id.ge(middle))
                .order(job::id.asc())
                .select(job::id)
                .first(connection)
                .optional()?;
            let made: Option<i64> = match next {
                Some(id) => {
                    mine.filter(job::id.eq(id)).select(job::created_at).first(connection).optional()?
                }
                None => None,
            };
            match next.zip(made) {
                Some((id, made)) if made < at.0 => low = id + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The newest rows of a lane that fit, in any order.
    fn newest(
        &self,
        connection: &mut AnyConnection,
        (lane, span): (&Lane, Span),
        now: Micros,
        limit: i64,
    ) -> QueryResult<Vec<JobRow>> {
        if !connection.is_server() || matches!(lane, Lane::Ids(_)) {
            let found = self.fitting(lane, span, now).order(job::id.desc()).limit(limit);
            return found.select(JobRow::as_select()).load(connection);
        }
        let (mut rows, mut pieces) = (Vec::new(), Pieces::of(lane, span, limit));
        let enough = usize::try_from(limit).unwrap_or(usize::MAX);
        while rows.len() < enough
            && let Some(names) = pieces.next(self, connection)?
        {
            let found = self.fitting(lane, Span::default(), now).filter(job::uid.eq_any(names));
            rows.extend(found.select(JobRow::as_select()).load(connection)?);
        }
        rows.sort_by_key(|row: &JobRow| std::cmp::Reverse(row.id));
        rows.truncate(enough);
        Ok(rows)
    }

    /// The states of all rows of a lane that fit.
    fn states_of(
        &self,
        connection: &mut AnyConnection,
        (lane, span): (&Lane, Span),
        now: Micros,
    ) -> QueryResult<Vec<String>> {
        if !connection.is_server() || matches!(lane, Lane::Ids(_)) {
            return self.fitting(lane, span, now).select(job::state).load(connection);
        }
        let (mut states, mut pieces) = (Vec::new(), Pieces::of(lane, span, PIECE));
        while let Some(names) = pieces.next(self, connection)? {
            let found = self.fitting(lane, Span::default(), now).filter(job::uid.eq_any(names));
            states.extend(found.select(job::state).load::<String>(connection)?);
        }
        Ok(states)
    }

    /// The number at which a walk through a lane ends; nothing when the lane is short.
    fn floor(&self, connection: &mut AnyConnection, lane: &Lane, span: Span) -> QueryResult<Option<i64>> {
        // An offset into an index without its rows, and no further than a walk is long.
        let nth = |connection: &mut AnyConnection, span: Span, n: i64| -> QueryResult<Option<i64>> {
            let rows = self.lane(lane, span).select(job::id).order(job::id.desc());
            rows.offset(n).first(connection).optional()
        };
        if !connection.is_server() || matches!(lane, Lane::Ids(_) | Lane::Children(_)) {
            return nth(connection, span, WALK);
        }
        let mut left = WALK;
        for window in Windows::of(span) {
            if let Some(found) = nth(connection, window, left)? {
                return Ok(Some(found));
            }
            // Fewer than a walk is long, or the number would have been found.
            left -= self.lane(lane, window).count().get_result::<i64>(connection)?;
        }
        Ok(None)
    }
}

/// A page of what is searched for, newest first, from below a number.
///
/// # Errors
/// What the database reports.
pub fn page(
    connection: &mut AnyConnection,
    search: &Search,
    before: Option<JobId>,
    limit: i64,
) -> QueryResult<Page> {
    let now = connection.now()?;
    let mut span = search.span(connection, now)?;
    if let Some(before) = before {
        span = span.under(before.0);
    }
    let (mut rows, mut ended): (Vec<JobRow>, Option<i64>) = (Vec::new(), None);
    for lane in search.lanes() {
        let floor = if search.walks(&lane) { search.floor(connection, &lane, span)? } else { None };
        ended = ended.max(floor);
        let within = floor.map_or(span, |floor| span.over(floor));
        rows.extend(search.newest(connection, (&lane, within), now, limit + 1)?);
    }
    // Below the place where one lane's walk ended, others may not be shown yet, or the order would break.
    rows.retain(|row| ended.is_none_or(|ended| row.id > ended));
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let before = if more { rows.last().map(|row| JobId(row.id)) } else { ended.map(|id| JobId(id + 1)) };
    Ok(Page { rows, before, cut: !more && ended.is_some() })
}

/// How many jobs are found in each state.
///
/// # Errors
/// What the database reports.
pub fn counts(connection: &mut AnyConnection, search: &Search) -> QueryResult<Counts> {
    if search.query.is_empty() {
        let mut counts = Counts { states: Vec::new(), whole: true };
        for state in search.states() {
            let lane = Lane::State(state);
            let count = match search.floor(connection, &lane, Span::default())? {
                Some(_) => COUNTED + 1,
                None => search.lane(&lane, Span::default()).count().get_result(connection)?,
            };
            counts.states.push((state.to_string(), count));
        }
        return Ok(counts);
    }
    let now = connection.now()?;
    let (span, mut whole) = (search.span(connection, now)?, true);
    let mut counts: HashMap<String, i64> = HashMap::new();
    for lane in search.lanes() {
        let floor = search.floor(connection, &lane, span)?;
        whole &= floor.is_none();
        let within = floor.map_or(span, |floor| span.over(floor));
        for state in search.states_of(connection, (&lane, within), now)? {
            *counts.entry(state).or_default() += 1;
        }
    }
    Ok(Counts { states: counts.into_iter().collect(), whole })
}

/// Which of these jobs are among those searched for.
///
/// # Errors
/// What the database reports.
pub fn among(connection: &mut AnyConnection, search: &Search, ids: &[i64]) -> QueryResult<Vec<i64>> {
    let now = connection.now()?;
    search.fitting(&Lane::Ids(ids.to_vec()), Span::default(), now).select(job::id).load(connection)
}

/// How many calls were made for each of these jobs; none is not told.
///
/// # Errors
/// What the database reports.
pub fn attempts(connection: &mut AnyConnection, uids: &[String]) -> QueryResult<HashMap<String, i64>> {
    let rows: Vec<(String, i64)> = attempt::table
        .filter(attempt::job.eq_any(uids))
        .group_by(attempt::job)
        .select((attempt::job, diesel::dsl::count_star()))
        .load(connection)?;
    Ok(rows.into_iter().collect())
}

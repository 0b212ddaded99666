//! Groups: a job made of jobs. Accepted as a whole or not at all; the children are ordinary jobs that name their parent.

use diesel::prelude::*;

use super::accept::{self, Accepted, Answer, Entered, Submit};
use super::job::JobRow;
use super::schema::{child, job, watch};
use super::watch::{Watch, WatchRow};
use crate::model::{JobParams, JobState, Micros, Rollup, WatchKind, WatchUid};
use crate::store::AnyConnection;

/// Most children of a group.
pub const MOST: usize = 1000;
/// Machine code of a group that waits for its children.
pub const WAITS_CHILDREN: &str = "verdict-children";
/// Machine code of a child that waits for its turn in its group.
pub const WAITS_TURN: &str = "group";
/// Who says what became of a group.
pub const SOURCE: &str = "children";

/// Accepts a group with all its children, durable when the item is committed.
///
/// The group waits for them from the
/// beginning: nobody has to claim it. `watch` names what its end is decided by, and was made before the first write.
///
/// # Errors
/// What the database reports.
pub fn accept(
    c: &mut AnyConnection,
    group: &Submit,
    children: &[Submit],
    watch: WatchUid,
) -> QueryResult<Accepted> {
    let answer = Answer { job: Some(group.uid), status: 202, created: None };
    match accept::enter(c, &group.entry, &answer)? {
        Entered::Fresh => store(c, group, children, watch).map(|row| Accepted::Stored(Box::new(row))),
        Entered::Same(first) => Ok(Accepted::Same(first)),
        Entered::Conflict => Ok(Accepted::Conflict),
        Entered::Replayed => Ok(Accepted::Replayed),
    }
}

fn store(c: &mut AnyConnection, group: &Submit, children: &[Submit], watch: WatchUid) -> QueryResult<JobRow> {
    let now = c.now()?;
    let (together, most) = match &group.params {
        JobParams::Group(params) => (params.together, params.children),
        _ => (None, 0),
    };
    let mut row = accept::row_of(group, now)?;
    row.state = JobState::Awaiting.to_string();
    row.due_at = Some(row.deadline);
    WAITS_CHILDREN.clone_into(&mut row.why_code);
    row.why = super::transition::group_told(0, most);
    let deadline = Micros(row.deadline);
    let row = accept::insert(c, group.uid, row)?;
    let expected = Watch {
        uid: watch,
        job: group.uid,
        customer: group.entry.customer,
        step: "children".to_owned(),
        try_no: 1,
        kind: WatchKind::Children,
        target: String::new(),
        expectation: "all complete".to_owned(),
        due_at: now,
        deadline,
        made_at: now,
        done_at: None,
    };
    super::insert_new(diesel::insert_into(watch::table).values(&WatchRow::from(&expected)).execute(c))?;
    let first = first_ones(children, together);
    for (n, new) in children.iter().enumerate() {
        let mut row = accept::row_of(new, now)?;
        row.parent = Some(group.id.0);
        if !first.contains(&n) {
            row.due_at = None;
            WAITS_TURN.clone_into(&mut row.why_code);
            let together = together.unwrap_or_default();
            row.why =
                format!("waits for its turn: at most {together} children of group {} are open", group.id);
        }
        accept::insert(c, new.uid, row)?;
        let kin = (
            child::parent.eq(group.id.0),
            child::id.eq(new.id.0),
            child::job.eq(new.uid.to_string()),
            child::done.eq(false),
        );
        super::insert_new(diesel::insert_into(child::table).values(kin).execute(c))?;
    }
    Ok(row)
}

/// The children that begin at once: the most urgent, then the first.
fn first_ones(children: &[Submit], together: Option<u32>) -> std::collections::HashSet<usize> {
    let mut order: Vec<usize> = (0..children.len()).collect();
    order.sort_by_key(|n| children.get(*n).map(|child| (std::cmp::Reverse(child.priority), child.id.0)));
    let most = together.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    order.into_iter().take(most).collect()
}

/// Which children are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that ended, and not complete.
    NotComplete,
}

/// Children of a group, by number.
///
/// # Errors
/// What the database reports.
pub fn children(c: &mut AnyConnection, parent: i64, which: Which, limit: i64) -> QueryResult<Vec<JobRow>> {
    let mut found = child::table
        .inner_join(job::table.on(job::uid.eq(child::job)))
        .filter(child::parent.eq(parent))
        .order(child::id.asc())
        .select(JobRow::as_select())
        .into_boxed();
    if which == Which::NotComplete {
        found = found.filter(job::ended_at.is_not_null().and(job::state.ne(JobState::Complete.as_str())));
    }
    found.limit(limit).load(c)
}

/// Children of a group for its page: those that are not complete first, as many as are asked for.
///
/// # Errors
/// What the database reports.
pub fn of_page(c: &mut AnyConnection, parent: i64, limit: i64) -> QueryResult<Vec<JobRow>> {
    let all = || {
        child::table
            .inner_join(job::table.on(job::uid.eq(child::job)))
            .filter(child::parent.eq(parent))
            .order(child::id.asc())
            .select(JobRow::as_select())
    };
    let complete = JobState::Complete.as_str();
    let mut found: Vec<JobRow> = all().filter(job::state.ne(complete)).limit(limit).load(c)?;
    let room = limit - i64::try_from(found.len()).unwrap_or(limit);
    found.extend(all().filter(job::state.eq(complete)).limit(room).load(c)?);
    Ok(found)
}

/// How the children of a group ended that have ended.
///
/// # Errors
/// What the database reports.
pub fn rollup(c: &mut AnyConnection, parent: i64) -> QueryResult<Rollup> {
    let mut rollup = Rollup::default();
    for (state, many) in states(c, parent)? {
        if let Ok(state) = state.parse() {
            rollup.add(state, many);
        }
    }
    Ok(rollup)
}

/// How many children of a group are in each state.
///
/// # Errors
/// What the database reports.
pub fn states(c: &mut AnyConnection, parent: i64) -> QueryResult<Vec<(String, i64)>> {
    child::table
        .inner_join(job::table.on(job::uid.eq(child::job)))
        .filter(child::parent.eq(parent))
        .group_by(job::state)
        .select((job::state, diesel::dsl::count_star()))
        .load(c)
}

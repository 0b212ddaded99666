//! What the end of a job means to others: the place it gives back, and the group it is a child of.
//!
//! All of it stands in the commit of the end. The children of a group follow one another at its row: whoever ends as the
//! last one sees that, on whichever node, and writes the verdict of the group.

use diesel::prelude::*;

use super::hold::resting;
use super::{End, Fence, turn, verdict};
use crate::model::{Boot, CustomerId, GroupParams, JobParams, JobState, JobUid, Micros, WatchKind, WatchUid};
use crate::store::AnyConnection;
use crate::store::provisioning::corrupt;
use crate::store::provisioning::group::{self, WAITS_TURN};
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::schema::{child, job, watch};

/// Jobs that may go on because of a change; each is worth a nudge.
pub type Called = Vec<String>;

/// Children named in the evidence of a group that is not complete.
const NAMED: i64 = 100;
/// Longest message of a child in that evidence, in characters.
const MESSAGE: usize = 200;
/// Rows changed by one statement.
const CHUNK: usize = 400;

/// Carries out what an end means to others, in its own item; whom to nudge. Nothing while the job is open.
///
/// # Errors
/// What the database reports.
pub fn follow(c: &mut AnyConnection, end: &End) -> QueryResult<Called> {
    type Found = (i64, i64, bool, Option<i64>, String);
    let mut called = Called::new();
    // A complete job was read after its claim, so what is known of it holds.
    if end.state == JobState::Complete && !end.kin.limited && end.kin.parent.is_none() {
        return Ok(called);
    }
    let name = end.fence.job.to_string();
    let found: Option<Found> = job::table
        .find(&name)
        .filter(job::ended_at.is_not_null())
        .select((job::id, job::account, job::limited, job::parent, job::state))
        .first(c)
        .optional()?;
    let Some((id, account, limited, parent, state)) = found else { return Ok(called) };
    if limited {
        turn::over(c, (&name, account), &mut called)?;
    } else {
        turn::leave(c, &name, &mut called)?;
    }
    if let Some(parent) = parent {
        child_ended(c, (parent, id), &state, &mut called)?;
    }
    Ok(called)
}

/// The same for a job that is set aside: it gives its place up until it comes back.
///
/// # Errors
/// What the database reports.
pub fn follow_aside(c: &mut AnyConnection, uid: JobUid) -> QueryResult<Called> {
    let mut called = Called::new();
    let limited: Option<i64> = job::table
        .find(uid.to_string())
        .filter(job::limited.eq(true))
        .select(job::account)
        .first(c)
        .optional()?;
    if let Some(account) = limited {
        turn::refill(c, account, &mut called)?;
    }
    Ok(called)
}

/// A group as its children see it.
struct Group {
    uid: String,
    id: i64,
    customer: i64,
    params: GroupParams,
}

/// Takes a group's row for this transaction: its children's ends follow one another from here on.
fn take_group(c: &mut AnyConnection, id: i64) -> QueryResult<Option<Group>> {
    let now = c.now()?.0;
    let open = job::table.filter(job::id.eq(id).and(job::ended_at.is_null()));
    let touched = (job::changed_at.eq(now), job::version.eq(job::version + 1));
    if diesel::update(open).set(touched).execute(c)? == 0 {
        return Ok(None);
    }
    let (uid, customer, params): (String, i64, String) =
        job::table.filter(job::id.eq(id)).select((job::uid, job::customer, job::params)).first(c)?;
    let params = serde_json::from_str(&params)
        .map_err(|e| corrupt(crate::store::Error::Corrupt { column: "job.params", text: e.to_string() }))?;
    let JobParams::Group(params) = params else { return Ok(None) };
    Ok(Some(Group { uid, id, customer, params }))
}

fn child_ended(
    c: &mut AnyConnection,
    (parent, id): (i64, i64),
    state: &str,
    called: &mut Called,
) -> QueryResult<()> {
    let group = take_group(c, parent)?;
    diesel::update(child::table.find((parent, id))).set(child::done.eq(true)).execute(c)?;
    let Some(group) = group else { return Ok(()) };
    if group.params.stop_on_failure && state != JobState::Complete.as_str() {
        let who = format!("group {parent}: child {id} is {state}");
        called.extend(cancel(c, parent, &who, Whom::NotBegun)?);
    }
    go_on(c, &group, called)
}

/// Ends the wait of a group whose children have all ended; else lets the next ones begin and says how far it is.
fn go_on(c: &mut AnyConnection, group: &Group, called: &mut Called) -> QueryResult<()> {
    let open: i64 =
        child::table.filter(child::parent.eq(group.id).and(child::done.eq(false))).count().get_result(c)?;
    if open == 0 {
        conclude(c, group)?;
        called.push(group.uid.clone());
        return Ok(());
    }
    if let Some(together) = group.params.together {
        release(c, group.id, (i64::from(together), open), called)?;
    }
    let ended = i64::from(group.params.children) - open;
    let waits = job::table.filter(job::id.eq(group.id).and(job::why_code.eq(group::WAITS_CHILDREN)));
    diesel::update(waits).set(job::why.eq(group_told(ended, group.params.children))).execute(c).map(drop)
}

/// How far a group is, in words.
#[must_use]
pub fn group_told(ended: i64, children: u32) -> String {
    format!("{ended} of {children} children have ended")
}

/// Lets as many children begin as may be open together.
fn release(
    c: &mut AnyConnection,
    parent: i64,
    (together, open): (i64, i64),
    called: &mut Called,
) -> QueryResult<()> {
    let now = c.now()?;
    let waiting = waiting_children(c, parent)?;
    let free = together - (open - i64::try_from(waiting.len()).unwrap_or(0));
    for uid in waiting.into_iter().take(usize::try_from(free).unwrap_or(0)) {
        diesel::update(job::table.filter(job::uid.eq(&uid)).filter(resting()))
            .set((
                job::due_at.eq(Some(now.0)),
                // Counted from its start, as with a job that was held.
                job::deadline.eq(job::deadline - job::changed_at + now.0),
                job::why_code.eq("dispatch"),
                job::why.eq("accepted; waiting for a dispatcher to claim it"),
                job::changed_at.eq(now.0),
                job::version.eq(job::version + 1),
            ))
            .execute(c)?;
        called.push(uid);
    }
    Ok(())
}

/// Children that wait for their turn in the group, the most urgent first.
fn waiting_children(c: &mut AnyConnection, parent: i64) -> QueryResult<Vec<String>> {
    child::table
        .inner_join(job::table.on(job::uid.eq(child::job)))
        .filter(child::parent.eq(parent).and(child::done.eq(false)))
        .filter(job::state.eq(JobState::Queued.as_str()).and(job::why_code.eq(WAITS_TURN)))
        .filter(job::owner.is_null().and(job::cancel_by.is_null()))
        .order((job::priority.desc(), job::id.asc()))
        .select(job::uid)
        .load(c)
}

/// Writes the verdict of a group all of whose children have ended: what became of them, by name where it is not complete.
fn conclude(c: &mut AnyConnection, group: &Group) -> QueryResult<()> {
    let open: Option<String> = watch::table
        .filter(watch::job.eq(&group.uid).and(watch::done_at.is_null()))
        .filter(watch::kind.eq(WatchKind::Children.as_str()))
        .select(watch::uid)
        .first(c)
        .optional()?;
    let Some(watch) = open.and_then(|uid| uid.parse::<WatchUid>().ok()) else { return Ok(()) };
    let Ok(job) = group.uid.parse() else { return Ok(()) };
    let rollup = group::rollup(c, group.id)?;
    let named = group::children(c, group.id, group::Which::NotComplete, NAMED)?;
    let named: Vec<serde_json::Value> = named
        .into_iter()
        .map(|row| {
            let message: String = row.message.unwrap_or_default().chars().take(MESSAGE).collect();
            serde_json::json!({ "id": row.id, "state": row.state, "message": message })
        })
        .collect();
    let seen = Evidence {
        subject: watch.to_string(),
        source: group::SOURCE.to_owned(),
        job,
        customer: CustomerId(group.customer),
        verdict: rollup.verdict(),
        text: rollup.to_string(),
        raw: serde_json::json!({ "children": rollup, "notComplete": named }).to_string(),
        made_at: Micros(0),
    };
    verdict(c, &seen, Some(watch)).map(drop)
}

/// Which children are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Open,
    NotBegun,
}

/// Asks for the cancel of children: rows first, whoever runs them.
fn cancel(c: &mut AnyConnection, parent: i64, who: &str, whom: Whom) -> QueryResult<Called> {
    let now = c.now()?.0;
    let mut mine = child::table
        .inner_join(job::table.on(job::uid.eq(child::job)))
        .filter(child::parent.eq(parent).and(child::done.eq(false)))
        .filter(job::ended_at.is_null().and(job::cancel_by.is_null()))
        .order(child::id.asc())
        .select(job::uid)
        .into_boxed();
    if whom == Whom::NotBegun {
        mine = mine.filter(job::state.eq(JobState::Queued.as_str()));
    }
    let found: Called = mine.load(c)?;
    // As long as the column.
    let who: String = who.chars().take(128).collect();
    for part in found.chunks(CHUNK) {
        let open = job::uid.eq_any(part).and(job::ended_at.is_null()).and(job::cancel_by.is_null());
        diesel::update(job::table.filter(open))
            .set((
                job::cancel_by.eq(Some(&who)),
                job::due_at.eq(Some(now)),
                job::changed_at.eq(now),
                job::version.eq(job::version + 1),
            ))
            .execute(c)?;
    }
    Ok(found)
}

/// Asks for the cancel of the open children of a job that is a group; nothing for any other.
///
/// # Errors
/// What the database reports.
pub fn cancel_children(c: &mut AnyConnection, uid: JobUid, who: &str) -> QueryResult<Called> {
    let group = job::table.find(uid.to_string()).filter(job::kind.eq(crate::model::JobKind::Group.as_str()));
    match group.select(job::id).first(c).optional()? {
        Some(id) => cancel(c, id, who, Whom::Open),
        None => Ok(Called::new()),
    }
}

/// Calls a group off that a person or its time limit ends: its open children are asked to end, and it waits for them
/// without an owner. None when the group is another's by now.
///
/// # Errors
/// What the database reports.
pub fn call_off(
    c: &mut AnyConnection,
    (fence, boot): (Fence, Boot),
    who: &str,
    (code, why): (&str, &str),
) -> QueryResult<Option<Called>> {
    let now = c.now()?.0;
    let name = fence.job.to_string();
    let mine = job::table
        .filter(job::uid.eq(&name).and(job::epoch.eq(fence.epoch.0)))
        .filter(job::owner.eq(boot.to_string()).and(job::state.eq(JobState::Awaiting.as_str())));
    let rows = diesel::update(mine)
        .set((
            job::owner.eq(None::<String>),
            job::due_at.eq(None::<i64>),
            job::why_code.eq(code),
            job::why.eq(why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(c)?;
    if rows == 0 {
        return Ok(None);
    }
    let mut called = cancel_children(c, fence.job, who)?;
    let id: i64 = job::table.find(&name).select(job::id).first(c)?;
    mend(c, id, &mut called)?;
    Ok(Some(called))
}

/// Groups that nobody may be about to move on although they could: read only, one look where there is no group.
///
/// # Errors
/// What the database reports.
pub fn unfinished_groups(c: &mut AnyConnection, limit: i64) -> QueryResult<Vec<i64>> {
    let open: Vec<(i64, String)> = watch::table
        .inner_join(job::table.on(job::uid.eq(watch::job)))
        .filter(watch::done_at.is_null().and(watch::kind.eq(WatchKind::Children.as_str())))
        .filter(job::ended_at.is_null())
        .select((job::id, job::params))
        .limit(limit)
        .load(c)?;
    let mut found = Vec::new();
    for (id, params) in open {
        let marked: i64 =
            child::table.filter(child::parent.eq(id).and(child::done.eq(false))).count().get_result(c)?;
        let open: i64 = child::table
            .inner_join(job::table.on(job::uid.eq(child::job)))
            .filter(child::parent.eq(id).and(child::done.eq(false)).and(job::ended_at.is_null()))
            .count()
            .get_result(c)?;
        let together = match serde_json::from_str(&params) {
            Ok(JobParams::Group(group)) => group.together.map(i64::from),
            _ => None,
        };
        let stuck = match together {
            Some(together) if open == marked => {
                let waiting = i64::try_from(waiting_children(c, id)?.len()).unwrap_or(0);
                waiting > 0 && open - waiting < together
            }
            _ => false,
        };
        if open == 0 || open != marked || stuck {
            found.push(id);
        }
    }
    Ok(found)
}

/// Puts a group right by what its children's rows say.
///
/// # Errors
/// What the database reports.
pub fn mend(c: &mut AnyConnection, id: i64, called: &mut Called) -> QueryResult<()> {
    let Some(group) = take_group(c, id)? else { return Ok(()) };
    let over = job::table.filter(job::uid.eq(child::job).and(job::ended_at.is_not_null()));
    let left = child::table
        .filter(child::parent.eq(id).and(child::done.eq(false)))
        .filter(diesel::dsl::exists(over));
    diesel::update(left).set(child::done.eq(true)).execute(c)?;
    go_on(c, &group, called)
}

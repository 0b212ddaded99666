//! What becomes of a job whose actor failed again and again: it must not block others, nor stay for ever.

use std::time::Duration;

use crate::jobs::machine::{CRASHES, Limits};
use crate::jobs::request;
use crate::jobs::steps::{Effect, step_of};
use crate::model::{AccountId, Boot, CustomerId};
use crate::model::{Epoch, Generation, JobId, JobParams, JobState, JobUid, Micros, ServerId};
use crate::store::provisioning::job::{self, JobRow};
use crate::store::provisioning::transition::{self, Called, Claim, End, Fence, Kin, Obligation, Waiting};
use crate::store::{AnyConnection, Error, Store};
use diesel::QueryResult;

/// Sets a job aside with the text of its failure; once its time and the grace are over, ends it as unresolved.
///
/// Works on the bare row, because the row itself may be what nobody can read. What may still turn up is looked for
/// `look_after` its end. None when the job is another's or has ended; else the jobs that may go on because of it.
///
/// # Errors
/// Those of the database; then it is found again by the sweep.
pub(crate) async fn set_aside(
    store: &Store,
    (boot, generation): (Boot, Generation),
    job: JobUid,
    (text, pause, limits): (String, Duration, Limits),
) -> Result<Option<Called>, Error> {
    store.write(move |c| aside(c, (boot, generation), job, (&text, pause, &limits))).await
}

fn aside(
    c: &mut AnyConnection,
    (boot, generation): (Boot, Generation),
    uid: JobUid,
    (text, pause, limits): (&str, Duration, &Limits),
) -> QueryResult<Option<Called>> {
    let Some(row) = job::by_uid(c, uid)? else { return Ok(None) };
    let own = boot.to_string();
    if row.ended_at.is_some() || row.owner.as_ref().is_some_and(|owner| *owner != own) {
        return Ok(None);
    }
    let Some(fence) = held(c, (boot, generation), uid, &row)? else { return Ok(None) };
    let now = c.now()?;
    let last = Micros(row.deadline).plus(limits.grace);
    if last <= now {
        let end = end_of(&row, fence, text, (now, limits));
        return if transition::end(c, &end)? { transition::follow(c, &end).map(Some) } else { Ok(None) };
    }
    let why = format!("set aside after repeated failures: {text}");
    let waiting = Waiting { until: now.plus(pause).min(last), code: CRASHES.to_owned(), why };
    if !transition::quarantine(c, fence, &waiting, None)? {
        return Ok(None);
    }
    transition::follow_aside(c, uid).map(Some)
}

/// Makes sure that this life owns the job: its actor may have failed before it could claim it.
fn held(
    c: &mut AnyConnection,
    (boot, generation): (Boot, Generation),
    uid: JobUid,
    row: &JobRow,
) -> QueryResult<Option<Fence>> {
    let seen = Fence { job: uid, epoch: Epoch(row.epoch) };
    if row.owner.is_some() {
        return Ok(Some(seen));
    }
    let Ok(from) = row.state.parse::<JobState>() else { return Ok(None) };
    let to = match from {
        JobState::Quarantined if row.undo_begun => JobState::Undoing,
        JobState::Quarantined | JobState::Queued => JobState::Running,
        open => open,
    };
    let next = seen.epoch.after(generation);
    let claimed = transition::claim(c, &Claim { seen, next, from, to, boot, crashes: row.crashes })?;
    Ok(claimed.then_some(Fence { job: uid, epoch: next }))
}

fn end_of(row: &JobRow, fence: Fence, text: &str, (now, limits): (Micros, &Limits)) -> End {
    let params: Option<JobParams> = serde_json::from_str(&row.params).ok();
    End {
        fence,
        state: JobState::Unresolved,
        try_no: row.try_no,
        message: format!("outcome unknown: it failed again and again while it ran: {text}"),
        code: CRASHES.to_owned(),
        server: row.server.map(ServerId).or_else(|| params.as_ref().and_then(JobParams::server)),
        seen: None,
        obligation: params.and_then(|params| owed(row, fence.job, &params, (now, limits))),
        kin: Kin { limited: row.limited, parent: row.parent.map(JobId) },
        cancel_known: row.cancel_by.is_some(),
    }
}

fn owed(
    row: &JobRow,
    uid: JobUid,
    params: &JobParams,
    (now, limits): (Micros, &Limits),
) -> Option<Obligation> {
    let step = step_of(params.kind());
    let (Effect::Create, JobParams::LaunchServer(launch)) = (step.effect, params) else { return None };
    Some(Obligation {
        tag: request::tag(uid, step.name),
        customer: CustomerId(row.customer),
        account: AccountId(row.account),
        region: launch.region,
        look_at: now,
        look_until: now.plus(limits.look_after),
    })
}

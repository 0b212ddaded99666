//! Fires schedules. Every node may try; the item that moves a schedule on lets one succeed.

use std::time::Duration;

use super::actor::Spec;
use super::cron::Cron;
use crate::model::{AccountId, CustomerId, JobId, JobParams, JobUid, Micros, Uid, UserId};
use crate::mq::Nudge;
use crate::store;
use crate::store::provisioning::accept::{Entry, IdemKey, Submit};
use crate::store::provisioning::schedule::{self, ScheduleRow};
use crate::store::provisioning::sequence::{Sequence, Sequencer};

/// Schedules fired in one go.
const PAGE: i64 = 200;
/// A time that is older when somebody comes to fire it was missed.
const LATE: Duration = Duration::from_secs(60);
/// Longest description of a job, in characters.
const LONGEST_DESCRIPTION: usize = 255;

/// Fires what is due; how long until the next is.
pub(super) async fn fire(spec: &Spec, numbers: &Sequencer) -> Result<Option<Duration>, store::Error> {
    let read = spec.store.read(|c| Ok((schedule::due(c, PAGE)?, schedule::next(c)?, c.now()?)));
    let (due, next, now) = read.await?;
    if due.is_empty() {
        return Ok(next.map(|at| at.since(now)));
    }
    for row in due {
        one(spec, numbers, row, now).await?;
    }
    // What was moved on may be the next again.
    Ok(Some(Duration::ZERO))
}

async fn one(spec: &Spec, numbers: &Sequencer, row: ScheduleRow, now: Micros) -> Result<(), store::Error> {
    let Some(at) = row.next_at.map(Micros) else { return Ok(()) };
    // Both were checked when the schedule was made; one that cannot be read any more fires no more.
    let next = row.cron.parse::<Cron>().ok().and_then(|cron| cron.after(now));
    let missed = now.since(at) > LATE && row.misfire == "skip";
    let submit = match serde_json::from_str(&row.params) {
        Ok(params) if !missed => {
            let id = JobId(numbers.next(Sequence::Job).await?);
            Some(submit(&row, at, (id, params)))
        }
        Ok(_) => None,
        Err(error) => {
            log::error!("schedule {} cannot be read: {error}", row.id);
            None
        }
    };
    let (id, kind) = (row.id, submit.as_ref().map(|submit| submit.params.kind().as_str()));
    let stored = spec.store.write(move |c| schedule::fire(c, &row, next, submit.as_ref())).await?;
    match stored {
        Some(job) => {
            kind.into_iter().for_each(|kind| spec.metrics.job_submitted(kind));
            if let Ok(uid) = job.uid.parse() {
                spec.changes.tell(uid);
                spec.queue.publish(Nudge::Job(uid));
            }
        }
        None if kind.is_none() => log::warn!("schedule {id} missed {} and skips it", at.rfc3339()),
        None => log::debug!("schedule {id} was fired by another node"),
    }
    Ok(())
}

/// The job of one time: its idempotency key is the schedule with the time, so that the time has one job for ever.
pub(super) fn submit(row: &ScheduleRow, at: Micros, (id, params): (JobId, JobParams)) -> Submit {
    let access_key = format!("schedule/{}", row.id);
    let idem = IdemKey { key: format!("{access_key}/{}", at.0), body_hash: access_key.clone() };
    let entry = Entry {
        customer: CustomerId(row.customer),
        access_key,
        request: Uid::random(),
        replay: None,
        idem: Some(idem),
        repeat_by_key: false,
    };
    Submit {
        entry,
        uid: JobUid::random(),
        id,
        account: AccountId(row.account),
        person: UserId(row.person),
        description: described(row),
        priority: row.priority,
        delay: Duration::ZERO,
        limit: Duration::from_micros(u64::try_from(row.time_limit).unwrap_or(0)),
        server: params.server(),
        params,
    }
}

/// The description of its jobs names the schedule.
#[must_use]
pub fn described(row: &ScheduleRow) -> String {
    let link = format!(" (schedule {})", row.name);
    let room = LONGEST_DESCRIPTION.saturating_sub(link.chars().count());
    row.description.chars().take(room).chain(link.chars()).collect()
}

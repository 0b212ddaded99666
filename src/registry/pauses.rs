//! Pauses of jobs: holding those that wait, and waking them again.

use actix::prelude::*;

use super::Error;
use super::actor::Spec;
use super::person::is_fresh;
use crate::model::CustomerId;
use crate::mq::Nudge;
use crate::store::provisioning::accept::{self, Answer, Entered, Entry};
use crate::store::provisioning::pause::{self, MOST, PauseRow};
use crate::store::provisioning::transition::{self, Wake};
use crate::store::{self, Store};

/// Begin no more jobs of a kind, an account, or both.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<PauseRow, Error>")]
pub struct Pause {
    /// Who asks, and what makes the request unique.
    pub entry: Entry,
    /// What is held; its time is set when it is stored.
    pub row: PauseRow,
}

/// End a pause.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Resume {
    /// Who asks, and what makes the request unique.
    pub entry: Entry,
    /// Number of the pause.
    pub id: i64,
}

const fn answer(id: i64, status: i32) -> Answer {
    Answer { job: None, status, created: Some(id) }
}

pub(super) async fn pause(spec: Spec, ask: Pause) -> Result<PauseRow, Error> {
    let customer = ask.entry.customer;
    let item = move |c: &mut store::AnyConnection| {
        let same = |row: &&PauseRow| row.kind == ask.row.kind && row.account == ask.row.account;
        let there = pause::list(c, customer)?;
        let found = there.iter().find(same);
        let known = match &ask.entry.idem {
            Some(key) => accept::earlier(c, &ask.entry, key)?.is_some(),
            None => false,
        };
        if found.is_none() && !known && i64::try_from(there.len()).unwrap_or(MOST) >= MOST {
            return Ok((Entered::Fresh, None));
        }
        let id = found.map_or(ask.row.id, |row| row.id);
        let entered = accept::enter(c, &ask.entry, &answer(id, 201))?;
        if entered != Entered::Fresh || found.is_some() {
            return Ok((entered, found.cloned()));
        }
        let row = PauseRow { made_at: c.now()?.0, ..ask.row.clone() };
        pause::insert(c, &row)?;
        transition::hold_queued(c, &row)?;
        Ok((entered, Some(row)))
    };
    match spec.store.write(item).await? {
        (Entered::Fresh, Some(row)) => Ok(row),
        (Entered::Fresh, None) => Err(Error::TooManyPauses(MOST)),
        (Entered::Same(first), _) => {
            let id = first.created.unwrap_or_default();
            let row = spec.store.read(move |c| pause::by_id(c, customer, id)).await?;
            row.ok_or(Error::NoSuchPause(id))
        }
        (other, _) => is_fresh(&other).and(Err(Error::Conflict)),
    }
}

pub(super) async fn resume(spec: Spec, ask: Resume) -> Result<(), Error> {
    let (id, CustomerId(customer)) = (ask.id, ask.entry.customer);
    let item = move |c: &mut store::AnyConnection| {
        let ended = pause::by_id(c, ask.entry.customer, id)?;
        let known = match &ask.entry.idem {
            Some(key) => accept::earlier(c, &ask.entry, key)?.is_some(),
            None => false,
        };
        if ended.is_none() && !known {
            return Ok(None);
        }
        let entered = accept::enter(c, &ask.entry, &answer(id, 204))?;
        if entered != Entered::Fresh || !pause::remove(c, ask.entry.customer, id)? {
            return Ok(Some((entered, Vec::new())));
        }
        let others = pause::list(c, ask.entry.customer)?;
        for (ended, other) in ended.iter().flat_map(|ended| others.iter().map(move |other| (ended, other))) {
            transition::restate(c, ended, other)?;
        }
        Ok(Some((entered, transition::wake(c, Wake::Of(customer))?)))
    };
    let done = spec.store.write(item).await?;
    let (entered, woken) = done.ok_or(Error::NoSuchPause(id))?;
    is_fresh(&entered)?;
    tell(&spec, &woken);
    Ok(())
}

fn tell(spec: &Spec, woken: &[String]) {
    for job in woken.iter().filter_map(|uid| uid.parse().ok()) {
        spec.changes.tell(job);
        spec.queue.publish(Nudge::Job(job));
    }
}

/// Wakes jobs that nothing holds any more and that nobody woke.
pub(super) async fn sweep(store: &Store) -> Result<(), store::Error> {
    if store.read(transition::released).await? {
        store.write(|c| transition::wake(c, Wake::Any)).await?;
    }
    Ok(())
}

//! The job core's rows and clock as they are in production.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use tokio::sync::broadcast;

use super::ports::{Applied, Change, Clock, JobStore, Place};
use super::reading::Reading;
use crate::model::{AccountId, Boot, CloudId, CustomerId, JobUid, Micros, RegionId, ServerId};
use crate::mq::{Announce, Nudge, Queue};
use crate::store::provisioning::agent;
use crate::store::provisioning::job::History;
use crate::store::provisioning::schema::{account, region};
use crate::store::provisioning::sequence::{Sequence, Sequencer};
use crate::store::provisioning::server::{self, ServerRow};
use crate::store::provisioning::transition::{self, Called, Close, Opened, Then};
use crate::store::{AnyConnection, Error, Store};
use crate::wire::CommandId;

/// The system's clock.
pub struct SystemClock;

#[async_trait(?Send)]
impl Clock for SystemClock {
    fn now(&self) -> Micros {
        Micros::wall()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// News of jobs whose rows changed: a hint to read again, never a fact. A slow reader loses the oldest.
#[derive(Clone)]
pub struct Changes(broadcast::Sender<JobUid>);

impl Changes {
    /// Changes a reader may lag behind before it loses some.
    const LAG: usize = 4096;

    /// A channel without readers.
    #[must_use]
    pub fn new() -> Self {
        Self(broadcast::Sender::new(Self::LAG))
    }

    /// Tells every reader.
    pub fn tell(&self, job: JobUid) {
        // No reader is as good as any.
        drop(self.0.send(job));
    }

    /// A new reader.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<JobUid> {
        self.0.subscribe()
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

/// Rows in the provisioning database.
pub struct SqlStore {
    store: Store,
    reading: Reading,
    sequencer: Sequencer,
    boot: Boot,
    changes: Changes,
    announce: Announce,
    queue: Option<Arc<dyn Queue>>,
}

impl SqlStore {
    /// Rows written in the name of this life, announced as the queue wants it.
    #[must_use]
    pub fn new(store: Store, sequencer: Sequencer, boot: Boot, changes: Changes, announce: Announce) -> Self {
        let reading = Reading::new(store.clone());
        Self { store, reading, sequencer, boot, changes, announce, queue: None }
    }

    /// The same, which nudges at once the jobs that a move lets begin or end; without a queue the sweep finds them.
    #[must_use]
    pub fn nudging(self, queue: Arc<dyn Queue>) -> Self {
        Self { queue: Some(queue), ..self }
    }
}

/// The job a change is about.
fn job_of(change: &Change) -> JobUid {
    match change {
        Change::Claim { claim, .. } => claim.seen.job,
        Change::Open { attempt, .. } | Change::Command { attempt, .. } => attempt.job,
        Change::Park { fence, .. }
        | Change::Wait { fence, .. }
        | Change::Quarantine { fence, .. }
        | Change::CallOff { fence, .. }
        | Change::NextTry { fence, .. }
        | Change::BeginUndo { fence, .. } => fence.job,
        Change::Close(close) => close.fence.job,
        Change::End(end) => end.fence.job,
        Change::Withdraw { unsent, .. } => unsent.fence.job,
    }
}

/// Whom a change concerns besides its job's owner: published after it, and announced with it.
fn news_of(change: &Change) -> [Option<Nudge>; 2] {
    match change {
        Change::Command { command, watch, .. } => {
            [Some(Nudge::Guest(command.server)), Some(Nudge::Watch(watch.kind, watch.uid))]
        }
        Change::Close(close) => match &**close {
            Close { then: Then::Await(watch), .. } => [Some(Nudge::Watch(watch.kind, watch.uid)), None],
            Close { then: Then::Go, .. } => [None, None],
        },
        // Whoever holds the session with the guest reads the row.
        Change::Withdraw { command, .. } => {
            let command: Option<CommandId> = command.parse().ok();
            [command.map(|command| Nudge::Guest(command.server())), None]
        }
        _ => [None, None],
    }
}

#[async_trait(?Send)]
impl JobStore for SqlStore {
    async fn history(&self, uid: JobUid) -> Result<Option<History>, Error> {
        self.reading.history(uid).await
    }

    async fn apply(&self, change: Change) -> Result<Applied, Error> {
        let boot = self.boot;
        let (job, claims) = (job_of(&change), matches!(change, Change::Claim { .. }));
        let announce = self.announce.clone();
        let item = move |c: &mut AnyConnection| {
            let mut called = Called::new();
            let applied = apply(c, boot, &change, &mut called)?;
            let called: Vec<JobUid> = called.iter().filter_map(|uid| uid.parse().ok()).collect();
            for uid in &called {
                announce.note(c, Nudge::Job(*uid))?;
            }
            if applied == Applied::Done {
                for nudge in news_of(&change).into_iter().flatten() {
                    announce.note(c, nudge)?;
                }
            }
            Ok((applied, called))
        };
        let (applied, called) = self.store.write(item).await?;
        // A claim that was refused may have put the job by, with its reason.
        if applied == Applied::Done || claims {
            self.changes.tell(job);
        }
        for uid in called {
            self.changes.tell(uid);
            if let Some(queue) = &self.queue {
                queue.publish(Nudge::Job(uid));
            }
        }
        Ok(applied)
    }

    async fn place(&self, id: AccountId, within: Option<RegionId>) -> Result<Option<Place>, Error> {
        self.store.read(move |c| place(c, id, within)).await
    }

    async fn server(&self, customer: CustomerId, id: ServerId) -> Result<Option<ServerRow>, Error> {
        self.store.read(move |c| server::by_id(c, customer, id)).await
    }

    async fn new_number(&self) -> Result<i64, Error> {
        self.sequencer.next(Sequence::Resource).await
    }
}

fn place(c: &mut AnyConnection, id: AccountId, within: Option<RegionId>) -> QueryResult<Option<Place>> {
    let found: Option<(String, String, i64)> = account::table
        .find(id.0)
        .select((account::account_number, account::credential, account::cloud))
        .first(c)
        .optional()?;
    let Some((account_number, credential, cloud)) = found else { return Ok(None) };
    let name: Option<String> = match within {
        Some(id) => region::table.find(id.0).select(region::provider_id).first(c).optional()?,
        None => Some(String::new()),
    };
    Ok(name.map(|region| Place { account_number, credential, cloud: CloudId(cloud), region }))
}

pub(crate) fn apply(
    c: &mut AnyConnection,
    boot: Boot,
    change: &Change,
    called: &mut Called,
) -> QueryResult<Applied> {
    let done = |stored: bool| if stored { Applied::Done } else { Applied::Fenced };
    match change {
        Change::Claim { claim, open } => {
            let Some(attempt) = open else { return transition::claim_calling(c, claim, called).map(done) };
            Ok(match transition::claim_and_open(c, claim, attempt, called)? {
                Some(true) => Applied::Done,
                // Claimed all the same when a cancel came in between: the driver must plan anew, not leave.
                Some(false) => Applied::Busy,
                None => Applied::Fenced,
            })
        }
        Change::Open { attempt, state, server, agent } => {
            let outcome = transition::open_attempt(c, boot, *state, attempt, *server)?;
            if let (Opened::Yes, Some(new)) = (outcome, agent) {
                agent::insert(c, new)?;
            }
            Ok(opened(outcome))
        }
        Change::Command { attempt, command, watch } => {
            transition::hand_over(c, boot, attempt, command, watch).map(done)
        }
        Change::Close(close) => transition::close_attempt(c, close).map(done),
        Change::Wait { fence, waiting } => transition::wait(c, *fence, waiting).map(done),
        Change::Quarantine { fence, waiting, quiet } => {
            let stored = transition::quarantine(c, *fence, waiting, *quiet)?;
            if stored {
                called.extend(transition::follow_aside(c, fence.job)?);
            }
            Ok(done(stored))
        }
        Change::CallOff { fence, who, code, why } => {
            let found = transition::call_off(c, (*fence, boot), who, (code, why))?;
            let stored = found.is_some();
            called.extend(found.into_iter().flatten());
            Ok(done(stored))
        }
        Change::Park { fence, waiting } => transition::park(c, *fence, boot, waiting).map(done),
        Change::Withdraw { command, unsent, sent } => {
            let stored = transition::withdraw(c, boot, command, (unsent, sent))?;
            // It may be parked instead: then nothing follows.
            if stored {
                called.extend(transition::follow(c, unsent)?);
            }
            Ok(done(stored))
        }
        Change::NextTry { fence, from, why } => transition::next_try(c, *fence, *from, why).map(done),
        Change::BeginUndo { fence, why } => transition::begin_undo(c, *fence, boot, why).map(done),
        Change::End(end) => {
            let stored = transition::end(c, end)?;
            if stored {
                called.extend(transition::follow(c, end)?);
            }
            Ok(done(stored))
        }
    }
}

const fn opened(outcome: Opened) -> Applied {
    match outcome {
        Opened::Yes => Applied::Done,
        Opened::Fenced => Applied::Fenced,
        Opened::Busy => Applied::Busy,
    }
}

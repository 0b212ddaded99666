//! The directory and the router: between the HTTP front end, the job actors, the guests' sessions and the databases.
//!
//! The registry actor forwards and never does work: one handler takes microseconds, what waits runs beside it. It is
//! also where recovery lives: a plan over rows, carried out at boot, every few seconds and on every nudge, the same
//! after a crash, a give-up or a takeover. No state of it is the truth; it can be rebuilt from the rows at any time.

mod actor;
mod cron;
pub(crate) mod directory;
mod error;
mod groups;
#[cfg(test)]
mod limit_tests;
mod limits;
mod node;
mod pauses;
pub(crate) mod peers;
mod person;
#[cfg(test)]
mod schedule_tests;
mod schedules;
#[cfg(test)]
mod tests;

pub use actor::{RegistryActor, Running, Spec};
pub use cron::Cron;
pub use error::Error;
pub use groups::SubmitGroup;
pub use limits::{ClearLimit, SetLimit};
pub use node::{Beat, NodeActor, NodeSpec};
pub use pauses::{Pause, Resume};
pub use person::Resolve;
pub use schedules::described;

use std::time::Duration;

use tokio::sync::broadcast;

use crate::jobs::Changes;
use crate::model::{CustomerId, JobId, JobUid};
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::job::JobRow;
use crate::store::provisioning::limit::LimitRow;
use crate::store::provisioning::pause::PauseRow;
use crate::supervision::{Mailbox, Unreachable};

/// Handle to the registry actor. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Registry {
    mailbox: Mailbox<RegistryActor>,
    changes: Changes,
    limit: Duration,
}

/// A job that was accepted: durable when this is returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its row; for a repeat, that of the first submit.
    pub row: Box<JobRow>,
    /// False when an earlier submit with the same idempotency key made it.
    pub fresh: bool,
}

impl Registry {
    /// A handle over a running actor; `limit` bounds every request.
    #[must_use]
    pub const fn new(mailbox: Mailbox<RegistryActor>, changes: Changes, limit: Duration) -> Self {
        Self { mailbox, changes, limit }
    }

    /// Stores a job and has it run. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::Conflict`] (same key, other request), [`Error::Replayed`], [`Error::Busy`] and
    /// [`Error::Unavailable`] (nothing stored), [`Error::Unknown`] (read again by the key).
    pub async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        self.mailbox.ask(actor::SubmitJob(Box::new(submit)), self.limit).await.map_err(unreachable)?
    }

    /// Asks for the cancel of a tenant's job; who asked is kept with it. The job ends when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`], [`Error::Ended`], and those of the database.
    pub async fn cancel(&self, customer: CustomerId, id: JobId, who: String) -> Result<(), Error> {
        let ask = person::CancelJob { customer, id, who, entry: None };
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// The same for a signed request, which is recorded with it: a replay is refused, a repeat under its idempotency
    /// key is done already.
    ///
    /// # Errors
    /// Those of [`Registry::cancel`], [`Error::Conflict`] and [`Error::Replayed`].
    pub async fn cancel_once(&self, entry: Entry, id: JobId, who: String) -> Result<(), Error> {
        let ask = person::CancelJob { customer: entry.customer, id, who, entry: Some(entry) };
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Ends a job that was set aside, by a person's word; a job that had ended keeps its end, and the word as
    /// evidence. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`], [`Error::NotSetAside`], [`Error::NotComplete`], and those of a submit.
    pub async fn resolve(&self, ask: Resolve) -> Result<(), Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Begins no more jobs of a kind or an account; what is at work goes on. One that is there already is answered
    /// as it is. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::TooManyPauses`], and those of a submit.
    pub async fn pause(&self, ask: Pause) -> Result<PauseRow, Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Ends a pause: what it alone held begins, the most urgent first.
    ///
    /// # Errors
    /// [`Error::NoSuchPause`], and those of a submit.
    pub async fn resume(&self, ask: Resume) -> Result<(), Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Sets the limit of an account, or of a kind within it. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::TooManyLimits`], and those of a submit.
    pub async fn set_limit(&self, ask: SetLimit) -> Result<LimitRow, Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Takes a limit away: what it alone held begins, the most urgent first.
    ///
    /// # Errors
    /// [`Error::NoSuchLimit`], and those of a submit.
    pub async fn clear_limit(&self, ask: ClearLimit) -> Result<(), Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// Stores a group with all its children, as a whole or not at all. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// Those of a submit.
    pub async fn submit_group(&self, ask: SubmitGroup) -> Result<Submitted, Error> {
        self.mailbox.ask(ask, self.limit).await.map_err(unreachable)?
    }

    /// News of jobs whose rows changed: a hint to read again, never a fact. A slow reader loses the oldest.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<JobUid> {
        self.changes.subscribe()
    }

    /// Takes no new jobs into work and waits for those at work to reach a place where they may stop, at most so
    /// long. What is left is taken over by the next life. The number of jobs still at work.
    pub async fn drain(&self, limit: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match self.mailbox.ask(actor::Drain, self.limit).await {
                Ok(0) | Err(_) => return 0,
                Ok(left) if tokio::time::Instant::now() >= deadline => return left,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

fn unreachable(error: Unreachable) -> Error {
    match error {
        Unreachable::Full => Error::Busy,
        Unreachable::Closed | Unreachable::TimedOut => Error::Unknown,
    }
}

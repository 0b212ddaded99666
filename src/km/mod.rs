//! Credentials on loan: the key manager, its sealed wire format, and the client that jobs ask.
//!
//! Provisioning rows hold opaque references. Only the process of [`server`] reads the credentials database; everybody
//! else asks it through [`Km`] for one lease: one job, one attempt, one account, one purpose, a few minutes. Request
//! and answer travel inside mutual TLS 1.3 and are sealed once more (`wire`). This room never keeps a secret longer
//! than the answer it came in, never logs one, and never guesses: what is not answered is not leased.

mod actor;
mod breaker;
mod error;
mod frame;
pub mod keyfile;
mod link;
pub mod server;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use error::{Cause, Error};
pub use link::Target;
pub use wire::Channel;

use crate::crypto::Secret;
use crate::model::{AccountId, AttemptUid, Boot, CustomerId, JobUid, Micros, Uid};
use crate::ops::{Health, Metrics};
use crate::supervision::{Arbiter, Limits, Mailbox, Options, Supervisor, Unreachable};
use actor::{Client, FetchLease, Wiring};

/// Asks for one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The job that needs it.
    pub job: JobUid,
    /// The job's attempt.
    pub attempt: AttemptUid,
    /// The tenant of the job.
    pub customer: CustomerId,
    /// The account at the cloud.
    pub account: AccountId,
    /// The opaque reference that the account's row holds.
    pub credential: String,
    /// What it is needed for, such as `launch-server`.
    pub purpose: String,
}

/// A credential on loan. Drop it when the call is made; it wipes itself.
pub struct Lease {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret: Secret,
    /// The cloud endpoint it was entered for: it must be shown to no other.
    pub endpoint: String,
    /// When it must be gone, by the key manager's clock.
    pub expires_at: Micros,
    /// How it came, for the job's timeline.
    pub sealed: SealInfo,
}

/// How a lease travelled. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SealInfo {
    /// Such as `XChaCha20-Poly1305`.
    pub algorithm: &'static str,
    /// Name of the key of the answer.
    pub key_id: String,
    /// The request, as the key manager's audit log lists it.
    pub request_id: Uid,
}

/// How the client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Longest wait for one lease, connecting included.
    pub answer: Duration,
    /// Pause between two looks whether the key manager is there.
    pub look: Duration,
    /// Failures in a row after which it is left alone for a while.
    pub failures: u32,
    /// First such while; doubles up to `rest_max`.
    pub rest_first: Duration,
    /// Longest such while. A key manager that is back is noticed within this and one `look`.
    pub rest_max: Duration,
    /// Leases asked for at once; one more is answered [`Error::Busy`].
    pub waiting: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            look: Duration::from_secs(1),
            failures: 3,
            rest_first: Duration::from_secs(1),
            // Everything that waits for a key manager must go on within 5 s of its return.
            rest_max: Duration::from_secs(4),
            waiting: 1024,
        }
    }
}

/// Where the client reports, and as whom it asks.
pub struct Links {
    /// This process; part of every request.
    pub node: Boot,
    /// Gets the part `key manager`: degraded while there is none.
    pub health: Health,
    /// Counts leases by outcome.
    pub metrics: Metrics,
}

/// Handle to the key manager's client. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Km {
    mailbox: Mailbox<Client>,
    limit: Duration,
}

/// Starts the client; it connects by itself and goes on trying. Never fails: without a key manager every lease is
/// answered [`Error::Unavailable`].
#[must_use]
pub fn start(supervisor: &Supervisor, on: &Arbiter, target: Target, settings: Settings, links: Links) -> Km {
    let Links { node, health, metrics } = links;
    let wiring = Arc::new(Wiring { target, settings, node, health, metrics });
    let mut options = Options::permanent();
    options.limits = Limits { mailbox: settings.waiting, ..Limits::default() };
    // The actor's own limit answers first; this one is for an actor that is being restarted.
    let limit = settings.answer + Duration::from_secs(1);
    Km { mailbox: supervisor.spawn(on, wiring, options), limit }
}

impl Km {
    /// Leases a credential. Asking twice is harmless: nothing is used up. Dropping the future drops the lease.
    ///
    /// # Errors
    /// [`Error::Denied`] and [`Error::Invalid`] are definite; with any other the job waits and asks again.
    pub async fn lease(&self, ask: Ask) -> Result<Lease, Error> {
        // Checked here, so that one bad reference never looks like a fault of the connection.
        wire::check_names(&ask.credential, &ask.purpose).map_err(|e| Error::Invalid(e.to_string()))?;
        match self.mailbox.ask(FetchLease(ask), self.limit).await {
            Ok(leased) => leased,
            Err(Unreachable::Full) => Err(Error::Busy),
            Err(Unreachable::TimedOut) => Err(Error::TimedOut),
            Err(Unreachable::Closed) => Err(Error::Unavailable(Cause::Interrupted)),
        }
    }
}

#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

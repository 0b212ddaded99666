//! What the job core needs from the world, as traits: a clock, rows, nudges, credentials, clouds, a sign of life.
//!
//! The core is generic over these, so that a simulation can run it with virtual time and faults at every call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::machine::Limits;
use crate::cloud::Clouds;
use crate::crypto::{Key, KeyRing, Secret};
use crate::model::{
    AccountId, AttemptUid, Boot, CloudId, CustomerId, Generation, JobState, JobUid, Micros, RegionId,
    ServerId,
};
use crate::mq::Queue;
use crate::ops::Metrics;
use crate::store;
use crate::store::provisioning::agent::{NewAgent, NewCommand};
use crate::store::provisioning::job::{Attempt, History};
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::transition::{Claim, Close, End, Fence, Quiet, Sent, Waiting};
use crate::store::provisioning::watch::Watch;
use crate::supervision::OutOfTime;

/// Time.
#[async_trait(?Send)]
pub trait Clock: Send + Sync {
    /// Now, in the clock rows are written in.
    fn now(&self) -> Micros;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// Waits out the limit of a call, by this machine's own clock, whatever clock rows are written in.
    async fn over(&self, limit: Duration) {
        tokio::time::sleep(limit).await;
    }
}

/// Waits for `work`, but no longer than `limit`; then `work` is dropped, and its effect is unknown.
///
/// # Errors
/// [`OutOfTime`] at the limit.
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, OutOfTime> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = clock.over(limit) => Err(OutOfTime(limit)),
    }
}

/// One move of a job, applied in one item.
#[derive(Clone, Debug)]
pub enum Change {
    /// Becomes the owner; may write the first attempt in the same commit.
    Claim {
        /// The claim.
        claim: Claim,
        /// The attempt that needs no lease first.
        open: Option<Box<Attempt>>,
    },
    /// Writes an attempt before its call.
    Open {
        /// The attempt.
        attempt: Box<Attempt>,
        /// State the job must be in.
        state: JobState,
        /// The server no other job may work on meanwhile.
        server: Option<ServerId>,
        /// The agent that may enrol with the token in the request.
        agent: Option<Box<NewAgent>>,
    },
    /// Hands a command to the guest's queue and waits for its verdict.
    Command {
        /// The attempt, closed at once: the row is the call.
        attempt: Box<Attempt>,
        /// The row of the guest's queue.
        command: Box<NewCommand>,
        /// The watch.
        watch: Box<Watch>,
    },
    /// Writes an outcome and what follows.
    Close(Box<Close>),
    /// Says what it waits for.
    Wait {
        /// Job and epoch.
        fence: Fence,
        /// Until when and why.
        waiting: Waiting,
    },
    /// Sets it aside.
    Quarantine {
        /// Job and epoch.
        fence: Fence,
        /// Until when and why.
        waiting: Waiting,
        /// The open attempt that waits out its time.
        quiet: Option<Quiet>,
    },
    /// Gives it up again: it was claimed while it waited for a verdict and has to go on waiting.
    Park {
        /// Job and epoch.
        fence: Fence,
        /// Until when and why.
        waiting: Waiting,
    },
    /// Takes its command back where the guest cannot have got it.
    Withdraw {
        /// The command.
        command: String,
        /// How it ends when the command was never sent.
        unsent: Box<End>,
        /// What becomes of it otherwise.
        sent: Box<Sent>,
    },
    /// Asks a group's open children to end; the group waits for them without an owner.
    CallOff {
        /// Job and epoch.
        fence: Fence,
        /// In whose name.
        who: String,
        /// Machine code.
        code: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Begins another round of its step, because what the last one did was seen not to last.
    NextTry {
        /// Job and epoch.
        fence: Fence,
        /// The round that is over.
        from: i32,
        /// Why.
        why: String,
    },
    /// Says that taking back begins.
    BeginUndo {
        /// Job and epoch.
        fence: Fence,
        /// Why.
        why: String,
    },
    /// Ends it.
    End(Box<End>),
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is stored.
    Done,
    /// Its condition did not hold: somebody else moved the job. Nothing was stored.
    Fenced,
    /// Another job works on the server. Nothing was stored.
    Busy,
}

/// For whom and where a cloud is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Account number at the provider.
    pub account_number: String,
    /// Opaque reference of the credential.
    pub credential: String,
    /// The cloud.
    pub cloud: CloudId,
    /// Region's name at the provider; empty where the job names none.
    pub region: String,
}

/// Rows of jobs.
#[async_trait(?Send)]
pub trait JobStore: Send + Sync {
    /// All about one job.
    async fn history(&self, job: JobUid) -> Result<Option<History>, store::Error>;

    /// Applies a move.
    async fn apply(&self, change: Change) -> Result<Applied, store::Error>;

    /// Account and region.
    async fn place(
        &self,
        account: AccountId,
        region: Option<RegionId>,
    ) -> Result<Option<Place>, store::Error>;

    /// A tenant's server.
    async fn server(&self, customer: CustomerId, id: ServerId) -> Result<Option<ServerRow>, store::Error>;

    /// A number for a new resource.
    async fn new_number(&self) -> Result<i64, store::Error>;
}

/// What a credential is wanted for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The job.
    pub job: JobUid,
    /// The call.
    pub attempt: AttemptUid,
    /// The tenant.
    pub customer: CustomerId,
    /// The account.
    pub account: AccountId,
    /// The credential's reference.
    pub credential: String,
    /// What for, such as `create`.
    pub purpose: String,
}

/// A credential lent for one call.
pub struct Leased {
    /// Public half.
    pub access_key: String,
    /// Secret half.
    pub secret: Secret,
    /// How it was sealed on its way, as JSON; no secret in it.
    pub shown: String,
}

/// Why there is no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLease {
    /// Not now: wait and ask again.
    Later(String),
    /// Never: the key manager said no.
    Denied(String),
}

/// The key manager.
#[async_trait(?Send)]
pub trait Keys: Send + Sync {
    /// Asks for a lease.
    async fn lease(&self, ask: Ask) -> Result<Leased, NoLease>;
}

/// The holder's own proof that it may still start effects.
pub trait Liveness: Send + Sync {
    /// False later than S after the last successful beat was sent.
    fn may_start(&self) -> bool;
}

/// What a new guest needs to find and trust this dispatcher.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// URLs of TLS listeners for handshakes; any of them will do.
    pub urls: Vec<String>,
    /// Root certificate the guest trusts, PEM.
    pub root: String,
    /// How long the one-time token lives.
    pub token_life: Duration,
}

/// Everything the core works with. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Rows.
    pub store: Arc<dyn JobStore>,
    /// Nudges.
    pub queue: Arc<dyn Queue>,
    /// Credentials.
    pub keys: Arc<dyn Keys>,
    /// Clouds.
    pub clouds: Clouds,
    /// Sign of life.
    pub liveness: Arc<dyn Liveness>,
    /// This life.
    pub boot: Boot,
    /// The generation of the rows, in which this life claims.
    pub generation: Generation,
    /// The install's secret, from which tokens are made.
    pub install: Arc<Key>,
    /// Seals stored requests.
    pub ring: Arc<KeyRing>,
    /// Figures.
    pub metrics: Metrics,
    /// Limits.
    pub limits: Limits,
    /// Longest wait for one cloud call.
    pub call_limit: Duration,
    /// How long a command may wait for its guest.
    pub command_wait: Duration,
    /// For new guests; none where servers run without agents.
    pub enrolment: Option<Arc<Enrolment>>,
}

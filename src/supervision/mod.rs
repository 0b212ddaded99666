//! Starts actors, restarts them when they fail, and says how they are.
//!
//! Every actor of this program is started by [`Supervisor::spawn`] and by nothing else, because actix's own supervisor
//! does not restart after a panic (`facts` and `facts_more` hold what actix does, as tests). What holds here:
//!
//! - An actor is made by [`Supervised::fresh`] from its spec, for the first start and for every restart. Each life has
//!   a new value and a new context: no half-changed state, no timer and no future of an earlier life.
//! - The [`Mailbox`] outlives restarts. Messages queued behind one that panicked are served by the next life. The
//!   message that panicked is gone and its effect is unknown: its asker gets [`Unreachable::Closed`].
//! - A life ends by a said exit ([`Life::done`], [`Life::fail`]), by a panic, by a message that took longer than
//!   [`Limits::frozen`], or by a bare `ctx.stop()`, which counts as a failure. [`Exit::Done`] ends the actor; all else
//!   restarts it after a pause, within a budget of its own.
//! - Hooks (`stopping`, `stopped`) are never called on a broken value and should stay empty: cleaning up is the
//!   parent's, on [`Exited`].
//! - `ctx.address()` and `ctx.notify…` belong to one life. What must outlive a restart, such as a recipient given to
//!   others, is taken from [`Life::mailbox`].

mod arbiter;
mod backoff;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod facts_more;
mod guard;
mod heart;
mod kinds;
mod life;
mod limited;
mod mailbox;
#[cfg(test)]
mod place_tests;
mod probe;
mod supervisor;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trip;

use std::time::Duration;

use actix::prelude::*;

pub use arbiter::{Arbiter, ArbiterSnapshot};
pub use heart::{Heart, Need, Working};
pub use kinds::KindSnapshot;
pub use life::{Busy, Life, Snapshot};
pub use limited::{OutOfTime, limited};
pub use mailbox::{Mailbox, Unreachable};
pub use supervisor::Supervisor;
#[cfg(test)]
pub(crate) use trip::TRIPS;

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing more to do; the actor ends.
    Done,
    /// It could not go on, and said why.
    Failed(String),
    /// It panicked; the text of the panic.
    Panicked(String),
    /// One message took longer than [`Limits::frozen`]; what it did is unknown.
    Frozen,
}

/// What giving up on an actor means for the process. [`Exit::Done`] ends both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The process cannot do without it: giving up turns health red and resolves [`Supervisor::fatal`].
    Permanent,
    /// Giving up is told to the parent and nobody else.
    Transient,
}

/// Limits of one actor. The budget is never shared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pause before the first restart; doubles with every further one inside the window.
    pub backoff_first: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Restarts allowed inside the window; one more failure and the actor is given up.
    pub budget: u32,
    /// The window that restarts are counted in.
    pub window: Duration,
    /// Messages that may wait or be answered at the same time, for each of the ways in.
    pub mailbox: usize,
    /// Longest time for what is marked by [`Life::enter`], after which the life ends as [`Exit::Frozen`]; none means
    /// no limit. It cannot end a thread that is blocked; the lag probe sees that.
    pub frozen: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            budget: 5,
            window: Duration::from_secs(60),
            mailbox: 1024,
            frozen: None,
        }
    }
}

/// News for the parent: an actor ended for good.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Exited {
    /// [`Supervised::KIND`] of the actor.
    pub kind: &'static str,
    /// [`Supervised::key`] of the actor.
    pub key: String,
    /// How its last life ended.
    pub exit: Exit,
    /// Whether it ended because its budget was spent.
    pub gave_up: bool,
}

/// An actor that can be made anew from a spec.
pub trait Supervised: Actor<Context = Context<Self>> + Sized {
    /// Identity and links, all that an actor knows before it loads anything.
    type Spec: Clone + 'static;
    /// Kind of the actor, as shown to operators.
    const KIND: &'static str;

    /// Which one of its kind.
    fn key(spec: &Self::Spec) -> String;

    /// Makes the value for the first start and for each restart. Runs on the actor's arbiter; a panic counts as the
    /// life's. Loading belongs into `started`, under `ctx.wait`.
    fn fresh(spec: Self::Spec, life: Life) -> Self;
}

/// How one actor is to be treated.
#[derive(Clone)]
pub struct Options {
    /// What giving up means.
    pub policy: Policy,
    /// Backoff, budget and mailbox.
    pub limits: Limits,
    /// Who is told when the actor ends for good.
    pub on_exit: Option<Recipient<Exited>>,
}

impl Options {
    /// For an actor the process cannot do without.
    #[must_use]
    pub fn permanent() -> Self {
        Self { policy: Policy::Permanent, limits: Limits::default(), on_exit: None }
    }

    /// For one of many, whose end is the parent's business.
    #[must_use]
    pub fn transient(on_exit: Option<Recipient<Exited>>) -> Self {
        Self { policy: Policy::Transient, limits: Limits::default(), on_exit }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("is done"),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Frozen => f.write_str("took too long over one message"),
        }
    }
}

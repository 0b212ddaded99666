//! Nudges: hints that a row waits for somebody. The rows are the truth; a lost, repeated or late nudge costs time only,
//! because every reader also sweeps the rows by state.
//!
//! This room never decides whether something happened, and no nudge carries more than the name of a row. In one
//! process the rows themselves are the queue ([`Embedded`]); with RabbitMQ (`amqp`) messages are rows of the outbox
//! first, written in the commit of the change they announce ([`Announce`]). The one thing that comes in from outside is
//! a verdict, which becomes a row before its message is acknowledged.

#[cfg(feature = "amqp")]
pub mod amqp;
mod announce;
#[cfg(test)]
mod conformance;
mod embedded;
mod envelope;
mod open;
mod topology;

pub use announce::Announce;
pub use embedded::Embedded;
pub use envelope::{
    Content, Envelope, Head, LARGEST, Refused, SCHEMA, Said, WatchBody, decode, decode_dated,
};
pub use open::{Error, Parts, Told, forget, open};
pub use topology::{Line, Names};

use tokio::sync::mpsc;

use crate::model::{Epoch, JobUid, ServerId, WatchKind, WatchUid};

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Dispatchers: a job is due or has a verdict.
    Jobs,
    /// Monitors: a watch on a cloud is open.
    Watches,
    /// Workers: a watch that is decided without a cloud is open.
    Work,
    /// Holders of agent sessions: a command waits for a guest.
    Guests,
}

impl Topic {
    /// The word metrics show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Watches => "watches",
            Self::Work => "work",
            Self::Guests => "guests",
        }
    }
}

/// A hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nudge {
    /// This job is due, or has a verdict.
    Job(JobUid),
    /// A cancel of this job was asked: its owner is meant, whoever that is.
    Cancel(JobUid),
    /// This watch is open.
    Watch(WatchKind, WatchUid),
    /// A command waits for this guest.
    Guest(ServerId),
    /// A guest answered a command of this job.
    Reported(JobUid),
}

impl Nudge {
    /// Who is meant.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::Job(_) | Self::Cancel(_) => Topic::Jobs,
            Self::Watch(WatchKind::Cloud, _) => Topic::Watches,
            Self::Watch(WatchKind::Guest | WatchKind::Noop | WatchKind::Children, _) | Self::Reported(_) => {
                Topic::Work
            }
            Self::Guest(_) => Topic::Guests,
        }
    }
}

/// Carries nudges. Nothing here blocks, and nothing fails in a way that matters.
///
/// A change is announced in two halves: [`Announce::note`] inside its commit, [`Queue::publish`] after it.
pub trait Queue: Send + Sync {
    /// What the commit of a change has to write for its message. Nothing where rows are the queue.
    fn announce(&self) -> Announce {
        Announce::nothing()
    }

    /// Says that the change behind this hint is committed; the hint may be lost.
    fn publish(&self, nudge: Nudge);

    /// Reminds this process's own reader of something no change announces.
    fn remind(&self, nudge: Nudge) {
        self.publish(nudge);
    }

    /// Becomes a reader of a topic. In one process there is one reader a topic: a newer one replaces it.
    fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge>;

    /// Says that what this hint asked for is committed, or needs nothing: a broker may forget it. A hint whose reader
    /// ends before this is delivered again.
    fn settle(&self, _nudge: Nudge) {}

    /// Says that a claim of this job is committed which saw this epoch. Hints of that epoch and of earlier ones have done
    /// their work, those that are still on their way included.
    fn claimed(&self, job: JobUid, _epoch: Epoch) {
        self.settle(Nudge::Job(job));
    }
}

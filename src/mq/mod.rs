//! Nudges: hints that a row waits for somebody. The rows are the truth; a lost, repeated or late nudge costs time only,
//! because every reader also sweeps the rows by state.
//!
//! This room never decides whether something happened, and no nudge carries more than the name of a row.

mod embedded;

pub use embedded::Embedded;

use tokio::sync::mpsc;

use crate::model::{JobUid, ServerId, WatchKind, WatchUid};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// This job is due, or has a verdict.
    Job(JobUid),
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
            Self::Job(_) => Topic::Jobs,
            Self::Watch(WatchKind::Cloud, _) => Topic::Watches,
            Self::Watch(WatchKind::Guest | WatchKind::Noop, _) | Self::Reported(_) => Topic::Work,
            Self::Guest(_) => Topic::Guests,
        }
    }
}

/// Carries nudges. Publishing never blocks and never fails in a way that matters.
pub trait Queue: Send + Sync {
    /// Publishes a hint; may lose it.
    fn publish(&self, nudge: Nudge);

    /// Becomes a reader of a topic. In one process there is one reader a topic: a newer one replaces it.
    fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge>;
}

//! Words of states and outcomes, each with the one text that rows, APIs and pages show.

use std::fmt;
use std::str::FromStr;

/// Text that is none of the words of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is not a {of}; one of {allowed} is")]
pub struct InvalidWord {
    /// The text found.
    pub found: String,
    /// What was expected.
    pub of: &'static str,
    /// The words allowed, separated by commas.
    pub allowed: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $of:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word rows and APIs show.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidWord;

            fn from_str(text: &str) -> Result<Self, InvalidWord> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(InvalidWord {
                        found: text.chars().take(64).collect(),
                        of: $of,
                        allowed: [$($text),+].join(", "),
                    }),
                }
            }
        }
    };
}

words! {
    /// State of a job.
    JobState, "job state" {
        /// Accepted, nobody runs it yet.
        Queued = "queued",
        /// An owner carries out its steps.
        Running = "running",
        /// The effect is made; a verdict is awaited. No owner.
        Awaiting = "awaiting",
        /// What was made is being taken back.
        Undoing = "undoing",
        /// An open question must wait; bounded by deadline plus Q. No owner.
        Quarantined = "quarantined",
        /// Ended: the result was discovered.
        Complete = "complete",
        /// Ended: refused, or undone after a failure.
        Failed = "failed",
        /// Ended: cancelled by a person, nothing left behind.
        Cancelled = "cancelled",
        /// Ended: the outcome stayed unknown.
        Unresolved = "unresolved",
    }
}

impl JobState {
    /// Whether this is an end.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Cancelled | Self::Unresolved)
    }

    /// What clients of the dated API see.
    #[must_use]
    pub const fn public(self) -> PublicStatus {
        match self {
            Self::Complete => PublicStatus::Complete,
            Self::Failed | Self::Cancelled | Self::Unresolved => PublicStatus::Error,
            Self::Queued | Self::Running | Self::Awaiting | Self::Undoing | Self::Quarantined => {
                PublicStatus::Running
            }
        }
    }
}

words! {
    /// Status of a job as the dated API shows it.
    PublicStatus, "job status" {
        /// Every open state.
        Running = "RUNNING",
        /// Verified.
        Complete = "COMPLETE",
        /// Failed, cancelled or unresolved.
        Error = "ERROR",
    }
}

words! {
    /// Outcome of one call sent.
    AttemptOutcome, "attempt outcome" {
        /// Sent or about to be; not known.
        Open = "open",
        /// It took effect.
        Ok = "ok",
        /// The other side said no; nothing was done.
        Refused = "refused",
        /// Proved never to land.
        Void = "void",
    }
}

words! {
    /// Why a call did not succeed; decides whether it is worth another try.
    ErrorClass, "error class" {
        /// Too many calls; wait and send again.
        Throttled = "throttled",
        /// A quota or capacity is used up.
        Quota = "quota",
        /// The credential was refused.
        Auth = "auth",
        /// The thing named does not exist.
        NotFound = "not-found",
        /// The thing is in a state that forbids the call.
        Conflict = "conflict",
        /// The other side had trouble; nothing was done.
        Transient = "transient",
        /// Nobody knows what happened.
        Unknown = "unknown",
        /// Our fault.
        Bug = "bug",
    }
}

impl ErrorClass {
    /// Whether the same request may succeed later without a person's help.
    #[must_use]
    pub const fn worth_retry(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient)
    }
}

words! {
    /// What a look at the world found, compared with what a watch expects.
    Verdict, "verdict" {
        /// The expected state was seen.
        Reached = "reached",
        /// A state was seen from which the expected one cannot come.
        Lost = "lost",
        /// Seen, but not there yet; decides nothing.
        Pending = "pending",
        /// The command ran and reported failure.
        Failed = "failed",
        /// Nobody can know the result any more.
        Unknown = "unknown",
    }
}

words! {
    /// Who looks at a watch.
    WatchKind, "watch kind" {
        /// The monitor, by calling the cloud.
        Cloud = "cloud",
        /// A worker, by reading what the guest's agent answered.
        Guest = "guest",
        /// A worker; there is nothing outside to look at.
        Noop = "noop",
        /// The children of a group: the last one to end says it.
        Children = "children",
    }
}

words! {
    /// State of a server at its cloud.
    ServerStatus, "server status" {
        /// Being made or started.
        Pending = "PENDING",
        /// Up.
        Running = "RUNNING",
        /// Frozen in memory.
        Paused = "PAUSED",
        /// Restarting.
        Rebooting = "REBOOTING",
        /// Going down.
        Stopping = "STOPPING",
        /// Down, disk kept.
        Stopped = "STOPPED",
        /// Gone.
        Terminated = "TERMINATED",
        /// The cloud reports a fault.
        Error = "ERROR",
    }
}

words! {
    /// How far the look for what may turn up after a job's end is.
    ObligationState, "state of an obligation" {
        /// Looked for from time to time; nothing is there that nobody owns.
        Watched = "watched",
        /// Something is there, and a job takes it back.
        TakingBack = "taking-back",
        /// Something is there that is not taken back by itself, or it cannot be looked for.
        NeedsYou = "needs-you",
        /// Over: nothing is there.
        Closed = "closed",
    }
}

#[cfg(test)]
mod tests {
    use super::{JobState, PublicStatus};

    #[test]
    fn every_word_parses_back_and_ends_are_never_shown_as_running() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(state.is_end(), state.public() != PublicStatus::Running);
        }
        let error = "done".parse::<JobState>().expect_err("no such state");
        assert!(error.to_string().contains("queued, running"), "{error}");
    }
}

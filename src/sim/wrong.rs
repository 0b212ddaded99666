//! Deliberately wrong variants, put into the seams of the simulation: each must be found by the checks, or they are
//! blind. Nothing of this is in shipped code.

use super::rows::Flaws;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The token of a create names the epoch, so that each owner has its own.
    EpochInToken,
    /// Rows take writes of any epoch and owner.
    NoFence,
    /// At a cancel, a look that finds nothing closes the open create at once.
    LookBelievedAtCancel,
    /// A verdict counts only in the epoch its watch was made in.
    VerdictFencedByEpoch,
    /// A verdict about any try decides.
    VerdictOfAnyTry,
    /// The sweep looks only for watches that were never announced.
    SweepByConfirm,
    /// An unanswered create is sent anew without a look.
    RetryWithoutLook,
    /// Taking back begins before its state is committed.
    UndoBeforeCommit,
    /// A guest writes to its journal after the start.
    JournalAfterStart,
    /// A call is sent before its attempt is committed.
    CallBeforeIntent,
}

impl Wrong {
    pub(super) fn flaws(self) -> Flaws {
        Flaws { no_fence: self == Self::NoFence, fenced_verdict: self == Self::VerdictFencedByEpoch }
    }
}

//! Deliberate faults: rules of the protocol that a build with the feature `sabotage` can be told to break, one by one,
//! to prove that the tests notice.
//!
//! Each breaks the rule where it is kept. Without the feature [`sabotaged`](super::failpoint::sabotaged) is false at
//! compile time and nothing of them is left. What each makes visible, and what it takes to provoke it, stands in
//! `tests/README.md`.

use std::fmt;

/// What a run that is judged afterwards calls what a fault leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Accepted, and never ended or gone.
    Lost,
    /// More than one effect of one job, or more than one job of one request.
    Duplicated,
    /// An effect that nobody owns or nobody wrote down before.
    Unexpected,
    /// Not complete although the effect is there.
    FalseFailure,
    /// Rows that the protocol cannot have written; see `store::provisioning::invariants`.
    IllegalHistory,
    /// A life that beat was declared dead.
    FalseDeath,
}

impl Finding {
    /// Its name, as lists show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Unexpected => "unexpected",
            Self::FalseFailure => "false-failure",
            Self::IllegalHistory => "illegal-history",
            Self::FalseDeath => "false-death",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A fault of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliberate {
    /// Which.
    pub fault: Fault,
    /// Its name in an order.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub what: &'static str,
    /// What must be found.
    pub finding: Finding,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $what:literal, $finding:ident;)+) => {
        /// A rule that is broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault { $(#[doc = $what] $variant),+ }

        /// Every deliberate fault.
        pub const FAULTS: &[Deliberate] = &[
            $(Deliberate { fault: Fault::$variant, name: $name, what: $what, finding: Finding::$finding }),+
        ];
    };
}

faults! {
    EpochInToken = "epoch-in-token",
        "the token of a create holds the owner's epoch, so that whoever takes over asks for another server", Duplicated;
    LookAtCancel = "look-at-cancel",
        "a cancel believes a look that finds nothing, while the create may still land", Unexpected;
    ReadOnlyLook = "read-only-look",
        "a look at a guest's journal does not raise the job's floor there", IllegalHistory;
    SweepByConfirm = "sweep-by-confirm",
        "the sweep of watches takes only those whose announcement no broker has confirmed", Lost;
    VerdictByEpoch = "verdict-by-epoch",
        "a verdict counts only while the job still has the epoch of the attempt it is about", Lost;
    GuardSecond = "guard-second",
        "an attempt is written before the guard of its item is asked, and stays when the guard refuses", FalseFailure;
    NoUid = "no-uid",
        "a job's names are made inside the item that stores it, anew each time the item runs", Duplicated;
    CasZeroLost = "cas-zero-lost",
        "a claim that finds no row is believed to have lost, and nobody compares what is owned with what runs", Lost;
    AnswerBeforeCommit = "answer-before-commit",
        "a submit is answered before it is committed", Lost;
    NoFence = "no-fence",
        "writes to a job take whatever epoch its row has by now, and a call is opened beside one that is open", IllegalHistory;
    BeatByWallClock = "beat-by-wall-clock",
        "a beat is a time of the wall clock, and its age is measured with the reader's wall clock", FalseDeath;
    NoLook = "no-look",
        "an unanswered create is neither waited out nor looked for before a new call is made", Duplicated;
    AnyTry = "any-try",
        "the verdict of any round of a job decides, not only that of the current one", FalseFailure;
    UndoBeforeState = "undo-before-state",
        "what was made is taken back before the job's row says so, without an attempt", Unexpected;
}

impl Fault {
    /// The fault with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        FAULTS.iter().find(|known| known.name == name).map(|known| known.fault)
    }

    /// Its bit in a set of faults.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{FAULTS, Fault};
    use std::collections::BTreeSet;

    #[test]
    fn there_are_fourteen_each_with_a_name_of_its_own() {
        let names: BTreeSet<&str> = FAULTS.iter().map(|known| known.name).collect();
        assert_eq!((FAULTS.len(), names.len()), (14, 14));
        for known in FAULTS {
            assert_eq!(Fault::named(known.name), Some(known.fault), "{}", known.name);
        }
        assert_eq!(Fault::named("none"), None);
        let bits = FAULTS.iter().fold(0, |set, known| set | known.fault.bit());
        assert_eq!(bits.count_ones(), 14);
    }
}

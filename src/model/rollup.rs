//! What the ends of a group's children make of the group: never better than the worst of them.

use std::fmt;

use super::{JobState, Verdict};

/// How many children ended in which way. Those that are open are counted nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rollup {
    /// Children whose result was seen.
    pub complete: i64,
    /// Children that failed.
    pub failed: i64,
    /// Children that were cancelled.
    pub cancelled: i64,
    /// Children of which nobody knows what became of them.
    pub unresolved: i64,
}

impl Rollup {
    /// Counts children that ended in this state; open states count nothing.
    pub fn add(&mut self, state: JobState, many: i64) {
        match state {
            JobState::Complete => self.complete += many,
            JobState::Failed => self.failed += many,
            JobState::Cancelled => self.cancelled += many,
            JobState::Unresolved => self.unresolved += many,
            _ => {}
        }
    }

    /// All that ended.
    #[must_use]
    pub const fn ended(&self) -> i64 {
        self.complete + self.failed + self.cancelled + self.unresolved
    }

    /// The end of the worst child: unknown is worse than failed, failed worse than cancelled.
    #[must_use]
    pub const fn worst(&self) -> JobState {
        if self.unresolved > 0 {
            JobState::Unresolved
        } else if self.failed > 0 {
            JobState::Failed
        } else if self.cancelled > 0 {
            JobState::Cancelled
        } else {
            JobState::Complete
        }
    }

    /// The verdict that carries [`Rollup::worst`].
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self.worst() {
            JobState::Complete => Verdict::Reached,
            JobState::Failed => Verdict::Failed,
            JobState::Cancelled => Verdict::Lost,
            _ => Verdict::Unknown,
        }
    }

    /// The end that a verdict of [`Rollup::verdict`] stands for.
    #[must_use]
    pub const fn end_of(verdict: Verdict) -> JobState {
        match verdict {
            Verdict::Reached => JobState::Complete,
            Verdict::Failed => JobState::Failed,
            Verdict::Lost => JobState::Cancelled,
            Verdict::Unknown | Verdict::Pending => JobState::Unresolved,
        }
    }

    /// The worse of two ends.
    #[must_use]
    pub fn worse(one: JobState, other: JobState) -> JobState {
        let mut both = Self::default();
        both.add(one, 1);
        both.add(other, 1);
        both.worst()
    }
}

impl fmt::Display for Rollup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.complete, "complete"),
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.unresolved, "outcome unknown"),
        ];
        let mut apart = "";
        for (many, word) in parts.into_iter().filter(|(many, _)| *many > 0) {
            write!(f, "{apart}{many} {word}")?;
            apart = ", ";
        }
        if self.ended() == 0 { f.write_str("none has ended") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Rollup;
    use crate::model::JobState;
    use proptest::prelude::*;

    /// How bad an end is, said apart from the code under test.
    fn badness(state: JobState) -> usize {
        [JobState::Complete, JobState::Cancelled, JobState::Failed, JobState::Unresolved]
            .iter()
            .position(|known| *known == state)
            .expect("an end")
    }

    #[test]
    fn a_group_says_what_became_of_its_children() {
        let rollup = Rollup { complete: 7, failed: 1, cancelled: 0, unresolved: 1 };
        assert_eq!(rollup.to_string(), "7 complete, 1 failed, 1 outcome unknown");
        assert_eq!(Rollup::default().to_string(), "none has ended");
    }

    proptest! {
        #[test]
        fn a_group_is_exactly_as_bad_as_its_worst_child(
            states in prop::collection::vec(prop::sample::select(vec![
                JobState::Complete, JobState::Failed, JobState::Cancelled, JobState::Unresolved,
            ]), 1..40),
        ) {
            let mut rollup = Rollup::default();
            for state in &states {
                rollup.add(*state, 1);
            }
            let worst = states.iter().map(|state| badness(*state)).max().expect("some");
            prop_assert_eq!(badness(rollup.worst()), worst);
            prop_assert_eq!(Rollup::end_of(rollup.verdict()), rollup.worst());
            prop_assert_eq!(rollup.ended(), i64::try_from(states.len()).expect("few"));
            prop_assert_eq!(states.iter().copied().reduce(Rollup::worse), Some(rollup.worst()));
        }
    }
}

//! Faults on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cloud::CallError;
use crate::model::ErrorClass;

/// A call of the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `check`.
    Check,
    /// `launch`.
    Launch,
    /// `machine`.
    Machine,
    /// `find_by_tag`.
    FindByTag,
    /// `list`.
    List,
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `pause`.
    Pause,
    /// `terminate`.
    Terminate,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused: nothing is done and the caller knows it.
    Refuse(ErrorClass),
    /// Refused for too many calls, with the time to wait.
    Throttle(Duration),
    /// Nothing is done and the caller does not know it.
    FailBefore,
    /// Stands still before anything is done; a caller whose limit ends first does not know that nothing was done.
    Stall(Duration),
    /// Everything is done, the answer is lost.
    LoseAnswer,
    /// The answer is lost at once, the effect comes after this long (unless the process ends before).
    LandLate(Duration),
    /// A launch that looks do not show for this long.
    Hide(Duration),
    /// Accepted, and never done: only what starts, stops or pauses a server.
    Forget,
}

impl Fault {
    /// The answer of a fault that ends the call before anything is done.
    pub(super) fn answer(&self) -> Option<CallError> {
        match self {
            Self::Refuse(class) => {
                let text = format!("refused on demand as {class}");
                Some(CallError::refused(*class, "FaultOnDemand", text))
            }
            Self::Throttle(wait) => Some(CallError::Refused {
                class: ErrorClass::Throttled,
                code: "RequestLimitExceeded".to_owned(),
                text: format!("too many calls; wait {wait:?}"),
                retry_after: Some(*wait),
            }),
            Self::FailBefore => Some(CallError::unknown("500 InternalError after the request was sent")),
            Self::Stall(_) | Self::LoseAnswer | Self::LandLate(_) | Self::Hide(_) | Self::Forget => None,
        }
    }
}

impl Operation {
    /// Whether it changes something.
    const fn changes(self) -> bool {
        !matches!(self, Self::Check | Self::Machine | Self::FindByTag | Self::List)
    }

    /// Whether what it does can be taken back by a later call.
    const fn moves(self) -> bool {
        matches!(self, Self::Start | Self::Stop | Self::Pause)
    }
}

/// Faults by chance: of a hundred calls that change something, how many suffer which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// Where chance begins; the same seed gives the same faults to the same calls.
    pub seed: u64,
    /// Done, and the answer lost.
    pub lose: u8,
    /// Nothing done, and the caller does not know.
    pub fail: u8,
    /// The answer lost at once, the effect after `late_for`.
    pub late: u8,
    /// See `late`.
    pub late_for: Duration,
    /// Launches that looks do not show for `hide_for`.
    pub hide: u8,
    /// See `hide`.
    pub hide_for: Duration,
    /// Of starts, stops and pauses: accepted and never done.
    pub forget: u8,
}

impl Odds {
    /// Draws for one call.
    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        if !operation.changes() {
            return None;
        }
        // A linear congruential generator is chance enough for a percentage of its upper bits.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut dice = u8::try_from((self.seed >> 33) % 100).unwrap_or(0);
        let launch = operation == Operation::Launch;
        let table = [
            (self.lose, Fault::LoseAnswer),
            (self.fail, Fault::FailBefore),
            (self.late, Fault::LandLate(self.late_for)),
            (if launch { self.hide } else { 0 }, Fault::Hide(self.hide_for)),
            (if operation.moves() { self.forget } else { 0 }, Fault::Forget),
        ];
        for (percent, fault) in table {
            match dice.checked_sub(percent) {
                Some(left) => dice = left,
                None => return Some(fault),
            }
        }
        None
    }
}

/// For each operation, how many calls suffer which fault, in order.
type Queues = HashMap<Operation, VecDeque<(u32, Fault)>>;

/// Faults to come, in the order in which they were asked for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    queues: Arc<Mutex<Queues>>,
    odds: Arc<Mutex<Odds>>,
}

impl Faults {
    /// Lets the next `calls` calls of the operation that have no fault yet suffer this one.
    pub fn next(&self, operation: Operation, calls: u32, fault: Fault) {
        if calls > 0 {
            self.queues().entry(operation).or_default().push_back((calls, fault));
        }
    }

    /// Lets calls without a fault of their own suffer some by chance from now on.
    pub fn by_chance(&self, odds: Odds) {
        *self.odds.lock().unwrap_or_else(PoisonError::into_inner) = odds;
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear(&self) {
        self.queues().clear();
        self.by_chance(Odds::default());
    }

    /// How many calls of the operation will still suffer a fault.
    #[must_use]
    pub fn remaining(&self, operation: Operation) -> u32 {
        self.queues().get(&operation).map_or(0, |queue| queue.iter().map(|(calls, _)| calls).sum())
    }

    /// Takes the fault of the next call.
    pub(super) fn take(&self, operation: Operation) -> Option<Fault> {
        let drawn = || self.odds.lock().unwrap_or_else(PoisonError::into_inner).draw(operation);
        self.ordered(operation).or_else(drawn)
    }

    fn ordered(&self, operation: Operation) -> Option<Fault> {
        let mut queues = self.queues();
        let queue = queues.get_mut(&operation)?;
        let (calls, fault) = queue.front_mut()?;
        *calls -= 1;
        let fault = fault.clone();
        if queue.front().is_some_and(|(calls, _)| *calls == 0) {
            queue.pop_front();
        }
        Some(fault)
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faults, Odds, Operation};
    use std::time::Duration;

    #[test]
    fn chance_takes_its_share_comes_again_with_its_seed_and_spares_looks() {
        let odds = Odds { seed: 7, lose: 20, forget: 30, ..Odds::default() };
        let drawn = |operation| {
            let faults = Faults::default();
            faults.by_chance(odds);
            (0..1000).filter_map(|_| faults.take(operation)).collect::<Vec<_>>()
        };
        let stops = drawn(Operation::Stop);
        let lost = stops.iter().filter(|fault| **fault == Fault::LoseAnswer).count();
        assert!((150..250).contains(&lost) && (400..600).contains(&stops.len()), "{lost} of {}", stops.len());
        assert_eq!(drawn(Operation::Stop), stops);
        assert!(drawn(Operation::Launch).iter().all(|fault| *fault == Fault::LoseAnswer));
        assert_eq!(drawn(Operation::Machine), []);
    }

    #[test]
    fn faults_come_in_order_and_only_as_often_as_asked() {
        let faults = Faults::default();
        faults.next(Operation::Launch, 2, Fault::LoseAnswer);
        faults.next(Operation::Launch, 1, Fault::Hide(Duration::from_secs(1)));
        faults.next(Operation::Stop, 0, Fault::FailBefore);
        assert_eq!(faults.remaining(Operation::Launch), 3);
        assert_eq!(faults.take(Operation::Stop), None);
        assert_eq!(faults.take(Operation::Launch), Some(Fault::LoseAnswer));
        assert_eq!(faults.take(Operation::Launch), Some(Fault::LoseAnswer));
        assert_eq!(faults.take(Operation::Launch), Some(Fault::Hide(Duration::from_secs(1))));
        assert_eq!(faults.take(Operation::Launch), None);
    }
}

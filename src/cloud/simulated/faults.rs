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
            Self::Stall(_) | Self::LoseAnswer | Self::LandLate(_) | Self::Hide(_) => None,
        }
    }
}

/// For each operation, how many calls suffer which fault, in order.
type Queues = HashMap<Operation, VecDeque<(u32, Fault)>>;

/// Faults to come, in the order in which they were asked for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    queues: Arc<Mutex<Queues>>,
}

impl Faults {
    /// Lets the next `calls` calls of the operation that have no fault yet suffer this one.
    pub fn next(&self, operation: Operation, calls: u32, fault: Fault) {
        if calls > 0 {
            self.queues().entry(operation).or_default().push_back((calls, fault));
        }
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear(&self) {
        self.queues().clear();
    }

    /// How many calls of the operation will still suffer a fault.
    #[must_use]
    pub fn remaining(&self, operation: Operation) -> u32 {
        self.queues().get(&operation).map_or(0, |queue| queue.iter().map(|(calls, _)| calls).sum())
    }

    /// Takes the fault of the next call.
    pub(super) fn take(&self, operation: Operation) -> Option<Fault> {
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
    use super::{Fault, Faults, Operation};
    use std::time::Duration;

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

//! Which guests are due: pure. First beats are spread over the interval, so that guests never beat in step.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Micros, ServerId};

/// Next beat of each guest.
pub struct Schedule {
    every: Duration,
    next: BTreeMap<ServerId, Micros>,
}

impl Schedule {
    /// How many slots an interval has.
    const SLOTS: u32 = 20;

    /// An empty schedule with this time between the beats of one guest.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, next: BTreeMap::new() }
    }

    /// How often the schedule should be asked.
    #[must_use]
    pub fn grain(&self) -> Duration {
        (self.every / Self::SLOTS).max(Duration::from_millis(10))
    }

    /// The guests due now, of those that are connected. A guest that left is forgotten; one that is new beats at once,
    /// so that its first sign of life comes early.
    pub fn due(&mut self, now: Micros, connected: impl Iterator<Item = ServerId>) -> Vec<ServerId> {
        let connected: std::collections::BTreeSet<ServerId> = connected.collect();
        self.next.retain(|id, _| connected.contains(id));
        let mut due = Vec::new();
        for id in connected {
            let spread = self.every * u32::try_from(id.0.rem_euclid(i64::from(Self::SLOTS))).unwrap_or(0)
                / Self::SLOTS;
            match self.next.get_mut(&id) {
                None => {
                    due.push(id);
                    self.next.insert(id, now.plus(self.every / 2 + spread / 2));
                }
                Some(at) if *at <= now => {
                    due.push(id);
                    *at = now.plus(self.every);
                }
                Some(_) => {}
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::model::{Micros, ServerId};
    use std::time::Duration;

    #[test]
    fn a_new_guest_beats_at_once_then_every_interval_and_a_gone_one_is_forgotten() {
        let mut schedule = Schedule::new(Duration::from_secs(10));
        let guests = || [ServerId(1), ServerId(2)].into_iter();
        let at = |secs: i64| Micros(secs * 1_000_000);
        assert_eq!(schedule.due(at(0), guests()), vec![ServerId(1), ServerId(2)]);
        assert_eq!(schedule.due(at(4), guests()), Vec::new());
        let mut beats = 0;
        for second in 5..105 {
            beats += schedule.due(at(second), guests()).len();
        }
        assert!((18..=22).contains(&beats), "{beats} beats of two guests in 100 s");
        assert_eq!(schedule.due(at(105), std::iter::empty()), Vec::new());
        assert_eq!(schedule.due(at(105), guests()).len(), 2, "forgotten, so new again");
    }
}

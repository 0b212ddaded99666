//! When not to try: after failures in a row, callers are told at once instead of waiting for the next one. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Limits of a breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Failures in a row that open it.
    pub(super) failures: u32,
    /// First rest; doubles with every failed trial.
    pub(super) first: Duration,
    /// Longest rest.
    pub(super) max: Duration,
}

/// Counts failures in a row. Closed: everybody may try. Open: nobody until the rest is over, then one trial.
pub(super) struct Breaker {
    pace: Pace,
    failed: u32,
    until: Option<Instant>,
    rest: Duration,
    trial: bool,
}

impl Breaker {
    pub(super) const fn new(pace: Pace) -> Self {
        Self { pace, failed: 0, until: None, rest: pace.first, trial: false }
    }

    /// Whether a try may begin now; otherwise how long to wait. A permitted try must end in
    /// [`failed`](Self::failed) or [`succeeded`](Self::succeeded).
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(until) = self.until else { return Ok(()) };
        if now < until {
            return Err(until - now);
        }
        if self.trial {
            return Err(self.rest);
        }
        self.trial = true;
        Ok(())
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::new(self.pace);
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failed = self.failed.saturating_add(1);
        if self.failed < self.pace.failures {
            return;
        }
        // Late failures of tries begun before it opened do not lengthen the rest.
        let trial = std::mem::replace(&mut self.trial, false);
        if self.until.is_none() || trial {
            self.rest = if trial { (self.rest * 2).min(self.pace.max) } else { self.pace.first };
            self.until = Some(now + self.rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Breaker, Pace};

    const PACE: Pace = Pace { failures: 3, first: Duration::from_secs(1), max: Duration::from_secs(4) };

    #[test]
    fn it_opens_after_three_and_lets_one_try_after_each_rest() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(PACE);
        for _ in 0..3 {
            assert_eq!(breaker.check(start), Ok(()));
            breaker.failed(start);
        }
        assert_eq!(breaker.check(start), Err(Duration::from_secs(1)));
        breaker.failed(at(0)); // one that was under way
        let mut now = 1;
        for rest in [2, 4, 4] {
            assert_eq!(breaker.check(at(now)), Ok(()), "one trial at {now} s");
            assert!(breaker.check(at(now)).is_err(), "a second trial at {now} s");
            breaker.failed(at(now));
            assert_eq!(breaker.check(at(now)), Err(Duration::from_secs(rest)));
            now += rest;
        }
        assert_eq!(breaker.check(at(now)), Ok(()));
        breaker.succeeded();
        breaker.failed(at(now));
        assert_eq!(breaker.check(at(now)), Ok(()), "one failure is none");
    }
}

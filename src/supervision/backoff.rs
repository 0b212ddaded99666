//! When to start an actor again, and when not to: pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// The restarts of one actor that still count.
#[derive(Debug)]
pub(super) struct Backoff {
    limits: Limits,
    recent: VecDeque<Instant>,
    dice: u64,
}

impl Backoff {
    /// `seed` should differ between actors, so that many that failed together do not come back together.
    pub(super) const fn new(limits: Limits, seed: u64) -> Self {
        // The generator below has one fixed point, zero.
        Self { limits, recent: VecDeque::new(), dice: seed | 1 }
    }

    /// The pause before the next life, or nothing when the budget is spent.
    pub(super) fn after_failure(&mut self, now: Instant) -> Option<Duration> {
        let used = self.in_window(now);
        if used >= self.limits.budget {
            return None;
        }
        self.recent.push_back(now);
        let doubled = self.limits.backoff_first.saturating_mul(2_u32.saturating_pow(used));
        let pause = doubled.min(self.limits.backoff_max);
        Some(pause.saturating_sub(self.jitter(pause)))
    }

    /// Restarts inside the window that ends now.
    pub(super) fn in_window(&mut self, now: Instant) -> u32 {
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= self.limits.window) {
            self.recent.pop_front();
        }
        u32::try_from(self.recent.len()).unwrap_or(u32::MAX)
    }

    /// Up to a quarter of the pause. The xorshift generator of Marsaglia (2003) is enough to spread actors out.
    fn jitter(&mut self, pause: Duration) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let most = u64::try_from(pause.as_micros() / 4).unwrap_or(u64::MAX);
        Duration::from_micros(self.dice.checked_rem(most).unwrap_or(0))
    }
}

/// A seed from the system; a fixed one where the system has none, because jitter is worth no failure.
pub(super) fn seed() -> u64 {
    getrandom::u64().unwrap_or(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Limits};
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn pauses_double_up_to_the_limit_and_the_budget_ends_them() {
        let limits = Limits { budget: 9, ..Limits::default() };
        let mut backoff = Backoff::new(limits, 7);
        let now = Instant::now();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let pause = backoff.after_failure(now).expect("budget left").as_millis();
            assert!((expected * 3 / 4..=expected).contains(&pause), "{pause} ms for {expected} ms");
        }
        assert_eq!(backoff.after_failure(now), None);
    }

    #[test]
    fn what_lies_before_the_window_is_forgotten() {
        let mut backoff = Backoff::new(Limits::default(), 7);
        let start = Instant::now();
        for _ in 0..5 {
            assert!(backoff.after_failure(start).is_some());
        }
        assert_eq!(backoff.after_failure(start + Duration::from_secs(59)), None);
        let pause = backoff.after_failure(start + Duration::from_secs(60)).expect("a new window");
        assert!(pause <= Duration::from_millis(100), "{pause:?}");
        assert_eq!(backoff.in_window(start + Duration::from_secs(60)), 1);
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget_inside_any_window(gaps in prop::collection::vec(0_u64..30_000, 1..80), seed: u64) {
            let limits = Limits::default();
            let mut backoff = Backoff::new(limits, seed);
            let mut now = Instant::now();
            let mut granted = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(pause) = backoff.after_failure(now) {
                    prop_assert!(pause <= limits.backoff_max);
                    prop_assert!(pause >= limits.backoff_first * 3 / 4);
                    granted.push(now);
                }
                let inside = granted.iter().filter(|at| now.duration_since(**at) < limits.window).count();
                prop_assert!(inside <= limits.budget as usize);
            }
        }
    }
}

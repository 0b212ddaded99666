//! How many starts a limit leaves: a bucket kept as one time, and the rate that throttling teaches. Pure: the database's
//! clock comes in, absolute values go out.

use std::time::Duration;

use crate::model::Micros;

/// Thousandths of a start a second.
type Rate = i64;

/// The rate above which nothing is learned any more: an account that reaches it again is as good as unlimited.
const CEILING: Rate = 16_000;
/// No throttling makes a rate smaller than this: one start in ten seconds.
const FLOOR: Rate = 100;
/// What a rate gains each time it was not throttled for [`GAIN_EVERY`].
const GAIN: Rate = 500;
/// How long a rate must not be throttled to gain.
const GAIN_EVERY: Duration = Duration::from_secs(10);
/// Answers within this time of the one that halved a rate tell of the same crowd and halve it no further.
const SAME_CROWD: Duration = Duration::from_secs(1);

/// So many starts in so long, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Microseconds from one start to the next.
    gap: i64,
    /// Starts that may come together.
    burst: i64,
}

impl Pace {
    /// `starts` in `secs` seconds, of which `burst` may come together; each is taken as 1 at the least.
    #[must_use]
    pub fn new(starts: i32, secs: i32, burst: i32) -> Self {
        let span = i64::from(secs.max(1)).saturating_mul(1_000_000);
        Self { gap: span.div_euclid(i64::from(starts.max(1))).max(1), burst: i64::from(burst.max(1)) }
    }

    /// The same, with no more than a learned rate, which allows no burst.
    #[must_use]
    pub fn at_most(self, rate: Rate) -> Self {
        Self { gap: self.gap.max(gap_of(rate)), burst: 1 }
    }

    /// A learned rate alone.
    #[must_use]
    pub fn of_rate(rate: Rate) -> Self {
        Self { gap: gap_of(rate), burst: 1 }
    }

    /// Starts that are free at `now`. `spent_until` is the time up to which the starts made so far have used the pace up.
    #[must_use]
    pub fn free(self, spent_until: Micros, now: Micros) -> i64 {
        let room = self.gap.saturating_mul(self.burst);
        room.saturating_sub(self.used(spent_until, now)).max(0) / self.gap
    }

    /// When the next start is free; `now` where one is.
    #[must_use]
    pub fn next(self, spent_until: Micros, now: Micros) -> Micros {
        let room = self.gap.saturating_mul(self.burst - 1);
        Micros(now.0.saturating_add(self.used(spent_until, now).saturating_sub(room).max(0)))
    }

    /// What a start at `now` makes of `spent_until`.
    #[must_use]
    pub fn spend(self, spent_until: Micros, now: Micros) -> Micros {
        Micros(now.0.saturating_add(self.used(spent_until, now)).saturating_add(self.gap))
    }

    /// A clock that was set back must not close an account for longer than a full bucket takes.
    fn used(self, spent_until: Micros, now: Micros) -> i64 {
        spent_until.0.saturating_sub(now.0).clamp(0, self.gap.saturating_mul(self.burst))
    }

    /// The rate of it, for the start of what is learned.
    fn rate(self) -> Rate {
        1_000_000_000_i64.div_euclid(self.gap).max(1)
    }
}

fn gap_of(rate: Rate) -> i64 {
    1_000_000_000_i64.div_euclid(rate.max(1)).max(1)
}

/// What throttling taught about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Thousandths of a start a second, as of `at`.
    pub rate: i64,
    /// When it was throttled last.
    pub at: Micros,
}

impl Learned {
    /// The rate by now: it grows by steps. None when it has reached what `set` allows, or is as good as unlimited.
    #[must_use]
    pub fn now(self, set: Option<Pace>, now: Micros) -> Option<i64> {
        let steps = now.since(self.at).as_micros() / GAIN_EVERY.as_micros();
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        let rate = self.rate.saturating_add(GAIN.saturating_mul(steps));
        (rate < ceiling(set)).then_some(rate)
    }

    /// What one more throttling answer teaches: half the rate, and never less than the floor.
    #[must_use]
    pub fn throttled(before: Option<Self>, set: Option<Pace>, now: Micros) -> Self {
        if let Some(same) = before.filter(|before| now.since(before.at) < SAME_CROWD) {
            return same;
        }
        let ceiling = ceiling(set);
        let rate = before.and_then(|before| before.now(set, now)).unwrap_or(ceiling);
        Self { rate: (rate / 2).max(FLOOR.min(ceiling)), at: now }
    }

    /// A rate in words.
    #[must_use]
    pub fn told(rate: i64) -> String {
        let (many, span) = if rate >= 1000 { (rate, "second") } else { (rate.saturating_mul(60), "minute") };
        let (whole, tenths) = (many / 1000, many % 1000 / 100);
        let many = if tenths == 0 { whole.to_string() } else { format!("{whole}.{tenths}") };
        format!("{many} {} a {span}", if many == "1" { "call" } else { "calls" })
    }
}

fn ceiling(set: Option<Pace>) -> Rate {
    set.map_or(CEILING, |pace| pace.rate().min(CEILING))
}

#[cfg(test)]
mod tests {
    use super::{CEILING, FLOOR, Learned, Pace};
    use crate::model::Micros;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_bucket_gives_a_burst_and_then_one_start_a_gap() {
        let pace = Pace::new(2, 1, 3);
        let (mut spent, now) = (Micros(0), Micros(100 * SECOND));
        assert_eq!((pace.free(spent, now), pace.next(spent, now)), (3, now));
        for left in [2, 1, 0] {
            spent = pace.spend(spent, now);
            assert_eq!(pace.free(spent, now), left);
        }
        let next = pace.next(spent, now);
        assert_eq!(next, Micros(now.0 + SECOND / 2));
        assert_eq!((pace.free(spent, Micros(next.0 - 1)), pace.free(spent, next)), (0, 1));
        assert_eq!(pace.free(spent, Micros(next.0 + 60 * SECOND)), 3, "no more than the burst is saved up");
    }

    #[test]
    fn throttling_halves_down_to_the_floor_and_time_gives_it_back() {
        let at = |secs: i64| Micros(secs * SECOND);
        let first = Learned::throttled(None, None, at(0));
        assert_eq!(first, Learned { rate: CEILING / 2, at: at(0) });
        assert_eq!(Learned::throttled(Some(first), None, Micros(SECOND - 1)), first, "the same crowd");
        let second = Learned::throttled(Some(first), None, at(1));
        assert_eq!(second.rate, CEILING / 4);
        assert_eq!((second.now(None, at(10)), second.now(None, at(11))), (Some(4000), Some(4500)));
        let least = (0..20).fold(first, |l, n| Learned::throttled(Some(l), None, at(2 + n)));
        assert_eq!(least.rate, FLOOR);
        assert_eq!(least.now(None, at(21 + 320)), None, "as good as unlimited again");
        let slow = Pace::new(4, 60, 1);
        let under = Learned::throttled(None, Some(slow), at(0));
        assert_eq!(
            under.rate,
            66.min(FLOOR),
            "never less than what people set, where that is below the floor"
        );
        assert_eq!(Learned::throttled(None, Some(Pace::new(4, 1, 1)), at(0)).rate, 2000);
    }

    #[test]
    fn rates_are_told_in_calls() {
        for (rate, told) in [
            (2000, "2 calls a second"),
            (1000, "1 call a second"),
            (2500, "2.5 calls a second"),
            (100, "6 calls a minute"),
            (550, "33 calls a minute"),
        ] {
            assert_eq!(Learned::told(rate), told);
        }
    }

    proptest! {
        #[test]
        fn no_window_holds_more_starts_than_burst_and_pace(
            (starts, secs, burst) in (1..500_i32, 1..120_i32, 1..50_i32),
            waits in prop::collection::vec(0..3_000_000_i64, 1..300),
        ) {
            let pace = Pace::new(starts, secs, burst);
            let (mut now, mut spent, mut made) = (Micros(SECOND), Micros(0), Vec::new());
            for wait in waits {
                now = Micros(now.0 + wait);
                let next = pace.next(spent, now);
                prop_assert_eq!(next == now, pace.free(spent, now) > 0);
                prop_assert!(pace.free(spent, next) > 0, "what is promised is kept");
                if pace.free(spent, now) > 0 {
                    spent = pace.spend(spent, now);
                    made.push(now.0);
                }
            }
            for (i, first) in made.iter().enumerate() {
                for (j, last) in made.iter().enumerate().skip(i) {
                    let allowed = i64::from(burst) + (last - first) / pace.gap;
                    prop_assert!(i64::try_from(j - i + 1).expect("few") <= allowed);
                }
            }
        }

        #[test]
        fn a_clock_that_was_set_back_closes_nothing_for_longer_than_a_bucket(
            (starts, secs, burst) in (1..500_i32, 1..120_i32, 1..50_i32),
            (spent, now) in (any::<i64>(), 0..1_000_000_000_000_i64),
        ) {
            let pace = Pace::new(starts, secs, burst);
            let next = pace.next(Micros(spent), Micros(now));
            prop_assert!(next.0 >= now && next.0 - now <= pace.gap);
        }

        #[test]
        fn a_learned_rate_only_grows_without_throttling_and_stays_within_its_bounds(
            (rate, wait, more) in (FLOOR..CEILING, 0..1_000_000_000_i64, 0..1_000_000_000_i64),
        ) {
            let learned = Learned { rate, at: Micros(0) };
            let (soon, late) = (learned.now(None, Micros(wait)), learned.now(None, Micros(wait + more)));
            prop_assert!(soon.unwrap_or(CEILING) <= late.unwrap_or(CEILING));
            let halved = Learned::throttled(Some(learned), None, Micros(wait + SECOND));
            prop_assert!((FLOOR..=CEILING / 2).contains(&halved.rate));
        }
    }
}

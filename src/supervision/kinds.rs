//! Figures of all actors of one kind, which outlive each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Snapshot;
use crate::model::Micros;
use crate::ops::panic_hook;

/// Powers of two of a microsecond: up to nine minutes.
const BUCKETS: usize = 30;

/// Counts of one kind. Noting costs some nanoseconds and never waits.
#[derive(Debug, Default)]
pub(super) struct Tally {
    restarts: AtomicU64,
    panics: AtomicU64,
    /// How many messages held the thread for less than so many powers of two of a microsecond.
    took: [AtomicU64; BUCKETS],
}

impl Tally {
    /// A handler held its thread for so long.
    pub(super) fn handled(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = usize::try_from(u64::BITS - micros.leading_zeros()).unwrap_or(BUCKETS);
        if let Some(bucket) = self.took.get(place.min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A life ended otherwise than well.
    pub(super) fn failed(&self, panicked: bool, restarted: bool) {
        self.panics.fetch_add(u64::from(panicked), Ordering::Relaxed);
        self.restarts.fetch_add(u64::from(restarted), Ordering::Relaxed);
    }

    /// How many were handled, and the bound below which 99 of 100 stayed.
    fn p99(&self) -> (u64, Option<u64>) {
        let counts: Vec<u64> = self.took.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut left = all - all / 100;
        for (place, count) in counts.iter().enumerate() {
            left = left.saturating_sub(*count);
            if left == 0 {
                return (all, (all > 0).then(|| 1 << place));
            }
        }
        (all, None)
    }
}

/// Where an actor stands: its thread, who started it, and the figures of its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) arbiter: &'static str,
    pub(super) parent: Option<String>,
    pub(super) tally: Arc<Tally>,
}

impl Place {
    /// A place on a thread. An actor that is started while another one works is the other one's child.
    pub(super) fn on(arbiter: &'static str, tally: Arc<Tally>) -> Self {
        let parent = panic_hook::doing().map(|name| name.replacen(' ', "/", 1));
        Self { arbiter, parent, tally }
    }
}

/// How all actors of one kind are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KindSnapshot {
    /// The kind.
    pub kind: &'static str,
    /// Actors that are there now, those given up among them.
    pub count: usize,
    /// Those that wait for a restart or were given up.
    pub ill: usize,
    /// Messages in the fullest mailbox.
    pub deepest: usize,
    /// When the message that waits longest came.
    pub oldest: Option<Micros>,
    /// Restarts since the process began, of actors that are gone as well.
    pub restarts: u64,
    /// Panics, likewise.
    pub panics: u64,
    /// Messages handled, likewise.
    pub handled: u64,
    /// In microseconds, a power of two: 99 of 100 handlers held their thread for less.
    pub p99_us: Option<u64>,
}

/// Sums up actors by kind, worst first.
pub(super) fn sum(tallies: &BTreeMap<&'static str, Arc<Tally>>, actors: &[Snapshot]) -> Vec<KindSnapshot> {
    let of = |(kind, tally): (&&'static str, &Arc<Tally>)| {
        let mine = || actors.iter().filter(|actor| actor.kind == *kind);
        let (handled, p99_us) = tally.p99();
        KindSnapshot {
            kind,
            count: mine().count(),
            ill: mine().filter(|actor| matches!(actor.state, "backing-off" | "given-up")).count(),
            deepest: mine().map(|actor| actor.mailbox).max().unwrap_or(0),
            oldest: mine().filter_map(|actor| actor.oldest).min(),
            restarts: tally.restarts.load(Ordering::Relaxed),
            panics: tally.panics.load(Ordering::Relaxed),
            handled,
            p99_us,
        }
    };
    let mut kinds: Vec<KindSnapshot> = tallies.iter().map(of).collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse((kind.ill, kind.panics > 0, kind.deepest)));
    kinds
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use std::time::Duration;

    #[test]
    fn the_slowest_of_a_hundred_is_left_out_and_the_next_counts() {
        let tally = Tally::default();
        assert_eq!(tally.p99(), (0, None));
        for _ in 0..99 {
            tally.handled(Duration::from_micros(5));
        }
        tally.handled(Duration::from_secs(3));
        assert_eq!(tally.p99(), (100, Some(8)));
        tally.handled(Duration::from_secs(3));
        tally.handled(Duration::from_secs(3));
        let (all, slow) = tally.p99();
        assert!(all == 102 && slow.is_some_and(|us| us >= 3_000_000), "{slow:?}");
        tally.handled(Duration::from_secs(1 << 40));
        assert_eq!(tally.p99().0, 103);
    }
}

//! Points of guests on their way to the analytics database, and where they stay while it is away.
//!
//! The pinger puts them in and goes on; a task of its own writes them. What does not fit any more pushes the oldest
//! out, which is counted. Nobody waits for any of this.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ops::{Health, Metrics, State};
use crate::store::Store;
use crate::store::analytics::{self, GuestPoint};

/// Name of the part in health.
const PART: &str = "analytics";
/// Points of one write.
const BATCH: usize = 512;
/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// A write that takes longer has met a database, or a writer, that does not move.
const LIMIT: Duration = Duration::from_secs(15);

/// Points that wait to be written. Cheap to clone; all clones are the same. It outlives the lives of the pinger.
#[derive(Clone)]
pub struct Spill {
    inner: Arc<Inner>,
}

struct Inner {
    waiting: Mutex<Waiting>,
    more: Notify,
    most: usize,
}

#[derive(Default)]
struct Waiting {
    points: VecDeque<GuestPoint>,
    lost: u64,
    /// Points pushed out since the write under way took its own.
    pushed: usize,
}

impl Spill {
    /// Room for so many points, and for one at least.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let inner = Inner { waiting: Mutex::default(), more: Notify::new(), most: most.max(1) };
        Self { inner: Arc::new(inner) }
    }

    /// Takes points in; how many older ones were pushed out for them.
    pub fn put(&self, points: Vec<GuestPoint>) -> usize {
        let mut waiting = self.lock();
        waiting.points.extend(points);
        let over = waiting.points.len().saturating_sub(self.inner.most);
        waiting.points.drain(..over);
        waiting.pushed = waiting.pushed.saturating_add(over);
        waiting.lost = waiting.lost.saturating_add(over as u64);
        drop(waiting);
        self.inner.more.notify_one();
        over
    }

    /// Points that wait, and how many were lost so far.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        let waiting = self.lock();
        (waiting.points.len(), waiting.lost)
    }

    fn next(&self) -> Vec<GuestPoint> {
        let mut waiting = self.lock();
        waiting.pushed = 0;
        waiting.points.iter().take(BATCH).cloned().collect()
    }

    /// So many of the oldest are written; some of them may have been pushed out meanwhile.
    fn written(&self, count: usize) {
        let mut waiting = self.lock();
        let left = count.saturating_sub(waiting.pushed).min(waiting.points.len());
        waiting.points.drain(..left);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, for ever. A write whose outcome is unknown is repeated: a point that is there already is left.
    pub(super) async fn drain(self, store: Store, health: Health, metrics: Metrics) {
        loop {
            let points = self.next();
            if points.is_empty() {
                self.inner.more.notified().await;
                continue;
            }
            let count = points.len();
            let write = store.write(move |c| analytics::insert(c, &points));
            let cause = match tokio::time::timeout(LIMIT, write).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(stuck(&store)),
            };
            if cause.is_none() {
                self.written(count);
            }
            self.tell(cause.as_deref(), (&health, &metrics));
            if cause.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn tell(&self, cause: Option<&str>, (health, metrics): (&Health, &Metrics)) {
        let (waiting, lost) = self.counts();
        metrics.points_spilled(if cause.is_some() { waiting } else { 0 });
        match cause {
            None => health.set(PART, State::Ok, ""),
            Some(cause) => {
                let text = format!("{cause}; points that wait in memory: {waiting}, lost: {lost}");
                health.set(PART, State::Degraded, text);
            }
        }
    }
}

/// The writer does not move, or has ended and was given up: another is started where none runs.
fn stuck(store: &Store) -> String {
    match store.revive() {
        Ok(()) => format!("a write was not answered within {LIMIT:?}"),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Spill;
    use crate::store::analytics::GuestPoint;

    fn points(numbers: std::ops::Range<i64>) -> Vec<GuestPoint> {
        let point = |at| GuestPoint {
            server: 7,
            at,
            customer: 1,
            round_trip_micros: 1,
            cpu_load: 0.0,
            ram_used_mb: 1,
            ram_total_mb: 1,
            processes: 1,
        };
        numbers.map(point).collect()
    }

    fn kept(spill: &Spill) -> Vec<i64> {
        spill.lock().points.iter().map(|point| point.at).collect()
    }

    #[test]
    fn what_does_not_fit_pushes_the_oldest_out_and_is_counted() {
        let spill = Spill::new(5);
        assert_eq!(spill.put(points(0..3)), 0);
        assert_eq!(spill.put(points(3..8)), 3);
        assert_eq!((kept(&spill), spill.counts()), (vec![3, 4, 5, 6, 7], (5, 3)));
        assert_eq!(spill.put(points(8..20)), 12, "more than there is room for at once");
        assert_eq!((kept(&spill), spill.counts()), (vec![15, 16, 17, 18, 19], (5, 15)));
    }

    #[test]
    fn points_pushed_out_while_they_were_written_take_no_newer_ones_with_them() {
        let spill = Spill::new(5);
        spill.put(points(0..5));
        let taken = spill.next();
        assert_eq!(taken.len(), 5);
        spill.put(points(5..7));
        spill.written(taken.len());
        assert_eq!(kept(&spill), [5, 6]);
        let taken = spill.next();
        spill.put(points(7..20));
        spill.written(taken.len());
        assert_eq!(kept(&spill), [15, 16, 17, 18, 19], "all that was written had been pushed out");
    }
}

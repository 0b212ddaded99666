//! Signs of life of a thread that is no arbiter, such as one that writes to a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Kept by a thread that works in steps: each step has to end within the lag limit. A thread that waits for work is at
/// rest and never late. Cloning is cheap; all clones are the same heart.
#[derive(Clone)]
pub struct Heart {
    pub(super) start: Instant,
    /// Milliseconds from `start` to the beginning of the present step, plus one; 0 at rest.
    step: Arc<AtomicU64>,
}

/// What the process loses when a thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everything: the process must end and start anew.
    Vital,
    /// Everything, but a step may rightly take long: degraded after the limit, the end after [`Need::PATIENCE`] limits.
    Patient,
    /// Something that it can do without; it is shown as degraded.
    Spare,
}

impl Need {
    /// How many limits a step of a [`Need::Patient`] thread may take.
    pub const PATIENCE: u64 = 6;
}

/// Work that goes on; the heart is at rest again when this is dropped, however the work ended.
pub struct Working<'a>(&'a Heart);

impl Default for Heart {
    fn default() -> Self {
        Self { start: Instant::now(), step: Arc::default() }
    }
}

impl Heart {
    /// Begins to work. The first step begins now.
    #[must_use = "the work ends when this is dropped"]
    pub fn work(&self) -> Working<'_> {
        self.step();
        Working(self)
    }

    /// The step before has ended, the next one begins. To be called while at work only.
    pub fn step(&self) {
        self.step.store(self.now(), Ordering::Relaxed);
    }

    /// Does something in the middle of work that may rightly take long, such as reaching a server that is away.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        self.step.store(0, Ordering::Relaxed);
        let done = f();
        self.step();
        done
    }

    /// How long the present step has taken; 0 at rest.
    pub(super) fn lag_ms(&self) -> u64 {
        match self.step.load(Ordering::Relaxed) {
            0 => 0,
            begun => self.now().saturating_sub(begun),
        }
    }

    /// Counts as a new step, unless at rest: the whole process stood still.
    pub(super) fn forgive(&self) {
        let was = self.step.load(Ordering::Relaxed);
        if was != 0 {
            // A thread that moves meanwhile is right.
            let _ = self.step.compare_exchange(was, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether nobody else holds it any more.
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.step) == 1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.step.store(0, Ordering::Relaxed);
    }
}

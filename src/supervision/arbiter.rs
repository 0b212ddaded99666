//! Named threads that actors run on, each watched for standing still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;

/// A thread that actors run on. Cloning is cheap; all clones are the same thread.
#[derive(Clone)]
pub struct Arbiter {
    name: &'static str,
    handle: ArbiterHandle,
}

/// How an arbiter, or another watched thread, is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ArbiterSnapshot {
    /// Its name.
    pub name: String,
    /// Milliseconds since it last moved; 0 for a thread that waits for work.
    pub lag_ms: u64,
    /// Whether it was found standing still for longer than it may.
    pub red: bool,
}

impl Arbiter {
    pub(super) const fn new(name: &'static str, handle: ArbiterHandle) -> Self {
        Self { name, handle }
    }

    pub(super) fn handle(&self) -> ArbiterHandle {
        self.handle.clone()
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `work` there; false when the thread has ended.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.handle.spawn_fn(work)
    }

    /// Ends the thread with all that runs there.
    pub(super) fn stop(&self) {
        self.handle.stop();
    }
}

/// When an arbiter last moved.
#[derive(Clone)]
pub(super) struct Pulse {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Lets `arbiter` beat every `tick` from now on. The wall of real time is used, because that is what a blocked
    /// thread takes from others.
    pub(super) fn start(arbiter: &Arbiter, tick: Duration) -> Self {
        let pulse = Self { start: Instant::now(), last_ms: Arc::new(AtomicU64::new(0)) };
        let beating = pulse.clone();
        arbiter.run(move || {
            actix_rt::spawn(async move {
                loop {
                    beating.last_ms.store(beating.elapsed_ms(), Ordering::Relaxed);
                    tokio::time::sleep(tick).await;
                }
            });
        });
        pulse
    }

    /// Counts as a beat: the whole process stood still, so nothing is known about this thread.
    pub(super) fn forgive(&self) {
        self.last_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    pub(super) fn lag_ms(&self) -> u64 {
        self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

//! Where the simulated cloud takes its time from.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Micros;

/// A nap that may move between threads.
pub type Nap = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Time of the simulated cloud; replaced by a simulation that owns time itself.
pub trait Clock: Send + Sync {
    /// Now. Never goes back during the life of the clock.
    fn now(&self) -> Micros;

    /// A future that ends after this long on the same clock.
    fn sleep(&self, duration: Duration) -> Nap;
}

/// Wall clock at the start, monotonic from there on: a jump of the wall clock moves no server's boot.
#[derive(Debug)]
pub struct SteadyClock {
    wall: Micros,
    start: Instant,
}

impl SteadyClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { wall: Micros::wall(), start: Instant::now() }
    }
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Micros {
        self.wall.plus(self.start.elapsed())
    }

    fn sleep(&self, duration: Duration) -> Nap {
        Box::pin(tokio::time::sleep(duration))
    }
}

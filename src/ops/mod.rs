//! What the operators see: log lines, panic reports, health, metrics, memory.
//!
//! Nothing here decides anything about jobs. Log records are written with the `log` macros anywhere; identifiers go
//! both into the text and as key-values, as in `log::info!(job = id; "job {id} ended")`.

mod chain;
pub mod failpoint;
mod fault;
mod health;
pub mod logging;
mod memory;
#[cfg(feature = "server")]
mod metrics;
pub mod mode;
pub mod panic_hook;
#[cfg(feature = "server")]
pub mod privileges;
#[cfg(feature = "server")]
mod queue;

pub use chain::Chain;
pub use health::{Health, PartState, State};
pub use memory::memory_kib;
#[cfg(feature = "server")]
pub use metrics::{Metrics, Recovery};
#[cfg(feature = "server")]
pub use queue::QueueMetrics;

//! A future with a limit.

use std::time::Duration;

/// A future took longer than it may. It was dropped, so what it had done by then is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not finished after {0:?}; what it did until then is unknown")]
pub struct OutOfTime(
    /// The limit.
    pub Duration,
);

/// Waits for `work`, but no longer than `limit`; then `work` is dropped.
///
/// # Errors
/// [`OutOfTime`] at the limit.
pub async fn limited<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, OutOfTime> {
    tokio::time::timeout(limit, work).await.map_err(|_elapsed| OutOfTime(limit))
}

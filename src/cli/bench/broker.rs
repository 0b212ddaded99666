//! What the broker gives by itself.

use std::time::Duration;

use crate::cli::client::Error;
use crate::config;

/// Messages a second on a quorum queue, each kept on disk and confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    /// One in flight.
    pub(super) one: f64,
    /// A hundred in flight.
    pub(super) many: f64,
}

/// Messages in flight for the second rate.
#[cfg(feature = "amqp")]
const MANY: usize = 100;

/// Measures publishing with confirms.
#[cfg(feature = "amqp")]
pub(super) async fn rates(settings: &config::Queue, span: Duration) -> Result<Rates, Error> {
    use crate::mq::amqp::Gauge;
    let fault = |text: String| Error::Usage(format!("--queue: {text}"));
    let gauge = Gauge::open(settings).await.map_err(fault)?;
    let one = gauge.confirmed_per_second(1, span).await.map_err(fault)?;
    let many = gauge.confirmed_per_second(MANY, span).await.map_err(fault)?;
    gauge.close().await.map_err(fault)?;
    Ok(Rates { one, many })
}

#[cfg(not(feature = "amqp"))]
pub(super) async fn rates(_: &config::Queue, _: Duration) -> Result<Rates, Error> {
    Err(Error::Usage("this build has no RabbitMQ; build with --features amqp".to_owned()))
}

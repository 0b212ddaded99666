//! Makes the queue that the settings ask for.

use std::sync::Arc;

use super::{Embedded, Queue};
use crate::config;
use crate::model::{Boot, JobUid};
use crate::ops::{Health, Metrics, State};
use crate::store::Store;
use crate::store::provisioning::sequence::Sequencer;
use crate::supervision::Supervisor;

/// Told after a verdict from outside is stored: readers of the job may look again.
pub type Told = Arc<dyn Fn(JobUid) + Send + Sync>;

/// What a queue is wired with.
#[derive(Clone)]
pub struct Parts {
    /// Starts its actors.
    pub supervisor: Supervisor,
    /// Outbox, and the rows verdicts become.
    pub store: Store,
    /// Numbers of audit records.
    pub sequencer: Sequencer,
    /// This life.
    pub boot: Boot,
    /// Figures.
    pub metrics: Metrics,
    /// Where it says how it is.
    pub health: Health,
    /// Told of stored verdicts.
    pub told: Told,
}

/// Why there is no queue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings do not say how to reach the broker.
    #[error("queue.url: {0}")]
    Url(String),
    /// The password's file.
    #[error("queue.password_file {path} {text}")]
    Password {
        /// The file.
        path: String,
        /// What is wrong, with the remedy.
        text: String,
    },
    /// The authorities' file.
    #[error("queue.ca_file {path} cannot be read")]
    Authorities {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What belongs to an installation cannot be taken away.
    #[error("the broker at {at} does not take the names away: {text}")]
    Forget {
        /// Where it is.
        at: String,
        /// What it said.
        text: String,
    },
    /// This program was built without the client.
    #[error("queue.url names a broker, and this program was built without the feature `amqp`")]
    NotBuilt,
}

/// Makes the queue and starts what it needs; a broker that is away does not keep the process from starting.
///
/// # Errors
/// [`Error`] says which setting is wrong.
pub fn open(settings: &config::Queue, parts: Parts) -> Result<Arc<dyn Queue>, Error> {
    if settings.is_embedded() {
        parts.health.set("queue", State::Ok, "embedded: rows and hints inside the process");
        return Ok(Arc::new(Embedded::new()));
    }
    broker(settings, parts)
}

/// Takes every queue and exchange of an installation's prefix away from its broker. What is embedded leaves nothing.
///
/// # Errors
/// [`Error`] says which setting is wrong, or what the broker refused.
pub async fn forget(settings: &config::Queue) -> Result<(), Error> {
    if settings.is_embedded() {
        return Ok(());
    }
    #[cfg(feature = "amqp")]
    return super::amqp::forget(settings).await;
    #[cfg(not(feature = "amqp"))]
    Err(Error::NotBuilt)
}

#[cfg(feature = "amqp")]
fn broker(settings: &config::Queue, parts: Parts) -> Result<Arc<dyn Queue>, Error> {
    let address = super::amqp::Address::of(settings)?;
    Ok(Arc::new(super::amqp::Amqp::start(address, settings, parts)))
}

#[cfg(not(feature = "amqp"))]
fn broker(_: &config::Queue, _: Parts) -> Result<Arc<dyn Queue>, Error> {
    Err(Error::NotBuilt)
}

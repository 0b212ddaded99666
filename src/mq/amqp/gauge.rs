//! A broker by itself: how fast it confirms. For measurements only; jobs never come near.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, PublisherConfirm};

use super::address::Address;
use super::link::{text, within};
use super::outlet::MANDATORY;
use crate::config::{self, ms};

/// Bytes of a message: about as many as a hint has.
const SIZE: usize = 320;

/// A queue of its own, like those of the dispatcher, and a channel with confirms to it.
pub struct Gauge {
    connection: Connection,
    channel: Channel,
    queue: String,
    limit: Duration,
}

impl Gauge {
    /// Connects and declares.
    ///
    /// # Errors
    /// What keeps it from that, in words.
    pub async fn open(settings: &config::Queue) -> Result<Self, String> {
        let limit = ms(settings.connect_ms);
        let (connection, channel) = dialled(settings).await?;
        within(limit, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let queue = format!("{}.gauge", settings.prefix);
        let mut kept = FieldTable::default();
        kept.insert("x-queue-type".into(), text("quorum"));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        within(limit, channel.queue_declare(queue.clone().into(), durable, kept)).await?;
        Ok(Self { connection, channel, queue, limit })
    }

    /// Publishes for so long with so many messages that wait for their confirm; messages confirmed a second. The queue
    /// is empty afterwards.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn confirmed_per_second(&self, in_flight: usize, span: Duration) -> Result<f64, String> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let body = [b'x'; SIZE];
        let began = Instant::now();
        let (mut waiting, mut confirmed) = (VecDeque::<PublisherConfirm>::new(), 0_u32);
        loop {
            let over = began.elapsed() >= span;
            if !over && waiting.len() < in_flight {
                let key = self.queue.as_str().into();
                let sending =
                    self.channel.basic_publish("".into(), key, MANDATORY, &body, properties.clone());
                waiting.push_back(within(self.limit, sending).await?);
                continue;
            }
            let Some(oldest) = waiting.pop_front() else { break };
            within(self.limit, oldest).await?;
            confirmed += 1;
        }
        let rate = f64::from(confirmed) / began.elapsed().as_secs_f64().max(1e-9);
        let name = self.queue.as_str().into();
        within(self.limit, self.channel.queue_purge(name, QueuePurgeOptions::default())).await?;
        Ok(rate)
    }

    /// Takes the queue back.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn close(self) -> Result<(), String> {
        let name = self.queue.as_str().into();
        within(self.limit, self.channel.queue_delete(name, QueueDeleteOptions::default())).await?;
        within(self.limit, self.connection.close(200, "measured".into())).await
    }
}

async fn dialled(settings: &config::Queue) -> Result<(Connection, Channel), String> {
    let limit = ms(settings.connect_ms);
    let address = Address::of(settings).map_err(|e| e.to_string())?;
    let connection = address.dial("dispatcher gauge", limit).await?;
    let channel = within(limit, connection.create_channel()).await?;
    Ok((connection, channel))
}

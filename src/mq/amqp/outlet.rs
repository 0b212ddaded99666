//! Publishing: confirmed, mandatory, under a time limit, and never while the broker takes no messages.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::watch;

use super::link::{Wire, text, within};
use crate::mq::Envelope;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A queue has it.
    Confirmed,
    /// No queue wanted it.
    Returned,
    /// The broker did not take it: a queue is full.
    Refused,
}

impl Fate {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Refused => "refused",
        }
    }
}

/// Why nothing can be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection.
    Away,
    /// The broker takes no messages.
    Blocked,
    /// The connection failed meanwhile.
    Cut(String),
}

/// What makes a message count: it must be routed, and kept on disk.
pub(super) const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// A channel in confirm mode on the present connection.
pub(super) struct Outlet {
    wires: watch::Receiver<Option<Wire>>,
    limit: Duration,
    open: Option<(u64, Channel)>,
}

impl Outlet {
    pub(super) const fn new(wires: watch::Receiver<Option<Wire>>, limit: Duration) -> Self {
        Self { wires, limit, open: None }
    }

    /// A channel to publish on, and its connection.
    pub(super) async fn channel(&mut self) -> Result<(Wire, Channel), Trouble> {
        let wire = self.wires.borrow().clone().ok_or(Trouble::Away)?;
        if wire.blocked() {
            return Err(Trouble::Blocked);
        }
        if let Some((number, channel)) = &self.open
            && *number == wire.number
            && channel.status().connected()
        {
            return Ok((wire, channel.clone()));
        }
        let channel = wire.channel(self.limit).await.map_err(Trouble::Cut)?;
        within(self.limit, channel.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(Trouble::Cut)?;
        self.open = Some((wire.number, channel.clone()));
        Ok((wire, channel))
    }

    /// Publishes one message and waits for its confirm.
    pub(super) async fn publish(
        &mut self,
        (exchange, key): (&str, &str),
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Fate, Trouble> {
        let (wire, channel) = self.channel().await?;
        let sent = async {
            channel.basic_publish(exchange.into(), key.into(), MANDATORY, body, properties).await?.await
        };
        match within(self.limit, sent).await {
            Ok(confirmation) => Ok(fate_of(&confirmation)),
            Err(_) if wire.blocked() => Err(Trouble::Blocked),
            Err(why) => {
                wire.suspect(&why);
                Err(Trouble::Cut(why))
            }
        }
    }
}

/// What a confirm says. A returned message is confirmed as well: the broker handled it, nobody got it.
pub(super) const fn fate_of(confirmation: &Confirmation) -> Fate {
    match confirmation {
        Confirmation::Ack(None) => Fate::Confirmed,
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Fate::Returned,
        Confirmation::Nack(None) | Confirmation::NotRequested => Fate::Refused,
    }
}

/// The AMQP properties that say the same as the envelope.
pub(super) fn properties_of(envelope: &Envelope) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("schema".into(), text(&envelope.schema));
    if let Some(trace) = &envelope.traceparent {
        headers.insert("traceparent".into(), text(trace));
    }
    let seconds = u64::try_from(envelope.issued_at / 1_000_000).unwrap_or(0);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(envelope.message_id.to_string().into())
        .with_type(envelope.kind.as_str().into())
        .with_timestamp(seconds)
        .with_app_id("dispatcher".into())
        .with_headers(headers);
    match &envelope.job_id {
        Some(job) => properties.with_correlation_id(job.as_str().into()),
        None => properties,
    }
}

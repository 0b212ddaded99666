//! Taking the names of an installation away from its broker.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use super::Address;
use super::link::within;
use crate::config::{self, ms};
use crate::model::Boot;
use crate::mq::{Error, Line, Names};

/// Deletes every queue and exchange of the prefix; those that are not there are no fault. Queues of nodes end with their
/// connections.
///
/// # Errors
/// [`Error`] says which setting is wrong, or what the broker refused.
pub(in crate::mq) async fn forget(settings: &config::Queue) -> Result<(), Error> {
    let address = Address::of(settings)?;
    let names = Names::new(&settings.prefix, Boot::random());
    let refused = |text: String| Error::Forget { at: address.shown(), text };
    delete(&address, &names, ms(settings.connect_ms)).await.map_err(refused)
}

async fn delete(address: &Address, names: &Names, limit: Duration) -> Result<(), String> {
    let connection = address.dial("dispatcher: taking names away", limit).await?;
    let channel = within(limit, connection.create_channel()).await?;
    let lines = Line::ALL.into_iter().filter(|line| *line != Line::Node).map(|line| names.queue(line, 0));
    for queue in lines.chain([names.dead()]) {
        within(limit, channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await?;
    }
    for exchange in [names.exchange(), names.dead()] {
        within(limit, channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default())).await?;
    }
    within(limit, connection.close(200, "closing".into())).await
}

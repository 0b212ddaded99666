//! The relay: reads the outbox, publishes with confirms, deletes what was confirmed. A crash between confirm and delete
//! publishes again, which is harmless.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio::time::{Instant, MissedTickBehavior};

use super::House;
use super::link::Wire;
use super::outlet::{Fate, MANDATORY, Outlet, Trouble, fate_of, properties_of};
use crate::model::Micros;
use crate::mq::Envelope;
use crate::ops::failpoint::hit;
use crate::store;
use crate::store::provisioning::outbox::{self, OutboxRow};
use crate::supervision::{Life, Supervised};

/// Messages in flight at the same time, and so the most that is kept in memory.
const PAGE: usize = 512;
/// How often it looks without being woken, and looks again after a failure.
const LOOK: Duration = Duration::from_secs(1);
/// Rows of another process are left to it for so long.
const OTHERS: Duration = Duration::from_secs(10);

/// Links of the relay.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) house: Arc<House>,
}

/// See the module.
pub(super) struct Relay {
    spec: Spec,
    life: Life,
}

impl Supervised for Relay {
    type Spec = Spec;
    const KIND: &'static str = "outbox-relay";

    fn key(spec: &Spec) -> String {
        spec.house.parts.boot.to_string()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for Relay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let relaying = relay(Arc::clone(&self.spec.house));
        ctx.spawn(relaying.into_actor(self).map(|(), actor, _| actor.life.fail("the loop ended")));
        let counting = count(Arc::clone(&self.spec.house));
        ctx.spawn(counting.into_actor(self).map(|(), actor, _| actor.life.fail("the count ended")));
    }
}

#[cfg(test)]
impl Relay {
    pub(super) fn fail_for_test(&self) {
        self.life.fail("on demand");
    }
}

async fn relay(house: Arc<House>) {
    let mut outlet = Outlet::new(house.publish.subscribe(), house.bounds.confirm);
    let mut wires = house.publish.subscribe();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut after = i64::MIN;
    loop {
        tokio::select! {
            () = house.wake.notified() => {}
            // What stayed behind, or was written by others.
            _ = look.tick() => after = i64::MIN,
            _ = wires.changed() => after = i64::MIN,
        }
        match pass(&house, &mut outlet, &mut after).await {
            Ok(()) => continue,
            Err(Stop::Trouble(Trouble::Away | Trouble::Blocked)) => {}
            Err(Stop::Trouble(Trouble::Cut(why))) => log::info!("messages stay in the outbox: {why}"),
            Err(Stop::Store(error)) => log::warn!("the outbox cannot be read, it is tried again: {error}"),
        }
        after = i64::MIN;
    }
}

/// Why a pass ended before the end of the outbox.
enum Stop {
    Trouble(Trouble),
    Store(store::Error),
}

/// Through the outbox to its end, from behind an id on. What a queue does not take stays behind and delays nothing after
/// it. A server takes its time to forget what was deleted, so a pass that was woken does not look there again: its own
/// ids rise in the order of their commits.
async fn pass(house: &House, outlet: &mut Outlet, after: &mut i64) -> Result<(), Stop> {
    loop {
        let (wire, channel) = outlet.channel().await.map_err(Stop::Trouble)?;
        let (from, limit) = (*after, i64::try_from(PAGE).unwrap_or(i64::MAX));
        let read = house.parts.store.read(move |c| outbox::page(c, from, limit));
        let mut rows = read.await.map_err(Stop::Store)?;
        let full = rows.len() == PAGE;
        let Some(last) = rows.last() else { return Ok(()) };
        *after = last.id;
        let now = Micros::wall();
        rows.retain(|row| is_ours(row, house.tag, now));
        if !rows.is_empty() {
            hit("outbox.before");
        }
        let (confirmed, trouble) = publish(house, (&wire, &channel), rows).await;
        if !confirmed.is_empty() {
            hit("outbox.confirmed");
            let delete = house.parts.store.write(move |c| outbox::delete(c, &confirmed));
            delete.await.map_err(Stop::Store)?;
            hit("outbox.deleted");
        }
        if let Some(trouble) = trouble {
            return Err(Stop::Trouble(trouble));
        }
        if !full {
            return Ok(());
        }
    }
}

/// Each process publishes what it wrote, and what another left for too long because it is gone.
fn is_ours(row: &OutboxRow, tag: i64, now: Micros) -> bool {
    outbox::tag_of(row.id) == tag || now.since(Micros(row.made_at)) > OTHERS
}

/// Publishes all, then waits for all confirms: ids of what may be deleted, and what went wrong.
async fn publish(
    house: &House,
    (wire, channel): (&Wire, &Channel),
    rows: Vec<OutboxRow>,
) -> (Vec<i64>, Option<Trouble>) {
    let deadline = Instant::now() + house.bounds.confirm;
    let mut sent: Vec<(i64, PublisherConfirm)> = Vec::with_capacity(rows.len());
    let mut why = None;
    for row in rows {
        match tokio::time::timeout_at(deadline, send(channel, &row)).await {
            Ok(Ok(confirm)) => sent.push((row.id, confirm)),
            Ok(Err(error)) => why = Some(error.to_string()),
            Err(_late) => why = Some("a message was not taken in time".to_owned()),
        }
        if why.is_some() {
            break;
        }
    }
    let mut confirmed = Vec::with_capacity(sent.len());
    let (mut returned, mut refused, mut unanswered) = (0, 0, 0);
    for (id, confirm) in sent {
        match tokio::time::timeout_at(deadline, confirm).await {
            Ok(Ok(answer)) => match fate_of(&answer) {
                Fate::Confirmed => confirmed.push(id),
                Fate::Returned => returned += 1,
                Fate::Refused => refused += 1,
            },
            Ok(Err(error)) => (unanswered, why) = (unanswered + 1, Some(error.to_string())),
            Err(_late) => (unanswered, why) = (unanswered + 1, Some("a confirm did not come in time".into())),
        }
    }
    let figures = house.parts.metrics.queue();
    figures.published(Fate::Confirmed.as_str(), confirmed.len());
    figures.published(Fate::Returned.as_str(), returned);
    figures.published(Fate::Refused.as_str(), refused);
    figures.published("unanswered", unanswered);
    let trouble = why.map(|why| {
        if wire.blocked() {
            return Trouble::Blocked;
        }
        wire.suspect(&why);
        Trouble::Cut(why)
    });
    (confirmed, trouble)
}

async fn send(channel: &Channel, row: &OutboxRow) -> lapin::Result<PublisherConfirm> {
    let properties = match Envelope::parse(row.body.as_bytes()) {
        Ok(envelope) => properties_of(&envelope),
        // Its readers say what is wrong with it, in the dead letters.
        Err(_) => BasicProperties::default().with_delivery_mode(2),
    };
    let (exchange, key) = (row.exchange.as_str().into(), row.routing_key.as_str().into());
    channel.basic_publish(exchange, key, MANDATORY, row.body.as_bytes(), properties).await
}

/// Shows how far behind the relay is, whether the broker is there or not.
async fn count(house: Arc<House>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Ok((rows, oldest)) = house.parts.store.read(outbox::backlog).await {
            house.parts.metrics.queue().outbox(rows, oldest.map_or(Duration::ZERO, House::since));
        }
    }
}

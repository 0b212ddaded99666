//! The connection owner: dials, declares the topology, watches, and dials again. lapin's own recovery stays off,
//! because whoever uses a connection has to know that it is another one.
//!
//! Publishing and consuming have a connection each: a broker short of memory stops reading from those that publish,
//! and acknowledgements must go on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt as _;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Event, ExchangeKind};
use tokio::sync::Notify;

use super::House;
use crate::mq::{Line, Names};
use crate::ops::{Health, Metrics, State};
use crate::supervision::{Life, Supervised};

/// A message is delivered so often at most; once more and it goes to the dead letters.
const DELIVERIES: u16 = 5;
/// Messages a queue holds at most; one more is refused, and stays in the outbox.
const QUEUE_HOLDS: u32 = 1_000_000;
/// Dead letters kept for an operator; the oldest go first.
const DEAD_KEPT: u32 = 100_000;
/// How often a standing connection is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two counts of the dead letters.
const LOOKS_PER_COUNT: u32 = 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Messages go out.
    Publish,
    /// Messages come in.
    Consume,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A standing connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wire {
    connection: Arc<Connection>,
    /// Rises with each connection of this process.
    pub(super) number: u64,
    suspect: Arc<Notify>,
}

impl Wire {
    /// Opens a channel.
    pub(super) async fn channel(&self, limit: Duration) -> Result<Channel, String> {
        within(limit, self.connection.create_channel()).await
    }

    /// Whether the broker takes no messages at present.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says that this connection does not do what it should: it is given up and another is made.
    pub(super) fn suspect(&self, why: &str) {
        log::info!("connection {} to the broker is given up: {why}", self.number);
        self.suspect.notify_one();
    }
}

/// Runs a request to the broker under a time limit.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, Box::pin(request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err(format!("no answer within {limit:?}")),
    }
}

/// How one connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    Blocked(String),
    Down(String),
}

/// How the queue is as a whole, for health and figures. Never red: jobs are accepted and go on without a broker.
pub(super) struct Mode {
    at: String,
    health: Health,
    metrics: Metrics,
    standing: Mutex<[Standing; 2]>,
}

impl Mode {
    pub(super) fn new(at: String, health: Health, metrics: Metrics) -> Self {
        let down = Standing::Down("not connected yet".to_owned());
        let mode = Self { at, health, metrics, standing: Mutex::new([down.clone(), down]) };
        mode.show();
        mode
    }

    fn set(&self, purpose: Purpose, standing: Standing) {
        let up = !matches!(standing, Standing::Down(_));
        self.metrics.queue().connected(purpose.as_str(), up);
        if purpose == Purpose::Publish {
            self.metrics.queue().blocked(matches!(standing, Standing::Blocked(_)));
        }
        let mut both = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let [publish, consume] = &mut *both;
        match purpose {
            Purpose::Publish => *publish = standing,
            Purpose::Consume => *consume = standing,
        }
        drop(both);
        self.show();
    }

    fn show(&self) {
        let both = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let at = &self.at;
        let (state, reason) = match &*both {
            [Standing::Down(why), _] | [_, Standing::Down(why)] => {
                (State::Degraded, format!("amqp: no connection to {at}: {why}; messages wait in the outbox"))
            }
            [Standing::Blocked(why), _] | [_, Standing::Blocked(why)] => {
                (State::Degraded, format!("amqp: {at} takes no messages: {why}; they wait in the outbox"))
            }
            [Standing::Up, Standing::Up] => (State::Ok, format!("amqp: connected to {at}")),
        };
        self.health.set("queue", state, reason);
    }
}

/// Links of a connection owner.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) house: Arc<House>,
    pub(super) purpose: Purpose,
}

impl Spec {
    fn post(&self, wire: Option<Wire>) {
        match self.purpose {
            Purpose::Publish => &self.house.publish,
            Purpose::Consume => &self.house.consume,
        }
        .send_replace(wire);
    }
}

/// See the module.
pub(super) struct Link {
    spec: Spec,
    life: Life,
}

impl Supervised for Link {
    type Spec = Spec;
    const KIND: &'static str = "queue-connection";

    fn key(spec: &Spec) -> String {
        spec.purpose.as_str().to_owned()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for Link {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let keeping = keep(self.spec.clone());
        ctx.spawn(keeping.into_actor(self).map(|(), actor, _| actor.life.fail("the loop ended")));
    }
}

#[cfg(test)]
impl Link {
    pub(super) fn fail_for_test(&self) {
        self.life.fail("on demand");
    }
}

/// Takes the connection away from its users when its owner ends, however it does.
struct Posted(Spec);

impl Drop for Posted {
    fn drop(&mut self) {
        self.0.post(None);
    }
}

async fn keep(spec: Spec) {
    let bounds = spec.house.bounds;
    let mut pause = bounds.reconnect_first;
    loop {
        let why = match up(&spec).await {
            Ok(wire) => {
                pause = bounds.reconnect_first;
                let posted = Posted(spec.clone());
                spec.post(Some(wire.clone()));
                spec.house.mode.set(spec.purpose, Standing::Up);
                let why = watch_over(&spec, &wire).await;
                drop(posted);
                let _ = within(bounds.connect, wire.connection.close(200, "closing".into())).await;
                why
            }
            Err(why) => why,
        };
        spec.house.mode.set(spec.purpose, Standing::Down(why));
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(bounds.reconnect_most);
    }
}

/// Between three quarters and the whole of a pause, so that many processes do not come back together.
fn jittered(pause: Duration) -> Duration {
    let quarter = u64::try_from(pause.as_micros() / 4).unwrap_or(u64::MAX);
    let off = getrandom::u64().unwrap_or(0).checked_rem(quarter).unwrap_or(0);
    pause.saturating_sub(Duration::from_micros(off))
}

async fn up(spec: &Spec) -> Result<Wire, String> {
    let house = &spec.house;
    let name = format!("dispatcher {} {}", house.parts.boot, spec.purpose.as_str());
    let connection = house.address.dial(&name, house.bounds.connect).await?;
    let number = house.connections.fetch_add(1, Ordering::Relaxed);
    let wire = Wire { connection: Arc::new(connection), number, suspect: Arc::new(Notify::new()) };
    let channel = wire.channel(house.bounds.connect).await?;
    within(house.bounds.connect, declare(&channel, &house.names)).await?;
    Ok(wire)
}

/// Returns why the connection can no longer be used.
async fn watch_over(spec: &Spec, wire: &Wire) -> String {
    let mut events = Box::pin(wire.connection.events_listener());
    let mut look = tokio::time::interval(LOOK);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(why)) => {
                    spec.house.mode.set(spec.purpose, Standing::Blocked(why));
                }
                Some(Event::ConnectionUnblocked) => {
                    spec.house.mode.set(spec.purpose, Standing::Up);
                    spec.house.wake.notify_one();
                }
                Some(Event::Error(error)) => return error.to_string(),
                None => return "its events ended".to_owned(),
                Some(_) => {}
            },
            () = wire.suspect.notified() => return "it did not answer in time".to_owned(),
            _ = look.tick() => {
                if !wire.connection.status().connected() {
                    return "it was cut".to_owned();
                }
                if looks.is_multiple_of(LOOKS_PER_COUNT) && spec.purpose == Purpose::Consume {
                    count_dead(spec, wire).await;
                }
                looks = looks.wrapping_add(1);
            }
        }
    }
}

async fn count_dead(spec: &Spec, wire: &Wire) {
    let limit = spec.house.bounds.connect;
    let Ok(channel) = wire.channel(limit).await else { return };
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(spec.house.names.dead().into(), options, FieldTable::default());
    if let Ok(queue) = within(limit, asked).await {
        spec.house.parts.metrics.queue().dead_letters(queue.message_count());
    }
}

/// Declares what all processes share; again on each connection, because an operator or a new broker may have lost it.
async fn declare(channel: &Channel, names: &Names) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for exchange in [names.exchange(), names.dead()] {
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await?;
    }
    let mut kept = FieldTable::default();
    kept.insert("x-queue-type".into(), text("quorum"));
    kept.insert("x-max-length".into(), AMQPValue::LongUInt(DEAD_KEPT));
    channel.queue_declare(names.dead().into(), lasting(), kept).await?;
    bind(channel, names.dead(), names.dead(), "#").await?;
    for line in Line::ALL.into_iter().filter(|line| *line != Line::Node) {
        let queue = names.queue(line, 0);
        channel.queue_declare(queue.clone().into(), lasting(), shared(names)).await?;
        bind_line(channel, names, line, &queue).await?;
    }
    Ok(())
}

/// Declares this node's own queue, which ends with its connection.
pub(super) async fn declare_node(channel: &Channel, names: &Names, queue: &str) -> lapin::Result<()> {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongUInt(QUEUE_HOLDS));
    arguments.insert("x-dead-letter-exchange".into(), text(&names.dead()));
    channel.queue_declare(queue.into(), own, arguments).await?;
    bind_line(channel, names, Line::Node, queue).await
}

async fn bind_line(channel: &Channel, names: &Names, line: Line, queue: &str) -> lapin::Result<()> {
    for key in line.keys() {
        bind(channel, queue.to_owned(), names.exchange(), key).await?;
    }
    bind(channel, queue.to_owned(), names.exchange(), &names.canary(line)).await
}

async fn bind(channel: &Channel, queue: String, exchange: String, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
}

fn lasting() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

fn shared(names: &Names) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    // The limit counts redeliveries.
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(u32::from(DELIVERIES - 1)));
    arguments.insert("x-dead-letter-exchange".into(), text(&names.dead()));
    arguments.insert("x-max-length".into(), AMQPValue::LongUInt(QUEUE_HOLDS));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

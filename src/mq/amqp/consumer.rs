//! A reader of one queue: hands hints to the parts of this process, and writes verdicts down. A message is acknowledged
//! when what it asks for is committed, handed back when its handler panics, and put to the dead letters with the reason
//! when nobody can ever use it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties, Channel};
use tokio::sync::{Mutex, mpsc, watch};

use super::House;
use super::link::{Wire, declare_node, text, within};
use super::outlet::{Fate, Outlet, Trouble, properties_of};
use crate::model::{Epoch, Micros};
use crate::mq::{Content, Envelope, LARGEST, Line, Nudge, Refused, Said, decode_dated};
use crate::supervision::{Life, Supervised};

/// How often readers and deliveries are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A hint nobody settled for so long is acknowledged: the sweep knows its row as well.
const OVERDUE: Duration = Duration::from_secs(60);
/// Pause after a queue could not be read.
const AGAIN: Duration = Duration::from_millis(200);

/// Links of a reader.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) house: Arc<House>,
    pub(super) line: Line,
}

/// See the module.
pub(super) struct Consumer {
    spec: Spec,
    life: Life,
}

impl Supervised for Consumer {
    type Spec = Spec;
    const KIND: &'static str = "queue-reader";

    fn key(spec: &Spec) -> String {
        spec.line.as_str().to_owned()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let seen = Arc::new(Seen { serving: AtomicBool::new(false), at: AtomicI64::new(0) });
        let reading = read(self.spec.clone(), Arc::clone(&seen));
        ctx.spawn(reading.into_actor(self).map(|(), actor, _| actor.life.fail("the loop ended")));
        let proving = prove(self.spec.clone(), seen);
        ctx.spawn(proving.into_actor(self).map(|(), actor, _| actor.life.fail("the canaries ended")));
    }
}

#[cfg(test)]
impl Consumer {
    pub(super) fn fail_for_test(&self) {
        self.life.fail("on demand");
    }
}

/// When a canary last came through.
struct Seen {
    serving: AtomicBool,
    at: AtomicI64,
}

/// Sends canaries through the queue while it is read here, and shows how long ago one came.
async fn prove(spec: Spec, seen: Arc<Seen>) {
    let house = &spec.house;
    let mut outlet = Outlet::new(house.publish.subscribe(), house.bounds.confirm);
    let mut next = Micros(0);
    let (exchange, key) = (house.names.exchange(), house.names.canary(spec.line));
    loop {
        tokio::time::sleep(LOOK).await;
        let (now, last) = (Micros::wall(), Micros(seen.at.load(Ordering::Relaxed)));
        // It grows on while the broker is away.
        if last.0 > 0 && wanted(&spec) {
            house.parts.metrics.queue().canary_age(spec.line.as_str(), now.since(last));
        }
        if now < next || !seen.serving.load(Ordering::Relaxed) {
            continue;
        }
        next = now.plus(house.bounds.canary);
        let canary = Envelope::canary(now);
        let sent =
            outlet.publish((&exchange, &key), canary.encode().as_bytes(), properties_of(&canary)).await;
        if sent != Ok(Fate::Confirmed) {
            log::debug!("no canary through queue {}: {sent:?}", spec.line.as_str());
        }
    }
}

/// Reads for as long as somebody in this process wants to know.
async fn read(spec: Spec, seen: Arc<Seen>) {
    let house = Arc::clone(&spec.house);
    let (mut wires, mut readers) = (house.consume.subscribe(), house.readers.changes());
    loop {
        while !wanted(&spec) {
            let _ = readers.changed().await;
        }
        let Ok(wire) = wires.wait_for(Option::is_some).await.map(|wire| wire.clone()) else { return };
        let Some(wire) = wire else { continue };
        match Session::open(&spec, &wire, Arc::clone(&seen)).await {
            Ok(mut session) => {
                let why = session.serve(&mut wires, &mut readers).await;
                log::debug!("queue {} is not read any more: {why}", spec.line.as_str());
                session.end().await;
            }
            Err(why) => wire.suspect(&why),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn wanted(spec: &Spec) -> bool {
    spec.line.topics().is_empty() || spec.house.readers.any(spec.line.topics())
}

/// What is to be done with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Ack,
    /// Back into the queue, which counts it.
    Requeue,
    /// The broker puts it to the dead letters.
    Reject,
}

/// One consumer on one channel of one connection.
struct Session {
    spec: Spec,
    seen: Arc<Seen>,
    /// The readers it serves.
    readers: Vec<u64>,
    channel: Channel,
    stream: lapin::Consumer,
    settled: mpsc::UnboundedReceiver<Acker>,
    outlet: Rc<Mutex<Outlet>>,
    work: FuturesUnordered<LocalBoxFuture<'static, (Acker, Verb)>>,
}

impl Session {
    async fn open(spec: &Spec, wire: &Wire, seen: Arc<Seen>) -> Result<Self, String> {
        let (house, line) = (&spec.house, spec.line);
        let limit = house.bounds.connect;
        let channel = wire.channel(limit).await?;
        let queue = house.names.queue(line, wire.number);
        if line == Line::Node {
            within(limit, declare_node(&channel, &house.names, &queue)).await?;
        }
        within(limit, channel.basic_qos(house.bounds.prefetch, BasicQosOptions::default())).await?;
        let readers = house.readers.who(line.topics());
        let settled = house.pending.open(line);
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let stream = within(limit, consuming).await?;
        seen.at.store(Micros::wall().0, Ordering::Relaxed);
        seen.serving.store(true, Ordering::Relaxed);
        let outlet = Rc::new(Mutex::new(Outlet::new(house.publish.subscribe(), house.bounds.confirm)));
        let spec = spec.clone();
        Ok(Self { spec, seen, readers, channel, stream, settled, outlet, work: FuturesUnordered::new() })
    }

    /// Returns why it cannot go on.
    async fn serve(
        &mut self,
        wires: &mut watch::Receiver<Option<Wire>>,
        changes: &mut watch::Receiver<u64>,
    ) -> &'static str {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = wires.changed() => return "its connection went",
                _ = changes.changed() => {
                    if self.spec.house.readers.who(self.spec.line.topics()) != self.readers {
                        return "it has another reader";
                    }
                }
                Some(acker) = self.settled.recv() => Self::answer(&acker, Verb::Ack).await,
                Some((acker, verb)) = self.work.next(), if !self.work.is_empty() => {
                    Self::answer(&acker, verb).await;
                }
                next = self.stream.next() => match next {
                    Some(Ok(delivery)) => self.delivered(delivery).await,
                    Some(Err(_)) | None => return "the broker ended it",
                },
                _ = look.tick() => {
                    for acker in self.spec.house.pending.overdue(self.spec.line, OVERDUE) {
                        self.count("overdue");
                        Self::answer(&acker, Verb::Ack).await;
                    }
                    if !wanted(&self.spec) {
                        return "its reader ended";
                    }
                }
            }
        }
    }

    /// Gives back what was not settled, by closing the channel.
    async fn end(self) {
        self.seen.serving.store(false, Ordering::Relaxed);
        let held = self.spec.house.pending.held(self.spec.line);
        if held > 0 {
            log::debug!("{held} messages of queue {} are delivered again", self.spec.line.as_str());
        }
        drop(self.spec.house.pending.open(self.spec.line));
        let _ = within(self.spec.house.bounds.connect, self.channel.close(200, "closing".into())).await;
    }

    async fn delivered(&mut self, delivery: Delivery) {
        if delivery.redelivered {
            self.count("redelivered");
        }
        match caught(|| understood(self.spec.line, &delivery.data)) {
            Err(()) => {
                self.count("panicked");
                Self::answer(&delivery.acker, Verb::Requeue).await;
            }
            Ok(Err(refused)) => self.bury(delivery, refused.to_string()),
            Ok(Ok((Content::Canary, _))) => {
                self.seen.at.store(Micros::wall().0, Ordering::Relaxed);
                Self::answer(&delivery.acker, Verb::Ack).await;
            }
            Ok(Ok((Content::Nudge(nudge), written))) => {
                if self.spec.house.pending.is_overtaken(nudge, written) {
                    self.count("overtaken");
                    return Self::answer(&delivery.acker, Verb::Ack).await;
                }
                self.hint(nudge, delivery.acker);
            }
            Ok(Ok((Content::Verdict(said), _))) => self.hear(*said, delivery.acker),
        }
    }

    fn hint(&self, nudge: Nudge, acker: Acker) {
        let house = &self.spec.house;
        self.count("taken");
        house.pending.hold(self.spec.line, nudge, acker);
        if !house.readers.tell(nudge) {
            // Nobody of this process wants it; a queue that has no other reader is left at the next look.
            house.pending.settle(nudge);
        }
    }

    fn hear(&self, said: Said, acker: Acker) {
        let house = Arc::clone(&self.spec.house);
        self.count("taken");
        self.work.push(Box::pin(async move {
            let heard = AssertUnwindSafe(house.desk.hear(&said)).catch_unwind().await;
            house.wake.notify_one();
            (acker, if heard.is_ok() { Verb::Ack } else { Verb::Requeue })
        }));
    }

    /// Puts a message to the dead letters with the reason; where that cannot be published, the broker does it.
    fn bury(&self, delivery: Delivery, reason: String) {
        let (line, names) = (self.spec.line, self.spec.house.names.clone());
        log::warn!("a message of queue {} goes to the dead letters: {reason}", line.as_str());
        self.count("dead");
        let outlet = Rc::clone(&self.outlet);
        self.work.push(Box::pin(async move {
            let Delivery { data, routing_key, properties, acker, .. } = delivery;
            let body = data.get(..LARGEST).unwrap_or(&data);
            let buried = tombstone(properties, line, &reason, data.len());
            let dead = names.dead();
            let sent = outlet.lock().await.publish((&dead, routing_key.as_str()), body, buried).await;
            let verb = match sent {
                Ok(Fate::Confirmed) => Verb::Ack,
                Ok(_) | Err(Trouble::Away | Trouble::Blocked | Trouble::Cut(_)) => Verb::Reject,
            };
            (acker, verb)
        }));
    }

    /// An answer that does not get through is none: the message comes again.
    async fn answer(acker: &Acker, verb: Verb) {
        let sent = match verb {
            Verb::Ack => acker.ack(BasicAckOptions::default()).await,
            Verb::Requeue => acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            Verb::Reject => acker.reject(BasicRejectOptions { requeue: false }).await,
        };
        if let Err(error) = sent {
            log::debug!("a message was not answered: {error}");
        }
    }

    fn count(&self, outcome: &'static str) {
        self.spec.house.parts.metrics.queue().consumed(self.spec.line.as_str(), outcome);
    }
}

/// What a message of this queue asks for.
fn understood(line: Line, data: &[u8]) -> Result<(Content, Option<Epoch>), Refused> {
    #[cfg(test)]
    if data.starts_with(super::tests::POISON) {
        panic!("a poison message");
    }
    let (content, written) = decode_dated(data)?;
    let fits = match &content {
        Content::Canary => true,
        Content::Nudge(nudge) => Line::of(*nudge) == line,
        Content::Verdict(_) => line == Line::Verdicts,
    };
    if fits { Ok((content, written)) } else { Err(Refused::Misplaced(line.as_str())) }
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(work)).map_err(drop)
}

/// Properties of a dead letter: those it had, and why it is here.
fn tombstone(properties: BasicProperties, line: Line, reason: &str, size: usize) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert("x-dispatcher-reason".into(), text(reason));
    headers.insert("x-dispatcher-queue".into(), text(line.as_str()));
    headers
        .insert("x-dispatcher-size".into(), AMQPValue::LongLongInt(i64::try_from(size).unwrap_or(i64::MAX)));
    properties.with_headers(headers).with_delivery_mode(2)
}

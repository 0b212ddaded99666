//! The queue over a real RabbitMQ: `DISPATCHER_TEST_RABBITMQ=amqp://127.0.0.1:PORT`. Each test has names of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::consumer::Consumer;
use super::link::Link;
use super::relay::Relay;
use super::{Address, Amqp};
use crate::config::Queue as Settings;
use crate::model::{Boot, JobUid, ServerId, Uid, WatchKind, WatchUid};
use crate::mq::conformance::{LONG, Rig, next, rows, suite, until};
use crate::mq::{LARGEST, Line, Nudge, Parts, Queue, SCHEMA, Topic};
use crate::ops::{Health, Metrics, State};
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::{job, outbox, transition, watch as watches};
use crate::supervision::{Mailbox, Supervisor};

/// What a message begins with whose handler is to panic.
pub(super) const POISON: &[u8] = b"poison on demand";

/// The broker's address, or a loud word that there is none; with `CI=true` that is a failure.
fn broker() -> Option<String> {
    let url = std::env::var("DISPATCHER_TEST_RABBITMQ").ok();
    if url.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "DISPATCHER_TEST_RABBITMQ must be set");
        eprintln!("!! SKIPPED: RabbitMQ; set DISPATCHER_TEST_RABBITMQ=amqp://127.0.0.1:PORT");
    }
    url
}

fn settings(url: String) -> Settings {
    let prefix: String = format!("t-{}", Uid::random()).chars().take(16).collect();
    Settings { url, prefix, reconnect_first_ms: 20, canary_ms: 200, ..Settings::default() }
}

struct Rabbit {
    rig: Rig,
    queue: Arc<Amqp>,
    metrics: Metrics,
    health: Health,
    supervisor: Supervisor,
}

async fn rabbit() -> Option<Rabbit> {
    let settings = settings(broker()?);
    let rabbit = begin(&settings);
    rabbit.until("it is connected", |r| r.queue.house.publish.borrow().is_some()).await;
    Some(rabbit)
}

fn begin(settings: &Settings) -> Rabbit {
    let (store, folder) = rows();
    let (metrics, health) = (Metrics::new(), Health::new());
    let supervisor = Supervisor::new(health.clone());
    let parts = Parts {
        supervisor: supervisor.clone(),
        store: store.clone(),
        sequencer: Sequencer::new(store.clone()),
        boot: Boot::random(),
        metrics: metrics.clone(),
        health: health.clone(),
        told: Arc::new(|_| {}),
    };
    let address = Address::of(settings).expect("an address");
    let queue = Arc::new(Amqp::start(address, settings, parts));
    let rig = Rig::new(Arc::clone(&queue) as Arc<dyn Queue>, store, folder);
    Rabbit { rig, queue, metrics, health, supervisor }
}

async fn rig() -> Option<Rig> {
    Some(rabbit().await?.rig)
}

suite!(rig);

impl Rabbit {
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + LONG;
        while !holds(self) {
            assert!(Instant::now() < limit, "not within {LONG:?}: {what}\n{}", self.metrics.encode());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_shown(&self, line: &str) {
        self.until(line, |r| r.metrics.encode().lines().any(|shown| shown == line)).await;
    }

    async fn channel(&self) -> Channel {
        let wire = self.queue.house.publish.borrow().clone().expect("connected");
        wire.channel(LONG).await.expect("a channel")
    }

    async fn send(&self, key: &str, body: &[u8]) {
        let channel = self.channel().await;
        let exchange = self.queue.house.names.exchange();
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default().with_delivery_mode(2);
        channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.expect("sent");
    }

    /// The next dead letter, acknowledged.
    async fn dead(&self, channel: &Channel) -> BasicGetMessage {
        let limit = Instant::now() + LONG;
        loop {
            let name = self.queue.house.names.dead();
            if let Some(letter) =
                channel.basic_get(name.into(), BasicGetOptions::default()).await.expect("open")
            {
                letter.ack(BasicAckOptions::default()).await.expect("acknowledged");
                return letter;
            }
            assert!(Instant::now() < limit, "no dead letter within {LONG:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a private broker need not keep.
    async fn clear(self) {
        let channel = self.channel().await;
        let names = &self.queue.house.names;
        let shared = [Line::Due, Line::Watch, Line::Work, Line::Verdicts].map(|line| names.queue(line, 0));
        for queue in shared.into_iter().chain([names.dead()]) {
            if let Err(error) = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await {
                eprintln!("a queue is left to the private broker: {error}");
                return;
            }
        }
    }

    fn reader(&self, line: Line) -> Mailbox<Consumer> {
        let place = Line::ALL.iter().position(|other| *other == line).expect("one of all");
        self.queue.actors.consumers[place].clone()
    }

    fn restarts(&self, kind: &str, key: &str) -> u64 {
        let shown = self.supervisor.snapshots();
        shown.iter().filter(|s| s.kind == kind && (key.is_empty() || s.key == key)).map(|s| s.restarts).sum()
    }
}

fn header(letter: &BasicGetMessage, name: &str) -> String {
    let headers: FieldTable = letter.properties.headers().clone().unwrap_or_default();
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => format!("{other:?}"),
    }
}

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
enum Break {
    Panic,
    Fail,
    Stop,
}

macro_rules! breakable {
    ($($actor:ty),+) => {$(
        impl Handler<Break> for $actor {
            type Result = ();

            fn handle(&mut self, how: Break, ctx: &mut Context<Self>) {
                match how {
                    Break::Panic => panic!("on demand"),
                    Break::Fail => self.fail_for_test(),
                    Break::Stop => ctx.stop(),
                }
            }
        }
    )+};
}

breakable!(Relay, Consumer, Link);

#[actix_rt::test]
async fn relay_reader_and_connection_that_panic_fail_or_stop_go_on() {
    let Some(rabbit) = rabbit().await else { return };
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    let mut n = 0;
    for how in [Break::Panic, Break::Fail, Break::Stop] {
        let _ = rabbit.queue.actors.relay.ask(how, LONG).await;
        let _ = rabbit.reader(Line::Due).ask(how, LONG).await;
        for link in &rabbit.queue.actors.links {
            let _ = link.ask(how, LONG).await;
        }
        for _ in 0..3 {
            n += 1;
            let nudge = Nudge::Job(rabbit.rig.job(n).await);
            rabbit.rig.say(nudge).await;
            until(&rabbit.rig, &mut reader, nudge).await;
        }
    }
    assert_eq!(rabbit.restarts("outbox-relay", ""), 3);
    assert_eq!(rabbit.restarts("queue-reader", "due"), 3);
    assert_eq!(rabbit.restarts("queue-connection", ""), 6);
    rabbit
        .until("both connections stand", |r| {
            r.health.ready().1.iter().any(|p| p.part == "queue" && p.state == State::Ok)
        })
        .await;
    rabbit.clear().await;
}

#[actix_rt::test]
async fn an_actor_of_the_queue_that_is_given_up_ends_the_process_and_touches_no_neighbour() {
    for kind in ["outbox-relay", "queue-reader", "queue-connection"] {
        let Some(rabbit) = rabbit().await else { return };
        // Before it is ruined: a reader's own messages must not be what breaks it.
        let _reader = rabbit.rig.queue.subscribe(Topic::Jobs);
        let others = |ruined: &str| -> Vec<(&'static str, String, u64)> {
            let all = rabbit.supervisor.snapshots().into_iter();
            let rest = all.filter(|s| (s.kind, s.key.as_str()) != (kind, ruined));
            rest.map(|s| (s.kind, s.key, s.restarts)).collect()
        };
        let found = rabbit.supervisor.snapshots().into_iter().find(|s| s.kind == kind);
        let key = found.unwrap_or_else(|| panic!("there is no {kind}")).key;
        let before = others(&key);
        rabbit.supervisor.ruin(kind, &key).await;
        let reason = rabbit.supervisor.fatal().await;
        assert_eq!(reason, format!("{kind} {key} panicked: tripped and its restarts are used up"));
        assert_eq!(others(&key), before, "no other actor was touched");
        // Without the connection that publishes nothing can be cleared away; the broker is a private one.
        if kind != "queue-connection" {
            rabbit.clear().await;
        }
    }
}

#[actix_rt::test]
async fn what_nobody_can_use_goes_to_the_dead_letters_with_its_reason_and_delays_no_neighbour() {
    let Some(rabbit) = rabbit().await else { return };
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    let good = Nudge::Job(rabbit.rig.job(1).await);
    let envelope = |kind: &str, schema: &str| {
        json!({"schema": schema, "messageId": Uid::random().to_string(), "kind": kind, "issuedAt": 1, "body": {}})
            .to_string()
            .into_bytes()
    };
    let huge = vec![b'x'; 10 * 1024 * 1024];
    let bad = [
        (b"{not json".to_vec(), "malformed"),
        (envelope("job.due", "dispatcher.message/9"), "unknown schema"),
        (envelope("job.explode", SCHEMA), "unknown kind"),
        (envelope("canary-of-another", SCHEMA), "unknown kind"),
        (envelope("job.due", SCHEMA), "names no job"),
        (huge, "oversized: 10485760 bytes"),
        (POISON.to_vec(), ""),
    ];
    for (body, _) in &bad {
        rabbit.send("job.due", body).await;
    }
    let said = Instant::now();
    rabbit.rig.say(good).await;
    until(&rabbit.rig, &mut reader, good).await;
    // Five times the figure.
    assert!(said.elapsed() < Duration::from_secs(5), "a neighbour waited for {:?}", said.elapsed());
    let channel = rabbit.channel().await;
    let mut reasons: Vec<&str> = bad.iter().map(|(_, reason)| *reason).collect();
    while !reasons.is_empty() {
        let letter = rabbit.dead(&channel).await;
        let (ours, brokers) =
            (header(&letter, "x-dispatcher-reason"), header(&letter, "x-first-death-reason"));
        if letter.data.starts_with(POISON) {
            assert!(brokers.contains("delivery_limit"), "{brokers}");
            reasons.retain(|reason| !reason.is_empty());
        } else {
            assert!(letter.data.len() <= LARGEST);
            assert!(header(&letter, "x-dispatcher-queue").contains("due"));
            let place = reasons.iter().position(|reason| !reason.is_empty() && ours.contains(reason));
            reasons.remove(place.unwrap_or_else(|| panic!("{ours} is none of {reasons:?}")));
        }
    }
    assert_eq!(rabbit.restarts("queue-reader", ""), 0, "a poison message breaks no actor");
    rabbit.until_shown("dispatcher_queue_consumed_total{queue=\"due\",outcome=\"panicked\"} 5").await;
    rabbit.clear().await;
}

#[actix_rt::test]
async fn what_a_reader_did_not_settle_is_delivered_to_the_next() {
    let Some(rabbit) = rabbit().await else { return };
    let nudge = Nudge::Job(rabbit.rig.job(1).await);
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    rabbit.rig.say(nudge).await;
    assert_eq!(tokio::time::timeout(LONG, reader.recv()).await.expect("in time"), Some(nudge));
    drop(reader);
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    until(&rabbit.rig, &mut reader, nudge).await;
    rabbit.clear().await;
}

#[actix_rt::test]
async fn a_message_no_queue_wants_stays_in_the_outbox_until_one_does() {
    let Some(rabbit) = rabbit().await else { return };
    // Without a reader of this node there is no queue for its guests.
    let nudge = Nudge::Guest(ServerId(5));
    rabbit.rig.say(nudge).await;
    rabbit
        .until("it came back", |r| r.metrics.encode().contains("queue_published_total{outcome=\"returned\"}"))
        .await;
    assert_eq!(rabbit.rig.store.read(outbox::backlog).await.expect("read").0, 1);
    let mut reader = rabbit.rig.queue.subscribe(Topic::Guests);
    assert_eq!(next(&rabbit.rig, &mut reader).await, nudge);
    rabbit.until_shown("dispatcher_outbox_rows 0").await;
    rabbit.clear().await;
}

#[actix_rt::test]
async fn canaries_prove_that_each_queue_is_read() {
    let Some(rabbit) = rabbit().await else { return };
    let _readers = [Topic::Jobs, Topic::Watches, Topic::Work, Topic::Guests]
        .map(|topic| rabbit.rig.queue.subscribe(topic));
    for line in Line::ALL {
        rabbit
            .until_shown(&format!("dispatcher_queue_canary_age_seconds{{queue=\"{}\"}} 0", line.as_str()))
            .await;
    }
    rabbit.clear().await;
}

fn verdict(watch: &str, job: Option<JobUid>, word: &str) -> Vec<u8> {
    let body = json!({"watchId": watch, "source": "elsewhere", "verdict": word, "text": "seen", "raw": "{}"});
    json!({
        "schema": SCHEMA, "messageId": Uid::random().to_string(), "kind": "verdict",
        "jobId": job.map_or(Value::Null, |job| json!(job.to_string())), "issuedAt": 1, "body": body,
    })
    .to_string()
    .into_bytes()
}

#[actix_rt::test]
async fn a_verdict_from_outside_decides_an_open_watch_once_and_an_unknown_one_never() {
    let Some(rabbit) = rabbit().await else { return };
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    let uid = rabbit.rig.job(1).await;
    let open = rabbit.rig.watch(uid, WatchKind::Cloud, 1).await;
    let forged = rabbit.rig.watch(uid, WatchKind::Cloud, 2).await;

    rabbit.send("verdict", &verdict(&open.to_string(), Some(uid), "reached")).await;
    until(&rabbit.rig, &mut reader, Nudge::Job(uid)).await;
    let row =
        rabbit.rig.store.read(move |c| watches::by_uid(c, open)).await.expect("read").expect("the watch");
    assert!(row.done_at.is_some());

    // A late other word stands beside it, from whoever says it first.
    let early = job::Evidence {
        subject: open.to_string(),
        source: "monitor/x".into(),
        job: uid,
        customer: crate::model::CustomerId(1),
        verdict: crate::model::Verdict::Lost,
        text: String::new(),
        raw: String::new(),
        made_at: crate::model::Micros(0),
    };
    rabbit.rig.store.write(move |c| transition::verdict(c, &early, None)).await.expect("stored");
    rabbit.send("verdict.again", &verdict(&open.to_string(), None, "failed")).await;
    rabbit.until_shown("dispatcher_queue_verdicts_total{outcome=\"noted\"} 1").await;
    let history = rabbit.rig.store.read(move |c| job::history(c, uid)).await.expect("read").expect("the job");
    let sources: Vec<&str> = history.evidence.iter().map(|e| e.source.as_str()).collect();
    assert!(sources.contains(&"queue/elsewhere") && sources.len() == 2, "{sources:?}");

    let nobody = WatchUid::random();
    rabbit.send("verdict", &verdict(&nobody.to_string(), None, "reached")).await;
    rabbit.until_shown("dispatcher_queue_verdicts_total{outcome=\"unknown\"} 1").await;
    rabbit.send("verdict", &verdict(&forged.to_string(), Some(JobUid::random()), "reached")).await;
    rabbit.until_shown("dispatcher_queue_verdicts_total{outcome=\"foreign\"} 1").await;
    let row =
        rabbit.rig.store.read(move |c| watches::by_uid(c, forged)).await.expect("read").expect("the watch");
    assert!(row.done_at.is_none(), "a verdict about another job decides nothing");
    let subject = format!("watch/{nobody}");
    let audited = rabbit.rig.store.read(move |c| transition::audited(c, &subject)).await.expect("read");
    assert_eq!(audited[0].1, "queue.verdict");
    rabbit.clear().await;
}

/// Passes bytes on between clients and the broker until it is told to stand still; sockets stay open all the time.
async fn line_that_can_freeze(to: &str) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://{}", listener.local_addr().expect("an address"));
    let (freeze, frozen) = watch::channel(false);
    let to = to.trim_start_matches("amqp://").to_owned();
    actix_rt::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, frozen) = (to.clone(), frozen.clone());
            actix_rt::spawn(async move {
                let broker = TcpStream::connect(to).await.expect("the broker");
                let ((from_client, to_client), (from_broker, to_broker)) =
                    (client.into_split(), broker.into_split());
                tokio::join!(
                    pass_on(from_client, to_broker, frozen.clone()),
                    pass_on(from_broker, to_client, frozen)
                );
            });
        }
    });
    (url, freeze)
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || *frozen.borrow() || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    if *frozen.borrow() {
        // A frozen connection never thaws: its bytes are gone, as with a machine that was lost.
        std::future::pending::<()>().await;
    }
}

#[actix_rt::test]
async fn a_broker_that_falls_silent_is_noticed_and_dialled_anew() {
    let Some(url) = broker() else { return };
    let (url, freeze) = line_that_can_freeze(&url).await;
    let rabbit = begin(&Settings { heartbeat_s: 1, confirm_ms: 300, connect_ms: 500, ..settings(url) });
    let mut reader = rabbit.rig.queue.subscribe(Topic::Jobs);
    let first = Nudge::Job(rabbit.rig.job(1).await);
    rabbit.rig.say(first).await;
    until(&rabbit.rig, &mut reader, first).await;

    freeze.send_replace(true);
    let second = Nudge::Job(rabbit.rig.job(2).await);
    rabbit.rig.say(second).await;
    rabbit.until_shown("dispatcher_queue_connected{purpose=\"publish\"} 0").await;
    rabbit.until_shown("dispatcher_queue_connected{purpose=\"consume\"} 0").await;
    let health = rabbit.health.ready();
    assert!(health.0, "jobs are accepted without a broker: {health:?}");
    assert_eq!(rabbit.rig.store.read(outbox::backlog).await.expect("read").0, 1);

    freeze.send_replace(false);
    until(&rabbit.rig, &mut reader, second).await;
    rabbit.clear().await;
}

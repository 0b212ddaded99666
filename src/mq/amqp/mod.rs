//! RabbitMQ between the parts: two connections, a relay of the outbox, one reader a queue; each a supervised actor.
//!
//! Nothing here is on the way of a submit: what is to be said lies in the outbox before anybody talks to the broker. A
//! broker that is away, blocked or full makes hints late, and the sweeps by state make them unnecessary.

mod address;
mod consumer;
mod forget;
mod gauge;
mod link;
mod outlet;
mod readers;
mod relay;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

pub use address::Address;
pub(super) use forget::forget;
pub use gauge::Gauge;

use super::{Announce, Line, Names, Nudge, Parts, Queue, Topic};
use crate::config::{self, ms};
use crate::model::{Epoch, JobUid, Micros};
use crate::store::provisioning::outbox;
use crate::supervision::{Limits, Mailbox, Options};
use consumer::Consumer;
use link::{Link, Mode, Purpose, Wire};
use readers::{Pending, Readers};
use relay::Relay;
use verdict::Desk;

/// The queue over RabbitMQ.
pub struct Amqp {
    house: Arc<House>,
    /// For tests, which break them.
    #[cfg(test)]
    actors: Actors,
}

/// Times and bounds.
#[derive(Clone, Copy)]
struct Bounds {
    connect: Duration,
    confirm: Duration,
    reconnect_first: Duration,
    reconnect_most: Duration,
    canary: Duration,
    prefetch: u16,
}

/// What all actors of this room share.
struct House {
    address: Address,
    names: Names,
    announce: Announce,
    /// Names this writer in ids of the outbox.
    tag: i64,
    bounds: Bounds,
    parts: Parts,
    publish: watch::Sender<Option<Wire>>,
    consume: watch::Sender<Option<Wire>>,
    /// Numbers connections, so that a late user of an old one is told from the new.
    connections: AtomicU64,
    mode: Mode,
    wake: Notify,
    readers: Readers,
    pending: Pending,
    desk: Desk,
}

/// The ways to them. They live as long as the process, whoever holds these.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests talk to them"))]
struct Actors {
    links: [Mailbox<Link>; 2],
    relay: Mailbox<Relay>,
    consumers: Vec<Mailbox<Consumer>>,
}

impl Amqp {
    /// Starts the actors. The broker need not be there.
    #[must_use]
    pub fn start(address: Address, settings: &config::Queue, parts: Parts) -> Self {
        let names = Names::new(&settings.prefix, parts.boot);
        let [high, low, ..] = *parts.boot.0.as_bytes();
        let tag = i64::from(u16::from_be_bytes([high, low])) & outbox::LARGEST_TAG;
        let announce = Announce::outbox(&names, tag);
        let house = Arc::new(House {
            mode: Mode::new(address.shown(), parts.health.clone(), parts.metrics.clone()),
            desk: Desk::new(&parts, announce.clone()),
            address,
            names,
            announce,
            tag,
            bounds: Bounds {
                connect: ms(settings.connect_ms),
                confirm: ms(settings.confirm_ms),
                reconnect_first: ms(settings.reconnect_first_ms),
                reconnect_most: ms(settings.reconnect_most_ms),
                canary: ms(settings.canary_ms),
                prefetch: settings.prefetch,
            },
            publish: watch::Sender::new(None),
            consume: watch::Sender::new(None),
            connections: AtomicU64::new(1),
            wake: Notify::new(),
            readers: Readers::new(),
            pending: Pending::default(),
            parts,
        });
        let _actors = Self::spawn(&house);
        Self {
            house,
            #[cfg(test)]
            actors: _actors,
        }
    }

    fn spawn(house: &Arc<House>) -> Actors {
        let supervisor = &house.parts.supervisor;
        let arbiter = supervisor.arbiter("queue");
        // Failures of the broker are no failures of an actor, so the usual budget is for faults of this room only.
        let options =
            || Options { limits: Limits { mailbox: 16, ..Limits::default() }, ..Options::permanent() };
        let link = |purpose| {
            supervisor.spawn::<Link>(&arbiter, link::Spec { house: Arc::clone(house), purpose }, options())
        };
        let reader = |line| {
            let spec = consumer::Spec { house: Arc::clone(house), line };
            supervisor.spawn::<Consumer>(&arbiter, spec, options())
        };
        Actors {
            links: [link(Purpose::Publish), link(Purpose::Consume)],
            relay: supervisor.spawn::<Relay>(&arbiter, relay::Spec { house: Arc::clone(house) }, options()),
            consumers: Line::ALL.into_iter().map(reader).collect(),
        }
    }
}

impl Queue for Amqp {
    fn announce(&self) -> Announce {
        self.house.announce.clone()
    }

    fn publish(&self, _: Nudge) {
        // The message is a row already.
        self.house.wake.notify_one();
    }

    fn remind(&self, nudge: Nudge) {
        self.house.readers.tell(nudge);
    }

    fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge> {
        self.house.readers.subscribe(topic)
    }

    fn settle(&self, nudge: Nudge) {
        self.house.pending.settle(nudge);
    }

    fn claimed(&self, job: JobUid, epoch: Epoch) {
        self.house.pending.claimed(job, epoch);
    }
}

impl House {
    /// How long ago a moment was, by the wall clock.
    fn since(at: Micros) -> Duration {
        Micros::wall().since(at)
    }
}

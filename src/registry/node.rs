//! The life of this process in the database: its beat, the proof of it that effects need, and an eye on its peers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::{Either, select};

use tokio::sync::Notify;

use super::peers::{Peers, Still};
use crate::jobs::ports::Liveness;
use crate::model::{Boot, Micros, boot_time_micros};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::ops::{Health, State};
use crate::store::provisioning::node;
use crate::store::{self, Store};
use crate::supervision::{Life, Supervised};

/// The time beats are measured in: no jump of a wall clock moves it, and it goes on while the machine sleeps.
fn beat_time() -> i64 {
    if sabotaged(Fault::BeatByWallClock) { Micros::wall().0 } else { boot_time_micros() }
}

/// When the last successful beat was sent, in the clock that goes on while the machine sleeps.
#[derive(Clone)]
pub struct Beat {
    sent: Arc<AtomicI64>,
    /// S: no effect starts later than this after it.
    fresh_for: Duration,
}

impl Beat {
    /// A life whose row was just written.
    #[must_use]
    pub fn new(fresh_for: Duration) -> Self {
        Self { sent: Arc::new(AtomicI64::new(beat_time())), fresh_for }
    }

    /// A beat that was sent at this time is written. A life that ended does not begin again.
    fn renew(&self, sent: i64) {
        let later = |seen: i64| (seen != i64::MIN).then_some(sent);
        // Refused only where it ended.
        let _ = self.sent.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Says that this life ends: no effect starts any more, whatever the last beat was.
    pub fn end(&self) {
        self.sent.store(i64::MIN, Ordering::Release);
    }

    /// How long ago the last successful beat was sent.
    #[must_use]
    pub fn age(&self) -> Duration {
        let age = beat_time().saturating_sub(self.sent.load(Ordering::Acquire));
        Duration::from_micros(u64::try_from(age).unwrap_or(0))
    }
}

impl Liveness for Beat {
    fn may_start(&self) -> bool {
        self.age() < self.fresh_for
    }
}

/// Links of the beating actor.
#[derive(Clone)]
pub struct NodeSpec {
    /// Rows.
    pub store: Store,
    /// This life.
    pub boot: Boot,
    /// Where its freshness is kept.
    pub beat: Beat,
    /// R: time between beats.
    pub every: Duration,
    /// P: time between looks at the other lives.
    pub look: Duration,
    /// L: how long another life's beat must stand still until it is declared dead.
    pub still: Duration,
    /// Told when a life was declared dead: its jobs wait to be taken over.
    pub died: Arc<Notify>,
    /// Told which roles miss a node.
    pub health: Health,
}

/// Beats. When its row says dead it fails for good, because no restart cures that: the process must end and take a new
/// life.
pub struct NodeActor {
    spec: NodeSpec,
    life: Life,
}

impl Supervised for NodeActor {
    type Spec = NodeSpec;
    const KIND: &'static str = "node";

    fn key(spec: &NodeSpec) -> String {
        spec.boot.to_string()
    }

    fn fresh(spec: NodeSpec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for NodeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let spec = self.spec.clone();
        let living = async move {
            match select(pin!(beat_on(spec.clone())), pin!(watch_peers(spec))).await {
                Either::Left((cause, _)) | Either::Right((cause, _)) => cause,
            }
        };
        ctx.spawn(living.into_actor(self).map(|cause, actor, _| actor.life.fail_for_good(cause)));
    }
}

/// Beats until the row says that this life is dead.
async fn beat_on(spec: NodeSpec) -> String {
    let mut count = beat_time();
    loop {
        let sent = beat_time();
        count = count.max(sent).saturating_add(1);
        let (boot, value) = (spec.boot, count);
        let beaten: Result<bool, store::Error> = spec.store.write(move |c| node::beat(c, boot, value)).await;
        match beaten {
            Ok(true) => spec.beat.renew(sent),
            Ok(false) => return "this life was declared dead; the process must start anew".to_owned(),
            Err(error) => log::warn!("beat not written: {error}"),
        }
        tokio::time::sleep(spec.every).await;
    }
}

/// Watches the beats of the other lives for as long as this one lasts, and declares those dead that stand still.
async fn watch_peers(spec: NodeSpec) -> String {
    let mut peers = Peers::new(spec.boot, spec.still, spec.look);
    loop {
        let sent = beat_time();
        match spec.store.read(node::all).await {
            Ok(lives) => {
                let news = peers.read(&lives, (sent, beat_time()));
                tell(&spec.health, peers.lost());
                let declared = declare(&spec, news.still).await;
                if declared || news.died {
                    spec.died.notify_one();
                }
            }
            Err(error) => {
                peers.failed();
                log::warn!("the beats of the other lives cannot be read, they are measured anew: {error}");
            }
        }
        tokio::time::sleep(spec.look).await;
    }
}

fn tell(health: &Health, lost: &[String]) {
    if lost.is_empty() {
        return health.set("nodes", State::Ok, "");
    }
    let text = format!("declared dead, and no other came in its place: {}", lost.join(", "));
    health.set("nodes", State::Degraded, text);
}

/// Declares lives dead that still stand where they were seen; whether any was.
async fn declare(spec: &NodeSpec, still: Vec<Still>) -> bool {
    let mut any = false;
    for Still { boot, role, beat } in still {
        let name = boot.clone();
        match spec.store.write(move |c| node::declare_dead(c, &name, beat)).await {
            Ok(true) => {
                log::error!(node = boot.as_str(); "{role} {boot} stood still and was declared dead; its jobs are taken over");
                any = true;
            }
            Ok(false) => {}
            Err(error) => log::warn!("{role} {boot} stands still and is not declared dead yet: {error}"),
        }
    }
    any
}

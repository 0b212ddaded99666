//! A dispatcher: its beat, its eye on its peers, its sweeps, and the jobs that run in it.
//!
//! What an actor of `registry` does in handlers is done here in tasks; the decisions are the real ones: `Directory`,
//! `Peers`, and the driver of `jobs`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::ports::{Common, Port};
use super::tasks::Spawner;
use super::wire::{Answer, sleep};
use super::world::{News, Order, Sim};
use crate::jobs::drive;
use crate::jobs::ports::Ports;
use crate::model::{JobUid, Micros};
use crate::mq::Nudge;
use crate::registry::directory::{Activate, Directory};
use crate::registry::peers::{Peers, Still};
use crate::store::provisioning::job::{History, Job};

/// R and P: time between beats, and between looks at the other lives.
const BEAT: Duration = Duration::from_secs(2);
/// L: so long a beat must stand still.
const STILL: Duration = Duration::from_secs(12);
/// How often rows are compared with what runs here.
pub(super) const SWEEP: Duration = Duration::from_secs(5);
/// Shortest pause between sweeps.
const SOONEST: Duration = Duration::from_millis(50);
/// Job actors at the same time.
pub(super) const MOST: usize = 16;

/// See the module.
pub(super) struct House {
    pub(super) port: Arc<Port>,
    ports: Ports,
    pub(super) spawner: Spawner,
    directory: RefCell<Directory<Rc<Notify>>>,
    died: Notify,
    /// Told when a command may wait for a guest.
    pub(super) guests: Rc<Notify>,
}

impl House {
    /// Starts everything that a dispatcher is.
    pub(super) fn start(sim: &Sim, life: usize, common: &Common, spawner: &Spawner) {
        let port = Port::new(sim, life);
        let house = Rc::new(Self {
            ports: port.ports(common),
            port,
            spawner: spawner.clone(),
            directory: RefCell::new(Directory::new(MOST)),
            died: Notify::new(),
            guests: Rc::new(Notify::new()),
        });
        let spawn = |task| house.spawner.spawn(life, task);
        spawn(Box::pin(Rc::clone(&house).begin()));
        spawn(Box::pin(Rc::clone(&house).listen()));
    }

    fn sim(&self) -> &Sim {
        &self.port.sim
    }

    /// Registers its life, and only then works.
    async fn begin(self: Rc<Self>) {
        let boot = self.port.boot;
        loop {
            let sent = self.sim().with(|w| w.now);
            if let Answer::Value(()) = self.port.write(move |rows| rows.register(boot, "serve")).await {
                self.sim().with(|w| w.lives[self.port.life].beat_sent = sent);
                break;
            }
            sleep(self.sim(), Duration::from_millis(500)).await;
        }
        let life = self.port.life;
        self.spawner.spawn(life, Box::pin(Rc::clone(&self).beat()));
        self.spawner.spawn(life, Box::pin(Rc::clone(&self).watch_peers()));
        let servers = self.sim().with(|w| w.guests.keys().copied().collect::<Vec<_>>());
        for server in servers {
            self.spawner.spawn(life, Box::pin(super::session::hold(Rc::clone(&self), server)));
        }
        self.sweep().await;
    }

    async fn beat(self: Rc<Self>) {
        let (boot, life) = (self.port.boot, self.port.life);
        loop {
            let sent = self.sim().with(|w| w.now);
            match self.port.write(move |rows| rows.beat(boot, sent.0)).await {
                Answer::Value(true) => self.sim().with(|w| w.lives[life].beat_sent = sent),
                // Declared dead: the process ends and takes another life.
                Answer::Value(false) => self.sim().with(|w| w.orders.push(Order::Kill(life))),
                Answer::Refused | Answer::Lost => {}
            }
            sleep(self.sim(), BEAT).await;
        }
    }

    async fn watch_peers(self: Rc<Self>) {
        let mut peers = Peers::new(self.port.boot, STILL, BEAT);
        loop {
            let sent = self.sim().with(|w| w.now.0);
            match self.port.read(|rows| rows.nodes.clone()).await {
                Answer::Value(lives) => {
                    let ended = self.sim().with(|w| w.now.0);
                    let mut news = peers.read(&lives, (sent, ended));
                    news.still.sort_by(|a, b| a.boot.cmp(&b.boot));
                    let declared = self.declare(news.still).await;
                    if declared || news.died {
                        self.died.notify_one();
                    }
                }
                Answer::Refused | Answer::Lost => peers.failed(),
            }
            sleep(self.sim(), BEAT).await;
        }
    }

    async fn declare(&self, still: Vec<Still>) -> bool {
        let mut any = false;
        for Still { boot, beat, .. } in still {
            let done = self.port.write(move |rows| rows.declare_dead(&boot, beat)).await;
            if matches!(done, Answer::Value(true)) {
                self.sim().with(|w| w.figures.declared_dead += 1);
                any = true;
            }
        }
        any
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            let next = self.reconcile().await.unwrap_or(SWEEP);
            tokio::select! {
                biased;
                () = self.died.notified() => {}
                () = sleep(self.sim(), next.clamp(SOONEST, SWEEP)) => {}
            }
        }
    }

    /// Takes over what dead lives left, and starts the difference between rows and what runs here.
    async fn reconcile(self: &Rc<Self>) -> Option<Duration> {
        let boot = self.port.boot;
        loop {
            let Answer::Value(taken) = self.port.write(move |rows| rows.take_over(boot)).await else {
                return None;
            };
            self.sim().with(|w| w.figures.takeovers += taken.len() as u64);
            if taken.is_empty() {
                break;
            }
        }
        let needed = self.port.read(move |rows| {
            (rows.owned_by(boot), rows.needing_an_actor(), rows.next_due().map(|at| at.since(rows.now)))
        });
        let Answer::Value((mine, free, next)) = needed.await else { return None };
        for (job, cancel) in mine {
            let at_work = self.directory.borrow().actor(job).is_some();
            if cancel || !at_work {
                self.activate(job, None);
            }
        }
        for job in free {
            self.activate(job, None);
        }
        next
    }

    async fn listen(self: Rc<Self>) {
        loop {
            match super::tasks::news(self.sim(), self.port.life).await {
                News::Nudge(Nudge::Job(job) | Nudge::Cancel(job)) => self.activate(job, None),
                News::Nudge(Nudge::Guest(_)) => self.guests.notify_waiters(),
                News::Nudge(_) => {}
                News::Stored(row) => {
                    let uid = row.uid;
                    self.activate(uid, Some(row));
                }
            }
        }
    }

    /// Has a job worked at.
    fn activate(self: &Rc<Self>, job: JobUid, row: Option<Box<Job>>) {
        let mut directory = self.directory.borrow_mut();
        match directory.nudged(job) {
            Activate::Later => {}
            Activate::Wake => {
                if let Some(actor) = directory.actor(job) {
                    actor.notify_one();
                }
            }
            Activate::Start => {
                let wake = Rc::new(Notify::new());
                directory.started(job, Rc::clone(&wake));
                let life = self.port.life;
                self.sim().with(|w| w.lives[life].running.insert(job));
                self.spawner.spawn(life, Box::pin(Rc::clone(self).run(job, row, wake)));
            }
        }
    }

    async fn run(self: Rc<Self>, job: JobUid, row: Option<Box<Job>>, wake: Rc<Notify>) {
        let known = row.map(|job| History {
            job: *job,
            attempts: Vec::new(),
            evidence: Vec::new(),
            watches: Vec::new(),
        });
        let done = drive(&self.ports, (job, known), &wake).await;
        let life = self.port.life;
        self.sim().with(|w| {
            w.lives[life].running.remove(&job);
            if let Err(error) = done {
                w.violated(format!("the driver of job {job} failed: {error}"));
            }
        });
        let next = self.directory.borrow_mut().ended(job);
        for job in next {
            self.activate(job, None);
        }
    }

    /// The database's clock, as the rows have it.
    pub(super) fn now(&self) -> Micros {
        self.sim().with(|w| w.now)
    }
}

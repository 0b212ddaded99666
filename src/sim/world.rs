//! Everything outside the processes: time, rows, clouds, guests, messages on their way, and what was seen to go wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::chance::Chance;
use super::check::Checks;
use super::cloud::Cloud;
use super::faults::{Faults, Figures};
use super::guest::Guest;
use super::rows::Rows;
use super::trace::Trace;
use super::wire::{Fate, Site};
use super::wrong::Wrong;
use crate::cloud::TokenClass;
use crate::model::{Boot, JobUid, Micros, WatchUid};
use crate::mq::{Nudge, Topic};
use crate::wire::AgentFrame;

/// When every run begins.
pub(super) const BEGIN: Micros = Micros(1_800_000_000_000_000);
/// One second.
pub(super) const SECOND: i64 = 1_000_000;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Clients and the trouble of the world; never in trouble itself.
    Outside,
    Dispatcher,
    Monitor,
    Worker,
}

/// A process, as the world knows it.
pub(super) struct Life {
    pub(super) role: Role,
    pub(super) boot: Boot,
    pub(super) alive: bool,
    pub(super) paused: bool,
    /// When its last successful beat was sent.
    pub(super) beat_sent: Micros,
    pub(super) inbox: VecDeque<News>,
    pub(super) waker: Option<Waker>,
    /// Jobs that have an actor here.
    pub(super) running: HashSet<JobUid>,
}

/// What reaches a process.
#[derive(Clone, Debug)]
pub(super) enum News {
    Nudge(Nudge),
    /// A job was stored through this process.
    Stored(Box<crate::store::provisioning::job::Job>),
}

/// What the scheduler is to do to a process.
pub(super) enum Order {
    Kill(usize),
    Boot(Role),
}

enum What {
    Wake(Waker),
    Run(Box<dyn FnOnce(&mut World) + Send>),
}

struct Event {
    at: Micros,
    seq: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// Frames of one session on their way to its holder.
#[derive(Default)]
pub(super) struct Session {
    pub(super) frames: VecDeque<AgentFrame>,
    pub(super) up: bool,
    pub(super) holder: usize,
    pub(super) waker: Option<Waker>,
}

/// See the module.
pub(super) struct World {
    pub(super) now: Micros,
    pub(super) chance: Chance,
    pub(super) trace: Trace,
    pub(super) rows: Rows,
    pub(super) cloud: Cloud,
    pub(super) guests: BTreeMap<i64, Guest>,
    pub(super) sessions: BTreeMap<(i64, i64), Session>,
    pub(super) lives: Vec<Life>,
    pub(super) faults: Faults,
    pub(super) figures: Figures,
    pub(super) checks: Checks,
    pub(super) wrong: Option<Wrong>,
    /// Watches whose message reached somebody; only a deliberate fault asks for it.
    pub(super) announced: HashSet<WatchUid>,
    pub(super) orders: Vec<Order>,
    pub(super) number: i64,
    /// The first thing that must never be.
    pub(super) violation: Option<String>,
    events: BinaryHeap<Reverse<Event>>,
    seq: u64,
}

/// The world, shared by all its parts. There is one thread; the lock is for the traits, which ask for it.
#[derive(Clone)]
pub(super) struct Sim(Arc<Mutex<World>>);

impl Sim {
    pub(super) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock().expect("no panic within the world"))
    }
}

impl World {
    pub(super) fn new(seed: u64, class: TokenClass, wrong: Option<Wrong>) -> Self {
        let mut chance = Chance::new(seed);
        let faults = Faults::new(&mut chance);
        let mut rows = Rows::default();
        rows.now = BEGIN;
        rows.flaws = wrong.map(Wrong::flaws).unwrap_or_default();
        Self {
            now: BEGIN,
            chance,
            trace: Trace::new(BEGIN),
            rows,
            cloud: Cloud::new(class),
            guests: BTreeMap::new(),
            sessions: BTreeMap::new(),
            lives: Vec::new(),
            faults,
            figures: Figures::default(),
            checks: Checks::default(),
            wrong,
            announced: HashSet::new(),
            orders: Vec::new(),
            number: 100,
            violation: None,
            events: BinaryHeap::new(),
            seq: 0,
        }
    }

    pub(super) fn note(&mut self, what: &'static str, of: u64, with: u64) {
        let now = self.now;
        self.trace.note(now, what, of, with);
    }

    /// Says that something is as it must never be; the first is kept.
    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn put(&mut self, at: Micros, what: What) {
        self.seq += 1;
        let seq = self.seq;
        self.events.push(Reverse(Event { at, seq, what }));
    }

    /// Has something happen after so many microseconds.
    pub(super) fn after(&mut self, micros: i64, act: impl FnOnce(&mut Self) + Send + 'static) {
        self.put(Micros(self.now.0 + micros), What::Run(Box::new(act)));
    }

    pub(super) fn wake_at(&mut self, at: Micros, waker: Waker) {
        self.put(at, What::Wake(waker));
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<Micros> {
        self.events.peek().map(|Reverse(event)| event.at)
    }

    /// Lets the next event happen.
    pub(super) fn happen(&mut self) -> bool {
        let Some(Reverse(event)) = self.events.pop() else { return false };
        self.now = self.now.max(event.at);
        self.trace.mix(event.seq);
        match event.what {
            What::Wake(waker) => waker.wake(),
            What::Run(act) => act(self),
        }
        true
    }

    pub(super) fn fate(&mut self, site: Site) -> Fate {
        let class = self.cloud.capabilities.class;
        let fate = self.faults.fate(&mut self.chance, (site, class), self.now);
        self.figures.fates[fate.number()] += 1;
        fate
    }

    /// A write of rows, looked at at once by the checks. `by` is the life that wrote.
    pub(super) fn write<T>(&mut self, by: Option<Boot>, act: impl FnOnce(&mut Rows) -> T) -> T {
        self.rows.now = self.now;
        let before = self.rows.jobs.len();
        let done = act(&mut self.rows);
        // One write is one move, however many statements it has.
        let mut touched = std::mem::take(&mut self.rows.touched);
        touched.sort_unstable();
        touched.dedup();
        for i in touched {
            self.observe(i, by, i >= before);
        }
        done
    }

    pub(super) fn read(&mut self) -> &Rows {
        self.rows.now = self.now;
        &self.rows
    }

    pub(super) fn new_number(&mut self) -> i64 {
        self.number += 1;
        self.number
    }

    /// Lives of a role that are not dead, in order.
    pub(super) fn alive(&self, role: Role) -> Vec<usize> {
        (0..self.lives.len()).filter(|i| self.lives[*i].alive && self.lives[*i].role == role).collect()
    }

    /// The sessions that a process holds.
    pub(super) fn sessions_of(&self, life: usize) -> Vec<(i64, i64)> {
        let held = self.sessions.iter().filter(|(_, session)| session.up && session.holder == life);
        held.map(|(of, _)| *of).collect()
    }

    pub(super) fn tell(&mut self, life: usize, news: News) {
        let life = &mut self.lives[life];
        if life.alive {
            life.inbox.push_back(news);
            if let Some(waker) = life.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sends a hint on its way: it may come late, twice or never.
    pub(super) fn publish(&mut self, nudge: Nudge) {
        let copies = self.faults.copies(&mut self.chance);
        self.figures.messages[copies.min(2)] += 1;
        for _ in 0..copies {
            let delay = self.faults.message(&mut self.chance);
            self.after(delay, move |w| w.deliver(nudge));
        }
    }

    fn deliver(&mut self, nudge: Nudge) {
        let role = match nudge.topic() {
            Topic::Jobs | Topic::Guests => Role::Dispatcher,
            Topic::Watches => Role::Monitor,
            Topic::Work => Role::Worker,
        };
        let there = self.alive(role);
        if there.is_empty() {
            return;
        }
        if let Nudge::Watch(_, uid) = nudge {
            self.announced.insert(uid);
        }
        self.note("nudge", nudge.topic() as u64, 0);
        // A hint for holders of sessions or owners of jobs goes to all; others have competing readers.
        if matches!(nudge, Nudge::Guest(_) | Nudge::Cancel(_)) {
            there.iter().for_each(|life| self.tell(*life, News::Nudge(nudge)));
        } else {
            let one = *self.chance.pick(&there);
            self.tell(one, News::Nudge(nudge));
        }
    }
}

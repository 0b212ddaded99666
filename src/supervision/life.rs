//! What is known about one actor from outside, and what an actor can say about itself.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::kinds::Place;
use super::{Exit, Limits, Mailbox, Supervised};
use crate::model::Micros;

/// How an actor is, for the operators' view, the metrics and the tests.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Kind of the actor.
    pub kind: &'static str,
    /// Which one of its kind.
    pub key: String,
    /// `starting`, `running`, `backing-off`, `given-up` or `ended`.
    pub state: &'static str,
    /// Messages that wait, without those of recipients.
    pub mailbox: usize,
    /// When the message that waits longest came.
    pub oldest: Option<Micros>,
    /// The oldest message in work, and since when.
    pub message: Option<(String, Micros)>,
    /// Restarts that count against the budget.
    pub restarts_in_window: u32,
    /// How many it may have there; one more failure and it is given up.
    pub budget: u32,
    /// The window that they are counted in, in seconds.
    pub window_secs: u64,
    /// All restarts.
    pub restarts: u64,
    /// Text of the last panic.
    pub last_panic: Option<String>,
    /// Number of the present life, from 1.
    pub incarnation: u64,
    /// When the present life began.
    pub started_at: Micros,
    /// The arbiter it runs on.
    pub arbiter: &'static str,
    /// Kind and key of the actor that started it; nothing for those the process began with.
    pub parent: Option<String>,
}

/// Shared by the guard, the mailboxes and the roster of one actor.
pub(super) struct Vitals {
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) place: Place,
    budget: u32,
    window: Duration,
    waiting: AtomicUsize,
    /// When those that wait came, oldest first.
    arrived: Mutex<VecDeque<Micros>>,
    pub(super) waker: AtomicWaker,
    record: Mutex<Record>,
}

pub(super) struct Record {
    pub(super) state: &'static str,
    pub(super) backoff: Backoff,
    pub(super) restarts: u64,
    pub(super) last_panic: Option<String>,
    pub(super) incarnation: u64,
    pub(super) started_at: Micros,
    pub(super) stop: bool,
    /// The present life said that no further one can do better.
    pub(super) hopeless: bool,
    /// What the present life said about its end.
    said: Option<Exit>,
    /// Oldest first.
    busy: Vec<Work>,
    next_work: u64,
}

struct Work {
    number: u64,
    message: &'static str,
    wall: Micros,
    since: Instant,
}

impl Vitals {
    pub(super) fn new(kind: &'static str, key: String, limits: Limits) -> Self {
        let record = Record {
            state: "starting",
            backoff: Backoff::new(limits, super::backoff::seed()),
            restarts: 0,
            last_panic: None,
            incarnation: 0,
            started_at: Micros::wall(),
            stop: false,
            hopeless: false,
            said: None,
            busy: Vec::new(),
            next_work: 0,
        };
        Self {
            kind,
            key,
            place: Place::default(),
            budget: limits.budget,
            window: limits.window,
            waiting: AtomicUsize::new(0),
            arrived: Mutex::default(),
            waker: AtomicWaker::new(),
            record: Mutex::new(record),
        }
    }

    /// The same at its place.
    pub(super) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// A message waits from now on.
    pub(super) fn arrived(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push_back(Micros::wall());
    }

    /// A message no longer waits; they are taken in the order they came.
    pub(super) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new life and gives its number.
    pub(super) fn begin(&self) -> u64 {
        let mut record = self.record();
        record.incarnation += 1;
        record.started_at = Micros::wall();
        record.state = "running";
        record.said = None;
        record.hopeless = false;
        record.busy.clear();
        record.incarnation
    }

    /// Asks for an orderly end, in whatever state the actor is.
    pub(super) fn ask_to_stop(&self) {
        self.record().stop = true;
        self.waker.wake();
    }

    /// The exit that was asked for from outside or said from inside.
    pub(super) fn wish(&self) -> Option<Exit> {
        let record = self.record();
        record.said.clone().or_else(|| record.stop.then_some(Exit::Done))
    }

    /// When the oldest message in work was begun.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.record().busy.first().map(|work| work.since)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let oldest = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).front().copied();
        let mut record = self.record();
        let restarts_in_window = record.backoff.in_window(Instant::now());
        Snapshot {
            kind: self.kind,
            key: self.key.clone(),
            state: record.state,
            mailbox: self.waiting.load(Ordering::Relaxed),
            oldest,
            message: record.busy.first().map(|work| (work.message.to_owned(), work.wall)),
            restarts_in_window,
            budget: self.budget,
            window_secs: self.window.as_secs(),
            restarts: record.restarts,
            last_panic: record.last_panic.clone(),
            incarnation: record.incarnation,
            started_at: record.started_at,
            arbiter: self.place.arbiter,
            parent: self.place.parent.clone(),
        }
    }

    fn say(&self, incarnation: u64, exit: Exit, hopeless: bool) {
        let mut record = self.record();
        if record.incarnation == incarnation && record.said.is_none() {
            record.said = Some(exit);
            record.hopeless = hopeless;
            drop(record);
            self.waker.wake();
        }
    }

    /// Says it for the present life, whichever it is.
    #[cfg(test)]
    pub(super) fn say_now(&self, exit: Exit) {
        let incarnation = self.record().incarnation;
        self.say(incarnation, exit, false);
    }

    pub(super) fn enter(self: &Arc<Self>, incarnation: u64, message: &'static str) -> Busy {
        let mut record = self.record();
        let number = record.next_work;
        record.next_work += 1;
        if record.incarnation == incarnation {
            record.busy.push(Work { number, message, wall: Micros::wall(), since: Instant::now() });
        }
        drop(record);
        Busy { vitals: Arc::clone(self), number }
    }
}

/// One life of an actor, in the actor's own hands. Cloning is cheap. Sayings of a life that is over change nothing.
#[derive(Clone)]
pub struct Life {
    vitals: Arc<Vitals>,
    incarnation: u64,
    mailbox: Arc<dyn Any + Send + Sync>,
}

impl Life {
    pub(super) fn new<A: Supervised>(vitals: Arc<Vitals>, incarnation: u64, mailbox: Mailbox<A>) -> Self {
        Self { vitals, incarnation, mailbox: Arc::new(mailbox) }
    }

    /// Says that there is nothing more to do: the actor ends, its mailbox closes. No further message is handled;
    /// `ctx.stop()` besides it is allowed and not needed. The first saying counts.
    pub fn done(&self) {
        self.vitals.say(self.incarnation, Exit::Done, false);
    }

    /// Says that this life cannot go on: the actor is restarted within its budget. As [`done`](Self::done) otherwise.
    pub fn fail(&self, cause: impl Into<String>) {
        self.vitals.say(self.incarnation, Exit::Failed(cause.into()), false);
    }

    /// Says that neither this life nor any further one can go on: the actor is given up at once, whatever is left of
    /// its budget. As [`done`](Self::done) otherwise.
    pub fn fail_for_good(&self, cause: impl Into<String>) {
        self.vitals.say(self.incarnation, Exit::Failed(cause.into()), true);
    }

    /// Number of this life, from 1. Replies and timers that carry another number belong to another life.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Marks that `message` is being worked on until the guard is dropped. Synchronous handlers are marked without
    /// this; it is for futures that go on after the handler returned.
    #[must_use = "the mark ends when this is dropped"]
    pub fn enter(&self, message: &'static str) -> Busy {
        let busy = self.vitals.enter(self.incarnation, message);
        // The guard sets its alarm when it is polled.
        self.vitals.waker.wake();
        busy
    }

    /// The actor's own mailbox, which outlives this life; nothing when `A` is another actor.
    #[must_use]
    pub fn mailbox<A: Supervised>(&self) -> Option<Mailbox<A>> {
        self.mailbox.downcast_ref::<Mailbox<A>>().cloned()
    }
}

/// A message in work; dropping it says that the work ended.
pub struct Busy {
    vitals: Arc<Vitals>,
    number: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.vitals.record().busy.retain(|work| work.number != self.number);
    }
}

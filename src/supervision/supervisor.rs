//! The house-wide handle: who runs, on which threads, and what ends the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_rt::System;
use tokio::sync::watch;

use super::arbiter::Pulse;
use super::guard::{Guard, Ticket};
use super::kinds::{self, Place, Tally};
use super::life::Vitals;
use super::probe::WatchedThread;
#[cfg(test)]
use super::trip::{Trip, Tripper};
use super::{Arbiter, ArbiterSnapshot, KindSnapshot, Mailbox, Options, Snapshot, Supervised};
use crate::ops::{Health, Metrics, State};

/// Longest time an arbiter may stand still: nothing on one may block, so five seconds are a fault, not load.
const LAG_LIMIT: Duration = Duration::from_secs(5);
/// Given-up actors kept for the operators' view.
const GIVEN_UP_KEPT: usize = 256;
/// Parts of health that this room reports.
const PARTS: [&str; 3] = ["actors", "arbiters", "threads"];

/// Starts actors and knows all of them. Cloning is cheap; all clones are the same house.
#[derive(Clone)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) health: Health,
    pub(super) metrics: Option<Metrics>,
    pub(super) lag_limit: Duration,
    pub(super) fatal: watch::Sender<Option<String>>,
    roster: Mutex<Roster>,
}

impl Drop for Shared {
    /// The last handle is gone, and with it the last actor: every actor holds one.
    fn drop(&mut self) {
        let roster = self.roster.get_mut().unwrap_or_else(PoisonError::into_inner);
        roster.arbiters.values().filter(|watched| watched.own).for_each(|watched| watched.arbiter.stop());
    }
}

#[derive(Default)]
pub(super) struct Roster {
    next: u64,
    actors: BTreeMap<u64, Arc<Vitals>>,
    #[cfg(test)]
    trippers: BTreeMap<u64, Tripper>,
    given_up: VecDeque<Snapshot>,
    kinds: BTreeMap<&'static str, Arc<Tally>>,
    pub(super) arbiters: BTreeMap<&'static str, Watched>,
    pub(super) threads: Vec<WatchedThread>,
    pub(super) watching: bool,
}

pub(super) struct Watched {
    pub(super) arbiter: Arbiter,
    pub(super) pulse: Pulse,
    pub(super) red: bool,
    /// Whether the thread was made here.
    pub(super) own: bool,
}

impl Supervisor {
    /// An empty house that reports to `health`, as the vital parts `actors`, `arbiters` and `threads`.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self::build(health, None, LAG_LIMIT)
    }

    /// As [`new`](Self::new), counting restarts and panics.
    #[must_use]
    pub fn with_metrics(health: Health, metrics: Metrics) -> Self {
        Self::build(health, Some(metrics), LAG_LIMIT)
    }

    /// All that can be chosen; `lag_limit` is how long an arbiter may stand still.
    #[must_use]
    pub fn build(health: Health, metrics: Option<Metrics>, lag_limit: Duration) -> Self {
        for part in PARTS {
            health.vital(part);
            health.set(part, State::Ok, "");
        }
        let fatal = watch::Sender::new(None);
        let shared = Shared { health, metrics, lag_limit, fatal, roster: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The arbiter of this name: a thread of its own, made at the first call, watched for standing still.
    ///
    /// # Panics
    /// Without a running actix system, as `actix_rt::Arbiter::new` does.
    #[must_use]
    pub fn arbiter(&self, name: &'static str) -> Arbiter {
        let mut roster = self.roster();
        if let Some(watched) = roster.arbiters.get(name) {
            return watched.arbiter.clone();
        }
        let arbiter = Arbiter::new(name, actix_rt::Arbiter::new().handle());
        let pulse = Pulse::start(&arbiter, self.tick());
        roster.arbiters.insert(name, Watched { arbiter: arbiter.clone(), pulse, red: false, own: true });
        drop(roster);
        self.watch();
        arbiter
    }

    /// The caller's own thread as an arbiter, not watched. For tests, whose clock may be paused, and for `main`.
    ///
    /// # Panics
    /// Without a running actix system.
    #[must_use]
    pub fn here(&self) -> Arbiter {
        Arbiter::new("here", System::current().arbiter().clone())
    }

    /// Starts an actor and keeps it alive. Callable from any thread; returns before the actor runs, and messages sent
    /// meanwhile wait. On an arbiter that has ended the mailbox is closed from the start.
    pub fn spawn<A: Supervised>(&self, on: &Arbiter, spec: A::Spec, options: Options) -> Mailbox<A>
    where
        A::Spec: Send,
    {
        let place = Place::on(on.name(), self.tally(A::KIND));
        let vitals = Arc::new(Vitals::new(A::KIND, A::key(&spec), options.limits).at(place));
        let (mailbox, inbox) = Mailbox::pair(Arc::clone(&vitals), options.limits.mailbox);
        let ticket = self.enrol(Arc::clone(&vitals));
        #[cfg(test)]
        self.roster().trippers.insert(ticket.number, mailbox.tripper());
        let guard = Guard { spec, options, vitals, mailbox: mailbox.clone(), house: self.clone(), ticket };
        on.run(move || {
            actix_rt::spawn(guard.run(inbox));
        });
        mailbox
    }

    /// Every actor that runs or waits to be restarted, then those given up, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let roster = self.roster();
        let actors: Vec<_> = roster.actors.values().cloned().collect();
        let given_up: Vec<_> = roster.given_up.iter().cloned().collect();
        drop(roster);
        actors.iter().map(|vitals| vitals.snapshot()).chain(given_up).collect()
    }

    /// Every kind that ever had an actor, worst first.
    #[must_use]
    pub fn kinds(&self) -> Vec<KindSnapshot> {
        let tallies = self.roster().kinds.clone();
        kinds::sum(&tallies, &self.snapshots())
    }

    /// Every arbiter, then every other watched thread.
    #[must_use]
    pub fn arbiters(&self) -> Vec<ArbiterSnapshot> {
        let snapshot = |(name, watched): (&&'static str, &Watched)| {
            let (name, lag_ms) = ((*name).to_owned(), watched.pulse.lag_ms());
            ArbiterSnapshot { name, lag_ms, red: watched.red }
        };
        let roster = self.roster();
        let threads = roster.threads.iter().map(WatchedThread::snapshot);
        roster.arbiters.iter().map(snapshot).chain(threads).collect()
    }

    /// Resolves with the reason when the process should end with an error: a permanent actor was given up, or an
    /// arbiter or a vital thread stood still. It stays resolved. Dropping the future loses nothing.
    pub async fn fatal(&self) -> String {
        let mut news = self.shared.fatal.subscribe();
        let reason = news.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        // The sender lives in `self`, so there always is a reason.
        reason.unwrap_or_default()
    }

    pub(super) fn count(&self, kind: &'static str, panicked: bool, restarted: bool) {
        let Some(metrics) = &self.shared.metrics else { return };
        if panicked {
            metrics.actor_panicked(kind);
        }
        if restarted {
            metrics.actor_restarted(kind);
        }
    }

    /// Moves an actor from those that run to those given up, so that it is never shown twice.
    pub(super) fn keep_given_up(&self, number: u64, vitals: &Vitals) {
        let snapshot = vitals.snapshot();
        let mut roster = self.roster();
        roster.actors.remove(&number);
        if roster.given_up.len() >= GIVEN_UP_KEPT {
            roster.given_up.pop_front();
        }
        roster.given_up.push_back(snapshot);
    }

    pub(super) fn raise(&self, part: &'static str, reason: String) {
        self.shared.health.set(part, State::Red, reason.clone());
        self.shared.fatal.send_if_modified(|first| {
            let new = first.is_none();
            first.get_or_insert(reason);
            new
        });
    }

    pub(super) fn strike_off(&self, number: u64) {
        let mut roster = self.roster();
        roster.actors.remove(&number);
        #[cfg(test)]
        let _mailbox = roster.trippers.remove(&number);
    }

    fn tally(&self, kind: &'static str) -> Arc<Tally> {
        Arc::clone(self.roster().kinds.entry(kind).or_default())
    }

    /// Trips the actors that are wanted, by key and kind.
    #[cfg(test)]
    pub(super) fn trip_those(&self, wanted: impl Fn(&str, &str) -> bool, how: Trip) -> usize {
        let roster = self.roster();
        let numbers = roster.actors.iter().filter(|(_, vitals)| wanted(&vitals.key, vitals.kind));
        numbers.filter_map(|(number, _)| roster.trippers.get(number)).map(|trip| trip(how)).count()
    }

    pub(super) fn enrol(&self, vitals: Arc<Vitals>) -> Ticket {
        let mut roster = self.roster();
        let number = roster.next;
        roster.next += 1;
        roster.actors.insert(number, vitals);
        Ticket { house: self.clone(), number }
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

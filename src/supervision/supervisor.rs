//! The house-wide handle: who runs, on which threads, and what ends the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_rt::System;
use tokio::sync::watch;

use super::arbiter::Pulse;
use super::guard::{Guard, Ticket};
use super::kinds::{self, Place, Tally};
use super::life::Vitals;
use super::{Arbiter, ArbiterSnapshot, KindSnapshot, Mailbox, Options, Snapshot, Supervised};
use crate::ops::{Health, Metrics, State};

/// Longest time an arbiter may stand still: nothing on one may block, so five seconds are a fault, not load.
const LAG_LIMIT: Duration = Duration::from_secs(5);
/// Given-up actors kept for the operators' view.
const GIVEN_UP_KEPT: usize = 256;
/// Parts of health that this room reports.
const PARTS: [&str; 2] = ["actors", "arbiters"];

/// Starts actors and knows all of them. Cloning is cheap; all clones are the same house.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    health: Health,
    metrics: Option<Metrics>,
    lag_limit: Duration,
    fatal: watch::Sender<Option<String>>,
    roster: Mutex<Roster>,
}

#[derive(Default)]
struct Roster {
    next: u64,
    actors: BTreeMap<u64, Arc<Vitals>>,
    given_up: VecDeque<Snapshot>,
    kinds: BTreeMap<&'static str, Arc<Tally>>,
    arbiters: BTreeMap<&'static str, Watched>,
    watching: bool,
}

struct Watched {
    arbiter: Arbiter,
    pulse: Pulse,
    red: bool,
}

impl Supervisor {
    /// An empty house that reports to `health`, as the vital parts `actors` and `arbiters`.
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
        roster.arbiters.insert(name, Watched { arbiter: arbiter.clone(), pulse, red: false });
        let first = !std::mem::replace(&mut roster.watching, true);
        drop(roster);
        if first {
            self.watch();
        }
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

    /// Every arbiter made here.
    #[must_use]
    pub fn arbiters(&self) -> Vec<ArbiterSnapshot> {
        let snapshot = |(name, watched): (&&'static str, &Watched)| {
            let lag_ms = watched.pulse.lag_ms();
            ArbiterSnapshot { name, lag_ms, red: watched.red }
        };
        self.roster().arbiters.iter().map(snapshot).collect()
    }

    /// Resolves with the reason when the process should end with an error: a permanent actor was given up, or an
    /// arbiter stood still. It stays resolved. Dropping the future loses nothing.
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

    pub(super) fn keep_given_up(&self, vitals: &Vitals) {
        let snapshot = vitals.snapshot();
        let mut roster = self.roster();
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
        self.roster().actors.remove(&number);
    }

    fn tally(&self, kind: &'static str) -> Arc<Tally> {
        Arc::clone(self.roster().kinds.entry(kind).or_default())
    }

    fn enrol(&self, vitals: Arc<Vitals>) -> Ticket {
        let mut roster = self.roster();
        let number = roster.next;
        roster.next += 1;
        roster.actors.insert(number, vitals);
        Ticket { house: self.clone(), number }
    }

    fn tick(&self) -> Duration {
        (self.shared.lag_limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(250))
    }

    /// Reads all pulses from a thread of its own, which ends with the last handle of this house.
    fn watch(&self) {
        let (house, tick) = (Arc::downgrade(&self.shared), self.tick());
        let started = std::thread::Builder::new().name("lag-probe".to_owned()).spawn(move || {
            let mut before = Instant::now();
            while let Some(shared) = Weak::upgrade(&house) {
                Self { shared }.look(before.elapsed());
                before = Instant::now();
                std::thread::sleep(tick);
            }
        });
        if let Err(error) = started {
            log::error!("the thread that watches the arbiters did not start: {error}");
        }
    }

    /// One look at every pulse, `away` after the one before. When this thread itself was held up for long, the
    /// machine or the whole process stood still (stopped by a signal, a frozen guest): that blames no arbiter.
    fn look(&self, away: Duration) {
        let stalled = away > self.shared.lag_limit / 2;
        let limit = u64::try_from(self.shared.lag_limit.as_millis()).unwrap_or(u64::MAX);
        let mut late = Vec::new();
        for (name, watched) in &mut self.roster().arbiters {
            if stalled {
                watched.pulse.forgive();
            }
            let lag = watched.pulse.lag_ms();
            if lag > limit && !watched.red {
                watched.red = true;
                late.push(format!("arbiter {name} has not moved for {lag} ms, longer than {limit} ms"));
            }
        }
        for reason in late {
            self.raise("arbiters", reason);
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Pulse, Supervisor, Watched};
    use std::time::Duration;

    #[actix_rt::test]
    async fn a_process_that_stood_still_as_a_whole_blames_no_arbiter() {
        let limit = Duration::from_millis(20);
        let house = Supervisor::build(Health::new(), None, limit);
        // This thread never gives its arbiter a turn, so the pulse stays where it is.
        let arbiter = house.here();
        let pulse = Pulse::start(&arbiter, limit);
        house.roster().arbiters.insert("here", Watched { arbiter, pulse: pulse.clone(), red: false });
        let late = || {
            while pulse.lag_ms() <= 20 {
                std::thread::yield_now();
            }
        };
        late();
        house.look(limit * 10);
        assert!(!house.arbiters()[0].red);
        late();
        house.look(Duration::ZERO);
        assert!(house.arbiters()[0].red && !house.shared.health.live().0);
        assert!(house.fatal().await.starts_with("arbiter here has not moved for "));
    }
}

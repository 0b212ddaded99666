//! The lag probe: a plain thread that reads when each watched thread last moved.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::arbiter::Pulse;
use super::heart::{Heart, Need};
use super::supervisor::{Supervisor, Watched};
use super::{Arbiter, ArbiterSnapshot};
use crate::ops::State;

/// A thread that is no arbiter.
pub(super) struct WatchedThread {
    name: String,
    heart: Heart,
    need: Need,
    red: bool,
    fatal: bool,
}

impl WatchedThread {
    pub(super) fn snapshot(&self) -> ArbiterSnapshot {
        ArbiterSnapshot { name: self.name.clone(), lag_ms: self.heart.lag_ms(), red: self.red }
    }
}

/// What one look found.
#[derive(Default)]
struct Found {
    /// Part of health and reason, for what the process cannot live with.
    fatal: Vec<(&'static str, String)>,
    /// Threads that stand still without ending the process.
    slow: Vec<String>,
    /// Whether one of those stood still before and moves again.
    recovered: bool,
}

impl Supervisor {
    /// Watches a thread that works in steps, until every other clone of its heart is gone.
    pub fn watch_thread(&self, name: impl Into<String>, heart: &Heart, need: Need) {
        let watched =
            WatchedThread { name: name.into(), heart: heart.clone(), need, red: false, fatal: false };
        self.roster().threads.push(watched);
        self.watch();
    }

    /// Watches the caller's own thread, which must run an actix system, as an arbiter of this name.
    ///
    /// # Panics
    /// Without a running actix system.
    pub fn watch_here(&self, name: &'static str) {
        let arbiter = Arbiter::new(name, self.here().handle());
        let pulse = Pulse::start(&arbiter, self.tick());
        self.roster().arbiters.insert(name, Watched { arbiter, pulse, red: false, own: false });
        self.watch();
    }

    /// Watches the caller's own thread, a worker of a server, which must run an actix system. It is watched for as long
    /// as it runs tasks: a worker that ends is not late.
    pub fn watch_worker(&self, name: String) {
        let (heart, tick) = (Heart::default(), self.tick());
        self.watch_thread(name, &heart, Need::Vital);
        actix_rt::spawn(async move {
            let _work = heart.work();
            loop {
                heart.step();
                tokio::time::sleep(tick).await;
            }
        });
    }

    pub(super) fn tick(&self) -> Duration {
        (self.shared.lag_limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(250))
    }

    /// Reads all pulses from a thread of its own, which ends with the last handle of this house. Once is enough.
    pub(super) fn watch(&self) {
        if std::mem::replace(&mut self.roster().watching, true) {
            return;
        }
        let (house, tick) = (std::sync::Arc::downgrade(&self.shared), self.tick());
        let started = std::thread::Builder::new().name("lag-probe".to_owned()).spawn(move || {
            let mut before = Instant::now();
            while let Some(shared) = Weak::upgrade(&house) {
                Self { shared }.look(before.elapsed());
                before = Instant::now();
                std::thread::sleep(tick);
            }
        });
        if let Err(error) = started {
            self.raise("arbiters", format!("the thread that watches the others did not start: {error}"));
        }
    }

    /// One look at every pulse, `away` after the one before. When this thread itself was held up for long, the
    /// machine or the whole process stood still (stopped by a signal, a frozen guest): that blames nobody.
    fn look(&self, away: Duration) {
        let found = self.late(away > self.shared.lag_limit / 2);
        for (part, reason) in found.fatal {
            self.raise(part, reason);
        }
        // A vital one that stands still is told by `raise`, and stays told.
        if self.roster().threads.iter().any(|watched| watched.fatal) {
            return;
        }
        if !found.slow.is_empty() {
            self.shared.health.set("threads", State::Degraded, found.slow.join("; "));
        } else if found.recovered {
            self.shared.health.set("threads", State::Ok, "");
        }
    }

    fn late(&self, stalled: bool) -> Found {
        let limit = u64::try_from(self.shared.lag_limit.as_millis()).unwrap_or(u64::MAX);
        let mut found = Found::default();
        let mut roster = self.roster();
        for (name, watched) in &mut roster.arbiters {
            if stalled {
                watched.pulse.forgive();
            }
            let lag = watched.pulse.lag_ms();
            if lag > limit && !watched.red {
                watched.red = true;
                let reason = format!("arbiter {name} has not moved for {lag} ms, longer than {limit} ms");
                found.fatal.push(("arbiters", reason));
            }
        }
        roster.threads.retain(|watched| !watched.heart.is_alone());
        for watched in &mut roster.threads {
            if stalled {
                watched.heart.forgive();
            }
            let lag = watched.heart.lag_ms();
            found.recovered |= watched.red && lag <= limit;
            watched.red = watched.fatal || lag > limit;
            if watched.fatal || !watched.red {
                continue;
            }
            watched.fatal = match watched.need {
                Need::Vital => true,
                Need::Patient => lag > limit.saturating_mul(Need::PATIENCE),
                Need::Spare => false,
            };
            let reason =
                format!("thread {} has been at one step for {lag} ms, longer than {limit} ms", watched.name);
            if watched.fatal {
                found.fatal.push(("threads", reason));
            } else {
                found.slow.push(reason);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Heart, Need, Pulse, Supervisor, Watched};
    use crate::ops::{Health, State};
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_millis(20);

    fn spin(late: impl Fn() -> bool) {
        while !late() {
            std::thread::yield_now();
        }
    }

    #[actix_rt::test]
    async fn a_process_that_stood_still_as_a_whole_blames_no_arbiter() {
        let house = Supervisor::build(Health::new(), None, LIMIT);
        // This thread never gives its arbiter a turn, so the pulse stays where it is.
        let arbiter = house.here();
        let pulse = Pulse::start(&arbiter, LIMIT);
        let watched = Watched { arbiter, pulse: pulse.clone(), red: false, own: false };
        house.roster().arbiters.insert("here", watched);
        let heart = Heart::default();
        let watched = super::WatchedThread {
            name: "writer".to_owned(),
            heart: heart.clone(),
            need: Need::Vital,
            red: false,
            fatal: false,
        };
        house.roster().threads.push(watched);
        let _work = heart.work();
        spin(|| pulse.lag_ms() > 20 && heart.lag_ms() > 20);
        house.look(LIMIT * 10);
        assert!(house.arbiters().iter().all(|shown| !shown.red));
        spin(|| pulse.lag_ms() > 20 && heart.lag_ms() > 20);
        house.look(Duration::ZERO);
        assert!(house.arbiters().iter().all(|shown| shown.red) && !house.shared.health.live().0);
        assert!(house.fatal().await.starts_with("arbiter here has not moved for "));
    }

    #[test]
    fn a_heart_at_rest_is_never_late_and_each_step_begins_anew() {
        let heart = Heart::default();
        spin(|| heart.start.elapsed() > LIMIT);
        assert_eq!(heart.lag_ms(), 0, "it waits for work");
        let work = heart.work();
        spin(|| heart.lag_ms() > 20);
        spin(|| {
            heart.step();
            heart.lag_ms() < 20
        });
        heart.aside(|| {
            spin(|| heart.start.elapsed() > LIMIT * 4);
            assert_eq!(heart.lag_ms(), 0, "what may rightly take long is not counted");
        });
        drop(work);
        heart.forgive();
        assert_eq!(heart.lag_ms(), 0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _work = heart.work();
            panic!("in the middle of work");
        }));
        assert!(caught.is_err() && heart.lag_ms() == 0, "a panic ends the work too");
    }

    #[actix_rt::test]
    async fn a_thread_that_can_be_spared_or_may_be_slow_degrades_health_until_it_moves() {
        let house = Supervisor::build(Health::new(), None, LIMIT);
        let (spare, slow) = (Heart::default(), Heart::default());
        for (name, heart, need) in [("spare", &spare, Need::Spare), ("slow", &slow, Need::Patient)] {
            let watched = super::WatchedThread {
                name: name.to_owned(),
                heart: heart.clone(),
                need,
                red: false,
                fatal: false,
            };
            house.roster().threads.push(watched);
        }
        let state = || {
            let parts = house.shared.health.ready().1;
            parts.into_iter().find(|part| part.part == "threads").map(|part| (part.state, part.reason))
        };
        let work = spare.work();
        spin(|| spare.lag_ms() > 20 * Need::PATIENCE);
        house.look(Duration::ZERO);
        let (shown, reason) = state().expect("reported");
        assert!(shown == State::Degraded && reason.starts_with("thread spare has been at one step for "));
        assert!(house.shared.health.ready().0 && house.shared.fatal.borrow().is_none());
        drop(work);
        house.look(Duration::ZERO);
        assert_eq!(state().expect("reported").0, State::Ok);
        let _work = slow.work();
        spin(|| slow.lag_ms() > 20 * Need::PATIENCE);
        house.look(Duration::ZERO);
        assert_eq!(state().expect("reported").0, State::Red);
        assert!(house.fatal().await.starts_with("thread slow has been at one step for "));
        drop(spare);
        house.look(Duration::ZERO);
        assert_eq!(house.arbiters().len(), 1, "a thread whose owner is gone is not watched");
    }
}

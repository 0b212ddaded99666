//! Makes any actor fail in any way, for tests: what must be survived is the same for all of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::{Envelope, EnvelopeProxy};
use actix::prelude::*;

use super::life::Vitals;
use super::{Exit, Mailbox, Supervised, Supervisor};

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trip {
    /// A panic in the middle of a message.
    Panic,
    /// An error that the actor says itself.
    Fail,
    /// A bare `ctx.stop()`.
    Stop,
}

/// All of them.
pub(crate) const TRIPS: [Trip; 3] = [Trip::Panic, Trip::Fail, Trip::Stop];

/// Trips one actor.
pub(super) type Tripper = Box<dyn Fn(Trip) + Send>;

/// A message to whatever actor.
struct Fall {
    how: Trip,
    vitals: Arc<Vitals>,
}

impl<A: Supervised> EnvelopeProxy<A> for Fall {
    fn handle(&mut self, _: &mut A, ctx: &mut Context<A>) {
        match self.how {
            Trip::Panic => panic!("tripped"),
            Trip::Fail => self.vitals.say_now(Exit::Failed("tripped".to_owned())),
            Trip::Stop => ctx.stop(),
        }
    }
}

impl<A: Supervised> Mailbox<A> {
    pub(super) fn tripper(&self) -> Tripper {
        let mailbox = self.clone();
        Box::new(move |how| {
            let fall = Fall { how, vitals: mailbox.vitals() };
            // One that has ended needs no trip.
            let _ = mailbox.post::<Fall>(Envelope::with_proxy(Box::new(fall)));
        })
    }
}

impl Supervisor {
    /// Trips every actor of this kind and gives how many there are.
    pub(crate) fn trip(&self, kind: &str, how: Trip) -> usize {
        self.trip_those(|_, found| found == kind, how)
    }

    /// Trips the actors of this kind and key, and waits until each lives again in its next life.
    pub(crate) async fn survives(&self, kind: &str, how: Trip) {
        let lives = |house: &Self| -> Vec<(String, u64, &'static str)> {
            let all = house.snapshots().into_iter().filter(|s| s.kind == kind);
            all.map(|s| (s.key, s.incarnation, s.state)).collect()
        };
        let before = lives(self);
        assert!(!before.is_empty(), "there is no {kind}");
        assert_eq!(self.trip(kind, how), before.len());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let now = lives(self);
            let next = |(key, life, _): &(String, u64, &str)| {
                now.iter().any(|(k, l, state)| k == key && l > life && *state == "running")
            };
            if before.iter().all(next) {
                return;
            }
            assert!(Instant::now() < deadline, "{kind} does not live again after {how:?}: {now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Panics the one actor with this key again and again until it is given up.
    pub(crate) async fn ruin(&self, kind: &str, key: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = 0;
        loop {
            let found = self.snapshots().into_iter().find(|s| s.kind == kind && s.key == key);
            match found {
                None => return,
                Some(s) if s.state == "given-up" => return,
                Some(s) if s.state == "running" && s.incarnation > seen => {
                    seen = s.incarnation;
                    self.trip_those(|k, found| found == kind && k == key, Trip::Panic);
                }
                Some(_) => {}
            }
            assert!(Instant::now() < deadline, "{kind} {key} is never given up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

//! The pinger: asks every guest's agent for a sign of life and writes when it was heard.
//!
//! Heartbeats come over the agents' authenticated sessions, so nobody else can keep a dead guest alive; the time is the
//! receiver's. Losing analytics loses points and nothing else.

mod schedule;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;

pub use schedule::Schedule;
pub use spill::Spill;

use crate::model::{Boot, CustomerId, Micros, ServerId};
use crate::ops::{Health, Metrics};
use crate::store::Store;
use crate::store::analytics::GuestPoint;
use crate::store::provisioning::{agent, server};
use crate::supervision::{Life, Supervised};

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heartbeat {
    /// From asking to hearing.
    pub round_trip: Duration,
    /// Load of the guest's processors.
    pub cpu_load: f64,
    /// Memory in use, in bytes.
    pub memory_used: u64,
    /// Memory in all, in bytes.
    pub memory_total: u64,
    /// Processes.
    pub processes: u32,
}

/// The sessions with guests.
#[async_trait(?Send)]
pub trait Guests: Send + Sync {
    /// Guests with a session now, and their tenants.
    fn connected(&self) -> Vec<(ServerId, CustomerId)>;

    /// Asks one guest; the error says what was wrong.
    async fn ping(&self, server: ServerId, limit: Duration) -> Result<Heartbeat, String>;
}

/// Links of the pinger.
#[derive(Clone)]
pub struct Spec {
    /// Sessions.
    pub guests: Arc<dyn Guests>,
    /// Where "heard last" is written.
    pub provisioning: Store,
    /// Where points are written.
    pub analytics: Store,
    /// Where points wait for that.
    pub spill: Spill,
    /// How the database of points is.
    pub health: Health,
    /// Counts.
    pub metrics: Metrics,
    /// This life.
    pub boot: Boot,
    /// Time between heartbeats of one guest.
    pub every: Duration,
    /// Longest wait for one answer.
    pub limit: Duration,
}

/// The pinger's actor.
pub struct Pinger {
    spec: Spec,
    life: Life,
}

/// Guests asked at the same time.
const TOGETHER: usize = 64;

impl Supervised for Pinger {
    type Spec = Spec;
    const KIND: &'static str = "pinger";

    fn key(spec: &Spec) -> String {
        spec.boot.to_string()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for Pinger {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let beating = beat_on(self.spec.clone());
        ctx.spawn(beating.into_actor(self).map(|(), actor, _| actor.life.fail("the pinger's loop ended")));
        let Spec { spill, analytics, health, metrics, .. } = self.spec.clone();
        let writing = spill.drain(analytics, health, metrics);
        ctx.spawn(writing.into_actor(self).map(|(), actor, _| actor.life.fail("points are written no more")));
    }
}

async fn beat_on(spec: Spec) {
    let mut schedule = Schedule::new(spec.every);
    let mut tick = tokio::time::interval(schedule.grain());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let connected: BTreeMap<ServerId, CustomerId> = spec.guests.connected().into_iter().collect();
        let due = schedule.due(Micros::wall(), connected.keys().copied());
        if !due.is_empty() {
            round(&spec, &due, &connected).await;
        }
    }
}

/// Asks the guests that are due and writes who was heard.
async fn round(spec: &Spec, due: &[ServerId], connected: &BTreeMap<ServerId, CustomerId>) {
    let answers: Vec<(ServerId, Result<Heartbeat, String>)> = stream::iter(due.iter().copied())
        .map(|id| async move { (id, spec.guests.ping(id, spec.limit).await) })
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let now = Micros::wall();
    let mut points = Vec::new();
    for (id, answer) in answers {
        match answer {
            Ok(beat) => {
                spec.metrics.heartbeat("heard");
                points.push(point(id, connected.get(&id).copied(), now, beat));
            }
            Err(cause) => {
                spec.metrics.heartbeat("missed");
                log::info!("no heartbeat of server {id}: {cause}; agent={id}");
            }
        }
    }
    write(spec, points, now).await;
}

fn point(id: ServerId, customer: Option<CustomerId>, at: Micros, beat: Heartbeat) -> GuestPoint {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    GuestPoint {
        server: id.0,
        at: at.0,
        customer: customer.map_or(0, |c| c.0),
        round_trip_micros: i64::try_from(beat.round_trip.as_micros()).unwrap_or(i64::MAX),
        cpu_load: beat.cpu_load,
        ram_used_mb: whole(beat.memory_used / 1_048_576),
        ram_total_mb: whole(beat.memory_total / 1_048_576),
        processes: i64::from(beat.processes),
    }
}

async fn write(spec: &Spec, points: Vec<GuestPoint>, now: Micros) {
    if points.is_empty() {
        return;
    }
    let heard: Vec<i64> = points.iter().map(|point| point.server).collect();
    keep(spec, points);
    let stored = spec
        .provisioning
        .write(move |c| {
            agent::heard(c, &heard, now)?;
            server::heard(c, &heard, now)
        })
        .await;
    if let Err(error) = stored {
        log::warn!("heartbeats are not written: {error}");
    }
}

fn keep(spec: &Spec, points: Vec<GuestPoint>) {
    // Health says how many wait and are lost; a line for each round would say no more.
    spec.metrics.points_lost(spec.spill.put(points));
}

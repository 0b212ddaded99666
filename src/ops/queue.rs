//! Figures of the queue between the parts of the house.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Line {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LineOutcome {
    queue: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Purpose {
    purpose: &'static str,
}

/// Counters and gauges of the queue. All clones count into the same place.
#[derive(Clone, Default)]
pub struct QueueMetrics {
    connected: Family<Purpose, Gauge>,
    blocked: Gauge,
    outbox_rows: Gauge,
    outbox_oldest: Gauge,
    published: Family<Outcome, Counter>,
    consumed: Family<LineOutcome, Counter>,
    canary_age: Family<Line, Gauge>,
    dead: Gauge,
    verdicts: Family<Outcome, Counter>,
}

impl QueueMetrics {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register("queue_connected", "Connections to the broker that stand", self.connected.clone());
        to.register("queue_blocked", "1 while the broker takes no messages", self.blocked.clone());
        to.register("outbox_rows", "Messages stored and not yet confirmed", self.outbox_rows.clone());
        let oldest = self.outbox_oldest.clone();
        to.register("outbox_oldest_seconds", "Age of the oldest message not yet confirmed", oldest);
        to.register("queue_published", "Messages published, by outcome", self.published.clone());
        to.register(
            "queue_consumed",
            "Messages delivered to this process, by outcome",
            self.consumed.clone(),
        );
        let canary = self.canary_age.clone();
        to.register("queue_canary_age_seconds", "Time since a canary came through the queue", canary);
        to.register("queue_dead_letters", "Messages that wait in the dead letters", self.dead.clone());
        to.register("queue_verdicts", "Verdicts from outside, by outcome", self.verdicts.clone());
    }

    /// A connection stands, or does not.
    pub fn connected(&self, purpose: &'static str, stands: bool) {
        self.connected.get_or_create(&Purpose { purpose }).set(i64::from(stands));
    }

    /// The broker takes no messages, or does again.
    pub fn blocked(&self, blocked: bool) {
        self.blocked.set(i64::from(blocked));
    }

    /// Messages that wait in the outbox, and how long the oldest has; whole seconds.
    pub fn outbox(&self, rows: i64, oldest: Duration) {
        self.outbox_rows.set(rows);
        self.outbox_oldest.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Messages had this outcome: `confirmed`, `returned`, `refused` or `unanswered`.
    pub fn published(&self, outcome: &'static str, count: usize) {
        self.published.get_or_create(&Outcome { outcome }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A delivery had this outcome.
    pub fn consumed(&self, queue: &'static str, outcome: &'static str) {
        self.consumed.get_or_create(&LineOutcome { queue, outcome }).inc();
    }

    /// How long ago a canary came through a queue.
    pub fn canary_age(&self, queue: &'static str, age: Duration) {
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.canary_age.get_or_create(&Line { queue }).set(age);
    }

    /// Messages in the dead letters.
    pub fn dead_letters(&self, count: u32) {
        self.dead.set(i64::from(count));
    }

    /// A verdict from outside had this outcome.
    pub fn verdict(&self, outcome: &'static str) {
        self.verdicts.get_or_create(&Outcome { outcome }).inc();
    }
}

//! Counters, gauges and histograms, in one fixed set.
//!
//! Labels take only words of this program (`&'static str`), never ids or text from outside, so the number of series
//! has a bound.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::QueueMetrics;
use crate::model::Micros;

/// Bounds in seconds: half a millisecond, a quick commit, up to ten seconds, longer than any request may take.
const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindState {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateOnly {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictOnly {
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    status: &'static str,
}

/// The metrics of this process. Cloning is cheap; all clones count into the same place. Recording never blocks on
/// more than a short lock and never fails.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    families: Families,
    recovery: Mutex<Option<Recovery>>,
}

/// The last time this process took jobs over from dead lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// When it was done.
    pub at: Micros,
    /// From looking for such jobs to owning them.
    pub took: Duration,
    /// How many.
    pub jobs: usize,
}

struct Families {
    jobs_submitted: Family<Kind, Counter>,
    jobs_ended: Family<KindState, Counter>,
    jobs_taken_over: Counter,
    attempts: Family<KindOutcome, Counter>,
    commits: Counter,
    commit_items: Counter,
    commit_seconds: Histogram,
    store_queue_depth: Gauge,
    http_requests: Family<Request, Counter>,
    http_seconds: Histogram,
    agents_connected: Gauge,
    agent_commands: Family<Outcome, Counter>,
    heartbeats: Family<Outcome, Counter>,
    points_spilled: Gauge,
    points_lost: Counter,
    actor_restarts: Family<Kind, Counter>,
    actor_panics: Family<Kind, Counter>,
    open_jobs: Family<StateOnly, Gauge>,
    oldest_waiting_seconds: Gauge,
    verdicts: Family<VerdictOnly, Counter>,
    km_leases: Family<Outcome, Counter>,
    nudges: Family<Topic, Counter>,
    janitor: Family<Outcome, Counter>,
    obligations: Family<StateOnly, Gauge>,
    queue: QueueMetrics,
}

impl Metrics {
    /// All families registered, nothing counted.
    #[must_use]
    pub fn new() -> Self {
        let families = Families::new();
        let mut registry = Registry::with_prefix("dispatcher");
        families.register_jobs(&mut registry);
        families.register_store_and_http(&mut registry);
        families.register_actors_and_agents(&mut registry);
        families.queue.register(&mut registry);
        Self { shared: Arc::new(Shared { registry, families, recovery: Mutex::default() }) }
    }

    /// The page a scraper reads: `OpenMetrics` text, ending in `# EOF`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if prometheus_client::encoding::text::encode(&mut page, &self.shared.registry).is_err() {
            log::error!("the metrics page could not be written");
        }
        page
    }

    /// A job was accepted.
    pub fn job_submitted(&self, kind: &'static str) {
        self.families().jobs_submitted.get_or_create(&Kind { kind }).inc();
    }

    /// A job came to an end.
    pub fn job_ended(&self, kind: &'static str, state: &'static str) {
        self.families().jobs_ended.get_or_create(&KindState { kind, state }).inc();
    }

    /// One call to the outside got its outcome.
    pub fn attempt(&self, kind: &'static str, outcome: &'static str) {
        self.families().attempts.get_or_create(&KindOutcome { kind, outcome }).inc();
    }

    /// One transaction was committed, with so many writes in it.
    pub fn commit(&self, items: u64, took: Duration) {
        self.families().commits.inc();
        self.families().commit_items.inc_by(items);
        self.families().commit_seconds.observe(took.as_secs_f64());
    }

    /// Requests waiting at the database door.
    pub fn store_queue_depth(&self, depth: usize) {
        self.families().store_queue_depth.set(level(depth));
    }

    /// One HTTP request was answered. `status` is shown as its class, such as `2xx`.
    pub fn http_request(&self, method: &str, status: u16, took: Duration) {
        let request = Request { method: known_method(method), status: status_class(status) };
        self.families().http_requests.get_or_create(&request).inc();
        self.families().http_seconds.observe(took.as_secs_f64());
    }

    /// Guests connected now.
    pub fn agents_connected(&self, count: usize) {
        self.families().agents_connected.set(level(count));
    }

    /// A command to a guest got its outcome.
    pub fn agent_command(&self, outcome: &'static str) {
        self.families().agent_commands.get_or_create(&Outcome { outcome }).inc();
    }

    /// A heartbeat came, or did not.
    pub fn heartbeat(&self, outcome: &'static str) {
        self.families().heartbeats.get_or_create(&Outcome { outcome }).inc();
    }

    /// So many points of guests wait because their database is away.
    pub fn points_spilled(&self, count: usize) {
        self.families().points_spilled.set(level(count));
    }

    /// So many points of guests are lost.
    pub fn points_lost(&self, count: usize) {
        self.families().points_lost.inc_by(count as u64);
    }

    /// An actor was restarted.
    pub fn actor_restarted(&self, kind: &'static str) {
        self.families().actor_restarts.get_or_create(&Kind { kind }).inc();
    }

    /// An actor panicked.
    pub fn actor_panicked(&self, kind: &'static str) {
        self.families().actor_panics.get_or_create(&Kind { kind }).inc();
    }

    /// Jobs in an open state now.
    pub fn open_jobs(&self, state: &'static str, count: usize) {
        self.families().open_jobs.get_or_create(&StateOnly { state }).set(level(count));
    }

    /// Jobs of dead lives were taken over.
    pub fn recovered(&self, recovery: Recovery) {
        self.families().jobs_taken_over.inc_by(u64::try_from(recovery.jobs).unwrap_or(u64::MAX));
        *self.shared.recovery.lock().unwrap_or_else(PoisonError::into_inner) = Some(recovery);
    }

    /// The last of these, if there was one in this life.
    #[must_use]
    pub fn last_recovery(&self) -> Option<Recovery> {
        *self.shared.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the oldest job that nobody runs has been waiting; whole seconds.
    pub fn oldest_waiting(&self, waited: Duration) {
        self.families().oldest_waiting_seconds.set(i64::try_from(waited.as_secs()).unwrap_or(i64::MAX));
    }

    /// A verdict about a watched effect was reached.
    pub fn verdict(&self, verdict: &'static str) {
        self.families().verdicts.get_or_create(&VerdictOnly { verdict }).inc();
    }

    /// A credential was asked of the key manager.
    pub fn km_lease(&self, outcome: &'static str) {
        self.families().km_leases.get_or_create(&Outcome { outcome }).inc();
    }

    /// The janitor looked, or made a job that takes something back.
    pub fn janitor(&self, outcome: &'static str) {
        self.families().janitor.get_or_create(&Outcome { outcome }).inc();
    }

    /// Tags that are looked for now, in a state.
    pub fn obligations(&self, state: &'static str, count: usize) {
        self.families().obligations.get_or_create(&StateOnly { state }).set(level(count));
    }

    /// A nudge went to the queue.
    pub fn nudge(&self, topic: &'static str) {
        self.families().nudges.get_or_create(&Topic { topic }).inc();
    }

    /// Figures of the queue.
    #[must_use]
    pub fn queue(&self) -> &QueueMetrics {
        &self.families().queue
    }

    fn families(&self) -> &Families {
        &self.shared.families
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Families {
    fn new() -> Self {
        Self {
            jobs_submitted: Family::default(),
            jobs_ended: Family::default(),
            jobs_taken_over: Counter::default(),
            attempts: Family::default(),
            commits: Counter::default(),
            commit_items: Counter::default(),
            commit_seconds: Histogram::new(SECONDS),
            store_queue_depth: Gauge::default(),
            http_requests: Family::default(),
            http_seconds: Histogram::new(SECONDS),
            agents_connected: Gauge::default(),
            agent_commands: Family::default(),
            heartbeats: Family::default(),
            points_spilled: Gauge::default(),
            points_lost: Counter::default(),
            actor_restarts: Family::default(),
            actor_panics: Family::default(),
            open_jobs: Family::default(),
            oldest_waiting_seconds: Gauge::default(),
            verdicts: Family::default(),
            km_leases: Family::default(),
            nudges: Family::default(),
            janitor: Family::default(),
            obligations: Family::default(),
            queue: QueueMetrics::default(),
        }
    }

    fn register_jobs(&self, to: &mut Registry) {
        to.register("jobs_submitted", "Jobs accepted", self.jobs_submitted.clone());
        to.register("jobs_ended", "Jobs that came to an end", self.jobs_ended.clone());
        to.register("jobs_taken_over", "Jobs taken over from dead lives", self.jobs_taken_over.clone());
        to.register("attempts", "Calls to the outside, by outcome", self.attempts.clone());
        to.register("open_jobs", "Jobs that have not ended, by state", self.open_jobs.clone());
        let oldest = self.oldest_waiting_seconds.clone();
        to.register("oldest_waiting_seconds", "Age of the oldest job nobody runs", oldest);
        to.register("verdicts", "Verdicts about watched effects", self.verdicts.clone());
        to.register("km_leases", "Credentials asked of the key manager", self.km_leases.clone());
        to.register("nudges", "Nudges sent to the queue", self.nudges.clone());
        let looks = "Looks for what turns up after jobs ended, and jobs made to take it back";
        to.register("janitor", looks, self.janitor.clone());
        to.register("obligations", "Tags that are looked for, by state", self.obligations.clone());
    }

    fn register_store_and_http(&self, to: &mut Registry) {
        to.register("commits", "Transactions committed", self.commits.clone());
        to.register("commit_items", "Writes inside committed transactions", self.commit_items.clone());
        to.register("commit_seconds", "Duration of commits", self.commit_seconds.clone());
        to.register("store_queue_depth", "Requests waiting at the database", self.store_queue_depth.clone());
        to.register("http_requests", "HTTP requests answered", self.http_requests.clone());
        to.register("http_seconds", "Duration of HTTP requests", self.http_seconds.clone());
    }

    fn register_actors_and_agents(&self, to: &mut Registry) {
        to.register("agents_connected", "Guests connected now", self.agents_connected.clone());
        to.register("agent_commands", "Commands to guests, by outcome", self.agent_commands.clone());
        to.register("heartbeats", "Heartbeats of guests, by outcome", self.heartbeats.clone());
        let spilled = self.points_spilled.clone();
        to.register("analytics_spilled", "Points of guests that wait for a database that is away", spilled);
        to.register("analytics_lost", "Points of guests pushed out of memory", self.points_lost.clone());
        to.register("actor_restarts", "Actors started anew after a failure", self.actor_restarts.clone());
        to.register("actor_panics", "Actors that panicked", self.actor_panics.clone());
    }
}

fn level(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A method is text from outside: only the known ones become labels.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

const fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::{Metrics, Recovery};
    use crate::model::Micros;
    use std::time::Duration;

    fn record_all(metrics: &Metrics) {
        metrics.job_submitted("noop");
        metrics.job_ended("noop", "complete");
        metrics.attempt("noop", "ok");
        metrics.recovered(Recovery { at: Micros(7), took: Duration::from_millis(5), jobs: 3 });
        metrics.commit(3, Duration::from_millis(2));
        metrics.store_queue_depth(4);
        metrics.http_request("GET", 204, Duration::from_millis(3));
        metrics.http_request("BREW", 999, Duration::from_millis(3));
        metrics.agents_connected(5);
        metrics.agent_command("ok");
        metrics.heartbeat("missed");
        metrics.actor_restarted("job");
        metrics.actor_panicked("job");
        metrics.open_jobs("queued", 6);
        metrics.oldest_waiting(Duration::from_millis(7900));
        metrics.verdict("reached");
        metrics.km_lease("granted");
        metrics.nudge("jobs");
        metrics.janitor("absent");
        metrics.obligations("needs-you", 2);
        let queue = metrics.queue();
        queue.connected("publish", true);
        queue.blocked(true);
        queue.outbox(3, Duration::from_millis(2900));
        queue.published("confirmed", 5);
        queue.consumed("watch", "taken");
        queue.canary_age("due", Duration::from_secs(4));
        queue.dead_letters(6);
        queue.verdict("decided");
    }

    #[test]
    fn every_recording_reaches_the_page() {
        let metrics = Metrics::new();
        record_all(&metrics.clone());
        let page = metrics.encode();
        for line in [
            "dispatcher_jobs_submitted_total{kind=\"noop\"} 1",
            "dispatcher_jobs_ended_total{kind=\"noop\",state=\"complete\"} 1",
            "dispatcher_jobs_taken_over_total 3",
            "dispatcher_attempts_total{kind=\"noop\",outcome=\"ok\"} 1",
            "dispatcher_commits_total 1",
            "dispatcher_commit_items_total 3",
            "dispatcher_commit_seconds_bucket{le=\"0.0025\"} 1",
            "dispatcher_store_queue_depth 4",
            "dispatcher_http_requests_total{method=\"GET\",status=\"2xx\"} 1",
            "dispatcher_http_requests_total{method=\"other\",status=\"other\"} 1",
            "dispatcher_http_seconds_count 2",
            "dispatcher_agents_connected 5",
            "dispatcher_agent_commands_total{outcome=\"ok\"} 1",
            "dispatcher_heartbeats_total{outcome=\"missed\"} 1",
            "dispatcher_actor_restarts_total{kind=\"job\"} 1",
            "dispatcher_actor_panics_total{kind=\"job\"} 1",
            "dispatcher_open_jobs{state=\"queued\"} 6",
            "dispatcher_oldest_waiting_seconds 7",
            "dispatcher_verdicts_total{verdict=\"reached\"} 1",
            "dispatcher_km_leases_total{outcome=\"granted\"} 1",
            "dispatcher_nudges_total{topic=\"jobs\"} 1",
            "dispatcher_janitor_total{outcome=\"absent\"} 1",
            "dispatcher_obligations{state=\"needs-you\"} 2",
            "dispatcher_queue_connected{purpose=\"publish\"} 1",
            "dispatcher_queue_blocked 1",
            "dispatcher_outbox_rows 3",
            "dispatcher_outbox_oldest_seconds 2",
            "dispatcher_queue_published_total{outcome=\"confirmed\"} 5",
            "dispatcher_queue_consumed_total{queue=\"watch\",outcome=\"taken\"} 1",
            "dispatcher_queue_canary_age_seconds{queue=\"due\"} 4",
            "dispatcher_queue_dead_letters 6",
            "dispatcher_queue_verdicts_total{outcome=\"decided\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "no line {line} in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
        assert_eq!(metrics.last_recovery().map(|last| last.jobs), Some(3));
    }
}

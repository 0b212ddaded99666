//! The actors of each role, and what they are wired with. Every process is composed of these pieces and no others.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::adapters::{KmKeys, Sessions};
use super::base::Base;
use crate::agents::{self, Agents};
use crate::cloud::{Clouds, Provider, Watched};
use crate::config::ms;
use crate::crypto::pki::{Authority, Identity};
use crate::crypto::{Key, KeyRing};
use crate::jobs::machine::Limits;
use crate::jobs::ports::{Enrolment, Ports};
use crate::jobs::{self, SqlStore};
use crate::km::Km;
use crate::monitor::{CloudLook, Janitor, Monitor, janitor};
use crate::mq::{self, Queue};
use crate::pinger::{self, Guests, Pinger, Spill};
use crate::registry::{self, Registry, RegistryActor, Running};
use crate::store::Store;
use crate::store::provisioning::seed;
use crate::supervision::{self, Options};
use crate::worker::{ReportLook, Worker};

/// How long idempotency keys are kept.
const KEEP_KEYS: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long replay records are kept: both windows of the dated API (5 minutes each way), and a margin.
const KEEP_REPLAYS: Duration = Duration::from_secs(15 * 60);
/// How long a job is set aside whose actor was given up.
const SET_ASIDE: Duration = Duration::from_secs(60);
/// Longest wait for one request to the registry.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);

/// What jobs are worked on with, besides the base.
pub(super) struct Tools {
    pub(super) install: Arc<Key>,
    pub(super) ring: Arc<KeyRing>,
    pub(super) km: Km,
    pub(super) cloud: Arc<dyn Provider>,
    pub(super) enrolment: Enrolment,
}

/// The queue the settings name.
pub(super) fn queue(base: &Base) -> Result<Arc<dyn Queue>, Error> {
    let readers = base.changes.clone();
    let parts = mq::Parts {
        supervisor: base.ops.supervisor.clone(),
        store: base.store.clone(),
        sequencer: base.sequencer.clone(),
        boot: base.boot,
        metrics: base.ops.metrics.clone(),
        health: base.ops.health.clone(),
        told: Arc::new(move |job| readers.tell(job)),
    };
    mq::open(&base.config.queue, parts).map_err(|e| Error::part("queue", &e))
}

fn rows(base: &Base, queue: &Arc<dyn Queue>) -> Arc<SqlStore> {
    let rows = SqlStore::new(
        base.store.clone(),
        base.sequencer.clone(),
        base.boot,
        base.changes.clone(),
        queue.announce(),
    );
    Arc::new(rows.nudging(Arc::clone(queue)))
}

/// The drivers of every cloud, each watched for its silence.
fn clouds(base: &Base, cloud: &Arc<dyn Provider>) -> Clouds {
    let mut clouds = Clouds::new();
    let watched = Watched::new(Arc::clone(cloud), base.answering.clone());
    clouds.insert(seed::CLOUD, Arc::new(watched));
    clouds
}

/// Starts the directory and router, and with it the work on jobs.
pub(super) fn registry(base: &Base, queue: &Arc<dyn Queue>, tools: Tools) -> Registry {
    let (ops, settings) = (&base.ops, &base.config.jobs);
    let ports = Ports {
        metrics: ops.metrics.clone(),
        clock: Arc::new(base.clock.clone()),
        store: rows(base, queue),
        queue: Arc::clone(queue),
        keys: Arc::new(KmKeys(tools.km)),
        clouds: clouds(base, &tools.cloud),
        liveness: Arc::new(base.beat.clone()),
        boot: base.boot,
        generation: base.generation,
        install: tools.install,
        ring: tools.ring,
        limits: Limits {
            retry_first: ms(settings.retry_first_ms),
            retry_most: ms(settings.retry_most_ms),
            calls: settings.calls,
            grace: ms(settings.grace_ms),
            look_after: ms(base.config.janitor.keep_ms),
            ..Limits::default()
        },
        call_limit: ms(settings.call_ms),
        command_wait: ms(settings.command_wait_ms),
        enrolment: Some(Arc::new(tools.enrolment)),
    };
    let spec = registry::Spec {
        store: base.store.clone(),
        queue: Arc::clone(queue),
        changes: base.changes.clone(),
        metrics: ops.metrics.clone(),
        supervisor: ops.supervisor.clone(),
        jobs: ops.supervisor.arbiter("jobs"),
        ports,
        sweep: ms(settings.sweep_ms),
        died: Arc::clone(&base.died),
        running: Running::new(settings.most),
        set_aside: SET_ASIDE,
        keep_keys: KEEP_KEYS,
        keep_replays: KEEP_REPLAYS,
    };
    let options = Options {
        limits: supervision::Limits { mailbox: 16_384, ..supervision::Limits::default() },
        ..Options::permanent()
    };
    let mailbox = ops.supervisor.spawn::<RegistryActor>(&ops.supervisor.arbiter("plumbing"), spec, options);
    Registry::new(mailbox, base.changes.clone(), REGISTRY_LIMIT)
}

/// Starts looking at clouds.
pub(super) fn monitor(base: &Base, queue: &Arc<dyn Queue>, (km, cloud): (Km, &Arc<dyn Provider>)) {
    let settings = &base.config.monitor;
    let look = CloudLook {
        store: rows(base, queue),
        keys: Arc::new(KmKeys(km)),
        clouds: clouds(base, cloud),
        clock: Arc::new(base.clock.clone()),
        first: ms(settings.first_ms),
        most: ms(settings.most_ms),
        call_limit: ms(base.config.jobs.call_ms),
    };
    let spec = watching(base, queue, look, settings);
    let supervisor = &base.ops.supervisor;
    let _monitor = supervisor.spawn::<Monitor>(&supervisor.arbiter("watchers"), spec, Options::permanent());
}

/// Starts looking for what turns up after jobs ended.
pub(super) fn janitor(base: &Base, queue: &Arc<dyn Queue>, (km, cloud): (Km, &Arc<dyn Provider>)) {
    let settings = &base.config.janitor;
    let spec = janitor::Spec {
        store: base.store.clone(),
        sequencer: base.sequencer.clone(),
        rows: rows(base, queue),
        keys: Arc::new(KmKeys(km)),
        clouds: clouds(base, cloud),
        clock: Arc::new(base.clock.clone()),
        queue: Arc::clone(queue),
        changes: base.changes.clone(),
        metrics: base.ops.metrics.clone(),
        health: base.ops.health.clone(),
        boot: base.boot,
        limits: janitor::Limits {
            later: ms(settings.later_ms),
            keep: ms(settings.keep_ms),
            again: ms(settings.again_ms),
            daily: ms(settings.daily_ms),
            take_back: ms(settings.take_back_ms),
            call: ms(base.config.jobs.call_ms),
        },
        sweep: ms(settings.sweep_ms),
        together: settings.together,
    };
    let supervisor = &base.ops.supervisor;
    let _janitor = supervisor.spawn::<Janitor>(&supervisor.arbiter("watchers"), spec, Options::permanent());
}

/// Starts deciding watches that need no cloud.
pub(super) fn worker(base: &Base, queue: &Arc<dyn Queue>) {
    let settings = &base.config.worker;
    let look = ReportLook {
        store: base.store.clone(),
        clock: Arc::new(base.clock.clone()),
        pause: ms(settings.most_ms.min(1000)),
    };
    let spec = watching(base, queue, look, settings);
    let supervisor = &base.ops.supervisor;
    let _worker = supervisor.spawn::<Worker>(&supervisor.arbiter("watchers"), spec, Options::permanent());
}

fn watching<L: jobs::watching::Look>(
    base: &Base,
    queue: &Arc<dyn Queue>,
    look: L,
    settings: &crate::config::Watching,
) -> jobs::watching::Spec<L> {
    jobs::watching::Spec {
        look: Arc::new(look),
        store: base.store.clone(),
        queue: Arc::clone(queue),
        changes: base.changes.clone(),
        metrics: base.ops.metrics.clone(),
        source: format!("{}/{}", L::ROLE, base.boot),
        sweep: ms(settings.sweep_ms),
        together: settings.together,
    }
}

/// Starts the sessions with guests.
pub(super) fn agents(
    base: &Base,
    queue: &Arc<dyn Queue>,
    (authority, role): (Authority, Identity),
) -> Result<Agents, Error> {
    let parts = agents::Parts {
        store: base.store.clone(),
        queue: Arc::clone(queue),
        boot: base.boot,
        authority,
        role,
        metrics: base.ops.metrics.clone(),
        health: base.ops.health.clone(),
        limits: agents::Limits::default(),
    };
    let supervisor = &base.ops.supervisor;
    Agents::start(supervisor, &supervisor.arbiter("agents"), parts).map_err(|e| Error::part("agents", &e))
}

/// Heartbeats over the sessions this process has.
pub(super) fn sessions(agents: &Agents) -> Arc<dyn Guests> {
    Arc::new(Sessions(agents.clone()))
}

/// Starts heartbeats of guests.
pub(super) fn pinger(base: &Base, analytics: &Store, guests: Arc<dyn Guests>) {
    let settings = &base.config.pinger;
    let spec = pinger::Spec {
        guests,
        provisioning: base.store.clone(),
        analytics: analytics.clone(),
        spill: Spill::new(settings.spill),
        health: base.ops.health.clone(),
        metrics: base.ops.metrics.clone(),
        boot: base.boot,
        every: ms(settings.every_ms),
        limit: ms(settings.limit_ms),
    };
    let supervisor = &base.ops.supervisor;
    let _pinger = supervisor.spawn::<Pinger>(&supervisor.arbiter("watchers"), spec, Options::permanent());
}

/// Heartbeats over connections of the pinger's own.
pub(super) fn dialled(_base: &Base, _identity: (String, Identity)) -> Result<Arc<dyn Guests>, Error> {
    Err(Error::Part { part: "pinger", text: "it does not dial guests by itself yet".to_owned() })
}

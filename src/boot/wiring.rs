//! The actors of `dispatcher dev`, and what each is wired with.

use std::sync::Arc;
use std::time::Duration;

use super::adapters::{KmKeys, Sessions};
use super::folder::Folder;
use super::parts::Keys;
use super::{Error, Part};
use crate::agents::{self, Agents};
use crate::cloud::{Clouds, Provider};
use crate::config::{Config, ms};
use crate::crypto::pki;
use crate::jobs::machine::Limits;
use crate::jobs::ports::{Enrolment, Ports};
use crate::jobs::{self, Changes, ClockKeeper, ClockSpec, DatabaseClock, SqlStore};
use crate::model::Boot;
use crate::monitor::{CloudLook, Monitor};
use crate::mq::{self, Queue};
use crate::ops::{Health, Metrics};
use crate::pinger::{self, Pinger};
use crate::registry::{self, Beat, NodeActor, NodeSpec, RegistryActor, Running};
use crate::store::Store;
use crate::store::provisioning::seed;
use crate::store::provisioning::sequence::Sequencer;
use crate::supervision::{self, Options, Supervisor};
use crate::worker::{ReportLook, Worker};

/// How long idempotency keys are kept.
const KEEP_KEYS: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long replay records are kept: both windows of the dated API (5 minutes each way), and a margin.
const KEEP_REPLAYS: Duration = Duration::from_secs(15 * 60);
/// Time between looks at the database's clock.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// Life of the certificate shown to guests; it is made anew at each start.
const ROLE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the actors are wired with.
pub(super) struct Wiring<'a> {
    pub(super) config: &'a Config,
    pub(super) without: &'a std::collections::BTreeSet<Part>,
    pub(super) store: &'a Store,
    pub(super) analytics: &'a Store,
    pub(super) sequencer: &'a Sequencer,
    pub(super) supervisor: &'a Supervisor,
    pub(super) metrics: &'a Metrics,
    pub(super) health: &'a Health,
    pub(super) boot: Boot,
    pub(super) clock: DatabaseClock,
}

impl Wiring<'_> {
    pub(super) fn ports(
        &self,
        keys: &Keys,
        km: crate::km::Km,
        cloud: Arc<dyn Provider>,
        enrolment: Enrolment,
    ) -> Result<(Ports, Changes, Beat), Error> {
        let changes = Changes::new();
        let queue = self.queue(&changes)?;
        let beat = Beat::new(ms(self.config.node.fresh_ms));
        let mut clouds = Clouds::new();
        clouds.insert(seed::CLOUD, cloud);
        let limits = &self.config.jobs;
        let rows = SqlStore::new(
            self.store.clone(),
            self.sequencer.clone(),
            self.boot,
            changes.clone(),
            queue.announce(),
        );
        let ports = Ports {
            metrics: self.metrics.clone(),
            clock: Arc::new(self.clock.clone()),
            store: Arc::new(rows),
            queue,
            keys: Arc::new(KmKeys(km)),
            clouds,
            liveness: Arc::new(beat.clone()),
            boot: self.boot,
            install: Arc::clone(&keys.install),
            ring: Arc::clone(&keys.ring),
            limits: Limits {
                retry_first: ms(limits.retry_first_ms),
                retry_most: ms(limits.retry_most_ms),
                calls: limits.calls,
                grace: ms(limits.grace_ms),
                ..Limits::default()
            },
            call_limit: ms(limits.call_ms),
            command_wait: ms(limits.command_wait_ms),
            enrolment: Some(Arc::new(enrolment)),
        };
        Ok((ports, changes, beat))
    }

    /// The queue the settings name.
    fn queue(&self, changes: &Changes) -> Result<Arc<dyn Queue>, Error> {
        let readers = changes.clone();
        let parts = mq::Parts {
            supervisor: self.supervisor.clone(),
            store: self.store.clone(),
            sequencer: self.sequencer.clone(),
            boot: self.boot,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            told: Arc::new(move |job| readers.tell(job)),
        };
        mq::open(&self.config.queue, parts).map_err(|e| Error::part("queue", &e))
    }

    pub(super) fn start(
        &self,
        (ports, changes, beat): (Ports, Changes, Beat),
        folder: &Folder,
        services: &pki::Authority,
    ) -> Result<(supervision::Mailbox<RegistryActor>, Agents), Error> {
        let plumbing = self.supervisor.arbiter("plumbing");
        let died = Arc::new(tokio::sync::Notify::new());
        let node = NodeSpec {
            store: self.store.clone(),
            boot: self.boot,
            beat,
            every: ms(self.config.node.beat_ms),
            look: ms(self.config.node.look_ms),
            still: ms(self.config.node.still_ms),
            died: Arc::clone(&died),
        };
        let _node = self.supervisor.spawn::<NodeActor>(&plumbing, node, Options::permanent());
        let clock = ClockSpec {
            clock: self.clock.clone(),
            store: self.store.clone(),
            health: self.health.clone(),
            every: CLOCK_EVERY,
        };
        let _clock = self.supervisor.spawn::<ClockKeeper>(&plumbing, clock, Options::permanent());
        let queue: Arc<dyn Queue> = Arc::clone(&ports.queue);
        self.watchers(&ports, &changes);
        let agents = self.agents(&queue, folder, services)?;
        let spec = registry::Spec {
            store: self.store.clone(),
            queue,
            changes,
            metrics: self.metrics.clone(),
            supervisor: self.supervisor.clone(),
            jobs: self.supervisor.arbiter("jobs"),
            ports,
            sweep: ms(self.config.jobs.sweep_ms),
            died,
            running: Running::new(self.config.jobs.most),
            set_aside: Duration::from_secs(60),
            keep_keys: KEEP_KEYS,
            keep_replays: KEEP_REPLAYS,
        };
        let options = Options {
            limits: supervision::Limits { mailbox: 16_384, ..supervision::Limits::default() },
            ..Options::permanent()
        };
        Ok((self.supervisor.spawn::<RegistryActor>(&plumbing, spec, options), agents))
    }

    /// Monitor and worker, unless they are left out.
    fn watchers(&self, ports: &Ports, changes: &Changes) {
        let arbiter = self.supervisor.arbiter("watchers");
        if !self.without.contains(&Part::Monitor) {
            let settings = &self.config.monitor;
            let look = CloudLook {
                store: Arc::clone(&ports.store),
                keys: Arc::clone(&ports.keys),
                clouds: ports.clouds.clone(),
                clock: Arc::clone(&ports.clock),
                first: ms(settings.first_ms),
                most: ms(settings.most_ms),
                call_limit: ports.call_limit,
            };
            let spec = self.watching(look, ports, changes, settings);
            let _monitor = self.supervisor.spawn::<Monitor>(&arbiter, spec, Options::permanent());
        }
        if !self.without.contains(&Part::Worker) {
            let settings = &self.config.worker;
            let look = ReportLook {
                store: self.store.clone(),
                clock: Arc::clone(&ports.clock),
                pause: ms(settings.most_ms.min(1000)),
            };
            let spec = self.watching(look, ports, changes, settings);
            let _worker = self.supervisor.spawn::<Worker>(&arbiter, spec, Options::permanent());
        }
    }

    fn watching<L: jobs::watching::Look>(
        &self,
        look: L,
        ports: &Ports,
        changes: &Changes,
        settings: &crate::config::Watching,
    ) -> jobs::watching::Spec<L> {
        jobs::watching::Spec {
            look: Arc::new(look),
            store: self.store.clone(),
            queue: Arc::clone(&ports.queue),
            changes: changes.clone(),
            metrics: self.metrics.clone(),
            source: format!("{}/{}", L::ROLE, self.boot),
            sweep: ms(settings.sweep_ms),
            together: settings.together,
        }
    }

    /// Sessions with guests, and the pinger unless it is left out.
    fn agents(
        &self,
        queue: &Arc<dyn Queue>,
        folder: &Folder,
        services: &pki::Authority,
    ) -> Result<Agents, Error> {
        let fault = |error: &(dyn std::error::Error + 'static)| Error::part("agents", error);
        let names = ["dispatcher".to_owned()];
        let role = services
            .issue_role("urn:dispatcher:role:dispatcher", &names, ROLE_LIFE)
            .map_err(|e| fault(&e))?;
        let parts = agents::Parts {
            store: self.store.clone(),
            queue: Arc::clone(queue),
            boot: self.boot,
            authority: folder.authority("agents")?,
            role,
            metrics: self.metrics.clone(),
            limits: agents::Limits::default(),
        };
        let agents = Agents::start(self.supervisor, &self.supervisor.arbiter("agents"), parts)
            .map_err(|e| fault(&e))?;
        if !self.without.contains(&Part::Pinger) {
            let spec = pinger::Spec {
                guests: Arc::new(Sessions(agents.clone())),
                provisioning: self.store.clone(),
                analytics: self.analytics.clone(),
                metrics: self.metrics.clone(),
                boot: self.boot,
                every: ms(self.config.pinger.every_ms),
                limit: ms(self.config.pinger.limit_ms),
            };
            let arbiter = self.supervisor.arbiter("watchers");
            let _pinger = self.supervisor.spawn::<Pinger>(&arbiter, spec, Options::permanent());
        }
        Ok(agents)
    }
}

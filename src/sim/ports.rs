//! The ports of one process: the traits of `jobs::ports` over the wire of the world.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::wire::{Answer, Site, call, sleep};
use super::world::{Sim, World};
use super::wrong::Wrong;
use crate::cloud::{Capabilities, Clouds, Provider};
use crate::crypto::{Key, KeyRing, Secret};
use crate::jobs::machine::Limits;
use crate::jobs::ports::{
    Applied, Ask, Change, Clock, Enrolment, JobStore, Keys, Leased, Liveness, NoLease, Place, Ports,
};
use crate::jobs::steps::UNDO;
use crate::model::{
    AccountId, AttemptOutcome, Boot, CustomerId, Generation, JobUid, Micros, RegionId, ServerId, ServerStatus,
};
use crate::mq::{Nudge, Queue, Topic};
use crate::ops::Metrics;
use crate::store;
use crate::store::provisioning::job::History;
use crate::store::provisioning::seed;
use crate::store::provisioning::server::ServerRow;

/// S: no effect starts later than this after the last successful beat was sent.
pub(super) const FRESH: Duration = Duration::from_secs(6);
/// Longest call.
pub(super) const CALL: Duration = Duration::from_secs(2);

/// What all processes of a run share.
#[derive(Clone)]
pub(super) struct Common {
    install: Arc<Key>,
    ring: Arc<KeyRing>,
    metrics: Metrics,
    enrolment: Arc<Enrolment>,
}

impl Common {
    pub(super) fn new() -> Self {
        Self {
            install: Arc::new(Key::random()),
            ring: Arc::new(KeyRing::new(Key::random())),
            metrics: Metrics::new(),
            enrolment: Arc::new(Enrolment {
                urls: vec!["https://localhost".into()],
                root: "pem".into(),
                token_life: Duration::from_secs(900),
            }),
        }
    }
}

/// See the module.
pub(super) struct Port {
    pub(super) sim: Sim,
    pub(super) life: usize,
    pub(super) boot: Boot,
    pub(super) wrong: Option<Wrong>,
    pub(super) capabilities: Capabilities,
    /// The epoch this process holds of each job; only a deliberate fault asks for it.
    pub(super) epochs: Mutex<HashMap<JobUid, i64>>,
}

impl Port {
    pub(super) fn new(sim: &Sim, life: usize) -> Arc<Self> {
        let (boot, wrong, capabilities) = sim.with(|w| (w.lives[life].boot, w.wrong, w.cloud.capabilities));
        Arc::new(Self { sim: sim.clone(), life, boot, wrong, capabilities, epochs: Mutex::default() })
    }

    pub(super) fn clouds(self: &Arc<Self>) -> Clouds {
        let mut clouds = Clouds::new();
        clouds.insert(seed::CLOUD, Arc::clone(self) as Arc<dyn Provider>);
        clouds
    }

    pub(super) fn ports(self: &Arc<Self>, common: &Common) -> Ports {
        Ports {
            clock: Arc::clone(self) as _,
            store: Arc::clone(self) as _,
            queue: Arc::clone(self) as _,
            keys: Arc::clone(self) as _,
            clouds: self.clouds(),
            liveness: Arc::clone(self) as _,
            boot: self.boot,
            generation: Generation::default(),
            install: Arc::clone(&common.install),
            ring: Arc::clone(&common.ring),
            metrics: common.metrics.clone(),
            limits: Limits::default(),
            call_limit: CALL,
            command_wait: Duration::from_secs(30),
            enrolment: Some(Arc::clone(&common.enrolment)),
        }
    }

    /// A write of rows in the name of this life.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        mut act: impl FnMut(&mut super::rows::Rows) -> T + Send + 'static,
    ) -> Answer<T> {
        let boot = self.boot;
        call(&self.sim, Site::Write, move |w| w.write(Some(boot), &mut act)).await
    }

    /// A read of rows.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        mut act: impl FnMut(&super::rows::Rows) -> T + Send + 'static,
    ) -> Answer<T> {
        call(&self.sim, Site::Read, move |w| act(w.read())).await
    }

    /// Before a change is applied: only deliberate faults have something to do here.
    fn tamper(&self, change: &Change) {
        let held = match change {
            Change::Claim { claim, .. } => Some((claim.seen.job, claim.next.0)),
            Change::Open { attempt, .. } => Some((attempt.job, attempt.epoch.0)),
            Change::Wait { fence, .. } => Some((fence.job, fence.epoch.0)),
            _ => None,
        };
        if let Some((job, epoch)) = held {
            self.epochs.lock().expect("no panic").insert(job, epoch);
        }
        match (self.wrong, change) {
            (Some(Wrong::UndoBeforeCommit), Change::BeginUndo { fence, .. }) => {
                let job = fence.job;
                self.sim.with(|w| undo_now(w, job));
            }
            (Some(Wrong::CallBeforeIntent), Change::Open { attempt, .. }) if attempt.step == "create" => {
                let (job, uid) = (attempt.job, attempt.uid);
                self.sim.with(|w| w.sends(job, uid, true));
            }
            _ => {}
        }
    }
}

/// Takes a server back although nothing says so yet.
fn undo_now(w: &mut World, job: JobUid) {
    let Some(history) = w.rows.history(job) else { return };
    let (begun, resource) = (history.job.undo_begun, history.job.resource.clone());
    let Some(id) = resource else { return };
    drop(w.moved(job, &id, ServerStatus::Terminated));
    if !begun {
        w.violated(format!("undo: a call of it was sent before its state was committed; job {job}"));
    }
}

/// What a deliberate fault makes a process read.
fn misread(wrong: Wrong, history: &mut History) {
    match wrong {
        Wrong::LookBelievedAtCancel if history.job.cancel_by.is_some() => {
            let open = history.attempts.iter_mut().filter(|a| a.outcome == AttemptOutcome::Open);
            open.filter(|a| a.step != UNDO).for_each(|a| a.quiet_until = Some(Micros(0)));
        }
        Wrong::VerdictOfAnyTry => {
            let Some(watch) = history.watches.first_mut() else { return };
            let other = history.evidence.iter_mut().find(|e| e.source.starts_with("other-try"));
            if let Some(evidence) = other {
                evidence.subject = watch.uid.to_string();
                watch.done_at = Some(evidence.made_at);
            }
        }
        _ => {}
    }
}

#[async_trait(?Send)]
impl JobStore for Port {
    async fn history(&self, job: JobUid) -> Result<Option<History>, store::Error> {
        let read = self.read(move |rows| rows.history(job).cloned()).await;
        let Answer::Value(mut found) = read else { return Err(store::Error::Busy) };
        if let Some(history) = &mut found {
            let version = history.job.version;
            self.sim.with(|w| {
                let stale = w.rows.history(job).is_some_and(|h| h.job.version != version);
                w.figures.stale_reads += u64::from(stale);
            });
            if let Some(wrong) = self.wrong {
                misread(wrong, history);
            }
        }
        Ok(found)
    }

    async fn apply(&self, change: Change) -> Result<Applied, store::Error> {
        self.tamper(&change);
        let boot = self.boot;
        match self.write(move |rows| rows.apply(boot, &change)).await {
            Answer::Value(applied) => Ok(applied),
            Answer::Refused => Err(store::Error::Busy),
            Answer::Lost => Err(store::Error::Unknown),
        }
    }

    async fn place(&self, _: AccountId, _: Option<RegionId>) -> Result<Option<Place>, store::Error> {
        Ok(Some(Place {
            account_number: "1".into(),
            credential: "c".into(),
            cloud: seed::CLOUD,
            region: "r".into(),
        }))
    }

    async fn server(&self, customer: CustomerId, id: ServerId) -> Result<Option<ServerRow>, store::Error> {
        match self.read(move |rows| rows.server(customer, id).cloned()).await {
            Answer::Value(found) => Ok(found),
            _ => Err(store::Error::Busy),
        }
    }

    async fn new_number(&self) -> Result<i64, store::Error> {
        Ok(self.sim.with(World::new_number))
    }
}

#[async_trait(?Send)]
impl Keys for Port {
    async fn lease(&self, ask: Ask) -> Result<Leased, NoLease> {
        match call(&self.sim, Site::Lease, |_| ()).await {
            // The key says who calls, so that the cloud's truth knows whose effect it is.
            Answer::Value(()) => Ok(Leased {
                access_key: format!("{}/{}", ask.job, ask.attempt),
                secret: Secret::from("s".to_owned()),
                shown: "{}".into(),
            }),
            _ => Err(NoLease::Later("on demand".into())),
        }
    }
}

#[async_trait(?Send)]
impl Clock for Port {
    fn now(&self) -> Micros {
        // The planner may be ahead of the rows by the time of a look, and never behind.
        self.sim.with(|w| Micros(w.now.0 + i64::try_from(self.life % 3).expect("small") * 1000))
    }

    async fn sleep(&self, duration: Duration) {
        sleep(&self.sim, duration).await;
    }

    async fn over(&self, limit: Duration) {
        sleep(&self.sim, limit).await;
    }
}

impl Liveness for Port {
    fn may_start(&self) -> bool {
        self.sim.with(|w| w.now.since(w.lives[self.life].beat_sent) < FRESH)
    }
}

impl Queue for Port {
    fn publish(&self, nudge: Nudge) {
        self.sim.with(|w| w.publish(nudge));
    }

    fn subscribe(&self, _: Topic) -> mpsc::Receiver<Nudge> {
        mpsc::channel(1).1
    }
}

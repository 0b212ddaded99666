//! The registry actor: routes, activates jobs, and reconciles rows with what runs here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::fut::ready;
use actix::prelude::*;
use tokio::sync::{Notify, mpsc};

use super::directory::{Activate, Directory};
use super::groups::{self, SubmitGroup};
use super::limits::{self, ClearLimit, SetLimit};
use super::pauses::{self, Pause, Resume};
use super::person::{self, CancelJob, Resolve};
use super::schedules;
use super::{Error, Submitted};
use crate::jobs::ports::Ports;
use crate::jobs::{self, Changes, JobActor, Wake};
use crate::model::{Boot, Generation, JobUid, Micros};
use crate::mq::{Nudge, Queue, Topic};
use crate::ops::failpoint::{Fault, hit, sabotaged};
use crate::ops::{Metrics, Recovery};
use crate::store::provisioning::accept::{self, Accepted, Answer, Submit};
use crate::store::provisioning::job::JobRow;
use crate::store::provisioning::limit::LimitRow;
use crate::store::provisioning::pause::PauseRow;
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::{job, node, transition};
use crate::store::{self, AnyConnection, Store};
use crate::supervision::{self, Arbiter, Exit, Exited, Life, Mailbox, Options, Supervised, Supervisor};

/// Links of the registry.
#[derive(Clone)]
pub struct Spec {
    /// Rows.
    pub store: Store,
    /// Nudges.
    pub queue: Arc<dyn Queue>,
    /// News for readers of jobs.
    pub changes: Changes,
    /// Counts.
    pub metrics: Metrics,
    /// Starts actors.
    pub supervisor: Supervisor,
    /// Where job actors live.
    pub jobs: Arbiter,
    /// What job actors work with.
    pub ports: Ports,
    /// How often rows are reconciled with what runs.
    pub sweep: Duration,
    /// Told when a life was declared dead.
    pub died: Arc<Notify>,
    /// Who runs which job; shared by all lives of this actor, so that a restart starts no second actor for a job.
    pub running: Running,
    /// How long a job is set aside whose actor was given up.
    pub set_aside: Duration,
    /// How long idempotency keys are kept.
    pub keep_keys: Duration,
    /// How long replay records are kept: longer than any signature's window.
    pub keep_replays: Duration,
}

/// The job actors of this process.
#[derive(Clone)]
pub struct Running(Arc<Mutex<Directory<Mailbox<JobActor>>>>);

impl Running {
    /// None yet, and at most so many at the same time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Directory::new(most))))
    }

    fn directory(&self) -> MutexGuard<'_, Directory<Mailbox<JobActor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct RegistryActor {
    spec: Spec,
    life: Life,
    /// Numbers of the jobs of schedules.
    numbers: Sequencer,
    /// When the rows are looked at once more, before the next sweep.
    look_at: Option<Instant>,
}

/// Store a job and have it run.
#[derive(Message)]
#[rtype(result = "Result<Submitted, Error>")]
pub(super) struct SubmitJob(pub(super) Box<Submit>);

/// This job was stored a moment ago, and starts after a while.
#[derive(Message)]
#[rtype(result = "()")]
struct Stored(JobUid, Box<JobRow>, Duration);

/// Take no more jobs; how many still run.
#[derive(Message)]
#[rtype(result = "usize")]
pub(super) struct Drain;

/// How often old keys and dead lives are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// Shortest pause before the rows are looked at once more, however close together jobs are due.
const SOONEST: Duration = Duration::from_millis(50);
/// Rows a sweep takes at once.
const PAGE: i64 = 500;

impl Supervised for RegistryActor {
    type Spec = Spec;
    const KIND: &'static str = "registry";

    fn key(spec: &Spec) -> String {
        spec.ports.boot.to_string()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        let numbers = Sequencer::new(spec.store.clone());
        Self { spec, life, numbers, look_at: None }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        listen(self.spec.queue.subscribe(Topic::Jobs), ctx);
        mourn(Arc::clone(&self.spec.died), ctx);
        self.reconcile(ctx);
        ctx.run_interval(self.spec.sweep, |actor, ctx| actor.reconcile(ctx));
        ctx.run_interval(FORGET_EVERY, |actor, ctx| actor.forget(ctx));
    }
}

fn listen(inbox: mpsc::Receiver<Nudge>, ctx: &mut Context<RegistryActor>) {
    let stream = futures_util::stream::unfold(inbox, |mut inbox| async move {
        inbox.recv().await.map(|nudge| (nudge, inbox))
    });
    ctx.add_stream(stream);
}

/// Somebody's life was declared dead.
struct Died;

/// Has the jobs of a dead life taken over at once instead of at the next sweep.
fn mourn(died: Arc<Notify>, ctx: &mut Context<RegistryActor>) {
    let deaths = futures_util::stream::unfold(died, |died| async move {
        died.notified().await;
        Some((Died, died))
    });
    ctx.add_stream(deaths);
}

impl StreamHandler<Died> for RegistryActor {
    fn handle(&mut self, _: Died, ctx: &mut Context<Self>) {
        self.reconcile(ctx);
    }
}

impl StreamHandler<Nudge> for RegistryActor {
    fn handle(&mut self, nudge: Nudge, _: &mut Context<Self>) {
        if let Nudge::Job(job) | Nudge::Cancel(job) = nudge {
            self.spec.metrics.nudge(Topic::Jobs.as_str());
            // A job that begins settles its hint with its claim, or at the latest with its actor's end.
            if !self.activate(job, None) || matches!(nudge, Nudge::Cancel(_)) {
                self.spec.queue.settle(nudge);
            }
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {
        self.life.fail("the queue closed the registry's inbox");
    }
}

impl RegistryActor {
    /// Has a job worked at; `row` is what its row holds, where that is known. True when an actor was started.
    fn activate(&self, job: JobUid, row: Option<Box<JobRow>>) -> bool {
        let mut directory = self.spec.running.directory();
        match directory.nudged(job) {
            Activate::Later => false,
            Activate::Wake => {
                let closed = directory.actor(job).is_some_and(|actor| {
                    let _ = actor.tell(Wake);
                    actor.is_closed()
                });
                // A full or closed mailbox is no loss: the directory remembers the news. One that stays closed from
                // one sweep to the next belongs to an actor whose end was never told.
                if closed && directory.seems_gone(job) {
                    let next = directory.ended(job);
                    drop(directory);
                    self.activate_all(next);
                }
                false
            }
            Activate::Start => {
                let spec = jobs::Spec::new(job, self.spec.ports.clone(), row);
                let on_exit = self.life.mailbox::<Self>().map(|mailbox| mailbox.recipient::<Exited>());
                let options = Options {
                    limits: supervision::Limits { mailbox: 16, ..supervision::Limits::default() },
                    ..Options::transient(on_exit)
                };
                let actor = self.spec.supervisor.spawn::<JobActor>(&self.spec.jobs, spec, options);
                directory.started(job, actor);
                true
            }
        }
    }

    fn activate_all(&self, jobs: impl IntoIterator<Item = JobUid>) {
        for job in jobs {
            self.activate(job, None);
        }
    }

    #[cfg(test)]
    pub(super) fn fail_for_test(&self, cause: &str) {
        self.life.fail(cause);
    }

    /// Compares rows with what runs here and starts the difference.
    fn reconcile(&self, ctx: &mut Context<Self>) {
        let (store, boot) = (self.spec.store.clone(), self.spec.ports.boot);
        let generation = self.spec.ports.generation;
        let most = self.spec.running.directory().most();
        let metrics = self.spec.metrics.clone();
        let (spec, numbers) = (self.spec.clone(), self.numbers.clone());
        let found = async move {
            take_over(&store, (boot, generation), &metrics).await?;
            pauses::sweep(&store).await?;
            limits::sweep(&spec).await?;
            let next = schedules::fire(&spec, &numbers).await?;
            let needed = needed(&store, boot, most).await?;
            let next = [needed.next, next].into_iter().flatten().min();
            Ok(Needed { next, ..needed })
        };
        ctx.spawn(found.into_actor(self).then(
            |found: Result<Needed, store::Error>, actor: &mut Self, ctx| {
                match found {
                    Ok(needed) => {
                        if let Some(wait) = needed.next.filter(|wait| *wait <= actor.spec.sweep) {
                            actor.look_again(wait, ctx);
                        }
                        actor.take_up(needed);
                    }
                    Err(error) => log::warn!("recovery cannot read the rows, it tries again: {error}"),
                }
                ready(())
            },
        ));
    }

    /// Activates what was found. Jobs at work here are left to their own pauses, unless a cancel was asked.
    fn take_up(&self, needed: Needed) {
        for (job, cancel) in needed.mine {
            let at_work = self.spec.running.directory().actor(job).is_some_and(|actor| !actor.is_closed());
            if cancel || !at_work {
                self.activate(job, None);
            }
        }
        self.activate_all(needed.free);
    }

    /// Reconciles once more after a while, for what is due before the next sweep. One look at a time is planned: a
    /// later one is planned by the earlier, and however many ask, looks do not multiply.
    fn look_again(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let at = Instant::now() + after.max(SOONEST);
        if self.look_at.is_some_and(|planned| planned <= at) {
            return;
        }
        self.look_at = Some(at);
        let _timer = ctx.run_later(at.duration_since(Instant::now()), move |actor, ctx| {
            // An earlier look was planned meanwhile, and has planned what follows.
            if actor.look_at == Some(at) {
                actor.look_at = None;
                actor.reconcile(ctx);
            }
        });
    }

    fn forget(&self, ctx: &mut Context<Self>) {
        let (store, keys, replays) = (self.spec.store.clone(), self.spec.keep_keys, self.spec.keep_replays);
        let planned = self.spec.ports.clock.now();
        let work = async move {
            // A few in each write: submits wait behind it.
            loop {
                let forgotten = store.write(move |c| {
                    // A database clock that jumped ahead must not make every key old.
                    let now = c.now()?.min(planned);
                    let day = now.minus(Duration::from_secs(24 * 3600));
                    Ok(accept::forget(c, now.minus(replays), now.minus(keys))? + node::forget(c, day)?)
                });
                match forgotten.await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => return log::warn!("old records are not forgotten yet: {error}"),
                }
            }
        };
        ctx.spawn(work.into_actor(self));
    }
}

/// Jobs that need an actor.
struct Needed {
    /// Owned by this life, and whether a cancel was asked.
    mine: Vec<(JobUid, bool)>,
    /// Without an owner, and due or decided.
    free: Vec<JobUid>,
    /// How long until the next of the others is due.
    next: Option<Duration>,
}

/// Takes over what dead lives left, page by page.
async fn take_over(
    store: &Store,
    (boot, generation): (Boot, Generation),
    metrics: &Metrics,
) -> Result<(), store::Error> {
    let (began, mut jobs) = (Instant::now(), 0);
    loop {
        hit("takeover.before");
        let taken = store.write(move |c| transition::take_over(c, boot, generation, PAGE)).await?;
        if taken.is_empty() {
            break;
        }
        hit("takeover.after");
        jobs += taken.len();
        log::info!("took over {} jobs of dead lives", taken.len());
    }
    if jobs > 0 {
        metrics.recovered(Recovery { at: Micros::wall(), took: began.elapsed(), jobs });
    }
    Ok(())
}

async fn needed(store: &Store, boot: Boot, most: usize) -> Result<Needed, store::Error> {
    // Beyond those at work there is always room to see one page more.
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(PAGE);
    let (mine, free, next, now) = store
        .read(move |c| {
            let now = c.now()?;
            let mine = transition::owned_by(c, boot, limit)?;
            Ok((mine, transition::needing_an_actor(c, PAGE)?, transition::next_due(c, now)?, now))
        })
        .await?;
    let mine = mine.iter().filter_map(|(name, cancel)| Some((name.parse().ok()?, *cancel))).collect();
    let free = free.iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Needed { mine, free, next: next.map(|at: Micros| at.since(now)) })
}

impl Handler<SubmitJob> for RegistryActor {
    type Result = ResponseFuture<Result<Submitted, Error>>;

    fn handle(&mut self, SubmitJob(submit): SubmitJob, _: &mut Context<Self>) -> Self::Result {
        let (spec, mailbox) = (self.spec.clone(), self.life.mailbox::<Self>());
        Box::pin(async move {
            if sabotaged(Fault::AnswerBeforeCommit)
                && let Ok(row) = accept::row_of(&submit, Micros::wall())
            {
                actix_rt::spawn(stored(spec, mailbox, submit));
                return Ok(Submitted { row: Box::new(row), fresh: true });
            }
            stored(spec, mailbox, submit).await
        })
    }
}

/// Stores a job and has it begin; the answer is that of its commit.
async fn stored(
    spec: Spec,
    mailbox: Option<Mailbox<RegistryActor>>,
    submit: Box<Submit>,
) -> Result<Submitted, Error> {
    let (asked, kind, delay) = (submit.uid, submit.params.kind(), submit.delay);
    let announce = spec.queue.announce();
    let item = move |c: &mut AnyConnection| {
        let accepted = accept::accept(c, &submit)?;
        // One that starts later is found by its time.
        if let (Accepted::Stored(row), true) = (&accepted, delay.is_zero()) {
            announce.note(c, Nudge::Job(name_of(row, asked)))?;
        }
        Ok(accepted)
    };
    hit("accept.before");
    let accepted = spec.store.write(item).await?;
    hit("accept.after");
    match accepted {
        Accepted::Stored(row) => {
            let uid = name_of(&row, asked);
            spec.metrics.job_submitted(kind.as_str());
            spec.changes.tell(uid);
            let started = mailbox.is_some_and(|own| own.tell(Stored(uid, row.clone(), delay)).is_ok());
            if !started && delay.is_zero() {
                spec.queue.publish(Nudge::Job(uid));
            }
            Ok(Submitted { row, fresh: true })
        }
        Accepted::Same(answer) => first(&spec.store, &answer).await,
        Accepted::Conflict => Err(Error::Conflict),
        Accepted::Replayed => Err(Error::Replayed),
    }
}

/// The name a job was stored under: the one its asker made.
fn name_of(row: &JobRow, asked: JobUid) -> JobUid {
    row.uid.parse().unwrap_or(asked)
}

/// The job an idempotency key made first.
pub(super) async fn first(store: &Store, answer: &Answer) -> Result<Submitted, Error> {
    let uid = answer.job.ok_or(Error::Conflict)?;
    let row = store.read(move |c| job::by_uid(c, uid)).await?.ok_or(Error::Unknown)?;
    Ok(Submitted { row: Box::new(row), fresh: false })
}

impl Handler<Stored> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Stored(uid, row, delay): Stored, ctx: &mut Context<Self>) {
        if delay.is_zero() {
            self.activate(uid, Some(row));
        } else if delay <= self.spec.sweep {
            // Later ones are seen by a sweep before they are due.
            self.look_again(delay, ctx);
        }
    }
}

impl Handler<CancelJob> for RegistryActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, ask: CancelJob, _: &mut Context<Self>) -> Self::Result {
        Box::pin(person::cancel(self.spec.clone(), ask))
    }
}

impl Handler<Resolve> for RegistryActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, ask: Resolve, _: &mut Context<Self>) -> Self::Result {
        Box::pin(person::resolve(self.spec.clone(), ask))
    }
}

impl Handler<Pause> for RegistryActor {
    type Result = ResponseFuture<Result<PauseRow, Error>>;

    fn handle(&mut self, ask: Pause, _: &mut Context<Self>) -> Self::Result {
        Box::pin(pauses::pause(self.spec.clone(), ask))
    }
}

impl Handler<Resume> for RegistryActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, ask: Resume, _: &mut Context<Self>) -> Self::Result {
        Box::pin(pauses::resume(self.spec.clone(), ask))
    }
}

impl Handler<SetLimit> for RegistryActor {
    type Result = ResponseFuture<Result<LimitRow, Error>>;

    fn handle(&mut self, ask: SetLimit, _: &mut Context<Self>) -> Self::Result {
        Box::pin(limits::set(self.spec.clone(), ask))
    }
}

impl Handler<ClearLimit> for RegistryActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, ask: ClearLimit, _: &mut Context<Self>) -> Self::Result {
        Box::pin(limits::clear(self.spec.clone(), ask))
    }
}

impl Handler<SubmitGroup> for RegistryActor {
    type Result = ResponseFuture<Result<Submitted, Error>>;

    fn handle(&mut self, ask: SubmitGroup, _: &mut Context<Self>) -> Self::Result {
        Box::pin(groups::submit(self.spec.clone(), ask))
    }
}

impl Handler<Drain> for RegistryActor {
    type Result = usize;

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> usize {
        self.spec.running.directory().drain()
    }
}

impl Handler<Exited> for RegistryActor {
    type Result = ();

    fn handle(&mut self, exited: Exited, ctx: &mut Context<Self>) {
        let Ok(job) = exited.key.parse::<JobUid>() else { return };
        if exited.gave_up {
            let text = match exited.exit {
                Exit::Panicked(text) => format!("it panicked: {text}"),
                Exit::Failed(cause) => cause,
                Exit::Frozen => "it stood still".to_owned(),
                Exit::Done => String::new(),
            };
            log::error!("a job's actor was given up: {text}; job={job}");
            let set = set_aside(self.spec.clone(), job, text);
            ctx.spawn(set.into_actor(self));
        }
        self.spec.queue.settle(Nudge::Job(job));
        let next = self.spec.running.directory().ended(job);
        // One that was given up is set aside first; the sweep finds it again.
        self.activate_all(next.into_iter().filter(|next| !(exited.gave_up && *next == job)));
    }
}

/// Sets a job aside whose actor failed again and again, with the text of the failure, so that it blocks no other.
async fn set_aside(spec: Spec, uid: JobUid, text: String) {
    let (life, limits) = ((spec.ports.boot, spec.ports.generation), spec.ports.limits);
    match jobs::set_aside(&spec.store, life, uid, (text, spec.set_aside, limits)).await {
        Ok(Some(called)) => {
            spec.changes.tell(uid);
            limits::tell(&spec, &called);
        }
        Ok(None) => {}
        Err(error) => log::error!("a failing job is not set aside yet: {error}; job={uid}"),
    }
}

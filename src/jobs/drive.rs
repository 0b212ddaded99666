//! Carries out one move after another until the job ends or waits without an owner.
//!
//! Each move is planned from the rows, applied by a guarded item, and planned anew; dropping the future at any point
//! loses nothing, because an open attempt is written before its call and resolved by whoever comes next.

use std::time::Duration;

use tokio::sync::Notify;

use super::machine::{self, Facts, Plan, Promise, plan};
use super::ports::{Applied, Ask, Change, Leased, NoLease, Place, Ports};
use super::steps::{Effect, Operation, Step, UNDO, step_of};
use super::{Error, request};
use crate::cloud::{CallContext, CallError, Credential, LaunchRequest, Machine, Provider};
use crate::model::{
    AgentId, AttemptOutcome, AttemptUid, Epoch, ErrorClass, JobParams, JobState, JobUid, Micros, RegionId,
    ServerId, ServerStatus, WatchUid,
};
use crate::mq::Nudge;
use crate::ops::failpoint::{hit, sabotaged};
use crate::store;
use crate::store::provisioning::agent::NewCommand;
use crate::store::provisioning::job::{Attempt, History, Job};
use crate::store::provisioning::server::{Seen, ServerRow};
use crate::store::provisioning::transition::{Claim, Close, End, Fence, Obligation, Then, Waiting};
use crate::store::provisioning::watch::Watch;
use crate::wire::{CommandId, Operation as GuestOperation};
use std::sync::Arc;

/// How often a database that does not answer is asked again.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How long a job waits for the key manager before it asks again.
const KEYS_RETRY: Duration = Duration::from_secs(1);
/// How long a job waits for a server that another job works on.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// Pause between looks while what was made is being taken back.
const UNDO_LOOK: Duration = Duration::from_millis(500);
/// How long after a job's end what may still turn up is looked for.
const JANITOR: Duration = Duration::from_secs(24 * 3600);

/// What the loop does after a move.
enum Next {
    /// Plans again at once.
    Again,
    /// Plans again after a pause or a wake.
    Pause(Duration),
    /// The job needs no actor.
    Release,
}

/// Runs a job until it needs no actor.
pub(super) async fn drive(ports: &Ports, uid: JobUid, wake: &Notify) -> Result<(), Error> {
    let mut driver = Driver { ports, uid, unanswered: 0 };
    loop {
        let next = match driver.advance().await {
            Err(Error::Store { source, .. }) if passing(&source) => {
                log::warn!("job waits for the database: {source}; job={uid}");
                Next::Pause(STORE_RETRY)
            }
            other => other?,
        };
        match next {
            Next::Again => {}
            Next::Release => return Ok(()),
            Next::Pause(pause) => {
                tokio::select! {
                    () = ports.clock.sleep(pause) => {}
                    () = wake.notified() => {}
                }
            }
        }
    }
}

/// Whether asking again may help.
const fn passing(error: &store::Error) -> bool {
    matches!(
        error,
        store::Error::Busy | store::Error::Unavailable(_) | store::Error::Connect(_) | store::Error::Unknown
    )
}

struct Driver<'a> {
    ports: &'a Ports,
    uid: JobUid,
    /// Calls in a row whose answer never came.
    unanswered: i32,
}

/// All that a call to a cloud needs.
struct Line {
    place: Place,
    provider: Arc<dyn Provider>,
    lease: Leased,
    limit: Duration,
}

impl Line {
    const fn context(&self) -> CallContext<'_> {
        CallContext {
            account_number: self.place.account_number.as_str(),
            region: self.place.region.as_str(),
            credential: Credential { access_key: self.lease.access_key.as_str(), secret: &self.lease.secret },
            limit: self.limit,
        }
    }
}

impl Driver<'_> {
    fn store(&self, source: store::Error) -> Error {
        Error::Store { job: self.uid, source }
    }

    fn missing(&self, what: impl Into<String>) -> Error {
        Error::Missing { job: self.uid, what: what.into() }
    }

    async fn apply(&self, change: Change) -> Result<Applied, Error> {
        self.ports.store.apply(change).await.map_err(|e| self.store(e))
    }

    async fn advance(&mut self) -> Result<Next, Error> {
        let history = self.ports.store.history(self.uid).await.map_err(|e| self.store(e))?;
        let Some(mut history) = history else { return Ok(Next::Release) };
        let promise = self.promise(&history).await?;
        let first = self.plan(&history, promise);
        let Plan::Claim(to) = first else { return self.carry_out(&history, first, promise).await };
        let claim = Claim {
            seen: Fence { job: self.uid, epoch: history.job.epoch },
            from: history.job.state,
            to,
            boot: self.ports.boot,
        };
        history.job.owner = Some(self.ports.boot);
        history.job.epoch = Epoch(history.job.epoch.0 + 1);
        history.job.state = to;
        // A step that needs no lease is written in the commit of the claim.
        if let Plan::Send { n } = self.plan(&history, promise)
            && step_of(history.job.params.kind()).effect == Effect::Nothing
        {
            let attempt = self.attempt(&history.job, n, String::new());
            return match self.apply(Change::Claim { claim, open: Some(Box::new(attempt.clone())) }).await? {
                Applied::Done => self.finish_noop(&history.job, &attempt).await,
                Applied::Fenced | Applied::Busy => Ok(Next::Release),
            };
        }
        match self.apply(Change::Claim { claim, open: None }).await? {
            Applied::Done => {
                let planned = self.plan(&history, promise);
                self.carry_out(&history, planned, promise).await
            }
            Applied::Fenced | Applied::Busy => Ok(Next::Release),
        }
    }

    fn plan(&self, history: &History, promise: Option<Promise>) -> Plan {
        plan(&Facts {
            history,
            now: self.ports.clock.now(),
            boot: self.ports.boot,
            promise,
            limits: &self.ports.limits,
        })
    }

    async fn promise(&self, history: &History) -> Result<Option<Promise>, Error> {
        if !matches!(step_of(history.job.params.kind()).effect, Effect::Create | Effect::Move(_)) {
            return Ok(None);
        }
        let (_, provider) = self.place(&history.job).await?;
        let known = provider.capabilities();
        Ok(Some(Promise { class: known.class, quiet: known.quiet(), token_kept: known.token_kept }))
    }

    async fn place(&self, job: &Job) -> Result<(Place, Arc<dyn Provider>), Error> {
        let region = match &job.params {
            JobParams::LaunchServer(params) => Some(params.region),
            other => match other.server() {
                Some(id) => Some(RegionId(self.server(job, id).await?.region)),
                None => None,
            },
        };
        let place = self.ports.store.place(job.account, region).await.map_err(|e| self.store(e))?;
        let place = place.ok_or_else(|| self.missing(format!("account {}", job.account)))?;
        let provider = self.ports.clouds.get(place.cloud);
        let provider = provider.ok_or_else(|| self.missing(format!("cloud {}", place.cloud)))?;
        Ok((place, provider))
    }

    async fn server(&self, job: &Job, id: ServerId) -> Result<ServerRow, Error> {
        let row = self.ports.store.server(job.customer, id).await.map_err(|e| self.store(e))?;
        row.ok_or_else(|| self.missing(format!("server {id}")))
    }

    async fn carry_out(
        &mut self,
        history: &History,
        plan: Plan,
        promise: Option<Promise>,
    ) -> Result<Next, Error> {
        let job = &history.job;
        let fence = fence(job);
        match plan {
            Plan::Leave | Plan::Rest => Ok(Next::Release),
            // Planned only without an owner, and then claimed before.
            Plan::Claim(_) => Ok(Next::Again),
            Plan::Send { n } => self.send(history, n).await,
            Plan::Resolve { attempt, resend } => self.resolve(history, attempt, resend).await,
            Plan::BeginUndo { why } => self.moved(Change::BeginUndo { fence, why }).await,
            Plan::Undo { n } => self.undo(history, n).await,
            Plan::End { state, code, message } => {
                let end = self.end(history, promise, (state, code, message));
                self.apply(Change::End(Box::new(end))).await?;
                Ok(Next::Release)
            }
            Plan::Quarantine { until, code, why } => {
                let waiting = Waiting { until, code: code.to_owned(), why };
                self.apply(Change::Quarantine { fence, waiting }).await?;
                Ok(Next::Release)
            }
            Plan::Wait { until, code, why } => {
                let pause = until.since(self.ports.clock.now());
                self.pause(job, pause, (&code, why)).await
            }
        }
    }

    async fn moved(&self, change: Change) -> Result<Next, Error> {
        match self.apply(change).await? {
            Applied::Done => Ok(Next::Again),
            Applied::Fenced | Applied::Busy => Ok(Next::Release),
        }
    }

    /// Says why the job waits, unless its row says so already, and pauses.
    async fn pause(&self, job: &Job, pause: Duration, (code, why): (&str, String)) -> Result<Next, Error> {
        if job.why_code != code || job.why != why {
            let waiting = Waiting { until: self.ports.clock.now().plus(pause), code: code.to_owned(), why };
            if self.apply(Change::Wait { fence: fence(job), waiting }).await? != Applied::Done {
                return Ok(Next::Release);
            }
        }
        Ok(Next::Pause(pause))
    }

    fn attempt(&self, job: &Job, n: i32, lease: String) -> Attempt {
        let step = step_of(job.params.kind());
        Attempt {
            uid: AttemptUid::random(),
            job: job.uid,
            customer: job.customer,
            step: step.name.to_owned(),
            variant: 0,
            try_no: job.try_no,
            n,
            epoch: job.epoch,
            token: String::new(),
            request: Vec::new(),
            lease,
            outcome: AttemptOutcome::Open,
            class: None,
            evidence: String::new(),
            output: String::new(),
            started_at: self.ports.clock.now(),
            closed_at: None,
            version: 1,
        }
    }

    fn watch(&self, job: &Job, target: &str, deadline: Micros) -> Watch {
        let step = step_of(job.params.kind());
        Watch {
            uid: WatchUid::random(),
            job: job.uid,
            customer: job.customer,
            step: step.name.to_owned(),
            try_no: job.try_no,
            kind: step.watch(),
            target: target.to_owned(),
            expectation: step.expectation().to_owned(),
            due_at: self.ports.clock.now(),
            deadline,
            made_at: self.ports.clock.now(),
            done_at: None,
        }
    }

    /// Writes that an effect is known and publishes its watch.
    async fn close_and_watch(&self, close: Close) -> Result<Next, Error> {
        hit("record.before");
        let Then::Await(watch) = &close.then else { return self.moved(Change::Close(Box::new(close))).await };
        let nudge = Nudge::Watch(watch.kind, watch.uid);
        if self.apply(Change::Close(Box::new(close))).await? != Applied::Done {
            return Ok(Next::Release);
        }
        hit("record.after");
        hit("watch.before");
        self.ports.queue.publish(nudge);
        hit("watch.after");
        Ok(Next::Release)
    }

    async fn send(&mut self, history: &History, n: i32) -> Result<Next, Error> {
        let job = &history.job;
        match step_of(job.params.kind()).effect {
            Effect::Nothing => {
                let attempt = self.attempt(job, n, String::new());
                let opened = Change::Open {
                    attempt: Box::new(attempt.clone()),
                    state: job.state,
                    server: None,
                    agent: None,
                };
                match self.apply(opened).await? {
                    Applied::Done => self.finish_noop(job, &attempt).await,
                    Applied::Fenced | Applied::Busy => Ok(Next::Again),
                }
            }
            Effect::Create => self.create(history, n).await,
            Effect::Move(operation) => self.operate(job, n, operation).await,
            Effect::Command => self.command(job, n).await,
        }
    }

    async fn finish_noop(&self, job: &Job, attempt: &Attempt) -> Result<Next, Error> {
        let then = Then::Await(self.watch(job, "", job.deadline));
        self.close_and_watch(closed(job, attempt.uid, "nothing to do", then)).await
    }

    /// Lends a credential for an attempt, or says why the job waits or ends.
    async fn line(&self, job: &Job, attempt: AttemptUid, purpose: &str) -> Result<Result<Line, Next>, Error> {
        let (place, provider) = self.place(job).await?;
        let ask = Ask {
            job: job.uid,
            attempt,
            customer: job.customer,
            account: job.account,
            credential: place.credential.clone(),
            purpose: purpose.to_owned(),
        };
        match self.ports.keys.lease(ask).await {
            Ok(lease) => {
                let limit = self.ports.call_limit.min(provider.capabilities().t_call);
                Ok(Ok(Line { place, provider, lease, limit }))
            }
            Err(NoLease::Later(cause)) => {
                let why = format!("waiting for the key manager: {cause}");
                Ok(Err(self.pause(job, KEYS_RETRY, ("key-manager", why)).await?))
            }
            Err(NoLease::Denied(cause)) => {
                let message =
                    format!("the key manager denied the credential of account {}: {cause}", job.account);
                let end = End {
                    fence: fence(job),
                    state: JobState::Failed,
                    try_no: job.try_no,
                    message,
                    code: ErrorClass::Auth.to_string(),
                    server: job.server,
                    seen: None,
                    obligation: None,
                };
                self.apply(Change::End(Box::new(end))).await?;
                Ok(Err(Next::Release))
            }
        }
    }

    /// Opens an attempt; `None` means the call must not be sent.
    async fn open(&self, job: &Job, change: Change) -> Result<Option<Next>, Error> {
        if !self.ports.liveness.may_start() {
            return Ok(Some(Next::Pause(BUSY_RETRY)));
        }
        hit("intent.before");
        let outcome = self.apply(change).await?;
        hit("intent.after");
        match outcome {
            Applied::Done => Ok(None),
            Applied::Fenced => Ok(Some(Next::Again)),
            Applied::Busy => {
                let why = "another job works on the server; this one follows it".to_owned();
                Ok(Some(self.pause(job, BUSY_RETRY, ("server-busy", why)).await?))
            }
        }
    }

    async fn create(&mut self, history: &History, n: i32) -> Result<Next, Error> {
        let job = &history.job;
        let JobParams::LaunchServer(params) = &job.params else { return Ok(Next::Release) };
        let step = step_of(job.params.kind());
        let mut attempt = self.attempt(job, n, String::new());
        let line = match self.line(job, attempt.uid, step.name).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        attempt.lease.clone_from(&line.lease.shown);
        let earlier = history.attempts.iter().find(|a| a.step == step.name && !a.request.is_empty());
        let (request, agent) = match earlier {
            Some(first) if !sabotaged("new-token-each-attempt") => {
                attempt.request.clone_from(&first.request);
                (request::open(self.ports, first)?, None)
            }
            _ => {
                let number = self.ports.store.new_number().await.map_err(|e| self.store(e))?;
                let made = request::make(self.ports, job, &step, params, AgentId(number))?;
                attempt.request = made.sealed;
                (made.request, made.agent.map(Box::new))
            }
        };
        attempt.token.clone_from(&request.token);
        let change =
            Change::Open { attempt: Box::new(attempt.clone()), state: job.state, server: None, agent };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        hit("call.before");
        let answer = line.provider.launch(&line.context(), &request).await;
        hit("call.after");
        self.created(job, attempt.uid, answer).await
    }

    /// Writes what a create answered.
    async fn created(
        &mut self,
        job: &Job,
        attempt: AttemptUid,
        answer: Result<Machine, CallError>,
    ) -> Result<Next, Error> {
        match answer {
            Ok(machine) => {
                self.unanswered = 0;
                self.adopt(job, attempt, &machine, "created").await
            }
            Err(error) => self.unsuccessful(job, attempt, &error).await,
        }
    }

    /// Takes over a machine that carries the job's token or tag.
    async fn adopt(
        &self,
        job: &Job,
        attempt: AttemptUid,
        machine: &Machine,
        how: &str,
    ) -> Result<Next, Error> {
        let JobParams::LaunchServer(params) = &job.params else { return Ok(Next::Release) };
        let number = self.ports.store.new_number().await.map_err(|e| self.store(e))?;
        let row = server_row(job, params, machine, (ServerId(number), self.ports.clock.now()));
        let then = Then::Await(self.watch(job, &machine.id, job.deadline));
        let text = format!("{how} {} ({})", machine.id, machine.state);
        let close = Close {
            made: Some(Box::new(row)),
            output: machine.id.clone(),
            ..closed(job, attempt, &text, then)
        };
        self.close_and_watch(close).await
    }

    /// A refusal closes the attempt; anything else leaves it open, to be resolved.
    async fn unsuccessful(
        &mut self,
        job: &Job,
        attempt: AttemptUid,
        error: &CallError,
    ) -> Result<Next, Error> {
        if error.is_definite() {
            self.unanswered = 0;
            let close = Close {
                outcome: AttemptOutcome::Refused,
                class: Some(error.class()),
                ..closed(job, attempt, &error.to_string(), Then::Go)
            };
            return self.moved(Change::Close(Box::new(close))).await;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        let pause = machine::pause(&self.ports.limits, self.unanswered);
        self.pause(job, pause, ("unknown", format!("asking the cloud what became of the call: {error}")))
            .await
    }

    async fn operate(&mut self, job: &Job, n: i32, operation: Operation) -> Result<Next, Error> {
        let Some(id) = job.params.server() else { return Ok(Next::Release) };
        let row = self.server(job, id).await?;
        let mut attempt = self.attempt(job, n, String::new());
        attempt.evidence.clone_from(&row.provider_id);
        let line = match self.line(job, attempt.uid, &attempt.step).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        attempt.lease.clone_from(&line.lease.shown);
        let change = Change::Open {
            attempt: Box::new(attempt.clone()),
            state: job.state,
            server: Some(id),
            agent: None,
        };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        hit("call.before");
        let answer = call(&line, operation, &row.provider_id).await;
        hit("call.after");
        self.operated(job, attempt.uid, &row.provider_id, answer).await
    }

    async fn operated(
        &mut self,
        job: &Job,
        attempt: AttemptUid,
        target: &str,
        answer: Result<(), CallError>,
    ) -> Result<Next, Error> {
        match answer {
            Ok(()) => {
                self.unanswered = 0;
                let then = Then::Await(self.watch(job, target, job.deadline));
                self.close_and_watch(closed(job, attempt, &format!("accepted for {target}"), then)).await
            }
            Err(error) => self.unsuccessful(job, attempt, &error).await,
        }
    }

    async fn command(&self, job: &Job, n: i32) -> Result<Next, Error> {
        let JobParams::RunCommand(params) = &job.params else { return Ok(Next::Release) };
        let step = step_of(job.params.kind());
        let try_no = u32::try_from(job.try_no).unwrap_or(0);
        let id = CommandId::new(job.uid, step.name, try_no, params.server)
            .map_err(|e| self.missing(e.to_string()))?;
        let operation =
            GuestOperation::RunCommand { argv: params.argv.clone(), timeout_secs: params.timeout_secs };
        let now = self.ports.clock.now();
        let expires_at = now.plus(self.ports.command_wait).min(job.deadline);
        let run = Duration::from_secs(params.timeout_secs.into());
        let attempt = Attempt {
            token: id.to_string(),
            evidence: format!("queued for server {}", params.server),
            ..self.attempt(job, n, String::new())
        };
        let watch = self.watch(job, &id.to_string(), expires_at.plus(run).plus(self.ports.limits.grace));
        let command = NewCommand {
            id: id.to_string(),
            seq: self.ports.store.new_number().await.map_err(|e| self.store(e))?,
            job: job.uid,
            attempt: attempt.uid,
            customer: job.customer,
            server: params.server,
            epoch: job.epoch,
            operation: serde_json::to_string(&operation).map_err(|e| self.missing(e.to_string()))?,
            user: job.access_key.clone(),
            expires_at,
        };
        hit("intent.before");
        let nudge = Nudge::Watch(watch.kind, watch.uid);
        let change = Change::Command {
            attempt: Box::new(attempt),
            command: Box::new(command),
            watch: Box::new(watch),
        };
        if self.apply(change).await? != Applied::Done {
            return Ok(Next::Again);
        }
        hit("intent.after");
        self.ports.queue.publish(Nudge::Guest(params.server));
        self.ports.queue.publish(nudge);
        Ok(Next::Release)
    }

    async fn resolve(&mut self, history: &History, uid: AttemptUid, resend: bool) -> Result<Next, Error> {
        let job = &history.job;
        let Some(open) = history.attempts.iter().find(|a| a.uid == uid) else { return Ok(Next::Again) };
        let step = step_of(job.params.kind());
        if open.step == UNDO {
            return self.undo_again(job, open).await;
        }
        match step.effect {
            Effect::Nothing => self.finish_noop(job, open).await,
            Effect::Create => self.resolve_create(job, open, (resend, &step)).await,
            Effect::Move(operation) => self.resolve_move(job, open, operation).await,
            Effect::Command => Ok(Next::Release),
        }
    }

    async fn resolve_create(
        &mut self,
        job: &Job,
        open: &Attempt,
        (resend, step): (bool, &Step),
    ) -> Result<Next, Error> {
        let line = match self.line(job, open.uid, "look").await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        if sabotaged("no-look") {
            let close =
                Close { outcome: AttemptOutcome::Void, ..closed(job, open.uid, "not looked for", Then::Go) };
            return self.moved(Change::Close(Box::new(close))).await;
        }
        let tag = request::tag(job.uid, step.name);
        let found = match line.provider.find_by_tag(&line.context(), &tag).await {
            Ok(found) => found,
            Err(error) => return self.not_seen(job, &error).await,
        };
        let newest = found.iter().max_by_key(|m| (m.state != ServerStatus::Terminated, m.launched_at));
        if let Some(machine) = newest {
            return self.adopt(job, open.uid, machine, "found by its tag:").await;
        }
        if !resend {
            let text = "looked for by its tag after it could no longer land: absent";
            let close = Close { outcome: AttemptOutcome::Void, ..closed(job, open.uid, text, Then::Go) };
            return self.moved(Change::Close(Box::new(close))).await;
        }
        let request: LaunchRequest = request::open(self.ports, open)?;
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        let answer = line.provider.launch(&line.context(), &request).await;
        self.created(job, open.uid, answer).await
    }

    /// A look that failed proves nothing; it is repeated.
    async fn not_seen(&mut self, job: &Job, error: &CallError) -> Result<Next, Error> {
        self.unanswered = self.unanswered.saturating_add(1);
        let pause = machine::pause(&self.ports.limits, self.unanswered);
        self.pause(job, pause, ("look", format!("the cloud cannot be asked now: {error}"))).await
    }

    /// The guard before a call of an attempt that is open already.
    async fn may_resend(&self, job: &Job) -> Result<Option<Next>, Error> {
        if !self.ports.liveness.may_start() {
            return Ok(Some(Next::Pause(BUSY_RETRY)));
        }
        // A cancel does not stop the question what became of the call: the same token finds or consumes it.
        let change = Change::Wait {
            fence: fence(job),
            waiting: Waiting {
                until: self.ports.clock.now().plus(self.ports.call_limit),
                code: "resend".to_owned(),
                why: "sending the same request again".to_owned(),
            },
        };
        match self.apply(change).await? {
            Applied::Done => Ok(None),
            Applied::Fenced | Applied::Busy => Ok(Some(Next::Release)),
        }
    }

    async fn resolve_move(&mut self, job: &Job, open: &Attempt, operation: Operation) -> Result<Next, Error> {
        let Some(id) = job.params.server() else { return Ok(Next::Release) };
        let row = self.server(job, id).await?;
        let line = match self.line(job, open.uid, "look").await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        let seen = match line.provider.machine(&line.context(), &row.provider_id).await {
            Ok(seen) => seen,
            Err(error) => return self.not_seen(job, &error).await,
        };
        let there = seen.map_or(ServerStatus::Terminated, |machine| machine.state);
        if there == operation.proof() {
            return self.operated(job, open.uid, &row.provider_id, Ok(())).await;
        }
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        let answer = call(&line, operation, &row.provider_id).await;
        self.operated(job, open.uid, &row.provider_id, answer).await
    }

    /// One round of taking back: look, end when it is gone, else terminate.
    async fn undo(&mut self, history: &History, n: i32) -> Result<Next, Error> {
        let job = &history.job;
        let Some(resource) = job.resource.clone() else {
            return self.gone(history).await;
        };
        let mut attempt = self.attempt(job, n, String::new());
        attempt.step = UNDO.to_owned();
        attempt.evidence.clone_from(&resource);
        let line = match self.line(job, attempt.uid, UNDO).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        let seen = match line.provider.machine(&line.context(), &resource).await {
            Ok(seen) => seen,
            Err(error) => return self.not_seen(job, &error).await,
        };
        let sent = history.attempts.iter().any(|a| a.step == UNDO && a.outcome == AttemptOutcome::Ok);
        match seen.map(|machine| machine.state) {
            None | Some(ServerStatus::Terminated) => return self.gone(history).await,
            Some(ServerStatus::Stopping) if sent => return Ok(Next::Pause(UNDO_LOOK)),
            Some(_) => {}
        }
        attempt.lease.clone_from(&line.lease.shown);
        let change =
            Change::Open { attempt: Box::new(attempt.clone()), state: job.state, server: None, agent: None };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        let answer = line.provider.terminate(&line.context(), &resource).await;
        self.undone(job, attempt.uid, answer).await
    }

    async fn undo_again(&mut self, job: &Job, open: &Attempt) -> Result<Next, Error> {
        let Some(resource) = &job.resource else { return Ok(Next::Release) };
        let line = match self.line(job, open.uid, UNDO).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        let answer = line.provider.terminate(&line.context(), resource).await;
        self.undone(job, open.uid, answer).await
    }

    async fn undone(
        &mut self,
        job: &Job,
        attempt: AttemptUid,
        answer: Result<(), CallError>,
    ) -> Result<Next, Error> {
        match answer {
            Ok(()) => {
                let close = closed(job, attempt, "terminate accepted", Then::Go);
                self.apply(Change::Close(Box::new(close))).await?;
                Ok(Next::Pause(UNDO_LOOK))
            }
            Err(error) if error.class() == ErrorClass::NotFound => {
                let close = closed(job, attempt, "gone already", Then::Go);
                self.moved(Change::Close(Box::new(close))).await
            }
            Err(error) => {
                self.unsuccessful(job, attempt, &error).await?;
                Ok(Next::Pause(machine::pause(&self.ports.limits, 2)))
            }
        }
    }

    async fn gone(&self, history: &History) -> Result<Next, Error> {
        let Plan::End { state, code, message } = machine::end_after_undo(history) else {
            return Ok(Next::Release);
        };
        let mut end = self.end(history, None, (state, code, message));
        end.seen = history.job.server.map(|server| Seen {
            server,
            status: ServerStatus::Terminated,
            private_ip: None,
            public_ip: None,
        });
        self.apply(Change::End(Box::new(end))).await?;
        Ok(Next::Release)
    }

    fn end(
        &self,
        history: &History,
        promise: Option<Promise>,
        (state, code, message): (JobState, String, String),
    ) -> End {
        let job = &history.job;
        let verdict = machine::verdict_of_this_try(history);
        let machine: Option<Machine> = verdict.and_then(|e| serde_json::from_str(&e.raw).ok());
        let server = job.server.or_else(|| job.params.server());
        let seen = server.zip(machine).map(|(server, seen)| Seen {
            server,
            status: seen.state,
            private_ip: seen.private_ip,
            public_ip: seen.public_ip,
        });
        End {
            fence: fence(job),
            state,
            try_no: job.try_no,
            message,
            code,
            server,
            seen,
            obligation: self.obligation(history, promise, state),
        }
    }

    /// What may still turn up after this end: creates that were sent without a token, or never answered.
    fn obligation(&self, history: &History, promise: Option<Promise>, state: JobState) -> Option<Obligation> {
        let job = &history.job;
        let JobParams::LaunchServer(params) = &job.params else { return None };
        let step = step_of(job.params.kind());
        let promise = promise?;
        let sent = history.attempts.iter().any(|a| a.step == step.name);
        let sure = promise.class == crate::cloud::TokenClass::K && state != JobState::Unresolved;
        let now = self.ports.clock.now();
        (sent && !sure).then(|| Obligation {
            tag: request::tag(job.uid, step.name),
            customer: job.customer,
            account: job.account,
            region: params.region,
            look_at: now.plus(promise.quiet / 2),
            look_until: now.plus(JANITOR),
        })
    }
}

fn fence(job: &Job) -> Fence {
    Fence { job: job.uid, epoch: job.epoch }
}

/// An attempt that took effect, with what was seen.
fn closed(job: &Job, attempt: AttemptUid, evidence: &str, then: Then) -> Close {
    Close {
        fence: fence(job),
        attempt,
        outcome: AttemptOutcome::Ok,
        class: None,
        evidence: evidence.to_owned(),
        output: String::new(),
        made: None,
        seen: None,
        then,
    }
}

async fn call(line: &Line, operation: Operation, id: &str) -> Result<(), CallError> {
    let context = line.context();
    match operation {
        Operation::Start => line.provider.start(&context, id).await,
        Operation::Stop => line.provider.stop(&context, id).await,
        Operation::Pause => line.provider.pause(&context, id).await,
        Operation::Terminate => line.provider.terminate(&context, id).await,
    }
}

fn server_row(
    job: &Job,
    params: &crate::model::LaunchParams,
    machine: &Machine,
    (id, now): (ServerId, Micros),
) -> ServerRow {
    ServerRow {
        id: id.0,
        customer: job.customer.0,
        account: job.account.0,
        cloud: params.cloud.0,
        region: params.region.0,
        data_center: params.data_center.0,
        product: params.product.0,
        provider_product: params.provider_product.clone(),
        image: params.image.0,
        name: params.name.clone(),
        description: params.description.clone(),
        provider_id: machine.id.clone(),
        job: job.uid.to_string(),
        status: machine.state.to_string(),
        platform: params.platform.clone(),
        architecture: params.architecture.clone(),
        agent_version: 0,
        budget: params.budget.0,
        label: params.label.clone(),
        keypair: params.keypair.clone(),
        owner: job.person.0,
        user_groups: serde_json::to_string(&params.groups).unwrap_or_default(),
        private_ip: machine.private_ip.clone(),
        public_ip: machine.public_ip.clone(),
        started_at: machine.launched_at.0,
        stopped_at: None,
        terminate_after: None,
        pause_after: None,
        last_contact: None,
        busy_by: None,
        changed_at: now.0,
        version: 1,
    }
}

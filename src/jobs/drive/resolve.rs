//! What became of an open attempt: look first, then send the same again where that is safe.

use std::time::Duration;

use super::operate::call;
use super::{BUSY_RETRY, Driver, Next, closed, fence, waiting};
use crate::cloud::{CallError, LaunchRequest};
use crate::jobs::ports::{Applied, Change};
use crate::jobs::steps::{Effect, Operation, Step, UNDO, step_of};
use crate::jobs::{Error, machine, request};
use crate::model::{AttemptOutcome, AttemptUid, ServerStatus};
use crate::ops::failpoint::{Fault, hit, sabotaged};
use crate::store::provisioning::job::{Attempt, History, Job};
use crate::store::provisioning::transition::{Close, Quiet, Then};

/// Whether the same request may be sent again, and Q.
type Again = (bool, Option<Duration>);

impl Driver<'_> {
    pub(super) async fn resolve(
        &mut self,
        history: &History,
        uid: AttemptUid,
        again: Again,
    ) -> Result<Next, Error> {
        let job = &history.job;
        let Some(open) = history.attempts.iter().find(|a| a.uid == uid) else { return Ok(Next::Again) };
        let step = step_of(job.params.kind());
        if open.step == UNDO {
            return self.undo_again(history, open).await;
        }
        match step.effect {
            Effect::Nothing => self.finish_noop(job, open).await,
            Effect::Create => self.resolve_create(history, open, (again, &step)).await,
            Effect::Move(operation) => self.resolve_move(history, open, (again, operation)).await,
            Effect::Command | Effect::Children => Ok(Next::Release),
        }
    }

    pub(super) async fn resolve_create(
        &mut self,
        history: &History,
        open: &Attempt,
        ((resend, quiet), step): (Again, &Step),
    ) -> Result<Next, Error> {
        let job = &history.job;
        let line = match self.line(history, open.uid, "look").await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        if sabotaged(Fault::NoLook) {
            let close =
                Close { outcome: AttemptOutcome::Void, ..closed(job, open.uid, "not looked for", Then::Go) };
            return self.moved(Change::Close(Box::new(close))).await;
        }
        let tag = request::tag(job.uid, step.name);
        let found = match line.bounded(line.provider.find_by_tag(&line.context(), &tag)).await {
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
        let request: LaunchRequest = request::open(self.ports, job, step, open)?;
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        hit("resend.before");
        let answer = line.bounded(line.provider.launch(&line.context(), &request)).await;
        hit("resend.after");
        match answer {
            Err(error) if error.is_definite() => self.resend_refused(job, open, (&error, quiet)).await,
            answer => self.created(job, open.uid, answer).await,
        }
    }

    /// A look that failed proves nothing; it is repeated.
    pub(super) async fn not_seen(&mut self, job: &Job, error: &CallError) -> Result<Next, Error> {
        self.unanswered = self.unanswered.saturating_add(1);
        let pause = machine::pause(&self.ports.limits, self.unanswered);
        self.pause(job, pause, ("look", format!("the cloud cannot be asked now: {error}"))).await
    }

    /// The guard before a call of an attempt that is open already.
    pub(super) async fn may_resend(&self, job: &Job) -> Result<Option<Next>, Error> {
        if !self.ports.liveness.may_start() {
            return Ok(Some(Next::Pause(BUSY_RETRY)));
        }
        // A cancel does not stop the question what became of the call: the same token finds or consumes it.
        let change = Change::Wait {
            fence: fence(job),
            waiting: waiting(
                self.ports.clock.now().plus(self.ports.call_limit),
                "resend",
                "sending the same request again".to_owned(),
            ),
        };
        match self.apply(change).await? {
            Applied::Done => Ok(None),
            Applied::Fenced | Applied::Busy => Ok(Some(Next::Release)),
        }
    }

    /// A refusal of the repeat says nothing about the first call, which may still land: the attempt stays open. A
    /// refusal that may pass is asked again, any other is waited out and then looked for.
    async fn resend_refused(
        &mut self,
        job: &Job,
        open: &Attempt,
        (error, quiet): (&CallError, Option<Duration>),
    ) -> Result<Next, Error> {
        if error.class().worth_retry() {
            return self.not_seen(job, error).await;
        }
        let until = self.ports.clock.now().plus(quiet.unwrap_or_default());
        let why = format!(
            "set aside until {}: the repeated call was refused ({error}), the first may still land",
            until.rfc3339()
        );
        let change = Change::Quarantine {
            fence: fence(job),
            waiting: waiting(until, machine::LATE_CREATE, why),
            quiet: Some(Quiet { attempt: open.uid, until }),
        };
        self.released(change).await
    }

    async fn resolve_move(
        &mut self,
        history: &History,
        open: &Attempt,
        ((resend, quiet), operation): (Again, Operation),
    ) -> Result<Next, Error> {
        let job = &history.job;
        let Some(target) = self.target(job).await? else { return Ok(Next::Release) };
        let line = match self.line(history, open.uid, "look").await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        let seen = match line.bounded(line.provider.machine(&line.context(), &target.resource)).await {
            Ok(seen) => seen,
            Err(error) => return self.not_seen(job, &error).await,
        };
        let there = seen.map_or(ServerStatus::Terminated, |machine| machine.state);
        if there == operation.proof() {
            return self.operated(job, open.uid, &target.resource, Ok(())).await;
        }
        if !resend {
            let text = format!("looked at {} after it could no longer land: {there}", target.resource);
            let close = Close { outcome: AttemptOutcome::Void, ..closed(job, open.uid, &text, Then::Go) };
            return self.moved(Change::Close(Box::new(close))).await;
        }
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        hit("resend.before");
        let answer = call(&line, operation, &target.resource).await;
        hit("resend.after");
        match answer {
            Err(error) if error.is_definite() => self.resend_refused(job, open, (&error, quiet)).await,
            answer => self.operated(job, open.uid, &target.resource, answer).await,
        }
    }
}

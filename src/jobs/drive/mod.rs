//! Carries out one move after another until the job ends or waits without an owner.
//!
//! Each move is planned from the rows, applied by a guarded item, and planned anew; dropping the future at any point
//! loses nothing, because an open attempt is written before its call and resolved by whoever comes next.

mod aside;
mod command;
mod create;
mod end;
mod line;
mod operate;
mod resolve;
mod undo;

pub(crate) use aside::set_aside;

use std::time::Duration;

use tokio::sync::Notify;

use super::Error;
use super::machine::{self, Ending, Facts, Plan, Promise, plan};
use super::ports::{Applied, Change, Ports};
use super::steps::{Effect, step_of};
use crate::model::{AttemptOutcome, AttemptUid, ErrorClass, JobState, JobUid, Micros};
use crate::mq::Nudge;
use crate::ops::failpoint::hit;
use crate::store;
use crate::store::provisioning::job::{Attempt, History, Job};
use crate::store::provisioning::transition::{Claim, Close, Fence, PACE, Quiet, Sent, Then, Waiting};

/// How often a database that does not answer is asked again.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How long a job waits for a server that another job works on, or for its own process's sign of life.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Jobs that are due within this time wait in their actor, where their account's pace called them.
const SOON: Duration = Duration::from_secs(5);

/// What the loop does after a move.
enum Next {
    /// Plans again at once.
    Again,
    /// Plans again after a pause or a wake.
    Pause(Duration),
    /// The job needs no actor.
    Release,
}

/// Runs a job until it needs no actor. What is known of it is planned from first, instead of its rows.
pub(crate) async fn drive(
    ports: &Ports,
    (uid, known): (JobUid, Option<History>),
    wake: &Notify,
) -> Result<(), Error> {
    let mut driver = Driver { ports, uid, since: ports.clock.now(), unanswered: 0, kind: None, known };
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
                    // In this order, so that the same news and times always lead to the same moves.
                    biased;
                    () = wake.notified() => {}
                    () = ports.clock.sleep(pause) => {}
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

/// The places before and after a change, for those whose changes have places of their own.
const fn places_of(change: &Change) -> Option<(&'static str, &'static str)> {
    match change {
        Change::Claim { .. } => Some(("claim.before", "claim.after")),
        Change::NextTry { .. } => Some(("try.before", "try.after")),
        Change::BeginUndo { .. } => Some(("undo-state.before", "undo-state.after")),
        Change::End(_) | Change::Withdraw { .. } => Some(("end.before", "end.after")),
        _ => None,
    }
}

/// What a change counts as, once it is stored.
enum Counted {
    Attempt(&'static str),
    Job(&'static str),
}

struct Driver<'a> {
    ports: &'a Ports,
    uid: JobUid,
    /// When this driver began.
    since: Micros,
    /// Calls in a row whose answer never came.
    unanswered: i32,
    /// Kind of the job, as figures name it, once its row was read.
    kind: Option<&'static str>,
    /// What the first plan is made from.
    known: Option<History>,
}

impl Driver<'_> {
    fn store(&self, source: store::Error) -> Error {
        Error::Store { job: self.uid, source }
    }

    fn missing(&self, what: impl Into<String>) -> Error {
        Error::Missing { job: self.uid, what: what.into() }
    }

    async fn apply(&self, change: Change) -> Result<Applied, Error> {
        let counted = match &change {
            Change::Close(close) => Some(Counted::Attempt(close.outcome.as_str())),
            Change::End(end) => Some(Counted::Job(end.state.as_str())),
            _ => None,
        };
        let places = places_of(&change);
        if let Some((before, _)) = places {
            hit(before);
        }
        let applied = self.ports.store.apply(change).await.map_err(|e| self.store(e))?;
        if let Some((_, after)) = places {
            hit(after);
        }
        match (applied, counted, self.kind) {
            (Applied::Done, Some(Counted::Attempt(outcome)), Some(kind)) => {
                self.ports.metrics.attempt(kind, outcome);
            }
            (Applied::Done, Some(Counted::Job(state)), Some(kind)) => {
                self.ports.metrics.job_ended(kind, state);
            }
            _ => {}
        }
        Ok(applied)
    }

    async fn advance(&mut self) -> Result<Next, Error> {
        let history = match self.known.take() {
            Some(known) => Some(known),
            None => self.ports.store.history(self.uid).await.map_err(|e| self.store(e))?,
        };
        let Some(mut history) = history else { return Ok(Next::Release) };
        self.kind = Some(history.job.params.kind().as_str());
        let promise = match self.promise(&history).await {
            Err(Error::Missing { what, .. }) => return self.nowhere(&history, what).await,
            known => known?,
        };
        let first = self.plan(&history, promise);
        let Plan::Claim(to) = first else { return self.carry_out(&history, first, promise).await };
        let claim = Claim {
            seen: Fence { job: self.uid, epoch: history.job.epoch },
            next: history.job.epoch.after(self.ports.generation),
            from: history.job.state,
            to,
            boot: self.ports.boot,
            crashes: machine::crashes_after_claim(&history.job, &self.ports.limits),
        };
        history.job.owner = Some(self.ports.boot);
        history.job.epoch = claim.next;
        history.job.state = to;
        history.job.crashes = claim.crashes;
        self.claim(&history, claim, promise).await
    }

    /// Becomes the owner and makes the first move; `history` is as it will be then.
    async fn claim(
        &mut self,
        history: &History,
        claim: Claim,
        promise: Option<Promise>,
    ) -> Result<Next, Error> {
        // A step that needs no lease is written in the commit of the claim.
        if let Plan::Send { n } = self.plan(history, promise)
            && step_of(history.job.params.kind()).effect == Effect::Nothing
        {
            let attempt = self.attempt(&history.job, n, String::new());
            return match self.claimed(claim, Some(attempt.clone())).await? {
                Applied::Done => self.finish_noop(&history.job, &attempt).await,
                Applied::Busy => Ok(Next::Again),
                Applied::Fenced => Ok(Next::Release),
            };
        }
        match self.claimed(claim, None).await? {
            Applied::Done => {
                let planned = self.plan(history, promise);
                self.carry_out(history, planned, promise).await
            }
            Applied::Fenced | Applied::Busy => Ok(Next::Release),
        }
    }

    /// Applies a claim. Whatever came of it is in the rows now, so the hint that led here has done its work.
    async fn claimed(&self, claim: Claim, open: Option<Attempt>) -> Result<Applied, Error> {
        let applied = self.apply(Change::Claim { claim, open: open.map(Box::new) }).await?;
        self.ports.queue.claimed(claim.seen.job, claim.seen.epoch);
        Ok(applied)
    }

    fn plan(&self, history: &History, promise: Option<Promise>) -> Plan {
        let facts = Facts {
            history,
            now: self.ports.clock.now(),
            boot: self.ports.boot,
            promise,
            limits: &self.ports.limits,
            since: self.since,
        };
        let planned = plan(&facts);
        #[cfg(test)]
        crate::jobs::recorded::note(&facts, &planned);
        planned
    }

    async fn promise(&self, history: &History) -> Result<Option<Promise>, Error> {
        if !matches!(step_of(history.job.params.kind()).effect, Effect::Create | Effect::Move(_)) {
            return Ok(None);
        }
        let (_, provider) = self.place(&history.job).await?;
        let known = provider.capabilities();
        Ok(Some(Promise { class: known.class, quiet: known.quiet(), token_kept: known.token_kept }))
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
            Plan::Leave => Ok(Next::Release),
            Plan::Rest => Ok(self.rest(job)),
            // Planned only without an owner, and then claimed before.
            Plan::Claim(_) => Ok(Next::Again),
            Plan::Send { n } => self.send(history, n).await,
            Plan::Resolve { attempt, resend } => {
                self.resolve(history, attempt, (resend, promise.map(|p| p.quiet))).await
            }
            Plan::NextTry { why } => self.moved(Change::NextTry { fence, from: job.try_no, why }).await,
            Plan::BeginUndo { why } => self.begin_undo(history, why).await,
            Plan::Undo { n } => self.undo(history, n, promise).await,
            Plan::End(ending) => self.finish(history, promise, ending).await,
            Plan::Quarantine { until, code, why, quiet } => {
                let quiet = quiet.map(|attempt| Quiet { attempt, until });
                self.released(Change::Quarantine { fence, waiting: waiting(until, code, why), quiet }).await
            }
            Plan::Park { until, code, why } => {
                self.released(Change::Park { fence, waiting: waiting(until, &code, why) }).await
            }
            Plan::CallOff { who, code, why } => {
                self.released(Change::CallOff { fence, who, code, why }).await
            }
            Plan::Withdraw { command, unsent, sent, until } => {
                let sent = match sent {
                    Some(ending) => Sent::End(Box::new(self.end(history, promise, ending))),
                    None => Sent::Park(waiting(until, machine::CANCEL_SENT, command::CALLED_OFF.to_owned())),
                };
                let unsent = Box::new(self.end(history, promise, unsent));
                self.withdraw(Change::Withdraw { command, unsent, sent: Box::new(sent) }).await
            }
            Plan::Wait { until, code, why } => {
                let pause = until.since(self.ports.clock.now());
                self.pause(job, pause, (&code, why)).await
            }
        }
    }

    /// A job that was called for the time of its account's next start waits here, where that is soon; any other needs
    /// nobody until it is due.
    fn rest(&self, job: &Job) -> Next {
        let soon = |due: Micros| due.since(self.ports.clock.now());
        match job.due_at.map(soon) {
            Some(pause) if job.why_code == PACE && job.state == JobState::Queued && pause <= SOON => {
                Next::Pause(pause.max(Duration::from_millis(1)))
            }
            _ => Next::Release,
        }
    }

    /// Applies the last move of this actor; whoever was faster has moved the job on.
    async fn released(&self, change: Change) -> Result<Next, Error> {
        self.apply(change).await.map(|_| Next::Release)
    }

    async fn finish(
        &self,
        history: &History,
        promise: Option<Promise>,
        ending: Ending,
    ) -> Result<Next, Error> {
        let end = self.end(history, promise, ending);
        self.released(Change::End(Box::new(end))).await
    }

    /// A job that names what does not exist ends, unless something of it may exist all the same.
    async fn nowhere(&self, history: &History, what: String) -> Result<Next, Error> {
        let job = &history.job;
        if job.ended_at.is_some() || job.owner.is_some_and(|owner| owner != self.ports.boot) {
            return Ok(Next::Release);
        }
        let open = history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
        if open || machine::made_something(history) {
            return Err(self.missing(what));
        }
        let message = format!("{what} does not exist any more");
        let ending = Ending { state: JobState::Failed, code: ErrorClass::NotFound.to_string(), message };
        self.finish(history, None, ending).await
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
            Effect::Move(operation) => self.operate(history, n, operation).await,
            Effect::Command => self.command(job, n).await,
            // It is accepted together with its watch.
            Effect::Children => Err(self.missing("the watch of its children")),
        }
    }

    async fn finish_noop(&self, job: &Job, attempt: &Attempt) -> Result<Next, Error> {
        let then = Then::Await(self.watch(job, "", job.deadline));
        self.close_and_watch(closed(job, attempt.uid, "nothing to do", then)).await
    }
}

fn waiting(until: Micros, code: &str, why: String) -> Waiting {
    Waiting { until, code: code.to_owned(), why }
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
        retry_after: None,
        evidence: evidence.to_owned(),
        output: String::new(),
        made: None,
        seen: None,
        then,
    }
}

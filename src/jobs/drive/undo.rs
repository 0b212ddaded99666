//! Taking back what was made: look, terminate, look again.

use std::time::Duration;

use super::line::Line;
use super::{Driver, Next, closed, fence};
use crate::cloud::CallError;
use crate::jobs::Error;
use crate::jobs::machine::{self, Promise};
use crate::jobs::ports::Change;
use crate::jobs::steps::UNDO;
use crate::model::{AttemptOutcome, AttemptUid, ErrorClass, Micros, ServerStatus};
use crate::ops::failpoint::{Fault, hit, sabotaged};
use crate::store::provisioning::job::{Attempt, History, Job};
use crate::store::provisioning::server::Seen;
use crate::store::provisioning::transition::Then;

/// Pause between looks while what was made is being taken back.
const UNDO_LOOK: Duration = Duration::from_millis(500);

impl Driver<'_> {
    /// Says that taking back begins. Nothing is taken back before that is committed: whoever takes over then knows
    /// that there is no way back to waiting.
    pub(super) async fn begin_undo(&mut self, history: &History, why: String) -> Result<Next, Error> {
        if sabotaged(Fault::UndoBeforeState)
            && let Some(resource) = &history.job.resource
            && let Ok(line) = self.line(history, AttemptUid::random(), UNDO).await?
        {
            drop(line.bounded(line.provider.terminate(&line.context(), resource)).await);
        }
        self.moved(Change::BeginUndo { fence: fence(&history.job), why }).await
    }

    /// One round of taking back: look, end when it is gone, else terminate.
    pub(super) async fn undo(
        &mut self,
        history: &History,
        n: i32,
        promise: Option<Promise>,
    ) -> Result<Next, Error> {
        let job = &history.job;
        let Some(resource) = job.resource.clone() else {
            return self.gone(history, promise).await;
        };
        let mut attempt = self.attempt(job, n, String::new());
        attempt.step = UNDO.to_owned();
        attempt.evidence.clone_from(&resource);
        let line = match self.line(history, attempt.uid, UNDO).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        let asked = self.ports.clock.now();
        let seen = match line.bounded(line.provider.machine(&line.context(), &resource)).await {
            Ok(seen) => seen,
            Err(error) => return self.not_seen(job, &error).await,
        };
        let sent = history.attempts.iter().any(|a| a.step == UNDO && a.outcome == AttemptOutcome::Ok);
        match seen.map(|machine| machine.state) {
            Some(ServerStatus::Terminated) => return self.gone(history, promise).await,
            None if sent || !may_be_hidden(history, &line, asked) => {
                return self.gone(history, promise).await;
            }
            Some(ServerStatus::Stopping) if sent => return Ok(Next::Pause(UNDO_LOOK)),
            // One that is not shown yet is terminated all the same: its id is known.
            None | Some(_) => {}
        }
        attempt.lease.clone_from(&line.lease.shown);
        let change =
            Change::Open { attempt: Box::new(attempt.clone()), state: job.state, server: None, agent: None };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        hit("undo-call.before");
        let answer = line.bounded(line.provider.terminate(&line.context(), &resource)).await;
        hit("undo-call.after");
        self.undone(job, attempt.uid, believed(history, &line, (asked, answer))).await
    }

    pub(super) async fn undo_again(&mut self, history: &History, open: &Attempt) -> Result<Next, Error> {
        let job = &history.job;
        let Some(resource) = &job.resource else { return Ok(Next::Release) };
        let line = match self.line(history, open.uid, UNDO).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        if let Some(next) = self.may_resend(job).await? {
            return Ok(next);
        }
        let asked = self.ports.clock.now();
        hit("resend.before");
        let answer = line.bounded(line.provider.terminate(&line.context(), resource)).await;
        hit("resend.after");
        self.undone(job, open.uid, believed(history, &line, (asked, answer))).await
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

    async fn gone(&self, history: &History, promise: Option<Promise>) -> Result<Next, Error> {
        let mut end = self.end(history, promise, machine::end_after_undo(history));
        end.seen = history.job.server.map(|server| Seen {
            server,
            status: ServerStatus::Terminated,
            private_ip: None,
            public_ip: None,
        });
        self.released(Change::End(Box::new(end))).await
    }
}

/// Whether the cloud may not have shown yet what the job made when it was asked: that it was absent proves nothing then.
fn may_be_hidden(history: &History, line: &Line, asked: Micros) -> bool {
    let made = history.attempts.iter().filter(|a| a.step != UNDO && a.outcome == AttemptOutcome::Ok);
    let made = made.filter_map(|a| a.closed_at).max().unwrap_or(history.job.created_at);
    asked <= made.plus(line.provider.capabilities().t_vis)
}

/// An answer that there is no such server, from a cloud that may not show it yet, is no answer.
fn believed(
    history: &History,
    line: &Line,
    (asked, answer): (Micros, Result<(), CallError>),
) -> Result<(), CallError> {
    match answer {
        Err(error) if error.class() == ErrorClass::NotFound && may_be_hidden(history, line, asked) => {
            let text = format!("too early to believe it: {error}");
            Err(CallError::refused(ErrorClass::Transient, "NotShownYet", text))
        }
        other => other,
    }
}

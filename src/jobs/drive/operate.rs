//! Calls on an existing server: harmless when repeated, but they may land late.

use super::line::Line;
use super::{BUSY_RETRY, Driver, Next, closed};
use crate::cloud::CallError;
use crate::jobs::Error;
use crate::jobs::ports::Change;
use crate::jobs::steps::Operation;
use crate::model::{AttemptUid, JobParams, ServerId};
use crate::ops::failpoint::hit;
use crate::store::provisioning::job::{History, Job};
use crate::store::provisioning::transition::Then;

/// What is moved.
pub(super) struct Target {
    /// Its row, which other jobs are kept off by; none where it has none.
    pub(super) server: Option<ServerId>,
    /// The provider's id.
    pub(super) resource: String,
    /// The job that works on it.
    pub(super) busy_by: Option<String>,
}

impl Driver<'_> {
    pub(super) async fn operate(
        &mut self,
        history: &History,
        n: i32,
        operation: Operation,
    ) -> Result<Next, Error> {
        let job = &history.job;
        let Some(target) = self.target(job).await? else { return Ok(Next::Release) };
        let own = job.uid.to_string();
        if target.busy_by.as_ref().is_some_and(|other| *other != own) {
            return self.busy(job).await;
        }
        let mut attempt = self.attempt(job, n, String::new());
        attempt.evidence.clone_from(&target.resource);
        let line = match self.line(history, attempt.uid, &attempt.step).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        attempt.lease.clone_from(&line.lease.shown);
        let change = Change::Open {
            attempt: Box::new(attempt.clone()),
            state: job.state,
            server: target.server,
            agent: None,
        };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        hit("call.before");
        let answer = call(&line, operation, &target.resource).await;
        hit("call.after");
        self.operated(job, attempt.uid, &target.resource, answer).await
    }

    /// What a job moves: a server of ours, or one that only a cloud knows.
    pub(super) async fn target(&self, job: &Job) -> Result<Option<Target>, Error> {
        if let JobParams::TakeBack(params) = &job.params {
            return Ok(Some(Target { server: None, resource: params.resource.clone(), busy_by: None }));
        }
        let Some(id) = job.params.server() else { return Ok(None) };
        let row = self.server(job, id).await?;
        Ok(Some(Target { server: Some(id), resource: row.provider_id, busy_by: row.busy_by }))
    }

    /// Waits for its turn on a server.
    pub(super) async fn busy(&self, job: &Job) -> Result<Next, Error> {
        let why = "another job works on the server; this one follows it".to_owned();
        self.pause(job, BUSY_RETRY, ("server-busy", why)).await
    }

    pub(super) async fn operated(
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
}

pub(super) async fn call(line: &Line, operation: Operation, id: &str) -> Result<(), CallError> {
    let context = line.context();
    let sent = match operation {
        Operation::Start => line.provider.start(&context, id),
        Operation::Stop => line.provider.stop(&context, id),
        Operation::Pause => line.provider.pause(&context, id),
        Operation::Terminate => line.provider.terminate(&context, id),
    };
    line.bounded(sent).await
}

//! A command for a guest: the row of the guest's queue is the call.

use std::time::Duration;

use super::{Driver, Next};
use crate::jobs::Error;
use crate::jobs::ports::{Applied, Change};
use crate::jobs::steps::step_of;
use crate::model::JobParams;
use crate::model::Micros;
use crate::mq::Nudge;
use crate::ops::failpoint::hit;
use crate::store::provisioning::agent::NewCommand;
use crate::store::provisioning::job::{Attempt, Job};
use crate::wire::{CommandId, Operation as GuestOperation};

/// What a cancelled command waits for that was sent.
pub(super) const CALLED_OFF: &str =
    "cancel asked; the command was sent to its guest, which is asked to end it and to say what became of it";

impl Driver<'_> {
    /// Takes a command back, or has its guest end it.
    pub(super) async fn withdraw(&self, change: Change) -> Result<Next, Error> {
        let target = match &change {
            Change::Withdraw { command, .. } => command.parse::<CommandId>().ok(),
            _ => None,
        };
        let applied = self.apply(change).await?;
        if let (Applied::Done, Some(command)) = (applied, target) {
            self.ports.queue.publish(Nudge::Guest(command.server()));
        }
        Ok(Next::Release)
    }

    pub(super) async fn command(&self, job: &Job, n: i32) -> Result<Next, Error> {
        let JobParams::RunCommand(params) = &job.params else { return Ok(Next::Release) };
        let step = step_of(job.params.kind());
        let try_no = u32::try_from(job.try_no).unwrap_or(0);
        let id = CommandId::new(job.uid, step.name, try_no, params.server)
            .map_err(|e| self.missing(e.to_string()))?;
        let operation =
            GuestOperation::RunCommand { argv: params.argv.clone(), timeout_secs: params.timeout_secs };
        let now = self.ports.clock.now();
        let run = Duration::from_secs(params.timeout_secs.into());
        let (expires_at, answered_by) = self.times_of(job, now, run);
        let attempt = Attempt {
            token: id.to_string(),
            evidence: format!("queued for server {}", params.server),
            ..self.attempt(job, n, String::new())
        };
        let watch = self.watch(job, &id.to_string(), answered_by);
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

    /// Until when a command may be sent, and until when its guest may answer: early enough to be run within the
    /// job's time where that is long enough, and never later than the job may stay open.
    fn times_of(&self, job: &Job, now: Micros, run: Duration) -> (Micros, Micros) {
        let grace = self.ports.limits.grace;
        let in_time = job.deadline.minus(run);
        let latest = if in_time > now { in_time } else { job.deadline };
        let expires_at = now.plus(self.ports.command_wait).min(latest);
        (expires_at, expires_at.plus(run).plus(grace).min(job.deadline.plus(grace)))
    }
}

//! A create: sent with a token or tag that names the job, adopted when it answers or is found.

use super::{Driver, Next, closed};
use crate::cloud::{CallError, Machine};
use crate::jobs::ports::Change;
use crate::jobs::steps::step_of;
use crate::jobs::{Error, machine, request};
use crate::model::{AgentId, AttemptOutcome, AttemptUid, JobParams, LaunchParams, Micros, ServerId};
use crate::ops::failpoint::hit;
use crate::store::provisioning::job::{History, Job};
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::transition::{Close, Then};

impl Driver<'_> {
    pub(super) async fn create(&mut self, history: &History, n: i32) -> Result<Next, Error> {
        let job = &history.job;
        let JobParams::LaunchServer(params) = &job.params else { return Ok(Next::Release) };
        let step = step_of(job.params.kind());
        let mut attempt = self.attempt(job, n, String::new());
        let line = match self.line(history, attempt.uid, step.name).await? {
            Ok(line) => line,
            Err(next) => return Ok(next),
        };
        attempt.lease.clone_from(&line.lease.shown);
        let earlier = history.attempts.iter().find(|a| a.step == step.name && !a.request.is_empty());
        let (request, agent) = match earlier {
            Some(first) => {
                attempt.request.clone_from(&first.request);
                (request::open(self.ports, job, &step, first)?, None)
            }
            None => {
                let number = self.ports.store.new_number().await.map_err(|e| self.store(e))?;
                let made = request::make(self.ports, job, &step, params, AgentId(number))?;
                attempt.request = made.sealed;
                (made.request, made.agent.map(Box::new))
            }
        };
        attempt.token.clone_from(&request.token);
        // I5: whoever sends it, and however often, it is the same request.
        debug_assert!(
            cfg!(feature = "sabotage")
                || earlier
                    .is_none_or(|first| (&first.token, &first.request) == (&attempt.token, &attempt.request)),
            "another token or other bytes for the same create; job={}",
            job.uid
        );
        let change =
            Change::Open { attempt: Box::new(attempt.clone()), state: job.state, server: None, agent };
        if let Some(next) = self.open(job, change).await? {
            return Ok(next);
        }
        hit("call.before");
        let answer = line.bounded(line.provider.launch(&line.context(), &request)).await;
        hit("call.after");
        self.created(job, attempt.uid, answer).await
    }

    /// Writes what a create answered.
    pub(super) async fn created(
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
    pub(super) async fn adopt(
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
    pub(super) async fn unsuccessful(
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
}

pub(super) fn server_row(
    job: &Job,
    params: &LaunchParams,
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

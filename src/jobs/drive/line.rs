//! What a call needs: the place, the driver, a lent credential, and the guard before it is sent.

use std::sync::Arc;
use std::time::Duration;

use super::{BUSY_RETRY, Driver, Next};
use crate::cloud::{CallContext, CallError, Credential, Provider};
use crate::jobs::Error;
use crate::jobs::machine::{self, Ending};
use crate::jobs::ports::{Applied, Ask, Change, Clock, Leased, NoLease, Place, within};
use crate::jobs::steps::step_of;
use crate::model::{
    AttemptOutcome, AttemptUid, ErrorClass, JobParams, JobState, Micros, RegionId, ServerId, WatchUid,
};
use crate::ops::failpoint::hit;
use crate::store::provisioning::job::{Attempt, History, Job};
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::watch::Watch;

/// How long a job waits for the key manager before it asks again.
const KEYS_RETRY: Duration = Duration::from_secs(1);

/// All that a call to a cloud needs.
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) lease: Leased,
    pub(super) limit: Duration,
    clock: Arc<dyn Clock>,
}

impl Line {
    pub(super) const fn context(&self) -> CallContext<'_> {
        CallContext {
            account_number: self.place.account_number.as_str(),
            region: self.place.region.as_str(),
            credential: Credential { access_key: self.lease.access_key.as_str(), secret: &self.lease.secret },
            limit: self.limit,
        }
    }

    /// Waits for a call no longer than its limit, whatever the driver of the cloud makes of that limit. A call that is
    /// dropped may have been done, or may yet be.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match within(&*self.clock, self.limit, call).await {
            Ok(answer) => answer,
            Err(late) => Err(CallError::unknown(late.to_string())),
        }
    }
}

impl Driver<'_> {
    pub(super) async fn place(&self, job: &Job) -> Result<(Place, Arc<dyn Provider>), Error> {
        let region = match &job.params {
            JobParams::LaunchServer(params) => Some(params.region),
            JobParams::TakeBack(params) => Some(params.region),
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

    pub(super) async fn server(&self, job: &Job, id: ServerId) -> Result<ServerRow, Error> {
        let row = self.ports.store.server(job.customer, id).await.map_err(|e| self.store(e))?;
        row.ok_or_else(|| self.missing(format!("server {id}")))
    }

    /// Lends a credential for an attempt, or says why the job waits or ends.
    pub(super) async fn line(
        &self,
        history: &History,
        attempt: AttemptUid,
        purpose: &str,
    ) -> Result<Result<Line, Next>, Error> {
        let job = &history.job;
        let (place, provider) = self.place(job).await?;
        let ask = Ask {
            job: job.uid,
            attempt,
            customer: job.customer,
            account: job.account,
            credential: place.credential.clone(),
            purpose: purpose.to_owned(),
        };
        // A lease that comes too late is dropped and wiped; nothing is used up by asking again.
        let clock = Arc::clone(&self.ports.clock);
        let leased = within(&*clock, self.ports.call_limit, self.ports.keys.lease(ask)).await;
        match leased.unwrap_or_else(|late| Err(NoLease::Later(late.to_string()))) {
            Ok(lease) => {
                let limit = self.ports.call_limit.min(provider.capabilities().t_call);
                Ok(Ok(Line { place, provider, lease, limit, clock }))
            }
            Err(NoLease::Later(cause)) => {
                let why = format!("waiting for the key manager: {cause}");
                Ok(Err(self.pause(job, KEYS_RETRY, ("key-manager", why)).await?))
            }
            Err(NoLease::Denied(cause)) => Ok(Err(self.denied(history, &cause).await?)),
        }
    }

    /// Without a credential a job fails, but only where nothing of it can exist.
    async fn denied(&self, history: &History, cause: &str) -> Result<Next, Error> {
        let job = &history.job;
        let text = format!("the key manager denied the credential of account {}: {cause}", job.account);
        let open = history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
        if open || machine::made_something(history) {
            return self.pause(job, self.ports.limits.retry_most, (ErrorClass::Auth.as_str(), text)).await;
        }
        let ending = Ending { state: JobState::Failed, code: ErrorClass::Auth.to_string(), message: text };
        self.finish(history, None, ending).await
    }

    /// Opens an attempt; `None` means the call must not be sent.
    pub(super) async fn open(&self, job: &Job, change: Change) -> Result<Option<Next>, Error> {
        if !self.ports.liveness.may_start() {
            return Ok(Some(Next::Pause(BUSY_RETRY)));
        }
        hit("intent.before");
        let outcome = self.apply(change).await?;
        hit("intent.after");
        match outcome {
            // The commit may have taken long; the attempt then stays open and is resolved.
            Applied::Done if !self.ports.liveness.may_start() => Ok(Some(Next::Pause(BUSY_RETRY))),
            Applied::Done => Ok(None),
            Applied::Fenced => Ok(Some(Next::Again)),
            Applied::Busy => self.busy(job).await.map(Some),
        }
    }

    pub(super) fn watch(&self, job: &Job, target: &str, deadline: Micros) -> Watch {
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

    pub(super) fn attempt(&self, job: &Job, n: i32, lease: String) -> Attempt {
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
            quiet_until: None,
            version: 1,
        }
    }
}

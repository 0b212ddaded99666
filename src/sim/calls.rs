//! The calls of one process to its cloud.

use std::time::Duration;

use async_trait::async_trait;

use super::ports::Port;
use super::wire::{Answer, Site, call, sleep};
use super::world::{SECOND, World};
use super::wrong::Wrong;
use crate::cloud::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider};
use crate::model::{AttemptUid, ErrorClass, JobUid, ServerStatus};

/// Who calls, by the key that was lent.
fn caller(context: &CallContext<'_>) -> (JobUid, AttemptUid) {
    let (job, attempt) = context.credential.access_key.split_once('/').expect("a lent key");
    (job.parse().expect("a job"), attempt.parse().expect("an attempt"))
}

impl Port {
    async fn effect<T: Send + 'static>(
        &self,
        act: impl FnMut(&mut World) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        match call(&self.sim, Site::Effect, act).await {
            Answer::Value(answer) => answer,
            Answer::Refused => {
                let classes = [ErrorClass::Throttled, ErrorClass::Transient, ErrorClass::Quota];
                let class = self.sim.with(|w| *w.chance.pick(&classes));
                Err(CallError::refused(class, "OnDemand", "refused on demand"))
            }
            Answer::Lost => Err(CallError::unknown("the connection was cut")),
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        act: impl FnMut(&mut World) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        match call(&self.sim, Site::Look, act).await {
            Answer::Value(seen) => Ok(seen),
            Answer::Refused => Err(CallError::refused(ErrorClass::Throttled, "OnDemand", "too many looks")),
            Answer::Lost => Err(CallError::unknown("the connection was cut")),
        }
    }

    async fn to(&self, context: &CallContext<'_>, id: &str, to: ServerStatus) -> Result<(), CallError> {
        let ((job, attempt), id) = (caller(context), id.to_owned());
        self.sim.with(|w| w.sends(job, attempt, false));
        self.moment().await;
        self.effect(move |w| w.moved(job, &id, to)).await
    }

    /// The moment between a decision and the write to the socket, at which a process may stand still.
    async fn moment(&self) {
        let micros = self.sim.with(|w| if w.chance.one_in(4) { w.chance.range(0, SECOND / 1000) } else { 0 });
        if micros > 0 {
            sleep(&self.sim, Duration::from_micros(micros.unsigned_abs())).await;
        }
    }
}

#[async_trait(?Send)]
impl Provider for Port {
    fn name(&self) -> &str {
        "simulation"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, _: &CallContext<'_>) -> Result<(), CallError> {
        Ok(())
    }

    async fn launch(&self, context: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError> {
        let (job, attempt) = caller(context);
        let mut request = request.clone();
        if self.wrong == Some(Wrong::EpochInToken) {
            let epoch = self.epochs.lock().expect("no panic").get(&job).copied().unwrap_or(0);
            request.token = format!("{}.{epoch}", request.token);
        }
        // Signed now; sent when the process gets to it.
        let signed = self.sim.with(|w| {
            w.sends(job, attempt, true);
            w.now
        });
        self.moment().await;
        self.effect(move |w| w.launch(job, &request, signed)).await
    }

    async fn machine(&self, _: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        let id = id.to_owned();
        self.look(move |w| w.shown(&id)).await
    }

    async fn find_by_tag(&self, _: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError> {
        if self.wrong == Some(Wrong::RetryWithoutLook) {
            return Ok(Vec::new());
        }
        let tag = tag.to_owned();
        self.look(move |w| w.tagged(&tag)).await
    }

    async fn list(&self, _: &CallContext<'_>, _: &str) -> Result<Vec<Machine>, CallError> {
        Ok(Vec::new())
    }

    async fn start(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.to(context, id, ServerStatus::Running).await
    }

    async fn stop(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.to(context, id, ServerStatus::Stopped).await
    }

    async fn pause(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.to(context, id, ServerStatus::Paused).await
    }

    async fn terminate(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.to(context, id, ServerStatus::Terminated).await
    }
}

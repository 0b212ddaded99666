//! The calls: admission (latency, faults, credential) before anything is done.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use subtle::ConstantTimeEq as _;

use super::Simulated;
use super::catalogue::CATALOGUE;
use super::core::Core;
use super::effects::{change, launch, read, shown_as};
use super::faults::{Fault, Operation};
use super::machine::{Change, Scope};
use crate::cloud::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider};
use crate::model::ErrorClass;

#[async_trait(?Send)]
impl Provider for Simulated {
    fn name(&self) -> &str {
        "simulated"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.core.settings.capabilities
    }

    async fn check(&self, context: &CallContext<'_>) -> Result<(), CallError> {
        self.call(context, Operation::Check, |_, _, _| async { Ok(()) }).await
    }

    async fn launch(&self, context: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError> {
        let request = request.clone();
        self.call(context, Operation::Launch, move |core, scope, how| launch(core, scope, request, how.hide))
            .await
    }

    async fn machine(&self, context: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        let id = id.to_owned();
        let work = move |core, scope, _| async move {
            read(&core, |core, now| {
                let shown = core.world.visible_to(&scope, &id).filter(|i| i.is_visible(now.0, now.1));
                shown.map(|i| shown_as(i, now.0))
            })
            .await
        };
        self.call(context, Operation::Machine, work).await
    }

    async fn find_by_tag(&self, context: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError> {
        let machines = self.tagged(context, tag, Operation::FindByTag).await?;
        Ok(machines.into_iter().filter(|machine| machine.tag.as_deref() == Some(tag)).collect())
    }

    async fn list(&self, context: &CallContext<'_>, tag_prefix: &str) -> Result<Vec<Machine>, CallError> {
        self.tagged(context, tag_prefix, Operation::List).await
    }

    async fn start(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.change(context, id, (Operation::Start, Change::Start)).await
    }

    async fn stop(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.change(context, id, (Operation::Stop, Change::Stop)).await
    }

    async fn pause(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.change(context, id, (Operation::Pause, Change::Pause)).await
    }

    async fn terminate(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.change(context, id, (Operation::Terminate, Change::Terminate)).await
    }
}

impl Simulated {
    async fn tagged(
        &self,
        context: &CallContext<'_>,
        prefix: &str,
        operation: Operation,
    ) -> Result<Vec<Machine>, CallError> {
        let prefix = prefix.to_owned();
        let work = move |core, scope, _| async move {
            read(&core, |state, (now, kept)| {
                let shown = state.world.tagged(&scope, &prefix).filter(|i| i.is_visible(now, kept));
                shown.map(|i| shown_as(i, now)).collect()
            })
            .await
        };
        self.call(context, operation, work).await
    }

    async fn change(
        &self,
        context: &CallContext<'_>,
        id: &str,
        (operation, change_to): (Operation, Change),
    ) -> Result<(), CallError> {
        let capabilities = &self.core.settings.capabilities;
        let offered = match change_to {
            Change::Pause => capabilities.pause,
            Change::Start | Change::Stop => capabilities.start_stop,
            Change::Terminate | Change::Lose => true,
        };
        if !offered {
            let text = format!("this cloud does not offer to {change_to:?} a server");
            return Err(CallError::refused(ErrorClass::Conflict, "UnsupportedOperation", text));
        }
        let id = id.to_owned();
        let work = move |core: Arc<Core>, scope, how: How| async move {
            if how.forget { Ok(()) } else { change(&core, scope, id, change_to).await.map(drop) }
        };
        self.call(context, operation, work).await
    }

    /// Admits a call, lets its fault happen and carries it out within the caller's limit.
    async fn call<T, W, F>(
        &self,
        context: &CallContext<'_>,
        operation: Operation,
        work: W,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Core>, Scope, How) -> F,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let core = &self.core;
        let Ok(_turn) = core.gate.try_acquire() else {
            let text = "too many calls at once; send fewer";
            return Err(CallError::refused(ErrorClass::Throttled, "RequestLimitExceeded", text));
        };
        let answer = pin!(self.admitted(context, operation, work));
        match select(answer, core.clock().sleep(context.limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(CallError::unknown(format!("no answer within {:?}", context.limit))),
        }
    }

    async fn admitted<T, W, F>(
        &self,
        context: &CallContext<'_>,
        operation: Operation,
        work: W,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Core>, Scope, How) -> F,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let core = &self.core;
        let fault = core.faults.take(operation);
        nap(core, core.settings.latency).await;
        if let Some(Fault::Stall(time)) = fault {
            nap(core, time).await;
        }
        if let Some(answer) = fault.as_ref().and_then(Fault::answer) {
            return Err(answer);
        }
        let scope = authenticate(core, context)?;
        core.heal().await?;
        let hide = if let Some(Fault::Hide(time)) = fault { time } else { Duration::ZERO };
        let how = How { hide, forget: fault == Some(Fault::Forget) };
        let work = work(Arc::clone(core), scope, how);
        match fault {
            Some(Fault::LoseAnswer) => {
                // Whatever it was, it is lost.
                drop(work.await);
                Err(CallError::unknown("connection cut before the answer"))
            }
            Some(Fault::LandLate(time)) => {
                let late = core.clock().sleep(time);
                tokio::spawn(async move {
                    late.await;
                    drop(work.await);
                });
                Err(CallError::unknown("connection cut before the answer"))
            }
            _ => work.await,
        }
    }
}

/// How a call is carried out.
#[derive(Clone, Copy)]
struct How {
    /// How long looks do not show what it makes.
    hide: Duration,
    /// Not at all, although it is answered.
    forget: bool,
}

async fn nap(core: &Core, time: Duration) {
    if !time.is_zero() {
        core.clock().sleep(time).await;
    }
}

/// Checks the credential. Which part of it was wrong is not told.
fn authenticate(core: &Core, context: &CallContext<'_>) -> Result<Scope, CallError> {
    let given = context.credential;
    let known = core.settings.accounts.iter().filter(|account| account.number == context.account_number);
    let fits = known.fold(subtle::Choice::from(0), |fits, account| {
        let key = account.access_key.as_bytes().ct_eq(given.access_key.as_bytes());
        fits | (key & account.secret.expose().ct_eq(given.secret.expose()))
    });
    if !bool::from(fits) {
        let text = format!("the credential is not valid for account \"{}\"", context.account_number);
        return Err(CallError::refused(ErrorClass::Auth, "AuthFailure", text));
    }
    if CATALOGUE.region(context.region).is_none() {
        let text = format!("there is no region \"{}\"", context.region);
        return Err(CallError::refused(ErrorClass::NotFound, "InvalidRegion", text));
    }
    Ok(Scope { account: context.account_number.to_owned(), region: context.region.to_owned() })
}

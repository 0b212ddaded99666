//! The calls: admission (latency, faults, credential), then one decision of the pure part, journalled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Simulated;
use super::catalogue::CATALOGUE;
use super::core::{Core, blocking, write_user_data};
use super::faults::{Fault, Operation};
use super::machine::{Change, Effect, Instance, LaunchDecision, Launched, Scope, TokenRule};
use crate::cloud::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider, TokenClass};
use crate::model::{ErrorClass, Micros, Uid};

/// Longest token and tag in bytes, as with the larger providers.
const MAX_TOKEN: usize = 64;
const MAX_TAG: usize = 256;

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
        self.call(context, Operation::Launch, move |core, scope, hide| launch(core, scope, request, hide))
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
        let work = move |core: Arc<Core>, scope, _| async move {
            change(&core, scope, id, change_to).await.map(drop)
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
        W: FnOnce(Arc<Core>, Scope, Duration) -> F,
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
        W: FnOnce(Arc<Core>, Scope, Duration) -> F,
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
        let work = work(Arc::clone(core), scope, hide);
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

/// Reads the world and answers once everything seen is durable.
async fn read<T>(
    core: &Arc<Core>,
    reader: impl FnOnce(&super::core::State, (Micros, Duration)) -> T,
) -> Result<T, CallError> {
    let (answer, mark) = {
        let state = core.state();
        (reader(&state, (core.now(), core.settings.terminated_kept)), state.journal.mark())
    };
    core.durable(mark).await?;
    Ok(answer)
}

/// Changes a server; answers whether anything had to be done.
pub(super) async fn change(
    core: &Arc<Core>,
    scope: Scope,
    id: String,
    wanted: Change,
) -> Result<bool, CallError> {
    let takes = match wanted {
        Change::Start => core.settings.boot_time,
        Change::Stop => core.settings.stop_time,
        Change::Pause | Change::Terminate | Change::Lose => Duration::ZERO,
    };
    let (done, keeps_guest, mark) = {
        let mut state = core.state();
        let keeps_guest = state.world.instance(&id).is_some_and(|i| i.launched.guest);
        let effect = state.world.decide_change(&scope, &id, wanted, (core.now(), takes))?;
        match effect {
            Some(effect) => {
                state.world.apply(&effect).map_err(impossible)?;
                (true, keeps_guest, state.journal.append(&effect))
            }
            None => (false, keeps_guest, state.journal.mark()),
        }
    };
    core.durable(mark).await?;
    core.announce();
    if matches!(wanted, Change::Terminate | Change::Lose) && !keeps_guest {
        // The keeper does it for a server with a guest, once the guest has ended.
        let file = core.folder_of(&id).join("user-data.json");
        drop(blocking("a server's end", move || std::fs::remove_file(file)).await);
    }
    Ok(done)
}

async fn launch(
    core: Arc<Core>,
    scope: Scope,
    request: LaunchRequest,
    hide: Duration,
) -> Result<Machine, CallError> {
    validate(&core.settings.capabilities, &scope, &request)?;
    let hash = hash_of(&request);
    if let Some(known) = answer_known(&core, &scope, (&request.token, &hash)).await? {
        return Ok(known);
    }
    let prepared = prepare(&core, &request).await?;
    let made = {
        let mut state = core.state();
        let rule = rule_of(&core);
        match state.world.decide_launch(&scope, &request.token, &hash, (core.now(), rule)) {
            Ok(LaunchDecision::Make) => {
                let launched = launched(&core, scope.clone(), &request, (prepared.clone(), hide));
                let guest = launched.guest && state.world.guests().len() < core.settings.guest_processes;
                if !guest {
                    warn_no_guest(&core, &launched.instance);
                }
                let effect =
                    Effect::Launch(Box::new(Launched { guest, request_hash: hash.clone(), ..launched }));
                state.world.apply(&effect).map_err(impossible).map(|()| Some(state.journal.append(&effect)))
            }
            // Another call with the same token was faster.
            Ok(LaunchDecision::Known(_)) => Ok(None),
            Err(conflict) => Err(conflict),
        }
    };
    match made {
        Ok(Some(mark)) => {
            core.durable(mark).await?;
            core.announce();
            answer_made(&core, &prepared.0)
        }
        Ok(None) => {
            discard(&core, prepared.0).await;
            let known = answer_known(&core, &scope, (&request.token, &hash)).await?;
            known.ok_or_else(|| CallError::unknown("500 the server of this token has just been forgotten"))
        }
        Err(error) => {
            discard(&core, prepared.0).await;
            Err(error)
        }
    }
}

fn warn_no_guest(core: &Core, instance: &str) {
    let most = core.settings.guest_processes;
    log::warn!("server {instance} runs without an agent: all {most} guest processes are in use");
}

fn rule_of(core: &Core) -> TokenRule {
    TokenRule { class: core.settings.capabilities.class, kept: core.settings.capabilities.token_kept }
}

fn validate(capabilities: &Capabilities, scope: &Scope, request: &LaunchRequest) -> Result<(), CallError> {
    let wrong = |what: &str, value: &str| {
        let value: String = value.chars().take(64).collect();
        let text = format!("{what} \"{value}\" is not acceptable here");
        Err(CallError::refused(ErrorClass::Bug, "InvalidParameterValue", text))
    };
    let unknown = |what: &str, value: &str| {
        let value: String = value.chars().take(64).collect();
        Err(CallError::refused(ErrorClass::NotFound, "NotFound", format!("there is no {what} \"{value}\"")))
    };
    let user_data = request.user_data.as_ref().map_or(0, Vec::len);
    if request.token.is_empty() || request.token.len() > MAX_TOKEN {
        wrong("client token", &request.token)
    } else if request.tag.len() > MAX_TAG {
        wrong("tag", &request.tag)
    } else if request.name.chars().count() > capabilities.max_name {
        wrong("name", &request.name)
    } else if user_data > capabilities.max_user_data {
        wrong("size of the user data in bytes", &user_data.to_string())
    } else if CATALOGUE.product(&request.product).is_none() {
        unknown("product", &request.product)
    } else if CATALOGUE.image(&request.image).is_none() {
        unknown("image", &request.image)
    } else if CATALOGUE.region(&scope.region).and_then(|r| r.data_center(&request.data_center)).is_none() {
        unknown("data centre in the region", &request.data_center)
    } else {
        Ok(())
    }
}

/// One hash over everything the caller sent: the journal must not hold user data.
fn hash_of(request: &LaunchRequest) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(request).unwrap_or_default());
    hash.finalize().iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// The server made before for this token, once its launch is durable.
async fn answer_known(
    core: &Arc<Core>,
    scope: &Scope,
    (token, hash): (&str, &str),
) -> Result<Option<Machine>, CallError> {
    let (known, mark) = {
        let state = core.state();
        let now = core.now();
        match state.world.decide_launch(scope, token, hash, (now, rule_of(core)))? {
            LaunchDecision::Make => return Ok(None),
            LaunchDecision::Known(id) => {
                (state.world.instance(&id).map(|i| shown_as(i, now)), state.journal.mark())
            }
        }
    };
    core.durable(mark).await?;
    Ok(known)
}

fn answer_made(core: &Core, id: &str) -> Result<Machine, CallError> {
    let state = core.state();
    let made = state.world.instance(id).map(|instance| shown_as(instance, core.now()));
    made.ok_or_else(|| CallError::unknown("500 the journal failed right after the launch"))
}

/// Chooses name and address of a new server and writes its user data. Nothing of it counts before the journal line.
async fn prepare(
    core: &Arc<Core>,
    request: &LaunchRequest,
) -> Result<(String, std::net::Ipv4Addr), CallError> {
    let id: String = format!("i-{}", Uid::random()).chars().take(18).collect();
    let user_data = request.user_data.clone();
    let (shared, name) = (Arc::clone(core), id.clone());
    let work = move || {
        let address = shared.addresses.take(|address| shared.state().world.holds(address));
        let address = address.ok_or_else(|| {
            CallError::refused(ErrorClass::Quota, "InsufficientAddressCapacity", "no address is free")
        })?;
        write_user_data(&shared.folder_of(&name), &name, user_data.as_deref()).map_err(|error| {
            let text = format!("cannot keep the user data: {error}");
            CallError::refused(ErrorClass::Transient, "ServiceUnavailable", text)
        })?;
        Ok(address)
    };
    let prepared = blocking("a launch", work).await;
    let prepared = prepared.map_err(|error| {
        CallError::refused(ErrorClass::Transient, "ServiceUnavailable", error.to_string())
    })?;
    match prepared {
        Ok(address) => Ok((id, address)),
        Err(error) => {
            discard(core, id).await;
            Err(error)
        }
    }
}

/// Removes what was prepared for a server that was not made. What is left over goes at the next start.
async fn discard(core: &Arc<Core>, id: String) {
    let folder = core.folder_of(&id);
    let removed = blocking("a launch", move || std::fs::remove_dir_all(folder)).await;
    if let Ok(Err(error)) = removed {
        log::debug!("folder of the unmade server {id} stays until the next start: {error}");
    }
}

fn launched(
    core: &Core,
    scope: Scope,
    request: &LaunchRequest,
    ((instance, address), hide): ((String, std::net::Ipv4Addr), Duration),
) -> Launched {
    let at = core.now();
    let tagged = core.settings.capabilities.class != TokenClass::N;
    Launched {
        instance,
        scope,
        token: request.token.clone(),
        tag: tagged.then(|| request.tag.clone()),
        request_hash: String::new(),
        name: request.name.clone(),
        product: request.product.clone(),
        image: request.image.clone(),
        data_center: request.data_center.clone(),
        address,
        guest: true,
        at,
        ready_at: at.plus(core.settings.boot_time),
        visible_at: at.plus(hide),
    }
}

fn shown_as(instance: &Instance, now: Micros) -> Machine {
    let launched = &instance.launched;
    let state = instance.status(now);
    let address = Some(launched.address.to_string());
    let raw = serde_json::json!({
        "instanceId": launched.instance, "state": state.as_str(), "at": now.0, "guest": launched.guest,
        "lost": instance.is_lost(),
    });
    Machine {
        id: launched.instance.clone(),
        state,
        tag: launched.tag.clone(),
        name: launched.name.clone(),
        product: launched.product.clone(),
        image: launched.image.clone(),
        data_center: launched.data_center.clone(),
        private_ip: address.clone(),
        public_ip: address,
        launched_at: launched.at,
        raw: raw.to_string(),
    }
}

fn impossible(error: super::machine::Illegal) -> CallError {
    CallError::refused(ErrorClass::Transient, "InternalError", error.to_string())
}

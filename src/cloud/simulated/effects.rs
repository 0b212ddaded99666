//! Carrying a call out: one decision of the pure part, journalled, answered once it is durable.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::catalogue::CATALOGUE;
use super::core::{Core, State, blocking, write_user_data};
use super::machine::{Change, Effect, Illegal, Instance, LaunchDecision, Launched, Scope, TokenRule};
use crate::cloud::{CallError, Capabilities, LaunchRequest, Machine, TokenClass};
use crate::model::{ErrorClass, Micros, Uid};

/// Longest token and tag in bytes, as with the larger providers.
const MAX_TOKEN: usize = 64;
const MAX_TAG: usize = 256;

/// Reads the world and answers once everything seen is durable.
pub(super) async fn read<T>(
    core: &Arc<Core>,
    reader: impl FnOnce(&State, (Micros, Duration)) -> T,
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
                state.world.apply(&effect).map_err(|error| impossible(&error))?;
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

/// Makes a server, or answers with the one its token made before.
pub(super) async fn launch(
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
                state
                    .world
                    .apply(&effect)
                    .map_err(|error| impossible(&error))
                    .map(|()| Some(state.journal.append(&effect)))
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
async fn prepare(core: &Arc<Core>, request: &LaunchRequest) -> Result<(String, Ipv4Addr), CallError> {
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
    ((instance, address), hide): ((String, Ipv4Addr), Duration),
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

/// The server as a look shows it.
pub(super) fn shown_as(instance: &Instance, now: Micros) -> Machine {
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

fn impossible(error: &Illegal) -> CallError {
    CallError::refused(ErrorClass::Transient, "InternalError", error.to_string())
}

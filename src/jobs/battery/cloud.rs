//! A cloud that does what it is told at once, forgets nothing, and lands late or stays silent when a test wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::script::{Fault, Script};
use crate::cloud::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider, TokenClass};
use crate::model::{ErrorClass, Micros, ServerStatus};

/// Truth of the cloud.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) machines: BTreeMap<String, Machine>,
    tokens: BTreeMap<String, (String, String)>,
    /// Every effect: what and on which.
    pub(super) effects: Vec<(&'static str, String)>,
    /// Until then the cloud shows nothing of what it has.
    pub(super) hidden_until: Micros,
    late: Vec<(Micros, LaunchRequest)>,
    /// Whether commands run on until they are called off.
    pub(super) commands_last: bool,
    /// How many effects an older call that lands late will still take back.
    pub(super) take_back: u32,
    /// On which servers that happened.
    pub(super) taken_back: Vec<String>,
    made: u32,
}

pub(super) struct FakeCloud {
    pub(super) script: Arc<Script>,
    pub(super) truth: Mutex<Truth>,
    capabilities: Capabilities,
}

impl FakeCloud {
    pub(super) fn new(script: Arc<Script>, class: TokenClass) -> Self {
        let secs = Duration::from_secs;
        let capabilities = Capabilities {
            class,
            t_call: secs(2),
            t_sig: Duration::ZERO,
            t_land: secs(5),
            t_vis: secs(3),
            token_kept: if class == TokenClass::K { secs(86_400) } else { Duration::ZERO },
            start_stop: true,
            pause: true,
            max_user_data: 65_536,
            max_name: 255,
        };
        Self { script, truth: Mutex::default(), capabilities }
    }

    /// Puts a server there that no job made.
    pub(super) fn place(&self, id: &str, state: ServerStatus) {
        self.truth.lock().expect("no panic").machines.insert(id.to_owned(), machine(id, state, None));
    }

    pub(super) fn alive_with_tag(&self, tag: &str) -> Vec<String> {
        self.land();
        let truth = self.truth.lock().expect("no panic");
        let alive = truth.machines.values().filter(|m| m.tag.as_deref() == Some(tag));
        alive.filter(|m| m.state != ServerStatus::Terminated).map(|m| m.id.clone()).collect()
    }

    pub(super) fn state_of(&self, id: &str) -> Option<ServerStatus> {
        self.truth.lock().expect("no panic").machines.get(id).map(|m| m.state)
    }

    /// Lets an older call arrive that takes back what was reached; the state it leaves, if one is to come.
    pub(super) fn taken_back(&self, id: &str, reached: ServerStatus) -> Option<ServerStatus> {
        let mut truth = self.truth.lock().expect("no panic");
        let left =
            if reached == ServerStatus::Running { ServerStatus::Stopped } else { ServerStatus::Running };
        truth.take_back = truth.take_back.checked_sub(1)?;
        truth.taken_back.push(id.to_owned());
        truth.machines.get_mut(id)?.state = left;
        Some(left)
    }

    /// Lets what was sent long ago arrive.
    fn land(&self) {
        let now = self.script.now();
        let mut truth = self.truth.lock().expect("no panic");
        let (due, rest): (Vec<_>, Vec<_>) = truth.late.drain(..).partition(|(at, _)| *at <= now);
        truth.late = rest;
        drop(truth);
        for (_, request) in due {
            let _ = self.make(&request);
        }
    }

    fn make(&self, request: &LaunchRequest) -> Result<Machine, CallError> {
        let mut truth = self.truth.lock().expect("no panic");
        let text = serde_json::to_string(request).expect("plain data");
        if self.capabilities.class == TokenClass::K
            && let Some((first, id)) = truth.tokens.get(&request.token)
        {
            assert_eq!(*first, text, "a resend must be byte-equal");
            return Ok(truth.machines[id].clone());
        }
        truth.made += 1;
        let id = format!("i-{}-{}", request.token, truth.made);
        let tag = (self.capabilities.class != TokenClass::N).then(|| request.tag.clone());
        let made = machine(&id, ServerStatus::Running, tag);
        truth.tokens.insert(request.token.clone(), (text, id.clone()));
        truth.machines.insert(id.clone(), made.clone());
        truth.effects.push(("launch", request.token.clone()));
        Ok(made)
    }

    fn set(&self, what: &'static str, id: &str, state: ServerStatus) -> Result<(), CallError> {
        let mut truth = self.truth.lock().expect("no panic");
        let Some(machine) = truth.machines.get_mut(id) else {
            return Err(CallError::refused(ErrorClass::NotFound, "NotFound", id));
        };
        if machine.state != state {
            machine.state = state;
            truth.effects.push((what, id.to_owned()));
        }
        Ok(())
    }

    /// One call under the fault that the script has for it.
    async fn call<T>(
        &self,
        name: &'static str,
        done: impl Fn() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.land();
        match self.script.pass(name).await {
            Some(Fault::Refuse(class)) => Err(CallError::refused(class, "OnDemand", name)),
            Some(Fault::Unknown | Fault::Stall) => Err(CallError::unknown(name)),
            Some(Fault::Answer) => done().and_then(|_| Err(CallError::unknown("its answer was lost"))),
            Some(Fault::Hang) => {
                let _ = done();
                std::future::pending().await
            }
            Some(Fault::KillAfter) => {
                let _ = done();
                self.script.die().await
            }
            _ => done(),
        }
    }
}

pub(crate) fn machine(id: &str, state: ServerStatus, tag: Option<String>) -> Machine {
    Machine {
        id: id.to_owned(),
        state,
        tag,
        name: "web".into(),
        product: "p".into(),
        image: "m".into(),
        data_center: "d".into(),
        private_ip: Some("10.0.0.1".into()),
        public_ip: None,
        launched_at: Micros(0),
        raw: String::new(),
    }
}

#[async_trait(?Send)]
impl Provider for FakeCloud {
    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, _: &CallContext<'_>) -> Result<(), CallError> {
        Ok(())
    }

    async fn launch(&self, _: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError> {
        self.land();
        if self.script.will("launch", &Fault::Late) {
            let at = self.script.now().plus(Duration::from_secs(4));
            self.truth.lock().expect("no panic").late.push((at, request.clone()));
            let _ = self.script.pass("launch").await;
            return Err(CallError::unknown("its effect comes late"));
        }
        self.call("launch", || self.make(request)).await
    }

    async fn machine(&self, _: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        let shown = || {
            let truth = self.truth.lock().expect("no panic");
            let hidden = self.script.now() < truth.hidden_until;
            Ok(truth.machines.get(id).filter(|_| !hidden).cloned())
        };
        self.call("machine", shown).await
    }

    async fn find_by_tag(&self, _: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError> {
        let found = || {
            let truth = self.truth.lock().expect("no panic");
            Ok(truth.machines.values().filter(|m| m.tag.as_deref() == Some(tag)).cloned().collect())
        };
        self.call("find_by_tag", found).await
    }

    async fn list(&self, _: &CallContext<'_>, _: &str) -> Result<Vec<Machine>, CallError> {
        Ok(Vec::new())
    }

    async fn start(&self, _: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call("start", || self.set("start", id, ServerStatus::Running)).await
    }

    async fn stop(&self, _: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call("stop", || self.set("stop", id, ServerStatus::Stopped)).await
    }

    async fn pause(&self, _: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call("pause", || self.set("pause", id, ServerStatus::Paused)).await
    }

    async fn terminate(&self, _: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call("terminate", || self.set("terminate", id, ServerStatus::Terminated)).await
    }
}

//! The pure part: what the journalled effects add up to, and what a call may do to it.
//!
//! Nothing here reads a clock, a file or a socket. A server's state is a function of its last effect and of the
//! time, so no timer has to run for a server to boot, and a replayed journal gives the same servers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::cloud::{CallError, TokenClass};
use crate::model::{ErrorClass, Micros, ServerStatus};

/// Whose servers, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Scope {
    /// Account number.
    pub account: String,
    /// Region.
    pub region: String,
}

/// What a launch fixed for the life of a server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    /// The server.
    pub instance: String,
    /// Whose and where.
    #[serde(flatten)]
    pub scope: Scope,
    /// The client's token.
    pub token: String,
    /// The client's tag; none in class N.
    pub tag: Option<String>,
    /// Hash of the whole request, user data included.
    pub request_hash: String,
    /// Name.
    pub name: String,
    /// Product.
    pub product: String,
    /// Image.
    pub image: String,
    /// Data centre.
    pub data_center: String,
    /// The server's address for its whole life.
    pub address: Ipv4Addr,
    /// Whether a real process stands for the guest.
    pub guest: bool,
    /// When.
    pub at: Micros,
    /// When it is up.
    pub ready_at: Micros,
    /// From when on looks show it.
    pub visible_at: Micros,
}

/// A later change of a server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The server.
    pub instance: String,
    /// Its tag, so that the journal can be read line by line.
    pub tag: Option<String>,
    /// When it began.
    pub at: Micros,
    /// When it is finished.
    pub until: Micros,
}

/// One effect: one line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "effect", rename_all = "lowercase")]
pub enum Effect {
    /// A server was made.
    Launch(Box<Launched>),
    /// A stopped or paused server was started.
    Start(Changed),
    /// A server was stopped.
    Stop(Changed),
    /// A server was frozen.
    Pause(Changed),
    /// A server was destroyed by its owner.
    Terminate(Changed),
    /// The cloud lost a server by itself.
    Lose(Changed),
}

impl Effect {
    /// The server it happened to.
    #[must_use]
    pub fn instance(&self) -> &str {
        match self {
            Self::Launch(launched) => &launched.instance,
            Self::Start(c) | Self::Stop(c) | Self::Pause(c) | Self::Terminate(c) | Self::Lose(c) => &c.instance,
        }
    }

    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Micros {
        match self {
            Self::Launch(launched) => launched.at,
            Self::Start(c) | Self::Stop(c) | Self::Pause(c) | Self::Terminate(c) | Self::Lose(c) => c.at,
        }
    }
}

/// What an owner can ask for an existing server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// See [`Effect::Start`].
    Start,
    /// See [`Effect::Stop`].
    Stop,
    /// See [`Effect::Pause`].
    Pause,
    /// See [`Effect::Terminate`].
    Terminate,
    /// See [`Effect::Lose`].
    Lose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Up { ready_at: Micros },
    Down { stopped_at: Micros },
    Frozen,
    Gone { at: Micros, lost: bool },
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What its launch fixed.
    pub launched: Launched,
    phase: Phase,
}

impl Instance {
    /// Its state at a time.
    #[must_use]
    pub fn status(&self, now: Micros) -> ServerStatus {
        match self.phase {
            Phase::Up { ready_at } if now < ready_at => ServerStatus::Pending,
            Phase::Up { .. } => ServerStatus::Running,
            Phase::Down { stopped_at } if now < stopped_at => ServerStatus::Stopping,
            Phase::Down { .. } => ServerStatus::Stopped,
            Phase::Frozen => ServerStatus::Paused,
            Phase::Gone { .. } => ServerStatus::Terminated,
        }
    }

    /// Whether it is destroyed or lost.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone { .. })
    }

    /// Whether the cloud lost it by itself.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Gone { lost: true, .. })
    }

    /// Whether a look at this time shows it; a destroyed one is shown for `kept`.
    #[must_use]
    pub fn is_visible(&self, now: Micros, kept: Duration) -> bool {
        let faded = matches!(self.phase, Phase::Gone { at, .. } if now > at.plus(kept));
        now >= self.launched.visible_at && !faded
    }

    /// When its state changes by itself, if it will.
    #[must_use]
    pub fn next_change(&self, now: Micros) -> Option<Micros> {
        match self.phase {
            Phase::Up { ready_at: at } | Phase::Down { stopped_at: at } if at > now => Some(at),
            _ => None,
        }
    }
}

/// A journal line that cannot follow the lines before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The same server again, or an address in use.
    #[error("launch of \"{0}\" repeats a server or an address that is in use")]
    Repeated(String),
    /// No such server.
    #[error("effect on server \"{0}\", which was never launched")]
    Unknown(String),
    /// The server is gone.
    #[error("effect on server \"{0}\", which is gone")]
    Gone(String),
}

/// What a launch call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchDecision {
    /// Make a new server.
    Make,
    /// Answer with the server made before for this token.
    Known(String),
}

/// How tokens are treated.
#[derive(Clone, Copy, Debug)]
pub struct TokenRule {
    /// The class played.
    pub class: TokenClass,
    /// How long a token is remembered.
    pub kept: Duration,
}

/// All servers of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    instances: BTreeMap<String, Instance>,
    tokens: HashMap<(Scope, String), String>,
    tags: BTreeSet<(Scope, String, String)>,
    addresses: HashSet<Ipv4Addr>,
    guests: BTreeSet<String>,
    launches: u64,
    latest: Micros,
}

impl World {
    /// Takes over one effect.
    ///
    /// # Errors
    /// When it cannot follow the effects before it; nothing is changed then.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), Illegal> {
        match effect {
            Effect::Launch(launched) => self.launched(launched)?,
            Effect::Start(c) => self.moved(c, Phase::Up { ready_at: c.until })?,
            Effect::Stop(c) => self.moved(c, Phase::Down { stopped_at: c.until })?,
            Effect::Pause(c) => self.moved(c, Phase::Frozen)?,
            Effect::Terminate(c) => self.moved(c, Phase::Gone { at: c.at, lost: false })?,
            Effect::Lose(c) => self.moved(c, Phase::Gone { at: c.at, lost: true })?,
        }
        self.latest = self.latest.max(effect.at());
        Ok(())
    }

    fn launched(&mut self, launched: &Launched) -> Result<(), Illegal> {
        if self.instances.contains_key(&launched.instance) || self.addresses.contains(&launched.address) {
            return Err(Illegal::Repeated(launched.instance.clone()));
        }
        self.addresses.insert(launched.address);
        if launched.guest {
            self.guests.insert(launched.instance.clone());
        }
        self.launches += 1;
        self.tokens.insert((launched.scope.clone(), launched.token.clone()), launched.instance.clone());
        let tag = launched.tag.clone().unwrap_or_default();
        self.tags.insert((launched.scope.clone(), tag, launched.instance.clone()));
        let instance =
            Instance { launched: launched.clone(), phase: Phase::Up { ready_at: launched.ready_at } };
        self.instances.insert(launched.instance.clone(), instance);
        Ok(())
    }

    fn moved(&mut self, change: &Changed, phase: Phase) -> Result<(), Illegal> {
        let instance = self
            .instances
            .get_mut(&change.instance)
            .ok_or_else(|| Illegal::Unknown(change.instance.clone()))?;
        if instance.is_gone() {
            return Err(Illegal::Gone(change.instance.clone()));
        }
        instance.phase = phase;
        if instance.is_gone() {
            self.addresses.remove(&instance.launched.address);
            self.guests.remove(&change.instance);
        }
        Ok(())
    }

    /// Decides a launch by the token, as the class says.
    ///
    /// # Errors
    /// A conflict when the token came before with another request.
    pub fn decide_launch(
        &self,
        scope: &Scope,
        token: &str,
        request_hash: &str,
        (now, rule): (Micros, TokenRule),
    ) -> Result<LaunchDecision, CallError> {
        if rule.class != TokenClass::K {
            return Ok(LaunchDecision::Make);
        }
        let known = self.tokens.get(&(scope.clone(), token.to_owned())).and_then(|id| self.instances.get(id));
        match known {
            Some(known) if now < known.launched.at.plus(rule.kept) => {
                if known.launched.request_hash == request_hash {
                    Ok(LaunchDecision::Known(known.launched.instance.clone()))
                } else {
                    let text = "this client token came before with another request; send the stored request unchanged";
                    Err(CallError::refused(ErrorClass::Conflict, "IdempotentParameterMismatch", text))
                }
            }
            _ => Ok(LaunchDecision::Make),
        }
    }

    /// Decides a change: the effect to journal, or nothing where the server is already as wanted.
    ///
    /// # Errors
    /// Refused where no such server is in the scope or its state forbids the change.
    pub fn decide_change(
        &self,
        scope: &Scope,
        id: &str,
        change: Change,
        (now, takes): (Micros, Duration),
    ) -> Result<Option<Effect>, CallError> {
        let instance = self.visible_to(scope, id).filter(|instance| now >= instance.launched.visible_at);
        let instance = instance.ok_or_else(|| not_found(id))?;
        let status = instance.status(now);
        let done = |until: Duration| Changed {
            instance: id.to_owned(),
            tag: instance.launched.tag.clone(),
            at: now,
            until: now.plus(until),
        };
        match (change, status) {
            (Change::Terminate | Change::Lose, ServerStatus::Terminated)
            | (Change::Start, ServerStatus::Running | ServerStatus::Pending)
            | (Change::Stop, ServerStatus::Stopped | ServerStatus::Stopping)
            | (Change::Pause, ServerStatus::Paused) => Ok(None),
            (Change::Terminate, _) => Ok(Some(Effect::Terminate(done(Duration::ZERO)))),
            (Change::Lose, _) => Ok(Some(Effect::Lose(done(Duration::ZERO)))),
            (Change::Start, ServerStatus::Stopped) => Ok(Some(Effect::Start(done(takes)))),
            (Change::Start, ServerStatus::Paused) => Ok(Some(Effect::Start(done(Duration::ZERO)))),
            (Change::Stop, ServerStatus::Running | ServerStatus::Paused) => Ok(Some(Effect::Stop(done(takes)))),
            (Change::Pause, ServerStatus::Running) => Ok(Some(Effect::Pause(done(Duration::ZERO)))),
            _ => {
                let text = format!("server \"{id}\" is {status}, which forbids to {change:?} it; wait for another state");
                Err(CallError::refused(ErrorClass::Conflict, "IncorrectInstanceState", text))
            }
        }
    }

    /// The servers of the scope whose tag begins with the prefix; one without a tag counts as an empty tag.
    pub fn tagged<'a>(&'a self, scope: &'a Scope, prefix: &'a str) -> impl Iterator<Item = &'a Instance> {
        let from = (scope.clone(), prefix.to_owned(), String::new());
        let within = move |(of, tag, _): &&(Scope, String, String)| of == scope && tag.starts_with(prefix);
        self.tags.range(from..).take_while(within).filter_map(|(_, _, id)| self.instances.get(id))
    }

    /// The server, if it belongs to the scope.
    #[must_use]
    pub fn visible_to(&self, scope: &Scope, id: &str) -> Option<&Instance> {
        self.instances.get(id).filter(|instance| instance.launched.scope == *scope)
    }

    /// The server.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// All servers, in the order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// The servers that are not gone and have a real guest.
    #[must_use]
    pub const fn guests(&self) -> &BTreeSet<String> {
        &self.guests
    }

    /// How many servers are not gone; each holds one address.
    #[must_use]
    pub fn living(&self) -> usize {
        self.addresses.len()
    }

    /// Whether a server that is not gone holds the address.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }

    /// How many launches there ever were.
    #[must_use]
    pub const fn launches(&self) -> u64 {
        self.launches
    }

    /// The time of the latest effect.
    #[must_use]
    pub const fn latest(&self) -> Micros {
        self.latest
    }
}

fn not_found(id: &str) -> CallError {
    let text = format!("there is no server \"{id}\" in this account and region");
    CallError::refused(ErrorClass::NotFound, "InvalidInstanceID.NotFound", text)
}

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
            Self::Start(c) | Self::Stop(c) | Self::Pause(c) | Self::Terminate(c) | Self::Lose(c) => {
                &c.instance
            }
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
            (Change::Stop, ServerStatus::Running | ServerStatus::Paused) => {
                Ok(Some(Effect::Stop(done(takes))))
            }
            (Change::Pause, ServerStatus::Running) => Ok(Some(Effect::Pause(done(Duration::ZERO)))),
            _ => {
                let text = format!(
                    "server \"{id}\" is {status}, which forbids to {change:?} it; wait for another state"
                );
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Change, Effect, LaunchDecision, Launched, Scope, TokenRule, World};
    use crate::cloud::TokenClass;
    use crate::cloud::simulated::journal::replay;
    use crate::model::{ErrorClass, Micros, ServerStatus};

    const BOOT: Duration = Duration::from_millis(150);
    const RULE: TokenRule = TokenRule { class: TokenClass::K, kept: Duration::from_secs(3600) };

    fn scope() -> Scope {
        Scope { account: "1".into(), region: "sim-east-1".into() }
    }

    fn launch(number: u32, token: &str, hash: &str, at: Micros) -> Effect {
        let [_, _, x, y] = number.to_be_bytes();
        Effect::Launch(Box::new(Launched {
            instance: format!("i-{number}"),
            scope: scope(),
            token: token.into(),
            tag: Some(format!("dispatcher-job={token}")),
            request_hash: hash.into(),
            name: "n".into(),
            product: "m1.small".into(),
            image: "img".into(),
            data_center: "dc".into(),
            address: Ipv4Addr::new(127, 1, x, y),
            guest: number.is_multiple_of(2),
            at,
            ready_at: at.plus(BOOT),
            visible_at: at,
        }))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Launch { token: u8, variant: u8 },
        Change { server: u8, to: Change },
        Sync,
        Crash { written: u16 },
        Later { millis: u16 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let changes = [Change::Start, Change::Stop, Change::Pause, Change::Terminate, Change::Lose];
        let step = prop_oneof![
            4 => (0..3_u8, 0..2_u8).prop_map(|(token, variant)| Step::Launch { token, variant }),
            2 => (any::<u8>(), prop::sample::select(changes.to_vec()))
                .prop_map(|(server, to)| Step::Change { server, to }),
            2 => Just(Step::Sync),
            1 => any::<u16>().prop_map(|written| Step::Crash { written }),
            1 => (0..400_u16).prop_map(|millis| Step::Later { millis }),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// A cloud whose disk and callers are plain values.
    #[derive(Default)]
    struct Model {
        world: World,
        disk: Vec<u8>,
        pending: Vec<u8>,
        /// Calls that wait for the disk: token, variant and the server they will be told.
        waiting: Vec<(u8, u8, String)>,
        told: HashMap<u8, (u8, String)>,
        made: u32,
        now: Micros,
    }

    impl Model {
        fn journal(&mut self, effect: &Effect) {
            self.world.apply(effect).expect("decided, so legal");
            serde_json::to_writer(&mut self.pending, effect).expect("plain data");
            self.pending.push(b'\n');
        }

        fn launch(&mut self, token: u8, variant: u8) {
            let (name, hash) = (format!("t{token}"), format!("h{variant}"));
            match self.world.decide_launch(&scope(), &name, &hash, (self.now, RULE)) {
                Ok(LaunchDecision::Known(id)) => self.waiting.push((token, variant, id)),
                Ok(LaunchDecision::Make) => {
                    assert!(!self.told.contains_key(&token), "an answered launch is made again");
                    self.made += 1;
                    self.journal(&launch(self.made, &name, &hash, self.now));
                    self.waiting.push((token, variant, format!("i-{}", self.made)));
                }
                Err(error) => assert_eq!(error.class(), ErrorClass::Conflict),
            }
        }

        fn sync(&mut self) {
            self.disk.append(&mut self.pending);
            for (token, variant, id) in std::mem::take(&mut self.waiting) {
                let first = self.told.entry(token).or_insert((variant, id.clone()));
                assert_eq!(*first, (variant, id), "one token, two answers");
            }
        }

        fn crash(&mut self, written: u16) {
            let written = usize::from(written) % (self.pending.len() + 1);
            self.disk.extend_from_slice(&self.pending[..written]);
            self.pending.clear();
            self.waiting.clear();
            let (world, whole) = replay(&self.disk, Path::new("journal")).expect("only the tail is torn");
            self.disk.truncate(whole);
            self.world = world;
        }

        fn step(&mut self, step: &Step) {
            match *step {
                Step::Launch { token, variant } => self.launch(token, variant),
                Step::Change { server, to } => {
                    let id = format!("i-{}", u32::from(server) % (self.made + 1));
                    if let Ok(Some(effect)) = self.world.decide_change(&scope(), &id, to, (self.now, BOOT)) {
                        self.journal(&effect);
                    }
                }
                Step::Sync => self.sync(),
                Step::Crash { written } => self.crash(written),
                Step::Later { millis } => self.now = self.now.plus(Duration::from_millis(millis.into())),
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_never_makes_two_servers_whatever_is_retried_lost_or_torn(steps in steps()) {
            let mut model = Model::default();
            for step in &steps {
                model.step(step);
            }
            model.sync();
            let (replayed, whole) = replay(&model.disk, Path::new("journal")).expect("whole");
            prop_assert_eq!(whole, model.disk.len());
            prop_assert_eq!(&replayed, &model.world);
            let mut by_token = HashMap::new();
            for server in replayed.instances() {
                prop_assert_eq!(by_token.insert(server.launched.token.clone(), ()), None, "two for one token");
            }
            let living: Vec<_> = replayed.instances().filter(|i| !i.is_gone()).collect();
            prop_assert_eq!(replayed.living(), living.len());
            prop_assert_eq!(replayed.guests().len(), living.iter().filter(|i| i.launched.guest).count());
        }
    }

    #[test]
    fn tokens_are_only_honoured_in_class_k_and_while_they_are_kept() {
        let mut world = World::default();
        world.apply(&launch(1, "t", "h", Micros(0))).expect("first");
        let decide = |class, at| {
            let rule = TokenRule { class, ..RULE };
            world.decide_launch(&scope(), "t", "h", (Micros(at), rule)).expect("no conflict")
        };
        assert_eq!(decide(TokenClass::K, 10), LaunchDecision::Known("i-1".into()));
        assert_eq!(decide(TokenClass::K, 3_600_000_000), LaunchDecision::Make);
        for class in [TokenClass::S, TokenClass::T, TokenClass::N] {
            assert_eq!(decide(class, 10), LaunchDecision::Make, "{class}");
        }
        let other = Scope { account: "2".into(), ..scope() };
        let elsewhere = world.decide_launch(&other, "t", "h", (Micros(10), RULE));
        assert_eq!(elsewhere, Ok(LaunchDecision::Make), "tokens belong to their account and region");
    }

    #[test]
    fn a_server_boots_stops_and_ends_by_time_alone() {
        let mut world = World::default();
        world.apply(&launch(1, "t", "h", Micros(0))).expect("first");
        let status = |world: &World, at| world.instance("i-1").expect("made").status(Micros(at));
        assert_eq!(status(&world, 149_999), ServerStatus::Pending);
        assert_eq!(status(&world, 150_000), ServerStatus::Running);
        let decide = |world: &World, to, at| world.decide_change(&scope(), "i-1", to, (Micros(at), BOOT));
        assert_eq!(decide(&world, Change::Stop, 10).expect_err("boots").class(), ErrorClass::Conflict);
        let stop = decide(&world, Change::Stop, 200_000).expect("runs").expect("an effect");
        world.apply(&stop).expect("legal");
        assert_eq!(status(&world, 300_000), ServerStatus::Stopping);
        assert_eq!(status(&world, 350_000), ServerStatus::Stopped);
        assert_eq!(decide(&world, Change::Stop, 350_000), Ok(None), "a repeated stop is harmless");
        let lose = decide(&world, Change::Lose, 400_000).expect("there").expect("an effect");
        world.apply(&lose).expect("legal");
        assert_eq!(status(&world, 400_000), ServerStatus::Terminated);
        assert_eq!(decide(&world, Change::Terminate, 400_001), Ok(None));
        assert!(world.apply(&lose).is_err(), "what is gone stays gone");
        let server = world.instance("i-1").expect("kept");
        let hour = Duration::from_secs(3600);
        assert!(server.is_visible(Micros(400_001), hour) && !server.is_visible(Micros(3_600_400_001), hour));
    }
}

//! Whether this process is alive, and whether it should get work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Micros;

/// How a part of the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Works.
    Ok,
    /// Works worse than it should; still gets requests.
    Degraded,
    /// Does not work.
    Red,
}

/// One part with its state, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartState {
    /// Name of the part, such as `store`.
    pub part: &'static str,
    /// Its state.
    pub state: State,
    /// Why, in a person's words; empty where there is nothing to say.
    pub reason: String,
    /// When it came into this state.
    pub since: Micros,
}

/// The one place where rooms report how they are and where `/health/live` and `/health/ready` look.
///
/// Cloning is cheap; all clones are the same place. A part nobody reported does not appear.
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
}

#[derive(Debug)]
struct Part {
    now: PartState,
    vital: bool,
}

impl Health {
    /// Nothing reported yet: alive and ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks a part as one that this process cannot live without: red there means a restart is the only remedy.
    pub fn vital(&self, part: &'static str) {
        self.lock().entry(part).or_insert_with(|| Part::new(part)).vital = true;
    }

    /// Reports a part. `since` changes only when the state does, so that a repeated report does not look new.
    pub fn set(&self, part: &'static str, state: State, reason: impl Into<String>) {
        let reason = reason.into();
        let was = self.put(part, state, &reason);
        match (was == state, state) {
            (true, _) => {}
            (false, State::Ok) => log::info!(part; "{part} is well again"),
            (false, State::Degraded) => log::warn!(part; "{part} is degraded: {reason}"),
            (false, State::Red) => log::error!(part; "{part} is red: {reason}"),
        }
    }

    /// Says that this process ends in order: from now on requests belong elsewhere.
    pub fn retire(&self, reason: &str) {
        if self.put("process", State::Red, reason) != State::Red {
            log::info!("not ready any more: {reason}");
        }
    }

    /// Writes a part; what it was before.
    fn put(&self, part: &'static str, state: State, reason: &str) -> State {
        let mut parts = self.lock();
        let entry = parts.entry(part).or_insert_with(|| Part::new(part));
        let was = entry.now.state;
        if was != state {
            entry.now.since = Micros::wall();
        }
        entry.now.state = state;
        reason.clone_into(&mut entry.now.reason);
        was
    }

    /// False when a part marked [`vital`](Self::vital) is red: the process should be restarted.
    #[must_use]
    pub fn live(&self) -> (bool, Vec<PartState>) {
        self.judge(|part| !(part.vital && part.now.state == State::Red))
    }

    /// False when any part is red: send requests elsewhere. Degraded parts do not count.
    #[must_use]
    pub fn ready(&self) -> (bool, Vec<PartState>) {
        self.judge(|part| part.now.state != State::Red)
    }

    fn judge(&self, well: impl Fn(&Part) -> bool) -> (bool, Vec<PartState>) {
        let parts = self.lock();
        (parts.values().all(well), parts.values().map(|part| part.now.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn new(part: &'static str) -> Self {
        let now = PartState { part, state: State::Ok, reason: String::new(), since: Micros::wall() };
        Self { now, vital: false }
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, State};

    #[test]
    fn only_red_vital_parts_end_life_and_only_red_parts_end_readiness() {
        let health = Health::new();
        assert!(health.live().0 && health.ready().0);
        health.vital("arbiters");
        health.set("store", State::Degraded, "slow");
        assert!(health.live().0 && health.ready().0);
        health.set("store", State::Red, "gone");
        assert_eq!((health.live().0, health.ready().0), (true, false));
        health.set("store", State::Ok, "");
        health.clone().set("arbiters", State::Red, "stuck");
        assert_eq!((health.live().0, health.ready().0), (false, false));
    }

    #[test]
    fn parts_say_why_and_since_when() {
        let health = Health::new();
        health.set("store", State::Red, "first");
        let since = health.ready().1[0].since;
        health.set("store", State::Red, "second");
        let parts = health.ready().1;
        assert_eq!((parts.len(), parts[0].reason.as_str(), parts[0].since), (1, "second", since));
        let json = serde_json::to_value(&parts).expect("plain data");
        assert_eq!((&json[0]["part"], &json[0]["state"]), (&"store".into(), &"red".into()));
    }
}

//! What the load consists of, and what the cloud does wrong by itself: pure.

use super::judge::Class;

/// Shares of what clients ask for, in percent; what is left over are no-ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) launches: u64,
    pub(super) commands: u64,
    pub(super) terminates: u64,
    /// Of launches and no-ops: how many are cancelled right after.
    pub(super) cancels: u64,
    /// Of no-ops: how many are sent without a key.
    pub(super) keyless: u64,
}

/// One way of running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    /// Class of the simulated cloud.
    pub(super) class: &'static str,
    /// Q of the classes that must wait, in milliseconds.
    pub(super) quiet_ms: u64,
    /// How long each call takes.
    pub(super) latency_ms: u64,
    pub(super) mix: Mix,
    /// Places of death that are wanted; all where none is named.
    pub(super) places: &'static [&'static str],
    /// Nothing but deaths at places.
    pub(super) only_places: bool,
    /// Where its deliberate fault must be found; nothing where there is none.
    pub(super) expected: &'static [Class],
}

impl Scenario {
    /// The cloud's settings: what stands in its section.
    pub(super) fn cloud_settings(&self, _seed: u64) -> String {
        let mut text = format!("class = \"{}\"\nlatency_ms = {}\n", self.class, self.latency_ms);
        if self.class != "K" {
            text += &format!("quiet_ms = {}\n", self.quiet_ms);
        }
        text
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            class: "K",
            quiet_ms: 4000,
            latency_ms: 20,
            mix: Mix { launches: 30, commands: 25, terminates: 20, cancels: 15, keyless: 30 },
            places: &[],
            only_places: false,
            expected: &[],
        }
    }
}

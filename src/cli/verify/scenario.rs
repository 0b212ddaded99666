//! What the load consists of, what the cloud does wrong by itself, and what a deliberate fault needs to be seen: pure.

use super::judge::Class;

/// Shares of what clients ask for, in percent; what is left over are no-ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) launches: u64,
    pub(super) commands: u64,
    pub(super) terminates: u64,
    /// Stops and starts of servers.
    pub(super) moves: u64,
    /// Of launches and no-ops: how many are cancelled right after.
    pub(super) cancels: u64,
    /// The same of commands.
    pub(super) command_cancels: u64,
    /// How long after at most, in milliseconds.
    pub(super) cancel_ms: u64,
    /// Of no-ops: how many are sent without a key.
    pub(super) keyless: u64,
}

/// What the cloud does wrong with calls that change something, in percent of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Odds {
    /// Done, and the answer lost.
    pub(super) lose: u8,
    /// Nothing done, and the caller does not know.
    pub(super) fail: u8,
    /// The answer lost, the effect later.
    pub(super) late: u8,
    pub(super) late_ms: u64,
    /// Launches that looks do not show for a while.
    pub(super) hide: u8,
    pub(super) hide_ms: u64,
    /// Stops and starts that are accepted and never done.
    pub(super) forget: u8,
}

/// Strikes of one sort and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// Deaths at the places of the scenario.
    Places,
    /// Deaths at any moment.
    Kills,
    /// Nodes that stand still at this place, for so many milliseconds.
    StandAt(&'static str, u64),
    /// Nobody reaches the database.
    CutDatabase,
    /// Nothing but the load and the cloud.
    Nothing,
}

/// One way of running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    /// Class of the simulated cloud.
    pub(super) class: &'static str,
    /// Q, in milliseconds.
    pub(super) quiet_ms: u64,
    /// How long each call takes.
    pub(super) latency_ms: u64,
    pub(super) mix: Mix,
    pub(super) odds: Odds,
    /// Every so many-th commit is stored, and its answer lost; 0: none.
    pub(super) lose_every: u32,
    /// Places of death that are wanted; all where none is named.
    pub(super) places: &'static [&'static str],
    pub(super) only: Option<Only>,
    /// Whether it needs several nodes.
    pub(super) served: bool,
    /// How long open jobs may take to end, on top of Q, in seconds.
    pub(super) patience_s: u64,
    /// Where its deliberate fault must be found; nothing where there is none.
    pub(super) expected: &'static [Class],
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            class: "K",
            quiet_ms: 4000,
            latency_ms: 20,
            mix: Mix {
                launches: 30,
                commands: 20,
                terminates: 20,
                moves: 10,
                cancels: 35,
                command_cancels: 20,
                cancel_ms: 200,
                keyless: 30,
            },
            odds: Odds { lose: 4, fail: 4, late: 0, late_ms: 0, hide: 10, hide_ms: 500, forget: 10 },
            lose_every: 0,
            places: &[],
            only: None,
            served: false,
            // A job whose process died five times in a row is set aside for a minute.
            patience_s: 180,
            expected: &[],
        }
    }
}

/// Few no-ops, so that what is looked for happens often.
const LAUNCHES: Mix = Mix {
    launches: 70,
    commands: 10,
    terminates: 20,
    moves: 0,
    cancels: 0,
    command_cancels: 0,
    cancel_ms: 200,
    keyless: 30,
};

impl Scenario {
    /// What a deliberate fault needs to be seen soon; none for a name that is not known.
    pub(super) fn of_fault(name: &str) -> Option<Self> {
        Self::between_lives(name).or_else(|| Self::of_load(name))
    }

    /// Few minutes are lost on jobs that never end.
    fn quick() -> Self {
        Self { patience_s: 15, ..Self::default() }
    }

    /// Faults that deaths bring to light, or several nodes.
    fn between_lives(name: &str) -> Option<Self> {
        let at = |places, expected| Self { places, expected, only: Some(Only::Places), ..Self::quick() };
        let quiet = Odds::default();
        Some(match name {
            // A look must miss what was made, or the second owner adopts it and needs no token.
            "epoch-in-token" => Self {
                odds: Odds { hide: 100, hide_ms: 6000, ..quiet },
                quiet_ms: 20_000,
                mix: LAUNCHES,
                ..at(&["call.after"], &[Class::Duplicated])
            },
            "no-look" => {
                Self { class: "S", odds: quiet, mix: LAUNCHES, ..at(&["call.after"], &[Class::Duplicated]) }
            }
            "sweep-by-confirm" => at(&["watch.before"], &[Class::Lost]),
            "verdict-by-epoch" => {
                Self { mix: LAUNCHES, ..at(&["call.after", "record.before"], &[Class::Lost]) }
            }
            "answer-before-commit" => {
                Self { expected: &[Class::Lost], only: Some(Only::Kills), ..Self::quick() }
            }
            // Whoever takes over is still in its own call when the old owner wakes and writes.
            "no-fence" => Self {
                latency_ms: 5000,
                quiet_ms: 20_000,
                odds: quiet,
                served: true,
                mix: Mix { terminates: 5, commands: 0, ..LAUNCHES },
                only: Some(Only::StandAt("intent.before", 8500)),
                expected: &[Class::Invariant],
                ..Self::quick()
            },
            "beat-by-wall-clock" => Self {
                served: true,
                only: Some(Only::CutDatabase),
                expected: &[Class::FalseDeath],
                ..Self::quick()
            },
            "read-only-look" => Self {
                served: true,
                mix: Mix {
                    commands: 60,
                    command_cancels: 80,
                    cancel_ms: 3000,
                    launches: 30,
                    terminates: 0,
                    moves: 0,
                    ..LAUNCHES
                },
                odds: quiet,
                only: Some(Only::StandAt("command.marked", 16_000)),
                expected: &[Class::Invariant],
                ..Self::quick()
            },
            _ => return None,
        })
    }

    /// Faults that load, commits without an answer and a bad cloud bring to light.
    fn of_load(name: &str) -> Option<Self> {
        let usual = Self { only: Some(Only::Nothing), ..Self::quick() };
        let (mix, quiet) = (usual.mix, Odds::default());
        Some(match name {
            "look-at-cancel" => Self {
                class: "S",
                odds: Odds { late: 60, late_ms: 1500, ..quiet },
                mix: Mix { cancels: 90, ..LAUNCHES },
                expected: &[Class::Unexpected, Class::FalseFailure],
                ..usual
            },
            "guard-second" => Self {
                mix: Mix {
                    commands: 55,
                    terminates: 15,
                    command_cancels: 100,
                    cancel_ms: 15,
                    moves: 0,
                    ..mix
                },
                expected: &[Class::FalseFailure, Class::Invariant],
                ..usual
            },
            "no-uid" => Self {
                lose_every: 7,
                mix: Mix { keyless: 100, ..mix },
                expected: &[Class::Duplicated],
                ..usual
            },
            "cas-zero-lost" => Self { lose_every: 7, expected: &[Class::Lost], ..usual },
            "any-try" => Self {
                odds: Odds { forget: 60, ..quiet },
                quiet_ms: 1000,
                mix: Mix { launches: 30, commands: 5, terminates: 2, moves: 60, ..mix },
                // A command on a server that was stopped is called off after a minute.
                patience_s: 90,
                expected: &[Class::FalseFailure],
                ..usual
            },
            "undo-before-state" => Self {
                mix: Mix { cancels: 90, cancel_ms: 400, ..LAUNCHES },
                odds: quiet,
                expected: &[Class::Unexpected],
                ..usual
            },
            _ => return None,
        })
    }

    /// The cloud's settings: what stands in its section.
    pub(super) fn cloud_settings(&self, seed: u64) -> String {
        let odds = self.odds;
        let numbers = [
            ("latency_ms", self.latency_ms),
            ("quiet_ms", self.quiet_ms),
            ("fault_seed", seed >> 1),
            ("lose_percent", odds.lose.into()),
            ("fail_percent", odds.fail.into()),
            ("late_percent", odds.late.into()),
            ("late_ms", odds.late_ms),
            ("hide_percent", odds.hide.into()),
            ("hide_ms", odds.hide_ms),
            ("forget_percent", odds.forget.into()),
        ];
        // Long enough for cancels to find a launch half done.
        let boot = if self.only.is_none() { "boot_ms = 400\n" } else { "" };
        let lines: String = numbers.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        format!("class = \"{}\"\n{boot}{lines}", self.class)
    }
}

#[cfg(test)]
mod tests {
    use super::{Only, Scenario};
    use crate::config::Config;
    use crate::ops::failpoint::{FAULTS, PLACES};

    #[test]
    fn every_deliberate_fault_has_a_scenario_that_expects_it_somewhere() {
        for fault in FAULTS {
            let scenario =
                Scenario::of_fault(fault.name).unwrap_or_else(|| panic!("{} has none", fault.name));
            assert!(!scenario.expected.is_empty(), "{}", fault.name);
            assert!(scenario.places.iter().all(|place| PLACES.contains(place)), "{}", fault.name);
            assert_eq!(scenario.only == Some(Only::Places), !scenario.places.is_empty(), "{}", fault.name);
            let mix = scenario.mix;
            assert!(mix.launches + mix.commands + mix.terminates + mix.moves <= 100, "{}", fault.name);
        }
        assert_eq!(Scenario::of_fault("none"), None);
    }

    #[test]
    fn the_cloud_understands_its_settings() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = format!("[simulated]\n{}", Scenario::default().cloud_settings(u64::MAX));
        std::fs::write(file.path(), text).expect("room");
        let config = Config::load(file.path()).expect("settings");
        assert_eq!((config.simulated.quiet_ms, config.simulated.hide_percent), (Some(4000), 10));
    }
}

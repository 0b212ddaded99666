//! What works while a part is down: from the parts of health to words for people. Pure.
//!
//! The words are those of the table "When a part is down" in `docs/ARCHITECTURE.md`. A part that is well gives no
//! mode; several that are down take away what each of them takes.

use super::{PartState, State};
use crate::model::Micros;

/// Something that users can do, or that goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Health, metrics, actors.
    Health,
    /// Pages and lists.
    Reads,
    /// New jobs.
    Submits,
    /// Steps that need neither cloud nor guest.
    Steps,
    /// Calls to clouds.
    Clouds,
    /// Commands on guests.
    Guests,
    /// What other processes do with jobs at once.
    Watches,
    /// Points of guests.
    Measurements,
}

impl Ability {
    /// All of them, in the order they are told.
    pub const ALL: [Self; 8] = [
        Self::Health,
        Self::Reads,
        Self::Submits,
        Self::Steps,
        Self::Clouds,
        Self::Guests,
        Self::Watches,
        Self::Measurements,
    ];

    /// In a person's words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health and metrics",
            Self::Reads => "reads",
            Self::Submits => "submits",
            Self::Steps => "steps that need neither cloud nor guest",
            Self::Clouds => "calls to clouds",
            Self::Guests => "commands on guests",
            Self::Watches => "watches and work at once",
            Self::Measurements => "measurements of guests",
        }
    }
}

/// What one part takes away while it is down.
#[derive(Clone, Copy, Debug)]
struct Loss {
    part: &'static str,
    /// The mode in two or three words.
    name: &'static str,
    /// What does not work as usual.
    takes: &'static [Ability],
    /// What waits, is refused or is old.
    waits: &'static [&'static str],
    /// What the user sees.
    sees: &'static str,
}

/// What is gone with the process.
const ALL_BUT_HEALTH: &[Ability] = &[
    Ability::Reads,
    Ability::Submits,
    Ability::Steps,
    Ability::Clouds,
    Ability::Guests,
    Ability::Watches,
    Ability::Measurements,
];

/// The worst first: it gives the mode its name when several parts are down.
const LOSSES: &[Loss] = &[
    Loss {
        part: "process",
        name: "stopping",
        takes: &[Ability::Submits, Ability::Steps, Ability::Clouds, Ability::Guests],
        waits: &["submits: ask another node", "jobs at work: the next life takes them up"],
        sees: "this process takes no more work and ends; another node, or its next life, goes on",
    },
    Loss {
        part: "actors",
        name: "ending for a new start",
        takes: ALL_BUT_HEALTH,
        waits: &["everything: the next life takes it up from the rows"],
        sees: "this process ends itself; the next life takes its jobs over from their rows",
    },
    Loss {
        part: "arbiters",
        name: "ending for a new start",
        takes: ALL_BUT_HEALTH,
        waits: &["everything: the next life takes it up from the rows"],
        sees: "this process ends itself; the next life takes its jobs over from their rows",
    },
    Loss {
        part: "provisioning",
        name: "provisioning database away",
        takes: &[
            Ability::Reads,
            Ability::Submits,
            Ability::Steps,
            Ability::Clouds,
            Ability::Guests,
            Ability::Watches,
        ],
        waits: &[
            "submits: refused at once with 503 and Retry-After",
            "reads: what was read before, marked stale, else 503",
            "jobs: stand where they are, nothing accepted is lost",
        ],
        sees: "submits are refused at once with a time to come back; what was read before is shown, marked stale",
    },
    Loss {
        part: "provisioning writes",
        name: "provisioning database takes no writes",
        takes: &[Ability::Submits, Ability::Steps, Ability::Clouds, Ability::Guests, Ability::Watches],
        waits: &[
            "submits: refused at once with 503 and Retry-After",
            "jobs: stand where they are, nothing accepted is lost",
        ],
        sees: "submits are refused at once with a time to come back; everything can be read",
    },
    Loss {
        part: "clock",
        name: "database clock jumped",
        takes: &[],
        waits: &["deadlines: not judged until the clock is back or a restart confirms it"],
        sees: "no deadline passes by the new time; set the clock back, or restart to confirm it",
    },
    Loss {
        part: "queue",
        name: "queue away",
        takes: &[Ability::Watches],
        waits: &[
            "watches and work: delayed until the next sweep",
            "messages: in the outbox, published after",
        ],
        sees: "watches and work are delayed; the age of the outbox shows for how long; everything is published after",
    },
    Loss {
        part: "key manager",
        name: "key manager away",
        takes: &[Ability::Clouds],
        waits: &["jobs that need a credential: they wait, and why says so"],
        sees: "affected jobs wait and say that they wait for the key manager",
    },
    Loss {
        part: "credentials",
        name: "credentials database away",
        takes: &[Ability::Clouds],
        waits: &["jobs that need a credential: they wait, and why says so"],
        sees: "affected jobs wait and say that they wait for the key manager",
    },
    Loss {
        part: "cloud",
        name: "cloud away",
        takes: &[Ability::Clouds],
        waits: &["jobs of the accounts named: tried again by the class of their error, and why says so"],
        sees: "jobs of these accounts are tried again with growing pauses and say why; other accounts go on",
    },
    Loss {
        part: "nodes",
        name: "node away",
        takes: &[],
        waits: &["jobs of that node: taken over within 10 s"],
        sees: "the other nodes go on with its jobs; a client behind a list of nodes sees no failed submit",
    },
    Loss {
        part: "guests",
        name: "guests away",
        takes: &[Ability::Guests],
        waits: &["commands for the guests named: in their line until they expire"],
        sees: "commands for these guests wait in line until they expire; other guests go on",
    },
    Loss {
        part: "analytics",
        name: "analytics database away",
        takes: &[Ability::Measurements],
        waits: &["points of guests: kept in memory up to a bound, then the oldest are lost and counted"],
        sees: "the gauges of spilled and lost points; nothing else",
    },
    Loss {
        part: "janitor",
        name: "leftovers need a person",
        takes: &[],
        waits: &["what was found at a cloud, or could not be looked for: until a person decides"],
        sees: "the list of \"dispatcher obligations --state needs-you\"; jobs go on",
    },
    Loss {
        part: "threads",
        name: "slow thread",
        takes: &[],
        waits: &["what the thread named does: until it moves, or the process ends"],
        sees: "answers that need the thread named come late",
    },
];

/// A part that nobody has entered in the table.
const OTHER: Loss = Loss {
    part: "",
    name: "part not well",
    takes: &[],
    waits: &["jobs that need it: they wait and say so"],
    sees: "jobs that need it wait and say so; the others go on",
};

/// A part that is down, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// The part.
    pub part: &'static str,
    /// The mode in two or three words, such as `queue away`.
    pub name: &'static str,
    /// How bad the part says it is.
    pub state: State,
    /// Since when.
    pub since: Micros,
    /// Why, in the part's own words.
    pub reason: String,
    /// What the part takes away.
    takes: &'static [Ability],
    /// What waits, is refused or is old.
    pub waits: &'static [&'static str],
    /// What the user sees.
    pub sees: &'static str,
}

impl Mode {
    /// What still works in this mode as ever.
    #[must_use]
    pub fn works(&self) -> Vec<&'static str> {
        left(std::slice::from_ref(self))
    }
}

/// The modes these parts are in, the worst first; none when all are well.
#[must_use]
pub fn modes(parts: &[PartState]) -> Vec<Mode> {
    let mut found: Vec<(usize, Mode)> =
        parts.iter().filter(|part| part.state != State::Ok).map(mode).collect();
    found.sort_by_key(|(rank, mode)| (*rank, mode.since));
    found.into_iter().map(|(_, mode)| mode).collect()
}

fn mode(part: &PartState) -> (usize, Mode) {
    let rank = LOSSES.iter().position(|loss| loss.part == part.part).unwrap_or(LOSSES.len());
    let loss = LOSSES.get(rank).unwrap_or(&OTHER);
    let mode = Mode {
        part: part.part,
        name: loss.name,
        state: part.state,
        since: part.since,
        reason: part.reason.clone(),
        takes: loss.takes,
        waits: loss.waits,
        sees: loss.sees,
    };
    (rank, mode)
}

/// The mode in one line: `all parts up`, `queue away`, or the worst and how many more.
#[must_use]
pub fn name(modes: &[Mode]) -> String {
    match modes {
        [] => "all parts up".to_owned(),
        [one] => one.name.to_owned(),
        [worst, more @ ..] => format!("{} and {} more", worst.name, more.len()),
    }
}

/// What works as ever in all of these modes at once.
#[must_use]
pub fn left(modes: &[Mode]) -> Vec<&'static str> {
    let taken = |ability: &Ability| modes.iter().any(|mode| mode.takes.contains(ability));
    Ability::ALL.iter().filter(|ability| !taken(ability)).map(|ability| ability.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Ability, LOSSES, left, modes, name};
    use crate::model::Micros;
    use crate::ops::{PartState, State};

    fn part(part: &'static str, state: State, since: i64) -> PartState {
        PartState { part, state, reason: format!("{part} says so"), since: Micros(since) }
    }

    #[test]
    fn parts_that_are_well_give_no_mode_and_everything_works() {
        let found = modes(&[part("queue", State::Ok, 1), part("provisioning", State::Ok, 2)]);
        assert!(found.is_empty());
        assert_eq!((name(&found).as_str(), left(&found).len()), ("all parts up", Ability::ALL.len()));
    }

    #[test]
    fn one_part_away_takes_what_its_row_says_and_nothing_else() {
        let found = modes(&[part("queue", State::Degraded, 7)]);
        assert_eq!((name(&found).as_str(), found[0].since), ("queue away", Micros(7)));
        assert!(left(&found).contains(&"submits") && left(&found).contains(&"reads"));
        assert!(!left(&found).contains(&"watches and work at once"));
        let found = modes(&[part("analytics", State::Degraded, 7)]);
        assert_eq!(left(&found).len(), Ability::ALL.len() - 1, "nothing else notices");
        let found = modes(&[part("provisioning", State::Red, 7)]);
        assert_eq!(left(&found), ["health and metrics", "measurements of guests"]);
        assert!(found[0].waits[0].contains("503") && found[0].sees.contains("stale"));
    }

    #[test]
    fn several_parts_away_take_together_and_the_worst_gives_the_name() {
        let parts = [
            part("analytics", State::Degraded, 1),
            part("queue", State::Degraded, 3),
            part("key manager", State::Degraded, 2),
        ];
        let found = modes(&parts);
        assert_eq!(name(&found), "queue away and 2 more");
        assert_eq!(
            found.iter().map(|mode| mode.part).collect::<Vec<_>>(),
            ["queue", "key manager", "analytics"]
        );
        let works = left(&found);
        assert!(works.contains(&"submits") && works.contains(&"commands on guests"));
        for gone in ["calls to clouds", "watches and work at once", "measurements of guests"] {
            assert!(!works.contains(&gone), "{gone}");
        }
    }

    #[test]
    fn a_part_nobody_knows_is_told_last_and_takes_nothing_by_name() {
        let found = modes(&[part("something new", State::Red, 1), part("threads", State::Degraded, 2)]);
        assert_eq!((found[0].name, found[1].part), ("slow thread", "something new"));
        assert_eq!(found[1].reason, "something new says so");
    }

    #[test]
    fn health_answers_in_every_mode_and_each_row_says_what_waits_and_what_is_seen() {
        for loss in LOSSES {
            assert!(!loss.takes.contains(&Ability::Health), "{}", loss.part);
            assert!(
                !loss.waits.is_empty() && !loss.sees.is_empty() && !loss.name.is_empty(),
                "{}",
                loss.part
            );
        }
        let names: std::collections::BTreeSet<&str> = LOSSES.iter().map(|loss| loss.part).collect();
        assert_eq!(names.len(), LOSSES.len(), "one row a part");
    }
}

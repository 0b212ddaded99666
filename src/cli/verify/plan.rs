//! What is done to the house, and how much of it: pure. The same seed and the same progress give the same strikes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rng::Rng;
use super::scenario::{Only, Scenario};
use crate::ops::failpoint::PLACES;

/// A place of the key manager, which is no part of a job's own path.
pub(super) const ANSWER: &str = "lease.answer";
/// What a job passes only when something went wrong before: processes are armed at these as long as they are missing.
const RARE: [&str; 6] = ["takeover", "resend", "cancel", "try", "undo-state", "undo-call"];
/// Deaths at each place that a long run asks for.
const LONG: usize = 20;
/// Deaths by chance among those at places, in percent.
const BY_CHANCE: u64 = 20;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Every role in one.
    Dev,
    /// A node.
    Serve,
    /// Looks at the cloud.
    Monitor,
    /// Looks at what needs no cloud.
    Worker,
    /// Key manager.
    Km,
    /// The simulated cloud.
    Cloud,
}

impl Kind {
    /// The word on tables.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Serve => "serve",
            Self::Monitor => "monitor",
            Self::Worker => "worker",
            Self::Km => "km",
            Self::Cloud => "simulated-cloud",
        }
    }

    /// Whether it passes a place.
    fn passes(self, place: &str) -> bool {
        let what = place.split('.').next().unwrap_or_default();
        match (self, what) {
            // Without a broker there is no outbox.
            (Self::Dev, what) => what != "outbox",
            (Self::Serve, "outbox") | (Self::Monitor | Self::Worker, "verdict" | "outbox") => true,
            (Self::Serve, what) => what != "verdict",
            _ => false,
        }
    }
}

/// What a house consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `dispatcher dev` on a folder.
    Embedded,
    /// Roles on the operator's servers.
    Served {
        /// Processes of `serve`.
        nodes: usize,
        /// Processes of `monitor`.
        monitors: usize,
        /// What can be cut.
        links: Links,
    },
}

/// Which links to servers of the operator run through this command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Those to the broker.
    pub(super) broker: bool,
    /// Those to the database.
    pub(super) database: bool,
    /// Whether the broker itself can be stopped.
    pub(super) stop_broker: bool,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    /// A process of this kind is started anew and dies at whichever place comes first.
    Arm(Kind),
    /// The key manager dies where it answers.
    Answer(u32),
    /// A process of this kind dies after this time.
    Kill(Kind, Duration),
    /// An agent of a guest dies.
    KillAgent,
    /// A node stands still, and goes on.
    StandStill(Duration),
    /// A node stands still right at a place of its work, at this passage of it, and goes on.
    StandAt(&'static str, u32, Duration),
    /// A process loses its links to the broker, or to the database.
    Cut(Server, Duration),
    /// Its links hold every byte back.
    Hold(Server, Duration),
    /// Answers of commits are lost, after they were carried out or before.
    LoseCommits {
        /// How many.
        count: u32,
        /// Whether the server carried them out.
        done: bool,
    },
    /// The broker is stopped and started by the operator's own commands.
    StopBroker(Duration),
    /// Nothing, for so long: load and cloud do enough.
    Nothing(Duration),
}

/// A server of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Server {
    /// RabbitMQ.
    Broker,
    /// MariaDB or MySQL.
    Database,
}

impl Server {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Database => "database",
        }
    }
}

impl Strike {
    /// Its line on the table.
    pub(super) fn name(self) -> String {
        match self {
            Self::Arm(kind) => format!("armed: {}", kind.as_str()),
            Self::Answer(_) => format!("killed at {ANSWER}"),
            Self::Kill(kind, _) => format!("killed: {}", kind.as_str()),
            Self::KillAgent => "killed: agent of a guest".to_owned(),
            Self::StandStill(_) => "stood still: a node".to_owned(),
            Self::StandAt(place, ..) => format!("stood still at {place}"),
            Self::Cut(server, _) => format!("link cut: {}", server.as_str()),
            Self::Hold(server, _) => format!("link held up: {}", server.as_str()),
            Self::LoseCommits { done: true, .. } => "commit done, answer lost".to_owned(),
            Self::LoseCommits { done: false, .. } => "commit lost on its way".to_owned(),
            Self::StopBroker(_) => "broker stopped".to_owned(),
            Self::Nothing(_) => "time passed".to_owned(),
        }
    }
}

/// How much is done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) kills: usize,
    pub(super) each_place: usize,
    pub(super) jobs: usize,
    pub(super) clients: usize,
    pub(super) form: Form,
    pub(super) scenario: Scenario,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Deaths at places, as the dying processes wrote them down.
    pub(super) places: BTreeMap<&'static str, usize>,
    /// Strikes by name.
    pub(super) strikes: BTreeMap<String, usize>,
    /// All processes killed.
    pub(super) kills: usize,
    /// Strikes that kill nothing, where nothing is to be killed.
    pub(super) idle: usize,
    /// Jobs accepted so far.
    pub(super) jobs: usize,
    /// Whether nobody died at a place when it was last tried: only rare ones are left then.
    pub(super) missed: bool,
}

/// Whether a place is passed only when something went wrong before.
fn is_rare(place: &str) -> bool {
    place.split('.').next().is_some_and(|what| RARE.contains(&what))
}

/// Deaths at each place that so many kills ask for.
pub(super) fn each_place(kills: usize) -> usize {
    (kills / PLACES.len()).clamp(1, LONG)
}

impl Plan {
    /// The kinds of processes that can be killed.
    fn kinds(&self) -> &'static [Kind] {
        match self.form {
            Form::Embedded => &[Kind::Dev, Kind::Dev, Kind::Dev, Kind::Cloud],
            Form::Served { .. } => &[
                Kind::Serve,
                Kind::Serve,
                Kind::Serve,
                Kind::Monitor,
                Kind::Monitor,
                Kind::Worker,
                Kind::Km,
                Kind::Cloud,
            ],
        }
    }

    /// The places that count, with their deaths so far: those that some process of this house passes.
    fn places(&self, progress: &Progress) -> Vec<(&'static str, usize)> {
        let all = match (self.scenario.only, self.scenario.places) {
            (None, []) => PLACES,
            (_, own) => own,
        };
        let passed = all.iter().filter(|place| self.kinds().iter().any(|kind| kind.passes(place)));
        passed.map(|place| (*place, progress.places.get(place).copied().unwrap_or(0))).collect()
    }

    /// Places that were not places of death often enough.
    pub(super) fn missing(&self, progress: &Progress) -> Vec<(&'static str, usize)> {
        self.places(progress).into_iter().filter(|(_, deaths)| *deaths < self.each_place).collect()
    }

    /// Strikes that were never done.
    pub(super) fn never(&self, progress: &Progress) -> Vec<String> {
        let all = self.others(&mut Rng::new(0)).into_iter().map(Strike::name);
        all.filter(|name| !progress.strikes.contains_key(name)).collect()
    }

    /// Whether enough was done.
    pub(super) fn is_done(&self, progress: &Progress) -> bool {
        progress.kills + progress.idle >= self.kills
            && progress.jobs >= self.jobs
            && self.missing(progress).is_empty()
            && self.never(progress).is_empty()
    }

    /// The next strike.
    pub(super) fn next(&self, progress: &Progress, rng: &mut Rng) -> Strike {
        if let Some(only) = self.scenario.only {
            return self.of(only, rng);
        }
        let dice = rng.below(100);
        let common = self.missing(progress).into_iter().find(|(place, _)| !is_rare(place));
        if dice >= BY_CHANCE
            && !progress.missed
            && let Some((place, _)) = common
        {
            return self.arm(place, rng);
        }
        if progress.kills >= self.kills && self.never(progress).is_empty() && dice.is_multiple_of(2) {
            // Only rare places are left: processes wait at them, and what comes there is up to the load.
            return Strike::Nothing(rng.time(500, 1500));
        }
        // What was done least comes first, so that a short run sees everything.
        let mut others = self.others(rng);
        others.sort_by_key(|strike| progress.strikes.get(&strike.name()).copied().unwrap_or(0));
        match others.first() {
            Some(strike) if !dice.is_multiple_of(4) => *strike,
            _ => match (common, rng.below(2)) {
                (Some((place, _)), 0) => self.arm(place, rng),
                _ => self.kill(rng),
            },
        }
    }

    /// A strike of one sort.
    fn of(&self, only: Only, rng: &mut Rng) -> Strike {
        match only {
            Only::Places => match rng.choose(self.scenario.places) {
                Some(place) => self.arm(place, rng),
                None => self.kill(rng),
            },
            Only::Kills => match self.form {
                Form::Embedded => Strike::Kill(Kind::Dev, rng.time(50, 600)),
                Form::Served { .. } => Strike::Kill(Kind::Serve, rng.time(50, 600)),
            },
            Only::StandAt(place, span) => {
                let hits = 1 + u32::try_from(rng.below(3)).unwrap_or(0);
                Strike::StandAt(place, hits, Duration::from_millis(span))
            }
            Only::CutDatabase => Strike::Cut(Server::Database, rng.time(8000, 9000)),
            Only::Nothing => Strike::Nothing(Duration::from_secs(1)),
        }
    }

    fn kill(&self, rng: &mut Rng) -> Strike {
        let kind = rng.choose(self.kinds()).copied().unwrap_or(Kind::Dev);
        Strike::Kill(kind, rng.time(50, 1000))
    }

    /// Arms a process that passes the place.
    fn arm(&self, place: &str, rng: &mut Rng) -> Strike {
        let passing: Vec<Kind> = self.kinds().iter().copied().filter(|kind| kind.passes(place)).collect();
        rng.choose(&passing).map_or_else(|| self.kill(rng), |kind| Strike::Arm(*kind))
    }

    /// The places at which a process of a kind is to die, each with the passage of it: all that are missing, or the rare
    /// ones among them.
    pub(super) fn order(
        &self,
        (kind, only_rare): (Kind, bool),
        progress: &Progress,
        rng: &mut Rng,
    ) -> Vec<(String, u32)> {
        let own = self.scenario.only == Some(Only::Places) && !only_rare;
        let wanted = if own { self.places(progress) } else { self.missing(progress) };
        let wanted =
            wanted.into_iter().filter(|(place, _)| kind.passes(place) && (!only_rare || is_rare(place)));
        wanted.map(|(place, _)| (place.to_owned(), self.hits(place, rng))).collect()
    }

    /// At which passage: places that every job passes are passed often.
    fn hits(&self, place: &str, rng: &mut Rng) -> u32 {
        let most = match (place.split('.').next(), self.form) {
            _ if is_rare(place) => 1,
            (Some("call" | "intent" | "command" | "result"), _) => 3,
            (_, Form::Embedded) => 20,
            (_, Form::Served { .. }) => 6,
        };
        1 + u32::try_from(rng.below(most)).unwrap_or(0)
    }

    /// Everything else that can go wrong in this house, once each.
    fn others(&self, rng: &mut Rng) -> Vec<Strike> {
        let mut found: Vec<Strike> = Vec::new();
        let mut kinds = self.kinds().to_vec();
        kinds.dedup();
        if self.scenario.only.is_some() {
            return found;
        }
        found.extend(kinds.into_iter().map(|kind| Strike::Kill(kind, rng.time(50, 1000))));
        found.push(Strike::KillAgent);
        match self.form {
            Form::Embedded => found.push(Strike::StandStill(rng.time(500, 3000))),
            Form::Served { links, .. } => {
                found.push(Strike::Answer(1 + u32::try_from(rng.below(3)).unwrap_or(0)));
                // Longer than a life may stand still.
                found.push(Strike::StandStill(rng.time(8000, 10_000)));
                for (server, there) in [(Server::Broker, links.broker), (Server::Database, links.database)] {
                    if there {
                        found.push(Strike::Cut(server, rng.time(500, 3000)));
                        found.push(Strike::Hold(server, rng.time(500, 3000)));
                    }
                }
                if links.database {
                    for done in [true, false] {
                        let count = 1 + u32::try_from(rng.below(3)).unwrap_or(0);
                        found.push(Strike::LoseCommits { count, done });
                    }
                }
                if links.stop_broker {
                    found.push(Strike::StopBroker(rng.time(2000, 6000)));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Kind, Links, Plan, Progress, Strike, each_place};
    use crate::cli::verify::rng::Rng;
    use crate::cli::verify::scenario::Scenario;
    use crate::ops::failpoint::PLACES;

    fn plan(form: Form) -> Plan {
        Plan {
            seed: 1,
            kills: 15,
            each_place: each_place(15),
            jobs: 500,
            clients: 4,
            form,
            scenario: Scenario::default(),
        }
    }

    fn served() -> Form {
        let links = Links { broker: true, database: true, stop_broker: true };
        Form::Served { nodes: 3, monitors: 2, links }
    }

    /// Plays a run in which every strike succeeds.
    fn played(plan: &Plan) -> (Progress, usize) {
        let (mut progress, mut rng) = (Progress { jobs: 500, ..Progress::default() }, Rng::new(plan.seed));
        let mut rounds = 0;
        while !plan.is_done(&progress) {
            rounds += 1;
            assert!(rounds < 500, "never done: {progress:?}");
            let strike = plan.next(&progress, &mut rng);
            let kind = match strike {
                Strike::Arm(kind) => kind,
                _ => plan.kinds()[0],
            };
            let order = plan.order((kind, strike != Strike::Arm(kind)), &progress, &mut rng);
            if let Some((place, hits)) = order.first() {
                let place = PLACES.iter().find(|known| *known == place).expect("a known place");
                assert!(kind.passes(place) && *hits > 0, "{strike:?}");
                *progress.places.entry(place).or_default() += 1;
            }
            progress.kills += 1;
            *progress.strikes.entry(strike.name()).or_default() += 1;
        }
        (progress, rounds)
    }

    #[test]
    fn a_short_run_sees_every_place_and_every_kind_of_strike() {
        for form in [Form::Embedded, served()] {
            let (progress, rounds) = played(&plan(form));
            let outbox = |place: &str| place.starts_with("outbox.") && form == Form::Embedded;
            let seen = |place: &&&str| !progress.places.contains_key(**place) && !outbox(place);
            assert_eq!(PLACES.iter().find(seen), None, "{progress:?}");
            assert!(progress.strikes.contains_key("killed: agent of a guest"), "{progress:?}");
            assert!(rounds < 200, "{rounds}");
        }
    }

    #[test]
    fn the_same_seed_strikes_in_the_same_way() {
        let drawn = |seed| {
            let mut rng = Rng::new(seed);
            let plan = plan(served());
            (0..20).map(|_| plan.next(&Progress::default(), &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(3), drawn(3));
        assert_ne!(drawn(3), drawn(4));
    }

    #[test]
    fn a_long_run_asks_for_twenty_deaths_at_each_place() {
        assert_eq!((each_place(15), each_place(PLACES.len() * 6), each_place(10_000)), (1, 6, 20));
    }

    #[test]
    fn verdicts_are_written_by_those_who_look() {
        assert!(Kind::Monitor.passes("verdict.before") && !Kind::Monitor.passes("call.before"));
        assert!(Kind::Serve.passes("call.before") && !Kind::Serve.passes("verdict.after"));
    }
}

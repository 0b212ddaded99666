//! Which other lives stand still: pure.
//!
//! A peer's beat is a number that grows. Whether it stands still is measured with this process's own boot-time clock,
//! so that no clock of another machine, no jump and no restored dump can make a life look dead or alive. Rules in
//! `docs/PROTOCOL.md`, "Nodes".

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::model::Boot;
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::node::Node;

/// Stop-watches over the beats of other lives.
pub(crate) struct Peers {
    me: String,
    /// L: so long a beat must stand still.
    still: i64,
    /// 2P: a read that comes later than this after the one before proves nothing about the time between.
    late: i64,
    alive: HashMap<String, Seen>,
    dead: HashSet<String>,
    /// Every life seen alive so far.
    known: HashSet<String>,
    /// Roles of lives that were lost and not followed by another of their role.
    lost: Vec<String>,
    /// When the last good read ended.
    last: Option<i64>,
}

/// Lost lives remembered.
const MOST_LOST: usize = 64;

struct Seen {
    beat: i64,
    /// When the read ended that saw this beat first.
    since: i64,
}

/// A life that stood still for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Still {
    /// Its boot.
    pub(crate) boot: String,
    /// Its role, for the log.
    pub(crate) role: String,
    /// The beat it stands at; the declaration names it, so that a life that moved after all is spared.
    pub(crate) beat: i64,
}

/// What a read of all lives means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// To be declared dead.
    pub(crate) still: Vec<Still>,
    /// Whether somebody else declared lives dead since the read before.
    pub(crate) died: bool,
}

impl Peers {
    pub(crate) fn new(me: Boot, still: Duration, every: Duration) -> Self {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        Self {
            me: me.to_string(),
            still: micros(still),
            late: micros(every).saturating_mul(2),
            alive: HashMap::new(),
            dead: HashSet::new(),
            known: HashSet::new(),
            lost: Vec::new(),
            last: None,
        }
    }

    /// Takes in a read that was sent and ended at these points of boot time, in microseconds.
    pub(crate) fn read(&mut self, lives: &[Node], (sent, ended): (i64, i64)) -> News {
        let in_time = self.last.is_some_and(|last| ended.saturating_sub(last) <= self.late);
        self.last = Some(ended);
        if !in_time {
            self.alive.clear();
        }
        let first = self.known.is_empty();
        self.note_lost(lives, sent);
        self.note_new(lives, first);
        let mut news = News { still: Vec::new(), died: self.note_dead(lives) };
        let present: HashMap<&str, &Node> = lives
            .iter()
            .filter(|life| life.is_alive() && life.boot != self.me)
            .map(|life| (life.boot.as_str(), life))
            .collect();
        self.alive.retain(|boot, _| present.contains_key(boot.as_str()));
        for (boot, life) in present {
            let seen = self.alive.entry(boot.to_owned()).or_insert(Seen { beat: life.beat, since: ended });
            if seen.beat != life.beat {
                *seen = Seen { beat: life.beat, since: ended };
            }
            // A life that has just begun has no beat yet.
            let by_wall_clock = sabotaged(Fault::BeatByWallClock) && life.beat > 0;
            let since = if by_wall_clock { life.beat } else { seen.since };
            if sent.saturating_sub(since) >= self.still {
                news.still.push(Still { boot: boot.to_owned(), role: life.role.clone(), beat: life.beat });
            }
        }
        news
    }

    /// A read failed: nothing is known about the time since the one before.
    pub(crate) fn failed(&mut self) {
        self.last = None;
    }

    /// Roles of the lives that were lost: they stood still, were declared dead, and no new life of their role came.
    pub(super) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// A life that is dead now and stood still before has not said farewell.
    fn note_lost(&mut self, lives: &[Node], sent: i64) {
        for life in lives.iter().filter(|life| !life.is_alive()) {
            let still = self.alive.get(&life.boot).map(|seen| sent.saturating_sub(seen.since));
            if still.is_some_and(|still| still >= self.still / 2) && self.lost.len() < MOST_LOST {
                self.lost.push(life.role.clone());
            }
        }
    }

    fn note_new(&mut self, lives: &[Node], first: bool) {
        for life in lives.iter().filter(|life| life.is_alive() && life.boot != self.me) {
            if self.known.insert(life.boot.clone()) && !first {
                let place = self.lost.iter().position(|role| *role == life.role);
                place.map(|place| self.lost.remove(place));
            }
        }
        let there: HashSet<&str> = lives.iter().map(|life| life.boot.as_str()).collect();
        self.known.retain(|boot| there.contains(boot.as_str()));
    }

    fn note_dead(&mut self, lives: &[Node]) -> bool {
        let dead: HashSet<String> =
            lives.iter().filter(|life| !life.is_alive()).map(|life| life.boot.clone()).collect();
        let fresh = dead.iter().any(|boot| !self.dead.contains(boot));
        self.dead = dead;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::{News, Peers, Still};
    use crate::model::Boot;
    use crate::store::provisioning::node::Node;
    use std::time::Duration;

    const SECOND: i64 = 1_000_000;

    fn life(boot: &str, beat: i64, alive: bool) -> Node {
        let state = if alive { "alive" } else { "dead" };
        Node { boot: boot.into(), role: "serve".into(), beat, state: state.into(), started_at: 0 }
    }

    fn peers() -> Peers {
        Peers::new(Boot::random(), Duration::from_secs(6), Duration::from_secs(1))
    }

    /// Reads once a second, from `from` to `to`; what the last read said.
    fn reads(peers: &mut Peers, (from, to): (i64, i64), lives: impl Fn(i64) -> Vec<Node>) -> News {
        (from..=to).fold(News::default(), |_, s| peers.read(&lives(s), (s * SECOND, s * SECOND + 1000)))
    }

    #[test]
    fn a_beat_that_stands_still_for_its_time_is_dead_and_one_that_moves_is_not() {
        let mut peers = peers();
        let lives = |s: i64| vec![life("moving", s, true), life("still", 7, true)];
        assert_eq!(
            reads(&mut peers, (0, 6), lives).still,
            Vec::new(),
            "six seconds and a bit are not over yet"
        );
        let news = reads(&mut peers, (7, 7), lives);
        let still = Still { boot: "still".into(), role: "serve".into(), beat: 7 };
        assert_eq!(news.still, vec![still.clone()]);
        assert_eq!(reads(&mut peers, (8, 8), lives).still, vec![still], "said again until it is written");
    }

    #[test]
    fn an_outage_of_the_database_kills_nobody() {
        let mut peers = peers();
        let lives = |_| vec![life("a", 1, true)];
        reads(&mut peers, (0, 4), lives);
        peers.failed();
        assert_eq!(reads(&mut peers, (5, 11), lives).still, Vec::new(), "stop-watches began anew at 5");
        assert_eq!(reads(&mut peers, (12, 12), lives).still.len(), 1);
    }

    #[test]
    fn a_reader_that_slept_measures_anew() {
        let mut peers = peers();
        let lives = |_| vec![life("a", 1, true)];
        reads(&mut peers, (0, 2), lives);
        // Stopped for a minute, as by SIGSTOP: the peer may have been stopped with it.
        assert_eq!(reads(&mut peers, (62, 68), lives).still, Vec::new());
        assert_eq!(reads(&mut peers, (69, 69), lives).still.len(), 1);
    }

    #[test]
    fn the_dead_and_oneself_are_never_declared_and_new_dead_are_news_once() {
        let me = Boot::random();
        let mut peers = Peers::new(me, Duration::from_secs(6), Duration::from_secs(1));
        let lives = move |s: i64| vec![life(&me.to_string(), 1, true), life("d", 1, s < 5)];
        for s in 0..20 {
            let news = reads(&mut peers, (s, s), lives);
            assert_eq!((news.still, news.died), (Vec::new(), s == 5), "second {s}");
        }
    }

    #[test]
    fn a_life_that_was_lost_is_missed_until_another_of_its_role_comes_and_a_farewell_is_not() {
        let mut peers = peers();
        let lives = |s: i64| {
            let lost = life("lost", s.min(3), s < 11);
            let gone = life("gone", s, s < 5);
            let mut all = vec![lost, gone, life("stays", s, true)];
            all.extend((s >= 20).then(|| life("new", s, true)));
            all
        };
        reads(&mut peers, (0, 10), lives);
        assert!(peers.lost().is_empty(), "standing still is not lost yet, and a farewell is no loss");
        reads(&mut peers, (11, 19), lives);
        assert_eq!(peers.lost(), ["serve"]);
        reads(&mut peers, (20, 20), lives);
        assert!(peers.lost().is_empty(), "another took its place");
    }

    proptest::proptest! {
        /// Whatever reads fail or come late: a life whose beat moves at least every three seconds is never declared.
        #[test]
        fn no_living_peer_is_declared(gaps in proptest::collection::vec((1_i64..20, proptest::bool::ANY), 1..200)) {
            let mut peers = peers();
            let mut now = 0;
            for (gap, fails) in gaps {
                now += gap * SECOND / 4;
                if fails {
                    peers.failed();
                } else {
                    let news = peers.read(&[life("a", now / (3 * SECOND), true)], (now, now + 1000));
                    proptest::prop_assert_eq!(news.still, Vec::new());
                }
            }
        }
    }
}

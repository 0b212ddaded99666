//! Names of exchanges and queues, and which message goes where: pure. `docs/queue.md` says the same to others.

use super::{Nudge, Topic};
use crate::model::Boot;

/// A queue of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// Due jobs, for any dispatcher.
    Due,
    /// Watches on clouds, for monitors.
    Watch,
    /// Watches that need no cloud, and reports of guests, for workers.
    Work,
    /// Verdicts, for dispatchers.
    Verdicts,
    /// What every node must hear: commands for guests and cancels. One queue a node, gone with its connection.
    Node,
}

impl Line {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Due, Self::Watch, Self::Work, Self::Verdicts, Self::Node];

    /// The word in its name, and that metrics show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Watch => "watch",
            Self::Work => "work",
            Self::Verdicts => "verdicts",
            Self::Node => "node",
        }
    }

    /// Routing keys that lead to it, without its canary's.
    #[must_use]
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Due => &["job.due"],
            Self::Watch => &["watch.cloud"],
            Self::Work => &["watch.guest", "watch.noop", "work.reported"],
            Self::Verdicts => &["verdict.#"],
            Self::Node => &["guest.command", "job.cancel"],
        }
    }

    /// Topics whose readers it feeds; none where the messages become rows.
    #[must_use]
    pub const fn topics(self) -> &'static [Topic] {
        match self {
            Self::Due => &[Topic::Jobs],
            Self::Watch => &[Topic::Watches],
            Self::Work => &[Topic::Work],
            Self::Verdicts => &[],
            Self::Node => &[Topic::Jobs, Topic::Guests],
        }
    }

    /// The queue a hint travels through.
    #[must_use]
    pub const fn of(nudge: Nudge) -> Self {
        match nudge {
            Nudge::Cancel(_) | Nudge::Guest(_) => Self::Node,
            Nudge::Job(_) => Self::Due,
            Nudge::Watch(..) | Nudge::Reported(_) => match nudge.topic() {
                Topic::Watches => Self::Watch,
                _ => Self::Work,
            },
        }
    }
}

/// Names on one broker. Installations that share a broker differ in their prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    node: String,
}

impl Names {
    /// Names of one installation, as this life of one process sees them.
    #[must_use]
    pub fn new(prefix: &str, boot: Boot) -> Self {
        Self { prefix: prefix.to_owned(), node: boot.to_string() }
    }

    /// The topic exchange all messages go to.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}.jobs", self.prefix)
    }

    /// Exchange and queue of dead letters.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// A queue's name. A node's own queue has another name on each connection, because the broker may hold the old one
    /// until it notices that its connection is gone.
    #[must_use]
    pub fn queue(&self, line: Line, connection: u64) -> String {
        match line {
            Line::Node => format!("{}.node.{}.{connection}", self.prefix, self.node),
            _ => format!("{}.{}", self.prefix, line.as_str()),
        }
    }

    /// Routing key of a queue's canary.
    #[must_use]
    pub fn canary(&self, line: Line) -> String {
        match line {
            Line::Node => format!("canary.node.{}", self.node),
            _ => format!("canary.{}", line.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Names};
    use crate::model::{Boot, JobUid, ServerId, WatchKind, WatchUid};
    use crate::mq::envelope::kind_of;
    use crate::mq::{Nudge, Topic};

    #[test]
    fn every_nudge_is_routed_to_one_queue_whose_reader_is_meant() {
        let (job, watch) = (JobUid::random(), WatchUid::random());
        for nudge in [
            Nudge::Job(job),
            Nudge::Cancel(job),
            Nudge::Reported(job),
            Nudge::Guest(ServerId(1)),
            Nudge::Watch(WatchKind::Cloud, watch),
            Nudge::Watch(WatchKind::Guest, watch),
            Nudge::Watch(WatchKind::Noop, watch),
        ] {
            let lines: Vec<Line> =
                Line::ALL.into_iter().filter(|line| line.keys().contains(&kind_of(nudge))).collect();
            assert_eq!(lines, [Line::of(nudge)], "{nudge:?}");
            assert!(lines[0].topics().contains(&nudge.topic()), "{nudge:?}");
        }
        assert_eq!(Line::Watch.topics(), [Topic::Watches]);
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let names = Names::new("dispatcher", Boot::random());
        assert_eq!((names.exchange(), names.dead()), ("dispatcher.jobs".into(), "dispatcher.dead".into()));
        assert_eq!(names.queue(Line::Watch, 1), "dispatcher.watch");
        assert_eq!(names.queue(Line::Verdicts, 2), "dispatcher.verdicts");
        assert_ne!(names.queue(Line::Node, 1), names.queue(Line::Node, 2));
    }
}

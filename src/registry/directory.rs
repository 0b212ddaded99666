//! Who runs which job in this process: pure.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::model::JobUid;

/// What is to be done about a job that may have news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activate {
    /// Start an actor.
    Start,
    /// One runs: wake it.
    Wake,
    /// Too many run: it starts when one ends.
    Later,
}

/// Actors by job, with those that must wait for a place.
pub(crate) struct Directory<T> {
    running: HashMap<JobUid, Entry<T>>,
    waiting: VecDeque<JobUid>,
    /// The same, to be asked quickly: each waits once.
    known: HashSet<JobUid>,
    most: usize,
    draining: bool,
}

struct Entry<T> {
    actor: T,
    /// News came after the actor may have read its rows for the last time.
    news: bool,
    /// Its mailbox was found closed before.
    closed: bool,
}

impl<T> Directory<T> {
    /// Jobs that may wait for a place; more are found by the sweep.
    const WAITING: usize = 100_000;

    pub(crate) fn new(most: usize) -> Self {
        Self {
            running: HashMap::new(),
            waiting: VecDeque::new(),
            known: HashSet::new(),
            most,
            draining: false,
        }
    }

    /// What a nudge for this job means.
    pub(crate) fn nudged(&mut self, job: JobUid) -> Activate {
        if let Some(entry) = self.running.get_mut(&job) {
            entry.news = true;
            return Activate::Wake;
        }
        if self.draining || self.running.len() >= self.most {
            if !self.draining && self.waiting.len() < Self::WAITING && self.known.insert(job) {
                self.waiting.push_back(job);
            }
            return Activate::Later;
        }
        Activate::Start
    }

    pub(crate) fn started(&mut self, job: JobUid, actor: T) {
        self.running.insert(job, Entry { actor, news: false, closed: false });
    }

    pub(crate) fn actor(&self, job: JobUid) -> Option<&T> {
        self.running.get(&job).map(|entry| &entry.actor)
    }

    /// How many may run at the same time.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Notes that an actor's mailbox is closed although its end was not told; true when it was so before.
    pub(crate) fn seems_gone(&mut self, job: JobUid) -> bool {
        self.running.get_mut(&job).is_some_and(|entry| std::mem::replace(&mut entry.closed, true))
    }

    /// An actor ended: the jobs to activate now, which may be the same one.
    pub(crate) fn ended(&mut self, job: JobUid) -> Vec<JobUid> {
        let again = self.running.remove(&job).is_some_and(|entry| entry.news);
        let mut next = Vec::new();
        if again && !self.draining {
            next.push(job);
        }
        let free = self.most.saturating_sub(self.running.len() + next.len());
        for _ in 0..free {
            match self.waiting.pop_front() {
                Some(waiting) => {
                    self.known.remove(&waiting);
                    next.push(waiting);
                }
                None => break,
            }
        }
        next
    }

    /// Takes no more jobs; how many still run.
    pub(crate) fn drain(&mut self) -> usize {
        self.draining = true;
        self.waiting.clear();
        self.known.clear();
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Activate, Directory};
    use crate::model::JobUid;

    #[test]
    fn news_that_comes_while_an_actor_ends_is_not_lost() {
        let (job, other) = (JobUid::random(), JobUid::random());
        let mut directory = Directory::new(1);
        assert_eq!(directory.nudged(job), Activate::Start);
        directory.started(job, ());
        assert_eq!(directory.nudged(other), Activate::Later);
        assert_eq!(directory.nudged(job), Activate::Wake);
        assert_eq!(directory.ended(job), vec![job], "its news comes first, and takes the only place");
        directory.started(job, ());
        assert_eq!(directory.ended(job), vec![other]);
        directory.started(other, ());
        assert_eq!(directory.drain(), 1);
        assert_eq!(directory.ended(other), Vec::new());
        assert_eq!(directory.nudged(job), Activate::Later, "a draining directory starts nothing");
    }
}

//! Rows in memory that say what SQL says: the conditions of `store/provisioning/transition/`, one function a move.
//!
//! Real rows would make a million steps take an hour in a debug build. That these are no second opinion is shown by
//! `differential.rs`, which drives both with the same changes and compares every answer and every row.

mod accept;
pub(super) use accept::Accepted;
mod ends;
mod guests;
mod moves;

use std::collections::{BTreeMap, HashMap};

use crate::model::{Boot, CustomerId, JobKind, JobState, JobUid, Micros, ServerId};
use crate::store::provisioning::accept::Answer;
use crate::store::provisioning::agent::{AgentRow, CommandRow};
use crate::store::provisioning::job::{Attempt, Evidence, History, Job};
use crate::store::provisioning::node::Node;
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::transition::{Fence, Obligation};
use crate::store::provisioning::watch::Watch;

/// What is deliberately wrong with the rows, to show that the checks see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// Writes of any epoch are taken.
    pub(super) no_fence: bool,
    /// A verdict counts only in the epoch in which its watch was made.
    pub(super) fenced_verdict: bool,
}

/// One job with all that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: JobKind,
    pub(super) history: History,
    /// The epoch in which each watch was made; only a deliberate fault asks for it.
    pub(super) watched_in: i64,
}

impl Entry {
    pub(super) const fn job(&self) -> &Job {
        &self.history.job
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Rows {
    /// The database's clock.
    pub(super) now: Micros,
    pub(super) flaws: Flaws,
    pub(super) jobs: Vec<Entry>,
    by_uid: HashMap<JobUid, usize>,
    replay: HashMap<(String, String), String>,
    pub(super) idem: BTreeMap<(i64, String, String), (String, Answer)>,
    pub(super) nodes: Vec<Node>,
    pub(super) servers: BTreeMap<i64, ServerRow>,
    pub(super) agents: BTreeMap<i64, AgentRow>,
    pub(super) commands: Vec<CommandRow>,
    pub(super) owed: BTreeMap<String, (JobUid, Obligation)>,
    /// Jobs whose rows moved since somebody looked.
    pub(super) touched: Vec<usize>,
}

impl Rows {
    pub(super) fn index(&self, uid: JobUid) -> Option<usize> {
        self.by_uid.get(&uid).copied()
    }

    pub(super) fn history(&self, uid: JobUid) -> Option<&History> {
        self.index(uid).map(|i| &self.jobs[i].history)
    }

    /// The job of a fence, if its epoch is the one named and it has not ended.
    fn held(&self, fence: Fence) -> Option<usize> {
        let i = self.index(fence.job)?;
        let job = self.jobs[i].job();
        let current = job.epoch == fence.epoch || self.flaws.no_fence;
        (current && job.ended_at.is_none()).then_some(i)
    }

    /// Changes a row of `job`, as every update of it does.
    fn touch(&mut self, i: usize) -> &mut Job {
        self.touched.push(i);
        let now = self.now;
        let job = &mut self.jobs[i].history.job;
        job.changed_at = now;
        job.version += 1;
        job
    }

    pub(super) fn is_alive(&self, boot: Boot) -> bool {
        self.state_of(boot).is_some_and(Node::is_alive)
    }

    fn is_dead(&self, boot: Boot) -> bool {
        self.state_of(boot).is_some_and(|life| !life.is_alive())
    }

    fn state_of(&self, boot: Boot) -> Option<&Node> {
        let name = boot.to_string();
        self.nodes.iter().find(|life| life.boot == name)
    }

    pub(super) fn register(&mut self, boot: Boot, role: &str) {
        if self.state_of(boot).is_none() {
            self.nodes.push(Node {
                boot: boot.to_string(),
                role: role.to_owned(),
                beat: 0,
                state: "alive".to_owned(),
                started_at: self.now.0,
            });
        }
    }

    pub(super) fn beat(&mut self, boot: Boot, count: i64) -> bool {
        let name = boot.to_string();
        let found = self.nodes.iter_mut().find(|life| life.boot == name && life.is_alive());
        found.map(|life| life.beat = count).is_some()
    }

    pub(super) fn declare_dead(&mut self, boot: &str, seen: i64) -> bool {
        let found =
            self.nodes.iter_mut().find(|life| life.boot == boot && life.beat == seen && life.is_alive());
        found.map(|life| "dead".clone_into(&mut life.state)).is_some()
    }

    /// Open jobs of this life, and whether a cancel was asked.
    pub(super) fn owned_by(&self, boot: Boot) -> Vec<(JobUid, bool)> {
        let mine = self.jobs.iter().map(Entry::job).filter(|job| job.ended_at.is_none());
        mine.filter(|job| job.owner == Some(boot)).map(|job| (job.uid, job.cancel_by.is_some())).collect()
    }

    /// Jobs without an owner that are due, and those that have a verdict.
    pub(super) fn needing_an_actor(&self) -> Vec<JobUid> {
        let free = || {
            let open = self.jobs.iter().filter(|entry| entry.job().ended_at.is_none());
            open.filter(|entry| entry.job().owner.is_none())
        };
        let mut due: Vec<&Job> =
            free().map(Entry::job).filter(|job| job.due_at.is_some_and(|at| at <= self.now)).collect();
        due.sort_by_key(|job| (-job.priority, job.due_at));
        let mut found: Vec<JobUid> = due.iter().map(|job| job.uid).collect();
        found.extend(free().filter(|e| is_decided(e)).map(|entry| entry.job().uid));
        found
    }

    /// When the next job without an owner is due.
    pub(super) fn next_due(&self) -> Option<Micros> {
        let free =
            self.jobs.iter().map(Entry::job).filter(|job| job.ended_at.is_none() && job.owner.is_none());
        free.filter_map(|job| job.due_at).filter(|at| *at > self.now).min()
    }

    /// Open watches of these kinds that are due.
    pub(super) fn open_watches(&self, kinds: &[crate::model::WatchKind]) -> Vec<Watch> {
        let all = self.jobs.iter().flat_map(|entry| &entry.history.watches);
        let mut due: Vec<Watch> = all
            .filter(|w| w.done_at.is_none() && kinds.contains(&w.kind) && w.due_at <= self.now)
            .cloned()
            .collect();
        due.sort_by_key(|w| w.due_at);
        due
    }

    pub(super) fn watch(&self, uid: crate::model::WatchUid) -> Option<&Watch> {
        self.jobs.iter().flat_map(|entry| &entry.history.watches).find(|w| w.uid == uid)
    }

    pub(super) fn server(&self, customer: CustomerId, id: ServerId) -> Option<&ServerRow> {
        self.servers.get(&id.0).filter(|row| row.customer == customer.0)
    }

    fn insert_attempt(&mut self, i: usize, new: Attempt) {
        let known = self.jobs.iter().any(|e| e.history.attempts.iter().any(|a| a.uid == new.uid));
        if !known {
            let attempts = &mut self.jobs[i].history.attempts;
            attempts.push(new);
            attempts.sort_by_key(|a| (a.started_at, a.n));
        }
    }

    fn insert_watch(&mut self, i: usize, new: &Watch) {
        let epoch = self.jobs[i].job().epoch.0;
        let made_at = self.now;
        let watches = &mut self.jobs[i].history.watches;
        if !watches.iter().any(|w| w.step == new.step && w.try_no == new.try_no) {
            watches.push(Watch { made_at, ..new.clone() });
            watches.sort_by_key(|w| w.try_no);
            self.jobs[i].watched_in = epoch;
        }
    }

    /// What somebody saw; false when this source said something of it before.
    pub(super) fn insert_evidence(&mut self, seen: &Evidence) -> bool {
        let Some(i) = self.index(seen.job) else { return false };
        let made_at = self.now;
        let all = &mut self.jobs[i].history.evidence;
        if all.iter().any(|e| e.subject == seen.subject && e.source == seen.source) {
            return false;
        }
        all.push(Evidence { made_at, ..seen.clone() });
        true
    }
}

fn is_decided(entry: &Entry) -> bool {
    let job = entry.job();
    let decided = |w: &Watch| w.try_no == job.try_no && w.done_at.is_some();
    job.state == JobState::Awaiting && entry.history.watches.iter().any(decided)
}

//! What must hold after every move of a row, and at the end of all: the invariants of `docs/PROTOCOL.md` section 9 and
//! the promises of its section 4.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::house::MOST;
use super::rows::Entry;
use super::world::{Life, World};
use crate::cloud::TokenClass;
use crate::jobs::machine;
use crate::jobs::steps::{Effect, UNDO, step_of};
use crate::model::{AttemptOutcome, AttemptUid, Boot, Epoch, JobKind, JobState, JobUid, Micros, Verdict};
use crate::store::provisioning::job::{History, Job};

/// What a job's row was when it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    state: JobState,
    epoch: Epoch,
    owner: Option<Boot>,
    version: i64,
    ended_at: Option<Micros>,
}

/// What the checks remember.
#[derive(Default)]
pub(super) struct Checks {
    seen: Vec<Seen>,
    numbers: HashMap<JobUid, usize>,
    /// The one life that got each epoch.
    owners: BTreeMap<(usize, i64), Boot>,
    /// Jobs answered 202, with the key each was asked with.
    pub(super) accepted: BTreeMap<String, JobUid>,
    /// Servers that the cloud lost.
    pub(super) lost: BTreeSet<String>,
    /// Jobs whose own undo ended a server.
    pub(super) undone: BTreeSet<String>,
}

/// What may follow what: the reference machine of states.
const fn may_follow(from: JobState, to: JobState) -> bool {
    use JobState::{
        Awaiting, Cancelled, Complete, Failed, Quarantined, Queued, Running, Undoing, Unresolved,
    };
    match from {
        Queued => matches!(to, Queued | Running | Failed),
        Running => matches!(to, Running | Awaiting | Undoing | Quarantined | Failed | Cancelled | Unresolved),
        Awaiting => {
            matches!(
                to,
                Awaiting | Running | Complete | Undoing | Quarantined | Failed | Cancelled | Unresolved
            )
        }
        Undoing => matches!(to, Undoing | Quarantined | Failed | Cancelled | Unresolved),
        Quarantined => matches!(to, Quarantined | Running | Awaiting | Undoing),
        Complete | Failed | Cancelled | Unresolved => false,
    }
}

impl World {
    /// A job's place in the run, for the trace.
    pub(super) fn job_number(&self, uid: JobUid) -> u64 {
        self.rows.index(uid).map_or(u64::MAX, |i| i as u64)
    }

    /// Looks at a row that was written just now. `by` is the life that wrote it, where one did.
    pub(super) fn observe(&mut self, i: usize, by: Option<Boot>, new: bool) {
        let job = self.rows.jobs[i].job().clone();
        let owner = job.owner.map_or(0, |boot| u64::from(boot.0.as_bytes()[0]) + 1);
        self.trace.mix(owner);
        self.trace.mix(job.version.unsigned_abs());
        self.note(job.state.as_str(), i as u64, job.epoch.0.unsigned_abs());
        let now = Seen {
            state: job.state,
            epoch: job.epoch,
            owner: job.owner,
            version: job.version,
            ended_at: job.ended_at,
        };
        if new && i == self.checks.seen.len() {
            self.checks.seen.push(now);
            self.checks.numbers.insert(job.uid, i);
            self.figures.jobs += 1;
            return;
        }
        let before = std::mem::replace(&mut self.checks.seen[i], now);
        if let Some(what) = self.moved_wrongly(i, (&before, &job), by) {
            self.violated(format!("{what}; job {i} {} {:?}", job.params.kind(), job));
        }
        if before.ended_at.is_none() && job.ended_at.is_some() {
            self.ended(i);
        }
    }

    fn moved_wrongly(&mut self, i: usize, (before, job): (&Seen, &Job), by: Option<Boot>) -> Option<String> {
        if before.ended_at.is_some() {
            return Some("I1: a job that had ended was written again".to_owned());
        }
        if before.state != job.state && !may_follow(before.state, job.state) {
            return Some(format!("history: {} does not follow {}", job.state, before.state));
        }
        if job.epoch != before.epoch {
            let owner = job.owner?;
            let first = *self.checks.owners.entry((i, job.epoch.0)).or_insert(owner);
            if job.epoch.0 != before.epoch.0 + 1 || first != owner {
                return Some(format!("I2: epoch {} follows {}, of {first}", job.epoch, before.epoch));
            }
            let held = before.owner.filter(|boot| self.rows.is_alive(*boot));
            if held.is_some_and(|boot| boot != owner) {
                return Some("claim: taken from an owner that lives".to_owned());
            }
        } else if let (Some(writer), Some(owner)) = (by, before.owner)
            && writer != owner
        {
            return Some(format!("fence: written by {writer}, which does not own this epoch"));
        }
        let watched = || self.rows.jobs[i].history.watches.iter().any(|w| w.try_no == job.try_no);
        let waits = job.owner.is_some() || job.due_at.is_some() || watched();
        if job.ended_at.is_none() && !waits {
            return Some("I10: open, and neither owned nor due nor watched".to_owned());
        }
        (job.version <= before.version).then(|| "history: a version did not rise".to_owned())
    }

    fn ended(&mut self, i: usize) {
        let history = &self.rows.jobs[i].history;
        let job = &history.job;
        let place = match job.state {
            JobState::Complete => 0,
            JobState::Failed => 1,
            JobState::Cancelled => 2,
            _ => 3,
        };
        self.figures.ends[place] += 1;
        let wrong = ended_wrongly(history);
        if let Some(what) = wrong {
            let text = format!("{what}; job {i}: {history:#?}");
            self.violated(text);
        }
    }

    /// A call that changes something leaves its process: its attempt must be committed, and for an undo its state.
    pub(super) fn sends(&mut self, uid: JobUid, attempt: AttemptUid, create: bool) {
        let history = self.rows.history(uid);
        let found = history.and_then(|h| h.attempts.iter().find(|a| a.uid == attempt).map(|a| (h, a)));
        let wrong = match found {
            None => Some("I4: a call was sent whose attempt is not committed"),
            Some((h, a)) if a.step == UNDO && !h.job.undo_begun => {
                Some("undo: a call of it was sent before its state was committed")
            }
            Some(_) => None,
        };
        let wrong = wrong.map(|what| format!("{what}; job {}", self.job_number(uid)));
        if create {
            *self.cloud.sent.entry(uid).or_default() += 1;
        }
        if let Some(what) = wrong {
            self.violated(what);
        }
    }
}

/// Rules for a job that just ended.
fn ended_wrongly(history: &History) -> Option<&'static str> {
    let job = &history.job;
    let open = history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    match job.state {
        JobState::Failed | JobState::Cancelled if open => Some("I6: ended with an open attempt"),
        JobState::Complete => {
            let seen = machine::verdict_of_this_try(history).map(|e| e.verdict);
            // A command that had ended well by then stays so.
            let command = job.params.kind() == JobKind::RunCommand;
            let wanted = (job.cancel_by.is_none() || command) && !job.undo_begun;
            (seen != Some(Verdict::Reached) || !wanted).then_some("I7: complete without evidence of its try")
        }
        _ if !same_bytes(history) => Some("I5: another token or other bytes for one step"),
        _ => None,
    }
}

/// One step has one token and one request, whoever sent it.
fn same_bytes(history: &History) -> bool {
    ["create", UNDO].iter().all(|step| {
        let mut calls = history.attempts.iter().filter(|a| a.step == *step);
        let first = calls.next();
        calls.all(|a| first.is_none_or(|first| a.token == first.token && a.request == first.request))
    })
}

impl World {
    /// The end of all: what every job became against what is there.
    pub(super) fn judge(&mut self) {
        // The other classes promise that there is nothing to sweep.
        if self.cloud.capabilities.class == TokenClass::T {
            self.sweep_by_tag();
        }
        for i in 0..self.rows.jobs.len() {
            let history = &self.rows.jobs[i].history;
            let wrong = match step_of(history.job.params.kind()).effect {
                Effect::Nothing | Effect::Children => None,
                Effect::Create => self.launched_wrongly(history),
                Effect::Move(_) => self.moved_falsely(history),
                Effect::Command => self.commanded_wrongly(history),
            };
            if let Some(what) = wrong {
                let text = format!("{what}; job {i}: {history:#?}");
                return self.violated(text);
            }
        }
        for (key, uid) in &self.checks.accepted {
            if self.rows.history(*uid).is_none() {
                let text = format!("accept: the job of key {key} was answered and is not there");
                return self.violated(text);
            }
        }
    }

    /// What the janitor does with what an obligation names, played in one go.
    fn sweep_by_tag(&mut self) {
        let now = self.now;
        let owed: Vec<(String, JobUid)> =
            self.rows.owed.iter().map(|(tag, (job, _))| (tag.clone(), *job)).collect();
        for (tag, job) in owed {
            let complete = self.rows.history(job).filter(|h| h.job.state == JobState::Complete);
            let kept = complete.and_then(|h| h.job.resource.clone());
            let left = self.cloud.left_of(job, now);
            for id in left.iter().filter(|id| Some(*id) != kept.as_ref()) {
                let by_tag = self.cloud.servers.get_mut(id).filter(|t| t.machine.tag.as_ref() == Some(&tag));
                if let Some(truth) = by_tag {
                    truth.machine.state = crate::model::ServerStatus::Terminated;
                    self.checks.undone.insert(id.clone());
                }
            }
        }
    }

    fn launched_wrongly(&self, history: &History) -> Option<String> {
        use TokenClass::{K, N, S};
        let job = &history.job;
        let class = self.cloud.capabilities.class;
        let made = self.cloud.launches.get(&job.uid).copied().unwrap_or(0);
        let left = self.cloud.left_of(job.uid, self.now);
        if matches!(class, K | S) && made > 1 {
            return Some(format!("effects: {made} servers for one create in class {class}"));
        }
        let refused = history.attempts.iter().filter(|a| a.outcome == AttemptOutcome::Refused).count();
        let sent = self.cloud.sent.get(&job.uid).copied().unwrap_or(0) as usize;
        if class == N && sent > refused + 1 {
            return Some(format!("effects: {sent} creates sent in class N, {refused} of them refused"));
        }
        let owed = self.rows.owed.values().any(|(of, _)| *of == job.uid);
        match job.state {
            JobState::Complete => {
                let resource = job.resource.as_ref().filter(|id| self.cloud.servers.contains_key(*id));
                let Some(id) = resource else { return Some("false success: no server".to_owned()) };
                if self.checks.undone.contains(id) {
                    return Some("false success: its server was taken back".to_owned());
                }
                (left.len() > 1).then(|| format!("effects: {} servers stay after the sweep", left.len()))
            }
            JobState::Unresolved if !owed && history.attempts.iter().any(|a| a.step == "create") => {
                Some("I8: unresolved, and nobody looks for its server".to_owned())
            }
            // Without a tag no sweep finds it, and a token may be used after its job: the obligation is what there is.
            _ if matches!(class, K | N) && owed => None,
            JobState::Unresolved => None,
            _ if left.is_empty() => None,
            _ => Some(format!("false {}: {} is there", job.state, left.join(", "))),
        }
    }

    fn moved_falsely(&self, history: &History) -> Option<String> {
        let job = &history.job;
        let Effect::Move(operation) = step_of(job.params.kind()).effect else { return None };
        let id = job.server.map(|id| format!("i-place-{id}"))?;
        let truth = self.cloud.servers.get(&id)?;
        let was = truth.was(operation.proof(), job.created_at, self.now);
        (job.state == JobState::Complete && !was)
            .then(|| format!("false success: {id} never was {}", operation.proof()))
    }

    fn commanded_wrongly(&self, history: &History) -> Option<String> {
        let job = &history.job;
        let ran: u32 = self.guests.values().map(|guest| guest.ran_for(job.uid)).sum();
        let told = machine::verdict_of_this_try(history).is_some();
        let says = |words: &str| job.message.as_ref().is_some_and(|message| message.contains(words));
        match job.state {
            _ if ran > 1 => Some(format!("I9: a command ran {ran} times")),
            JobState::Complete if ran == 0 => Some("false success: the command never ran".to_owned()),
            JobState::Failed if job.why_code != "failed" && ran > 0 => {
                Some(format!("false failure: the command ran, and the job says {:?}", job.message))
            }
            JobState::Cancelled if ran > 0 && (!told || says("never ran") || says("never sent")) => {
                Some(format!("false cancel: the command ran, and the job says {:?}", job.message))
            }
            _ => None,
        }
    }

    /// Jobs that wait, without an owner, for something that everybody can see; and those that a living process owns
    /// and does not run. For a moment that is as it should be; once all is healed it must not last.
    pub(super) fn idle(&self) -> BTreeMap<usize, &'static str> {
        let open = self.rows.jobs.iter().enumerate().filter(|(_, e)| e.job().ended_at.is_none());
        open.filter_map(|(i, entry)| self.idles(entry).map(|why| (i, why))).collect()
    }

    fn idles(&self, entry: &Entry) -> Option<&'static str> {
        let job = entry.job();
        let full = |life: &Life| life.alive && life.running.len() >= MOST;
        // Where there is no room for another actor, a job waits for a place.
        if self.lives.iter().any(full) {
            return None;
        }
        if let Some(owner) = job.owner {
            let life = self.lives.iter().find(|life| life.alive && life.boot == owner);
            let run = life.is_none_or(|life| life.running.contains(&job.uid));
            return (!run).then_some("I12: its owner does not run it");
        }
        if job.state != JobState::Awaiting {
            return None;
        }
        if machine::verdict_of_this_try(&entry.history).is_some() {
            return Some("liveness: it has its verdict and does not end");
        }
        let watch = machine::watch_of_this_try(&entry.history).filter(|w| w.deadline > self.now)?;
        let seen = match entry.kind {
            JobKind::Noop => true,
            JobKind::RunCommand => self.rows.command(&watch.target).is_some_and(|row| row.result.is_some()),
            _ => {
                let there = self.cloud.state_of(&watch.target, self.now);
                there.is_some_and(|state| state.as_str() == watch.expectation)
            }
        };
        seen.then_some("liveness: what it waits for can be seen, and nobody says so")
    }
}

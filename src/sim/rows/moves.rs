//! Claims, calls, waits and what was seen.

use super::Rows;
use crate::jobs::ports::{Applied, Change};
use crate::model::{AttemptOutcome, Boot, ErrorClass, Generation, JobState, JobUid, Micros, WatchUid};
use crate::store::provisioning::agent::NewCommand;
use crate::store::provisioning::job::{Attempt, Evidence};
use crate::store::provisioning::limit::LONGEST_WAIT;
use crate::store::provisioning::transition::{Claim, Close, Fence, Opened, Quiet, Then, Waiting};
use crate::store::provisioning::watch::Watch;

impl Rows {
    /// One change of the driver, as `jobs::sql` applies it.
    pub(crate) fn apply(&mut self, boot: Boot, change: &Change) -> Applied {
        let done = |stored: bool| if stored { Applied::Done } else { Applied::Fenced };
        match change {
            Change::Claim { claim, open } => match open {
                None => done(self.claim(claim)),
                Some(attempt) => match self.claim_and_open(claim, attempt) {
                    Some(true) => Applied::Done,
                    Some(false) => Applied::Busy,
                    None => Applied::Fenced,
                },
            },
            Change::Open { attempt, state, server, agent } => {
                let opened = self.open_attempt(boot, *state, attempt, *server);
                if let (Opened::Yes, Some(new)) = (opened, agent) {
                    self.insert_agent(new);
                }
                match opened {
                    Opened::Yes => Applied::Done,
                    Opened::Fenced => Applied::Fenced,
                    Opened::Busy => Applied::Busy,
                }
            }
            Change::Command { attempt, command, watch } => {
                done(self.hand_over(boot, attempt, command, watch))
            }
            Change::Close(close) => done(self.close_attempt(close)),
            Change::Wait { fence, waiting } => done(self.wait(*fence, waiting)),
            Change::Quarantine { fence, waiting, quiet } => done(self.quarantine(*fence, waiting, *quiet)),
            Change::CallOff { fence, code, why, .. } => done(self.call_group_off(*fence, boot, (code, why))),
            Change::Park { fence, waiting } => done(self.park(*fence, boot, waiting)),
            Change::Withdraw { command, unsent, sent } => done(self.withdraw(boot, command, (unsent, sent))),
            Change::BeginUndo { fence, why } => done(self.begin_undo(*fence, boot, why)),
            Change::NextTry { fence, from, why } => done(self.next_try(*fence, *from, why)),
            Change::End(end) => done(self.end(end)),
        }
    }

    pub(crate) fn claim(&mut self, claim: &Claim) -> bool {
        self.take(claim).is_some()
    }

    /// Whether it was claimed now, or before; none when it was not at all.
    fn take(&mut self, claim: &Claim) -> Option<bool> {
        let i = self.index(claim.seen.job)?;
        let job = self.jobs[i].job();
        let free = job.owner.is_none_or(|owner| self.is_dead(owner));
        let as_seen = job.epoch == claim.seen.epoch && job.state == claim.from && job.ended_at.is_none();
        if free && as_seen && self.is_alive(claim.boot) {
            let now = self.now;
            let job = self.touch(i);
            job.owner = Some(claim.boot);
            job.epoch = claim.next;
            job.state = claim.to;
            job.crashes = claim.crashes;
            job.why_code.clear();
            job.why.clear();
            if claim.from == JobState::Queued {
                job.claimed_at = Some(now);
            }
            return Some(true);
        }
        // The commit of this very claim was unknown and it runs again: as wanted means it was mine.
        (job.epoch == claim.next && job.owner == Some(claim.boot)).then_some(false)
    }

    pub(crate) fn claim_and_open(&mut self, claim: &Claim, attempt: &Attempt) -> Option<bool> {
        let now = self.take(claim)?;
        let i = self.index(attempt.job)?;
        if !now {
            // Two items of one life look the same but for their attempts: what is written is the first one's.
            return Some(self.jobs[i].history.attempts.iter().any(|a| a.uid == attempt.uid));
        }
        if self.jobs[i].job().cancel_by.is_some() {
            return Some(false);
        }
        self.insert_attempt(i, Attempt { started_at: self.now, ..attempt.clone() });
        Some(true)
    }

    pub(crate) fn take_over(&mut self, boot: Boot) -> Vec<JobUid> {
        if !self.is_alive(boot) {
            return Vec::new();
        }
        let orphaned = |rows: &Self, i: usize| {
            let job = rows.jobs[i].job();
            job.ended_at.is_none() && job.owner.is_some_and(|owner| rows.is_dead(owner))
        };
        let found: Vec<usize> = (0..self.jobs.len()).filter(|i| orphaned(self, *i)).collect();
        let taken = found.iter().map(|i| {
            let job = self.touch(*i);
            job.owner = Some(boot);
            job.epoch = job.epoch.after(Generation::default());
            job.crashes = job.crashes.saturating_add(1);
            job.uid
        });
        taken.collect()
    }

    /// The guard before every call.
    pub(super) fn may_act(&mut self, fence: Fence, boot: Boot, state: JobState) -> bool {
        let Some(i) = self.index(fence.job) else { return false };
        let job = self.jobs[i].job();
        let current = job.epoch == fence.epoch || self.flaws.no_fence;
        let mine = current && (job.owner == Some(boot) || self.flaws.no_fence) && job.state == state;
        if !mine || state == JobState::Running && job.cancel_by.is_some() {
            return false;
        }
        let job = self.touch(i);
        job.due_at = None;
        job.why_code.clear();
        job.why.clear();
        true
    }

    /// Whether another call of the job is open: one whose commit came late.
    fn has_open_besides(&self, new: &Attempt) -> bool {
        let known = self.history(new.job).map(|history| history.attempts.as_slice()).unwrap_or_default();
        known.iter().any(|a| a.uid != new.uid && a.outcome == AttemptOutcome::Open)
    }

    fn open_attempt(
        &mut self,
        boot: Boot,
        state: JobState,
        new: &Attempt,
        server: Option<crate::model::ServerId>,
    ) -> Opened {
        if server.is_some_and(|id| !self.turn_of(id, new.job)) {
            return Opened::Busy;
        }
        if self.has_open_besides(new) {
            return Opened::Fenced;
        }
        if !self.may_act(Fence { job: new.job, epoch: new.epoch }, boot, state) {
            return Opened::Fenced;
        }
        if let Some(row) = server.and_then(|id| self.servers.get_mut(&id.0)) {
            row.busy_by = Some(new.job.to_string());
        }
        if let Some(i) = self.index(new.job) {
            self.insert_attempt(i, Attempt { started_at: self.now, ..new.clone() });
        }
        Opened::Yes
    }

    fn close_attempt(&mut self, close: &Close) -> bool {
        let Some(i) = self.progress(close) else { return false };
        let now = self.now;
        let all = self.jobs.iter_mut().flat_map(|entry| &mut entry.history.attempts);
        if let Some(attempt) = all.into_iter().find(|a| a.uid == close.attempt) {
            attempt.outcome = close.outcome;
            attempt.class = close.class;
            attempt.evidence.clone_from(&close.evidence);
            attempt.output.clone_from(&close.output);
            attempt.closed_at = Some(now);
            attempt.version += 1;
            if let (Some(ErrorClass::Throttled), Some(wait)) = (close.class, close.retry_after) {
                attempt.quiet_until = Some(now.plus(wait.min(LONGEST_WAIT)));
            }
        }
        if let Some(row) = &close.made {
            self.insert_server(row);
        }
        if let Some(seen) = &close.seen {
            self.saw(seen);
        }
        if let Then::Await(expected) = &close.then {
            self.insert_watch(i, expected);
        }
        true
    }

    /// The guard of [`Rows::close_attempt`]: moves the job itself.
    fn progress(&mut self, close: &Close) -> Option<usize> {
        let i = self.held(close.fence)?;
        let state = self.jobs[i].job().state;
        let fits = state == JobState::Running || matches!(close.then, Then::Go) && state == JobState::Undoing;
        if !fits {
            return None;
        }
        let now = self.now;
        let job = self.touch(i);
        job.crashes = 0;
        if let Then::Await(expected) = &close.then {
            job.state = JobState::Awaiting;
            job.owner = None;
            job.due_at = Some(if job.cancel_by.is_none() { expected.deadline } else { now });
            job.why_code = format!("verdict-{}", expected.kind);
            job.why = format!("waiting until {} is seen", expected.expectation);
        }
        if let Some(row) = &close.made {
            job.server = Some(crate::model::ServerId(row.id));
            job.resource = Some(row.provider_id.clone());
        }
        Some(i)
    }

    fn hand_over(&mut self, boot: Boot, row: &Attempt, command: &NewCommand, expected: &Watch) -> bool {
        let fence = Fence { job: row.job, epoch: row.epoch };
        if !self.may_act(fence, boot, JobState::Running) {
            return false;
        }
        let (Some(i), now) = (self.index(row.job), self.now) else { return false };
        let closed =
            Attempt { started_at: now, closed_at: Some(now), outcome: AttemptOutcome::Ok, ..row.clone() };
        self.insert_attempt(i, closed);
        self.insert_command(command);
        let close = Close {
            fence,
            attempt: row.uid,
            outcome: AttemptOutcome::Ok,
            class: None,
            retry_after: None,
            evidence: String::new(),
            output: String::new(),
            made: None,
            seen: None,
            then: Then::Await(expected.clone()),
        };
        self.progress(&close);
        self.insert_watch(i, expected);
        true
    }

    fn wait(&mut self, fence: Fence, waiting: &Waiting) -> bool {
        let Some(i) = self.held(fence) else { return false };
        self.set_waiting(i, waiting);
        true
    }

    fn set_waiting(&mut self, i: usize, waiting: &Waiting) {
        let job = self.touch(i);
        job.due_at = Some(waiting.until);
        job.why_code.clone_from(&waiting.code);
        job.why.clone_from(&waiting.why);
    }

    pub(crate) fn quarantine(&mut self, fence: Fence, waiting: &Waiting, quiet: Option<Quiet>) -> bool {
        let Some(i) = self.held(fence) else { return false };
        if !matches!(self.jobs[i].job().state, JobState::Running | JobState::Awaiting | JobState::Undoing) {
            return false;
        }
        self.set_waiting(i, waiting);
        let job = &mut self.jobs[i].history.job;
        job.state = JobState::Quarantined;
        job.owner = None;
        if let Some(quiet) = quiet {
            let all = self.jobs.iter_mut().flat_map(|entry| &mut entry.history.attempts);
            for attempt in all.filter(|a| a.uid == quiet.attempt && a.quiet_until.is_none()) {
                attempt.quiet_until = Some(quiet.until);
                attempt.version += 1;
            }
        }
        true
    }

    pub(super) fn park(&mut self, fence: Fence, boot: Boot, waiting: &Waiting) -> bool {
        let Some(i) = self.index(fence.job) else { return false };
        let job = self.jobs[i].job();
        let current = job.epoch == fence.epoch || self.flaws.no_fence;
        if !current || job.owner != Some(boot) || job.state != JobState::Awaiting {
            return false;
        }
        self.set_waiting(i, waiting);
        self.jobs[i].history.job.owner = None;
        true
    }

    /// Of a job without children: nobody else is asked to end.
    fn call_group_off(&mut self, fence: Fence, boot: Boot, (code, why): (&str, &str)) -> bool {
        let Some(i) = self.index(fence.job) else { return false };
        let job = self.jobs[i].job();
        if job.epoch != fence.epoch || job.owner != Some(boot) || job.state != JobState::Awaiting {
            return false;
        }
        let job = self.touch(i);
        job.owner = None;
        job.due_at = None;
        code.clone_into(&mut job.why_code);
        why.clone_into(&mut job.why);
        // The row is taken once more, to look at its children.
        self.touch(i);
        true
    }

    fn begin_undo(&mut self, fence: Fence, boot: Boot, why: &str) -> bool {
        let Some(i) = self.index(fence.job) else { return false };
        let job = self.jobs[i].job();
        let current = job.epoch == fence.epoch || self.flaws.no_fence;
        let from = matches!(job.state, JobState::Running | JobState::Awaiting);
        if !current || job.owner != Some(boot) || !from {
            return false;
        }
        let job = self.touch(i);
        job.state = JobState::Undoing;
        job.undo_begun = true;
        "undo".clone_into(&mut job.why_code);
        why.clone_into(&mut job.why);
        true
    }

    fn next_try(&mut self, fence: Fence, from: i32, why: &str) -> bool {
        let Some(i) = self.index(fence.job) else { return false };
        let job = self.jobs[i].job();
        let current = job.epoch == fence.epoch || self.flaws.no_fence;
        if current && job.state == JobState::Awaiting && job.try_no == from && job.cancel_by.is_none() {
            let job = self.touch(i);
            job.state = JobState::Running;
            job.try_no = from + 1;
            "next-try".clone_into(&mut job.why_code);
            why.clone_into(&mut job.why);
            return true;
        }
        // The commit of this very move was unknown and it runs again: as wanted means it was mine.
        current && job.state == JobState::Running && job.try_no == from + 1
    }

    /// What was seen of a watch, and whether that decides it.
    pub(crate) fn verdict(&mut self, seen: &Evidence, decides: Option<WatchUid>) -> bool {
        if self.flaws.fenced_verdict
            && let Some(i) = self.index(seen.job)
            && self.jobs[i].watched_in != self.jobs[i].job().epoch.0
        {
            return false;
        }
        let first = self.insert_evidence(seen);
        if let Some(uid) = decides {
            let now = self.now;
            let all = self.jobs.iter_mut().flat_map(|entry| &mut entry.history.watches);
            all.filter(|w| w.uid == uid && w.done_at.is_none()).for_each(|w| w.done_at = Some(now));
        }
        first
    }

    /// Asks for a cancel; false when the job has ended or was asked before.
    pub(crate) fn cancel_asked(&mut self, uid: JobUid, who: &str) -> bool {
        let Some(i) = self.index(uid) else { return false };
        let (job, now): (_, Micros) = (self.jobs[i].job(), self.now);
        if job.ended_at.is_some() || job.cancel_by.is_some() {
            return false;
        }
        let job = self.touch(i);
        job.cancel_by = Some(who.to_owned());
        job.due_at = Some(now);
        true
    }
}

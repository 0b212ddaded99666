//! Ends, each written once.

use super::Rows;
use crate::model::{AttemptOutcome, Boot, JobState, Micros, ServerStatus};
use crate::store::provisioning::transition::{End, Sent};

impl Rows {
    pub(crate) fn end(&mut self, end: &End) -> bool {
        let Some(i) = self.index(end.fence.job) else { return false };
        let Some(held) = self.held(end.fence) else {
            let job = self.jobs[i].job();
            return job.epoch == end.fence.epoch && job.state == end.state;
        };
        let history = &self.jobs[held].history;
        let job = &history.job;
        let fits = match end.state {
            JobState::Complete => {
                job.state == JobState::Awaiting
                    && job.try_no == end.try_no
                    && !job.undo_begun
                    && (end.cancel_known || job.cancel_by.is_none())
            }
            JobState::Failed | JobState::Cancelled => {
                !history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open)
            }
            _ => true,
        };
        if !fits {
            return job.state == end.state;
        }
        let now = self.now;
        let job = self.touch(i);
        job.state = end.state;
        job.ended_at = Some(now);
        job.owner = None;
        job.due_at = None;
        job.message = Some(end.message.clone());
        job.why_code.clone_from(&end.code);
        job.why.clear();
        self.after_end(i, end, now);
        true
    }

    fn after_end(&mut self, i: usize, end: &End, now: Micros) {
        if end.state != JobState::Complete {
            let open = self.jobs[i].history.watches.iter_mut().filter(|w| w.done_at.is_none());
            open.for_each(|w| w.done_at = Some(now));
        }
        if let Some(seen) = &end.seen {
            self.saw(seen);
            if seen.status == ServerStatus::Terminated {
                self.revoke(|agent| agent.server == Some(seen.server.0));
            }
        }
        let uid = end.fence.job;
        if matches!(end.state, JobState::Failed | JobState::Cancelled) {
            let name = uid.to_string();
            self.revoke(|agent| agent.job == name);
        }
        if let Some(row) = end.server.and_then(|id| self.servers.get_mut(&id.0)) {
            row.busy_by.take_if(|by| *by == uid.to_string());
        }
        if let Some(owed) = &end.obligation {
            self.owed.entry(owed.tag.clone()).or_insert_with(|| (uid, owed.clone()));
        }
    }

    pub(super) fn withdraw(&mut self, boot: Boot, command: &str, (unsent, sent): (&End, &Sent)) -> bool {
        if !self.may_act(unsent.fence, boot, JobState::Awaiting) {
            return false;
        }
        if self.expire(command) {
            return self.end(unsent);
        }
        match sent {
            Sent::Park(waiting) => {
                self.call_off(command, unsent.fence.epoch);
                self.park(unsent.fence, boot, waiting)
            }
            Sent::End(unknown) => self.end(unknown),
        }
    }
}

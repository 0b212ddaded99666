//! The rules over the rows: pure, one function an invariant or two.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::rows::{AttemptRow, CommandRow, JobRow, Rows};
use super::{Invariant, Moment, Violation};
use crate::model::{AttemptOutcome, JobKind, JobState, Micros, ServerStatus, Verdict};
use crate::store::provisioning::agent::command;
use crate::store::provisioning::group::WAITS_TURN;
use crate::store::provisioning::node::ALIVE;
use crate::store::provisioning::transition::{PACE, PLACE};

/// What an end may take beyond deadline and Q.
const MARGIN: Duration = Duration::from_secs(60);
/// Machine codes of jobs that a pause, a limit of their account or their turn in a group holds.
const HELD: [&str; 4] = ["pause", PLACE, PACE, WAITS_TURN];
/// Machine code of an end by a person's word, and the beginning of such a source.
const PERSON: &str = "person";
/// Sources of what a guest said of a command: that it began, and how it ended.
const GUEST: [&str; 2] = ["agent-started", "agent"];

/// The rows, found by what names them.
struct Book<'a> {
    rows: &'a Rows,
    jobs: HashMap<&'a str, &'a JobRow>,
    attempts: HashMap<&'a str, Vec<&'a AttemptRow>>,
    found: Vec<Violation>,
}

pub(super) fn breaches(rows: &Rows, moment: Moment) -> Vec<Violation> {
    let mut attempts: HashMap<&str, Vec<&AttemptRow>> = HashMap::new();
    for attempt in &rows.attempts {
        attempts.entry(&attempt.job).or_default().push(attempt);
    }
    let jobs = rows.jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
    let mut book = Book { rows, jobs, attempts, found: Vec::new() };
    for job in &rows.jobs {
        book.end(job);
        book.epochs(job);
        book.open_job(job, moment);
        book.left_open(job);
        book.complete(job);
        book.made(job);
        book.child(job);
    }
    book.calls();
    book.same_bytes();
    book.commands();
    book.output();
    book.servers();
    book.requests();
    book.found
}

fn is(job: &JobRow, state: JobState) -> bool {
    job.state == state.as_str()
}

fn gave_up(job: &JobRow) -> bool {
    is(job, JobState::Failed) || is(job, JobState::Cancelled)
}

fn open(attempt: &AttemptRow) -> bool {
    attempt.outcome == AttemptOutcome::Open.as_str()
}

impl<'a> Book<'a> {
    fn add(&mut self, invariant: Invariant, job: Option<&JobRow>, text: impl Into<String>) {
        self.found.push(Violation { invariant, job: job.map(|job| job.id), text: text.into() });
    }

    fn of(&self, job: &JobRow) -> Vec<&'a AttemptRow> {
        self.attempts.get(job.uid.as_str()).cloned().unwrap_or_default()
    }

    fn owed(&self, job: &JobRow) -> bool {
        self.rows.obligations.contains(&job.uid)
    }

    fn end(&mut self, job: &JobRow) {
        let end = job.state.parse().is_ok_and(JobState::is_end);
        if end != job.ended_at.is_some() {
            let text = format!("{} with its end written {:?}", job.state, job.ended_at);
            self.add(Invariant::I1, Some(job), text);
        }
        if end && (job.owner.is_some() || job.due_at.is_some() || job.message.is_none()) {
            let text = format!("{} with an owner or a due time, or without a message", job.state);
            self.add(Invariant::I1, Some(job), text);
        }
    }

    fn epochs(&mut self, job: &JobRow) {
        let attempts = self.of(job);
        for attempt in &attempts {
            if attempt.epoch < 1 || attempt.epoch > job.epoch {
                let text =
                    format!("attempt {} has epoch {}, the job {}", attempt.uid, attempt.epoch, job.epoch);
                self.add(Invariant::I2, Some(job), text);
            }
        }
        if job.owner.is_some() && job.epoch < 1 {
            self.add(Invariant::I2, Some(job), "owned without a claim");
        }
        for pair in attempts.windows(2) {
            if let [before, after] = pair
                && after.epoch < before.epoch
                && after.started_at > before.started_at
            {
                let text = format!(
                    "attempt {} of epoch {} was written after attempt {} of epoch {}",
                    after.uid, after.epoch, before.uid, before.epoch
                );
                self.add(Invariant::I3, Some(job), text);
            }
        }
        let mut numbers = HashSet::new();
        for attempt in &attempts {
            if !numbers.insert((&attempt.step, attempt.try_no, attempt.n)) {
                let text = format!(
                    "two attempts are call {} of {}, round {}",
                    attempt.n, attempt.step, attempt.try_no
                );
                self.add(Invariant::I3, Some(job), text);
            }
        }
    }

    fn open_job(&mut self, job: &JobRow, moment: Moment) {
        let last = Micros(job.deadline).plus(moment.quiet).plus(MARGIN);
        let held = is(job, JobState::Queued) && HELD.contains(&job.why_code.as_str());
        if job.ended_at.map_or(!held && moment.now > last, |ended| Micros(ended) > last) {
            let text = format!("{}, its time was over at {}", job.state, last.rfc3339());
            self.add(Invariant::I13, Some(job), text);
        }
        if job.ended_at.is_some() {
            return;
        }
        let owner = job.owner.as_ref().map(|owner| self.rows.nodes.iter().find(|node| node.boot == *owner));
        let alive = owner.is_some_and(|node| node.is_some_and(|node| node.state == ALIVE));
        if owner.is_some_and(|node| node.is_none()) {
            self.add(Invariant::I12, Some(job), "its owner is no life that is known");
        }
        let mut watches = self.rows.watches.iter().filter(|watch| watch.job == job.uid);
        let watched = watches.any(|watch| watch.try_no == job.try_no && watch.done_at.is_none());
        let found_again = if job.owner.is_some() { alive } else { job.due_at.is_some() || watched || held };
        if !found_again {
            self.add(Invariant::I10, Some(job), format!("{}, and nobody will look at it", job.state));
        }
    }

    fn left_open(&mut self, job: &JobRow) {
        let attempts = self.of(job);
        if (gave_up(job) || is(job, JobState::Complete))
            && let Some(attempt) = attempts.iter().find(|attempt| open(attempt))
        {
            let text = format!("{} with call {} of {} open", job.state, attempt.n, attempt.step);
            self.add(Invariant::I6, Some(job), text);
        }
        for attempt in attempts.iter().filter(|attempt| open(attempt) == attempt.closed_at.is_some()) {
            let text =
                format!("attempt {} is {}, closed {:?}", attempt.uid, attempt.outcome, attempt.closed_at);
            self.add(Invariant::I4, Some(job), text);
        }
    }

    fn complete(&mut self, job: &JobRow) {
        if !is(job, JobState::Complete) {
            return;
        }
        // A command that had run when its cancel reached the guest has run.
        let unwanted = job.cancel_by.is_some() && job.kind != JobKind::RunCommand.as_str();
        if unwanted || job.undo_begun {
            self.add(
                Invariant::I7,
                Some(job),
                "complete although its cancel was asked or its undo had begun",
            );
        }
        let watch = self.rows.watches.iter().find(|watch| watch.job == job.uid && watch.try_no == job.try_no);
        let reached = self.rows.evidence.iter().any(|seen| {
            let decides = match watch {
                Some(watch) if watch.done_at.is_some() => seen.subject == watch.uid,
                _ => false,
            };
            let said = job.why_code == PERSON && seen.source.starts_with(PERSON);
            seen.job == job.uid && seen.verdict == Verdict::Reached.as_str() && (decides || said)
        });
        if !reached {
            self.add(Invariant::I7, Some(job), format!("complete without evidence of round {}", job.try_no));
        }
    }

    /// A group does not end before its children, and is complete only where all of them are.
    fn child(&mut self, job: &JobRow) {
        let group = job.parent.and_then(|id| self.rows.jobs.iter().find(|group| group.id == id));
        let Some(group) = group else {
            if job.parent.is_some() {
                self.add(Invariant::I11, Some(job), "its group is not there");
            }
            return;
        };
        let by_word = group.why_code == PERSON || group.why_code == "crashes";
        if group.ended_at.is_some() && job.ended_at.is_none() && !by_word {
            self.add(Invariant::I7, Some(group), format!("{} before its child {}", group.state, job.id));
        }
        if is(group, JobState::Complete) && !is(job, JobState::Complete) {
            self.add(
                Invariant::I7,
                Some(group),
                format!("complete, and its child {} is {}", job.id, job.state),
            );
        }
    }

    fn made(&mut self, job: &JobRow) {
        let attempts = self.of(job);
        let launch = job.kind == JobKind::LaunchServer.as_str();
        if job.resource.is_some() && !attempts.iter().any(|a| a.outcome == AttemptOutcome::Ok.as_str()) {
            self.add(Invariant::I4, Some(job), "it made something without an attempt that did");
        }
        if launch && is(job, JobState::Unresolved) && !attempts.is_empty() && !self.owed(job) {
            self.add(Invariant::I8, Some(job), "unresolved, and nobody looks for what may turn up");
        }
    }

    fn calls(&mut self) {
        let rows = self.rows;
        for watch in &rows.watches {
            let call = |a: &AttemptRow| {
                (&a.job, &a.step, a.try_no) == (&watch.job, &watch.step, watch.try_no)
                    && a.outcome == AttemptOutcome::Ok.as_str()
            };
            // A group makes no call: it waits for its children from the beginning.
            let of = self.jobs.get(watch.job.as_str());
            if of.is_some_and(|job| job.kind == JobKind::Group.as_str()) {
                continue;
            }
            let attempts = self.attempts.get(watch.job.as_str());
            if !attempts.is_some_and(|attempts| attempts.iter().any(|attempt| call(attempt))) {
                let text = format!("watch {} of {} has no call that took effect", watch.uid, watch.step);
                self.add(Invariant::I4, self.jobs.get(watch.job.as_str()).copied(), text);
            }
        }
        let of_nobody = rows.attempts.iter().map(|attempt| (&attempt.job, "attempt", &attempt.uid));
        let of_nobody = of_nobody.chain(rows.watches.iter().map(|watch| (&watch.job, "watch", &watch.uid)));
        let of_nobody =
            of_nobody.chain(rows.commands.iter().map(|command| (&command.job, "command", &command.id)));
        for (job, what, name) in of_nobody {
            if !self.jobs.contains_key(job.as_str()) {
                self.add(Invariant::I11, None, format!("{what} {name} is of job {job}, which is not there"));
            }
        }
    }

    fn same_bytes(&mut self) {
        let rows = self.rows;
        let mut first: HashMap<(&str, &str, i32, i32), &AttemptRow> = HashMap::new();
        let mut tokens: HashMap<&str, &str> = HashMap::new();
        for attempt in &rows.attempts {
            let job = self.jobs.get(attempt.job.as_str()).copied();
            // A command is another one in each round; a request is the same in all of them.
            let round = if attempt.request.is_empty() { attempt.try_no } else { 0 };
            let other = first.entry((&attempt.job, &attempt.step, attempt.variant, round)).or_insert(attempt);
            if (&other.token, &other.request) != (&attempt.token, &attempt.request) {
                let text = format!("attempts {} and {} of {} differ", other.uid, attempt.uid, attempt.step);
                self.add(Invariant::I5, job, text);
            }
            if !attempt.token.is_empty()
                && *tokens.entry(&attempt.token).or_insert(&attempt.job) != attempt.job
            {
                self.add(Invariant::I14, job, format!("another job has its token {}", attempt.token));
            }
        }
    }

    fn commands(&mut self) {
        let rows = self.rows;
        let mut attempts = HashSet::new();
        for command in &rows.commands {
            let Some(job) = self.jobs.get(command.job.as_str()).copied() else { continue };
            if command.epoch < 1 || command.epoch > job.epoch {
                let text =
                    format!("command {} has epoch {}, the job {}", command.id, command.epoch, job.epoch);
                self.add(Invariant::I2, Some(job), text);
            }
            if !self.of(job).iter().any(|attempt| attempt.uid == command.attempt) {
                self.add(Invariant::I4, Some(job), format!("command {} has no attempt", command.id));
            }
            if !attempts.insert(&command.attempt) {
                self.add(Invariant::I9, Some(job), format!("two commands of attempt {}", command.attempt));
            }
            let heard = rows
                .evidence
                .iter()
                .any(|seen| seen.subject == command.attempt && GUEST.contains(&seen.source.as_str()));
            if command.state == command::EXPIRED && heard {
                let text = format!("command {} was taken back, and its guest speaks of it", command.id);
                self.add(Invariant::I9, Some(job), text);
            }
            if gave_up(job) && job.why_code != PERSON && !is_over(command, job) {
                let text = format!("{} while command {} was {}", job.state, command.id, command.state);
                self.add(Invariant::I6, Some(job), text);
            }
        }
    }

    fn output(&mut self) {
        for pair in self.rows.output.windows(2) {
            if let [(id, stream, start, bytes), (next, same, then, _)] = pair
                && (id, stream) == (next, same)
                && start + bytes != *then
            {
                let job = self.rows.commands.iter().find(|command| command.id == *id);
                let job = job.and_then(|command| self.jobs.get(command.job.as_str()).copied());
                let text = format!("{stream} of {id} goes on at byte {then} after byte {}", start + bytes);
                self.add(Invariant::I9, job, text);
            }
        }
    }

    fn servers(&mut self) {
        let rows = self.rows;
        for server in &rows.servers {
            let there = server.status != ServerStatus::Terminated.as_str();
            match self.jobs.get(server.job.as_str()).copied() {
                None => {
                    let text =
                        format!("server {} was made by job {}, which is not there", server.id, server.job);
                    self.add(Invariant::I8, None, text);
                }
                Some(job) if there && gave_up(job) && !self.owed(job) => {
                    let text = format!("{}, and its server {} is {}", job.state, server.id, server.status);
                    self.add(Invariant::I8, Some(job), text);
                }
                Some(_) => {}
            }
            let holder = server.busy_by.as_ref().and_then(|holder| self.jobs.get(holder.as_str()).copied());
            if let Some(job) = holder.filter(|job| job.ended_at.is_some()) {
                self.add(
                    Invariant::I8,
                    Some(job),
                    format!("it has ended and still holds server {}", server.id),
                );
            }
        }
    }

    fn requests(&mut self) {
        let rows = self.rows;
        let mut requests: HashMap<&str, i64> = HashMap::new();
        // Children come with the request of their group.
        for job in rows.jobs.iter().filter(|job| job.parent.is_none()) {
            let first = *requests.entry(&job.request).or_insert(job.id);
            if first != job.id {
                self.add(Invariant::I11, Some(job), format!("job {first} is of the same request"));
            }
        }
        let mut named = HashSet::new();
        for (key, job) in rows.keys.iter().filter_map(|(key, job)| Some((key, job.as_ref()?))) {
            match self.jobs.get(job.as_str()).copied() {
                None => {
                    self.add(Invariant::I11, None, format!("key {key} names job {job}, which is not there"));
                }
                found if !named.insert(job) => self.add(Invariant::I11, found, "two keys name it"),
                Some(_) => {}
            }
        }
    }
}

/// Whether a command can do nothing any more, and had done so before its job ended.
fn is_over(command: &CommandRow, job: &JobRow) -> bool {
    match command.state.as_str() {
        command::EXPIRED => true,
        command::DONE => command.done_at <= job.ended_at,
        _ => false,
    }
}

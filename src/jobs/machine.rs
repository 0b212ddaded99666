//! What a job does next: pure, from its rows, the evidence, the time and the provider's class.
//!
//! The order of the questions is that of `docs/PROTOCOL.md` section 8; each answer is one [`Plan`] that the driver
//! carries out and then asks again. Nothing here reads a clock, a socket or a row.

use std::time::Duration;

use super::steps::{Effect, Step, UNDO, step_of};
use crate::cloud::{Machine, TokenClass};
use crate::model::{
    AttemptOutcome, AttemptUid, Boot, ErrorClass, JobState, Micros, Rollup, ServerStatus, Verdict,
};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::job::{Attempt, Evidence, History, Job};
use crate::store::provisioning::watch::Watch;
use crate::wire::{CommandResult, Outcome};

/// How long things may take before a job changes its mind. All from configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    /// First pause after a refusal worth another try; doubles.
    pub retry_first: Duration,
    /// Longest pause between tries.
    pub retry_most: Duration,
    /// Calls of one step in one round.
    pub calls: i32,
    /// Takeovers in a row without progress, after which a job is set aside.
    pub crashes: i32,
    /// How long a job is set aside that kills its process.
    pub set_aside: Duration,
    /// Rounds of a step whose effect was seen not to last.
    pub tries: i32,
    /// How long beyond its deadline a job may still look for an unknown outcome, on top of Q.
    pub grace: Duration,
    /// How long after a job's end what may still turn up of it is looked for.
    pub look_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(30),
            calls: 8,
            crashes: 5,
            set_aside: Duration::from_secs(60),
            tries: 3,
            grace: Duration::from_secs(30),
            look_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// What the provider promises for the job's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Promise {
    /// How it tells a repeated create.
    pub class: TokenClass,
    /// Q: how long an unanswered create may still land and become visible.
    pub quiet: Duration,
    /// How long a token is remembered.
    pub token_kept: Duration,
}

/// All a decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Rows of the job.
    pub history: &'a History,
    /// The time, in the database's clock.
    pub now: Micros,
    /// This life.
    pub boot: Boot,
    /// The provider's promise; none for jobs that call no cloud.
    pub promise: Option<Promise>,
    /// Limits.
    pub limits: &'a Limits,
    /// Since when this life works at the job: after an outage it gets its chance, however late it is.
    pub since: Micros,
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Ending {
    /// Which end.
    pub state: JobState,
    /// Machine code of the cause.
    pub code: String,
    /// What clients read.
    pub message: String,
}

impl Ending {
    fn new(state: JobState, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { state, code: code.into(), message: message.into() }
    }

    fn unresolved(code: &str, what: &str) -> Self {
        Self::new(JobState::Unresolved, code, format!("outcome unknown: {what}"))
    }
}

/// The next move.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum Plan {
    /// Ended, or another life's: leave it alone.
    Leave,
    /// Nothing to do until a verdict, a cancel or its due time.
    Rest,
    /// Become its owner and go on in this state.
    Claim(JobState),
    /// Write an attempt of the step and send it.
    Send {
        /// Which call of the step in this round, from 1.
        n: i32,
    },
    /// Ask the world about an open attempt.
    Resolve {
        /// The attempt.
        attempt: AttemptUid,
        /// Whether the same request may be sent again when the look finds nothing.
        resend: bool,
    },
    /// Begin another round of the step: what the last one did was seen not to last.
    NextTry {
        /// Why.
        why: String,
    },
    /// Say that taking back begins.
    BeginUndo {
        /// Why.
        why: String,
    },
    /// Take back what was made: look, and send what is still needed.
    Undo {
        /// Which call of it, from 1.
        n: i32,
    },
    /// End it.
    End(Ending),
    /// Set it aside without an owner until a time.
    Quarantine {
        /// Until when.
        until: Micros,
        /// Machine code.
        code: &'static str,
        /// Why.
        why: String,
        /// The open attempt whose time is waited out from now on.
        quiet: Option<AttemptUid>,
    },
    /// Give it up again: it waits for a verdict.
    Park {
        /// Until when at the latest.
        until: Micros,
        /// Machine code.
        code: String,
        /// Why.
        why: String,
    },
    /// Ask its open children to end, and wait for them without an owner.
    CallOff {
        /// In whose name.
        who: String,
        /// Machine code.
        code: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Take its command back where the guest cannot have got it.
    Withdraw {
        /// The command.
        command: String,
        /// How it ends when the command was never sent.
        unsent: Ending,
        /// How it ends when it was sent; none means that it waits for the guest's answer.
        sent: Option<Ending>,
        /// Until when it waits.
        until: Micros,
    },
    /// Keep it and wait.
    Wait {
        /// Until when.
        until: Micros,
        /// Machine code.
        code: String,
        /// Why.
        why: String,
    },
}

/// Machine code of a quarantine that waits out Q.
pub const LATE_CREATE: &str = "late-create";
/// Machine code of a wait for the verdict of an effect that a cancel cannot take back.
pub const CANCEL_SENT: &str = "cancel-sent";
/// Machine code of a group whose time limit has passed and that waits for its children's ends.
pub const GROUP_OVER: &str = "group-over";
/// Machine code of a quarantine after crashes.
pub const CRASHES: &str = "crashes";

/// Decides the next move.
#[must_use]
pub fn plan(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    if job.ended_at.is_some() || job.owner.is_some_and(|owner| owner != facts.boot) {
        return Plan::Leave;
    }
    let plan = match job.owner {
        None => unowned(facts),
        Some(_) => owned(facts),
    };
    // A fault on purpose must be seen by what it does, not here.
    debug_assert!(cfg!(feature = "sabotage") || is_legal(facts.history, &plan), "{plan:?} for {job:?}");
    plan
}

/// Whether the protocol allows this move from these rows (I4, I6, I7 of its invariants); for assertions.
fn is_legal(history: &History, plan: &Plan) -> bool {
    let job = &history.job;
    let open = history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    match plan {
        Plan::Send { .. } => {
            !matches!(job.state, JobState::Awaiting | JobState::Undoing) && job.cancel_by.is_none() && !open
        }
        Plan::NextTry { .. } => job.state == JobState::Awaiting && job.cancel_by.is_none() && !open,
        Plan::BeginUndo { .. } => job.state != JobState::Undoing,
        Plan::Undo { .. } => job.state == JobState::Undoing && !open,
        Plan::End(end) => match end.state {
            JobState::Complete => {
                let reached = verdict_of_this_try(history).is_some_and(|e| e.verdict == Verdict::Reached);
                let command = step_of(job.params.kind()).effect == Effect::Command;
                let wanted = (job.cancel_by.is_none() || command) && !job.undo_begun;
                job.state == JobState::Awaiting && reached && wanted && !open
            }
            JobState::Failed | JobState::Cancelled => !open,
            _ => true,
        },
        _ => true,
    }
}

/// The takeovers that count after a claim: a job that was set aside for them gets one more chance.
#[must_use]
pub fn crashes_after_claim(job: &Job, limits: &Limits) -> i32 {
    if job.state == JobState::Quarantined { job.crashes.min(limits.crashes - 1) } else { job.crashes }
}

fn unowned(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    let due = job.due_at.is_some_and(|at| at <= facts.now);
    match job.state {
        JobState::Queued if due || job.cancel_by.is_some() => Plan::Claim(JobState::Running),
        JobState::Awaiting => awaiting(facts, due),
        JobState::Quarantined if due => Plan::Claim(resumed(facts.history)),
        // No move leaves such a row; it would stay for ever.
        state @ (JobState::Running | JobState::Undoing) => Plan::Claim(state),
        _ => Plan::Rest,
    }
}

/// Where a job goes on that was set aside.
fn resumed(history: &History) -> JobState {
    if history.job.undo_begun {
        JobState::Undoing
    } else if watch_of_this_try(history).is_some() {
        JobState::Awaiting
    } else {
        JobState::Running
    }
}

/// A verdict decides without an owner where it ends the job; everything else is claimed first.
fn awaiting(facts: &Facts<'_>, due: bool) -> Plan {
    let job = &facts.history.job;
    let claim = Plan::Claim(JobState::Awaiting);
    let open = facts.history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    match (verdict_of_this_try(facts.history), &job.cancel_by) {
        (Some(_), None) if open => claim,
        (Some(verdict), None) => match decided(facts, verdict) {
            Plan::BeginUndo { .. } | Plan::NextTry { .. } => claim,
            other => other,
        },
        (Some(_), Some(_)) => claim,
        (None, Some(_)) if job.why_code != CANCEL_SENT => claim,
        (None, _) if due && waits_until(facts.history) <= facts.now => claim,
        (None, _) => Plan::Rest,
    }
}

/// When a job that waits for a verdict waits no longer.
fn waits_until(history: &History) -> Micros {
    watch_of_this_try(history).map_or(history.job.deadline, |watch| watch.deadline)
}

fn owned(facts: &Facts<'_>) -> Plan {
    let history = facts.history;
    let job = &history.job;
    if job.crashes >= facts.limits.crashes {
        return set_aside(facts);
    }
    if let Some(open) = history.attempts.iter().find(|a| a.outcome == AttemptOutcome::Open) {
        return resolve(facts, open);
    }
    match job.state {
        JobState::Undoing => undo(facts),
        JobState::Awaiting => owned_awaiting(facts),
        _ if job.cancel_by.is_some() => give_up(facts, cancelled(job)),
        _ if job.deadline <= facts.now => give_up(facts, too_late(job)),
        _ => go_on(facts),
    }
}

fn cancelled(job: &Job) -> Ending {
    Ending::new(JobState::Cancelled, "cancelled", cancelled_text(job))
}

fn cancelled_text(job: &Job) -> String {
    format!("cancelled by {}", job.cancel_by.as_deref().unwrap_or("its owner"))
}

fn too_late(job: &Job) -> Ending {
    let why = if job.why.is_empty() { "no verdict came" } else { &job.why };
    Ending::new(JobState::Failed, "deadline", format!("not finished within its time limit: {why}"))
}

/// Whether the job has had its time, Q and the margin, and this life has had its own chance.
fn out_of_time(facts: &Facts<'_>) -> bool {
    last_moment(facts) <= facts.now && facts.since.plus(facts.limits.grace) <= facts.now
}

fn last_moment(facts: &Facts<'_>) -> Micros {
    let quiet = facts.promise.map_or(Duration::ZERO, |p| p.quiet);
    facts.history.job.deadline.plus(quiet).plus(facts.limits.grace)
}

fn set_aside(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    let last = last_moment(facts);
    if last <= facts.now {
        return Plan::End(Ending::unresolved(CRASHES, "its process crashed again and again while it ran"));
    }
    Plan::Quarantine {
        until: facts.now.plus(facts.limits.set_aside).min(last),
        code: CRASHES,
        why: format!("set aside: {} processes in a row crashed while it ran", job.crashes),
        quiet: None,
    }
}

/// A job that waits for a verdict and was claimed, because there is one, or a cancel, or no more time.
fn owned_awaiting(facts: &Facts<'_>) -> Plan {
    let (history, job) = (facts.history, &facts.history.job);
    let effect = step_of(job.params.kind()).effect;
    let over = waits_until(history) <= facts.now;
    if effect == Effect::Children {
        return owned_group(facts, over);
    }
    let lasting = matches!(effect, Effect::Move(_) | Effect::Command);
    match (verdict_of_this_try(history), job.cancel_by.is_some()) {
        (Some(verdict), false) => decided(facts, verdict),
        (Some(verdict), true) if effect == Effect::Command => Plan::End(command_too_late(job, verdict)),
        (Some(verdict), true) if lasting => Plan::End(cancelled_too_late(job, verdict)),
        (_, true) if !lasting => give_up(facts, cancelled(job)),
        (None, cancel) if effect == Effect::Command && (over || cancel && job.why_code != CANCEL_SENT) => {
            withdraw(facts, over)
        }
        (None, true) if over => {
            let text = format!("{}; its call was accepted, its effect was not seen", cancelled_text(job));
            Plan::End(Ending::new(JobState::Cancelled, "cancelled", text))
        }
        (None, true) => Plan::Park {
            until: waits_until(history),
            code: CANCEL_SENT.to_owned(),
            why: "cancel asked; its call was accepted and cannot be taken back, it ends when the effect is seen"
                .to_owned(),
        },
        (None, false) if over => give_up(facts, too_late(job)),
        (_, _) => Plan::Park {
            until: waits_until(history),
            code: "verdict".to_owned(),
            why: format!("waiting until {} is seen", step_of(job.params.kind()).expectation()),
        },
    }
}

/// A group that was claimed: decided, cancelled or out of time. It never ends before its children have.
fn owned_group(facts: &Facts<'_>, over: bool) -> Plan {
    let (history, job) = (facts.history, &facts.history.job);
    if let Some(verdict) = verdict_of_this_try(history) {
        return Plan::End(group_end(job, verdict));
    }
    match &job.cancel_by {
        Some(who) => Plan::CallOff {
            who: who.clone(),
            code: CANCEL_SENT,
            why: "cancel asked, of its children too; it ends when they have ended",
        },
        None if over || job.why_code == GROUP_OVER => Plan::CallOff {
            who: format!("group {}: its time limit has passed", job.id),
            code: GROUP_OVER,
            why: "its time limit has passed, its children were asked to end; it ends when they have ended",
        },
        None => Plan::Park {
            until: waits_until(history),
            code: "verdict-children".to_owned(),
            why: "waiting until its children have ended".to_owned(),
        },
    }
}

/// The end of a group: never better than that of its worst child, nor than what was done to the group itself.
fn group_end(job: &Job, verdict: &Evidence) -> Ending {
    let worst = Rollup::end_of(verdict.verdict);
    let (state, text) = if job.cancel_by.is_some() {
        let text = format!("{}; by then: {}", cancelled_text(job), verdict.text);
        (Rollup::worse(worst, JobState::Cancelled), text)
    } else if job.why_code == GROUP_OVER {
        let text = format!("not finished within its time limit: {}", verdict.text);
        (Rollup::worse(worst, JobState::Failed), text)
    } else {
        (worst, verdict.text.clone())
    };
    let code = match state {
        JobState::Complete => "verified",
        JobState::Cancelled => "cancelled",
        JobState::Failed if job.why_code == GROUP_OVER => "deadline",
        JobState::Failed => "failed",
        _ => "unknown",
    };
    Ending::new(state, code, text)
}

/// The end of a job whose effect was decided before its cancel could do anything.
fn cancelled_too_late(job: &Job, verdict: &Evidence) -> Ending {
    if verdict.verdict == Verdict::Unknown {
        return Ending::unresolved("unknown", &format!("{}; {}", cancelled_text(job), verdict.text));
    }
    let text = format!("{}; by then: {}", cancelled_text(job), verdict.text);
    Ending::new(JobState::Cancelled, "cancelled", text)
}

/// The end of a command whose cancel was asked, by what its guest says: cancelled where it was ended or never ran; else
/// what it did stands, and the cancel came too late.
fn command_too_late(job: &Job, verdict: &Evidence) -> Ending {
    let result: Option<CommandResult> = serde_json::from_str(&verdict.raw).ok();
    let ended = result.is_some_and(|result| result.outcome == Outcome::Cancelled);
    let late = |text: &str| format!("{text}; its cancel came too late ({})", cancelled_text(job));
    match verdict.verdict {
        Verdict::Reached => Ending::new(JobState::Complete, "verified", late(&verdict.text)),
        Verdict::Failed if !ended => Ending::new(JobState::Failed, "failed", late(&verdict.text)),
        Verdict::Unknown | Verdict::Pending => cancelled_too_late(job, verdict),
        Verdict::Failed | Verdict::Lost => Ending::new(
            JobState::Cancelled,
            "cancelled",
            format!("{}; {}", cancelled_text(job), verdict.text),
        ),
    }
}

/// Takes a command back: the guest may have it, or it still waits in its queue.
fn withdraw(facts: &Facts<'_>, over: bool) -> Plan {
    let (history, job) = (facts.history, &facts.history.job);
    let Some(watch) = watch_of_this_try(history) else { return Plan::End(nobody_watches()) };
    let unsent = if job.cancel_by.is_some() {
        Ending { message: format!("{}; its command was never sent", cancelled_text(job)), ..cancelled(job) }
    } else {
        Ending {
            message: "not finished within its time limit: its command was never sent".into(),
            ..too_late(job)
        }
    };
    let sent =
        over.then(|| Ending::unresolved("unknown", "its command was sent and the guest never answered"));
    Plan::Withdraw { command: watch.target.clone(), unsent, sent, until: watch.deadline }
}

fn nobody_watches() -> Ending {
    Ending::unresolved(ErrorClass::Bug.as_str(), "the step is done but nobody watches it")
}

/// The next call of the step, or the pause before it, or the end after a refusal.
fn go_on(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    let step = step_of(job.params.kind());
    let Some(last) = last_of(facts.history, &step) else { return Plan::Send { n: 1 } };
    match last.outcome {
        AttemptOutcome::Refused => refused(facts, last),
        AttemptOutcome::Void if last.n >= facts.limits.calls => Plan::End(Ending::new(
            JobState::Failed,
            ErrorClass::Transient.as_str(),
            format!("given up after {} calls, none of which took effect: {}", last.n, last.evidence),
        )),
        AttemptOutcome::Void => Plan::Send { n: last.n + 1 },
        AttemptOutcome::Ok | AttemptOutcome::Open => Plan::End(nobody_watches()),
    }
}

fn refused(facts: &Facts<'_>, last: &Attempt) -> Plan {
    let class = last.class.unwrap_or(ErrorClass::Unknown);
    if !class.worth_retry() || last.n >= facts.limits.calls {
        let text = format!("{class}: {}", last.evidence);
        return Plan::End(Ending::new(JobState::Failed, class.as_str(), text));
    }
    let closed = last.closed_at.unwrap_or(last.started_at);
    // A provider that says how long it wants to be left alone is left alone so long.
    let asked = last.quiet_until.unwrap_or(closed);
    let until = closed.plus(pause(facts.limits, last.n)).max(asked).min(facts.history.job.deadline);
    if until <= facts.now {
        return Plan::Send { n: last.n + 1 };
    }
    Plan::Wait {
        until,
        code: class.to_string(),
        why: format!("call {} was refused ({class}); the next follows: {}", last.n, last.evidence),
    }
}

/// Pause after the n-th call, doubling.
#[must_use]
pub fn pause(limits: &Limits, n: i32) -> Duration {
    let doublings = u32::try_from(n.saturating_sub(1)).unwrap_or(0).min(16);
    limits.retry_first.saturating_mul(1 << doublings).min(limits.retry_most)
}

fn resolve(facts: &Facts<'_>, open: &Attempt) -> Plan {
    let job = &facts.history.job;
    if out_of_time(facts) {
        let text = format!("call {} of step {} was never answered", open.n, open.step);
        return Plan::End(Ending::unresolved("unknown", &text));
    }
    let again = Plan::Resolve { attempt: open.uid, resend: true };
    if open.step == UNDO {
        return again;
    }
    let unwanted = job.cancel_by.is_some() || job.deadline <= facts.now;
    match (step_of(job.params.kind()).effect, facts.promise) {
        (Effect::Create, Some(promise)) => resolve_create(facts, (open, promise), unwanted),
        // It may not be sent again for a job that is not wanted, and may still land.
        (Effect::Move(_), Some(promise)) if unwanted || open.quiet_until.is_some() => {
            wait_out(facts, open, promise.quiet)
        }
        (Effect::Command, _) => {
            Plan::End(Ending::unresolved(ErrorClass::Bug.as_str(), "a command was left without its row"))
        }
        (Effect::Nothing | Effect::Children | Effect::Move(_), _) => again,
        (Effect::Create, None) => Plan::Resolve { attempt: open.uid, resend: false },
    }
}

fn resolve_create(facts: &Facts<'_>, (open, promise): (&Attempt, Promise), unwanted: bool) -> Plan {
    if sabotaged(Fault::NoLook) || unwanted && sabotaged(Fault::LookAtCancel) {
        return Plan::Resolve { attempt: open.uid, resend: false };
    }
    match promise.class {
        // Even an unwanted create is sent again: only so is its token used up.
        TokenClass::K
            if open.quiet_until.is_none() && facts.now.since(open.started_at) < promise.token_kept =>
        {
            Plan::Resolve { attempt: open.uid, resend: true }
        }
        TokenClass::N if unwanted => Plan::End(Ending::unresolved(
            "unknown",
            "a create was never answered, and the provider has neither token nor tag to ask by",
        )),
        TokenClass::N => Plan::Quarantine {
            until: facts.history.job.deadline,
            code: "ask-operator",
            why: "the provider has neither token nor tag: an operator must say whether the server was made"
                .to_owned(),
            quiet: None,
        },
        TokenClass::K | TokenClass::S | TokenClass::T => wait_out(facts, open, promise.quiet),
    }
}

/// An unanswered call that nobody sends again: wait until it cannot land any more, then only look. The time is kept
/// with the attempt, so that neither a crash nor a cancel makes the look come too early.
fn wait_out(facts: &Facts<'_>, open: &Attempt, quiet: Duration) -> Plan {
    let until = open.quiet_until.unwrap_or_else(|| facts.now.plus(quiet));
    if open.quiet_until.is_some() && until <= facts.now {
        return Plan::Resolve { attempt: open.uid, resend: false };
    }
    Plan::Quarantine {
        until,
        code: LATE_CREATE,
        why: format!("set aside until {}: an earlier {} may still land", until.rfc3339(), open.step),
        quiet: open.quiet_until.is_none().then_some(open.uid),
    }
}

/// Ends a job that is not wanted any more: at once where nothing was made, else by taking it back.
fn give_up(facts: &Facts<'_>, ending: Ending) -> Plan {
    if made_something(facts.history) {
        return Plan::BeginUndo { why: ending.message };
    }
    Plan::End(ending)
}

/// Whether this job made a resource that would stay behind.
#[must_use]
pub fn made_something(history: &History) -> bool {
    step_of(history.job.params.kind()).effect == Effect::Create && history.job.resource.is_some()
}

fn undo(facts: &Facts<'_>) -> Plan {
    let last = facts.history.attempts.iter().rev().find(|a| a.step == UNDO);
    if out_of_time(facts) {
        let said = last.map_or("", |attempt| attempt.evidence.as_str());
        let text = format!("what was made could not be taken back: {said}");
        return Plan::End(Ending::unresolved("undo-refused", &text));
    }
    Plan::Undo { n: last.map_or(1, |attempt| attempt.n + 1) }
}

/// How a job whose undo has proved the resource gone ends, and with which words.
#[must_use]
pub fn end_after_undo(history: &History) -> Ending {
    let job = &history.job;
    if job.cancel_by.is_some() {
        return cancelled(job);
    }
    let seen = verdict_of_this_try(history).filter(|e| e.verdict == Verdict::Failed);
    let (code, cause) =
        seen.map_or(("deadline", "not finished within its time limit"), |e| ("failed", &*e.text));
    Ending::new(JobState::Failed, code, format!("{cause}; what was made was taken back"))
}

/// The deciding evidence of the watch of the current round.
#[must_use]
pub fn verdict_of_this_try(history: &History) -> Option<&Evidence> {
    let mut watch = watch_of_this_try(history);
    if sabotaged(Fault::AnyTry) {
        watch = history.watches.iter().find(|w| w.done_at.is_some());
    }
    let watch = watch.filter(|w| w.done_at.is_some())?;
    let name = watch.uid.to_string();
    history.evidence.iter().find(|e| e.subject == name && e.verdict != Verdict::Pending)
}

/// The watch of the current round.
#[must_use]
pub fn watch_of_this_try(history: &History) -> Option<&Watch> {
    history.watches.iter().find(|w| w.try_no == history.job.try_no)
}

fn last_of<'a>(history: &'a History, step: &Step) -> Option<&'a Attempt> {
    history.attempts.iter().rev().find(|a| a.step == step.name && a.try_no == history.job.try_no)
}

/// Whether a look showed the server in another state than the one a call moved it to, though that call and every
/// earlier one have had their time: the effect was lost, or an older call landed late and took it back.
fn did_not_last(history: &History, verdict: &Evidence) -> bool {
    let Effect::Move(operation) = step_of(history.job.params.kind()).effect else { return false };
    let shown: Option<Machine> = serde_json::from_str(&verdict.raw).ok();
    verdict.verdict == Verdict::Lost
        && operation.can_be_taken_back()
        && shown.is_some_and(|machine| machine.state != ServerStatus::Terminated)
}

/// What follows when an effect did not last: another round, as long as there are rounds and time.
fn once_more(facts: &Facts<'_>, verdict: &Evidence) -> Plan {
    let job = &facts.history.job;
    if job.try_no < facts.limits.tries && facts.now < job.deadline {
        let why = format!("round {} follows, the effect did not last: {}", job.try_no + 1, verdict.text);
        return Plan::NextTry { why };
    }
    let text = format!("the effect did not last in {} rounds: {}", job.try_no, verdict.text);
    Plan::End(Ending::new(JobState::Failed, "lost", text))
}

fn decided(facts: &Facts<'_>, verdict: &Evidence) -> Plan {
    let history = facts.history;
    let job = &history.job;
    if step_of(job.params.kind()).effect == Effect::Children {
        return Plan::End(group_end(job, verdict));
    }
    let failed = |code| Ending::new(JobState::Failed, code, verdict.text.clone());
    match verdict.verdict {
        Verdict::Reached => {
            let made = if step_of(job.params.kind()).effect == Effect::Create { job.server } else { None };
            let text = made.map_or_else(String::new, |id| id.to_string());
            Plan::End(Ending::new(JobState::Complete, "verified", text))
        }
        Verdict::Lost if did_not_last(history, verdict) => once_more(facts, verdict),
        Verdict::Lost => Plan::End(failed("lost")),
        Verdict::Failed if made_something(history) => Plan::BeginUndo { why: verdict.text.clone() },
        Verdict::Failed => Plan::End(failed("failed")),
        Verdict::Unknown => Plan::End(Ending::unresolved("unknown", &verdict.text)),
        Verdict::Pending => Plan::Rest,
    }
}

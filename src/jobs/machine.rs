//! What a job does next: pure, from its rows, the evidence, the time and the provider's class.
//!
//! The order of the questions is that of `docs/PROTOCOL.md` section 8; each answer is one [`Plan`] that the driver
//! carries out and then asks again. Nothing here reads a clock, a socket or a row.

use std::time::Duration;

use super::steps::{Effect, Step, UNDO, step_of};
use crate::cloud::TokenClass;
use crate::model::{AttemptOutcome, AttemptUid, Boot, ErrorClass, JobState, Micros, Verdict};
use crate::store::provisioning::job::{Attempt, Evidence, History, Job};
use crate::store::provisioning::watch::Watch;

/// How long things may take before a job changes its mind. All from configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// How long beyond its deadline a job may still look for an unknown outcome, on top of Q.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(30),
            calls: 8,
            crashes: 5,
            set_aside: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// What the provider promises for the job's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// The next move.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    End {
        /// Which end.
        state: JobState,
        /// Machine code of the cause.
        code: String,
        /// What clients read.
        message: String,
    },
    /// Set it aside without an owner until a time.
    Quarantine {
        /// Until when.
        until: Micros,
        /// Machine code.
        code: &'static str,
        /// Why.
        why: String,
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
/// Machine code of a quarantine after crashes.
const CRASHES: &str = "crashes";

/// Decides the next move.
#[must_use]
pub fn plan(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    if job.ended_at.is_some() || job.owner.is_some_and(|owner| owner != facts.boot) {
        return Plan::Leave;
    }
    match job.owner {
        None => unowned(facts),
        Some(_) => owned(facts),
    }
}

fn unowned(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    let due = job.due_at.is_some_and(|at| at <= facts.now);
    match job.state {
        JobState::Queued if due || job.cancel_by.is_some() => Plan::Claim(JobState::Running),
        JobState::Awaiting => awaiting(facts, due),
        JobState::Quarantined if due => {
            Plan::Claim(if job.undo_begun { JobState::Undoing } else { JobState::Running })
        }
        _ => Plan::Rest,
    }
}

/// A verdict decides without an owner where it ends the job; everything else is claimed first.
fn awaiting(facts: &Facts<'_>, due: bool) -> Plan {
    let job = &facts.history.job;
    if job.cancel_by.is_none()
        && let Some(verdict) = verdict_of_this_try(facts.history)
    {
        return match decided(facts.history, verdict) {
            Plan::BeginUndo { .. } => Plan::Claim(JobState::Awaiting),
            other => other,
        };
    }
    let overdue = due && job.deadline <= facts.now;
    if job.cancel_by.is_some() && cancel_can_act(facts) || overdue {
        return Plan::Claim(JobState::Awaiting);
    }
    Plan::Rest
}

/// A command that a guest may be running cannot be taken back: its own answer or its expiry ends the job.
fn cancel_can_act(facts: &Facts<'_>) -> bool {
    step_of(facts.history.job.params.kind()).effect != Effect::Command
        || verdict_of_this_try(facts.history).is_some()
}

fn owned(facts: &Facts<'_>) -> Plan {
    let history = facts.history;
    let job = &history.job;
    if job.crashes >= facts.limits.crashes && job.state != JobState::Undoing {
        return set_aside(facts);
    }
    if let Some(open) = history.attempts.iter().find(|a| a.outcome == AttemptOutcome::Open) {
        return resolve(facts, open);
    }
    if job.state == JobState::Undoing {
        return undo(facts);
    }
    if job.cancel_by.is_some() {
        return give_up(facts, JobState::Cancelled, "cancelled", cancelled_text(job));
    }
    if job.state == JobState::Awaiting
        && let Some(verdict) = verdict_of_this_try(history)
    {
        return decided(history, verdict);
    }
    if job.deadline <= facts.now {
        let text = format!("not finished within its time limit: {}", if_said(&job.why));
        return give_up(facts, JobState::Failed, "deadline", text);
    }
    if job.state == JobState::Awaiting {
        return Plan::Rest;
    }
    go_on(facts)
}

fn cancelled_text(job: &Job) -> String {
    format!("cancelled by {}", job.cancel_by.as_deref().unwrap_or("its owner"))
}

fn if_said(why: &str) -> &str {
    if why.is_empty() { "no verdict came" } else { why }
}

fn set_aside(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    if job.why_code == CRASHES && job.deadline <= facts.now {
        return Plan::End {
            state: JobState::Unresolved,
            code: CRASHES.to_owned(),
            message: "outcome unknown: its process crashed again and again while it ran".to_owned(),
        };
    }
    Plan::Quarantine {
        until: facts.now.plus(facts.limits.set_aside).min(job.deadline.plus(facts.limits.grace)),
        code: CRASHES,
        why: format!("set aside: {} processes in a row crashed while it ran", job.crashes),
    }
}

/// The next call of the step, or the pause before it, or the end after a refusal.
fn go_on(facts: &Facts<'_>) -> Plan {
    let job = &facts.history.job;
    let step = step_of(job.params.kind());
    let Some(last) = last_of(facts.history, &step) else { return Plan::Send { n: 1 } };
    match last.outcome {
        AttemptOutcome::Refused => refused(facts, last),
        AttemptOutcome::Void => Plan::Send { n: last.n + 1 },
        AttemptOutcome::Ok | AttemptOutcome::Open => Plan::End {
            state: JobState::Unresolved,
            code: ErrorClass::Bug.to_string(),
            message: "outcome unknown: the step is done but nobody watches it".to_owned(),
        },
    }
}

fn refused(facts: &Facts<'_>, last: &Attempt) -> Plan {
    let class = last.class.unwrap_or(ErrorClass::Unknown);
    if !class.worth_retry() || last.n >= facts.limits.calls {
        return Plan::End {
            state: JobState::Failed,
            code: class.to_string(),
            message: format!("{}: {}", class, last.evidence),
        };
    }
    let closed = last.closed_at.unwrap_or(last.started_at);
    let until = closed.plus(pause(facts.limits, last.n)).min(facts.history.job.deadline);
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
    let quiet = facts.promise.map_or(Duration::ZERO, |p| p.quiet);
    if job.deadline.plus(quiet).plus(facts.limits.grace) <= facts.now {
        return Plan::End {
            state: JobState::Unresolved,
            code: "unknown".to_owned(),
            message: format!("outcome unknown: call {} of step {} was never answered", open.n, open.step),
        };
    }
    let step = step_of(job.params.kind());
    if open.step == UNDO || step.effect != Effect::Create {
        return Plan::Resolve { attempt: open.uid, resend: true };
    }
    let Some(promise) = facts.promise else {
        return Plan::Resolve { attempt: open.uid, resend: false };
    };
    match promise.class {
        TokenClass::K if facts.now.since(open.started_at) < promise.token_kept => {
            Plan::Resolve { attempt: open.uid, resend: true }
        }
        TokenClass::N => Plan::Quarantine {
            until: job.deadline.plus(quiet).plus(facts.limits.grace),
            code: "ask-operator",
            why: "the provider has neither token nor tag: an operator must say whether the server was made"
                .to_owned(),
        },
        TokenClass::K | TokenClass::S | TokenClass::T => wait_out(facts, open, promise.quiet),
    }
}

/// An unanswered create without a token: wait until it cannot land any more, then only look.
fn wait_out(facts: &Facts<'_>, open: &Attempt, quiet: Duration) -> Plan {
    let job = &facts.history.job;
    if job.why_code == LATE_CREATE {
        return match job.due_at {
            Some(until) if until > facts.now => {
                Plan::Quarantine { until, code: LATE_CREATE, why: job.why.clone() }
            }
            _ => Plan::Resolve { attempt: open.uid, resend: false },
        };
    }
    let until = facts.now.plus(quiet);
    Plan::Quarantine {
        until,
        code: LATE_CREATE,
        why: format!("set aside until {}: an earlier create may still land", until.rfc3339()),
    }
}

/// Ends a job that is not wanted any more: at once where nothing was made, else by taking it back.
fn give_up(facts: &Facts<'_>, state: JobState, code: &str, message: String) -> Plan {
    if made_something(facts.history) {
        return Plan::BeginUndo { why: message };
    }
    Plan::End { state, code: code.to_owned(), message }
}

/// Whether this job made a resource that would stay behind.
#[must_use]
pub fn made_something(history: &History) -> bool {
    step_of(history.job.params.kind()).effect == Effect::Create && history.job.resource.is_some()
}

fn undo(facts: &Facts<'_>) -> Plan {
    let last = facts.history.attempts.iter().rev().find(|a| a.step == UNDO);
    let Some(last) = last else { return Plan::Undo { n: 1 } };
    let over = facts.history.job.deadline.plus(facts.limits.grace) <= facts.now;
    match last.outcome {
        AttemptOutcome::Refused if over => Plan::End {
            state: JobState::Unresolved,
            code: "undo-refused".to_owned(),
            message: format!("outcome unknown: what was made could not be taken back: {}", last.evidence),
        },
        _ => Plan::Undo { n: last.n + 1 },
    }
}

/// How a job whose undo has proved the resource gone ends, and with which words.
#[must_use]
pub fn end_after_undo(history: &History) -> Plan {
    let job = &history.job;
    if job.cancel_by.is_some() {
        return Plan::End {
            state: JobState::Cancelled,
            code: "cancelled".to_owned(),
            message: cancelled_text(job),
        };
    }
    let seen = verdict_of_this_try(history).filter(|e| e.verdict == Verdict::Failed);
    let (code, cause) =
        seen.map_or(("deadline", "not finished within its time limit"), |e| ("failed", &*e.text));
    Plan::End {
        state: JobState::Failed,
        code: code.to_owned(),
        message: format!("{cause}; what was made was taken back"),
    }
}

/// The deciding evidence of the watch of the current round.
#[must_use]
pub fn verdict_of_this_try(history: &History) -> Option<&Evidence> {
    let watch = watch_of_this_try(history).filter(|w| w.done_at.is_some())?;
    let name = watch.uid.to_string();
    history.evidence.iter().find(|e| e.subject == name && e.verdict != Verdict::Pending)
}

fn watch_of_this_try(history: &History) -> Option<&Watch> {
    history.watches.iter().find(|w| w.try_no == history.job.try_no)
}

fn last_of<'a>(history: &'a History, step: &Step) -> Option<&'a Attempt> {
    history.attempts.iter().rev().find(|a| a.step == step.name && a.try_no == history.job.try_no)
}

fn decided(history: &History, verdict: &Evidence) -> Plan {
    let job = &history.job;
    let step = step_of(job.params.kind());
    match verdict.verdict {
        Verdict::Reached => Plan::End {
            state: JobState::Complete,
            code: "verified".to_owned(),
            message: match step.effect {
                Effect::Create => job.server.map_or_else(String::new, |id| id.to_string()),
                Effect::Nothing | Effect::Move(_) | Effect::Command => String::new(),
            },
        },
        Verdict::Lost => {
            Plan::End { state: JobState::Failed, code: "lost".to_owned(), message: verdict.text.clone() }
        }
        Verdict::Failed if made_something(history) => Plan::BeginUndo { why: verdict.text.clone() },
        Verdict::Failed => {
            Plan::End { state: JobState::Failed, code: "failed".to_owned(), message: verdict.text.clone() }
        }
        Verdict::Unknown => Plan::End {
            state: JobState::Unresolved,
            code: "unknown".to_owned(),
            message: format!("outcome unknown: {}", verdict.text),
        },
        Verdict::Pending => Plan::Rest,
    }
}

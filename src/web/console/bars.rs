//! The chart of a job's steps and attempts: shapes for the drawing, words for everything else. Pure.

use super::words;
use crate::model::{AttemptOutcome, ErrorClass, JobState, Micros, Verdict};
use crate::store::provisioning::job::{Attempt, History};
use crate::store::provisioning::watch::Watch;

/// Width of the drawing, in its own units.
const WIDE: u64 = 1000;
/// The least a bar is wide, so that a quick step is seen.
const LEAST: u64 = 3;
/// Attempts of a step shown one by one; more are folded to the first, the last two and a count.
const MOST: usize = 5;

/// A line of the chart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) icon: &'static str,
    pub(super) hue: &'static str,
    pub(super) label: String,
    /// Whether it belongs to the step above it.
    pub(super) sub: bool,
    pub(super) outcome: String,
    /// Class or pattern of the bar; empty for a line without one.
    pub(super) fill: &'static str,
    pub(super) x: u64,
    pub(super) wide: u64,
}

/// The chart.
#[derive(Debug, Default)]
pub(super) struct Bars {
    pub(super) bars: Vec<Bar>,
    /// Times at the ticks of the axis, counted from the submit.
    pub(super) ticks: Vec<String>,
    /// What happened when, in one line.
    pub(super) flow: Vec<(String, &'static str)>,
    /// Where now is, while the job is open.
    pub(super) now: Option<u64>,
    /// The same in a sentence.
    pub(super) sentence: String,
}

struct Axis {
    from: Micros,
    to: Micros,
}

impl Axis {
    fn at(&self, time: Micros) -> u64 {
        let whole = self.to.since(self.from).as_micros().max(1);
        let part = time.since(self.from).as_micros().min(whole);
        u64::try_from(part * u128::from(WIDE) / whole).unwrap_or(WIDE)
    }

    fn bar(&self, from: Micros, to: Micros) -> (u64, u64) {
        let x = self.at(from).min(WIDE - LEAST);
        (x, self.at(to).saturating_sub(x).max(LEAST))
    }
}

/// The chart of a job.
pub(super) fn of(history: &History, now: Micros) -> Bars {
    let job = &history.job;
    let end = job.ended_at.unwrap_or(now);
    // A little room behind the end of an open job, so that the line of now is seen.
    let span = end.since(job.created_at).max(std::time::Duration::from_millis(1));
    let to = if job.ended_at.is_some() { end } else { end.plus(span / 12) };
    let axis = Axis { from: job.created_at, to: to.max(job.created_at.plus(span)) };
    let mut bars = vec![queued(history, &axis, now)];
    for step in steps(history) {
        step_of(&mut bars, history, (&step, &axis, end));
    }
    let ticks = (0..5_u32).map(|i| tick(span_of(&axis) * i / 5)).collect();
    let now = job.ended_at.is_none().then(|| axis.at(end));
    let calls = history.attempts.len();
    let sentence = format!(
        "{} from submit to {}; {calls} {} sent, {} waited for.",
        words::took(end.since(job.created_at)),
        if job.ended_at.is_some() { "end" } else { "now" },
        if calls == 1 { "call" } else { "calls" },
        match history.watches.len() {
            1 => "1 verdict".to_owned(),
            n => format!("{n} verdicts"),
        },
    );
    Bars { bars, ticks, flow: flow(history), now, sentence }
}

fn span_of(axis: &Axis) -> std::time::Duration {
    axis.to.since(axis.from)
}

fn tick(after: std::time::Duration) -> String {
    if after.is_zero() { "0".to_owned() } else { format!("+{}", words::took(after)) }
}

/// The names of the steps, in the order in which they began.
fn steps(history: &History) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let all = history.attempts.iter().map(|a| &a.step).chain(history.watches.iter().map(|w| &w.step));
    for name in all {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn queued(history: &History, axis: &Axis, now: Micros) -> Bar {
    let job = &history.job;
    let until = job.claimed_at.or(job.ended_at).unwrap_or(now);
    let (x, wide) = axis.bar(job.created_at, until);
    let open = job.claimed_at.is_none() && job.ended_at.is_none();
    Bar {
        icon: if open { "queued" } else { "ok" },
        hue: if open { "c-idle" } else { "c-ok" },
        label: "queued".to_owned(),
        sub: false,
        outcome: words::took(until.since(job.created_at)),
        fill: "idle",
        x,
        wide,
    }
}

fn step_of(bars: &mut Vec<Bar>, history: &History, (step, axis, end): (&str, &Axis, Micros)) {
    let attempts: Vec<&Attempt> = history.attempts.iter().filter(|a| a.step == step).collect();
    let watches: Vec<&Watch> = history.watches.iter().filter(|w| w.step == step).collect();
    bars.push(head(step, &attempts, &watches));
    let folded = attempts.len().saturating_sub(3);
    for (i, attempt) in attempts.iter().enumerate() {
        let shown = attempts.len() <= MOST || i == 0 || i + 2 >= attempts.len();
        if shown {
            bars.push(call(attempt, history, (axis, end)));
        } else if i == 1 {
            bars.push(Bar { fill: "", ..plain(format!("{folded} more calls"), "folded".to_owned()) });
        }
    }
    for watch in watches {
        bars.push(verdict(watch, history, (axis, end)));
    }
}

fn plain(label: String, outcome: String) -> Bar {
    Bar { icon: "", hue: "c-idle", label, sub: true, outcome, fill: "", x: 0, wide: 0 }
}

/// The line of a step: how it is as a whole, by its last attempt and its last watch.
fn head(step: &str, attempts: &[&Attempt], watches: &[&Watch]) -> Bar {
    let began = attempts.iter().map(|a| a.started_at).chain(watches.iter().map(|w| w.made_at)).min();
    let open = attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    let waits = watches.iter().any(|w| w.done_at.is_none());
    let done =
        attempts.iter().filter_map(|a| a.closed_at).chain(watches.iter().filter_map(|w| w.done_at)).max();
    let last = attempts.last().map(|a| a.outcome);
    let (icon, hue) = match (open, waits, last) {
        (true, _, _) => ("running", "c-busy"),
        (false, true, _) => ("looking", "c-busy"),
        (false, false, Some(AttemptOutcome::Refused)) => ("failed", "c-bad"),
        (false, false, Some(AttemptOutcome::Void)) => ("looking", "c-idle"),
        (false, false, _) => ("ok", "c-ok"),
    };
    let outcome = match (open || waits, began, done) {
        (false, Some(began), Some(done)) => words::took(done.since(began)),
        _ => "not done yet".to_owned(),
    };
    Bar { icon, hue, sub: false, ..plain(words::plain(step), outcome) }
}

fn call(attempt: &Attempt, history: &History, (axis, end): (&Axis, Micros)) -> Bar {
    let until = attempt.closed_at.unwrap_or(end);
    let (x, wide) = axis.bar(attempt.started_at, until);
    let at_work = history.job.owner.is_some() && history.job.state != JobState::Quarantined;
    let (icon, hue, fill, word) = match (attempt.outcome, attempt.class) {
        (AttemptOutcome::Ok, _) => ("ok", "c-ok", "ok", "answered".to_owned()),
        (AttemptOutcome::Refused, Some(class @ (ErrorClass::Throttled | ErrorClass::Transient))) => {
            ("queued", "c-idle", "idle", format!("{class}, tried again"))
        }
        (AttemptOutcome::Refused, Some(class)) => ("failed", "c-bad", "bad", format!("refused: {class}")),
        (AttemptOutcome::Refused, None) => ("failed", "c-bad", "bad", "refused".to_owned()),
        (AttemptOutcome::Void, _) => ("cancelled", "c-idle", "idle", "never took effect".to_owned()),
        (AttemptOutcome::Open, _) if at_work => ("running", "c-busy", "busy", "on its way".to_owned()),
        (AttemptOutcome::Open, _) => ("unknown", "c-doubt", "unknown", "outcome unknown".to_owned()),
    };
    let node = history.job.owner.filter(|_| attempt.epoch == history.job.epoch);
    let node = node.map_or_else(String::new, |boot| {
        format!(" · node {}", boot.to_string().chars().take(8).collect::<String>())
    });
    Bar {
        icon,
        hue,
        label: format!("call {} · epoch {}{node}", attempt.n, attempt.epoch),
        sub: true,
        outcome: format!("{word} · {}", words::took(until.since(attempt.started_at))),
        fill,
        x,
        wide,
    }
}

fn verdict(watch: &Watch, history: &History, (axis, end): (&Axis, Micros)) -> Bar {
    let until = watch.done_at.unwrap_or(end);
    let (x, wide) = axis.bar(watch.made_at, until);
    let subject = watch.uid.to_string();
    let seen = history.evidence.iter().rev().find(|seen| seen.subject == subject).map(|seen| seen.verdict);
    let (icon, hue, word) = match (watch.done_at, seen) {
        (None, _) if history.job.ended_at.is_some() => ("cancelled", "c-idle", "given up".to_owned()),
        (None, _) => ("looking", "c-busy", "awaiting verdict".to_owned()),
        (Some(_), Some(Verdict::Reached)) => ("ok", "c-ok", "seen".to_owned()),
        (Some(_), Some(Verdict::Unknown)) => ("unknown", "c-doubt", "unknown".to_owned()),
        (Some(_), Some(other)) => ("failed", "c-bad", other.to_string()),
        (Some(_), None) => ("cancelled", "c-idle", "closed without a verdict".to_owned()),
    };
    Bar {
        icon,
        hue,
        label: format!("verdict · {} · round {}", watch.kind, watch.try_no),
        sub: true,
        outcome: format!("{word} · {}", words::took(until.since(watch.made_at))),
        fill: "looking",
        x,
        wide,
    }
}

/// Submit to end in one line, each leg with its time.
fn flow(history: &History) -> Vec<(String, &'static str)> {
    let job = &history.job;
    let first = history.attempts.first().map(|a| a.started_at);
    let seen = history.watches.iter().filter_map(|w| w.done_at).max();
    let mut before = job.created_at;
    let mut legs = Vec::new();
    for (at, word) in
        [(job.claimed_at, "claimed"), (first, "started"), (seen, "verdict"), (job.ended_at, "ended")]
    {
        if let Some(at) = at {
            legs.push((format!("+{}", words::took(at.since(before))), word));
            before = at;
        }
    }
    legs
}

#[cfg(test)]
mod tests {
    use super::{Bars, WIDE, of};
    use crate::jobs::timeline::samples::{attempt, launch};
    use crate::model::{AttemptOutcome, ErrorClass, JobState, Micros};

    fn fills(bars: &Bars) -> Vec<&'static str> {
        bars.bars.iter().map(|bar| bar.fill).collect()
    }

    #[test]
    fn bars_end_with_their_outcome_and_stay_inside() {
        let history = launch();
        let bars = of(&history, Micros(110));
        assert_eq!(fills(&bars), ["idle", "", "ok", "looking"]);
        assert_eq!(bars.bars[1].label, "create");
        assert!(bars.bars[3].outcome.starts_with("awaiting verdict"), "{bars:?}");
        assert!(bars.bars.iter().all(|bar| bar.x + bar.wide <= WIDE + 3), "{bars:?}");
        assert!(bars.now.is_some_and(|now| now < WIDE) && bars.ticks.len() == 5);
        assert_eq!(bars.flow, [("+10 µs".to_owned(), "claimed"), ("+10 µs".to_owned(), "started")]);
    }

    #[test]
    fn an_unanswered_call_nobody_works_on_is_unknown_and_many_fold_around_the_last() {
        let mut history = launch();
        let uid = history.job.uid;
        history.job.state = JobState::Quarantined;
        history.attempts.clear();
        for n in 1..=7 {
            let mut one = attempt(uid, n, 1, (i64::from(n) * 10 + 20, Some(i64::from(n) * 10 + 25)));
            one.outcome = AttemptOutcome::Refused;
            one.class = Some(ErrorClass::Throttled);
            history.attempts.push(one);
        }
        history.attempts.push(attempt(uid, 8, 1, (200, None)));
        let bars = of(&history, Micros(400));
        // Queued, the step, the first, the fold, the last two, the watch.
        assert_eq!(fills(&bars), ["idle", "", "idle", "", "idle", "unknown", "looking"]);
        assert_eq!(bars.bars[3].label, "5 more calls");
        assert!(bars.bars[5].label.starts_with("call 8"), "{bars:?}");
    }
}

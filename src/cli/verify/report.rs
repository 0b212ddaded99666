//! What is shown: a line while it runs, and the tables at the end.

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::judge::{Class, Verdict};
use super::plan::{Plan, Progress};
use super::recovery::Measured;
use crate::cli::client::Error;
use crate::cli::table;

/// Findings of a class that are shown; JSON has all.
const SHOWN: usize = 5;
/// Pause between lines where nobody sees a line change.
const SELDOM: Duration = Duration::from_secs(10);

/// The line that says how far it is, on standard error.
pub(super) struct Line {
    began: Instant,
    last: Option<Instant>,
    kills: usize,
}

impl Line {
    pub(super) fn new(kills: usize) -> Self {
        Self { began: Instant::now(), last: None, kills }
    }

    /// Says how far it is: on a terminal in one line, elsewhere now and then.
    pub(super) fn tell(&mut self, what: &str, progress: &Progress) {
        let mut to = std::io::stderr().lock();
        let terminal = to.is_terminal();
        if !terminal && self.last.is_some_and(|last| last.elapsed() < SELDOM) {
            return;
        }
        self.last = Some(Instant::now());
        let others: usize = progress.strikes.values().sum();
        let text = format!(
            "{what}: {} of {} kills, {others} strikes, {} jobs accepted, {} s",
            progress.kills,
            self.kills,
            progress.jobs,
            self.began.elapsed().as_secs()
        );
        let (start, end) = if terminal { ("\r\u{1b}[K", "") } else { ("", "\n") };
        // Nobody may be reading.
        let _shown = write!(to, "{start}{text}{end}").and_then(|()| to.flush());
    }

    /// Ends the line.
    pub(super) fn end(self) {
        if self.last.is_none() {
            return;
        }
        let mut to = std::io::stderr().lock();
        if to.is_terminal() {
            let _shown = write!(to, "\r\u{1b}[K").and_then(|()| to.flush());
        }
    }
}

/// All of a finished run.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) progress: Progress,
    pub(super) verdict: Verdict,
    pub(super) measured: Measured,
    /// Starts of nodes until they were ready.
    pub(super) starts: Vec<Duration>,
    /// Ends nobody asked for, after which a process was started again.
    pub(super) own_ends: u32,
    pub(super) quiet: Duration,
    pub(super) took: Duration,
    /// The command that makes the same choices again.
    pub(super) replay: String,
    pub(super) effects: [(&'static str, usize); 3],
    /// What was kept, or could not be taken away.
    pub(super) left: Vec<String>,
    /// Classes a deliberate fault is expected in; none where there is no fault.
    pub(super) expected: Vec<Class>,
}

fn percentile(of: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? * percent / 100).copied()
}

fn seconds(span: Option<Duration>) -> String {
    span.map_or_else(|| "-".to_owned(), |span| format!("{:.2} s", span.as_secs_f64()))
}

impl Run {
    /// Whether a deliberate fault was found where it was expected.
    pub(super) fn is_caught(&self) -> bool {
        self.expected.iter().any(|class| self.verdict.count(*class) > 0)
    }

    /// Everything as JSON.
    pub(super) fn json(&self) -> Value {
        let found: serde_json::Map<String, Value> = Class::ALL
            .iter()
            .map(|class| {
                let findings = self.verdict.classes.get(class);
                (word(*class), json!(findings.map_or(&[][..], Vec::as_slice)))
            })
            .collect();
        let jobs: Vec<Value> = self
            .verdict
            .counts
            .iter()
            .map(|((kind, state), count)| json!({ "kind": kind, "state": state, "count": count }))
            .collect();
        let ms = |span: Option<Duration>| span.map(|span| span.as_millis());
        json!({
            "ok": self.verdict.is_clean(),
            "seed": self.plan.seed,
            "replay": self.replay,
            "kills": self.progress.kills,
            "strikes": self.progress.strikes,
            "places": self.progress.places,
            "jobs": jobs,
            "effects": self.effects.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            "accepted": self.verdict.acknowledged,
            "unanswered": self.verdict.unanswered,
            "foundAgain": self.verdict.found_again,
            "found": found,
            "recovery": {
                "jobs": self.measured.steps.len(),
                "p50Ms": ms(percentile(&self.measured.steps, 50)),
                "p99Ms": ms(percentile(&self.measured.steps, 99)),
                "setAside": self.measured.aside,
                "never": self.measured.never,
            },
            "readyMs": {
                "p50": ms(percentile(&self.starts, 50)),
                "most": ms(percentile(&self.starts, 100)),
            },
            "ownEnds": self.own_ends,
            "quietMs": self.quiet.as_millis(),
            "tookMs": self.took.as_millis(),
            "left": self.left,
            "expected": self.expected,
            "caught": self.is_caught(),
        })
    }

    /// The tables.
    pub(super) fn show(&self, out: &mut dyn Write) -> Result<(), Error> {
        let places = self.progress.places.iter();
        let strikes = self.progress.strikes.iter().filter(|(name, _)| !name.starts_with("killed at"));
        let rows: Vec<Vec<String>> = strikes
            .map(|(name, count)| vec![name.clone(), count.to_string()])
            .chain(places.map(|(place, count)| vec![format!("killed at {place}"), count.to_string()]))
            .collect();
        table::write(out, &["WHAT WENT WRONG", "TIMES"], &rows)?;
        writeln!(out)?;
        let jobs = self.verdict.counts.iter();
        let rows: Vec<Vec<String>> =
            jobs.map(|((kind, state), count)| vec![kind.clone(), state.clone(), count.to_string()]).collect();
        table::write(out, &["JOBS", "ENDED", "COUNT"], &rows)?;
        writeln!(out)?;
        let rows: Vec<Vec<String>> = Class::ALL
            .iter()
            .map(|class| vec![class.as_str().to_owned(), self.verdict.count(*class).to_string()])
            .collect();
        table::write(out, &["FOUND", "COUNT"], &rows)?;
        writeln!(out)?;
        table::write(out, &["FIGURE", "MEASURED"], &self.figures())?;
        self.findings(out)?;
        self.last_words(out)
    }

    fn figures(&self) -> Vec<Vec<String>> {
        let row = |what: &str, figure: String| vec![what.to_owned(), figure];
        let effects = self.effects.map(|(what, count)| format!("{count} {what}")).join(", ");
        let verdict = &self.verdict;
        vec![
            row("jobs accepted", verdict.acknowledged.to_string()),
            row("requests without an answer", verdict.unanswered.to_string()),
            row("of these found again by key", verdict.found_again.to_string()),
            row("effects at cloud and guests", effects),
            row("processes killed", self.progress.kills.to_string()),
            row("processes that ended by themselves", self.own_ends.to_string()),
            row("jobs a victim held", (self.measured.steps.len() + self.measured.aside).to_string()),
            row("kill to next step, p50", seconds(percentile(&self.measured.steps, 50))),
            row("kill to next step, p99", seconds(percentile(&self.measured.steps, 99))),
            row("set aside or waiting out Q", self.measured.aside.to_string()),
            row("restart to ready, p50", seconds(percentile(&self.starts, 50))),
            row("restart to ready, longest", seconds(percentile(&self.starts, 100))),
            row("healed to quiet", seconds(Some(self.quiet))),
            row("whole run", seconds(Some(self.took))),
        ]
    }

    fn findings(&self, out: &mut dyn Write) -> Result<(), Error> {
        for (class, findings) in &self.verdict.classes {
            writeln!(out, "\n{} ({}):", class.as_str(), findings.len())?;
            for finding in findings.iter().take(SHOWN) {
                writeln!(out, "  {}", table::clean(&finding.text, 2000))?;
            }
            if findings.len() > SHOWN {
                writeln!(out, "  and {} more; --json shows all", findings.len() - SHOWN)?;
            }
        }
        Ok(())
    }

    fn last_words(&self, out: &mut dyn Write) -> Result<(), Error> {
        for left in &self.left {
            writeln!(out, "\nleft behind: {left}")?;
        }
        writeln!(out, "\nseed {}; the same choices again: {}", self.plan.seed, self.replay)?;
        if !self.expected.is_empty() {
            let names: Vec<&str> = self.expected.iter().map(|class| class.as_str()).collect();
            let word = if self.is_caught() { "caught" } else { "blind" };
            writeln!(out, "{word}: the deliberate fault is expected as {}", names.join(" or "))?;
        }
        let said = if self.verdict.is_clean() {
            "nothing accepted was lost, nothing happened twice"
        } else {
            "SOMETHING IS WRONG: see above, and keep the folder with --keep to look into it"
        };
        Ok(writeln!(out, "{said}")?)
    }
}

fn word(class: Class) -> String {
    serde_json::to_value(class).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percentile;
    use std::time::Duration;

    #[test]
    fn percentiles_of_few_and_of_none() {
        let of = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(percentile(&of(&[9, 1, 5]), 50), Some(Duration::from_millis(5)));
        assert_eq!(percentile(&of(&[9, 1, 5]), 100), Some(Duration::from_millis(9)));
        assert_eq!(percentile(&[], 99), None);
    }
}

//! The sentence a page of jobs begins with, and the job that has been open longest.

use askama::Template;

use super::show::Row;
use super::words;
use crate::model::{JobState, Micros};
use crate::store::provisioning::job::{Job, JobRow};

/// The answer before the data.
#[derive(Template)]
#[template(path = "answer.html")]
pub(super) struct Answer {
    /// Whether more than the sentence is shown.
    pub(super) panels: bool,
    pub(super) lead: String,
    /// Whether some need a person.
    pub(super) troubled: bool,
    pub(super) trouble: String,
    pub(super) failed: bool,
    pub(super) failure: String,
    pub(super) oldest: Option<Row>,
}

impl Answer {
    pub(super) fn of(counts: &[(String, i64)], oldest: Option<JobRow>, now: Micros, panels: bool) -> Self {
        let sum = |wanted: &dyn Fn(JobState) -> bool| -> i64 {
            let states = JobState::ALL.iter().filter(|state| wanted(**state)).map(|state| state.as_str());
            states.filter_map(|word| counts.iter().find(|(w, _)| w == word)).map(|(_, n)| n).sum()
        };
        let troubled = sum(&|state| matches!(state, JobState::Quarantined | JobState::Unresolved));
        let (open, ended) = (sum(&|state| !state.is_end()), sum(&|state| state.is_end()));
        let failed = sum(&|state| state == JobState::Failed);
        let trouble = match troubled {
            0 => "Nothing waits for a person.".to_owned(),
            1 => "1 job needs you: nobody knows its outcome.".to_owned(),
            n => format!("{} jobs need you: nobody knows their outcome.", words::about(n)),
        };
        let failure = match failed {
            0 => "No job failed.".to_owned(),
            1 => "1 job failed.".to_owned(),
            n => format!("{} jobs failed.", words::about(n)),
        };
        Self {
            panels,
            lead: format!(
                "{trouble} {}, {}.",
                verb(open, ["No job is open", "1 job is open", "jobs are open"]),
                verb(ended, ["none has ended", "1 has ended", "have ended"])
            ),
            troubled: troubled > 0,
            trouble,
            failed: failed > 0,
            failure,
            oldest: oldest.and_then(|row| Job::try_from(row).ok()).map(|job| Row::of(&job, now)),
        }
    }
}

fn verb(n: i64, [none, one, many]: [&str; 3]) -> String {
    match n {
        0 => none.to_owned(),
        1 => one.to_owned(),
        n => format!("{} {many}", words::about(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;
    use crate::model::Micros;
    use askama::Template as _;

    #[test]
    fn the_answer_is_a_sentence() {
        let of = |counts: &[(&str, i64)]| {
            let counts: Vec<(String, i64)> =
                counts.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
            Answer::of(&counts, None, Micros(0), true)
        };
        let calm = of(&[("running", 1), ("complete", 1200)]);
        assert_eq!(calm.lead, "Nothing waits for a person. 1 job is open, 1,200 have ended.");
        let html = calm.render().expect("renders");
        assert!(html.contains("No job is open.") && html.contains("No job failed."), "{html}");
        let worse = of(&[("quarantined", 1), ("unresolved", 1), ("failed", 1)]);
        assert_eq!(worse.lead, "2 jobs need you: nobody knows their outcome. 1 job is open, 2 have ended.");
        let html = worse.render().expect("renders");
        assert!(html.contains("/jobs?q=needs:me") && html.contains("1 job failed."), "{html}");
        assert_eq!(of(&[]).lead, "Nothing waits for a person. No job is open, none has ended.");
    }
}

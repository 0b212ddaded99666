//! The sentence a list of jobs begins with.

use askama::Template;

use super::words;
use crate::model::JobState;

/// The answer before the data.
#[derive(Template)]
#[template(path = "answer.html")]
pub(super) struct Answer {
    pub(super) lead: String,
}

impl Answer {
    pub(super) fn of(counts: &[(String, i64)]) -> Self {
        let sum = |wanted: &dyn Fn(JobState) -> bool| -> i64 {
            let states = JobState::ALL.iter().filter(|state| wanted(**state)).map(|state| state.as_str());
            states.filter_map(|word| counts.iter().find(|(w, _)| w == word)).map(|(_, n)| n).sum()
        };
        let trouble = match sum(&|state| matches!(state, JobState::Quarantined | JobState::Unresolved)) {
            0 => "Nothing waits for a person.".to_owned(),
            1 => "1 job needs you: nobody knows its outcome.".to_owned(),
            n => format!("{} jobs need you: nobody knows their outcome.", words::about(n)),
        };
        let (open, ended) = (sum(&|state| !state.is_end()), sum(&|state| state.is_end()));
        let open = verb(open, ["No job is open", "1 job is open", "jobs are open"]);
        let ended = verb(ended, ["none has ended", "1 has ended", "have ended"]);
        Self { lead: format!("{trouble} {open}, {ended}.") }
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
    use askama::Template as _;

    #[test]
    fn the_answer_is_a_sentence() {
        let of = |counts: &[(&str, i64)]| {
            let counts: Vec<(String, i64)> =
                counts.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
            Answer::of(&counts)
        };
        let calm = of(&[("running", 1), ("complete", 1200)]);
        assert_eq!(calm.lead, "Nothing waits for a person. 1 job is open, 1,200 have ended.");
        assert!(calm.render().expect("renders").contains("1 job is open"));
        let worse = of(&[("quarantined", 1), ("unresolved", 1), ("failed", 1)]);
        assert_eq!(worse.lead, "2 jobs need you: nobody knows their outcome. 1 job is open, 2 have ended.");
        assert_eq!(of(&[]).lead, "Nothing waits for a person. No job is open, none has ended.");
    }
}

//! Rows as the templates need them.

use askama::Template;

use super::acts::Act;
use super::bars::{self, Bars};
use super::words::{self, Look};
use crate::jobs::timeline::{self, Entry};
use crate::model::{AttemptOutcome, JobParams, JobState, JobUid, Micros};
use crate::store::provisioning::job::{Evidence, History, Job};
use crate::store::provisioning::obligation::{Filter, ObligationRow};

/// A job in a list and at the head of its page.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) version: i64,
    pub(super) state: JobState,
    pub(super) look: Look,
    pub(super) kind: &'static str,
    pub(super) description: String,
    pub(super) why: String,
    pub(super) why_code: String,
    pub(super) created: String,
    pub(super) created_clock: String,
    /// Milliseconds since 1970 from which the browser counts; empty when it ended.
    pub(super) since_ms: String,
    pub(super) time: String,
    pub(super) time_title: &'static str,
    /// Whether it stands in a list that can be acted on.
    pub(super) listed: bool,
    pub(super) attempts: i64,
    pub(super) account: String,
}

impl Row {
    /// The same with what only the list of jobs shows.
    pub(super) fn listed(self, attempts: i64, account: &str) -> Self {
        let account = words::plain(format!("{} {account}", self.account).trim_end());
        Self { listed: true, attempts, account, ..self }
    }

    pub(super) fn of(job: &Job, now: Micros) -> Self {
        let ended = job.ended_at;
        let look = words::look(job.state);
        let said = if ended.is_some() { job.message.as_deref().unwrap_or_default() } else { &job.why };
        let made = job.server.filter(|id| job.state == JobState::Complete && said == id.to_string().as_str());
        let why = if let Some(id) = made {
            // Clients of the dated API read the bare number; a person wants to know of what.
            format!("{}: server {id}", look.word)
        } else if said.is_empty() {
            look.word.to_owned()
        } else {
            words::plain(said)
        };
        Self {
            id: job.id.0,
            version: job.version,
            state: job.state,
            look,
            kind: job.params.kind().as_str(),
            description: words::plain(&job.description),
            why,
            why_code: words::plain(&job.why_code),
            created: job.created_at.rfc3339(),
            created_clock: words::clock(job.created_at),
            since_ms: if ended.is_some() { String::new() } else { job.created_at.millis().to_string() },
            time: words::took(ended.unwrap_or(now).since(job.created_at)),
            time_title: match (ended.is_some(), job.claimed_at.is_some()) {
                (true, _) => "from submit to end",
                (false, true) => "since it was submitted",
                (false, false) => "has waited",
            },
            listed: false,
            attempts: 0,
            account: job.account.to_string(),
        }
    }
}

/// A row of the list on its own.
#[derive(Template)]
#[template(path = "row.html")]
pub(super) struct RowPart {
    pub(super) job: Row,
}

/// How a job is, small, beside what it writes.
#[derive(Template)]
#[template(path = "job_card.html")]
pub(super) struct Card {
    pub(super) job: Row,
}

/// A line of a timeline.
pub(super) struct Line {
    pub(super) what: &'static str,
    pub(super) look: Look,
    pub(super) at: String,
    pub(super) clock: String,
    pub(super) text: String,
    pub(super) detail: Option<String>,
    pub(super) after: String,
}

/// A timeline on its own.
#[derive(Template)]
#[template(path = "timeline.html")]
pub(super) struct Timeline {
    pub(super) entries: Vec<Line>,
}

/// The lines of a job's timeline, each with the time since the one before.
pub(super) fn lines(history: &History) -> Vec<Line> {
    let mut before: Option<Micros> = None;
    timeline::timeline(history).iter().map(|entry| line(entry, before.replace(entry.at))).collect()
}

fn line(entry: &Entry, before: Option<Micros>) -> Line {
    Line {
        what: entry.what,
        look: words::look_of_entry(entry.what, &entry.text),
        at: entry.at.rfc3339(),
        clock: words::clock_ms(entry.at),
        text: words::plain(&entry.text),
        detail: entry.detail.as_deref().map(words::plain),
        after: before.map_or_else(String::new, |before| format!("+{}", words::took(entry.at.since(before)))),
    }
}

/// A name with its value.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) mono: bool,
}

/// What somebody saw.
pub(super) struct Seen {
    pub(super) at: String,
    pub(super) clock: String,
    pub(super) source: String,
    pub(super) verdict: &'static str,
    pub(super) text: String,
    pub(super) raw: String,
}

/// The part of a job's page that changes.
#[derive(Template)]
#[template(path = "job_live.html")]
pub(super) struct JobLive {
    pub(super) job: Row,
    pub(super) best: String,
    pub(super) banner: &'static str,
    pub(super) facts: Vec<Fact>,
    pub(super) bars: Bars,
    pub(super) entries: Vec<Line>,
    pub(super) evidence: Vec<Seen>,
    /// What can be done about it; none in a part that is sent to a page, which keeps what it has.
    pub(super) acts: Vec<Act>,
    /// The mark of the session, for the forms of `acts`.
    pub(super) csrf: String,
}

impl JobLive {
    pub(super) fn of(history: &History, owed: &[ObligationRow], now: Micros) -> Self {
        let job = &history.job;
        let mut facts = facts(job, now);
        facts.extend(owed.iter().map(watched));
        Self {
            job: Row::of(job, now),
            best: best(history),
            bars: bars::of(history, now),
            acts: Vec::new(),
            csrf: String::new(),
            banner: banner(job.state),
            facts,
            entries: lines(history),
            evidence: history.evidence.iter().map(seen).collect(),
        }
    }
}

/// The best end that is still possible, and why, where it is no longer "complete" or cannot be known.
fn best(history: &History) -> String {
    let job = &history.job;
    if job.ended_at.is_some() {
        return String::new();
    }
    let open = history.attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::Open);
    match (&job.cancel_by, job.undo_begun) {
        (Some(who), _) => format!("will end cancelled: asked by {}", words::plain(who)),
        (None, true) => "will end failed: what was made is being taken back".to_owned(),
        (None, false) if job.state == JobState::Quarantined && open => {
            "best end still possible: complete, if its call turns out to have taken effect".to_owned()
        }
        (None, false) => "best end still possible: complete".to_owned(),
    }
}

const fn banner(state: JobState) -> &'static str {
    match state {
        JobState::Quarantined | JobState::Failed => "b-bad",
        JobState::Unresolved => "b-doubt",
        JobState::Running | JobState::Awaiting | JobState::Undoing => "b-busy",
        JobState::Queued | JobState::Complete | JobState::Cancelled => "b-idle",
    }
}

fn facts(job: &Job, now: Micros) -> Vec<Fact> {
    let fact = |name, value: String| Fact { name, value: words::plain(&value), mono: false };
    let mono = |name, value: String| Fact { name, value: words::plain(&value), mono: true };
    let mut facts =
        vec![fact("Kind", job.params.kind().to_string()), fact("Account", job.account.to_string())];
    facts.extend(job.parent.map(|id| fact("Group", id.to_string())));
    if let JobParams::Group(group) = &job.params {
        facts.extend(group.retry_of.map(|id| fact("Retry of", id.to_string())));
    }
    facts.extend(job.server.map(|id| fact("Server", id.to_string())));
    facts.extend(job.resource.clone().map(|id| mono("At the cloud", id)));
    facts.push(fact("Asked by", format!("person {}, key {}", job.person, tail(&job.access_key))));
    facts.push(fact("Owner", owner(job)));
    facts.push(fact("Round", job.try_no.to_string()));
    facts.push(fact("Deadline", deadline(job, now)));
    facts.extend(job.ended_at.map(|at| fact("Ended", words::clock_ms(at))));
    facts.extend(job.cancel_by.clone().map(|who| fact("Cancel asked by", who)));
    facts.push(mono("Request", job.request.clone()));
    facts.push(mono("Uid", job.uid.to_string()));
    facts
}

/// All that is looked for after a job's end.
pub(super) fn owed_by(job: JobUid) -> Filter {
    Filter { job: Some(job), closed: true, limit: 10, ..Filter::default() }
}

/// What is looked for after the job's end.
fn watched(owed: &ObligationRow) -> Fact {
    let looks = match owed.looks {
        1 => "1 look".to_owned(),
        n => format!("{n} looks"),
    };
    let next = match owed.closed_at {
        Some(at) => format!("ended {}", words::clock(Micros(at))),
        None => format!(
            "next {}, until {}",
            words::clock(Micros(owed.look_at)),
            words::clock(Micros(owed.look_until))
        ),
    };
    Fact {
        name: "Looked for after its end",
        value: words::plain(&format!("{}: {looks}, {next}", owed.state)),
        mono: false,
    }
}

/// The end of a key: enough to tell keys apart.
fn tail(key: &str) -> String {
    let skip = key.chars().count().saturating_sub(4);
    if skip == 0 { key.to_owned() } else { format!("…{}", key.chars().skip(skip).collect::<String>()) }
}

fn owner(job: &Job) -> String {
    match job.owner {
        Some(boot) => {
            let boot: String = boot.to_string().chars().take(8).collect();
            format!("node {boot}, epoch {}", job.epoch)
        }
        None => format!("none, epoch {}", job.epoch),
    }
}

fn deadline(job: &Job, now: Micros) -> String {
    let clock = words::clock(job.deadline);
    match (job.ended_at, now < job.deadline) {
        (Some(_), _) => clock,
        (None, true) => format!("{clock}, in {}", words::took(job.deadline.since(now))),
        (None, false) => format!("{clock}, over since {}", words::took(now.since(job.deadline))),
    }
}

fn seen(seen: &Evidence) -> Seen {
    Seen {
        at: seen.made_at.rfc3339(),
        clock: words::clock_ms(seen.made_at),
        source: words::plain(&seen.source),
        verdict: seen.verdict.as_str(),
        text: words::plain(&seen.text),
        raw: words::plain(&seen.raw),
    }
}

/// The command of a job that runs one, for people.
pub(super) fn command(job: &Job) -> Option<String> {
    match &job.params {
        JobParams::RunCommand(params) => {
            let argv: Vec<String> = params.argv.iter().map(|arg| words::shell(arg)).collect();
            Some(words::plain(&argv.join(" ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Card, JobLive, Row, RowPart, Timeline, lines, tail};
    use crate::jobs::timeline::samples;
    use crate::model::{Micros, Verdict};
    use crate::store::provisioning::job::Evidence;
    use askama::Template as _;

    const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=y>\"'&\u{202e}\u{1b}[31m";

    fn hostile() -> crate::store::provisioning::job::History {
        let mut history = samples::launch();
        let job = &mut history.job;
        for field in
            [&mut job.description, &mut job.why, &mut job.why_code, &mut job.request, &mut job.access_key]
        {
            HOSTILE.clone_into(field);
        }
        job.resource = Some(HOSTILE.to_owned());
        job.cancel_by = Some(HOSTILE.to_owned());
        history.evidence.push(Evidence {
            subject: "s".to_owned(),
            source: HOSTILE.to_owned(),
            job: job.uid,
            customer: job.customer,
            verdict: Verdict::Reached,
            text: HOSTILE.to_owned(),
            raw: HOSTILE.to_owned(),
            made_at: Micros(50),
        });
        history.attempts[0].evidence = HOSTILE.to_owned();
        history.attempts[0].step = HOSTILE.to_owned();
        history.watches[0].target = HOSTILE.to_owned();
        history
    }

    #[test]
    fn whatever_a_name_holds_it_stays_text() {
        let history = hostile();
        let live = JobLive::of(&history, &[], Micros(100)).render().expect("renders");
        let row = RowPart { job: Row::of(&history.job, Micros(100)) }.render().expect("renders");
        let story = Timeline { entries: lines(&history) }.render().expect("renders");
        let card = Card { job: Row::of(&history.job, Micros(100)) }.render().expect("renders");
        for html in [live, row, story, card] {
            for bad in ["<script", "<img", "\u{202e}", "\u{1b}"] {
                assert!(!html.contains(bad), "{bad:?} in {html}");
            }
            assert!(html.contains("&#60;script&#62;") || html.contains("&lt;script&gt;"), "{html}");
        }
    }

    #[test]
    fn a_row_can_be_found_and_a_key_is_not_shown_whole() {
        let history = samples::launch();
        let html = RowPart { job: Row::of(&history.job, Micros(2_000_010)) }.render().expect("renders");
        assert!(html.contains("data-job=\"10001\"") && html.contains("data-state=\"awaiting\""), "{html}");
        assert!(
            html.contains("awaiting verdict") && html.contains("#looking") && html.contains("2.0 s"),
            "{html}"
        );
        assert_eq!((tail("ABCDEFGH").as_str(), tail("bob").as_str()), ("…EFGH", "bob"));
        let live = JobLive::of(&history, &[], Micros(2_000_010)).render().expect("renders");
        assert_eq!(live.matches("<li data-what=").count(), 7);
        assert!(!live.contains("secret"));
    }
}

//! A job's story in order, told from its rows. Pure: the same rows give the same story.

use crate::model::{AttemptOutcome, JobState, Micros};
use crate::store::provisioning::job::{Attempt, Evidence, History, Job};
use crate::store::provisioning::watch::Watch;

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// When, in the database's clock.
    pub at: Micros,
    /// What it is, as a machine word: `accepted`, `claimed`, `leased`, `sent`, `ok`, `refused`, `void`, `watch`,
    /// `verdict`, `evidence`, `cancel`, `why`, `ended`.
    pub what: &'static str,
    /// The same for people.
    pub text: String,
    /// More about it: evidence, an id.
    pub detail: Option<String>,
}

impl Entry {
    fn new(at: Micros, what: &'static str, text: String) -> Self {
        Self { at, what, text, detail: None }
    }

    fn with(mut self, detail: &str) -> Self {
        self.detail = (!detail.is_empty()).then(|| detail.to_owned());
        self
    }
}

/// The story of a job, oldest first; what an open job waits for now comes last.
///
/// Rows keep no time for a cancel: it stands at the job's last change at the latest. Claims that sent no call leave
/// no row and are not told.
#[must_use]
pub fn timeline(history: &History) -> Vec<Entry> {
    let job = &history.job;
    let mut entries = vec![accepted(job)];
    entries.extend(claimed(history));
    for (i, attempt) in history.attempts.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| history.attempts.get(i));
        entries.extend(before.and_then(|before| claimed_again(before, attempt)));
        entries.extend(calls(attempt));
    }
    entries.extend(history.watches.iter().map(published));
    entries.extend(history.evidence.iter().map(|seen| found(seen, &history.watches)));
    entries.extend(cancelled(job));
    // Entries of one commit share their time: the order above, which is that of cause and effect, then stands.
    entries.sort_by_key(|entry| entry.at);
    entries.extend(now(job));
    entries
}

fn accepted(job: &Job) -> Entry {
    Entry::new(job.created_at, "accepted", format!("queued as job {}, durable: {}", job.id, job.description))
        .with(&format!("uid {}, request {}", job.uid, job.request))
}

/// The first claim. Its node is known only while that same claim holds.
fn claimed(history: &History) -> Option<Entry> {
    let job = &history.job;
    let at = job.claimed_at?;
    let first = history.attempts.first().map_or(job.epoch, |attempt| attempt.epoch);
    let by = match job.owner {
        Some(boot) if job.epoch == first => format!(" by node {}", short(&boot.to_string())),
        _ => String::new(),
    };
    Some(Entry::new(at, "claimed", format!("claimed{by}, epoch {first}")))
}

fn claimed_again(before: &Attempt, attempt: &Attempt) -> Option<Entry> {
    let text = format!("claimed again, epoch {} after {}", attempt.epoch, before.epoch);
    (attempt.epoch > before.epoch).then(|| Entry::new(attempt.started_at, "claimed", text))
}

/// Lease, call and answer of one attempt.
fn calls(attempt: &Attempt) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(3);
    entries.extend(leased(attempt));
    let call = format!("{} call {} of round {}", attempt.step, attempt.n, attempt.try_no);
    let token = match attempt.token.as_str() {
        "" => String::new(),
        token => format!(", token {}", short(token)),
    };
    entries.push(
        Entry::new(attempt.started_at, "sent", format!("call sent: {call}{token}"))
            .with(&format!("attempt {}", attempt.uid)),
    );
    let (what, text) = match (attempt.outcome, attempt.class) {
        (AttemptOutcome::Open, _) => return entries,
        (AttemptOutcome::Ok, _) => ("ok", format!("call answered ok: {call}")),
        (AttemptOutcome::Refused, Some(class)) => ("refused", format!("call refused ({class}): {call}")),
        (AttemptOutcome::Refused, None) => ("refused", format!("call refused: {call}")),
        (AttemptOutcome::Void, _) => ("void", format!("proved that it never took effect: {call}")),
    };
    let at = attempt.closed_at.unwrap_or(attempt.started_at);
    entries.push(Entry::new(at, what, text).with(&attempt.evidence));
    entries
}

#[derive(serde::Deserialize)]
struct Lease {
    algorithm: String,
    key: String,
    request: String,
}

fn leased(attempt: &Attempt) -> Option<Entry> {
    if attempt.lease.is_empty() {
        return None;
    }
    let entry = |text: String| Entry::new(attempt.started_at, "leased", text);
    // A lease of another form is still one; only its particulars cannot be told.
    Some(match serde_json::from_str::<Lease>(&attempt.lease) {
        Ok(lease) => {
            entry(format!("credential leased, sealed with {} under key {}", lease.algorithm, lease.key))
                .with(&format!("key manager request {}", lease.request))
        }
        Err(_) => entry("credential leased".to_owned()),
    })
}

fn published(watch: &Watch) -> Entry {
    let target = if watch.target.is_empty() { "the job itself" } else { &watch.target };
    let text = format!("{} watch published: {target} must show {}", watch.kind, watch.expectation);
    Entry::new(watch.made_at, "watch", text).with(&format!("watch {}, round {}", watch.uid, watch.try_no))
}

fn found(seen: &Evidence, watches: &[Watch]) -> Entry {
    let of_watch = watches.iter().any(|watch| watch.uid.to_string() == seen.subject);
    let (what, word) = if of_watch { ("verdict", "verdict") } else { ("evidence", "seen") };
    let text = format!("{word} {} by {}: {}", seen.verdict, seen.source, seen.text);
    Entry::new(seen.made_at, what, text).with(&seen.raw)
}

fn cancelled(job: &Job) -> Option<Entry> {
    let who = job.cancel_by.as_ref()?;
    let at = job.ended_at.unwrap_or(job.changed_at);
    Some(Entry::new(at, "cancel", format!("cancel asked by {who}")))
}

/// How it ended, or what it waits for.
fn now(job: &Job) -> Option<Entry> {
    if let Some(at) = job.ended_at {
        let text = match job.message.as_deref() {
            Some("") | None => job.state.to_string(),
            Some(message) => format!("{}: {message}", job.state),
        };
        return Some(Entry::new(at, "ended", text).with(&job.why_code));
    }
    let held = if job.state == JobState::Quarantined { "quarantined: " } else { "" };
    let text = match job.why.as_str() {
        "" => job.state.to_string(),
        why => format!("{held}{why}"),
    };
    Some(Entry::new(job.changed_at, "why", text).with(&job.why_code))
}

/// The first eight characters: enough to tell ids apart on one page.
fn short(text: &str) -> String {
    text.chars().take(8).collect()
}

#[cfg(test)]
pub(crate) mod samples {
    //! Rows of a launch that waits for its verdict.

    use super::*;
    use crate::model::{
        AccountId, AttemptUid, CustomerId, Epoch, JobId, JobParams, JobUid, NoopParams, UserId, WatchKind,
        WatchUid,
    };

    pub(crate) fn job(uid: JobUid) -> Job {
        Job {
            uid,
            id: JobId(10_001),
            customer: CustomerId(1),
            account: AccountId(1),
            person: UserId(1),
            access_key: String::new(),
            request: "r".to_owned(),
            params: JobParams::Noop(NoopParams::default()),
            description: "no-op".to_owned(),
            state: JobState::Awaiting,
            epoch: Epoch(1),
            owner: None,
            try_no: 1,
            crashes: 0,
            undo_begun: false,
            cancel_by: None,
            due_at: None,
            why_code: "verdict-cloud".to_owned(),
            why: "waiting until RUNNING is seen".to_owned(),
            server: None,
            resource: None,
            message: None,
            priority: 0,
            created_at: Micros(10),
            claimed_at: Some(Micros(20)),
            changed_at: Micros(40),
            deadline: Micros(1000),
            ended_at: None,
            version: 1,
            parent: None,
            limited: false,
        }
    }

    pub(crate) fn attempt(job: JobUid, n: i32, epoch: i64, times: (i64, Option<i64>)) -> Attempt {
        Attempt {
            uid: AttemptUid::random(),
            job,
            customer: CustomerId(1),
            step: "create".to_owned(),
            variant: 0,
            try_no: 1,
            n,
            epoch: Epoch(epoch),
            token: "ABCDEFGHIJKLMNOP".to_owned(),
            request: b"secret".to_vec(),
            lease: r#"{"algorithm":"chacha20poly1305","key":"k1","request":"q"}"#.to_owned(),
            outcome: AttemptOutcome::Open,
            class: None,
            evidence: String::new(),
            output: String::new(),
            started_at: Micros(times.0),
            closed_at: times.1.map(Micros),
            quiet_until: None,
            version: 1,
        }
    }

    pub(crate) fn launch() -> History {
        let uid = JobUid::random();
        let watch = Watch {
            uid: WatchUid::random(),
            job: uid,
            customer: CustomerId(1),
            step: "create".to_owned(),
            try_no: 1,
            kind: WatchKind::Cloud,
            target: "i-1".to_owned(),
            expectation: "RUNNING".to_owned(),
            due_at: Micros(41),
            deadline: Micros(900),
            made_at: Micros(40),
            done_at: None,
        };
        let ok = Attempt {
            outcome: AttemptOutcome::Ok,
            evidence: "RunInstances: 200".to_owned(),
            ..attempt(uid, 1, 1, (30, Some(40)))
        };
        History { job: job(uid), attempts: vec![ok], evidence: Vec::new(), watches: vec![watch] }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{attempt, launch};
    use super::*;
    use crate::model::{Boot, CustomerId, Epoch, ErrorClass, Verdict};

    fn whats(history: &History) -> Vec<&'static str> {
        timeline(history).iter().map(|entry| entry.what).collect()
    }

    #[test]
    fn an_open_launch_tells_what_it_did_and_last_what_it_waits_for() {
        let history = launch();
        assert_eq!(whats(&history), ["accepted", "claimed", "leased", "sent", "ok", "watch", "why"]);
        let story = timeline(&history);
        assert!(story[2].text.contains("chacha20poly1305"), "{:?}", story[2]);
        assert!(story[3].text.ends_with("token ABCDEFGH"), "{:?}", story[3]);
        assert_eq!(story[4].detail.as_deref(), Some("RunInstances: 200"));
        assert_eq!(story[6].text, "waiting until RUNNING is seen");
        assert!(!format!("{story:?}").contains("secret"));
    }

    #[test]
    fn verdict_cancel_and_end_follow_in_order() {
        let mut history = launch();
        history.evidence.push(Evidence {
            subject: history.watches[0].uid.to_string(),
            source: "monitor".to_owned(),
            job: history.job.uid,
            customer: CustomerId(1),
            verdict: Verdict::Reached,
            text: "i-1 is RUNNING".to_owned(),
            raw: "{}".to_owned(),
            made_at: Micros(50),
        });
        history.job.cancel_by = Some("someone".to_owned());
        history.job.state = JobState::Complete;
        history.job.message = Some("41".to_owned());
        history.job.ended_at = Some(Micros(60));
        assert_eq!(whats(&history)[6..], ["verdict", "cancel", "ended"]);
        assert_eq!(timeline(&history)[8].text, "complete: 41");
    }

    #[test]
    fn a_takeover_and_a_refusal_are_told_and_the_node_only_while_it_holds_the_job() {
        let mut history = launch();
        let uid = history.job.uid;
        let boot = Boot::random();
        history.job.owner = Some(boot);
        let start: String = boot.to_string().chars().take(8).collect();
        assert!(timeline(&history)[1].text.contains(&start));
        history.attempts[0].outcome = AttemptOutcome::Refused;
        history.attempts[0].class = Some(ErrorClass::Throttled);
        history.watches.clear();
        history.attempts.push(attempt(uid, 2, 3, (70, None)));
        history.job.epoch = Epoch(3);
        assert_eq!(
            whats(&history),
            ["accepted", "claimed", "leased", "sent", "refused", "claimed", "leased", "sent", "why"]
        );
        let story = timeline(&history);
        assert_eq!(story[1].text, "claimed, epoch 1");
        assert!(story[4].text.starts_with("call refused (throttled)"));
        assert_eq!(story[5].text, "claimed again, epoch 3 after 1");
    }

    #[test]
    fn a_quarantined_job_says_so_and_a_strange_lease_is_still_one() {
        let mut history = launch();
        history.job.state = JobState::Quarantined;
        history.job.why = "an earlier create may still land".to_owned();
        history.attempts[0].lease = "?".to_owned();
        let story = timeline(&history);
        assert_eq!(story[2].text, "credential leased");
        let last = story.last().expect("not empty");
        assert_eq!(last.text, "quarantined: an earlier create may still land");
    }
}

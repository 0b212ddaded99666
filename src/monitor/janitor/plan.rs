//! What becomes of what a look found: pure.

use std::time::Duration;

use crate::cloud::{Machine, TokenClass};
use crate::crypto;
use crate::jobs::of_tag;
use crate::model::{JobId, JobState, JobUid, Micros, ObligationState, ServerId, ServerStatus, Uid};
use crate::store::provisioning::obligation::{After, Facts, ObligationRow, OfJob};

/// The step whose effect may be taken back without a person: nothing that a server holds is worth more than the end
/// its job came to. What holds data is reported.
const TAKEN_BACK: &str = "create";
/// Entries of the record that are kept: the first and the last of them.
const FIRST: usize = 8;
const LAST: usize = 24;
/// Looks in a row that may fail before a person is asked.
const PATIENCE: i32 = 5;
/// How far the provider's clock may be off where a time of creation is compared.
const SKEW: Duration = Duration::from_secs(3600);

/// How often and how long it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When, besides Q/2 and Q, it is looked again.
    pub later: Duration,
    /// How long after a job's end what may still turn up is looked for.
    pub keep: Duration,
    /// Pause while something is being taken back, and after a look that failed; the latter doubles.
    pub again: Duration,
    /// Pause between looks at everything, and at what needs a person.
    pub daily: Duration,
    /// How long a job that takes something back may take.
    pub take_back: Duration,
    /// Longest call.
    pub call: Duration,
}

/// What a decision is made from.
pub(super) struct Sight<'a> {
    /// The obligation.
    pub(super) row: &'a ObligationRow,
    /// What the rows say.
    pub(super) facts: &'a Facts,
    /// The provider's class and Q.
    pub(super) promise: (TokenClass, Duration),
    /// Limits.
    pub(super) limits: &'a Limits,
    /// The time, in the database's clock.
    pub(super) now: Micros,
}

/// What becomes of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is gone.
    Gone,
    /// Its job is open and adopts it, or not, by its own look.
    Open(JobId),
    /// A server of ours.
    Owned(ServerId),
    /// Nobody's: a job of this name takes it back.
    Take(JobUid),
    /// A job takes it back.
    Taking(JobId),
    /// A person must see to it.
    Report(String),
}

impl Fate {
    /// The word rows and APIs show.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Open(_) => "job-open",
            Self::Owned(_) => "owned",
            Self::Take(_) | Self::Taking(_) => "taking-back",
            Self::Report(_) => "needs-you",
        }
    }

    /// The same in words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Gone => "gone".to_owned(),
            Self::Open(job) => format!("job {job} is open and decides about it"),
            Self::Owned(server) => format!("it is server {server}"),
            Self::Take(_) => "a job takes it back".to_owned(),
            Self::Taking(job) => format!("job {job} takes it back"),
            Self::Report(why) => why.clone(),
        }
    }
}

/// The name of the job that takes a resource back: the same whoever finds it, and however often.
pub(super) fn taking(tag: &str, resource: &str) -> JobUid {
    let hash = crypto::sha256(format!("take-back\n{tag}\n{resource}"));
    let mut name = [0; 16];
    name.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    JobUid(Uid::from_bytes(name))
}

impl Sight<'_> {
    /// What becomes of something that a look showed.
    pub(super) fn fate(&self, seen: &Machine) -> Fate {
        if seen.state == ServerStatus::Terminated {
            return Fate::Gone;
        }
        let row = self.facts.servers.iter().find(|server| server.resource == seen.id);
        if let Some(server) = row.filter(|server| !server.gone) {
            return Fate::Owned(server.id);
        }
        let Some(job) = &self.facts.job else {
            let text = "no row of the job that its tag names is there: the database may have been restored from an \
                        older copy, or another installation shares the account";
            return Fate::Report(text.to_owned());
        };
        let Some(ended) = job.ended_at else { return Fate::Open(job.id) };
        if let Some(server) = row {
            return Fate::Report(format!(
                "server {} was seen gone, and the cloud shows {}",
                server.id, seen.state
            ));
        }
        if let Some(taken) = self.taken(&taking(&self.row.tag, &seen.id)) {
            return taken;
        }
        match self.doubt(seen, (job, ended)) {
            Some(why) => Fate::Report(why),
            None => Fate::Take(taking(&self.row.tag, &seen.id)),
        }
    }

    /// How far the job is that takes it back, if there is one.
    fn taken(&self, uid: &JobUid) -> Option<Fate> {
        let job = self.facts.takings.iter().find(|job| job.uid == *uid)?;
        Some(match job.ended_at {
            None => Fate::Taking(job.id),
            // What was seen gone may be shown for a while where something else is asked.
            Some(ended) if job.state == JobState::Complete && self.now.since(ended) < self.promise.1 => {
                Fate::Taking(job.id)
            }
            Some(_) => Fate::Report(format!(
                "job {} was to take it back and is {}; see why, and retry it",
                job.id, job.state
            )),
        })
    }

    /// Why something of an ended job is not taken back by itself.
    fn doubt(&self, seen: &Machine, (job, ended): (&OfJob, Micros)) -> Option<String> {
        let id = job.id;
        if self.promise.0 == TokenClass::N {
            return Some(format!(
                "it may be what job {id} made: the cloud has no tags, only its name says so"
            ));
        }
        if job.account.0 != self.row.account {
            return Some(format!("its tag is that of job {id}, which used account {}", job.account));
        }
        if job.resource.as_deref() == Some(seen.id.as_str()) {
            return Some(format!("job {id} made it and kept it, and no server's row names it"));
        }
        if job.state == JobState::Complete && job.resource.is_none() {
            return Some(format!("job {id} is complete and names nothing that it made"));
        }
        if of_tag(&self.row.tag).is_none_or(|(_, step)| step != TAKEN_BACK) {
            return Some(format!("what job {id} made may hold data"));
        }
        let within = job.created_at.minus(SKEW)..=ended.plus(self.limits.keep).plus(SKEW);
        (!within.contains(&seen.launched_at)).then(|| {
            format!(
                "it was made at {}, job {id} cannot have: was its tag copied?",
                seen.launched_at.rfc3339()
            )
        })
    }

    /// How far the obligation is after a look, and when the next one is due.
    pub(super) fn next(&self, fates: &[Fate]) -> (ObligationState, Micros) {
        let any = |wanted: fn(&Fate) -> bool| fates.iter().any(wanted);
        let scheduled = self.scheduled();
        if any(|fate| matches!(fate, Fate::Take(_) | Fate::Taking(_))) {
            return (ObligationState::TakingBack, self.now.plus(self.limits.again));
        }
        let daily = self.now.plus(self.limits.daily);
        if any(|fate| matches!(fate, Fate::Report(_))) {
            return (ObligationState::NeedsYou, scheduled.map_or(daily, |at| at.min(daily)));
        }
        if any(|fate| matches!(fate, Fate::Open(_))) {
            return (ObligationState::Watched, self.now.plus(self.limits.later.min(self.limits.daily)));
        }
        match scheduled {
            Some(at) => (ObligationState::Watched, at),
            None => (ObligationState::Closed, self.now),
        }
    }

    /// The next of Q/2, Q, later and the last look; none when they are over.
    fn scheduled(&self) -> Option<Micros> {
        let (made, last) = (Micros(self.row.made_at), Micros(self.row.look_until));
        let quiet = self.promise.1;
        let points = [quiet / 2, quiet, self.limits.later].map(|after| made.plus(after).min(last));
        points.into_iter().chain([last]).filter(|at| *at > self.now).min()
    }

    /// What a look that was answered makes of the obligation.
    pub(super) fn after(&self, fates: &[Fate], (found, said): (String, &str)) -> After {
        let (state, look_at) = self.next(fates);
        let record = recorded(&self.row.record, self.now, (said, true));
        After { state, look_at, answered: true, found: Some(found), record }
    }
}

/// What a look that failed makes of an obligation: nothing but another look.
pub(super) fn after_failure(row: &ObligationRow, limits: &Limits, now: Micros, cause: &str) -> After {
    let record = recorded(&row.record, now, (&format!("cannot look: {cause}"), false));
    let doublings = u32::try_from(row.failures).unwrap_or(0).min(16);
    let pause = limits.again.saturating_mul(1 << doublings).min(limits.later.max(limits.again));
    let known = row.state.parse().unwrap_or(ObligationState::Watched);
    let over = Micros(row.look_until) <= now && row.failures.saturating_add(1) >= PATIENCE;
    let (state, pause) = if over { (ObligationState::NeedsYou, limits.daily) } else { (known, pause) };
    After { state, look_at: now.plus(pause), answered: false, found: None, record }
}

/// One look in a record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Entry {
    at: Micros,
    answered: bool,
    text: String,
}

/// Adds a look to a record. One that failed takes the place of a failure before it; of many, the first and the last are
/// kept.
pub(super) fn recorded(record: &str, now: Micros, (text, answered): (&str, bool)) -> String {
    // A record that nobody can read is begun anew.
    let mut entries: Vec<Entry> = serde_json::from_str(record).unwrap_or_default();
    if !answered {
        drop(entries.pop_if(|last| !last.answered));
    }
    entries.push(Entry { at: now, answered, text: text.chars().take(1000).collect() });
    if entries.len() > FIRST + LAST {
        entries.remove(FIRST);
    }
    serde_json::to_string(&entries).unwrap_or_default()
}

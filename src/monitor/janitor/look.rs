//! One look for what an obligation names: claimed, looked, written; dropping it at any point loses nothing.

use super::actor::Spec;
use super::plan::{Fate, Sight, after_failure, taking};
use crate::cloud::{Machine, TokenClass};
use crate::model::{
    AccountId, AttemptUid, CustomerId, JobId, JobParams, JobUid, Micros, ObligationState, RegionId,
    TakeBackParams, Uid, UserId, Verdict,
};
use crate::monitor::reach::{Reach, Wanted};
use crate::mq::Nudge;
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::obligation::{self, Facts, ObligationRow, OfJob};
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::{audit, transition};
use crate::store::{self, AnyConnection};
use crate::supervision::limited;

/// Things one look decides about; the others are seen by the next.
const MOST: usize = 16;

/// What a look brought.
pub(super) struct Seen {
    machines: Vec<Machine>,
    class: TokenClass,
    quiet: std::time::Duration,
}

/// Numbers for what a look may make.
#[derive(Clone, Debug, Default)]
struct Numbers {
    jobs: Vec<i64>,
    audits: Vec<i64>,
}

/// What a look made.
#[derive(Debug, Default)]
struct Made {
    jobs: Vec<JobUid>,
    reported: usize,
}

impl Spec {
    /// Looks for one obligation that is due, unless somebody else does.
    pub(super) async fn serve(&self, seen: ObligationRow) {
        let tag = seen.tag.clone();
        if let Err(error) = self.served(seen).await {
            log::warn!(
                "a look for what a job left is not written, the next sweep looks again: {error}; tag={tag}"
            );
        }
    }

    async fn served(&self, seen: ObligationRow) -> Result<(), store::Error> {
        let Some(held) = self.claim(seen).await? else { return Ok(()) };
        match self.look(&held).await {
            Ok(found) => self.write(held, found).await,
            Err(cause) => self.failed(held, &cause).await,
        }
    }

    pub(super) async fn claim(&self, seen: ObligationRow) -> Result<Option<ObligationRow>, store::Error> {
        let boot = self.boot;
        self.store.write(move |c| obligation::claim(c, boot, &seen)).await
    }

    /// Asks the cloud. In class N nothing carries a tag: what has the name and no tag is a candidate.
    pub(super) async fn look(&self, held: &ObligationRow) -> Result<Seen, String> {
        let reach =
            Reach { store: &*self.rows, keys: &*self.keys, clouds: &self.clouds, clock: &*self.clock };
        let wanted = Wanted {
            job: held.job.parse().unwrap_or_else(|_no_job| JobUid::random()),
            attempt: AttemptUid::random(),
            customer: CustomerId(held.customer),
            account: AccountId(held.account),
            region: Some(RegionId(held.region)),
            purpose: "janitor",
        };
        let line = reach.at(wanted, self.limits.call).await?;
        let known = line.provider.capabilities();
        let (class, quiet) = (known.class, known.quiet());
        let context = line.context();
        let look = async {
            match class {
                TokenClass::N => line.provider.list(&context, "").await,
                _ => line.provider.find_by_tag(&context, &held.tag).await,
            }
        };
        let found = limited(self.limits.call, look).await.map_err(|late| late.to_string())?;
        let mut machines = found.map_err(|e| e.to_string())?;
        if class == TokenClass::N {
            machines = self.candidates(held, machines).await.map_err(|e| e.to_string())?;
        }
        // What lives first, so that the many that are gone hide nothing.
        machines.sort_by_key(|machine| {
            (machine.state == crate::model::ServerStatus::Terminated, machine.launched_at)
        });
        machines.truncate(MOST);
        Ok(Seen { machines, class, quiet })
    }

    /// Servers without a tag that have the name the job gave and are not older than it.
    async fn candidates(
        &self,
        held: &ObligationRow,
        all: Vec<Machine>,
    ) -> Result<Vec<Machine>, store::Error> {
        let row = held.clone();
        let facts = self.store.read(move |c| obligation::facts(c, &row, &[], &[])).await?;
        let Some(job) = facts.job.filter(|job| !job.name.is_empty()) else { return Ok(Vec::new()) };
        let fits = |machine: &Machine| {
            machine.tag.is_none() && machine.name == job.name && machine.launched_at >= job.created_at
        };
        Ok(all.into_iter().filter(fits).collect())
    }

    /// Writes what a look found: the obligation first, then the jobs that take back, evidence and audit, in one item.
    pub(super) async fn write(&self, held: ObligationRow, seen: Seen) -> Result<(), store::Error> {
        let most = seen.machines.len();
        let numbers = if seen.machines.iter().any(|m| m.state != crate::model::ServerStatus::Terminated) {
            self.numbers(&held, &seen).await?
        } else {
            Numbers::default()
        };
        let (spec, tag) = (self.clone(), held.tag.clone());
        let item = move |c: &mut AnyConnection| spec.settle(c, (&held, &seen), &numbers);
        let Some((made, state)) = self.store.write(item).await? else { return Ok(()) };
        self.metrics.janitor(if most == 0 { "absent" } else { "found" });
        if made.reported > 0 {
            log::warn!(
                "{} things at a cloud need a person: see \"dispatcher obligations\"; tag={tag}",
                made.reported
            );
        }
        for uid in made.jobs {
            log::info!(
                "something turned up after its job had ended, a job takes it back; tag={tag}, job={uid}"
            );
            self.metrics.job_submitted("take-back");
            self.metrics.janitor("take-back");
            self.changes.tell(uid);
            self.queue.publish(Nudge::Job(uid));
        }
        log::debug!("looked for what a job left: {state}; tag={tag}");
        Ok(())
    }

    /// Numbers for the jobs and audit records that this look will need, as far as the rows tell now.
    async fn numbers(&self, held: &ObligationRow, seen: &Seen) -> Result<Numbers, store::Error> {
        let mut numbers = Numbers::default();
        let (row, wanted) = (held.clone(), names(held, &seen.machines));
        let facts = self.store.read(move |c| obligation::facts(c, &row, &wanted.0, &wanted.1)).await?;
        let sight = self.sight((held, &facts), seen, self.clock.now());
        for fate in seen.machines.iter().map(|machine| sight.fate(machine)) {
            if matches!(fate, Fate::Take(_)) {
                numbers.jobs.push(self.sequencer.next(Sequence::Job).await?);
            }
            if matches!(fate, Fate::Take(_) | Fate::Report(_)) {
                numbers.audits.push(self.sequencer.next(Sequence::Audit).await?);
            }
        }
        Ok(numbers)
    }

    fn sight<'a>(
        &'a self,
        (row, facts): (&'a ObligationRow, &'a Facts),
        seen: &Seen,
        now: Micros,
    ) -> Sight<'a> {
        Sight { row, facts, promise: (seen.class, seen.quiet), limits: &self.limits, now }
    }

    /// The item of a look. Decided from the rows as they are in it; none when the obligation is another's by now.
    fn settle(
        &self,
        c: &mut AnyConnection,
        (held, seen): (&ObligationRow, &Seen),
        numbers: &Numbers,
    ) -> diesel::QueryResult<Option<(Made, ObligationState)>> {
        let wanted = names(held, &seen.machines);
        let facts = obligation::facts(c, held, &wanted.0, &wanted.1)?;
        let sight = self.sight((held, &facts), seen, c.now()?);
        let fates: Vec<Fate> = seen.machines.iter().map(|machine| sight.fate(machine)).collect();
        let mut jobs = numbers.jobs.iter().copied();
        // One that got no number is taken by the next look, which comes soon.
        let numbered: Vec<Option<i64>> =
            fates.iter().map(|fate| if matches!(fate, Fate::Take(_)) { jobs.next() } else { None }).collect();
        let shown: Vec<Shown> = seen
            .machines
            .iter()
            .zip(fates.iter().zip(&numbered))
            .map(|(machine, (fate, number))| Shown::of(machine, fate, *number))
            .collect();
        let found = serde_json::to_string(&shown).unwrap_or_default();
        let after = sight.after(&fates, (found, &said(&shown)));
        let state = after.state;
        if !obligation::looked(c, held, &after)? {
            return Ok(None);
        }
        let known: Vec<Shown> = serde_json::from_str(&held.found).unwrap_or_default();
        let mut made = Made::default();
        let mut audits = numbers.audits.iter().copied();
        for ((machine, fate), (shown, number)) in
            seen.machines.iter().zip(&fates).zip(shown.iter().zip(numbered))
        {
            let news = !known.iter().any(|old| old.resource == shown.resource && old.fate == shown.fate);
            match (fate, number, &facts.job) {
                (Fate::Take(uid), Some(number), Some(job)) => {
                    let submit = self.submit((held, job), machine, (*uid, number));
                    accept::accept(c, &submit)?;
                    self.queue.announce().note(c, Nudge::Job(*uid))?;
                    made.jobs.push(*uid);
                    self.note(c, held, (shown, "obligation.take-back"), audits.next())?;
                }
                (Fate::Report(_), _, _) if news => {
                    made.reported += 1;
                    self.note(c, held, (shown, "obligation.report"), audits.next())?;
                }
                _ => {}
            }
        }
        Ok(Some((made, state)))
    }

    /// The job that takes something back.
    fn submit(
        &self,
        (held, job): (&ObligationRow, &OfJob),
        seen: &Machine,
        (uid, number): (JobUid, i64),
    ) -> Submit {
        let left_by = held.job.parse().unwrap_or(uid);
        Submit {
            entry: Entry {
                customer: CustomerId(held.customer),
                access_key: "janitor".to_owned(),
                request: Uid::random(),
                replay: None,
                idem: None,
                repeat_by_key: false,
            },
            uid,
            id: JobId(number),
            account: AccountId(held.account),
            person: UserId(job.person),
            params: JobParams::TakeBack(TakeBackParams {
                resource: seen.id.clone(),
                region: RegionId(held.region),
                tag: held.tag.clone(),
                left_by,
            }),
            description: format!(
                "Take back server {}, which turned up after job {} had ended",
                seen.id, job.id
            )
            .chars()
            .take(255)
            .collect(),
            priority: 0,
            delay: std::time::Duration::ZERO,
            limit: self.limits.take_back,
            server: None,
        }
    }

    /// Evidence at the job that left it, where that is known, and the audit record.
    fn note(
        &self,
        c: &mut AnyConnection,
        held: &ObligationRow,
        (shown, action): (&Shown, &'static str),
        number: Option<i64>,
    ) -> diesel::QueryResult<()> {
        let text = format!("{} ({}): {}", shown.resource, shown.state, shown.text);
        if let Ok(job) = held.job.parse::<JobUid>() {
            let seen = Evidence {
                subject: taking(&held.tag, &shown.resource).to_string(),
                source: format!("janitor/{}", shown.fate),
                job,
                customer: CustomerId(held.customer),
                // It decides nothing: the job has its end.
                verdict: Verdict::Pending,
                text: format!("turned up after the end: {text}"),
                raw: serde_json::to_string(shown).unwrap_or_default(),
                made_at: Micros(0),
            };
            transition::verdict(c, &seen, None)?;
        }
        let Some(number) = number else { return Ok(()) };
        let actor = format!("janitor/{}", self.boot);
        let subject =
            if held.job.is_empty() { "job/unknown".to_owned() } else { format!("job/{}", held.job) };
        audit::record(
            c,
            number,
            CustomerId(held.customer),
            &audit::Line { actor: &actor, action, subject: &subject, detail: &text },
        )
    }

    async fn failed(&self, held: ObligationRow, cause: &str) -> Result<(), store::Error> {
        self.metrics.janitor("failed");
        log::info!("cannot look for what a job left, it is repeated: {cause}; tag={}", held.tag);
        let (limits, cause) = (self.limits, cause.to_owned());
        let item = move |c: &mut AnyConnection| {
            let after = after_failure(&held, &limits, c.now()?, &cause);
            obligation::looked(c, &held, &after)
        };
        self.store.write(item).await.map(drop)
    }
}

/// The resources a look showed, and the names of the jobs that would take them back.
fn names(held: &ObligationRow, machines: &[Machine]) -> (Vec<String>, Vec<JobUid>) {
    machines.iter().map(|machine| (machine.id.clone(), taking(&held.tag, &machine.id))).unzip()
}

/// Something a look showed, as rows keep it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    resource: String,
    state: String,
    launched_at: String,
    fate: String,
    text: String,
    job: Option<i64>,
}

impl Shown {
    fn of(seen: &Machine, fate: &Fate, number: Option<i64>) -> Self {
        let job = match (fate, number) {
            (_, Some(number)) => Some(number),
            (Fate::Taking(job) | Fate::Open(job), None) => Some(job.0),
            _ => None,
        };
        let text = number.map_or_else(|| fate.text(), |number| Fate::Taking(JobId(number)).text());
        Self {
            resource: seen.id.clone(),
            state: seen.state.to_string(),
            launched_at: seen.launched_at.rfc3339(),
            fate: fate.as_str().to_owned(),
            text,
            job,
        }
    }
}

/// What a look found, in one line.
fn said(shown: &[Shown]) -> String {
    if shown.is_empty() {
        return "absent".to_owned();
    }
    let each: Vec<String> =
        shown.iter().map(|one| format!("{} {}: {}", one.resource, one.state, one.text)).collect();
    each.join("; ")
}

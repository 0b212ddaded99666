//! Verdicts from outside: each becomes a row before its message is acknowledged. Only the watch it names counts;
//! whatever else the message says, the rows are the truth.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use diesel::prelude::*;

use crate::model::{JobUid, Micros};
use crate::mq::{Announce, Nudge, Parts, Said};
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::schema::audit;
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::{insert_new, transition, watch};
use crate::store::{AnyConnection, Error, catch_up};

/// Audit records of refused verdicts are at most one so often: a flood must not fill the table. All are counted.
const AUDIT_EVERY: Duration = Duration::from_secs(1);
/// Pause before a verdict is tried again that the database did not take.
const RETRY: Duration = Duration::from_millis(500);

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It decided its watch.
    Decided(JobUid),
    /// Its watch was closed: it is evidence.
    Noted(JobUid),
    /// It names no watch of ours.
    Unknown,
    /// It names another job than its watch belongs to.
    Foreign,
}

impl Heard {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Decided(_) => "decided",
            Self::Noted(_) => "noted",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
        }
    }
}

/// Where verdicts are written down.
pub(super) struct Desk {
    parts: Parts,
    announce: Announce,
    audited: AtomicI64,
}

impl Desk {
    pub(super) fn new(parts: &Parts, announce: Announce) -> Self {
        Self { parts: parts.clone(), announce, audited: AtomicI64::new(0) }
    }

    /// Stores a verdict, for as long as that takes: a database that is away refuses nobody.
    pub(super) async fn hear(&self, said: &Said) -> Heard {
        loop {
            match self.store(said).await {
                Ok(heard) => return heard,
                Err(error) => log::warn!("a verdict from the queue is not stored yet: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn store(&self, said: &Said) -> Result<Heard, Error> {
        let (item, announce) = (said.clone(), self.announce.clone());
        let heard = self.parts.store.write(move |c| store(c, &item, &announce)).await?;
        self.parts.metrics.queue().verdict(heard.as_str());
        match heard {
            Heard::Decided(job) => {
                self.parts.metrics.verdict(said.verdict.as_str());
                (self.parts.told)(job);
            }
            Heard::Noted(job) => (self.parts.told)(job),
            Heard::Unknown | Heard::Foreign => self.audit(said, heard).await?,
        }
        Ok(heard)
    }

    async fn audit(&self, said: &Said, heard: Heard) -> Result<(), Error> {
        let (watch, source) = (said.watch, said.source.clone());
        log::warn!("a verdict was refused ({}): watch {watch}, from {source}", heard.as_str());
        let (now, last) = (Micros::wall(), self.audited.load(Ordering::Relaxed));
        if now.since(Micros(last)) < AUDIT_EVERY {
            return Ok(());
        }
        self.audited.store(now.0, Ordering::Relaxed);
        let id = self.parts.sequencer.next(Sequence::Audit).await?;
        let detail = format!("refused ({}): {} said {}", heard.as_str(), said.source, said.verdict);
        self.parts
            .store
            .write(move |c| {
                let row = (
                    audit::id.eq(id),
                    // No tenant: nobody knows whose it would be.
                    audit::customer.eq(0),
                    audit::actor.eq(&source),
                    audit::action.eq("queue.verdict"),
                    audit::subject.eq(format!("watch/{watch}")),
                    audit::detail.eq(&detail),
                    audit::made_at.eq(c.now()?.0),
                );
                insert_new(diesel::insert_into(audit::table).values(row).execute(c))
            })
            .await
            .map(drop)
    }
}

/// One item: the evidence, the end of the watch, and the message that tells of it.
fn store(c: &mut AnyConnection, said: &Said, announce: &Announce) -> QueryResult<Heard> {
    catch_up(c)?;
    let Some(watch) = watch::by_uid(c, said.watch)? else { return Ok(Heard::Unknown) };
    if said.job.is_some_and(|job| job != watch.job) {
        return Ok(Heard::Foreign);
    }
    let open = watch.done_at.is_none();
    let evidence = Evidence {
        subject: watch.uid.to_string(),
        source: said.source.clone(),
        job: watch.job,
        customer: watch.customer,
        verdict: said.verdict,
        text: said.text.clone(),
        raw: said.raw.clone(),
        made_at: Micros(0),
    };
    transition::verdict(c, &evidence, open.then_some(watch.uid))?;
    if !open {
        return Ok(Heard::Noted(watch.job));
    }
    announce.note(c, Nudge::Job(watch.job))?;
    Ok(Heard::Decided(watch.job))
}

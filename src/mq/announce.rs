//! What the commit of a change writes for the message that announces it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use diesel::prelude::*;

use super::envelope::{Envelope, Head, WatchBody};
use super::{Names, Nudge};
use crate::model::{AccountId, JobUid, Micros, WatchUid};
use crate::store::provisioning::outbox::{self, OutboxRow};
use crate::store::provisioning::schema::job;
use crate::store::provisioning::watch::{self, Watch};
use crate::store::{AnyConnection, Later, later};

/// A policy, fixed where the parts of a process are made: rows that are the queue need no message; a broker outside
/// needs a row of the outbox in the same commit. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Announce(Option<Arc<Outgoing>>);

#[derive(Debug)]
struct Outgoing {
    exchange: String,
    tag: i64,
    last: AtomicI64,
}

impl Announce {
    /// Rows are the queue: nothing is written.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(None)
    }

    /// Messages for this exchange, as rows that carry the writer's tag.
    #[must_use]
    pub fn outbox(names: &Names, tag: i64) -> Self {
        Self(Some(Arc::new(Outgoing { exchange: names.exchange(), tag, last: AtomicI64::new(0) })))
    }

    /// Writes the message of a change into the change's own commit; called by its item, after its guard. A second run of
    /// the item writes a second message, which is harmless.
    ///
    /// # Errors
    /// What the database reports.
    pub fn note(&self, connection: &mut AnyConnection, nudge: Nudge) -> QueryResult<()> {
        let Some(out) = &self.0 else { return Ok(()) };
        let out = Arc::clone(out);
        later::<Notes>(connection, |notes| notes.0.push((out, nudge)))
    }
}

/// Messages of one commit.
#[derive(Default)]
struct Notes(Vec<(Arc<Outgoing>, Nudge)>);

impl Later for Notes {
    // After the rows they are about.
    const ORDER: u8 = 2;

    fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        let now = connection.now()?;
        let about = About::read(connection, now, self.0.iter().map(|(_, nudge)| *nudge))?;
        let mut rows = Vec::with_capacity(self.0.len());
        for (out, nudge) in self.0 {
            let Some(envelope) = about.envelope(nudge) else { continue };
            // One writer thread a process: nobody else moves it meanwhile.
            let id = outbox::next_id(out.last.load(Ordering::Relaxed), now, out.tag);
            out.last.store(id, Ordering::Relaxed);
            rows.push(OutboxRow {
                id,
                exchange: out.exchange.clone(),
                routing_key: envelope.kind.clone(),
                body: envelope.encode(),
                made_at: now.0,
            });
        }
        outbox::insert_all(connection, rows)
    }
}

/// What the messages of one commit say, from the rows they are about.
struct About {
    now: Micros,
    watches: HashMap<WatchUid, Watch>,
    heads: HashMap<JobUid, Head>,
}

impl About {
    fn read(
        connection: &mut AnyConnection,
        now: Micros,
        nudges: impl Iterator<Item = Nudge>,
    ) -> QueryResult<Self> {
        let (mut jobs, mut watches) = (Vec::new(), Vec::new());
        for nudge in nudges {
            match nudge {
                Nudge::Job(uid) | Nudge::Cancel(uid) | Nudge::Reported(uid) => jobs.push(uid),
                Nudge::Watch(_, uid) => watches.push(uid),
                Nudge::Guest(_) => {}
            }
        }
        let found = if watches.is_empty() { Vec::new() } else { watch::by_uids(connection, &watches)? };
        jobs.extend(found.iter().map(|watch| watch.job));
        Ok(Self {
            now,
            heads: heads(connection, now, &jobs)?,
            watches: found.into_iter().map(|watch| (watch.uid, watch)).collect(),
        })
    }

    /// The message of a nudge; none where the rows it names are gone.
    fn envelope(&self, nudge: Nudge) -> Option<Envelope> {
        match nudge {
            Nudge::Job(uid) | Nudge::Cancel(uid) | Nudge::Reported(uid) => {
                Some(Envelope::of_nudge(*self.heads.get(&uid)?, nudge))
            }
            Nudge::Watch(_, uid) => {
                let open = self.watches.get(&uid)?;
                let body = WatchBody {
                    watch_id: open.uid,
                    target: open.target.clone(),
                    expectation: open.expectation.clone(),
                    deadline: open.deadline,
                };
                Some(Envelope::of_watch(*self.heads.get(&open.job)?, open.kind, &body))
            }
            Nudge::Guest(_) => Some(Envelope::of_nudge(Head::new(self.now), nudge)),
        }
    }
}

fn heads(connection: &mut AnyConnection, now: Micros, jobs: &[JobUid]) -> QueryResult<HashMap<JobUid, Head>> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let found: Vec<(String, i64, i64)> = job::table
        .filter(job::uid.eq_any(names))
        .select((job::uid, job::epoch, job::account))
        .load(connection)?;
    let head = |(name, epoch, account): (String, i64, i64)| {
        let uid: JobUid = name.parse().ok()?;
        Some((uid, Head::of_job(now, uid, epoch, AccountId(account))))
    };
    Ok(found.into_iter().filter_map(head).collect())
}

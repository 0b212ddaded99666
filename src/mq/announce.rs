//! What the commit of a change writes for the message that announces it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use diesel::prelude::*;

use super::envelope::{Envelope, Head, WatchBody};
use super::{Names, Nudge};
use crate::model::{AccountId, JobUid, WatchUid};
use crate::store::AnyConnection;
use crate::store::provisioning::outbox::{self, OutboxRow};
use crate::store::provisioning::{schema::job, watch};

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

    /// Writes the message of a change into the change's own item, after its guard. A second run of the item writes a
    /// second message, which is harmless.
    ///
    /// # Errors
    /// What the database reports.
    pub fn note(&self, connection: &mut AnyConnection, nudge: Nudge) -> QueryResult<()> {
        let Some(out) = &self.0 else { return Ok(()) };
        let now = connection.now()?;
        let Some(envelope) = envelope_of(connection, nudge)? else { return Ok(()) };
        let id = outbox::next_id(out.last.load(Ordering::Relaxed), now, out.tag);
        let row = OutboxRow {
            id,
            exchange: out.exchange.clone(),
            routing_key: envelope.kind.clone(),
            body: envelope.encode(),
            made_at: now.0,
        };
        // One writer thread a process: nobody else moves it meanwhile.
        let stored = outbox::insert(connection, row)?;
        out.last.store(stored, Ordering::Relaxed);
        Ok(())
    }
}

/// The message of a nudge, from the rows it names; none where they are gone.
fn envelope_of(connection: &mut AnyConnection, nudge: Nudge) -> QueryResult<Option<Envelope>> {
    match nudge {
        Nudge::Job(uid) | Nudge::Cancel(uid) | Nudge::Reported(uid) => {
            Ok(head_of(connection, uid)?.map(|head| Envelope::of_nudge(head, nudge)))
        }
        Nudge::Watch(_, uid) => watch_message(connection, uid),
        Nudge::Guest(_) => Ok(Some(Envelope::of_nudge(Head::new(connection.now()?), nudge))),
    }
}

fn watch_message(connection: &mut AnyConnection, uid: WatchUid) -> QueryResult<Option<Envelope>> {
    let Some(open) = watch::by_uid(connection, uid)? else { return Ok(None) };
    let head = head_of(connection, open.job)?;
    let body = WatchBody {
        watch_id: open.uid,
        target: open.target,
        expectation: open.expectation,
        deadline: open.deadline,
    };
    Ok(head.map(|head| Envelope::of_watch(head, open.kind, &body)))
}

fn head_of(connection: &mut AnyConnection, uid: JobUid) -> QueryResult<Option<Head>> {
    let now = connection.now()?;
    let found: Option<(i64, i64)> =
        job::table.find(uid.to_string()).select((job::epoch, job::account)).first(connection).optional()?;
    Ok(found.map(|(epoch, account)| Head::of_job(now, uid, epoch, AccountId(account))))
}

//! Group commit: one thread takes all waiting writes, runs them in one transaction, commits, then answers each.
//!
//! No timer: while one commit runs, the next batch collects by itself. A refusal belongs to its item. Any other error
//! rolls the batch back and replays it one item a transaction, so that a bad item never fails its neighbours; an item
//! may therefore run twice and holds only absolute values. See `docs/ARCHITECTURE.md`, "Group commit".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as Diesel};
use tokio::sync::{mpsc, oneshot};

use super::{AnyConnection, Error, Manager};
use crate::ops::failpoint::hit_in;
use crate::supervision::Heart;

/// One write: its first statement is its guard (a unique insert or a compare-and-set); what follows cannot
/// legally fail. Returning `Ok` commits what was written; a refused item returns `Ok` without having written.
pub(crate) trait Item: Send {
    fn run(&mut self, connection: &mut AnyConnection) -> QueryResult<()>;
    fn answer(self: Box<Self>, outcome: Result<(), Error>);
}

/// A closure with the place its result waits in until the commit.
pub(crate) struct Call<T, F> {
    pub(crate) f: F,
    pub(crate) value: Option<T>,
    pub(crate) reply: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnMut(&mut AnyConnection) -> QueryResult<T> + Send> Item for Call<T, F> {
    fn run(&mut self, connection: &mut AnyConnection) -> QueryResult<()> {
        self.value = Some((self.f)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        let Self { value, reply, .. } = *self;
        // The asker may be gone; its write stands all the same.
        drop(reply.send(outcome.and_then(|()| value.ok_or(Error::Unknown))));
    }
}

/// Figures of the writer since start.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) commits: AtomicU64,
    pub(crate) items: AtomicU64,
    pub(crate) replays: AtomicU64,
}

/// Told after each commit: items in it and how long it took.
pub(crate) type OnCommit = Arc<dyn Fn(usize, std::time::Duration) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Writer {
    /// Name of the database.
    pub(crate) name: &'static str,
    /// Moves with each item and each commit.
    pub(crate) heart: Heart,
    pub(crate) manager: Manager,
    pub(crate) batch: usize,
    pub(crate) tally: Arc<Tally>,
    pub(crate) on_commit: OnCommit,
}

/// How often an item that lost against another transaction is tried again.
const RETRIES: u32 = 3;

impl Writer {
    /// Serves until every sender is gone. Blocks: runs on a thread of its own.
    pub(crate) fn serve(&self, waiting: &mut mpsc::Receiver<Box<dyn Item>>) {
        let mut connection = None;
        let mut batch: Vec<Box<dyn Item>> = Vec::with_capacity(self.batch);
        while waiting.blocking_recv_many(&mut batch, self.batch) > 0 {
            let _work = self.heart.work();
            self.commit_all(&mut connection, &mut batch);
            batch.clear();
        }
    }

    fn commit_all(&self, connection: &mut Option<AnyConnection>, batch: &mut Vec<Box<dyn Item>>) {
        match self.attempt(connection, batch) {
            Ok(()) => batch.drain(..).for_each(|item| item.answer(Ok(()))),
            Err(error) => {
                if batch.len() > 1 {
                    log::warn!("a batch of {} writes is replayed one by one: {error}", batch.len());
                }
                for item in batch.drain(..) {
                    self.commit_one(connection, item);
                }
            }
        }
    }

    fn commit_one(&self, connection: &mut Option<AnyConnection>, item: Box<dyn Item>) {
        self.tally.replays.fetch_add(1, Ordering::Relaxed);
        let mut alone = vec![item];
        let mut tries = 0;
        let outcome = loop {
            match self.attempt(connection, &mut alone) {
                Ok(()) => break Ok(()),
                Err(fault) if tries < RETRIES && fault.may_pass() => tries += 1,
                Err(fault) => break Err(fault),
            }
        };
        for item in alone {
            item.answer(outcome.as_ref().copied().map_err(Fault::to_error));
        }
    }

    /// One transaction over these items, on a connection that is opened anew after the last one broke.
    fn attempt(&self, slot: &mut Option<AnyConnection>, batch: &mut [Box<dyn Item>]) -> Result<(), Fault> {
        let started = Instant::now();
        let connection = match slot {
            Some(connection) => connection,
            None => {
                // A server that is away is no thread that hangs.
                let opened = self.heart.aside(|| self.manager.open());
                slot.insert(opened.map_err(|e| Fault::Connect(e.to_string()))?)
            }
        };
        self.heart.step();
        hit_in("commit", self.name);
        let outcome = run_batch(connection, batch, &self.heart);
        self.heart.step();
        match &outcome {
            Ok(()) => self.count(batch.len(), started),
            Err(_) if is_broken(connection) => *slot = None,
            Err(_) => {}
        }
        outcome
    }

    fn count(&self, items: usize, started: Instant) {
        self.tally.commits.fetch_add(1, Ordering::Relaxed);
        self.tally.items.fetch_add(items as u64, Ordering::Relaxed);
        (self.on_commit)(items, started.elapsed());
    }
}

enum Fault {
    Connect(String),
    Diesel(Diesel),
    /// The commit's answer was lost.
    Commit(Diesel),
    Panicked(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Diesel(error) | Self::Commit(error) => error.fmt(f),
            Self::Panicked(text) => write!(f, "panic: {text}"),
            Self::Connect(text) => write!(f, "no connection: {text}"),
        }
    }
}

impl Fault {
    /// Whether the same item may succeed at once: it lost against another transaction, or its link was cut. An item
    /// whose commit is unknown finds its own uid when it runs again.
    fn may_pass(&self) -> bool {
        match self {
            Self::Diesel(error) => lost_a_race(error),
            Self::Commit(_) => true,
            Self::Connect(_) | Self::Panicked(_) => false,
        }
    }

    fn to_error(&self) -> Error {
        match self {
            Self::Diesel(error) => Error::of(copy_of(error)),
            Self::Commit(_) => Error::Unknown,
            Self::Panicked(text) => Error::Panicked(text.clone()),
            Self::Connect(text) => Error::Connect(text.clone()),
        }
    }
}

/// Diesel's errors cannot be cloned; what callers look at survives.
fn copy_of(error: &Diesel) -> Diesel {
    match error {
        Diesel::NotFound => Diesel::NotFound,
        Diesel::DatabaseError(kind, info) => {
            let kind = match kind {
                DatabaseErrorKind::UniqueViolation => DatabaseErrorKind::UniqueViolation,
                DatabaseErrorKind::ForeignKeyViolation => DatabaseErrorKind::ForeignKeyViolation,
                DatabaseErrorKind::NotNullViolation => DatabaseErrorKind::NotNullViolation,
                DatabaseErrorKind::CheckViolation => DatabaseErrorKind::CheckViolation,
                DatabaseErrorKind::ClosedConnection => DatabaseErrorKind::ClosedConnection,
                DatabaseErrorKind::SerializationFailure => DatabaseErrorKind::SerializationFailure,
                _ => DatabaseErrorKind::Unknown,
            };
            Diesel::DatabaseError(kind, Box::new(info.message().to_owned()))
        }
        other => Diesel::DatabaseError(DatabaseErrorKind::Unknown, Box::new(other.to_string())),
    }
}

fn run_batch(
    connection: &mut AnyConnection,
    batch: &mut [Box<dyn Item>],
    heart: &Heart,
) -> Result<(), Fault> {
    connection.begin().map_err(Fault::Diesel)?;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        batch.iter_mut().try_for_each(|item| {
            heart.step();
            item.run(connection)
        })
    }));
    heart.step();
    let fault = match ran {
        Ok(Ok(())) => match connection.commit() {
            Ok(()) => return Ok(()),
            Err(error) if connection.commit_may_be_unknown() && !lost_a_race(&error) => Fault::Commit(error),
            Err(error) => Fault::Diesel(error),
        },
        Ok(Err(error)) => Fault::Diesel(error),
        Err(panic) => Fault::Panicked(text_of(&*panic)),
    };
    if let Err(error) = connection.rollback() {
        log::debug!("rollback after a failed batch: {error}");
    }
    Err(fault)
}

fn lost_a_race(error: &Diesel) -> bool {
    match error {
        Diesel::DatabaseError(DatabaseErrorKind::SerializationFailure, _) | Diesel::RollbackTransaction => {
            true
        }
        Diesel::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            let text = info.message();
            text.contains("Deadlock")
                || text.contains("Lock wait timeout")
                || text.contains("database is locked")
        }
        _ => false,
    }
}

fn is_broken(connection: &mut AnyConnection) -> bool {
    use diesel::r2d2::R2D2Connection;
    connection.is_broken() || connection.ping().is_err()
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".to_owned())
}

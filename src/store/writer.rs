//! Group commit: one thread takes all waiting writes, runs them in one transaction, commits, then answers each.
//!
//! No timer: while one commit runs, the next batch collects by itself. A refusal belongs to its item. Any other error
//! rolls the batch back and replays it one item a transaction, so that a bad item never fails its neighbours; an item
//! may therefore run twice and holds only absolute values. See `docs/ARCHITECTURE.md`, "Group commit".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as Diesel};
use tokio::sync::{mpsc, oneshot};

use super::{AnyConnection, Error, Manager};
use crate::ops::failpoint::{answer_lost, hit_in};
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
pub(crate) type OnCommit = Arc<dyn Fn(usize, Duration) + Send + Sync>;

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
    pub(crate) progress: Progress,
}

/// How long the writer has been at one batch: a server that has stopped answering is seen here, because the client
/// library waits for it without an end.
#[derive(Clone)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the beginning of the batch at work, and one more; 0 between batches.
    since: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), since: Arc::default() }
    }

    fn begin(&self) -> AtWork<'_> {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
        AtWork(&self.since)
    }

    /// How long the batch at work has taken so far.
    pub(crate) fn at_work(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.start.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }
}

struct AtWork<'a>(&'a AtomicU64);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
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
            let _at_work = self.progress.begin();
            self.commit_all(&mut connection, &mut batch);
            batch.clear();
        }
    }

    fn commit_all(&self, connection: &mut Option<AnyConnection>, batch: &mut Vec<Box<dyn Item>>) {
        let fault = match self.attempt(connection, batch) {
            Ok(()) => return batch.drain(..).for_each(|item| item.answer(Ok(()))),
            Err(fault) => fault,
        };
        if batch.len() > 1 {
            log::warn!("a batch of {} writes failed: {fault}", batch.len());
        }
        // A commit that was sent and not answered may hold all of them.
        let doubtful = matches!(fault, Fault::Commit(_));
        let mut away = match fault {
            Fault::Connect(text) => Some(text),
            _ => None,
        };
        for item in batch.drain(..) {
            match &away {
                // One refused opening speaks for the whole batch: each may take long.
                Some(text) => item.answer(Err(not_reached(doubtful, text))),
                None => away = self.commit_one(connection, item, doubtful),
            }
        }
    }

    /// Runs an item alone; returns why the database could not be reached, if it could not.
    fn commit_one(
        &self,
        connection: &mut Option<AnyConnection>,
        item: Box<dyn Item>,
        mut doubtful: bool,
    ) -> Option<String> {
        self.tally.replays.fetch_add(1, Ordering::Relaxed);
        let mut alone = vec![item];
        let mut tries = 0;
        let outcome = loop {
            let fault = match self.attempt(connection, &mut alone) {
                Ok(()) => break Ok(()),
                Err(fault) => fault,
            };
            doubtful |= matches!(fault, Fault::Commit(_));
            if tries == RETRIES || !fault.may_pass() {
                break Err(fault);
            }
            tries += 1;
            std::thread::sleep(pause(tries));
        };
        let away = match &outcome {
            Err(Fault::Connect(text)) => Some(text.clone()),
            _ => None,
        };
        for item in alone {
            item.answer(outcome.as_ref().copied().map_err(|fault| match fault {
                Fault::Connect(text) => not_reached(doubtful, text),
                // It failed now, but an earlier commit of it may have been stored.
                fault if doubtful => doubt(fault),
                fault => fault.to_error(),
            }));
        }
        away
    }

    /// One transaction over these items, on a connection that is opened anew after the last one broke.
    fn attempt(&self, slot: &mut Option<AnyConnection>, batch: &mut [Box<dyn Item>]) -> Result<(), Fault> {
        let started = Instant::now();
        let connection = match slot {
            Some(connection) => connection,
            None => {
                // A server that is away is no thread that hangs.
                let opened = self.heart.aside(|| self.manager.open());
                slot.insert(opened.map_err(|e| Fault::Connect(text_of_connect(e)))?)
            }
        };
        self.heart.step();
        hit_in("commit", self.name);
        let outcome = if self.manager.is_server() {
            // One that has stopped answering is no thread that hangs: those who wait for it are answered in time.
            self.heart.aside(|| run_batch(connection, batch, &Heart::default()))
        } else {
            run_batch(connection, batch, &self.heart)
        };
        let outcome = match outcome {
            Ok(()) if self.name == super::PROVISIONING.name && answer_lost() => Err(lost_answer()),
            outcome => outcome,
        };
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

/// What an answer lost on demand looks like.
fn lost_answer() -> Fault {
    let text = "the answer was lost on demand".to_owned();
    Fault::Commit(Diesel::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(text)))
}

/// Before another try: short, and not in step with who else tries again.
fn pause(tries: u32) -> Duration {
    let mut byte = [0_u8];
    let jitter = getrandom::fill(&mut byte).map_or(0, |()| u64::from(byte[0]) / 16);
    Duration::from_millis(5 * u64::from(tries) + jitter)
}

fn text_of_connect(error: Error) -> String {
    match error {
        Error::Connect(text) => text,
        other => other.to_string(),
    }
}

/// No connection: nothing was stored, unless an earlier commit was never answered.
fn not_reached(doubtful: bool, text: &str) -> Error {
    if doubtful { Error::Unknown } else { Error::Connect(text.to_owned()) }
}

/// The answer to an item whose first commit was never answered and whose later run failed.
fn doubt(fault: &Fault) -> Error {
    match fault.to_error() {
        Error::Unavailable(_) | Error::Connect(_) => Error::Unknown,
        // The statement itself is refused, so it was at its first run.
        other => other,
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
    let _one = super::connection::OneTime::begin();
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
                || text.contains("Record has changed since last read")
                || text.contains("database is locked")
        }
        _ => false,
    }
}

pub(super) fn is_broken(connection: &mut AnyConnection) -> bool {
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

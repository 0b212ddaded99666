//! Group commit: one thread takes all waiting writes, runs them in one transaction, commits, then answers each.
//!
//! No timer: while one commit runs, the next batch collects by itself. A refusal belongs to its item. Any other error
//! rolls the batch back and replays it one item a transaction, so that a bad item never fails its neighbours; an item
//! may therefore run twice and holds only absolute values. See `docs/ARCHITECTURE.md`, "Group commit".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use diesel::QueryResult;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, doubt, lost_a_race, lost_answer, not_reached, text_of_connect};
use super::later::Gathering;
use super::witness::Witness;
use super::{AnyConnection, Database, Error, Manager};
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
    /// The database whose migrations are still to be applied, because it was away at the start.
    pub(crate) unprepared: Arc<Mutex<Option<Database>>>,
    /// Why the file is not to be trusted by this process any more.
    pub(crate) distrust: Arc<OnceLock<String>>,
}

/// How long a thread has been at one batch or query: a server that has stopped answering is seen here, because the client
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

    pub(crate) fn begin(&self) -> AtWork<'_> {
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

pub(crate) struct AtWork<'a>(&'a AtomicU64);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What the thread works over.
struct Link {
    connection: Option<AnyConnection>,
    witness: Witness,
}

/// How often an item that lost against another transaction is tried again.
const RETRIES: u32 = 3;

impl Writer {
    /// Serves until every sender is gone. Blocks: runs on a thread of its own.
    pub(crate) fn serve(&self, waiting: &mut mpsc::Receiver<Box<dyn Item>>) {
        let mut link = Link { connection: None, witness: Witness::of(&self.manager) };
        let mut batch: Vec<Box<dyn Item>> = Vec::with_capacity(self.batch);
        while waiting.blocking_recv_many(&mut batch, self.batch) > 0 {
            let _work = self.heart.work();
            let _at_work = self.progress.begin();
            link.witness.watch();
            self.commit_all(&mut link, &mut batch);
            batch.clear();
            // Who looks after the thread ends the process.
            if self.distrust.get().is_some() {
                return;
            }
        }
    }

    fn commit_all(&self, link: &mut Link, batch: &mut Vec<Box<dyn Item>>) {
        let fault = match self.attempt(link, batch) {
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
            // Never again on this file: it may succeed over a hole.
            Fault::Distrusted(_) => return batch.drain(..).for_each(|item| item.answer(Err(Error::Unknown))),
            _ => None,
        };
        for item in batch.drain(..) {
            match &away {
                // One refused opening speaks for the whole batch: each may take long.
                Some(text) => item.answer(Err(not_reached(doubtful, text))),
                None => away = self.commit_one(link, item, doubtful),
            }
        }
    }

    /// Runs an item alone; returns why the database could not be reached, if it could not.
    fn commit_one(&self, link: &mut Link, item: Box<dyn Item>, mut doubtful: bool) -> Option<String> {
        self.tally.replays.fetch_add(1, Ordering::Relaxed);
        let mut alone = vec![item];
        let mut tries = 0;
        let outcome = loop {
            let fault = match self.attempt(link, &mut alone) {
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
            Err(Fault::Connect(text) | Fault::Distrusted(text)) => Some(text.clone()),
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
    fn attempt(&self, link: &mut Link, batch: &mut [Box<dyn Item>]) -> Result<(), Fault> {
        let started = Instant::now();
        let Link { connection: slot, witness } = link;
        let connection = match slot {
            Some(connection) => connection,
            None => {
                // A server that is away is no thread that hangs.
                let opened = self.heart.aside(|| self.open());
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
        if matches!(&outcome, Err(fault) if fault.is_of_disk())
            && let Some(fault) = witness.fault()
        {
            let _ = self.distrust.set(fault.clone());
            return Err(Fault::Distrusted(fault));
        }
        match &outcome {
            Ok(()) => self.count(batch.len(), started),
            Err(_) if is_broken(connection) => {
                *slot = None;
                witness.forget();
            }
            Err(_) => {}
        }
        outcome
    }

    /// A connection to a database that is as this program needs it.
    fn open(&self) -> Result<AnyConnection, Error> {
        let mut unprepared = self.unprepared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match unprepared.as_ref() {
            Some(_) => self.manager.create().and_then(|()| self.manager.open())?,
            None => return self.manager.open(),
        };
        if let Some(database) = unprepared.take() {
            if let Err(error) = database.migrate(&mut connection) {
                *unprepared = Some(database);
                return Err(error);
            }
            log::info!("the database {} is there now and prepared", database.name);
        }
        Ok(connection)
    }

    fn count(&self, items: usize, started: Instant) {
        self.tally.commits.fetch_add(1, Ordering::Relaxed);
        self.tally.items.fetch_add(items as u64, Ordering::Relaxed);
        (self.on_commit)(items, started.elapsed());
    }
}

/// Before another try: short, and not in step with who else tries again.
fn pause(tries: u32) -> Duration {
    let mut byte = [0_u8];
    let jitter = getrandom::fill(&mut byte).map_or(0, |()| u64::from(byte[0]) / 16);
    Duration::from_millis(5 * u64::from(tries) + jitter)
}

fn run_batch(
    connection: &mut AnyConnection,
    batch: &mut [Box<dyn Item>],
    heart: &Heart,
) -> Result<(), Fault> {
    let _one = super::connection::OneTime::begin();
    let gathering = Gathering::begin(connection);
    connection.begin().map_err(Fault::Diesel)?;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        batch.iter_mut().try_for_each(|item| {
            heart.step();
            item.run(connection)
        })?;
        gathering.write(connection)
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

//! The one door to a database.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::SyncArbiter;
use diesel::QueryResult;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::condition::{Condition, Standing, Way};
use super::keeper::{Desk, Keeper};
use super::reader::{Reader, Readers, Run};
use super::writer::{Call, Item, OnCommit, Progress, Tally, Writer};
use super::{AnyConnection, Database, Error, Manager};
use crate::ops::{Health, State};
use crate::supervision::{Arbiter, Heart, Mailbox, Need, Options, Supervisor};

/// How a database is opened.
#[derive(Clone)]
pub struct Settings {
    /// `sqlite:///path` or `mysql://…`.
    pub manager: Manager,
    /// Threads and connections that read.
    pub readers: u32,
    /// Writes that may wait; one more is answered [`Error::Busy`].
    pub waiting_writes: usize,
    /// Reads that may wait; one more is answered [`Error::Busy`].
    pub waiting_reads: usize,
    /// Most writes in one commit.
    pub batch: usize,
    /// Writes are refused at once when a server has not answered for so long, reads when no reader of it has.
    pub stall_limit: Duration,
    /// Longest wait for a server's answer: a write is unknown then, a read unavailable.
    pub answer_limit: Duration,
}

impl Settings {
    /// The usual limits for this database.
    #[must_use]
    pub const fn new(manager: Manager) -> Self {
        Self {
            manager,
            readers: 2,
            waiting_writes: 4096,
            waiting_reads: 1024,
            batch: 256,
            stall_limit: Duration::from_secs(3),
            answer_limit: Duration::from_secs(10),
        }
    }
}

/// What the writer did since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Transactions committed.
    pub commits: u64,
    /// Writes in them.
    pub items: u64,
    /// Writes run again alone, after their batch was rolled back.
    pub replays: u64,
}

/// Handle to one database. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::Sender<Box<dyn Item>>,
    readers: Readers,
    reading: Arc<Semaphore>,
    desk: Desk,
    tally: Arc<Tally>,
    waiting: Arc<AtomicI64>,
    progress: Progress,
    /// How long each reader has been at its query.
    queries: Arc<[Progress]>,
    condition: Condition,
    need: Need,
    /// None for a file: it answers, or the machine stands still as well.
    limits: Option<Limits>,
}

/// Said instead of waiting for a server that others wait for already.
const NO_ANSWER: &str = "it has not answered for some seconds";

/// Applies missing migrations; true when that is left to the writer, because the database can be spared and is away.
fn prepare(database: Database, manager: &Manager) -> Result<bool, Error> {
    let prepared = manager.open().and_then(|mut first| database.migrate(&mut first));
    match prepared {
        Err(error @ (Error::Connect(_) | Error::Unavailable(_))) if database.need == Need::Spare => {
            log::warn!("the database {} is away and is prepared later: {error}", database.name);
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

#[derive(Clone, Copy)]
struct Limits {
    stall: Duration,
    answer: Duration,
}

impl Store {
    /// Opens the database, applies missing migrations, starts its writer and its readers. Must be called inside an
    /// actix system.
    ///
    /// A database that can be spared ([`ANALYTICS`](super::ANALYTICS)) may be away: it is prepared when the writer first
    /// reaches it.
    ///
    /// # Errors
    /// When the database cannot be reached or its migrations fail.
    pub fn open(database: Database, settings: &Settings, on_commit: OnCommit) -> Result<Self, Error> {
        let unprepared = prepare(database, &settings.manager)?;
        let tally = Arc::new(Tally::default());
        let (writes, line) = mpsc::channel(settings.waiting_writes);
        let writer = Writer {
            name: database.name,
            heart: Heart::default(),
            manager: settings.manager.clone(),
            batch: settings.batch,
            tally: Arc::clone(&tally),
            on_commit,
            progress: Progress::new(),
            unprepared: Arc::new(Mutex::new(unprepared.then_some(database))),
            distrust: Arc::default(),
        };
        let limits = settings
            .manager
            .is_server()
            .then_some(Limits { stall: settings.stall_limit, answer: settings.answer_limit });
        let (manager, progress) = (settings.manager.clone(), writer.progress.clone());
        let threads = usize::try_from(settings.readers).unwrap_or(1);
        let hearts: Vec<Heart> = (0..threads).map(|_| Heart::default()).collect();
        let queries: Vec<Progress> = (0..threads).map(|_| Progress::new()).collect();
        let desk = Desk::new(database, writer, (line, hearts.clone()));
        desk.start()?;
        let marks = Arc::new(Mutex::new(hearts.into_iter().zip(queries.iter().cloned()).collect()));
        Ok(Self {
            writes,
            readers: SyncArbiter::start(threads, move || Reader::new(manager.clone(), Arc::clone(&marks))),
            reading: Arc::new(Semaphore::new(settings.waiting_reads)),
            desk,
            tally,
            waiting: Arc::new(AtomicI64::new(0)),
            progress,
            queries: queries.into(),
            condition: Condition::default(),
            need: database.need,
            limits,
        })
    }

    /// Starts another writer where the last one has ended and nobody watches over it any more.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn revive(&self) -> Result<(), Error> {
        self.desk.start()
    }

    /// Tells health from now on how the database is, under these names, of the whole and of its writes alone: by what becomes of writes and reads. One that
    /// can be spared is degraded while it is away, any other red.
    pub fn tell(&self, health: &Health, parts: [&'static str; 2]) {
        let down = if self.need == Need::Spare { State::Degraded } else { State::Red };
        self.condition.tell(health, parts, down);
    }

    /// What the last writes and reads say about the database.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.condition.standing()
    }

    /// Has the threads watched for standing still, and the writer's watched over by a permanent actor, which starts
    /// another when it ends. Without this a thread that ended stays ended, as is well for a test.
    pub fn keep(&self, supervisor: &Supervisor, on: &Arbiter) {
        let _keeper = self.kept(supervisor, on);
    }

    pub(super) fn kept(&self, supervisor: &Supervisor, on: &Arbiter) -> Mailbox<Keeper> {
        self.desk.watched_by(supervisor);
        // A process that can do without the database does not end for its actor either.
        let options = if self.need == Need::Spare { Options::transient(None) } else { Options::permanent() };
        supervisor.spawn::<Keeper>(on, self.desk.clone(), options)
    }

    /// Runs one write in the next group commit and answers after the commit.
    ///
    /// The function's first statement is its guard; a refusal returns `Ok` with a value that says so and without
    /// having written. It may run more than once and sets only absolute values. Dropping the future takes nothing
    /// back: the write may still be committed.
    ///
    /// # Errors
    /// [`Error::Busy`] at once when too many wait; [`Error::Unknown`] when nobody can say whether it was stored.
    pub async fn write<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.written(f).await;
        self.condition.tried(Way::Write, &outcome);
        outcome
    }

    async fn written<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(limits) = self.limits
            && self.progress.at_work() > limits.stall
        {
            return Err(Error::Connect(NO_ANSWER.to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        let item: Box<dyn Item> = Box::new(Call { f, value: None, reply });
        self.writes.try_send(item).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Connect("the writer has ended".to_owned()),
        })?;
        let _waiting = Waiting::enter(&self.waiting);
        self.in_time(answer).await.unwrap_or(Err(Error::Unknown))
    }

    /// Runs one query on a reader's thread.
    ///
    /// # Errors
    /// [`Error::Busy`] at once when too many wait; [`Error::Connect`] at once when every reader waits for a server that
    /// has stopped answering.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.queried(f).await;
        self.condition.tried(Way::Read, &outcome);
        outcome
    }

    async fn queried<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(limits) = self.limits
            && self.queries.iter().all(|query| query.at_work() > limits.stall)
        {
            return Err(Error::Connect(NO_ANSWER.to_owned()));
        }
        let _permit = self.reading.try_acquire().map_err(|_full| Error::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.readers
            .try_send(Run::new(f, reply))
            .map_err(|e| Error::Connect(format!("the readers have ended: {e}")))?;
        self.in_time(answer)
            .await
            .unwrap_or_else(|| Err(Error::Connect("the readers have ended, or wait too long".to_owned())))
    }

    /// An answer, unless nobody gives one or a server takes too long over it.
    async fn in_time<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        match self.limits {
            Some(limits) => tokio::time::timeout(limits.answer, answer).await.ok()?.ok(),
            None => answer.await.ok(),
        }
    }

    /// Whether a server keeps the rows, and not this process.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        self.limits.is_some()
    }

    /// Figures since start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            commits: self.tally.commits.load(Ordering::Relaxed),
            items: self.tally.items.load(Ordering::Relaxed),
            replays: self.tally.replays.load(Ordering::Relaxed),
        }
    }

    /// Writes waiting for their commit.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

struct Waiting<'a>(&'a AtomicI64);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

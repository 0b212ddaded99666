//! The one door to a database.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::SyncArbiter;
use diesel::QueryResult;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::keeper::{Desk, Keeper};
use super::reader::{Reader, Readers, Run};
use super::writer::{Call, Item, OnCommit, Tally, Writer};
use super::{AnyConnection, Database, Error, Manager, Pool};
use crate::supervision::{Arbiter, Heart, Mailbox, Options, Supervisor};

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
    /// Longest wait for a connection of the read pool.
    pub connect_limit: Duration,
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
            connect_limit: Duration::from_secs(2),
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
}

impl Store {
    /// Opens the database, applies missing migrations, starts its writer and its readers. Must be called inside an
    /// actix system.
    ///
    /// # Errors
    /// When the database cannot be reached or its migrations fail.
    pub fn open(database: Database, settings: &Settings, on_commit: OnCommit) -> Result<Self, Error> {
        let mut first = settings.manager.open().map_err(|e| Error::Connect(e.to_string()))?;
        database.migrate(&mut first)?;
        drop(first);
        let pool = Pool::builder()
            .max_size(settings.readers)
            .min_idle(Some(1))
            .connection_timeout(settings.connect_limit)
            .test_on_check_out(false)
            .build(settings.manager.clone())
            .map_err(|e| Error::Connect(e.to_string()))?;
        let tally = Arc::new(Tally::default());
        let (writes, line) = mpsc::channel(settings.waiting_writes);
        let writer = Writer {
            name: database.name,
            heart: Heart::default(),
            manager: settings.manager.clone(),
            batch: settings.batch,
            tally: Arc::clone(&tally),
            on_commit,
        };
        let threads = usize::try_from(settings.readers).unwrap_or(1);
        let hearts: Vec<Heart> = (0..threads).map(|_| Heart::default()).collect();
        let desk = Desk::new(database, writer, (line, hearts.clone()));
        desk.start()?;
        let hearts = Arc::new(Mutex::new(hearts));
        Ok(Self {
            writes,
            readers: SyncArbiter::start(threads, move || Reader::new(pool.clone(), Arc::clone(&hearts))),
            reading: Arc::new(Semaphore::new(settings.waiting_reads)),
            desk,
            tally,
            waiting: Arc::new(AtomicI64::new(0)),
        })
    }

    /// Has the threads watched for standing still, and the writer's watched over by a permanent actor, which starts
    /// another when it ends. Without this a thread that ended stays ended, as is well for a test.
    pub fn keep(&self, supervisor: &Supervisor, on: &Arbiter) {
        let _keeper = self.kept(supervisor, on);
    }

    pub(super) fn kept(&self, supervisor: &Supervisor, on: &Arbiter) -> Mailbox<Keeper> {
        self.desk.watched_by(supervisor);
        supervisor.spawn::<Keeper>(on, self.desk.clone(), Options::permanent())
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
        let (reply, answer) = oneshot::channel();
        let item: Box<dyn Item> = Box::new(Call { f, value: None, reply });
        self.writes.try_send(item).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Connect("the writer has ended".to_owned()),
        })?;
        let _waiting = Waiting::enter(&self.waiting);
        answer.await.unwrap_or(Err(Error::Unknown))
    }

    /// Runs one query on a reader's thread.
    ///
    /// # Errors
    /// [`Error::Busy`] at once when too many wait.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let _permit = self.reading.try_acquire().map_err(|_full| Error::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.readers
            .try_send(Run::new(f, reply))
            .map_err(|e| Error::Connect(format!("the readers have ended: {e}")))?;
        answer.await.unwrap_or_else(|_| Err(Error::Connect("the readers have ended".to_owned())))
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

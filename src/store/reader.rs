//! Reads: worker threads, each with a connection of its own and guarded, because an unguarded one would lose a thread
//! for each panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Handler, Message, SyncContext};
use diesel::QueryResult;
use tokio::sync::oneshot;

use super::writer::{Progress, is_broken, text_of};
use super::{AnyConnection, Error, Manager};
use crate::supervision::Heart;

/// A query on its way to a worker; false when the connection is not to be used again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Box<dyn FnOnce(&mut Link) -> After + Send>);

/// What a query leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Well,
    Failed,
    Panicked,
}

impl Run {
    /// Wraps a query function; the worker learns only how it ended.
    pub(crate) fn new<T: Send + 'static>(
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
        reply: oneshot::Sender<Result<T, Error>>,
    ) -> Self {
        Self(Box::new(move |link| {
            // Who asked has gone, perhaps because the wait was too long: the others need the thread more.
            if reply.is_closed() {
                return After::Well;
            }
            let ran = catch_unwind(AssertUnwindSafe(|| f(link.connection()?).map_err(Error::of)));
            let after = match &ran {
                Ok(Ok(_)) => After::Well,
                Ok(Err(_)) => After::Failed,
                Err(_) => After::Panicked,
            };
            let answer = ran.unwrap_or_else(|panic| Err(Error::Panicked(text_of(&*panic))));
            drop(reply.send(answer));
            after
        }))
    }
}

/// A worker's connection: opened when it is needed, looked at after a pause, thrown away when it broke.
pub(crate) struct Link {
    manager: Manager,
    connection: Option<AnyConnection>,
    used: Instant,
    refused: Option<(Instant, String)>,
}

impl Link {
    /// A server may have ended a session meanwhile; one used within this time is taken to live.
    const LIVELY: Duration = Duration::from_millis(250);
    /// After a failed opening the next is not tried sooner: what waits is answered instead.
    const PAUSE: Duration = Duration::from_millis(250);

    pub(crate) fn new(manager: Manager) -> Self {
        Self { manager, connection: None, used: Instant::now(), refused: None }
    }

    fn connection(&mut self) -> Result<&mut AnyConnection, Error> {
        if self.manager.is_server() && self.used.elapsed() > Self::LIVELY {
            self.connection.take_if(is_broken);
        }
        self.used = Instant::now();
        match self.connection {
            Some(ref mut connection) => Ok(connection),
            None => self.open(),
        }
    }

    fn open(&mut self) -> Result<&mut AnyConnection, Error> {
        if let Some((when, why)) = &self.refused
            && when.elapsed() < Self::PAUSE
        {
            return Err(Error::Connect(why.clone()));
        }
        match self.manager.open() {
            Ok(connection) => {
                self.refused = None;
                Ok(self.connection.insert(connection))
            }
            Err(error) => {
                let why = match &error {
                    Error::Connect(text) => text.clone(),
                    other => other.to_string(),
                };
                self.refused = Some((Instant::now(), why));
                Err(error)
            }
        }
    }
}

/// A worker. Its marks are lent, because a worker that panicked is made anew.
pub(crate) struct Reader {
    link: Link,
    mark: Mark,
    marks: Marks,
}

/// By which a worker is seen to move: by the lag probe, and by who would wait for it.
pub(crate) type Mark = (Heart, Progress);

/// One for each worker of a pool.
pub(crate) type Marks = Arc<Mutex<Vec<Mark>>>;

impl Reader {
    pub(crate) fn new(manager: Manager, marks: Marks) -> Self {
        let mark = marks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mark = mark.unwrap_or_else(|| (Heart::default(), Progress::new()));
        Self { link: Link::new(manager), mark, marks }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(self.mark.clone());
    }
}

impl Actor for Reader {
    type Context = SyncContext<Self>;
}

impl Handler<Run> for Reader {
    type Result = ();

    fn handle(&mut self, run: Run, ctx: &mut SyncContext<Self>) {
        // A server that has stopped answering is no thread that hangs: those who wait for it are answered in time.
        let after = {
            let (heart, progress) = &self.mark;
            let _work = (!self.link.manager.is_server()).then(|| heart.work());
            let _at_work = progress.begin();
            (run.0)(&mut self.link)
        };
        match after {
            After::Well => {}
            After::Failed => drop(self.link.connection.take_if(is_broken)),
            // The factory builds a fresh worker on this thread.
            After::Panicked => ctx.stop(),
        }
    }
}

/// Keeps the pool of readers out of the types of others.
pub(crate) type Readers = actix::Addr<Reader>;

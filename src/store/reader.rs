//! Reads: a pool of worker threads, each guarded, because an unguarded one would lose a thread for each panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorContext, Handler, Message, SyncContext};
use diesel::QueryResult;
use tokio::sync::oneshot;

use super::writer::text_of;
use super::{AnyConnection, Error, Pool};
use crate::supervision::Heart;

/// A query on its way to a worker.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Box<dyn FnOnce(&Pool) -> bool + Send>);

impl Run {
    /// Wraps a query function; the worker learns only whether it panicked.
    pub(crate) fn new<T: Send + 'static>(
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
        reply: oneshot::Sender<Result<T, Error>>,
    ) -> Self {
        Self(Box::new(move |pool| {
            // The connection is taken inside the guard: the pool then sees the panic and discards it.
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut connection = pool.get().map_err(|e| Error::Connect(e.to_string()))?;
                f(&mut connection).map_err(Error::of)
            }));
            let panicked = ran.is_err();
            let answer = ran.unwrap_or_else(|panic| Err(Error::Panicked(text_of(&*panic))));
            drop(reply.send(answer));
            panicked
        }))
    }
}

/// A worker. Its heart is lent, because a worker that panicked is made anew.
pub(crate) struct Reader {
    pool: Pool,
    heart: Heart,
    hearts: Hearts,
}

/// One heart for each worker of a pool.
pub(crate) type Hearts = Arc<Mutex<Vec<Heart>>>;

impl Reader {
    pub(crate) fn new(pool: Pool, hearts: Hearts) -> Self {
        let heart = hearts.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Self { pool, heart, hearts }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).push(self.heart.clone());
    }
}

impl Actor for Reader {
    type Context = SyncContext<Self>;
}

impl Handler<Run> for Reader {
    type Result = ();

    fn handle(&mut self, run: Run, ctx: &mut SyncContext<Self>) {
        let panicked = {
            let _work = self.heart.work();
            (run.0)(&self.pool)
        };
        if panicked {
            // The factory builds a fresh worker on this thread.
            ctx.stop();
        }
    }
}

/// Keeps the pool of readers out of the types of others.
pub(crate) type Readers = actix::Addr<Reader>;

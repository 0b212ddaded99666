//! The database actor: watches over the writer's thread and starts another when it ends.
//!
//! Writes do not pass through its mailbox: handles send straight into the channel, whose reading end outlives every
//! thread. What a thread had taken when it ended is answered as unknown; what still waited is served by the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use actix::prelude::*;
use tokio::sync::{Notify, mpsc};

use super::writer::{Item, Writer, text_of};
use super::{Database, Error};
use crate::supervision::{Heart, Life, Need, Supervised, Supervisor};

/// The writer's thread with all it needs to be started again. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    name: &'static str,
    need: Need,
    readers: Arc<[Heart]>,
    writer: Writer,
    line: Arc<Mutex<mpsc::Receiver<Box<dyn Item>>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    ended: Arc<Notify>,
}

/// Says that the thread ended, however it did.
struct Farewell(Arc<Notify>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Desk {
    pub(super) fn new(
        database: Database,
        writer: Writer,
        (line, readers): (mpsc::Receiver<Box<dyn Item>>, Vec<Heart>),
    ) -> Self {
        Self {
            name: database.name,
            need: database.need,
            readers: readers.into(),
            writer,
            line: Arc::new(Mutex::new(line)),
            thread: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Has the threads watched for standing still. A query may rightly take long, a write may not.
    pub(super) fn watched_by(&self, supervisor: &Supervisor) {
        supervisor.watch_thread(self.thread_name(), &self.writer.heart, self.need);
        let need = if self.need == Need::Vital { Need::Patient } else { self.need };
        for (number, heart) in (1..).zip(self.readers.iter()) {
            supervisor.watch_thread(format!("{}-reader-{number}", self.name), heart, need);
        }
    }

    fn thread_name(&self) -> String {
        format!("{}-writer", self.name)
    }

    /// Starts the thread unless it runs.
    pub(super) fn start(&self) -> Result<(), Error> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let (writer, line, farewell) =
            (self.writer.clone(), Arc::clone(&self.line), Farewell(Arc::clone(&self.ended)));
        let name = self.name;
        let serve = move || {
            let _farewell = farewell;
            // A thread that ended over an item has left the line as it was.
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| writer.serve(&mut line))) {
                log::error!("the writer of {name} panicked: {}", text_of(&*panic));
            }
        };
        let started = std::thread::Builder::new()
            .name(self.thread_name())
            .spawn(serve)
            .map_err(|e| Error::Connect(format!("no thread for the writer: {e}")))?;
        *thread = Some(started);
        Ok(())
    }

    /// Whether every handle is gone, so that nobody can write any more.
    fn unused(&self) -> bool {
        self.line.try_lock().is_ok_and(|line| line.is_closed() || line.sender_strong_count() == 0)
    }
}

/// See the module.
pub struct Keeper {
    desk: Desk,
    life: Life,
}

impl Supervised for Keeper {
    type Spec = Desk;
    const KIND: &'static str = "database";

    fn key(desk: &Desk) -> String {
        desk.name.to_owned()
    }

    fn fresh(desk: Desk, life: Life) -> Self {
        Self { desk, life }
    }
}

/// Breaks the actor, for tests.
#[cfg(test)]
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) enum Break {
    Panic,
    Fail,
    Stop,
}

#[cfg(test)]
impl Handler<Break> for Keeper {
    type Result = ();

    fn handle(&mut self, how: Break, ctx: &mut Context<Self>) {
        match how {
            Break::Panic => panic!("on demand"),
            Break::Fail => self.life.fail("on demand"),
            Break::Stop => ctx.stop(),
        }
    }
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Err(error) = self.desk.start() {
            self.life.fail(error.to_string());
            return;
        }
        let ended = Arc::clone(&self.desk.ended);
        let watching = async move { ended.notified().await };
        ctx.spawn(watching.into_actor(self).map(|(), actor, _| {
            if actor.desk.unused() {
                actor.life.done();
            } else if let Some(fault) = actor.desk.writer.distrust.get() {
                actor
                    .life
                    .fail_for_good(format!("{fault}; only a new process reads the file as the disk has it"));
            } else {
                actor.life.fail("the writer's thread ended");
            }
        }));
    }
}

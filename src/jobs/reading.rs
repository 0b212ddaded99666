//! Histories that are read together: while one read is under way others ask, and the next takes all of them. On a server
//! each statement is a round trip, whoever of the jobs it is for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::JobUid;
use crate::store::provisioning::job::{self, History};
use crate::store::{Error, Store};

/// Most jobs of one read.
const TOGETHER: usize = 64;

type Answer = oneshot::Sender<Result<Option<History>, Error>>;

/// Who waits, and whether somebody reads.
#[derive(Default)]
struct Desk {
    waiting: Vec<(JobUid, Answer)>,
    at_work: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reading {
    store: Store,
    desk: Arc<Mutex<Desk>>,
}

impl Reading {
    pub(super) fn new(store: Store) -> Self {
        Self { store, desk: Arc::default() }
    }

    /// A job's history. Dropping the future takes nothing back.
    pub(super) async fn history(&self, uid: JobUid) -> Result<Option<History>, Error> {
        if !self.store.is_server() {
            return self.store.read(move |c| job::history(c, uid)).await;
        }
        let (answer, waiting) = oneshot::channel();
        let begins = {
            let mut desk = self.desk();
            desk.waiting.push((uid, answer));
            !std::mem::replace(&mut desk.at_work, true)
        };
        if begins {
            let mut working = Working { reading: self.clone(), over: false };
            actix_rt::spawn(async move { working.serve().await });
        }
        waiting
            .await
            .unwrap_or_else(|_| Err(Error::Connect("the reader ended before it answered".to_owned())))
    }

    async fn answer(&self, batch: Vec<(JobUid, Answer)>) {
        if batch.len() > 1 {
            let uids: Vec<JobUid> = batch.iter().map(|(uid, _)| *uid).collect();
            if let Ok(mut found) = self.store.read(move |c| job::histories(c, &uids)).await {
                for (uid, answer) in batch {
                    let at = found.iter().position(|history| history.job.uid == uid);
                    // Whoever asked may be gone.
                    drop(answer.send(Ok(at.map(|at| found.swap_remove(at)))));
                }
                return;
            }
        }
        // One that cannot be read must not keep the others from being read.
        for (uid, answer) in batch {
            drop(answer.send(self.store.read(move |c| job::history(c, uid)).await));
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever reads.
struct Working {
    reading: Reading,
    over: bool,
}

impl Working {
    async fn serve(&mut self) {
        while let Some(batch) = self.next() {
            self.reading.answer(batch).await;
        }
    }

    /// Who is answered next; when nobody waits, the next who asks begins anew.
    fn next(&mut self) -> Option<Vec<(JobUid, Answer)>> {
        let mut desk = self.reading.desk();
        let count = desk.waiting.len().min(TOGETHER);
        if count == 0 {
            desk.at_work = false;
            drop(desk);
            self.over = true;
            return None;
        }
        Some(desk.waiting.drain(..count).collect())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if !self.over {
            // Stopped in the middle: those who wait are told so by the end of their answers, and ask again.
            let mut desk = self.reading.desk();
            desk.at_work = false;
            desk.waiting.clear();
        }
    }
}

//! How long a job of a killed process stood still: from the kill to its next step, as its row shows it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Error;
use crate::store::provisioning::whole;
use crate::store::{AnyConnection, Manager};

/// Pause between two looks at the rows.
const LOOK: Duration = Duration::from_millis(50);
/// After so long a job counts as one that never went on; the comparison at the end says what became of it.
const LONGEST: Duration = Duration::from_secs(120);

/// Reads the rows from outside of every process, past every link.
#[derive(Clone)]
pub(super) struct Eye(Manager);

impl Eye {
    pub(super) const fn new(manager: Manager) -> Self {
        Self(manager)
    }

    /// Runs a read on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        reader: impl FnOnce(&mut AnyConnection) -> diesel::QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let manager = self.0.clone();
        let work = move || {
            let mut connection =
                manager.open().map_err(|e| Error::Failed(crate::ops::Chain(&e).to_string()))?;
            reader(&mut connection).map_err(|e| Error::Failed(format!("the rows cannot be read: {e}")))
        };
        tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// From a kill to the next step of a job that the victim held.
    pub(super) steps: Vec<Duration>,
    /// Of those that then waited out Q, or were set aside.
    pub(super) aside: usize,
    /// Those that did not go on while they were looked at.
    pub(super) never: usize,
}

/// The measurements of a run.
#[derive(Clone)]
pub(super) struct Recovery {
    eye: Eye,
    measured: Rc<RefCell<Measured>>,
    open: Rc<RefCell<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Recovery {
    pub(super) fn new(eye: Eye) -> Self {
        Self { eye, measured: Rc::default(), open: Rc::default() }
    }

    /// Follows what the life `boot`, killed just now, still holds.
    pub(super) fn follow(&self, boot: Option<String>) {
        let Some(boot) = boot else { return };
        let (eye, measured) = (self.eye.clone(), Rc::clone(&self.measured));
        self.open.borrow_mut().push(tokio::task::spawn_local(async move {
            if let Err(error) = follow(&eye, boot, &measured).await {
                log::info!("a recovery was not measured: {error}");
            }
        }));
    }

    /// Everything measured, once all that is still followed has gone on.
    pub(super) async fn end(&self) -> Measured {
        let open = self.open.take();
        for task in open {
            let _ended = task.await;
        }
        self.measured.take()
    }
}

async fn follow(eye: &Eye, boot: String, measured: &RefCell<Measured>) -> Result<(), Error> {
    let killed = Instant::now();
    let held = eye.read(move |c| whole::held(c, &boot)).await?;
    let mut waiting: BTreeMap<String, i64> = held.into_iter().collect();
    while !waiting.is_empty() {
        if killed.elapsed() > LONGEST {
            measured.borrow_mut().never += waiting.len();
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        let uids: Vec<String> = waiting.keys().cloned().collect();
        // The database may be away for a moment, as everything here may.
        let Ok(now) = eye.read(move |c| whole::places(c, &uids)).await else { continue };
        let mut measured = measured.borrow_mut();
        for (uid, epoch, state, ended) in now {
            let moved = waiting.get(&uid).is_none_or(|seen| epoch > *seen) || ended.is_some();
            if moved && waiting.remove(&uid).is_some() {
                if state == "quarantined" {
                    measured.aside += 1;
                } else {
                    measured.steps.push(killed.elapsed());
                }
            }
        }
    }
    Ok(())
}

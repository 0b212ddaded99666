//! Has one process run for each running server that has a real guest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::sleep;

use super::core::{Core, blocking};
use super::guest::{Guest, boot_data};

/// How often the keeper looks for new servers when nothing is announced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the keeper is to do with the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Keep them as the world says.
    Keep,
    /// End them all, then end.
    End,
    /// Leave them as they are and end.
    Leave,
}

/// The running keeper.
pub(super) struct Keeper {
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(core: Arc<Core>) -> Self {
        let (orders, seen) = watch::channel(Order::Keep);
        Self { orders, task: tokio::spawn(keep_all(core, seen)) }
    }

    /// Gives the last order; the task ends when it is carried out.
    pub(super) fn order(self, order: Order) -> JoinHandle<()> {
        self.orders.send_replace(order);
        self.task
    }
}

/// Has one task run for each guest until the keeper is ordered to end.
async fn keep_all(core: Arc<Core>, mut orders: watch::Receiver<Order>) {
    let mut changes = core.changes.subscribe();
    let mut kept: BTreeMap<Id, String> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut wanted = unfinished(&core).await;
    loop {
        changes.borrow_and_update();
        wanted.extend(durable_guests(&core).await);
        wanted.retain(|id| !kept.values().any(|has| has == id));
        for id in std::mem::take(&mut wanted) {
            let task = tasks.spawn(Guest::new(Arc::clone(&core), id.clone()).keep(orders.clone()));
            kept.insert(task.id(), id);
        }
        // Only now: an order to end holds for guests of the last process too, even if it comes at once.
        if *orders.borrow_and_update() != Order::Keep {
            break;
        }
        tokio::select! {
            _open = changes.changed() => {}
            order = orders.changed() => if order.is_err() {
                break;
            },
            // A caller that gave up waiting for the disk announces nothing.
            () = sleep(LOOK_EVERY) => {}
            Some(ended) = tasks.join_next_with_id() => forget(&mut kept, ended),
        }
    }
    while let Some(ended) = tasks.join_next_with_id().await {
        forget(&mut kept, ended);
    }
}

/// Guests of servers whose launch is durable: a process must never stand for a server that a crash takes back.
async fn durable_guests(core: &Core) -> BTreeSet<String> {
    let (guests, mark) = {
        let state = core.state();
        (state.world.guests().clone(), state.journal.mark())
    };
    if core.durable(mark).await.is_ok() { guests } else { BTreeSet::new() }
}

/// Takes note that a guest's task has ended; a guest that is still wanted gets a new one.
fn forget(kept: &mut BTreeMap<Id, String>, ended: Result<(Id, ()), JoinError>) {
    let task = match &ended {
        Ok((task, ())) => *task,
        Err(error) => error.id(),
    };
    let guest = kept.remove(&task).unwrap_or_default();
    if let Err(error) = ended {
        log::error!("the task of the guest of server {guest} ended badly: {error}");
    }
}

/// Guests of servers that are gone but were not wound up before the last process ended.
async fn unfinished(core: &Arc<Core>) -> BTreeSet<String> {
    let gone: Vec<String> = {
        let state = core.state();
        let gone = state.world.instances().filter(|i| i.is_gone() && i.launched.guest);
        gone.map(|i| i.launched.instance.clone()).collect()
    };
    let shared = Arc::clone(core);
    let left = move || gone.into_iter().filter(|id| boot_data(&shared.folder_of(id)).exists()).collect();
    blocking("guests", left).await.unwrap_or_default()
}

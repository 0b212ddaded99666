//! A cloud inside a process, with its truth apart from the dispatcher's: in that of `dispatcher dev`, or behind
//! [`super::remote`] in one of its own.
//!
//! That truth is an append-only journal of effects. The cloud fails on demand, plays every token class, and boots
//! real guests: agent processes, each on an address of its own.
//!
//! This room must never read the dispatcher's databases, and nothing but its calls may change its world. What a call
//! has answered is durable; what was not answered may have happened or not, exactly as with a cloud far away.
//!
//! Order of a launch, so that a crash at any point converges: the server's folder with its user data, the journal
//! line, the answer, then the guest. A folder without a line is removed at the next start; a line without a guest
//! gets one; a guest is found again by its number, start time and folder, so there are never two.

mod address;
mod catalogue;
mod clock;
mod core;
mod driver;
mod effects;
mod error;
mod faults;
mod guest;
#[cfg(test)]
mod guest_tests;
mod guests;
mod journal;
pub mod machine;
mod process;
mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

pub use catalogue::{CATALOGUE, Catalogue, DataCenter, Image, Product, Region};
pub use clock::{Clock, Nap, SteadyClock};
pub use error::Error;
pub use faults::{Fault, Faults, Odds, Operation};
pub use settings::{Account, Settings, capabilities_of};

use self::core::Core;
use guests::{Keeper, Order};
use machine::{Change, World};

/// The simulated cloud.
pub struct Simulated {
    core: Arc<Core>,
    keeper: Mutex<Option<Keeper>>,
}

impl Simulated {
    /// Opens the cloud of a data folder, or makes a new one. Waits up to 5 s for a process that is just ending.
    /// Guests are not started yet: see [`Simulated::start_guests`].
    ///
    /// # Errors
    /// When the folder is in use, cannot be written, or its journal is damaged elsewhere than at its end.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        Ok(Self { core: Core::open(settings).await?, keeper: Mutex::new(None) })
    }

    /// The handle by which tests let calls fail.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.core.faults.clone()
    }

    /// What the cloud sells.
    #[must_use]
    pub const fn catalogue() -> &'static Catalogue {
        &CATALOGUE
    }

    /// Keeps one process for each running server that has a real guest: adopts those that live, starts the others,
    /// ends those whose server is down. Must be called inside a tokio runtime, which then carries the keeper. Does
    /// nothing when it runs already.
    pub fn start_guests(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_none() {
            *keeper = Some(Keeper::start(Arc::clone(&self.core)));
        }
    }

    /// Ends all guests and waits for them; their servers stay as they are and get guests again at the next start.
    /// Calls are still answered. When the future is dropped the guests are still being ended.
    pub async fn shutdown(&self) {
        self.end_keeper(Order::End).await;
    }

    /// Stops keeping guests and leaves them running, for the next process to adopt.
    pub async fn leave_guests(&self) {
        self.end_keeper(Order::Leave).await;
    }

    async fn end_keeper(&self, order: Order) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let task: JoinHandle<()> = keeper.order(order);
            if let Err(error) = task.await {
                log::error!("the keeper of guests ended badly: {error}");
            }
        }
    }

    /// The cloud loses a server by itself, as a failed host would. Answers whether there was one to lose.
    ///
    /// # Errors
    /// When the journal cannot be written: it may be lost or not.
    pub async fn lose(&self, instance: &str) -> Result<bool, crate::cloud::CallError> {
        let Some(scope) = self.look(|world| world.instance(instance).map(|i| i.launched.scope.clone()))
        else {
            return Ok(false);
        };
        effects::change(&self.core, scope, instance.to_owned(), Change::Lose).await
    }

    /// Looks into the cloud's state, for tests. It shows effects that may not be durable yet.
    pub fn look<T>(&self, reader: impl FnOnce(&World) -> T) -> T {
        reader(&self.core.state().world)
    }

    /// The account of this access key, for a server that checks signatures before the cloud is called.
    #[must_use]
    pub(in crate::cloud) fn account_of(&self, access_key: &str) -> Option<&Account> {
        self.core.settings.accounts.iter().find(|account| account.access_key == access_key)
    }

    /// The cloud's time now.
    #[must_use]
    pub fn now(&self) -> crate::model::Micros {
        self.core.now()
    }

    /// The folder of a server, where its guest lives.
    #[must_use]
    pub fn folder_of(&self, instance: &str) -> PathBuf {
        self.core.folder_of(instance)
    }
}

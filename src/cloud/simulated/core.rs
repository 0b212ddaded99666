//! What all calls share: the world behind its lock, the journal, and the files of servers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Semaphore, watch};

use super::address::Addresses;
use super::clock::Clock;
use super::error::Error;
use super::faults::Faults;
use super::journal::{Journal, Mark};
use super::machine::World;
use super::settings::Settings;
use crate::cloud::CallError;
use crate::model::{ErrorClass, Micros};

/// How long a process that is just dying may keep the folder's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

pub(super) struct State {
    pub(super) world: World,
    pub(super) journal: Journal,
}

/// The open cloud.
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) faults: Faults,
    pub(super) gate: Semaphore,
    pub(super) addresses: Addresses,
    /// Raised after each durable effect, for the keeper of guests.
    pub(super) changes: watch::Sender<u64>,
    state: Mutex<State>,
    healing: tokio::sync::Mutex<()>,
    /// What the clock lacks behind the latest effect of the journal.
    ahead: Duration,
    _lock: File,
}

impl Core {
    pub(super) async fn open(mut settings: Settings) -> Result<Arc<Self>, Error> {
        let folder = settings.data.clone();
        let data = blocking("opening the cloud", move || make_folders(&folder)).await??;
        settings.data = data.clone();
        let lock = lock(&data, settings.clock.as_ref()).await?;
        let (journal, world) = blocking("opening the cloud", move || {
            let opened = Journal::open(&journal_of(&data))?;
            remove_strays(&data, &opened.1)?;
            Ok::<_, Error>(opened)
        })
        .await??;
        Ok(Arc::new(Self {
            faults: Faults::default(),
            gate: Semaphore::new(settings.calls_at_once.clamp(1, Semaphore::MAX_PERMITS)),
            addresses: Addresses::new(&settings.data, world.launches(), settings.guest_port),
            changes: watch::Sender::new(0),
            ahead: world.latest().since(settings.clock.now()),
            state: Mutex::new(State { world, journal }),
            healing: tokio::sync::Mutex::new(()),
            settings,
            _lock: lock,
        }))
    }

    /// The cloud's time: the clock, or where it lies behind the journal's latest effect, that and the time since.
    pub(super) fn now(&self) -> Micros {
        self.settings.clock.now().plus(self.ahead)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.settings.clock.as_ref()
    }

    /// The world. Held only for moments and never across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of a server.
    pub(super) fn folder_of(&self, instance: &str) -> PathBuf {
        self.settings.data.join("guests").join(instance)
    }

    /// Waits until what an answer rests on is durable: nobody may see what a crash could take back.
    pub(super) async fn durable(&self, mark: Mark) -> Result<(), CallError> {
        mark.durable().await.map_err(|fault| CallError::unknown(format!("500 journal failed: {fault}")))
    }

    /// Tells the keeper of guests that something changed.
    pub(super) fn announce(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// After a failed write, goes back to what is on disk. Effects that were never answered may be among it or not.
    pub(super) async fn heal(self: &Arc<Self>) -> Result<(), CallError> {
        if !self.state().journal.has_failed() {
            return Ok(());
        }
        let _turn = self.healing.lock().await;
        if !self.state().journal.has_failed() {
            return Ok(());
        }
        let path = journal_of(&self.settings.data);
        let reopened = blocking("repairing the cloud", move || Journal::reopen(&path)).await;
        match reopened.and_then(|result| result) {
            Ok((journal, world)) => {
                *self.state() = State { world, journal };
                self.announce();
                Ok(())
            }
            Err(error) => {
                log::error!("the simulated cloud's journal stays unusable: {error}");
                Err(CallError::refused(ErrorClass::Transient, "ServiceUnavailable", error.to_string()))
            }
        }
    }
}

/// Runs work that waits for the disk or for processes off the async threads.
pub(super) async fn blocking<T, F>(purpose: &'static str, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::Thread { purpose, source: std::io::Error::other(source) })
}

fn journal_of(data: &Path) -> PathBuf {
    data.join("cloud").join("journal.jsonl")
}

fn make_folders(data: &Path) -> Result<PathBuf, Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for folder in [data.to_owned(), data.join("cloud"), data.join("guests")] {
        builder.create(&folder).map_err(Error::file("create", &folder))?;
    }
    // Guests are recognised by this path, so it must be the same however the folder was named.
    data.canonicalize().map_err(Error::file("resolve", data))
}

async fn lock(data: &Path, clock: &dyn Clock) -> Result<File, Error> {
    let path = data.join("cloud").join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(Error::file("open", &path))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => clock.sleep(LOCK_POLL).await,
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(Error::File { action: "lock", path, source }),
        }
        waited += LOCK_POLL;
    }
}

/// Removes folders of launches that never reached the journal: no guest was ever started in them.
fn remove_strays(data: &Path, world: &World) -> Result<(), Error> {
    let guests = data.join("guests");
    let entries = std::fs::read_dir(&guests).map_err(Error::file("list", &guests))?;
    for entry in entries {
        let entry = entry.map_err(Error::file("list", &guests))?;
        let name = entry.file_name();
        let stray = name.to_str().is_some_and(|n| n.starts_with("i-") && world.instance(n).is_none());
        if stray {
            std::fs::remove_dir_all(entry.path()).map_err(Error::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Writes the user data a guest boots with into its own folder, readable by its owner only. It stands there, whole,
/// before the launch is journalled. Blocks on the disk.
pub(super) fn write_user_data(folder: &Path, instance: &str, given: Option<&[u8]>) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let mut file = options.open(folder.join("user-data.json"))?;
    file.write_all(merged_user_data(instance, given).to_string().as_bytes())?;
    file.sync_data()
}

/// The user data with the server's id in it. What is no JSON object is handed over as base64 text.
fn merged_user_data(instance: &str, given: Option<&[u8]>) -> serde_json::Value {
    use serde_json::{Map, Value};
    let given = given.unwrap_or(b"{}");
    let mut object = serde_json::from_slice::<Map<String, Value>>(given).unwrap_or_else(|_not_an_object| {
        Map::from_iter([("userData".to_owned(), Value::String(STANDARD.encode(given)))])
    });
    object.insert("instanceId".to_owned(), Value::String(instance.to_owned()));
    Value::Object(object)
}

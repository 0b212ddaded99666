//! What every process with a life in the database has: its folder, its databases, its beat, its supervisor.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::databases::Databases;
use super::folder::Folder;
use super::{Error, last_resort};
use crate::cloud::Answering;
use crate::config::{Config, ms};
use crate::jobs::{Changes, ClockKeeper, ClockSpec, DatabaseClock};
use crate::model::{Boot, Generation};
use crate::ops::{Health, Metrics};
use crate::registry::{Beat, NodeActor, NodeSpec};
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::{generation, node};
use crate::store::{self, ANALYTICS, AnyConnection, Database, PROVISIONING, Store};
use crate::supervision::{Mailbox, Options, Supervisor};

/// Time between looks at the database's clock.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the word that this life ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Health, figures and actors of a process.
#[derive(Clone)]
pub(super) struct Ops {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) supervisor: Supervisor,
}

impl Ops {
    pub(super) fn new() -> Self {
        let (health, metrics) = (Health::new(), Metrics::new());
        let supervisor = Supervisor::with_metrics(health.clone(), metrics.clone());
        Self { health, metrics, supervisor }
    }

    /// Watches the thread that runs this, and ends the process when it does not end by itself.
    pub(super) fn guard(&self) -> Result<(), Error> {
        self.supervisor.watch_here("main");
        last_resort::guard(&self.supervisor)
    }

    /// Opens a database, whose threads are watched from then on.
    pub(super) fn database(&self, databases: &Databases<'_>, which: Database) -> Result<Store, Error> {
        let manager = databases.manager(which)?;
        let metrics = self.metrics.clone();
        let told = move |items: usize, took: Duration| metrics.commit(items as u64, took);
        let store = Store::open(which, &store::Settings::new(manager), Arc::new(told))
            .map_err(|source| Error::Database { name: which.name, source })?;
        store.keep(&self.supervisor, &self.supervisor.arbiter("plumbing"));
        // The pinger tells how the one of analytics is, with what waits for it.
        if which.name != ANALYTICS.name {
            store.tell(&self.health, [PROVISIONING.name, "provisioning writes"]);
        }
        Ok(store)
    }
}

/// See the module.
pub(super) struct Base {
    pub(super) config: Config,
    pub(super) folder: Folder,
    pub(super) ops: Ops,
    pub(super) store: Store,
    pub(super) sequencer: Sequencer,
    pub(super) boot: Boot,
    /// The generation of the rows; nobody raises it while this life lasts.
    pub(super) generation: Generation,
    pub(super) beat: Beat,
    pub(super) clock: DatabaseClock,
    pub(super) changes: Changes,
    /// Which accounts' clouds answer.
    pub(super) answering: Answering,
    /// Told when a life was declared dead.
    pub(super) died: Arc<Notify>,
    /// The actor that beats, once it does.
    beating: OnceLock<Mailbox<NodeActor>>,
    /// Keeps a second process of this kind away from a server's database.
    _hold: Option<AnyConnection>,
}

/// Role of a process that has every role.
pub(super) const ALONE: &str = "dev";

/// Who else may work on the databases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody: every role is in this process.
    Alone,
    /// Processes with roles of their own.
    Others,
}

impl Base {
    /// Takes the folder, opens the database of jobs, and begins a life in it.
    pub(super) async fn begin(
        config: Config,
        data: PathBuf,
        role: &str,
        with: Company,
    ) -> Result<Self, Error> {
        let folder = Folder::take(&data)?;
        let databases = Databases::new(&config.database, &folder.path);
        let hold = databases.hold(with)?;
        let ops = Ops::new();
        let store = ops.database(&databases, PROVISIONING)?;
        let boot = Boot::random();
        let fault = |source| Error::Database { name: PROVISIONING.name, source };
        if with == Company::Alone {
            refuse_company(&store, ms(config.node.beat_ms) * 2).await?;
        }
        begin_life(&store, (boot, role), (&folder, with)).await?;
        let generation = store.read(generation::read).await.map_err(fault)?;
        let clock = DatabaseClock::start(&store).await.map_err(fault)?;
        let beat = Beat::new(ms(config.node.fresh_ms));
        let (sequencer, changes) = (Sequencer::new(store.clone()), Changes::new());
        let died = Arc::new(Notify::new());
        let beating = OnceLock::new();
        let answering = Answering::new(ops.health.clone());
        Ok(Self {
            config,
            folder,
            ops,
            store,
            sequencer,
            boot,
            generation,
            beat,
            clock,
            changes,
            answering,
            died,
            beating,
            _hold: hold,
        })
    }

    pub(super) fn databases(&self) -> Databases<'_> {
        Databases::new(&self.config.database, &self.folder.path)
    }

    pub(super) fn analytics(&self) -> Result<Store, Error> {
        self.ops.database(&self.databases(), ANALYTICS)
    }

    /// Starts the beat, the eye on the other lives, and the eye on the database's clock.
    pub(super) fn live(&self) {
        let (supervisor, settings) = (&self.ops.supervisor, &self.config.node);
        let plumbing = supervisor.arbiter("plumbing");
        let node = NodeSpec {
            store: self.store.clone(),
            boot: self.boot,
            beat: self.beat.clone(),
            every: ms(settings.beat_ms),
            look: ms(settings.look_ms),
            still: ms(settings.still_ms),
            died: Arc::clone(&self.died),
            health: self.ops.health.clone(),
        };
        let node = supervisor.spawn::<NodeActor>(&plumbing, node, Options::permanent());
        // Called once a process.
        let _ = self.beating.set(node);
        let clock = ClockSpec {
            clock: self.clock.clone(),
            store: self.store.clone(),
            health: self.ops.health.clone(),
            every: CLOCK_EVERY,
        };
        let _clock = supervisor.spawn::<ClockKeeper>(&plumbing, clock, Options::permanent());
    }

    /// Says that this life ends, so that others go on at once with what it leaves. No effect on a guest starts here
    /// any more.
    pub(super) async fn farewell(&self) {
        let boot = self.boot;
        if let Some(beating) = self.beating.get() {
            beating.stop();
        }
        self.beat.end();
        let said = self.store.write(move |c| node::ended(c, boot));
        match tokio::time::timeout(FAREWELL, said).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::warn!("this life's end is not written down, others notice it: {error}"),
            Err(_) => log::warn!("this life's end is not written down within {FAREWELL:?}, others notice it"),
        }
    }
}

/// Refuses to be alone where processes of other roles beat.
async fn refuse_company(store: &Store, beats: Duration) -> Result<(), Error> {
    let others = async || -> Result<HashMap<String, i64>, Error> {
        let lives = store.read(node::all).await;
        let lives = lives.map_err(|source| Error::Database { name: PROVISIONING.name, source })?;
        let others = lives.into_iter().filter(|life| life.is_alive() && life.role != ALONE);
        Ok(others.map(|life| (life.boot, life.beat)).collect())
    };
    let before = others().await?;
    if before.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(beats).await;
    let beating = others().await?.into_iter().filter(|(boot, beat)| before.get(boot) != Some(beat)).count();
    if beating == 0 { Ok(()) } else { Err(Error::Company(beating)) }
}

/// Writes this life, and declares those dead that are known to have ended: every other one where the locks on folder
/// and database prove that none runs, else the one that had this folder before.
async fn begin_life(
    store: &Store,
    (boot, role): (Boot, &str),
    (folder, with): (&Folder, Company),
) -> Result<(), Error> {
    let fault = |source| Error::Database { name: PROVISIONING.name, source };
    let role = role.to_owned();
    store.write(move |c| node::register(c, boot, &role)).await.map_err(fault)?;
    match (with, folder.former()) {
        (Company::Alone, _) => {
            store.write(move |c| node::only_i_live(c, boot)).await.map_err(fault)?;
        }
        (Company::Others, Some(former)) => {
            store.write(move |c| node::ended(c, former)).await.map_err(fault)?;
        }
        (Company::Others, None) => {}
    }
    Ok(folder.occupied_by(boot)?)
}

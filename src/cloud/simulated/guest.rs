//! One guest: a task compares what the world wants with what lives and takes one step.
//!
//! It holds no truth: the journal says what should run, the process table what does. A process counts as the guest's
//! by its number, its start time and the folder on its command line, never by its number alone.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::core::{Core, blocking};
use super::guests::Order;
use super::process::Process;
use crate::model::ServerStatus;

/// How often a guest is looked at when nothing is announced; adopted ones cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a guest that was told to end is looked at.
const END_POLL: Duration = Duration::from_millis(20);
/// How long a killed process may take to vanish.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// First and longest wait before a guest that died is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A guest that lived this long starts with the shortest wait again.
const SETTLED: Duration = Duration::from_secs(60);
/// Exit code by which an agent says that another process holds its folder.
const FOLDER_HELD: i32 = 4;
/// Largest log of a guest; at the next start of the guest a larger one is put aside.
const LOG_BYTES: u64 = 4 << 20;

/// Stands as long as a server's guest may still have to be ended.
pub(super) fn boot_data(folder: &Path) -> PathBuf {
    folder.join("user-data.json")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Up,
    Frozen,
    Down,
    Gone { at_once: bool },
}

/// The process table could not be searched: nothing may be concluded.
struct Unsearchable;

/// The guest of one server.
pub(super) struct Guest {
    core: Arc<Core>,
    id: String,
    folder: PathBuf,
    /// The process, if we are its parent.
    child: Option<Child>,
    process: Option<Process>,
    searched: bool,
    frozen: bool,
    failures: u32,
    started: Instant,
    not_before: Instant,
}

impl Guest {
    pub(super) fn new(core: Arc<Core>, id: String) -> Self {
        let folder = core.folder_of(&id);
        let now = Instant::now();
        Self {
            core,
            id,
            folder,
            child: None,
            process: None,
            searched: false,
            frozen: false,
            failures: 0,
            started: now,
            not_before: now,
        }
    }

    /// Keeps the guest until its server is gone or the keeper ends.
    pub(super) async fn keep(mut self, mut orders: watch::Receiver<Order>) {
        let mut changes = self.core.changes.subscribe();
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Keep => {}
                Order::Leave => return,
                Order::End => {
                    self.end(false).await;
                    return;
                }
            }
            changes.borrow_and_update();
            match self.wanted() {
                Wanted::Up => self.up().await,
                Wanted::Frozen => self.freeze(),
                Wanted::Down => drop(self.end(false).await),
                Wanted::Gone { at_once } => {
                    if self.end(at_once).await && self.wind_up() {
                        return;
                    }
                }
            }
            tokio::select! {
                // The core that announces changes is ours as well: never closed.
                _open = changes.changed() => {}
                order = orders.changed() => if order.is_err() {
                    return;
                },
                () = sleep(self.next_look()) => {}
            }
        }
    }

    /// How long to wait before the next look: no longer than until the server's state changes by itself.
    fn next_look(&self) -> Duration {
        let now = self.core.now();
        let next = self.core.state().world.instance(&self.id).and_then(|i| i.next_change(now));
        next.map_or(LOOK_EVERY, |at| at.since(now).min(LOOK_EVERY))
    }

    fn wanted(&self) -> Wanted {
        let state = self.core.state();
        let Some(instance) = state.world.instance(&self.id) else { return Wanted::Gone { at_once: false } };
        match instance.status(self.core.now()) {
            ServerStatus::Running | ServerStatus::Rebooting => Wanted::Up,
            ServerStatus::Paused => Wanted::Frozen,
            ServerStatus::Terminated => Wanted::Gone { at_once: instance.is_lost() },
            ServerStatus::Pending | ServerStatus::Stopping | ServerStatus::Stopped | ServerStatus::Error => {
                Wanted::Down
            }
        }
    }

    async fn up(&mut self) {
        if self.lives() {
            if self.frozen {
                self.signal(Signal::SIGCONT);
                self.frozen = false;
            }
            return;
        }
        let Ok(found) = self.find().await else { return };
        if let Some(process) = found {
            log::info!("adopted the guest of server {} (process {})", self.id, process.pid);
            self.process = Some(process);
            // It may have been frozen under the keeper before this one.
            self.signal(Signal::SIGCONT);
            self.frozen = false;
            self.started = Instant::now();
        } else if Instant::now() >= self.not_before {
            self.start().await;
        }
    }

    fn freeze(&mut self) {
        if !self.frozen && self.lives() {
            self.signal(Signal::SIGSTOP);
            self.frozen = true;
        }
    }

    /// Whether the process lives; takes note when it has just died.
    fn lives(&mut self) -> bool {
        let Some(process) = self.process else { return false };
        let code = match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => status.code(),
            _ if process.is_living() => return true,
            _ => None,
        };
        self.child = None;
        self.process = None;
        self.frozen = false;
        if code == Some(FOLDER_HELD) {
            // Another process keeps the folder: look for it at once.
            self.searched = false;
        } else {
            log::warn!("the guest of server {} (process {}) died, exit code {code:?}", self.id, process.pid);
        }
        self.back_off();
        false
    }

    fn back_off(&mut self) {
        if self.started.elapsed() >= SETTLED {
            self.failures = 0;
        }
        let wait = BACKOFF.0.saturating_mul(2_u32.saturating_pow(self.failures)).min(BACKOFF.1);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + wait;
    }

    /// A living process of this guest that we did not start: the one its pid file names, else any by its command
    /// line. The process table is searched only when there is a reason.
    async fn find(&mut self) -> Result<Option<Process>, Unsearchable> {
        if let Some(named) = Process::named_in(&self.folder) {
            return Ok(Some(named));
        }
        if self.searched {
            return Ok(None);
        }
        let found = self.all().await?.into_iter().next();
        self.searched = true;
        Ok(found)
    }

    /// The process we know and all others of this guest.
    async fn all(&self) -> Result<Vec<Process>, Unsearchable> {
        let (folder, known) = (self.folder.clone(), self.process);
        let search = move || {
            let mut found = Process::all_of(&folder)?;
            found.extend(known.filter(|process| process.is_living() && !found.contains(process)));
            Ok(found)
        };
        let searched = blocking("guests", search).await;
        searched.map_err(io::Error::other).and_then(|found| found).map_err(|error| {
            log::error!("cannot search for the guest of server {}: {error}", self.id);
            Unsearchable
        })
    }

    async fn start(&mut self) {
        let address = {
            let state = self.core.state();
            state.world.instance(&self.id).map(|i| (i.launched.address, self.core.settings.guest_port))
        };
        let Some((host, port)) = address else { return };
        let program = self.core.settings.guest_program.clone();
        let folder = self.folder.clone();
        let spawned = blocking("guests", move || spawn(&program, &folder, &format!("{host}:{port}"))).await;
        self.started = Instant::now();
        match spawned.map_err(io::Error::other).and_then(|result| result) {
            Ok(child) => {
                self.process = i32::try_from(child.id()).ok().and_then(Process::of);
                log::info!("started the guest of server {} (process {})", self.id, child.id());
                if self.process.is_none() {
                    self.reap(child);
                    return;
                }
                self.child = Some(child);
            }
            Err(error) => {
                log::error!("cannot start the guest of server {}: {error}", self.id);
                self.back_off();
            }
        }
    }

    /// A child that ended before it could be looked at.
    fn reap(&mut self, mut child: Child) {
        let code = child.try_wait().ok().flatten().and_then(|status| status.code());
        self.searched = code != Some(FOLDER_HELD);
        log::warn!("the guest of server {} ended at once, exit code {code:?}", self.id);
        self.back_off();
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process {
            process.signal(signal);
        }
    }

    /// Ends every process of the guest, by request first unless it must be at once. Answers whether none is left.
    async fn end(&mut self, at_once: bool) -> bool {
        if self.process.is_none() && self.searched && Process::named_in(&self.folder).is_none() {
            return true;
        }
        let Ok(mut living) = self.all().await else { return false };
        if !at_once && !living.is_empty() {
            for process in &living {
                process.signal(Signal::SIGTERM);
                // A frozen process takes no notice before it thaws.
                process.signal(Signal::SIGCONT);
            }
            let grace = self.core.settings.guest_grace;
            if timeout(grace, self.all_ended(&living)).await.is_err() {
                log::warn!("the guest of server {} did not end within {grace:?} and is killed", self.id);
            }
            let Ok(left) = self.all().await else { return false };
            living = left;
        }
        for process in &living {
            process.signal(Signal::SIGKILL);
        }
        let ended = timeout(KILL_WAIT, self.all_ended(&living)).await.is_ok();
        if ended {
            self.child = None;
            self.process = None;
            self.searched = true;
            self.frozen = false;
            self.failures = 0;
            self.not_before = Instant::now();
        }
        ended
    }

    async fn all_ended(&mut self, processes: &[Process]) {
        loop {
            // Without this our own child would stay in the process table for ever.
            let _status = self.child.as_mut().map(Child::try_wait);
            if !processes.iter().any(|process| process.is_living()) {
                return;
            }
            sleep(END_POLL).await;
        }
    }

    /// Takes away what the guest booted with: the sign that nothing of it is left to end.
    fn wind_up(&self) -> bool {
        match std::fs::remove_file(boot_data(&self.folder)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                log::error!("cannot remove the user data of server {}: {error}", self.id);
                false
            }
        }
    }
}

/// Starts the agent of a folder in a process group of its own, so that Ctrl-C reaches only us.
fn spawn(program: &Path, folder: &Path, listen: &str) -> io::Result<Child> {
    let log_path = folder.join("agent.log");
    if std::fs::metadata(&log_path).is_ok_and(|log| log.len() > LOG_BYTES) {
        std::fs::rename(&log_path, folder.join("agent.log.1"))?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path)?;
    Command::new(program)
        .args(["agent", "--data"])
        .arg(folder)
        .args(["--listen", listen, "--user-data"])
        .arg(boot_data(folder))
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

//! Starts the whole system as one real process on a folder of its own, and takes it away again.
//!
//! An end-to-end test is a [`Site`], a [`Client`] and a [`wait_until`]. Nothing here looks into the process: it is
//! started, asked over HTTP, killed, and judged by what it left on disk.

pub(crate) mod catalogue;
pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod processes;
pub(crate) mod rows;

use std::fmt;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use client::Client;

/// The executable under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatcher");
/// Longest wait for readiness: the figure is 1 s on a free machine in a release build.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// Longest wait for a polite end.
const DRAIN: Duration = Duration::from_secs(40);
/// Pause between two looks at something awaited.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Looks until it holds; says what never held when the time is over.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}

/// Looks until there is something; says what never came when the time is over.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
        std::thread::sleep(LOOK);
    }
}

/// What the ready file says: a contract for tools, so every field must be there and no other is read.
#[derive(Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    pub(crate) url: String,
    pub(crate) agent_url: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) console_url: String,
    pub(crate) console_user: String,
    pub(crate) console_password: String,
    pub(crate) ops_url: String,
    pub(crate) pid: u32,
}

/// Where a process is to die or stand still, handed over on a descriptor.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Order {
    pub(crate) place: String,
    pub(crate) hits: u32,
    /// Instead of dying: how long the thread stands still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<PathBuf>,
    pub(crate) sabotage: Vec<String>,
}

impl Order {
    fn descriptor(&self) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&serde_json::to_vec(self).expect("plain data")).expect("room on the disk");
        file.rewind().expect("a file");
        file
    }
}

/// A process that ended before it was ready.
#[derive(Debug)]
pub(crate) struct NotReady(pub(crate) String);

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A data folder and the process that works on it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
    ready: Option<Ready>,
    largest_file: Option<u64>,
    environment: Vec<(String, String)>,
}

impl Site {
    /// A fresh folder; nothing runs yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("dispatcher-it-").tempdir().expect("a folder");
        Self {
            folder,
            arguments: Vec::new(),
            child: None,
            ready: None,
            largest_file: None,
            environment: Vec::new(),
        }
    }

    /// A fresh folder with the process ready on it.
    pub(crate) fn started(arguments: &[&str]) -> Self {
        let mut site = Self::new();
        site.start(arguments);
        site
    }

    /// The data folder, as guests name it on their command lines.
    pub(crate) fn data(&self) -> PathBuf {
        let folder = self.folder.path().join("data");
        folder.canonicalize().unwrap_or(folder)
    }

    /// A file beside the data folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The living process.
    pub(crate) fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("the process is ready")
    }

    /// A client with the folder's own key.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.ready())
    }

    /// Writes a settings file and gives the argument that names it.
    pub(crate) fn settings(&self, text: &str) -> String {
        let file = self.beside("settings.toml");
        std::fs::write(&file, text).expect("room on the disk");
        file.display().to_string()
    }

    /// Starts with these further arguments and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        self.restart(&Order::default());
    }

    /// A variable of the environment of the next processes.
    pub(crate) fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Process of the site that runs.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().expect("a process runs").id()).expect("a pid"))
    }

    /// No file of the next process may grow beyond so many bytes, as on a disk that is full.
    pub(crate) fn limit_files(&mut self, bytes: u64) {
        self.largest_file = Some(bytes);
    }

    /// Lets files of the living process grow again.
    #[track_caller]
    pub(crate) fn unlimit_files(&self) {
        let pid = self.child.as_ref().expect("a process runs").id();
        let status = Command::new("prlimit").args([&format!("--pid={pid}"), "--fsize=unlimited"]).status();
        assert!(status.expect("prlimit starts").success());
    }

    /// Starts with these further arguments and waits for a process that refuses to.
    #[track_caller]
    pub(crate) fn start_refused(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        self.spawn(&Order::default());
        assert!(self.await_ready().is_err(), "it started\n{}", self.log());
    }

    /// Starts again with the same arguments.
    #[track_caller]
    pub(crate) fn restart(&mut self, order: &Order) {
        self.spawn(order);
        if let Err(error) = self.await_ready() {
            panic!("not ready: {error}\n{}", self.log());
        }
    }

    /// Starts without waiting. A place at which to die may lie before readiness.
    #[track_caller]
    pub(crate) fn spawn(&mut self, order: &Order) {
        assert!(self.child.is_none(), "one process at a time keeps a folder");
        self.ready = None;
        let ready_file = self.ready_file();
        let _absent = std::fs::remove_file(&ready_file);
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let armed = !order.place.is_empty() || !order.sabotage.is_empty();
        let mut command = self.program();
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(&self.arguments)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(if armed { Stdio::from(order.descriptor()) } else { Stdio::null() })
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if armed {
            command.args(["--failpoints-fd", "0"]);
        }
        self.child = Some(command.spawn().expect("the program starts"));
    }

    /// The program; with a limit for files it sees a refused write, and not the signal that would end it.
    fn program(&self) -> Command {
        let Some(bytes) = self.largest_file else { return Command::new(PROGRAM) };
        let mut command = Command::new("sh");
        let limit = format!("--fsize={bytes}:unlimited");
        command.args(["-c", "trap '' XFSZ; exec prlimit \"$@\"", "sh", &limit, PROGRAM]);
        command
    }

    /// Waits for the ready file of a process just started; reaps a process that ended before.
    pub(crate) fn await_ready(&mut self) -> Result<(), NotReady> {
        let deadline = Instant::now() + READY;
        let path = self.ready_file();
        loop {
            if let Ok(text) = std::fs::read(&path) {
                let ready: Ready = serde_json::from_slice(&text).expect("the ready file holds its contract");
                let child = self.child.as_ref().expect("just started");
                assert_eq!(ready.pid, child.id(), "the ready file names the process that wrote it");
                self.ready = Some(ready);
                return Ok(());
            }
            if let Some(status) = self.exited() {
                return Err(NotReady(format!("it ended before it was ready: {status}")));
            }
            assert!(Instant::now() < deadline, "not ready within {READY:?}\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Reaps the process if it has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("our own child");
        if status.is_some() {
            self.child = None;
            self.ready = None;
        }
        status
    }

    /// Ends it as a power cut would. Guests live on.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
        self.ready = None;
    }

    /// Asks it to end, waits, and checks that it ended well and left nobody behind.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.end_by(Signal::SIGTERM);
    }

    /// As [`Site::stop`], by the signal of Ctrl-C or of an init system.
    #[track_caller]
    pub(crate) fn end_by(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("a process runs");
        self.ready = None;
        let pid = i32::try_from(child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("our own child");
        let deadline = Instant::now() + DRAIN;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                panic!("still running {DRAIN:?} after {signal}\n{}", self.log());
            }
            std::thread::sleep(LOOK);
        };
        assert!(status.success(), "after {signal} it ended with {status}\n{}", self.log());
        let left = processes::naming(&self.data());
        assert!(left.is_empty(), "after {signal} these live on: {left:?}\n{}", self.log());
    }

    /// Living guests of this folder.
    pub(crate) fn guests(&self) -> Vec<i32> {
        processes::agents(&self.data())
    }

    /// The last lines it wrote.
    pub(crate) fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.len().saturating_sub(60);
        lines[tail..].join("\n")
    }

    /// All it wrote, from all starts.
    pub(crate) fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.beside("log")
    }

    fn ready_file(&self) -> PathBuf {
        self.beside("ready.json")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.log_file().display(), self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        processes::end_all(&self.data());
        if let Some(keep) = std::env::var_os("DISPATCHER_TEST_KEEP") {
            keep_copy(self.folder.path(), Path::new(&keep));
        }
    }
}

/// Copies databases, ledgers and logs of a finished test to a folder for a person to look at.
fn keep_copy(from: &Path, to: &Path) {
    let name = from.file_name().map(Path::new).unwrap_or(Path::new("site"));
    let _status = Command::new("cp").arg("-r").arg(from).arg(to.join(name)).status();
}

//! One process of the house: started, watched, killed, stopped for a while, ended in order.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Error;
use super::plan::Kind;
use super::proxy::Link;

/// Longest wait for readiness.
pub(super) const READY: Duration = Duration::from_secs(60);
/// Longest wait for an end in order.
const DRAIN: Duration = Duration::from_secs(60);
/// Pause between two looks at something awaited.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// Where a process is to die, and which deliberate faults it has, handed over on a descriptor.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Order {
    /// Places with the passage at which it dies: whichever comes first.
    pub(super) also: Vec<(String, u32)>,
    /// Instead of dying: how long the thread stands still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) block_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<PathBuf>,
    /// Every so many-th commit is stored, and its answer lost; 0: none.
    pub(super) lose_every: u32,
    pub(super) sabotage: Vec<String>,
}

impl Order {
    fn is_empty(&self) -> bool {
        self.also.is_empty() && self.sabotage.is_empty() && self.lose_every == 0
    }

    /// A file without a name, open at its start.
    fn descriptor(&self, folder: &Path) -> std::io::Result<File> {
        let path = folder.join("order");
        let _absent = std::fs::remove_file(&path);
        let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
        std::fs::remove_file(&path)?;
        file.write_all(&serde_json::to_vec(self).unwrap_or_default())?;
        file.rewind()?;
        Ok(file)
    }
}

/// What became of a start.
pub(super) enum Started {
    /// It is ready.
    Ready,
    /// It ended before.
    Ended(ExitStatus),
}

/// A process of the house.
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) name: String,
    folder: PathBuf,
    arguments: Vec<String>,
    /// Its own links, where its servers are reached through such.
    pub(super) broker: Option<Link>,
    pub(super) database: Option<Link>,
    child: Option<Child>,
    ready: Value,
    /// Whether it is started again when it ends.
    pub(super) tended: bool,
    /// Whether it runs with an order to die.
    pub(super) armed: bool,
    began: Instant,
    /// How long each start took until it was ready.
    pub(super) starts: Vec<Duration>,
    /// When it may be started again after it ended by itself.
    pub(super) resume_at: Instant,
    /// Ends nobody asked for.
    pub(super) own_ends: u32,
    /// When it was last stopped for a while, or lost its links alone.
    pub(super) touched: Option<Instant>,
}

impl Member {
    /// One that does not run yet; `arguments` begin with the command.
    pub(super) fn new(
        (kind, name): (Kind, &str),
        below: &Path,
        arguments: Vec<String>,
    ) -> std::io::Result<Self> {
        let folder = below.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            kind,
            name: name.to_owned(),
            folder,
            arguments,
            broker: None,
            database: None,
            child: None,
            ready: Value::Null,
            tended: true,
            armed: false,
            began: Instant::now(),
            starts: Vec::new(),
            resume_at: Instant::now(),
            own_ends: 0,
            touched: None,
        })
    }

    /// Its data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    /// Starts it without waiting.
    pub(super) fn spawn(&mut self, order: &Order) -> Result<(), Error> {
        let _absent = std::fs::remove_file(self.ready_file());
        self.ready = Value::Null;
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&self.arguments)
            .arg("--data")
            .arg(self.data())
            .arg("--ready-file")
            .arg(self.ready_file())
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if !order.is_empty() {
            command.stdin(order.descriptor(&self.folder)?).args(["--failpoints-fd", "0"]);
        }
        self.child = Some(command.spawn()?);
        self.armed = !order.also.is_empty();
        self.began = Instant::now();
        Ok(())
    }

    /// Looks once whether it is ready or has ended.
    pub(super) fn look(&mut self) -> Result<Option<Started>, Error> {
        let file = self.ready_file();
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        if self.ready.is_null()
            && let Ok(text) = std::fs::read(file)
            && let Ok(said) = serde_json::from_slice::<Value>(&text)
            && said.get("pid").and_then(Value::as_u64) == Some(u64::from(child.id()))
        {
            self.ready = said;
            self.starts.push(self.began.elapsed());
            return Ok(Some(Started::Ready));
        }
        if let Some(status) = child.try_wait()? {
            self.child = None;
            self.ready = Value::Null;
            return Ok(Some(Started::Ended(status)));
        }
        Ok(None)
    }

    /// Waits until it is ready or has ended.
    pub(super) async fn awaited(&mut self) -> Result<Started, Error> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(news) = self.look()? {
                return Ok(news);
            }
            if Instant::now() > deadline {
                return Err(self.fault("is not ready in time"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts it and waits until it is ready; an end before is an error.
    pub(super) async fn start(&mut self, order: &Order) -> Result<(), Error> {
        self.spawn(order)?;
        match self.awaited().await? {
            Started::Ready => Ok(()),
            Started::Ended(status) => Err(self.fault(&format!("ended before it was ready ({status})"))),
        }
    }

    /// What is wrong with it, with its last words.
    pub(super) fn fault(&self, what: &str) -> Error {
        let log = self.folder.join("log");
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n  ");
        Error::Failed(format!("{} {what}; the end of its log:\n  {tail}", self.name))
    }

    /// Whether a process runs.
    pub(super) const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// A word of its ready file.
    pub(super) fn said(&self, field: &str) -> Option<&str> {
        self.ready.get(field).and_then(Value::as_str)
    }

    /// Its life in the database.
    pub(super) fn boot(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data().join("boot")).ok()?;
        Some(text.trim().to_owned())
    }

    /// Sends it a signal, where it runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            // It may have ended just now; it is our own child, so the number is still its.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        self.ready = Value::Null;
    }

    /// Asks it to end and waits; one that does not end in time is killed, and that is an error.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + DRAIN;
        loop {
            match self.look()? {
                Some(Started::Ended(status)) if status.success() => return Ok(()),
                Some(Started::Ended(status)) => {
                    return Err(self.fault(&format!("was asked to end and ended with {status}")));
                }
                _ if Instant::now() > deadline => {
                    self.kill();
                    return Err(self.fault(&format!("still ran {DRAIN:?} after it was asked to end")));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command of this program to its end; what it printed.
pub(super) fn run(folder: &Path, arguments: &[&str]) -> Result<String, Error> {
    let done = Command::new(std::env::current_exe()?)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Error::Failed(format!("\"dispatcher {}\": {}", arguments.join(" "), said.trim())))
}

/// Ports of loopback nobody listens on now, below those that the system hands out by itself.
pub(super) fn free_ports(count: usize, first: u16) -> Result<Vec<u16>, Error> {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found: Vec<u16> = (first..32_000).chain(10_000..first).filter(free).take(count).collect();
    if found.len() == count {
        Ok(found)
    } else {
        Err(Error::Failed("no free ports are left on loopback".to_owned()))
    }
}

//! The guest's side: a small process that enrols once, listens for the dispatcher, and runs commands at most once.
//!
//! It never dials anybody but the dispatcher's agent address, never accepts a peer that is not the dispatcher's role,
//! never uses a shell, and never runs a command again that its journal knows. It builds without a database.
//!
//! | file | does |
//! |---|---|
//! | `machine` | pure decisions: run, attach, stored, refuse, expired |
//! | `journal` | the record on disk behind them |
//! | `core` | takes frames one by one; record, act, answer |
//! | `shim`, `place` | the process around one command, and the folder both share |
//! | `feed` | output and result to a session |
//! | `listen`, `session` | TLS, WebSocket |
//! | `enroll`, `home` | handshake and renewal; lock, pid file, key, certificate, user data |

mod core;
mod enroll;
mod error;
mod feed;
mod files;
mod home;
mod journal;
mod listen;
pub(crate) mod machine;
mod place;
mod session;
mod shim;
mod stats;

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub use error::Error;

use crate::ops::Chain;

/// Word of the hidden subcommand that runs the shim.
pub const SHIM_SUBCOMMAND: &str = "agent-shim";

/// Events that may wait for the core before sessions are slowed down.
const INBOX: usize = 256;

/// Command line of the agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder for the key, the journal and the commands; made where it is absent
    #[arg(long, value_name = "DIR", default_value = "/var/lib/dispatcher-agent")]
    pub data: PathBuf,
    /// Address to listen on for the dispatcher
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:2003")]
    pub listen: SocketAddr,
    /// File with the dispatcher's address, the root to trust and the enrolment token
    #[arg(long, value_name = "FILE", default_value = "/var/lib/dispatcher-agent/user-data.json")]
    pub user_data: PathBuf,
}

/// Command line of the shim.
#[derive(Clone, Debug, clap::Args)]
pub struct ShimArgs {
    /// Folder of the command
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder for everything the agent keeps.
    pub data: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The user data file.
    pub user_data: PathBuf,
    /// How the shim is started.
    pub shim: Shim,
    /// Sizes and times.
    pub limits: Limits,
}

/// The program that is the shim; `--dir DIR` is added.
#[derive(Clone, Debug)]
pub struct Shim {
    /// Program.
    pub program: PathBuf,
    /// Arguments before `--dir`.
    pub arguments: Vec<OsString>,
}

/// Sizes and times of an agent.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Commands at work at once; more wait in order.
    pub at_once: usize,
    /// Commands that may wait.
    pub queue: usize,
    /// Bytes kept of each output of a command.
    pub output: u64,
    /// Furthest ahead an expiry may lie. The journal remembers twice as long.
    pub furthest_expiry: Duration,
    /// Between a command's polite and hard end.
    pub grace: Duration,
    /// A session that says nothing for this long is dropped; the dispatcher pings more often.
    pub idle: Duration,
    /// For TLS, WebSocket and hello together.
    pub greeting: Duration,
    /// First pause between two handshakes that failed; doubles.
    pub retry_first: Duration,
    /// Longest pause between two handshakes.
    pub retry_longest: Duration,
}

impl Limits {
    /// How long the journal remembers.
    fn keep(&self) -> Duration {
        self.furthest_expiry * 2
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            at_once: 16,
            queue: 1024,
            output: 8 * 1024 * 1024,
            furthest_expiry: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            greeting: Duration::from_secs(5),
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// Settings of the command line, with this executable as its own shim.
    ///
    /// # Errors
    /// When the executable's own path is unknown.
    pub fn new(args: Args) -> Result<Self, Error> {
        let program = std::env::current_exe()
            .map_err(|source| Error::Start { what: "a shim of this program", source })?;
        Ok(Self {
            data: args.data,
            listen: args.listen,
            user_data: args.user_data,
            shim: Shim { program, arguments: vec![SHIM_SUBCOMMAND.into()] },
            limits: Limits::default(),
        })
    }
}

/// Runs an agent until `shutdown` is ready; running commands are left to their shims.
///
/// Must be polled on a thread with a `LocalSet` or an actix system, because the handshake's HTTP client needs one.
/// Dropping the future ends listening, sessions and handshakes at once, which is as safe as a crash.
///
/// # Errors
/// When the data folder is used by another agent, unusable or damaged, when the address cannot be used, or when the
/// dispatcher refuses the agent for good. Everything else is tried again.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let settings = Arc::new(settings);
    let home = home::Home::open(&settings.data)?;
    let user_data = home::UserData::read(&settings.user_data)?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|source| Error::Listen { address: settings.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| Error::Listen { address: settings.listen, source })?;
    home.write_pid(address)?;
    let key = home.key()?;
    let (identity, identities) = watch::channel(home.identity(&key, &user_data.root));
    let (events, inbox) = mpsc::channel(INBOX);
    let core = core::Core::open(Arc::clone(&settings), events.clone())?;
    log::info!("agent listens on {address}");
    // Dropping the set ends its tasks.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(core.run(inbox));
    tasks.spawn(listen::accept(listener, identities, events, Arc::clone(&settings)));
    let enrolment = enroll::Enrolment { home: &home, user_data: &user_data, key: &key, address, identity };
    tokio::select! {
        () = shutdown => Ok(()),
        refused = enrolment.keep(&settings.limits) => Err(refused),
        _ = tasks.join_next() => Err(Error::Ended("heart")),
    }
}

/// Closes what a careless parent left open: libraries in C open sockets that new processes inherit, and a guest has no
/// business with, say, a connection to a database, nor may it keep one alive that its parent lost.
fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // All names are read before the first is closed: one of them is the directory itself.
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for number in numbers {
        let _closed_already = nix::unistd::close(number);
    }
}

/// The agent as a process of its own: until a termination signal, or an error.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    close_inherited();
    start_logging();
    let ended = Settings::new(args)
        .and_then(|settings| actix_rt::System::new().block_on(async { run(settings, terminated()?).await }));
    match ended {
        Ok(()) => {
            log::info!("agent stops; commands at work are left to their shims");
            ExitCode::SUCCESS
        }
        Err(e) => {
            log::error!("agent ends: {}", Chain(&e));
            ExitCode::from(e.exit_code())
        }
    }
}

/// The shim as a process of its own.
#[must_use]
pub fn shim_main(args: &ShimArgs) -> ExitCode {
    start_logging();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(|source| Error::Start { what: "the shim's runtime", source })
        .and_then(|runtime| runtime.block_on(shim::run(&args.dir)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("shim ends: {}", Chain(&e));
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    crate::ops::logging::init("info");
}

/// Ready when the process is asked to end.
fn terminated() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let start_error = |source| Error::Start { what: "the signal handlers", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(start_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start_error)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Operating system and processor.
fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}

//! `dispatcher dev`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::boot::{self, Part};
use crate::config::Config;
use crate::ops::{Chain, failpoint, logging, panic_hook};

/// Run every role in one process on embedded parts: SQLite, a simulated cloud, real guest processes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Launch a server, run a command on it, tell the story, then stay up
    #[arg(long)]
    demo: bool,
    /// Where the API and the console listen (loopback); port 0 takes the one used last, or any
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3302")]
    listen: SocketAddr,
    /// Data folder; made where it is missing
    #[arg(long, value_name = "DIR", default_value = "dispatcher-data")]
    data: PathBuf,
    /// Write addresses and keys to this file when ready (only its owner can read it)
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Leave parts out: km, monitor, worker, pinger
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    without: Vec<Part>,
    /// Real guests at most; later servers run without an agent
    #[arg(long, value_name = "N", default_value_t = 16)]
    guest_processes: usize,
    /// Settings file (TOML); see config/dispatcher.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Inherited descriptor with an order to die at a named place; for crash tests
    #[arg(long, value_name = "FD", hide = true)]
    failpoints_fd: Option<i32>,
}

pub(super) fn main(args: Args) -> ExitCode {
    logging::init(if args.demo { "warn,lapin=error" } else { "info,actix_server=warn,lapin=error" });
    panic_hook::install();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", Chain(&*error));
            let text = format!("dispatcher dev: {}\n", Chain(&*error));
            // Nobody reading is no reason to hide the exit code.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(fd) = args.failpoints_fd {
        failpoint::arm(fd)?;
    }
    let config = Config::load_or_default(args.config.as_deref())?;
    let options = boot::Dev {
        listen: args.listen,
        data: args.data,
        ready_file: args.ready_file,
        without: args.without.into_iter().collect(),
        guest_processes: args.guest_processes,
        config,
        demo: args.demo,
    };
    actix_rt::System::new().block_on(boot::dev(options))?;
    Ok(())
}

//! `dispatcher serve|monitor|worker|pinger|km`: one role as a process of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::boot::{self, Role};
use crate::config::Config;
use crate::ops::{Chain, failpoint, logging, panic_hook};

/// One role as a process of its own
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Settings file (TOML); see config/dispatcher.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder of this process's own files, instead of process.data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder with the role's keys, instead of keys.folder
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Write addresses and process id to this file when ready (only its owner can read it)
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Inherited descriptor with an order to die at a named place; for crash tests
    #[arg(long, value_name = "FD", hide = true)]
    failpoints_fd: Option<i32>,
}

pub(super) fn main(role: Role, args: Args) -> ExitCode {
    logging::init("info,actix_server=warn,lapin=error");
    panic_hook::install();
    match run(role, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", Chain(&*error));
            let text = format!("dispatcher {role}: {}\n", Chain(&*error));
            // Nobody reading is no reason to hide the exit code.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role, args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(fd) = args.failpoints_fd {
        failpoint::arm(fd)?;
    }
    let mut config = Config::load(&args.config)?;
    if let Some(data) = args.data {
        config.process.data = data;
    }
    if let Some(keys) = args.keys {
        config.keys.folder = keys;
    }
    let start = boot::Start { role, config, ready_file: args.ready_file };
    actix_rt::System::new().block_on(boot::start(start))?;
    Ok(())
}

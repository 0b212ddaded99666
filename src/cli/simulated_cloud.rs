//! `dispatcher simulated-cloud`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::boot;
use crate::config::Config;
use crate::ops::{Chain, logging, panic_hook};

/// Run the simulated cloud as a process of its own, for any number of dispatchers whose settings name it
/// (`[simulated] url`)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where calls are taken (loopback); port 0 takes the one used last, or any
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Data folder with the cloud's journal and its guests; made where it is missing
    #[arg(long, value_name = "DIR", default_value = "dispatcher-cloud")]
    data: PathBuf,
    /// Folder with install.key, such as the "keys" of the dispatcher's data folder: the account's credential is made
    /// from that key. Without it that of the settings, else "keys" in the data folder
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Write the address and the process id to this file when ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Real guests at most; later servers run without an agent
    #[arg(long, value_name = "N", default_value_t = 16)]
    guest_processes: usize,
    /// Settings file (TOML); its section "simulated" says how the cloud behaves
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn main(args: Args) -> ExitCode {
    logging::init("info,actix_server=warn");
    panic_hook::install();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", Chain(&*error));
            let text = format!("dispatcher simulated-cloud: {}\n", Chain(&*error));
            // Nobody reading is no reason to hide the exit code.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load_or_default(args.config.as_deref())?;
    let options = boot::SimulatedCloud {
        listen: args.listen,
        data: args.data,
        keys: args.keys,
        ready_file: args.ready_file,
        guest_processes: args.guest_processes,
        config,
    };
    actix_rt::System::new().block_on(boot::simulated_cloud(options))?;
    Ok(())
}

//! The command line: one type a role and an operator command. Translates what is typed into calls of other rooms and
//! their answers into text; decides nothing itself.

mod agents;
mod bench;
pub mod client;
mod config;
mod db;
mod dev;
mod follow;
mod guest;
pub mod jobs;
mod keys;
mod limits;
mod obligations;
mod pauses;
mod process;
mod restored;
mod role;
mod schedules;
mod servers;
mod setup;
mod simulated_cloud;
pub mod table;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agent;
use crate::boot::Role;

/// Runs actions on clouds and on guest machines as durable, supervised jobs
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every role in one process on embedded parts
    Dev(dev::Args),
    /// Run console, APIs, jobs and sessions with guests; any number of them share one database
    Serve(role::Args),
    /// Look at clouds and write what was seen
    Monitor(role::Args),
    /// Decide what needs no look at a cloud
    Worker(role::Args),
    /// Ask guests for signs of life
    Pinger(role::Args),
    /// Run the key manager, the only process that reads credentials
    Km(role::Args),
    /// Make, renew and list the keys of an installation
    Keys(keys::Args),
    /// Make the databases, the first tenant and its administrator
    Setup(setup::Args),
    /// Run the simulated cloud as a process of its own
    SimulatedCloud(simulated_cloud::Args),
    /// Ask for jobs and look at them
    Jobs(jobs::Args),
    /// Submit jobs again and again, by cron expressions
    Schedules(schedules::Args),
    /// Hold kinds of jobs, or those of an account, and let them go again
    Pauses(pauses::Args),
    /// Bound how many jobs of an account are at work together, and how many start in which time
    Limits(limits::Args),
    /// Show what is looked for at clouds after jobs ended, and what was found
    Obligations(obligations::Args),
    /// Look at servers, start, stop, pause and terminate them
    Servers(servers::Args),
    /// Look at guests' agents and run commands through them
    Agents(agents::Args),
    /// Show the actors of the process that answers
    Actors(process::Actors),
    /// Say how the process that answers is
    Health(process::Args),
    /// Check settings, and show them
    Config(config::Args),
    /// Make, look at and check the databases
    Db(db::Args),
    /// Measure this program on this machine, beside the machine's own limits
    Bench(bench::Args),
    /// Prove that no accepted job is lost or done twice
    VerifyCrash(verify::Args),
    /// Run the guest's agent
    Agent(agent::Args),
    /// Carry out one command; started by the agent only
    #[command(name = agent::SHIM_SUBCOMMAND, hide = true)]
    AgentShim(agent::ShimArgs),
}

/// Runs the command the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Dev(args) => dev::main(args),
        Command::Serve(args) => role::main(Role::Serve, args),
        Command::Monitor(args) => role::main(Role::Monitor, args),
        Command::Worker(args) => role::main(Role::Worker, args),
        Command::Pinger(args) => role::main(Role::Pinger, args),
        Command::Km(args) => role::main(Role::Km, args),
        Command::Keys(args) => client_main(async |out| keys::run(&args, out)),
        Command::Setup(args) => client_main(async |out| setup::run(&args, out).await),
        Command::SimulatedCloud(args) => simulated_cloud::main(args),
        Command::Jobs(args) => client_main(async |out| jobs::run(&args, out).await),
        Command::Schedules(args) => client_main(async |out| schedules::run(&args, out).await),
        Command::Pauses(args) => client_main(async |out| pauses::run(&args, out).await),
        Command::Limits(args) => client_main(async |out| limits::run(&args, out).await),
        Command::Obligations(args) => client_main(async |out| obligations::run(&args, out).await),
        Command::Servers(args) => client_main(async |out| servers::run(&args, out).await),
        Command::Agents(args) => client_main(async |out| agents::run(&args, out).await),
        Command::Actors(args) => client_main(async |out| process::actors(&args, out).await),
        Command::Health(args) => client_main(async |out| process::health(&args, out).await),
        Command::Config(args) => client_main(async |out| config::run(&args, out)),
        Command::Db(args) => client_main(async |out| db::run(&args, out).await),
        Command::Bench(args) => client_main(async |out| bench::run(&args, out).await),
        Command::VerifyCrash(args) => client_main(async |out| verify::run(&args, out).await),
        Command::Agent(args) => agent::main(args),
        Command::AgentShim(args) => agent::shim_main(&args),
    }
}

/// Runs a client command: its text goes to standard output, what is wrong and what to do next to standard error.
fn client_main(run: impl AsyncFnOnce(&mut dyn Write) -> Result<u8, client::Error>) -> ExitCode {
    crate::ops::logging::init("warn");
    let mut out = std::io::stdout().lock();
    let done = actix_rt::System::new().block_on(run(&mut out));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = format!("dispatcher: {}\n", crate::ops::Chain(&error));
            // Nobody reading is no reason to hide the exit code.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        super::Cli::command().debug_assert();
    }
}

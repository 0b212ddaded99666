//! The guest's executable: the agent and its shim, without database and web server.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dispatcher::agent;

/// Runs commands of the dispatcher on this guest, each at most once
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol with the dispatcher and serve it until a termination signal
    #[command(alias = "agent")]
    Run(agent::Args),
    /// Carry out one command; started by the agent only
    #[command(name = agent::SHIM_SUBCOMMAND, hide = true)]
    AgentShim(agent::ShimArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => agent::main(args),
        Command::AgentShim(args) => agent::shim_main(&args),
    }
}

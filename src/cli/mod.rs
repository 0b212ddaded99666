//! The command line: one type a command, translated into calls of the rooms below.

mod dev;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agent;

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
        Command::Agent(args) => agent::main(args),
        Command::AgentShim(args) => agent::shim_main(&args),
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

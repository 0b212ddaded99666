//! Command line to role; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    dispatcher::cli::main()
}

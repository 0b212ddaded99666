//! Ends a process that was found unable to go on and does not come to its end by itself.
//!
//! The thread that should end it may be the very one that stands still, and a thread that stands still cannot be ended
//! from inside.

use std::io::Write as _;
use std::time::Duration;

use super::Error;
use crate::supervision::Supervisor;

/// How long a process that has to end may take for it.
const MERCY: Duration = Duration::from_secs(10);
/// What it ends with then.
const CODE: i32 = 1;

/// Starts the thread that waits for the case; it ends with the process.
pub(super) fn guard(supervisor: &Supervisor) -> Result<(), Error> {
    let fault = |e: &std::io::Error| Error::part("last resort", e);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| fault(&e))?;
    let supervisor = supervisor.clone();
    let wait = move || {
        let cause = runtime.block_on(async {
            let cause = supervisor.fatal().await;
            tokio::time::sleep(MERCY).await;
            cause
        });
        let text = format!(
            "the process must end and start anew: {cause}; it did not end within {MERCY:?}, so it is ended"
        );
        log::error!("{text}");
        // Nobody reading is no reason to stay.
        drop(writeln!(std::io::stderr().lock(), "dispatcher: {text}"));
        std::process::exit(CODE);
    };
    std::thread::Builder::new().name("last-resort".to_owned()).spawn(wait).map(drop).map_err(|e| fault(&e))
}

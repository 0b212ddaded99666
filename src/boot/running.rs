//! From ready to stopped: signals, the word that something gave up, and the order in which a process ends.

use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Error;
use super::base::{Base, Ops};
use super::doors::Doors;
use crate::config::ms;
use crate::registry::Registry;

/// Time between two lines about jobs still at work.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Tells the terminal.
pub(super) fn say(text: &str) {
    // Nobody reading is no reason to stop.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// The signals that end the process in order.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, Error> {
        let caught = |kind| signal(kind).map_err(|e| Error::part("signals", &e));
        Ok(Self { interrupt: caught(SignalKind::interrupt())?, terminate: caught(SignalKind::terminate())? })
    }

    /// Until the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}

/// Runs until a signal, until something cannot go on, or until `story` fails; then ends in order, or at once.
///
/// `orderly` is what comes to its end before the last listener closes; a second signal cuts it off.
pub(super) async fn run(
    (ops, doors, mut signals): (&Ops, Doors, Signals),
    story: impl Future<Output = Result<(), Error>>,
    orderly: impl AsyncFnOnce(&Doors),
) -> Result<(), Error> {
    ops.guard()?;
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        cause = ops.supervisor.fatal() => Err(Error::Fatal(cause)),
        stopped = story => stopped,
    };
    if matches!(outcome, Err(Error::Fatal(_))) {
        doors.abandon().await;
        return outcome;
    }
    say("stopping; a second signal stops at once\n");
    ops.health.retire("it is stopping and takes no more work");
    tokio::select! {
        () = async { orderly(&doors).await; doors.close_ops().await } => say("stopped\n"),
        () = signals.next() => say("stopped at once\n"),
    }
    outcome
}

/// Lets jobs at work come to a place where they may stop, and says how many are left meanwhile.
pub(super) async fn drain(base: &Base, registry: &Registry) {
    let limit = ms(base.config.jobs.drain_ms);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let left = registry.drain(TELL_EVERY.min(deadline.duration_since(tokio::time::Instant::now()))).await;
        base.ops.health.retire(&format!("it is stopping; jobs still at work: {left}"));
        if left == 0 || tokio::time::Instant::now() >= deadline {
            say(&format!("jobs still at work, taken up again by the next life: {left}\n"));
            return;
        }
        say(&format!("jobs still at work: {left}\n"));
    }
}

//! Named places at which a process can be made to die or a thread to stand still, to prove that nothing is lost.
//!
//! Always compiled in, so that the tested binary is the shipped one; armed only through an inherited descriptor, so
//! that no setting, variable or request can arm them.

use std::io::{Read as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use super::fault::{Deliberate, FAULTS, Fault, Finding};

/// Every place, in the order a job passes them. Which work passes which stands in `tests/README.md`.
pub const PLACES: &[&str] = &[
    // A submit: before and after its commit.
    "accept.before",
    "accept.after",
    // A job becomes this life's.
    "takeover.before",
    "takeover.after",
    "claim.before",
    "claim.after",
    // A call, from the attempt's row to its answer.
    "intent.before",
    "intent.after",
    "call.before",
    "call.after",
    "resend.before",
    "resend.after",
    // Its outcome and its watch.
    "record.before",
    "record.after",
    "watch.before",
    "watch.after",
    // A command on its way to a guest, and its answer.
    "command.marked",
    "command.sent",
    "result.before",
    "result.after",
    // A cancel on its way to a command's guest.
    "cancel.before",
    "cancel.after",
    // What was seen, and what follows from it.
    "verdict.before",
    "verdict.after",
    "try.before",
    "try.after",
    "undo-state.before",
    "undo-state.after",
    "undo-call.before",
    "undo-call.after",
    "end.before",
    "end.after",
    // A message for the broker: read, confirmed, forgotten.
    "outbox.before",
    "outbox.confirmed",
    "outbox.deleted",
];

/// A place at which something is to happen.
struct Place {
    name: String,
    remaining: AtomicU32,
}

struct Armed {
    places: Vec<Place>,
    block: Option<Duration>,
    log: Option<std::path::PathBuf>,
    /// Every so many-th answer to a commit is lost; 0 means none.
    lose_every: u32,
    commits: AtomicU32,
    /// One bit a deliberate fault.
    faults: u32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// What an armed descriptor says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    place: String,
    #[serde(default)]
    hits: u32,
    /// More places, each with its hits: whichever comes first.
    #[serde(default)]
    also: Vec<(String, u32)>,
    block_ms: Option<u64>,
    log: Option<std::path::PathBuf>,
    #[serde(default)]
    lose_every: u32,
    #[serde(default)]
    sabotage: Vec<String>,
}

/// A descriptor that does not say where to die.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("descriptor {fd} for failpoints cannot be read")]
    Read {
        /// The descriptor.
        fd: i32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no order.
    #[error("descriptor {fd} holds no failpoint order")]
    Order {
        /// The descriptor.
        fd: i32,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It asks for deliberate faults, and there are none in this build.
    #[error("deliberate faults are asked for, and this build has none; build it with the feature sabotage")]
    NoFaults,
    /// It asks for a fault that does not exist.
    #[error("there is no deliberate fault {found:?}; there are {known}")]
    Fault {
        /// The name asked for.
        found: String,
        /// The names there are.
        known: String,
    },
}

/// The faults of an order as a set of bits.
fn faults_of(names: &[String]) -> Result<u32, Error> {
    if !names.is_empty() && !cfg!(feature = "sabotage") {
        return Err(Error::NoFaults);
    }
    names.iter().try_fold(0, |set, name| match Fault::named(name) {
        Some(fault) => Ok(set | fault.bit()),
        None => {
            let known: Vec<&str> = FAULTS.iter().map(|known| known.name).collect();
            Err(Error::Fault { found: name.clone(), known: known.join(", ") })
        }
    })
}

/// Arms the place an inherited descriptor names.
///
/// The descriptor holds JSON `{"place", "hits", "also", "block_ms", "log", "lose_every", "sabotage"}`; at that hit of the place, or of
/// one of `also`, a line is left in the log and the process dies by `SIGKILL`, or, with `block_ms`, the thread stands still for so long.
/// With `lose_every`, every so many-th commit of the provisioning database is stored and answered as if its answer had
/// been lost. In builds with deliberate faults, `sabotage` lists them by name.
///
/// # Errors
/// When the descriptor cannot be read, does not hold an order, or asks for a fault that this build does not have.
pub fn arm(fd: i32) -> Result<(), Error> {
    let mut text = String::new();
    std::fs::File::open(format!("/proc/self/fd/{fd}"))
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| Error::Read { fd, source })?;
    let order: Order = serde_json::from_str(&text).map_err(|source| Error::Order { fd, source })?;
    let places = std::iter::once((order.place, order.hits)).chain(order.also);
    let places = places.filter(|(name, _)| !name.is_empty());
    let armed = Armed {
        places: places.map(|(name, hits)| Place { name, remaining: AtomicU32::new(hits) }).collect(),
        block: order.block_ms.map(Duration::from_millis),
        log: order.log,
        lose_every: order.lose_every,
        commits: AtomicU32::new(0),
        faults: faults_of(&order.sabotage)?,
    };
    drop(ARMED.set(armed));
    Ok(())
}

/// Passes a place; what was ordered happens there when it is armed and its hits are used up.
pub fn hit(place: &'static str) {
    #[cfg(test)]
    poison::taste(place);
    if let Some(armed) = ARMED.get() {
        armed.pass(|name| name == place);
    }
}

/// As [`hit`] for one of several alike: the order names it as `place.part`, such as `commit.provisioning`.
pub fn hit_in(place: &'static str, part: &'static str) {
    if let Some(armed) = ARMED.get() {
        armed.pass(|name| name.split_once('.') == Some((place, part)));
    }
}

impl Armed {
    fn pass(&self, fits: impl Fn(&str) -> bool) {
        let Some(place) = self.places.iter().find(|place| fits(&place.name)) else { return };
        if place.remaining.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        self.note(&place.name);
        match self.block {
            // On purpose: the thread must not get a turn.
            Some(time) => std::thread::sleep(time),
            None => drop(nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL)),
        }
    }

    fn note(&self, place: &str) {
        let Some(path) = &self.log else { return };
        let written =
            std::fs::OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| {
                file.write_all(format!("{place}\n").as_bytes())?;
                file.sync_data()
            });
        if let Err(error) = written {
            log::error!("the place {place} could not be logged: {error}");
        }
    }
}

/// Whether the answer to the commit that was just stored is lost by order.
#[must_use]
pub fn answer_lost() -> bool {
    ARMED.get().is_some_and(|armed| {
        armed.lose_every > 0
            && (armed.commits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(armed.lose_every)
    })
}

/// Whether a deliberate fault is switched on. Never in a build without the feature `sabotage`.
#[must_use]
pub fn sabotaged(fault: Fault) -> bool {
    cfg!(feature = "sabotage") && ARMED.get().is_some_and(|armed| armed.faults & fault.bit() != 0)
}

/// Panics at a place for one actor only, for tests.
#[cfg(test)]
pub(crate) mod poison {
    use std::sync::{Mutex, PoisonError};

    use crate::ops::panic_hook::doing;

    static POISON: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

    /// Has the actor of this name panic whenever it passes the place.
    pub(crate) fn give(place: &'static str, actor: String) {
        POISON.lock().unwrap_or_else(PoisonError::into_inner).push((place, actor));
    }

    pub(super) fn taste(place: &'static str) {
        let Some(name) = doing() else { return };
        let found = {
            let given = POISON.lock().unwrap_or_else(PoisonError::into_inner);
            given.iter().any(|(at, actor)| *at == place && **actor == *name)
        };
        assert!(!found, "poison at {place}");
    }
}

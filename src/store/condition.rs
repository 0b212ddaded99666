//! How a database is, by what became of its last writes and reads: told to health, asked by whoever can do without it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Error;
use crate::ops::{Health, State};

/// One failure is a cut link, which the next try cures; failures for longer than this are a database that is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the last tries say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both ways work, or were not tried.
    Up,
    /// Reads work, writes do not: a full disk, a server that lets nobody write.
    NoWrites(String),
    /// Writes work, reads do not.
    NoReads(String),
    /// Neither works.
    Away(String),
}

/// Which way was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Write,
    Read,
}

/// Failures of one way since it worked last.
#[derive(Clone, Debug)]
struct Failing {
    since: Instant,
    cause: String,
}

#[derive(Debug, Default)]
struct Tries {
    write: Option<Failing>,
    read: Option<Failing>,
}

/// Where the condition is told.
struct Told {
    health: Health,
    /// The part that is down while rows cannot be read.
    whole: &'static str,
    /// The part that is down while rows can be read and not written.
    writes: &'static str,
    /// How bad that is.
    down: State,
}

/// Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(super) struct Condition {
    tries: Arc<Mutex<Tries>>,
    told: Arc<OnceLock<Told>>,
}

impl Condition {
    /// Tells health from now on, under these names: of the database, and of its writes alone. `down` is what it is while
    /// a way does not work.
    pub(super) fn tell(&self, health: &Health, [whole, writes]: [&'static str; 2], down: State) {
        health.set(whole, State::Ok, "");
        // Once a database; a second teller would say the same.
        let _ = self.told.set(Told { health: health.clone(), whole, writes, down });
    }

    /// Takes in what became of a try. What says nothing about the database, such as a full line or a refused
    /// statement, changes nothing.
    pub(super) fn tried<T>(&self, way: Way, outcome: &Result<T, Error>) {
        let cause = match outcome {
            Ok(_) => None,
            Err(error) => match cause(error) {
                Some(cause) => Some(cause),
                None => return,
            },
        };
        let mut tries = self.lock();
        let slot = match way {
            Way::Write => &mut tries.write,
            Way::Read => &mut tries.read,
        };
        // The usual: nothing failed and nothing fails.
        if slot.is_none() && cause.is_none() {
            return;
        }
        match cause {
            None => *slot = None,
            Some(cause) => {
                let since = slot.as_ref().map_or_else(Instant::now, |failing| failing.since);
                *slot = Some(Failing { since, cause });
            }
        }
        let standing = tries.standing();
        drop(tries);
        self.show(&standing);
    }

    /// What the last tries say.
    pub(super) fn standing(&self) -> Standing {
        self.lock().standing()
    }

    fn show(&self, standing: &Standing) {
        let Some(told) = self.told.get() else { return };
        let (whole, writes) = match standing {
            Standing::Up => (None, None),
            Standing::NoWrites(cause) => (None, Some(format!("it takes no writes: {cause}"))),
            Standing::NoReads(cause) => (Some(format!("it answers no reads: {cause}")), None),
            Standing::Away(cause) => (Some(format!("it is away: {cause}")), None),
        };
        let show = |part, reason: Option<String>| match reason {
            None => told.health.set(part, State::Ok, ""),
            Some(reason) => told.health.set(part, told.down, reason),
        };
        show(told.whole, whole);
        show(told.writes, writes);
    }

    fn lock(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tries {
    fn standing(&self) -> Standing {
        let for_long = |way: &Option<Failing>| {
            way.as_ref().filter(|failing| failing.since.elapsed() >= PATIENCE).map(|f| f.cause.clone())
        };
        match (for_long(&self.write), for_long(&self.read)) {
            (None, None) => Standing::Up,
            (Some(cause), Some(_)) => Standing::Away(cause),
            (Some(cause), None) => Standing::NoWrites(cause),
            (None, Some(cause)) => Standing::NoReads(cause),
        }
    }
}

/// What a failure says about the database itself; nothing where it says nothing.
fn cause(error: &Error) -> Option<String> {
    match error {
        Error::Connect(text) => Some(text.clone()),
        Error::Unavailable(source) => Some(source.to_string()),
        Error::Unknown => Some("its last commit was not answered".to_owned()),
        Error::Busy
        | Error::Query(_)
        | Error::Panicked(_)
        | Error::Corrupt { .. }
        | Error::Migration { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Condition, Failing, Standing, Way};
    use crate::ops::{Health, State};
    use crate::store::Error;
    use std::time::{Duration, Instant};

    fn failing(condition: &Condition, way: Way) {
        condition.tried::<()>(way, &Err(Error::Connect("refused".to_owned())));
    }

    /// As if the failures had begun two seconds ago.
    fn aged(condition: &Condition) {
        let mut tries = condition.lock();
        let before = Instant::now().checked_sub(Duration::from_secs(2)).expect("a machine that runs");
        let age = |slot: &mut Option<Failing>| {
            if let Some(failing) = slot {
                failing.since = before;
            }
        };
        let tries = &mut *tries;
        age(&mut tries.write);
        age(&mut tries.read);
    }

    #[test]
    fn one_failure_is_no_outage_and_failures_for_long_are() {
        let condition = Condition::default();
        let health = Health::new();
        condition.tell(&health, ["provisioning", "provisioning writes"], State::Red);
        failing(&condition, Way::Write);
        assert_eq!(condition.standing(), Standing::Up);
        aged(&condition);
        failing(&condition, Way::Write);
        assert_eq!(condition.standing(), Standing::NoWrites("refused".to_owned()));
        failing(&condition, Way::Read);
        aged(&condition);
        failing(&condition, Way::Read);
        assert_eq!(condition.standing(), Standing::Away("refused".to_owned()));
        let shown = health.ready().1;
        assert_eq!((shown[0].state, shown[0].reason.as_str()), (State::Red, "it is away: refused"));
        condition.tried(Way::Write, &Ok(()));
        assert_eq!(condition.standing(), Standing::NoReads("refused".to_owned()));
        condition.tried(Way::Read, &Ok(()));
        assert_eq!((condition.standing(), health.ready().0), (Standing::Up, true));
    }

    #[test]
    fn what_says_nothing_about_the_database_changes_nothing() {
        let condition = Condition::default();
        failing(&condition, Way::Read);
        aged(&condition);
        condition.tried::<()>(Way::Read, &Err(Error::Busy));
        condition.tried::<()>(Way::Read, &Err(Error::Panicked("x".to_owned())));
        assert_eq!(condition.standing(), Standing::NoReads("refused".to_owned()));
        let well = Condition::default();
        well.tried::<()>(Way::Write, &Err(Error::Busy));
        aged(&well);
        assert_eq!(well.standing(), Standing::Up);
    }
}

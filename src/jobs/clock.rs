//! The clock rows are written in, as the planner sees it: the database's, carried on by this machine's boot-time
//! clock between two looks, so that a step of the local wall clock moves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;

use super::ports::Clock;
use crate::model::{Micros, boot_time_micros};
use crate::ops::{Health, State};
use crate::store::{self, Store};
use crate::supervision::{Life, Supervised};

/// More than this between two looks is no drift any more: somebody set a clock.
const JUMP: i64 = 60_000_000;
/// A look that took longer says too little.
const SLOW: i64 = 1_000_000;
/// Looks of one measurement; the quickest counts.
const LOOKS: usize = 3;
/// Name of the part in health.
const PART: &str = "clock";

/// One look at the database's clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// Boot time before it was asked.
    before: i64,
    /// What it said.
    at: i64,
    /// Boot time after the answer.
    after: i64,
}

/// What a look means for the distance between the database's clock and boot time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The distance from now on.
    Is(i64),
    /// It moved by so much, too far to be believed without a person.
    Jumped(i64),
    /// The look took too long.
    Slow,
}

/// The largest distance that the look allows: the planner may then be ahead by the time of a look, and never finds a
/// row not yet due that the database calls due.
fn judge(known: Option<i64>, look: Look) -> Judged {
    let distance = look.at.saturating_sub(look.before);
    let moved = known.map_or(0, |known| distance.saturating_sub(known));
    if look.after.saturating_sub(look.before) > SLOW {
        Judged::Slow
    } else if moved.abs() > JUMP {
        Judged::Jumped(moved)
    } else {
        Judged::Is(distance)
    }
}

/// The database's clock. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct DatabaseClock {
    distance: Arc<AtomicI64>,
    /// Rows of an embedded database take this machine's wall clock, which needs no look.
    local: bool,
}

impl DatabaseClock {
    /// Looks for the first time. What it finds is believed: a start is a person's word for the clock.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn start(store: &Store) -> Result<Self, store::Error> {
        let look = quickest(store).await?;
        let distance = Arc::new(AtomicI64::new(look.at.saturating_sub(look.before)));
        Ok(Self { distance, local: !store.is_server() })
    }

    async fn measure(&self, store: &Store) -> Result<Judged, store::Error> {
        let look = quickest(store).await?;
        let judged = judge(Some(self.distance.load(Ordering::Acquire)), look);
        if let Judged::Is(distance) = judged {
            self.distance.store(distance, Ordering::Release);
        }
        Ok(judged)
    }

    fn steady(&self) -> i64 {
        boot_time_micros().saturating_add(self.distance.load(Ordering::Acquire))
    }
}

/// The wall clock, unless it jumped: then what the last look at it says, carried on.
const fn held(wall: i64, steady: i64) -> i64 {
    if wall.saturating_sub(steady).abs() > JUMP { steady } else { wall }
}

#[async_trait(?Send)]
impl Clock for DatabaseClock {
    fn now(&self) -> Micros {
        let steady = self.steady();
        Micros(if self.local { held(Micros::wall().0, steady) } else { steady })
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

async fn quickest(store: &Store) -> Result<Look, store::Error> {
    let looks = |c: &mut store::AnyConnection| {
        let mut best: Option<Look> = None;
        for _ in 0..LOOKS {
            let before = boot_time_micros();
            let at = c.now()?.0;
            let look = Look { before, at, after: boot_time_micros() };
            if best.is_none_or(|best| look.after - look.before < best.after - best.before) {
                best = Some(look);
            }
        }
        best.ok_or(diesel::result::Error::NotFound)
    };
    store.read(looks).await
}

/// Links of the actor that keeps the clock.
#[derive(Clone)]
pub struct ClockSpec {
    /// The clock.
    pub clock: DatabaseClock,
    /// Whose clock it is.
    pub store: Store,
    /// Where a jump is said.
    pub health: Health,
    /// Time between looks.
    pub every: Duration,
}

/// Looks at the database's clock again and again.
///
/// After a jump health is red and the planner keeps the time it had,
/// so that no deadline passes by it; when the clock comes back all is well, and a restart confirms the new time.
pub struct ClockKeeper {
    spec: ClockSpec,
}

impl Supervised for ClockKeeper {
    type Spec = ClockSpec;
    const KIND: &'static str = "clock";

    fn key(_: &ClockSpec) -> String {
        "database".to_owned()
    }

    fn fresh(spec: ClockSpec, _: Life) -> Self {
        Self { spec }
    }
}

impl Actor for ClockKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let spec = self.spec.clone();
        let looking = async move {
            loop {
                tokio::time::sleep(spec.every).await;
                let judged = spec.clock.measure(&spec.store).await;
                tell(&spec.health, judged);
            }
        };
        ctx.spawn(looking.into_actor(self));
    }
}

fn tell(health: &Health, judged: Result<Judged, store::Error>) {
    match judged {
        Ok(Judged::Is(_)) => health.set(PART, State::Ok, ""),
        Ok(Judged::Jumped(by)) => {
            let text = format!(
                "the database's clock moved by {} s against this machine's boot time; deadlines are not judged by it. \
                 Set the clock back, or restart to confirm it",
                by / 1_000_000
            );
            health.set(PART, State::Red, text);
        }
        Ok(Judged::Slow) => log::debug!("the database's clock answers too slowly to be read"),
        Err(error) => log::debug!("the database's clock cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Bed, on_both};
    use crate::store::{PROVISIONING, Settings};

    const fn look(before: i64, at: i64, after: i64) -> Look {
        Look { before, at, after }
    }

    #[test]
    fn drift_is_followed_a_jump_is_not_and_a_slow_look_says_nothing() {
        assert_eq!(judge(None, look(1_000, 500_000_000_000, 2_000)), Judged::Is(499_999_999_000));
        assert_eq!(judge(Some(10), look(0, 60_000_010, 5)), Judged::Is(60_000_010));
        assert_eq!(judge(Some(10), look(0, 60_000_011, 5)), Judged::Jumped(60_000_001));
        assert_eq!(judge(Some(10), look(0, -60_000_000, 5)), Judged::Jumped(-60_000_010));
        assert_eq!(judge(Some(10), look(0, 90_000_000, 1_000_001)), Judged::Slow);
    }

    #[test]
    fn an_embedded_clock_that_jumps_is_held() {
        assert_eq!(held(1_000, 5), 1_000);
        assert_eq!(held(60_000_006, 5), 5);
        assert_eq!(held(-60_000_000, 5), 5);
    }

    #[test]
    fn health_is_red_while_the_clock_is_away_and_well_when_it_is_back() {
        let health = Health::new();
        tell(&health, Ok(Judged::Is(1)));
        assert!(health.ready().0);
        tell(&health, Ok(Judged::Jumped(3_600_000_000)));
        let (ready, parts) = health.ready();
        assert!(!ready && parts[0].reason.contains("3600 s"), "{parts:?}");
        tell(&health, Ok(Judged::Slow));
        assert!(!health.ready().0, "no news is not good news");
        tell(&health, Ok(Judged::Is(2)));
        assert!(health.ready().0);
    }

    on_both!(the_planner_is_never_behind_the_rows_and_keeps_its_time_through_a_jump);

    async fn the_planner_is_never_behind_the_rows_and_keeps_its_time_through_a_jump(bed: Bed) {
        let store = Store::open(PROVISIONING, &Settings::new(bed.manager()), Arc::new(|_, _| {}));
        let store = store.expect("a database");
        let clock = DatabaseClock::start(&store).await.expect("asked");
        for _ in 0..20 {
            let rows = store.read(store::AnyConnection::now).await.expect("asked");
            assert!(clock.now() >= rows, "{:?} {rows:?}", clock.now());
        }
        let judged = clock.measure(&store).await.expect("asked");
        assert!(matches!(judged, Judged::Is(_) | Judged::Slow), "{judged:?}");
        // As if the database's clock had been an hour behind until now.
        let away = clock.distance.load(Ordering::Acquire) - 3_600_000_000;
        clock.distance.store(away, Ordering::Release);
        let judged = clock.measure(&store).await.expect("asked");
        assert!(matches!(judged, Judged::Jumped(_) | Judged::Slow), "{judged:?}");
        let rows = store.read(store::AnyConnection::now).await.expect("asked");
        assert!(rows.since(clock.now()) > Duration::from_secs(3000), "the planner keeps its time");
    }
}

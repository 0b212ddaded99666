//! The process dies again and again under clients that never pause; nothing is lost, nothing happens twice.
//!
//! Each round starts the real process and ends it as a power cut would: half of the rounds at a named place of the
//! work, the others at a random moment. Clients keep a log of their own, made durable before and after each request.
//! When it is over, that log, the dispatcher's rows and the ledgers of cloud and guests are compared.
//!
//! Longer runs and deliberate faults are chosen by the environment: `tests/README.md`.

mod clients;
mod rng;
mod verdict;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::client::noop;
use crate::harness::{Order, Site};
use clients::Clients;
use rng::Rng;

/// Places that the work of these clients passes every few moments; the others need a broker, cancels or late landings.
const PLACES: &[&str] = &[
    "accept.before",
    "accept.after",
    "claim.before",
    "claim.after",
    "intent.before",
    "intent.after",
    "call.before",
    "call.after",
    "record.before",
    "record.after",
    "watch.before",
    "watch.after",
    "verdict.before",
    "verdict.after",
    "end.before",
    "end.after",
];

/// How long a place may take to be reached before the round counts as a random one.
const REACH: Duration = Duration::from_secs(10);
/// How long open jobs may take to end after the last start. A job whose process died five times in a row is set aside
/// for a minute.
const QUIET: Duration = Duration::from_secs(180);
/// Rounds that may miss their place before the killing stops: the work has come to a standstill then, and the
/// comparison says why.
const MISSES: usize = 5;

/// How much is done; the environment chooses more.
struct Plan {
    seed: u64,
    rounds: usize,
    clients: usize,
    each_place: usize,
    sabotage: Vec<String>,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str, usual: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
            Err(_) => usual,
        };
        let count = |name: &str, usual| usize::try_from(number(name, usual)).expect("a small number");
        let seed = u64::from_le_bytes(dispatcher::crypto::random_bytes::<8>());
        let sabotage = std::env::var("DISPATCHER_TEST_SABOTAGE").unwrap_or_default();
        Self {
            seed: number("DISPATCHER_TEST_SEED", seed),
            rounds: count("DISPATCHER_TEST_CRASH_ROUNDS", 60),
            clients: count("DISPATCHER_TEST_CRASH_CLIENTS", 4),
            each_place: count("DISPATCHER_TEST_CRASH_EACH_PLACE", 3),
            sabotage: sabotage.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        }
    }
}

/// What the nemesis did.
#[derive(Default)]
struct Nemesis {
    /// Deaths at named places, as the dying process wrote them down.
    log: PathBuf,
    random: usize,
    missed: Vec<String>,
    slowest: Duration,
}

impl Nemesis {
    /// How often each place was the place of death.
    fn histogram(&self) -> BTreeMap<&'static str, usize> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        PLACES.iter().map(|place| (*place, text.lines().filter(|line| line == place).count())).collect()
    }

    fn deaths(&self) -> usize {
        self.random + self.histogram().values().sum::<usize>()
    }

    /// The place still missing most, or none when each had its share.
    fn next_place(&self, each: usize) -> Option<&'static str> {
        let histogram = self.histogram();
        let (place, deaths) = histogram.iter().min_by_key(|(_, deaths)| **deaths)?;
        (*deaths < each).then_some(*place)
    }

    fn round(
        &mut self,
        site: &mut Site,
        clients: &Clients,
        plan: &Plan,
        (rng, place): (&mut Rng, Option<&str>),
    ) {
        let order = Order {
            place: place.unwrap_or_default().to_owned(),
            hits: place.map_or(0, |place| hits(place, rng)),
            block_ms: None,
            log: Some(self.log.clone()),
            sabotage: plan.sabotage.clone(),
        };
        let began = Instant::now();
        site.spawn(&order);
        match site.await_ready() {
            Ok(()) => {
                self.slowest = self.slowest.max(began.elapsed());
                clients.connect(site.ready());
            }
            // Recovery itself passed the place before anybody was let in.
            Err(_) if place.is_some() => return,
            Err(error) => panic!("{error}\n{}", site.log()),
        }
        let Some(place) = place else {
            // The moment of death is the random input of the round; nothing waits for it.
            std::thread::sleep(Duration::from_millis(100 + rng.below(1400)));
            site.kill();
            self.random += 1;
            return;
        };
        let deadline = Instant::now() + REACH;
        loop {
            if let Some(status) = site.exited() {
                assert_eq!(
                    status.signal(),
                    Some(Signal::SIGKILL as i32),
                    "it ended by itself\n{}",
                    site.log()
                );
                return;
            }
            if Instant::now() > deadline {
                self.missed.push(place.to_owned());
                site.kill();
                self.random += 1;
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// At which passage to die: places that every job passes are passed often.
fn hits(place: &str, rng: &mut Rng) -> u32 {
    let most = if place.starts_with("call") || place.starts_with("intent") { 3 } else { 30 };
    1 + u32::try_from(rng.below(most)).expect("small")
}

#[test]
fn killed_again_and_again_nothing_is_lost_and_nothing_happens_twice() {
    let plan = Plan::from_environment();
    println!(
        "seed {} (DISPATCHER_TEST_SEED), {} rounds, {} clients, faults {:?}",
        plan.seed, plan.rounds, plan.clients, plan.sabotage
    );
    let began = Instant::now();
    let mut rng = Rng::new(plan.seed);
    let mut site = Site::new();
    // The first start makes keys and tables; its death is no round.
    let settings = site.settings("[jobs]\ncommand_wait_ms = 120000\n");
    site.start(&["--guest-processes", "12", "--without", "pinger", "--config", &settings]);
    let first = site.client().submit(&noop("before the first round"), None);
    site.client().completed(first);
    let clients = Clients::start(&site, plan.clients, &mut rng);
    let mut nemesis = Nemesis { log: site.beside("crashes.log"), ..Nemesis::default() };
    site.kill();
    let most = plan.rounds * 3;
    for round in 0..most {
        let wanted = nemesis.next_place(plan.each_place);
        let done = nemesis.deaths() >= plan.rounds && wanted.is_none();
        if done || nemesis.missed.len() >= MISSES {
            break;
        }
        assert!(round + 1 < most, "after {most} rounds places are missing: {:?}", nemesis.histogram());
        let at_place = wanted.filter(|_| round % 2 == 0 || nemesis.random * 2 >= plan.rounds);
        nemesis.round(&mut site, &clients, &plan, (&mut rng, at_place));
    }
    let logs = clients.stop();
    let killing = began.elapsed();
    site.restart(&Order { sabotage: plan.sabotage.clone(), ..Order::default() });
    let healed = Instant::now();
    let asked_again = clients::ask_again(&mut site.client(), &logs);
    let mut client = site.client();
    // What is still open then is lost, as the comparison says.
    while !client.jobs("&state=open").is_empty() && healed.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(100));
    }
    let quiet = healed.elapsed();
    site.stop();

    println!("places of death: {:?}, random moments: {}", nemesis.histogram(), nemesis.random);
    println!(
        "not reached in time: {:?}; slowest start {:?}; {} starts; killing took {killing:?}, quiet after {quiet:?}",
        nemesis.missed,
        nemesis.slowest,
        site.starts()
    );
    let found = verdict::compare(&site.data(), &logs, &asked_again);
    println!("{found}");
    found.check();
    assert!(nemesis.deaths() >= plan.rounds, "{} deaths", nemesis.deaths());
    assert!(
        nemesis.histogram().values().all(|deaths| *deaths >= plan.each_place),
        "{:?}",
        nemesis.histogram()
    );
}

//! The whole house under panics, errors and stops of each of its actors: real wiring, real limits, no guests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Dev;
use super::cloud::Cloud;
use super::demo;
use super::dev::House;
use crate::cloud::simulated::{Fault, Operation, Simulated};
use crate::config::Config;
use crate::model::{AttemptOutcome, Boot, JobId, JobParams, JobState, JobUid, NoopParams, Uid};
use crate::ops::failpoint::{PLACES, poison};
use crate::store::analytics::{self, GuestPoint};
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::job::{self, History};
use crate::store::provisioning::node;
use crate::store::provisioning::seed;
use crate::store::provisioning::sequence::Sequence;
use crate::supervision::TRIPS;

/// Longest wait for anything; far more than it takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Every kind of actor that runs as long as the process. A new kind must be entered here, and in the table of
/// `docs/ARCHITECTURE.md`.
const PERMANENT: [&str; 10] =
    ["agents", "clock", "database", "janitor", "km", "monitor", "node", "pinger", "registry", "worker"];

struct Site {
    house: House,
    _folder: tempfile::TempDir,
}

async fn site(change: impl FnOnce(&mut Config)) -> Site {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::default();
    config.jobs.sweep_ms = 200;
    config.jobs.retry_first_ms = 50;
    change(&mut config);
    let options = Dev {
        listen: ([127, 0, 0, 1], 0).into(),
        data: folder.path().join("data"),
        ready_file: None,
        without: BTreeSet::new(),
        guest_processes: 0,
        config,
        demo: false,
    };
    let site = Site { house: House::build(options).await.expect("a house"), _folder: folder };
    let deadline = Instant::now() + SOON;
    while site.house.base.ops.supervisor.snapshots().iter().any(|s| s.state == "starting") {
        assert!(Instant::now() < deadline, "not all actors run: {:?}", site.actors());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    site
}

impl House {
    /// The cloud of a test is in its own process.
    fn cloud(&self) -> &Simulated {
        match &self.cloud {
            Cloud::Here(cloud) => cloud,
            Cloud::Elsewhere(_) => panic!("a cloud elsewhere"),
        }
    }
}

impl Site {
    async fn submit(&self, params: JobParams) -> JobUid {
        self.submit_as(JobUid::random(), params).await
    }

    async fn submit_as(&self, uid: JobUid, params: JobParams) -> JobUid {
        let id = self.house.base.sequencer.next(Sequence::Job).await.expect("a number");
        let submit = Submit {
            entry: Entry {
                customer: seed::CUSTOMER,
                access_key: "AK".to_owned(),
                request: Uid::random(),
                replay: None,
                idem: None,
                repeat_by_key: false,
            },
            uid,
            id: JobId(id),
            account: seed::ACCOUNT,
            person: seed::ADMIN,
            server: params.server(),
            params,
            description: "survival".to_owned(),
            priority: 0,
            delay: Duration::ZERO,
            limit: Duration::from_secs(600),
        };
        self.house.registry.submit(submit).await.expect("accepted");
        uid
    }

    async fn noop(&self) -> JobUid {
        self.submit(JobParams::Noop(NoopParams::default())).await
    }

    async fn launch(&self) -> JobUid {
        self.submit(demo::launch(&self.house).await.expect("a catalogue")).await
    }

    async fn history(&self, uid: JobUid) -> History {
        self.house.base.store.read(move |c| job::history(c, uid)).await.expect("a read").expect("the job")
    }

    /// Waits until the job is as wanted.
    async fn until(&self, uid: JobUid, what: &str, holds: impl Fn(&History) -> bool) -> History {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.history(uid).await;
            if holds(&now) {
                return now;
            }
            assert!(Instant::now() < deadline, "not within {SOON:?}: {what}: {now:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn completes(&self, uid: JobUid) -> History {
        let ended = self.until(uid, "it ends", |history| history.job.ended_at.is_some()).await;
        assert_eq!(ended.job.state, JobState::Complete, "{ended:#?}");
        ended
    }

    fn launched(&self, uid: JobUid) -> usize {
        let tag = crate::jobs::launch_tag(uid);
        self.house.cloud().look(|world| {
            world.instances().filter(|instance| instance.launched.tag.as_deref() == Some(&*tag)).count()
        })
    }

    /// Work for every actor: the registry takes jobs, the monitor and the worker decide them, the key manager lends a
    /// credential, the databases store, the node beats.
    async fn all_work(&self, mark: i64) {
        let (noop, launch) = (self.noop().await, self.launch().await);
        self.completes(noop).await;
        self.completes(launch).await;
        let point = GuestPoint {
            server: mark,
            at: 1,
            customer: 1,
            round_trip_micros: 1,
            cpu_load: 0.0,
            ram_used_mb: 1,
            ram_total_mb: 1,
            processes: 1,
        };
        let stored =
            self.house.analytics.write(move |c| analytics::insert(c, std::slice::from_ref(&point))).await;
        assert!(matches!(stored, Ok(1)), "{stored:?}");
        let began = Instant::now();
        let beats = async || self.house.base.store.read(node_beat).await.expect("a read");
        let before = beats().await;
        while beats().await == before {
            assert!(began.elapsed() < SOON, "the node beats no more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn actors(&self) -> Vec<(&'static str, String, u64)> {
        let all =
            self.house.base.ops.supervisor.snapshots().into_iter().filter(|s| PERMANENT.contains(&s.kind));
        all.map(|s| (s.kind, s.key, s.incarnation)).collect()
    }
}

fn node_beat(c: &mut crate::store::AnyConnection) -> diesel::QueryResult<Option<i64>> {
    use crate::store::provisioning::schema::node as nodes;
    use diesel::prelude::*;
    nodes::table.select(diesel::dsl::max(nodes::beat)).first(c)
}

#[actix_rt::test]
async fn panic_error_and_stop_of_every_permanent_actor_are_survived_and_all_work_again() {
    let site = site(|_| {}).await;
    let kinds: BTreeSet<&str> = site.house.base.ops.supervisor.snapshots().iter().map(|s| s.kind).collect();
    assert_eq!(
        kinds,
        BTreeSet::from(PERMANENT),
        "an actor of another kind is started: show that it survives"
    );
    for (mark, how) in (1..).zip(TRIPS) {
        // All at once: worse than one by one, and each has its own budget.
        join_all(PERMANENT.map(|kind| site.house.base.ops.supervisor.survives(kind, how))).await;
        site.all_work(mark).await;
    }
    assert!(site.house.base.ops.supervisor.snapshots().iter().all(|s| s.kind == "job" || s.restarts == 3));
}

/// Ruins one actor of a house of its own.
async fn ruined(kind: &'static str, key_starts: &str) {
    let site = site(|_| {}).await;
    let mut actors = site.actors();
    let at = actors.iter().position(|(k, key, _)| *k == kind && key.starts_with(key_starts));
    let (_, key, _) = actors.remove(at.unwrap_or_else(|| panic!("there is no {kind} {key_starts}")));
    site.house.base.ops.supervisor.ruin(kind, &key).await;
    let reason = site.house.base.ops.supervisor.fatal().await;
    assert_eq!(reason, format!("{kind} {key} panicked: tripped and its restarts are used up"));
    let mut others = site.actors();
    others.retain(|(k, found, _)| (*k, found) != (kind, &key));
    assert_eq!(others, actors, "no other actor was touched");
    if !matches!(kind, "registry" | "worker") {
        // Whatever the process makes of it, those that live do their work.
        let noop = site.noop().await;
        site.completes(noop).await;
    }
}

#[actix_rt::test]
async fn each_permanent_actor_that_is_given_up_ends_the_process_and_touches_no_neighbour() {
    let databases = [("database", "provisioning"), ("database", "credentials")];
    let others = PERMANENT.into_iter().filter(|kind| *kind != "database").map(|kind| (kind, ""));
    let all: Vec<_> = databases.into_iter().chain(others).collect();
    join_all(all.into_iter().map(|(kind, key)| ruined(kind, key))).await;
}

#[actix_rt::test]
async fn the_analytics_databases_actor_that_is_given_up_ends_nothing() {
    let site = site(|_| {}).await;
    site.house.base.ops.supervisor.ruin("database", "analytics").await;
    let shown = site.house.base.ops.supervisor.snapshots();
    assert!(shown.iter().any(|s| s.key == "analytics" && s.state == "given-up"), "{shown:#?}");
    // Its thread lives on, or another is started by who needs it: everything works.
    site.all_work(1).await;
    let (ready, parts) = site.house.base.ops.health.ready();
    assert!(ready, "{parts:#?}");
    let fatal = tokio::time::timeout(Duration::from_millis(100), site.house.base.ops.supervisor.fatal());
    assert!(fatal.await.is_err(), "the process goes on");
}

#[actix_rt::test]
async fn a_life_that_was_declared_dead_is_given_up_at_once() {
    let site = site(|config| config.node.beat_ms = 20).await;
    let stranger = Boot::random();
    site.house.base.store.write(move |c| node::only_i_live(c, stranger)).await.expect("declared dead");
    let reason =
        tokio::time::timeout(SOON, site.house.base.ops.supervisor.fatal()).await.expect("it is noticed");
    assert!(reason.starts_with("node ") && reason.ends_with("and no restart cures that"), "{reason}");
    let shown = site.house.base.ops.supervisor.snapshots();
    let node = shown.iter().find(|s| s.kind == "node").expect("it is shown");
    assert_eq!((node.state, node.restarts), ("given-up", 0));
}

#[actix_rt::test]
async fn panic_error_and_stop_of_a_job_in_the_middle_of_a_call_are_survived_and_nothing_happens_twice() {
    let site = site(|_| {}).await;
    for how in TRIPS {
        site.house.cloud().faults().next(Operation::Launch, 1, Fault::Stall(Duration::from_secs(3600)));
        let uid = site.launch().await;
        let open = |history: &History| history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
        site.until(uid, "its call is under way", open).await;
        site.until_taken().await;
        site.house.base.ops.supervisor.survives("job", how).await;
        let ended = site.completes(uid).await;
        assert_eq!(ended.attempts.len(), 1, "{how:?}: the open attempt was resolved: {:#?}", ended.attempts);
        assert_eq!(site.launched(uid), 1, "{how:?}");
    }
}

impl Site {
    /// Waits until the cloud has taken the call that stalls.
    async fn until_taken(&self) {
        let deadline = Instant::now() + SOON;
        while self.house.cloud().faults().remaining(Operation::Launch) > 0 {
            assert!(Instant::now() < deadline, "the cloud is never called");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[actix_rt::test]
async fn calls_and_looks_that_stall_past_their_limit_leave_the_outcome_unknown_until_it_is_seen() {
    let site = site(|config| config.jobs.call_ms = 300).await;
    let hour = Duration::from_secs(3600);
    for operation in [Operation::Launch, Operation::FindByTag, Operation::Machine] {
        site.house.cloud().faults().next(operation, 1, Fault::Stall(hour));
    }
    let uid = site.launch().await;
    let unknown = site.until(uid, "it does not know", |history| history.job.why_code == "unknown").await;
    assert_eq!(unknown.job.state, JobState::Running);
    assert_eq!(unknown.attempts.len(), 1);
    assert_eq!(unknown.attempts[0].outcome, AttemptOutcome::Open, "unknown is not failed");
    let ended = site.completes(uid).await;
    assert_eq!(ended.attempts.len(), 1, "{:#?}", ended.attempts);
    assert_eq!(site.launched(uid), 1);
    let left = site.house.cloud().faults();
    assert_eq!((left.remaining(Operation::FindByTag), left.remaining(Operation::Machine)), (0, 0));
}

#[actix_rt::test]
async fn what_the_cloud_does_not_show_yet_is_taken_back_once_it_does() {
    let site = site(|_| {}).await;
    site.house.cloud().faults().next(Operation::Launch, 1, Fault::Hide(Duration::from_secs(2)));
    let uid = site.launch().await;
    let made = |history: &History| history.job.resource.is_some();
    let made = site.until(uid, "its server is made", made).await;
    site.house.registry.cancel(seed::CUSTOMER, made.job.id, "a test".to_owned()).await.expect("asked");
    let ended = site.until(uid, "it has ended", |history| history.job.ended_at.is_some()).await;
    assert_eq!(ended.job.state, JobState::Cancelled, "{:#?}", ended.job);
    let lives = site.house.cloud().look(|world| world.instances().filter(|i| !i.is_gone()).count());
    assert_eq!(lives, 0, "no server is left behind");
}

#[actix_rt::test]
async fn poison_jobs_at_every_place_of_a_step_block_none_of_two_hundred_good_ones() {
    let site = site(|_| {}).await;
    let mut poisoned = Vec::new();
    // The places of verdicts are passed by the monitor and the worker.
    for place in PLACES.iter().filter(|place| !place.starts_with("verdict")) {
        let uid = JobUid::random();
        poison::give(place, format!("job {uid}"));
        let launch = demo::launch(&site.house).await.expect("a catalogue");
        poisoned.push((*place, site.submit_as(uid, launch).await));
    }
    let mut good = Vec::new();
    for n in 0..200 {
        good.push(if n % 20 == 0 { site.launch().await } else { site.noop().await });
    }
    for uid in good {
        site.completes(uid).await;
    }
    let mut set_aside = 0;
    for (place, uid) in poisoned {
        let settled =
            |history: &History| history.job.ended_at.is_some() || history.job.state == JobState::Quarantined;
        let now = site.until(uid, "it is settled", settled).await;
        match now.job.state {
            // The place was behind it when it came back.
            JobState::Complete => {}
            JobState::Quarantined => {
                set_aside += 1;
                assert!(now.job.why.contains(&format!("poison at {place}")), "{place}: {}", now.job.why);
                assert_eq!(now.job.owner, None, "{place}");
            }
            state => panic!("{place}: {state}: {now:#?}"),
        }
        assert!(site.launched(uid) <= 1, "{place}");
    }
    assert!(set_aside >= 2, "{set_aside} were set aside: those that panic whenever they come back");
    let permanent = site.house.base.ops.supervisor.snapshots();
    let restarts: u64 = permanent.iter().filter(|s| s.kind != "job").map(|s| s.restarts).sum();
    assert_eq!(restarts, 0, "no other actor was touched");
    assert_eq!(site.house.agents.connected().len(), 0);
}

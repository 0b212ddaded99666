//! The registry under panics, errors and stops of itself and of its jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::actor::{RegistryActor, Running, Spec};
use super::{Beat, NodeActor, NodeSpec, Pause, Registry, Resume};
use crate::cloud::Clouds;
use crate::crypto::{Key, KeyRing};
use crate::jobs::machine::Limits;
use crate::jobs::ports::{Applied, Ask, Change, JobStore, Keys, Leased, Liveness, NoLease, Place, Ports};
use crate::jobs::{Changes, SqlStore, SystemClock};
use crate::model::{
    AccountId, Boot, CustomerId, Epoch, Generation, JobId, JobParams, JobState, JobUid, NoopParams, RegionId,
    ServerId, Uid, UserId,
};
use crate::mq::{Embedded, Nudge, Queue, Topic};
use crate::ops::{Health, Metrics};
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::job::{self, History, JobRow};
use crate::store::provisioning::node;
use crate::store::provisioning::pause::PauseRow;
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::transition::{self, Claim, Fence};
use crate::store::testing::{Bed, on_both};
use crate::store::{self, PROVISIONING, Settings, Store};
use crate::supervision::{self, Mailbox, Options, Supervisor};

/// Rows that panic over a job with the number 13, and once over one with the number 7.
struct Rows {
    inner: SqlStore,
    sevens: AtomicUsize,
}

#[async_trait(?Send)]
impl JobStore for Rows {
    async fn history(&self, uid: JobUid) -> Result<Option<History>, store::Error> {
        let found = self.inner.history(uid).await?;
        match found.as_ref().map(|h| h.job.id.0) {
            Some(13) => panic!("a poison job"),
            Some(7) if self.sevens.fetch_add(1, Ordering::SeqCst) == 0 => panic!("once"),
            Some(8) if self.sevens.fetch_add(1, Ordering::SeqCst) == 0 => {
                Err(store::Error::Panicked("an error of its own".into()))
            }
            _ => Ok(found),
        }
    }

    async fn apply(&self, change: Change) -> Result<Applied, store::Error> {
        self.inner.apply(change).await
    }

    async fn place(&self, id: AccountId, within: Option<RegionId>) -> Result<Option<Place>, store::Error> {
        self.inner.place(id, within).await
    }

    async fn server(&self, customer: CustomerId, id: ServerId) -> Result<Option<ServerRow>, store::Error> {
        self.inner.server(customer, id).await
    }

    async fn new_number(&self) -> Result<i64, store::Error> {
        self.inner.new_number().await
    }
}

struct Nothing;

#[async_trait(?Send)]
impl Keys for Nothing {
    async fn lease(&self, _: Ask) -> Result<Leased, NoLease> {
        Err(NoLease::Later("none".into()))
    }
}

impl Liveness for Nothing {
    fn may_start(&self) -> bool {
        true
    }
}

/// A queue that loses every nudge but gives the registry its inbox.
struct Deaf(Embedded);

impl Queue for Deaf {
    fn publish(&self, _: Nudge) {}

    fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge> {
        self.0.subscribe(topic)
    }
}

#[derive(Message)]
#[rtype(result = "()")]
enum Break {
    Panic,
    Fail,
    Stop,
}

impl Handler<Break> for RegistryActor {
    type Result = ();

    fn handle(&mut self, how: Break, ctx: &mut Context<Self>) {
        match how {
            Break::Panic => panic!("on demand"),
            Break::Fail => self.fail_for_test("on demand"),
            Break::Stop => ctx.stop(),
        }
    }
}

pub(super) struct House {
    pub(super) store: Store,
    pub(super) registry: Registry,
    mailbox: Mailbox<RegistryActor>,
    supervisor: Supervisor,
    _bed: Option<Bed>,
}

pub(super) async fn house(bed: Bed, deaf: bool) -> House {
    house_that_sweeps(bed, deaf, Duration::from_millis(50)).await
}

/// Has a life beat and watch its peers; told of each that is declared dead.
fn beating(store: &Store, boot: Boot, supervisor: &Supervisor) -> Arc<tokio::sync::Notify> {
    let died = Arc::new(tokio::sync::Notify::new());
    let node = NodeSpec {
        store: store.clone(),
        boot,
        beat: Beat::new(Duration::from_secs(3)),
        every: Duration::from_millis(100),
        look: Duration::from_millis(100),
        still: Duration::from_secs(1),
        died: Arc::clone(&died),
        health: Health::new(),
    };
    let _node = supervisor.spawn::<NodeActor>(&supervisor.here(), node, Options::permanent());
    died
}

async fn house_that_sweeps(bed: Bed, deaf: bool, sweep: Duration) -> House {
    let settings = Settings::new(bed.manager());
    let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database");
    House { _bed: Some(bed), ..node_on(store, deaf, sweep).await }
}

/// Another node on the same database.
pub(super) async fn house_beside(house: &House) -> House {
    node_on(house.store.clone(), false, Duration::from_millis(50)).await
}

async fn node_on(store: Store, deaf: bool, sweep: Duration) -> House {
    let boot = Boot::random();
    store.write(move |c| node::register(c, boot, "test")).await.expect("alive");
    let (changes, metrics, supervisor) = (Changes::new(), Metrics::new(), Supervisor::new(Health::new()));
    let queue: Arc<dyn Queue> =
        if deaf { Arc::new(Deaf(Embedded::new())) } else { Arc::new(Embedded::new()) };
    let inner =
        SqlStore::new(store.clone(), Sequencer::new(store.clone()), boot, changes.clone(), queue.announce())
            .nudging(Arc::clone(&queue));
    let ports = Ports {
        metrics: metrics.clone(),
        clock: Arc::new(SystemClock),
        store: Arc::new(Rows { inner, sevens: AtomicUsize::new(0) }),
        queue: Arc::clone(&queue),
        keys: Arc::new(Nothing),
        clouds: Clouds::new(),
        liveness: Arc::new(Nothing),
        boot,
        generation: Generation(0),
        install: Arc::new(Key::random()),
        ring: Arc::new(KeyRing::new(Key::random())),
        limits: Limits { grace: Duration::ZERO, ..Limits::default() },
        call_limit: Duration::from_secs(1),
        command_wait: Duration::from_secs(1),
        enrolment: None,
    };
    let died = beating(&store, boot, &supervisor);
    let spec = Spec {
        store: store.clone(),
        queue,
        changes: changes.clone(),
        metrics,
        supervisor: supervisor.clone(),
        jobs: supervisor.here(),
        ports,
        sweep,
        died,
        running: Running::new(100),
        set_aside: Duration::from_millis(50),
        keep_keys: Duration::from_secs(3600),
        keep_replays: Duration::from_secs(3600),
    };
    let limits =
        supervision::Limits { backoff_first: Duration::from_millis(1), ..supervision::Limits::default() };
    let options = Options { limits, ..Options::permanent() };
    let mailbox = supervisor.spawn::<RegistryActor>(&supervisor.here(), spec, options);
    let registry = Registry::new(mailbox.clone(), changes, Duration::from_secs(10));
    House { store, registry, mailbox, supervisor, _bed: None }
}

impl House {
    async fn submit(&self, id: i64, limit: Duration) -> JobUid {
        self.put_off(id, limit, Duration::ZERO).await
    }

    async fn put_off(&self, id: i64, limit: Duration, delay: Duration) -> JobUid {
        let uid = JobUid::random();
        let submit = Submit {
            entry: Entry {
                customer: CustomerId(1),
                access_key: "AK".into(),
                request: Uid::random(),
                replay: None,
                idem: None,
                repeat_by_key: false,
            },
            uid,
            id: JobId(id),
            account: AccountId(1),
            person: UserId(1),
            params: JobParams::Noop(NoopParams::default()),
            description: "no-op".into(),
            priority: 0,
            delay,
            limit,
            server: None,
        };
        let submitted = self.registry.submit(submit).await.expect("accepted");
        assert!(submitted.fresh);
        assert_eq!((submitted.row.uid, submitted.row.id), (uid.to_string(), id));
        uid
    }

    /// Waits until the row is as wanted.
    pub(super) async fn until(&self, uid: JobUid, what: &str, holds: impl Fn(&JobRow) -> bool) -> JobRow {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let row = self.store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
            if holds(&row) {
                return row;
            }
            assert!(Instant::now() < limit, "not within 30 s: {what}: {row:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn effect_known(&self, uid: JobUid) {
        self.until(uid, "it waits for its verdict", |row| row.state == "awaiting" && row.owner.is_none())
            .await;
    }
}

const LONG: Duration = Duration::from_secs(600);

on_both!(
    a_registry_that_panics_fails_or_stops_goes_on,
    a_job_whose_actor_panics_or_fails_once_goes_on,
    a_nudge_that_was_lost_is_made_good_by_the_sweep,
    a_job_that_is_put_off_starts_when_it_is_due_and_not_before,
    the_job_of_a_life_that_stands_still_is_taken_over_and_that_of_one_that_beats_is_not,
    what_is_paused_waits_says_why_and_begins_when_nothing_holds_it_any_more,
    a_resume_wakes_at_once_and_a_job_keeps_the_time_it_was_held,
    a_pause_holds_nothing_else_and_a_held_job_is_cancelled_at_once,
    a_held_job_that_nobody_woke_is_found_by_the_sweep,
    a_poison_job_is_set_aside_with_its_text_and_ends_while_its_neighbours_go_on,
);

async fn a_registry_that_panics_fails_or_stops_goes_on(bed: Bed) {
    let house = house(bed, false).await;
    for (n, how) in [(100, Break::Panic), (101, Break::Fail), (102, Break::Stop)] {
        let _ = house.mailbox.ask(how, Duration::from_secs(5)).await;
        let uid = house.submit(n, LONG).await;
        house.effect_known(uid).await;
    }
    let shown = house.supervisor.snapshots();
    let registry = shown.iter().find(|s| s.kind == "registry").expect("shown");
    assert_eq!(registry.restarts, 3);
}

async fn a_job_whose_actor_panics_or_fails_once_goes_on(bed: Bed) {
    let house = house(bed, false).await;
    for id in [7, 8] {
        let uid = house.submit(id, LONG).await;
        house.effect_known(uid).await;
    }
}

async fn a_nudge_that_was_lost_is_made_good_by_the_sweep(bed: Bed) {
    let house = house(bed, true).await;
    let uid = house.submit(100, LONG).await;
    house.effect_known(uid).await;
}

async fn a_job_that_is_put_off_starts_when_it_is_due_and_not_before(bed: Bed) {
    let house = house_that_sweeps(bed, false, Duration::from_secs(60)).await;
    let soon = house.put_off(100, LONG, Duration::from_millis(700)).await;
    let later = house.put_off(101, LONG, Duration::from_secs(3600)).await;
    house.submit(102, LONG).await;
    house.effect_known(soon).await;
    let row = house.store.read(move |c| job::by_uid(c, soon)).await.expect("a read").expect("the job");
    let waited = row.claimed_at.expect("it was claimed") - row.created_at;
    assert!(waited >= 700_000, "claimed {waited} us after it was accepted");
    let row = house.store.read(move |c| job::by_uid(c, later)).await.expect("a read").expect("the job");
    assert_eq!((row.state.as_str(), row.why_code.as_str(), row.owner), ("queued", "scheduled", None));
    assert!(row.why.starts_with("starts at "), "{}", row.why);
    let who = "somebody".to_owned();
    house.registry.cancel(CustomerId(1), JobId(101), who).await.expect("a cancel");
    house.until(later, "it is cancelled before it began", |row| row.state == "cancelled").await;
}

/// Has a job claimed by a life of its own, which beats as long as it lives.
async fn of_another_life(house: &House, uid: JobUid) -> Boot {
    let boot = Boot::random();
    house.store.write(move |c| node::register(c, boot, "serve")).await.expect("alive");
    let seen = Fence { job: uid, epoch: Epoch(0) };
    let next = Epoch(1);
    let claim = Claim { seen, next, from: JobState::Queued, to: JobState::Running, boot, crashes: 0 };
    assert!(house.store.write(move |c| transition::claim(c, &claim)).await.expect("a claim"));
    boot
}

async fn the_job_of_a_life_that_stands_still_is_taken_over_and_that_of_one_that_beats_is_not(bed: Bed) {
    // The sweep cannot help within the test's time, and nobody here is told of the jobs.
    let house = house_that_sweeps(bed, true, Duration::from_secs(600)).await;
    let delay = Duration::from_secs(3600);
    let (left, kept) = (house.put_off(100, LONG, delay).await, house.put_off(101, LONG, delay).await);
    let dead = of_another_life(&house, left).await;
    let living = of_another_life(&house, kept).await;
    let (store, stop) = (house.store.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let beating = actix_rt::spawn(async move {
        let mut count = 1;
        while !stopped.load(Ordering::SeqCst) {
            let beaten = store.write(move |c| node::beat(c, living, count)).await.expect("a beat");
            assert!(beaten, "it was declared dead although it beats");
            count += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    house.effect_known(left).await;
    let row = house.store.read(move |c| job::by_uid(c, left)).await.expect("a read").expect("the job");
    assert!(row.epoch >= 2, "taken over under a higher epoch: {row:?}");
    let lives = house.store.read(node::all).await.expect("the lives");
    let state = |boot: Boot| lives.iter().find(|life| life.boot == boot.to_string()).map(|l| l.state.clone());
    assert_eq!(state(dead).as_deref(), Some("dead"));
    assert_eq!(state(living).as_deref(), Some("alive"));
    let row = house.store.read(move |c| job::by_uid(c, kept)).await.expect("a read").expect("the job");
    assert_eq!((row.owner, row.epoch), (Some(living.to_string()), 1));
    // A life that wakes after it was declared dead changes nothing and learns it at its next beat.
    let woken = house.store.write(move |c| node::beat(c, dead, i64::MAX)).await.expect("a beat");
    assert!(!woken);
    let fence = Fence { job: left, epoch: Epoch(1) };
    let may = house.store.write(move |c| transition::may_act(c, fence, dead, JobState::Running)).await;
    assert!(!may.expect("a guard"), "the old owner is fenced");
    stop.store(true, Ordering::SeqCst);
    beating.await.expect("it beat to the end");
}

fn entry() -> Entry {
    Entry {
        customer: CustomerId(1),
        access_key: "AK".into(),
        request: Uid::random(),
        replay: None,
        idem: None,
        repeat_by_key: false,
    }
}

impl House {
    async fn pause(&self, id: i64, kind: Option<&str>, account: Option<i64>) {
        let row = PauseRow {
            id,
            customer: 1,
            kind: kind.map(str::to_owned),
            account,
            made_by: "somebody".into(),
            reason: format!("test {id}"),
            made_at: 0,
        };
        let made = self.registry.pause(Pause { entry: entry(), row }).await.expect("paused");
        assert!(made.id == id && made.made_at > 0);
    }

    pub(super) async fn row(&self, uid: JobUid) -> JobRow {
        self.store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job")
    }

    async fn held(&self, uid: JobUid) -> JobRow {
        let row = self.until(uid, "it is held", |row| row.why_code == "pause").await;
        assert_eq!((row.state.as_str(), row.due_at, row.claimed_at), ("queued", None, None));
        assert!(
            row.why.starts_with("paused by somebody since ") && row.why.contains(": test "),
            "{}",
            row.why
        );
        row
    }
}

async fn what_is_paused_waits_says_why_and_begins_when_nothing_holds_it_any_more(bed: Bed) {
    let house = house_that_sweeps(bed, false, Duration::from_secs(60)).await;
    let before = house.submit(100, LONG).await;
    house.effect_known(before).await;
    house.pause(1, Some("noop"), None).await;
    house.pause(2, None, Some(1)).await;
    let uid = house.submit(101, LONG).await;
    assert!(house.held(uid).await.why.ends_with(": test 1"));
    let resume = |id| house.registry.resume(Resume { entry: entry(), id });
    resume(1).await.expect("the one");
    assert!(matches!(resume(1).await, Err(super::Error::NoSuchPause(1))));
    // The other pause holds it still, and says so.
    assert!(house.held(uid).await.why.ends_with(": test 2"));
    resume(2).await.expect("the other");
    house.effect_known(uid).await;
}

async fn a_resume_wakes_at_once_and_a_job_keeps_the_time_it_was_held(bed: Bed) {
    let house = house_that_sweeps(bed, false, Duration::from_secs(60)).await;
    house.pause(1, Some("noop"), Some(1)).await;
    let uid = house.submit(101, LONG).await;
    let held = house.held(uid).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    house.registry.resume(Resume { entry: entry(), id: 1 }).await.expect("resumed");
    house.effect_known(uid).await;
    let row = house.row(uid).await;
    assert!(row.deadline >= held.deadline + 30_000, "{} after {}", row.deadline, held.deadline);
}

async fn a_pause_holds_nothing_else_and_a_held_job_is_cancelled_at_once(bed: Bed) {
    let house = house_that_sweeps(bed, false, Duration::from_secs(60)).await;
    house.pause(1, Some("stop-server"), Some(1)).await;
    house.pause(2, None, Some(2)).await;
    let free = house.submit(100, LONG).await;
    house.effect_known(free).await;
    house.pause(3, Some("noop"), None).await;
    let uid = house.submit(101, LONG).await;
    house.held(uid).await;
    house.registry.cancel(CustomerId(1), JobId(101), "somebody".into()).await.expect("a cancel");
    house.until(uid, "it is cancelled although it is paused", |row| row.state == "cancelled").await;
}

async fn a_held_job_that_nobody_woke_is_found_by_the_sweep(bed: Bed) {
    let house = house(bed, true).await;
    house.pause(1, Some("noop"), None).await;
    let uid = house.submit(101, LONG).await;
    house.held(uid).await;
    house.store.write(|c| store::provisioning::pause::remove(c, CustomerId(1), 1)).await.expect("removed");
    house.effect_known(uid).await;
}

async fn a_poison_job_is_set_aside_with_its_text_and_ends_while_its_neighbours_go_on(bed: Bed) {
    let house = house(bed, false).await;
    let poison = house.submit(13, Duration::from_secs(1)).await;
    for id in 200..220 {
        let uid = house.submit(id, LONG).await;
        house.effect_known(uid).await;
    }
    let aside = house
        .until(poison, "it is set aside", |row| row.state == "quarantined" || row.ended_at.is_some())
        .await;
    let said = if aside.ended_at.is_some() { aside.message.unwrap_or_default() } else { aside.why };
    assert!(said.contains("a poison job"), "{said}");
    let ended = house.until(poison, "it ends", |row| row.ended_at.is_some()).await;
    assert_eq!(ended.state, "unresolved");
    assert!(
        ended
            .message
            .is_some_and(|text| text.starts_with("outcome unknown: ") && text.contains("a poison job"))
    );
}

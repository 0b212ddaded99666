//! What this room promises, one test for each cause of failure.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{
    Exit, Exited, Life, Limits, Mailbox, Options, Policy, Snapshot, Supervised, Supervisor, Unreachable,
};
use crate::ops::{Health, Metrics};

/// Longest wait of a test; far more than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// Waits until something holds; fails the test when it does not.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Clone, Default)]
struct Spec {
    name: &'static str,
    fresh_panics: Arc<AtomicBool>,
    drop_panics: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    hooks: Arc<AtomicUsize>,
    stale: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Notify>,
}

struct Counter {
    spec: Spec,
    life: Life,
    sum: u32,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.spec.hooks.fetch_add(1, SeqCst);
        Running::Stop
    }
}

impl Supervised for Counter {
    type Spec = Spec;
    const KIND: &'static str = "counter";

    fn key(spec: &Spec) -> String {
        spec.name.to_owned()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        spec.made.fetch_add(1, SeqCst);
        assert!(!spec.fresh_panics.load(SeqCst), "not fresh");
        Self { spec, life, sum: 0 }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        assert!(!self.spec.drop_panics.load(SeqCst), "while dropped");
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Add(u32);
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Fail,
    Panic,
    BareStop,
    ActFuturePanic,
    TimerPanic,
    DetachedFail,
    FailForGood,
    StopAndPanic,
    LeaveTimer,
    SetTimer,
}
#[derive(Message)]
#[rtype(result = "()")]
struct Do(End);
/// Answered when the gate opens.
#[derive(Message)]
#[rtype(result = "u64")]
struct Wait;
#[derive(Message)]
#[rtype(result = "()")]
struct Stale;
/// Blocks the thread.
#[derive(Message)]
#[rtype(result = "()")]
struct Block(std::sync::mpsc::Receiver<()>);

impl Handler<Add> for Counter {
    type Result = u32;
    fn handle(&mut self, add: Add, _: &mut Context<Self>) -> u32 {
        self.sum += add.0;
        self.sum
    }
}

impl Handler<Do> for Counter {
    type Result = ();
    fn handle(&mut self, what: Do, ctx: &mut Context<Self>) {
        match what.0 {
            End::Done => self.life.done(),
            End::Fail => self.life.fail("on request"),
            End::Panic => panic!("on request"),
            End::BareStop => ctx.stop(),
            End::ActFuturePanic => {
                ctx.spawn(async {}.into_actor(self).map(|(), _, _| panic!("in a future")));
            }
            End::TimerPanic => {
                ctx.run_later(Duration::from_millis(1), |_, _| panic!("in a timer"));
            }
            End::DetachedFail => {
                let life = self.life.clone();
                actix_rt::spawn(async move { life.fail("from a detached future") });
            }
            End::StopAndPanic => {
                self.life.mailbox::<Self>().expect("its own").stop();
                panic!("while it ends");
            }
            End::FailForGood => self.life.fail_for_good("declared dead"),
            End::SetTimer => {
                ctx.notify_later(Stale, Duration::from_millis(1));
            }
            End::LeaveTimer => {
                ctx.notify_later(Stale, Duration::from_millis(1));
                self.life.fail("leaving a timer behind");
            }
        }
    }
}

impl Handler<Wait> for Counter {
    type Result = ResponseActFuture<Self, u64>;
    fn handle(&mut self, _: Wait, _: &mut Context<Self>) -> Self::Result {
        let (gate, busy) = (Arc::clone(&self.spec.gate), self.life.enter("Wait"));
        let incarnation = self.life.incarnation();
        Box::pin(async move { gate.notified().await }.into_actor(self).map(move |(), _, _| {
            drop(busy);
            incarnation
        }))
    }
}

impl Handler<Stale> for Counter {
    type Result = ();
    fn handle(&mut self, _: Stale, _: &mut Context<Self>) {
        self.spec.stale.fetch_add(1, SeqCst);
    }
}

impl Handler<Block> for Counter {
    type Result = ();
    fn handle(&mut self, block: Block, _: &mut Context<Self>) {
        let _ended = block.0.recv_timeout(LONG);
    }
}

#[derive(Clone, Default)]
struct Parent(Arc<Mutex<Vec<Exited>>>);

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Exited> for Parent {
    type Result = ();
    fn handle(&mut self, news: Exited, _: &mut Context<Self>) {
        self.0.lock().expect("list").push(news);
    }
}

/// One house with one actor, whose restarts come quickly.
struct Stage {
    house: Supervisor,
    health: Health,
    metrics: Metrics,
    spec: Spec,
    exits: Arc<Mutex<Vec<Exited>>>,
    mailbox: Mailbox<Counter>,
}

fn quick() -> Limits {
    let (backoff_first, backoff_max) = (Duration::from_millis(1), Duration::from_millis(2));
    Limits { backoff_first, backoff_max, ..Limits::default() }
}

impl Stage {
    fn new(policy: Policy, limits: Limits) -> Self {
        let (health, metrics) = (Health::new(), Metrics::new());
        let house = Supervisor::with_metrics(health.clone(), metrics.clone());
        let parent = Parent::default();
        let exits = Arc::clone(&parent.0);
        let on_exit = Some(parent.start().recipient());
        let spec = Spec { name: "one", ..Spec::default() };
        let mailbox =
            house.spawn::<Counter>(&house.here(), spec.clone(), Options { policy, limits, on_exit });
        Self { house, health, metrics, spec, exits, mailbox }
    }

    fn quick() -> Self {
        Self::new(Policy::Transient, quick())
    }

    async fn add(&self, number: u32) -> Result<u32, Unreachable> {
        self.mailbox.ask(Add(number), LONG).await
    }

    async fn make(&self, end: End) -> Result<(), Unreachable> {
        self.mailbox.ask(Do(end), LONG).await
    }

    fn snapshot(&self) -> Snapshot {
        self.house.snapshots().into_iter().find(|found| found.key == "one").expect("it is known")
    }

    async fn exit(&self) -> Exited {
        until("the parent hears of the end", || !self.exits.lock().expect("list").is_empty()).await;
        self.exits.lock().expect("list")[0].clone()
    }
}

#[actix_rt::test]
async fn after_a_panic_the_mailbox_and_what_waits_in_it_live_on_with_fresh_state() {
    let stage = Stage::quick();
    let recipient = stage.mailbox.recipient::<Add>();
    assert_eq!(stage.add(7).await, Ok(7));
    let (boom, behind) = tokio::join!(stage.make(End::Panic), stage.add(1));
    assert_eq!(boom, Err(Unreachable::Closed));
    assert_eq!(behind, Ok(1), "state is fresh and the queued message was served");
    assert_eq!(recipient.send(Add(2)).await, Ok(3), "recipients outlive restarts too");
    let snapshot = stage.snapshot();
    assert_eq!((snapshot.kind, snapshot.state), ("counter", "running"));
    assert_eq!((snapshot.incarnation, snapshot.restarts, snapshot.restarts_in_window), (2, 1, 1));
    assert_eq!((snapshot.last_panic.as_deref(), snapshot.mailbox), (Some("on request"), 0));
    assert_eq!(stage.spec.hooks.load(SeqCst), 0, "no hook on a broken value");
    let page = stage.metrics.encode();
    assert!(page.contains("actor_panics_total{kind=\"counter\"} 1"), "{page}");
    assert!(page.contains("actor_restarts_total{kind=\"counter\"} 1"), "{page}");
}

#[actix_rt::test]
async fn every_kind_of_failure_restarts() {
    for end in [End::Fail, End::BareStop, End::ActFuturePanic, End::TimerPanic, End::DetachedFail] {
        let stage = Stage::quick();
        assert_eq!(stage.add(7).await, Ok(7));
        assert_eq!(stage.make(end).await, Ok(()), "{end:?}");
        until("it lives again", || stage.snapshot().incarnation == 2).await;
        assert_eq!(stage.add(1).await, Ok(1), "{end:?}");
        assert_eq!(
            stage.snapshot().last_panic.is_some(),
            matches!(end, End::ActFuturePanic | End::TimerPanic)
        );
        assert!(stage.exits.lock().expect("list").is_empty());
    }
}

#[actix_rt::test]
async fn it_restarts_twice_and_timers_of_an_earlier_life_never_fire() {
    let stage = Stage::quick();
    for life in 1..=2 {
        assert_eq!(stage.make(End::LeaveTimer).await, Ok(()));
        until("it lives again", || stage.snapshot().incarnation == life + 1).await;
    }
    // A timer of the present life is due after those left behind, so they would have fired before it.
    assert_eq!(stage.make(End::SetTimer).await, Ok(()));
    until("the timer fires", || stage.spec.stale.load(SeqCst) > 0).await;
    assert_eq!(stage.spec.stale.load(SeqCst), 1);
}

#[actix_rt::test]
async fn done_ends_it_and_closes_the_mailbox() {
    let stage = Stage::new(Policy::Permanent, quick());
    let (done, behind) = tokio::join!(stage.make(End::Done), stage.add(1));
    assert_eq!((done, behind), (Ok(()), Err(Unreachable::Closed)));
    let expected = Exited { kind: "counter", key: "one".to_owned(), exit: Exit::Done, gave_up: false };
    assert_eq!(stage.exit().await, expected);
    assert_eq!(stage.mailbox.tell(Add(1)), Err(Unreachable::Closed));
    assert!(!stage.mailbox.recipient::<Add>().connected());
    assert!(stage.house.snapshots().is_empty());
    assert!(stage.health.live().0);
}

#[actix_rt::test]
async fn a_panic_of_the_drop_changes_nothing_about_the_end() {
    let stage = Stage::quick();
    stage.spec.drop_panics.store(true, SeqCst);
    assert_eq!(stage.make(End::Fail).await, Ok(()));
    assert_eq!(stage.add(1).await, Ok(1));
    assert_eq!(stage.make(End::Done).await, Ok(()));
    assert_eq!(stage.exit().await.exit, Exit::Done);
    assert_eq!(stage.spec.made.load(SeqCst), 2);
}

#[actix_rt::test]
async fn stop_from_outside_ends_it_also_between_two_lives() {
    let stage = Stage::quick();
    stage.mailbox.stop();
    assert_eq!(stage.exit().await.exit, Exit::Done);

    let slow = Limits { backoff_first: LONG * 10, backoff_max: LONG * 10, ..Limits::default() };
    let waiting = Stage::new(Policy::Transient, slow);
    assert_eq!(waiting.make(End::Fail).await, Ok(()));
    until("it waits", || waiting.snapshot().state == "backing-off").await;
    waiting.mailbox.stop();
    assert_eq!(waiting.exit().await.exit, Exit::Done);
}

async fn spend_budget(stage: &Stage) -> Exited {
    for _ in 0..6 {
        let _failed = stage.make(End::Panic).await;
    }
    stage.exit().await
}

#[actix_rt::test]
async fn a_spent_budget_is_told_to_the_parent_and_harms_nobody_else() {
    let stage = Stage::quick();
    let neighbour_spec = Spec { name: "neighbour", ..Spec::default() };
    let options = Options::transient(None);
    let neighbour = stage.house.spawn::<Counter>(&stage.house.here(), neighbour_spec.clone(), options);
    assert_eq!(neighbour.ask(Add(1), LONG).await, Ok(1));
    let news = spend_budget(&stage).await;
    assert_eq!((news.exit, news.gave_up), (Exit::Panicked("on request".to_owned()), true));
    assert_eq!(stage.spec.made.load(SeqCst), 6, "one start and five restarts");
    let snapshot = stage.snapshot();
    assert_eq!((snapshot.state, snapshot.restarts_in_window, snapshot.restarts), ("given-up", 5, 5));
    assert_eq!(stage.add(1).await, Err(Unreachable::Closed));
    assert_eq!(neighbour.ask(Add(1), LONG).await, Ok(2), "same state, same life");
    assert_eq!(neighbour_spec.made.load(SeqCst), 1);
    assert!(stage.health.live().0 && stage.health.ready().0);
}

#[actix_rt::test]
async fn a_permanent_actor_that_is_given_up_is_fatal() {
    let stage = Stage::new(Policy::Permanent, quick());
    spend_budget(&stage).await;
    let reason = stage.house.fatal().await;
    assert!(reason.contains("counter one panicked: on request"), "{reason}");
    assert_eq!(stage.house.clone().fatal().await, reason, "it stays resolved");
    assert!(!stage.health.live().0 && !stage.health.ready().0);
}

#[actix_rt::test]
async fn a_panic_while_being_made_counts_as_well() {
    let stage = Stage::quick();
    assert_eq!(stage.add(1).await, Ok(1));
    stage.spec.fresh_panics.store(true, SeqCst);
    assert_eq!(stage.make(End::Fail).await, Ok(()));
    let news = stage.exit().await;
    assert_eq!((news.exit, news.gave_up), (Exit::Panicked("not fresh".to_owned()), true));
}

#[actix_rt::test]
async fn a_message_that_takes_too_long_ends_the_life() {
    let frozen = Some(Duration::from_millis(5));
    let stage = Stage::new(Policy::Transient, Limits { budget: 0, frozen, ..quick() });
    assert_eq!(stage.mailbox.ask(Wait, LONG).await, Err(Unreachable::Closed));
    let news = stage.exit().await;
    assert_eq!((news.exit, news.gave_up), (Exit::Frozen, true));
}

#[actix_rt::test]
async fn full_late_and_closed_are_three_errors() {
    let stage = Stage::new(Policy::Transient, Limits { mailbox: 2, ..quick() });
    let first = stage.mailbox.ask(Wait, LONG);
    let second = stage.mailbox.ask(Wait, Duration::from_millis(5));
    let third = async {
        until("both are in work", || stage.mailbox.depth() == 2).await;
        let full = stage.add(1).await;
        until("one asker left", || stage.mailbox.depth() == 1).await;
        let then = stage.add(1).await;
        stage.spec.gate.notify_waiters();
        (full, then)
    };
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!((first, second), (Ok(1), Err(Unreachable::TimedOut)));
    assert_eq!(third, (Err(Unreachable::Full), Ok(1)));
    let texts: Vec<String> = [Unreachable::Full, Unreachable::Closed, Unreachable::TimedOut]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
}

#[actix_rt::test]
async fn a_snapshot_shows_the_message_in_work_and_those_that_wait() {
    let house = Supervisor::new(Health::new());
    let worker = house.arbiter("snapshots");
    let spec = Spec { name: "one", ..Spec::default() };
    let mailbox = house.spawn::<Counter>(&worker, spec.clone(), Options::transient(None));
    let (open, block) = std::sync::mpsc::channel();
    mailbox.tell(Block(block)).expect("room for it");
    until("it blocks", || house.snapshots()[0].message.is_some()).await;
    let skipped = mailbox.ask(Add(100), Duration::from_millis(1)).await;
    assert_eq!(skipped, Err(Unreachable::TimedOut));
    mailbox.tell(Add(1)).expect("room for it");
    let snapshot = house.snapshots().remove(0);
    assert_eq!(snapshot.message.as_ref().map(|(name, _)| name.as_str()), Some("Block"));
    assert_eq!((snapshot.mailbox, snapshot.incarnation, snapshot.state), (2, 1, "running"));
    let json = serde_json::to_value(&snapshot).expect("plain data");
    assert_eq!(json["message"][0], "Block");
    drop(open);
    assert_eq!(mailbox.ask(Add(1), LONG).await, Ok(2), "what nobody waited for any more was skipped");
    mailbox.stop();
}

#[actix_rt::test]
async fn a_life_gives_the_mailbox_that_outlives_it_and_ignores_late_sayings() {
    let house = Supervisor::new(Health::new());
    let vitals = Arc::new(super::life::Vitals::new("counter", "x".to_owned(), Limits::default()));
    let (mailbox, _inbox) = Mailbox::<Counter>::pair(Arc::clone(&vitals), 4);
    let first = Life::new(Arc::clone(&vitals), vitals.begin(), mailbox.clone());
    assert!(first.mailbox::<Counter>().is_some());
    let second = Life::new(Arc::clone(&vitals), vitals.begin(), mailbox);
    first.done();
    let late = first.enter("late");
    assert_eq!((vitals.wish(), vitals.busy_since()), (None, None));
    drop(late);
    second.fail("first word");
    second.done();
    assert_eq!(vitals.wish(), Some(Exit::Failed("first word".to_owned())));
    assert!(house.snapshots().is_empty());
}

#[actix_rt::test]
async fn actors_start_from_any_thread_and_outlive_their_mailboxes() {
    let house = Supervisor::new(Health::new());
    let worker = house.arbiter("any-thread");
    assert_eq!(house.arbiter("any-thread").name(), worker.name());
    assert_eq!(house.arbiters().len(), 1);
    let spec = Spec { name: "far", ..Spec::default() };
    let elsewhere = house.clone();
    let mailbox =
        std::thread::spawn(move || elsewhere.spawn::<Counter>(&worker, spec, Options::transient(None)));
    let mailbox = mailbox.join().expect("the thread ends well");
    assert_eq!(mailbox.ask(Add(1), LONG).await, Ok(1));
    drop(mailbox);
    assert_eq!(house.snapshots().len(), 1, "nobody stopped it");
}

#[actix_rt::test]
async fn an_arbiter_that_stands_still_is_fatal() {
    let health = Health::new();
    let house = Supervisor::build(health.clone(), None, Duration::from_secs(1));
    let (good, bad) = (house.arbiter("good"), house.arbiter("bad"));
    let spec = Spec { name: "stuck", ..Spec::default() };
    let stuck = house.spawn::<Counter>(&bad, spec.clone(), Options::transient(None));
    let well = house.spawn::<Counter>(&good, Spec { name: "well", ..spec }, Options::transient(None));
    assert!(health.live().0);
    let (open, block) = std::sync::mpsc::channel();
    stuck.tell(Block(block)).expect("room for it");
    let reason = tokio::time::timeout(LONG, house.fatal()).await.expect("it is noticed");
    assert!(reason.contains("arbiter bad has not moved"), "{reason}");
    assert_eq!(well.ask(Add(1), LONG).await, Ok(1), "the other one moves");
    assert!(!health.live().0);
    let red: Vec<_> = house.arbiters().into_iter().map(|arbiter| (arbiter.name, arbiter.red)).collect();
    assert_eq!(red, [("bad".to_owned(), true), ("good".to_owned(), false)]);
    drop(open);
}

#[actix_rt::test]
async fn only_the_newest_given_up_actors_are_kept() {
    let house = Supervisor::new(Health::new());
    for number in 0..300 {
        let vitals = super::life::Vitals::new("counter", number.to_string(), Limits::default());
        house.keep_given_up(number, &vitals);
    }
    let kept = house.snapshots();
    assert_eq!((kept.len(), kept[0].key.as_str()), (256, "44"));
}

#[actix_rt::test]
async fn a_future_past_its_limit_is_dropped() {
    assert_eq!(super::limited(LONG, async { 7 }).await, Ok(7));
    let late = super::limited(Duration::from_millis(1), std::future::pending::<()>()).await;
    assert_eq!(
        late.expect_err("it never ends").to_string(),
        "not finished after 1ms; what it did until then is unknown"
    );
}

#[actix_rt::test]
async fn what_follows_a_bare_stop_is_the_next_lifes() {
    let stage = Stage::quick();
    assert_eq!(stage.add(7).await, Ok(7));
    let (stopped, behind) = tokio::join!(stage.make(End::BareStop), stage.add(1));
    assert_eq!((stopped, behind), (Ok(()), Ok(1)), "state is fresh");
}

#[actix_rt::test]
async fn a_life_that_no_restart_can_better_is_given_up_at_once() {
    let stage = Stage::new(Policy::Permanent, quick());
    assert_eq!(stage.make(End::FailForGood).await, Ok(()));
    let news = stage.exit().await;
    assert_eq!((news.exit, news.gave_up), (Exit::Failed("declared dead".to_owned()), true));
    assert_eq!((stage.spec.made.load(SeqCst), stage.snapshot().restarts), (1, 0));
    let reason = stage.house.fatal().await;
    assert_eq!(reason, "counter one failed: declared dead and no restart cures that");
    let other = Stage::quick();
    assert_eq!(other.make(End::Fail).await, Ok(()));
    assert_eq!(other.add(1).await, Ok(1), "an ordinary failure of the same actor is restarted");
}

#[actix_rt::test]
async fn who_was_asked_to_stop_and_fails_over_it_has_ended_and_harms_nobody() {
    let stage = Stage::new(Policy::Permanent, Limits { budget: 0, ..quick() });
    assert_eq!(stage.make(End::StopAndPanic).await, Err(Unreachable::Closed));
    let news = stage.exit().await;
    assert_eq!((news.exit, news.gave_up), (Exit::Done, false));
    assert!(stage.house.snapshots().is_empty());
    assert!(stage.health.live().0 && stage.house.shared.fatal.borrow().is_none());
}

#[actix_rt::test]
async fn an_actor_given_up_is_never_shown_twice_nor_missing() {
    let house = Supervisor::new(Health::new());
    let vitals = Arc::new(super::life::Vitals::new("counter", "one".to_owned(), Limits::default()));
    let ticket = house.enrol(Arc::clone(&vitals));
    assert_eq!(house.snapshots().len(), 1);
    house.keep_given_up(ticket.number, &vitals);
    assert_eq!(house.snapshots().len(), 1, "while its guard comes to its end");
    drop(ticket);
    assert_eq!(house.snapshots().len(), 1);
}

#[actix_rt::test]
async fn actors_that_fail_together_do_not_come_back_together() {
    let limits = Limits { backoff_first: Duration::from_secs(1000), ..Limits::default() };
    let mut pauses: Vec<Duration> = (0..50)
        .map(|_| {
            let vitals = super::life::Vitals::new("counter", "x".to_owned(), limits);
            let pause = vitals.record().backoff.after_failure(tokio::time::Instant::now());
            pause.expect("budget left")
        })
        .collect();
    pauses.sort();
    pauses.dedup();
    assert!(pauses.len() > 40, "{} different pauses of 50", pauses.len());
}

#[actix_rt::test]
async fn one_actors_budget_is_not_anothers() {
    let stage = Stage::quick();
    let options = Options { limits: quick(), ..Options::transient(None) };
    let spec = Spec { name: "other", ..Spec::default() };
    let other = stage.house.spawn::<Counter>(&stage.house.here(), spec, options);
    spend_budget(&stage).await;
    for _ in 0..5 {
        let _failed = other.ask(Do(End::Panic), LONG).await;
    }
    assert_eq!(other.ask(Add(1), LONG).await, Ok(1), "its own five restarts were left");
}

#[actix_rt::test]
async fn a_mailbox_takes_no_more_than_its_limit_however_many_hold_it() {
    let house = Supervisor::new(Health::new());
    let worker = house.arbiter("bounded");
    let options = Options { limits: Limits { mailbox: 10, ..quick() }, ..Options::transient(None) };
    let mailbox = house.spawn::<Counter>(&worker, Spec { name: "one", ..Spec::default() }, options);
    let (open, block) = std::sync::mpsc::channel();
    mailbox.tell(Block(block)).expect("room for it");
    until("it blocks", || house.snapshots()[0].message.is_some()).await;
    let taken: usize = (0..8)
        .map(|_| {
            let mailbox = mailbox.clone();
            std::thread::spawn(move || (0..1000).filter(|_| mailbox.tell(Add(1)).is_ok()).count())
        })
        .map(|thread| thread.join().expect("no panic"))
        .sum();
    assert!((9..=10).contains(&taken), "{taken} taken");
    assert_eq!(mailbox.tell(Add(1)), Err(Unreachable::Full));
    let one_way = mailbox.recipient::<Add>();
    let by_recipient = (0..1000).filter(|_| one_way.try_send(Add(1)).is_ok()).count();
    assert!(by_recipient <= 11, "{by_recipient} by one recipient");
    drop(open);
    mailbox.stop();
}

#[actix_rt::test]
async fn the_last_handle_ends_the_threads_it_made() {
    let house = Supervisor::new(Health::new());
    let worker = house.arbiter("ends");
    let spec = Spec { name: "one", ..Spec::default() };
    let mailbox = house.spawn::<Counter>(&worker, spec, Options::transient(None));
    assert_eq!(mailbox.ask(Add(1), LONG).await, Ok(1));
    let shared = Arc::downgrade(&house.shared);
    drop(house);
    assert_eq!(mailbox.ask(Add(1), LONG).await, Ok(2), "an actor keeps its house");
    mailbox.stop();
    until("the house is gone", || shared.upgrade().is_none()).await;
    until("the thread ends", || !worker.run(|| ())).await;
}

#[actix_rt::test]
async fn a_thread_with_a_heart_that_stands_still_is_fatal() {
    let house = Supervisor::build(Health::new(), None, Duration::from_secs(1));
    let (good, bad) = (super::Heart::default(), super::Heart::default());
    house.watch_thread("good-writer", &good, super::Need::Vital);
    house.watch_thread("bad-writer", &bad, super::Need::Vital);
    let stuck = bad.clone();
    let (open, block) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _work = stuck.work();
        let _ended = block.recv_timeout(LONG);
    });
    let reason = tokio::time::timeout(LONG, house.fatal()).await.expect("it is noticed");
    assert!(reason.starts_with("thread bad-writer has been at one step for "), "{reason}");
    let red: Vec<_> = house.arbiters().into_iter().map(|thread| (thread.name, thread.red)).collect();
    assert_eq!(red, [("good-writer".to_owned(), false), ("bad-writer".to_owned(), true)]);
    drop(open);
    thread.join().expect("no panic");
}

#[actix_rt::test]
async fn any_actor_can_be_tripped_and_each_way_restarts_it() {
    let stage = Stage::quick();
    for (lives, how) in (2..).zip(super::TRIPS) {
        stage.house.survives("counter", how).await;
        assert_eq!(stage.add(1).await, Ok(1), "{how:?}");
        assert_eq!(stage.snapshot().incarnation, lives, "{how:?}");
    }
    stage.house.ruin("counter", "one").await;
    assert_eq!(stage.exit().await.exit, Exit::Panicked("tripped".to_owned()));
}

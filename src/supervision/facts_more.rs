//! The rest of what actix 0.13 does: the rows of its table that need more than one actor, a thread or a process.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use actix::{Supervised, Supervisor, prelude::*};

use super::tests::until;

const LONG: Duration = Duration::from_secs(20);
/// Where a fact ends a process, the test runs itself again with this set.
const DOOMED: &str = "DISPATCHER_TEST_DOOMED";

/// What a test sees of an actor.
#[derive(Clone, Default)]
struct Seen {
    starts: Arc<AtomicUsize>,
    fired: Arc<AtomicUsize>,
}

/// Stops itself at each start until it has started a thousand times.
struct Restless {
    seen: Seen,
    turns: Arc<AtomicUsize>,
    turns_at_first: Option<usize>,
}

impl Actor for Restless {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let turns = self.turns.load(SeqCst);
        let first = *self.turns_at_first.get_or_insert(turns);
        if self.seen.starts.fetch_add(1, SeqCst) < 1000 {
            ctx.stop();
        } else {
            self.seen.fired.store(turns - first, SeqCst);
        }
    }
}

impl Supervised for Restless {}

#[actix_rt::test]
async fn its_supervisor_restarts_without_a_pause_and_without_yielding() {
    let (seen, turns) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let neighbour = Arc::clone(&turns);
    actix_rt::spawn(async move {
        loop {
            neighbour.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
        }
    });
    let (its, made) = (Arc::clone(&turns), seen.clone());
    let _address = Supervisor::start(move |_| Restless { seen: made, turns: its, turns_at_first: None });
    until("it stays", || seen.starts.load(SeqCst) > 1000).await;
    assert_eq!(seen.fired.load(SeqCst), 0, "nobody else on the thread got a turn in a thousand lives");
}

/// An actor whose parts can be broken one by one.
struct Brittle {
    seen: Seen,
    hook_panics: bool,
}

impl Actor for Brittle {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.seen.starts.fetch_add(1, SeqCst);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        assert!(!self.hook_panics, "a second panic");
    }
}

impl Supervised for Brittle {}

#[derive(Clone, Copy, Debug)]
enum Break {
    Handler,
    ActFuture,
    Spawned,
    Later,
    Interval,
    Terminate,
}

impl Message for Break {
    type Result = ();
}

#[derive(Message)]
#[rtype(result = "usize")]
struct Count;

#[derive(Message)]
#[rtype(result = "()")]
struct Hold(mpsc::Receiver<()>);

impl Handler<Break> for Brittle {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, how: Break, ctx: &mut Context<Self>) -> Self::Result {
        let soon = Duration::from_millis(1);
        let broken = |actor: &mut Self, _: &mut Context<Self>| panic!("broken {}", actor.hook_panics);
        match how {
            Break::Handler => panic!("in the handler"),
            Break::ActFuture => {
                return Box::pin(async {}.into_actor(self).map(|(), _, _| panic!("in a reply")));
            }
            Break::Spawned => {
                ctx.spawn(async {}.into_actor(self).map(|(), _, _| panic!("in a future")));
            }
            Break::Later => {
                ctx.run_later(soon, broken);
            }
            Break::Interval => {
                ctx.run_interval(soon, broken);
            }
            Break::Terminate => ctx.terminate(),
        }
        Box::pin(async {}.into_actor(self))
    }
}

impl Handler<Count> for Brittle {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> usize {
        self.seen.fired.fetch_add(1, SeqCst) + 1
    }
}

impl Handler<Hold> for Brittle {
    type Result = ();

    fn handle(&mut self, hold: Hold, _: &mut Context<Self>) {
        let _ended = hold.0.recv_timeout(LONG);
    }
}

fn brittle(hook_panics: bool) -> Brittle {
    Brittle { seen: Seen::default(), hook_panics }
}

#[actix_rt::test]
async fn a_panic_anywhere_in_an_actor_closes_its_address_and_is_never_restarted() {
    for how in [Break::Handler, Break::ActFuture, Break::Spawned, Break::Later, Break::Interval] {
        let actor = brittle(false);
        let seen = actor.seen.clone();
        let address = Supervisor::start(move |_| actor);
        let _asked = address.send(how).await;
        until("the address closes", || !address.connected()).await;
        assert_eq!(address.send(Count).await, Err(MailboxError::Closed), "{how:?}");
        assert_eq!(seen.starts.load(SeqCst), 1, "{how:?}: no second start");
    }
}

#[actix_rt::test]
async fn its_supervisor_restarts_after_terminate_and_the_queue_is_kept_in_order() {
    let actor = brittle(false);
    let seen = actor.seen.clone();
    let address = Supervisor::start(move |_| actor);
    let (broken, first, second) =
        tokio::join!(address.send(Break::Terminate), address.send(Count), address.send(Count));
    assert!(broken.is_err() || broken.is_ok(), "its own answer may be lost");
    assert_eq!((first, second), (Ok(1), Ok(2)));
    assert_eq!(seen.starts.load(SeqCst), 2);
}

#[actix_rt::test]
async fn a_panic_on_another_arbiter_ends_neither_it_nor_the_neighbours_there() {
    let arbiter = Arbiter::new();
    let start = |actor: Brittle| Brittle::start_in_arbiter(&arbiter.handle(), move |_| actor);
    let (victim, neighbour) = (start(brittle(false)), start(brittle(false)));
    assert_eq!(victim.send(Break::Handler).await, Err(MailboxError::Closed));
    assert_eq!(neighbour.send(Count).await, Ok(1));
    assert!(arbiter.spawn_fn(|| ()), "the thread lives");
    assert!(!victim.connected());
}

#[test]
fn a_second_panic_in_a_hook_while_unwinding_aborts_the_process() {
    if std::env::var_os(DOOMED).is_some() {
        System::new().block_on(async {
            let _never = brittle(true).start().send(Break::Handler).await;
            tokio::time::sleep(LONG).await;
        });
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "supervision::facts_more::a_second_panic_in_a_hook_while_unwinding_aborts_the_process",
        ])
        .env(DOOMED, "1")
        .output()
        .expect("it starts");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(nix::sys::signal::Signal::SIGABRT as i32), "{said}");
}

/// A service of actix's own registry.
#[derive(Default)]
struct Service;

impl Actor for Service {
    type Context = Context<Self>;
}
impl Supervised for Service {}
impl SystemService for Service {}
impl ArbiterService for Service {}

impl Handler<Break> for Service {
    type Result = ();

    fn handle(&mut self, how: Break, _: &mut Context<Self>) {
        panic!("{how:?}");
    }
}

#[actix_rt::test]
async fn its_registries_keep_a_dead_address_for_ever() {
    let of_system = <Service as SystemService>::from_registry();
    let of_arbiter = <Service as ArbiterService>::from_registry();
    for address in [&of_system, &of_arbiter] {
        assert_eq!(address.send(Break::Handler).await, Err(MailboxError::Closed));
        until("the address closes", || !address.connected()).await;
    }
    assert!(!<Service as SystemService>::from_registry().connected(), "the dead one is given out again");
    assert!(!<Service as ArbiterService>::from_registry().connected(), "the dead one is given out again");
}

#[actix_rt::test]
async fn send_has_no_backpressure_and_do_send_ignores_capacity_and_drops_in_silence() {
    let (actor, arbiter) = (brittle(false), Arbiter::new());
    let seen = actor.seen.clone();
    let address = Brittle::start_in_arbiter(&arbiter.handle(), move |_| actor);
    let (open, hold) = mpsc::channel();
    let held = address.send(Hold(hold));
    let mut asked: Vec<_> = (0..1000).map(|_| Box::pin(address.send(Count))).collect();
    for request in &mut asked {
        assert!(futures_util::poll!(request).is_pending(), "taken, although sixteen is the capacity");
    }
    (0..1000).for_each(|_| address.do_send(Count));
    drop(open);
    assert_eq!(held.await, Ok(()));
    for request in asked {
        assert!(request.await.is_ok());
    }
    until("all are handled", || seen.fired.load(SeqCst) == 2000).await;
    let _broken = address.send(Break::Handler).await;
    until("the address closes", || !address.connected()).await;
    address.do_send(Count);
    assert_eq!(seen.fired.load(SeqCst), 2000, "lost, and nobody was told");
}

/// Sets a timer in each life and cancels one of the life before.
struct Careless {
    seen: Seen,
    old: Option<SpawnHandle>,
    same: Arc<AtomicBool>,
}

impl Actor for Careless {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let fired = Arc::clone(&self.seen.fired);
        let timer = ctx.run_later(Duration::from_millis(20), move |_, _| {
            fired.fetch_add(1, SeqCst);
        });
        match self.old.replace(timer) {
            None => ctx.stop(),
            Some(old) => {
                self.same.store(old == timer, SeqCst);
                ctx.cancel_future(old);
            }
        }
        self.seen.starts.fetch_add(1, SeqCst);
    }
}

impl Supervised for Careless {}

#[actix_rt::test]
async fn cancel_future_of_an_old_life_cancels_a_timer_of_the_next() {
    let (seen, same) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let actor = Careless { seen: seen.clone(), old: None, same: Arc::clone(&same) };
    let _address = Supervisor::start(move |_| actor);
    until("the second life", || seen.starts.load(SeqCst) == 2).await;
    assert!(same.load(SeqCst), "the handle of the old life names the new timer");
    // A timer set after it, and longer, is the proof that it would have fired by now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(seen.fired.load(SeqCst), 0, "and the old timer went with its life");
}

#[actix_rt::test]
async fn a_blocking_handler_blocks_every_actor_of_its_arbiter_and_no_other() {
    let (blocked, free) = (Arbiter::new(), Arbiter::new());
    let start = |on: &Arbiter| Brittle::start_in_arbiter(&on.handle(), |_| brittle(false));
    let (blocking, beside, elsewhere) = (start(&blocked), start(&blocked), start(&free));
    let (open, hold) = mpsc::channel();
    let held = actix_rt::spawn(blocking.send(Hold(hold)));
    let mut waits = Box::pin(beside.send(Count));
    assert!(futures_util::poll!(&mut waits).is_pending());
    for _ in 0..100 {
        assert!(elsewhere.send(Count).await.is_ok());
    }
    // The block may begin a moment after its message was sent, so only what follows is certain.
    let after = beside.send(Count);
    let late = tokio::time::timeout(Duration::from_millis(50), after).await;
    assert!(late.is_err(), "a neighbour on the same thread stands still");
    drop(open);
    assert_eq!(held.await.expect("no panic"), Ok(()));
    assert!(waits.await.is_ok());
}

/// Works on a thread of a pool.
struct Pooled;

impl Actor for Pooled {
    type Context = SyncContext<Self>;
}

impl Handler<Break> for Pooled {
    type Result = ();

    fn handle(&mut self, how: Break, _: &mut SyncContext<Self>) {
        panic!("{how:?}");
    }
}

impl Handler<Hold> for Pooled {
    type Result = ();

    fn handle(&mut self, hold: Hold, _: &mut SyncContext<Self>) {
        let _ended = hold.0.recv_timeout(LONG);
    }
}

impl Handler<Count> for Pooled {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut SyncContext<Self>) -> usize {
        1
    }
}

#[actix_rt::test]
async fn a_pool_whose_last_thread_died_still_says_that_it_is_connected() {
    let address = SyncArbiter::start(1, || Pooled);
    assert_eq!(address.send(Break::Handler).await, Err(MailboxError::Closed));
    assert!(address.connected());
    assert_eq!(address.send(Count).await, Err(MailboxError::Closed), "nobody is there to serve it");
}

#[actix_rt::test]
async fn the_mailbox_of_a_pool_has_no_limit() {
    let address = SyncArbiter::start(1, || Pooled);
    let (open, hold) = mpsc::channel();
    let held = actix_rt::spawn(address.send(Hold(hold)));
    let taken = (0..50_000).filter(|_| address.try_send(Count).is_ok()).count();
    assert_eq!(taken, 50_000);
    drop(open);
    assert_eq!(held.await.expect("no panic"), Ok(()));
}

//! What actix 0.13 does, as far as this room is built on it. A release that changes one of these must be looked at.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::ThreadId;
use std::time::Duration;

use actix::{Supervised, Supervisor, prelude::*};
use futures_util::future::join_all;

use super::tests::until;

#[derive(Default)]
struct Counts {
    restarting: AtomicUsize,
    stopped: AtomicUsize,
    ticks: AtomicUsize,
}

struct Plain {
    counts: Arc<Counts>,
    value: u32,
    ticking: bool,
}

impl Actor for Plain {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.ticking {
            ctx.run_interval(Duration::from_millis(1), |actor, _| {
                actor.counts.ticks.fetch_add(1, SeqCst);
            });
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.counts.stopped.fetch_add(1, SeqCst);
    }
}

impl Supervised for Plain {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.counts.restarting.fetch_add(1, SeqCst);
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Add(u32);
#[derive(Message)]
#[rtype(result = "()")]
struct Boom;
#[derive(Message)]
#[rtype(result = "()")]
struct LaterBoom;
#[derive(Message)]
#[rtype(result = "()")]
struct Halt;

impl Handler<Add> for Plain {
    type Result = u32;
    fn handle(&mut self, add: Add, _: &mut Context<Self>) -> u32 {
        self.value += add.0;
        self.value
    }
}

impl Handler<Boom> for Plain {
    type Result = ();
    fn handle(&mut self, _: Boom, _: &mut Context<Self>) {
        panic!("boom")
    }
}

impl Handler<LaterBoom> for Plain {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: LaterBoom, _: &mut Context<Self>) -> ResponseFuture<()> {
        Box::pin(async { panic!("later boom") })
    }
}

impl Handler<Halt> for Plain {
    type Result = ();
    fn handle(&mut self, _: Halt, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

fn plain(counts: &Arc<Counts>) -> Plain {
    Plain { counts: Arc::clone(counts), value: 0, ticking: false }
}

#[test]
fn panics_unwind() {
    // Otherwise one bad job would end the process. A constant on purpose: it is the build's setting.
    assert!(catch_unwind(|| panic!("caught")).is_err() && cfg!(panic = "unwind"));
}

#[actix_rt::test]
async fn its_supervisor_does_not_restart_after_a_panic() {
    let counts = Arc::default();
    let made = Arc::clone(&counts);
    let address = Supervisor::start(move |_| plain(&made));
    let queued = (address.send(Boom), address.send(Add(1)));
    assert_eq!(queued.0.await, Err(MailboxError::Closed));
    assert_eq!(queued.1.await, Err(MailboxError::Closed));
    until("the address closes", || !address.connected()).await;
    assert_eq!(counts.restarting.load(SeqCst), 0);
    assert!(matches!(address.try_send(Add(1)), Err(SendError::Closed(_))));
}

#[actix_rt::test]
async fn its_supervisor_restarts_after_stop_with_the_same_value() {
    let counts = Arc::default();
    let made = Arc::clone(&counts);
    let address = Supervisor::start(move |_| plain(&made));
    assert_eq!(address.send(Add(7)).await, Ok(7));
    assert_eq!(address.send(Halt).await, Ok(()));
    assert_eq!(address.send(Add(1)).await, Ok(8));
    assert_eq!(counts.restarting.load(SeqCst), 1);
}

#[actix_rt::test]
async fn a_panic_ends_only_its_own_task_and_runs_hooks_on_the_broken_value() {
    let (broken, well) = (Arc::default(), Arc::default());
    let (victim, neighbour) = (plain(&broken).start(), plain(&well).start());
    assert_eq!(victim.send(Boom).await, Err(MailboxError::Closed));
    assert_eq!(neighbour.send(Add(1)).await, Ok(1));
    until("hooks ran", || broken.stopped.load(SeqCst) == 1).await;
    assert_eq!(well.stopped.load(SeqCst), 0);
}

#[actix_rt::test]
async fn a_panic_in_a_response_future_does_not_touch_the_actor() {
    let counts = Arc::default();
    let address = plain(&counts).start();
    assert_eq!(address.send(Add(2)).await, Ok(2));
    assert_eq!(address.send(LaterBoom).await, Err(MailboxError::Closed));
    assert_eq!(address.send(Add(1)).await, Ok(3));
    assert_eq!(counts.stopped.load(SeqCst), 0);
}

#[actix_rt::test]
async fn an_interval_keeps_an_actor_alive_without_addresses() {
    let counts = Arc::<Counts>::default();
    drop(Plain { ticking: true, ..plain(&counts) }.start());
    until("it ticks on", || counts.ticks.load(SeqCst) > 5).await;
    assert_eq!(counts.stopped.load(SeqCst), 0);
    let idle = Arc::<Counts>::default();
    drop(plain(&idle).start());
    until("an idle one ends", || idle.stopped.load(SeqCst) == 1).await;
}

#[actix_rt::test]
async fn an_address_has_no_backpressure_for_those_who_hold_clones() {
    let counts = Arc::default();
    let address = plain(&counts).start();
    let accepted = (0..1000).filter(|_| address.clone().try_send(Add(1)).is_ok()).count();
    assert_eq!(accepted, 1000, "sixteen is the capacity");
}

struct Blocking {
    guarded: bool,
    made: Arc<AtomicUsize>,
}

impl Actor for Blocking {
    type Context = SyncContext<Self>;
    fn started(&mut self, _: &mut SyncContext<Self>) {
        self.made.fetch_add(1, SeqCst);
    }
}

#[derive(Message)]
#[rtype(result = "Result<ThreadId, ()>")]
struct Where {
    boom: bool,
}

impl Handler<Where> for Blocking {
    type Result = Result<ThreadId, ()>;
    fn handle(&mut self, question: Where, ctx: &mut SyncContext<Self>) -> Self::Result {
        let answer = || {
            assert!(!question.boom, "boom");
            std::thread::current().id()
        };
        if !self.guarded {
            return Ok(answer());
        }
        catch_unwind(AssertUnwindSafe(answer)).map_err(|_panic| ctx.stop())
    }
}

async fn threads_after_a_panic(guarded: bool) -> (usize, usize) {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let address = SyncArbiter::start(2, move || Blocking { guarded, made: Arc::clone(&counted) });
    let boom = address.send(Where { boom: true }).await;
    assert!(matches!(boom, Err(MailboxError::Closed) | Ok(Err(()))));
    let expected = if guarded { 3 } else { 2 };
    until("workers are made", || made.load(SeqCst) == expected).await;
    let answers = join_all((0..2000).map(|_| address.send(Where { boom: false }))).await;
    let threads: HashSet<_> = answers.into_iter().filter_map(|answer| answer.ok()?.ok()).collect();
    (threads.len(), made.load(SeqCst))
}

#[actix_rt::test]
async fn a_blocking_pool_loses_a_thread_per_panic_unless_guarded() {
    assert_eq!(threads_after_a_panic(false).await, (1, 2));
    let (threads, made) = threads_after_a_panic(true).await;
    assert!((1..=2).contains(&threads), "{threads}");
    assert_eq!(made, 3, "the factory made the stopped one anew");
}

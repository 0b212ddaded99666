//! Runs the lives of one actor, one after the other.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::{ContextFut, Envelope, EnvelopeProxy};
use actix::prelude::*;
use futures_util::Stream;
use futures_util::future::poll_fn;
use tokio::time::Instant;

use super::life::{Busy, Vitals};
use super::mailbox::Inbox;
use super::supervisor::Supervisor;
use super::{Exit, Exited, Life, Mailbox, Options, Policy, Supervised};
use crate::ops::panic_hook;

/// Messages handled in one go before other tasks of the arbiter get their turn.
const TURN: usize = 64;

/// All that outlives a single life.
pub(super) struct Guard<A: Supervised> {
    pub(super) spec: A::Spec,
    pub(super) options: Options,
    pub(super) vitals: Arc<Vitals>,
    pub(super) mailbox: Mailbox<A>,
    pub(super) house: Supervisor,
    pub(super) ticket: Ticket,
}

/// The actor's place in the roster; given back when the guard ends, however it ends.
pub(super) struct Ticket {
    pub(super) house: Supervisor,
    pub(super) number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.house.strike_off(self.number);
    }
}

impl<A: Supervised> Guard<A> {
    /// Runs lives until the actor is done or given up.
    pub(super) async fn run(self, inbox: Inbox<A>) {
        let name: Arc<str> = format!("{} {}", self.vitals.kind, self.vitals.key).into();
        let inbox = Rc::new(RefCell::new(inbox));
        let (exit, gave_up) = loop {
            let exit = match Body::begin(&self, &inbox, &name) {
                Ok(body) => body.live(&self, &name).await,
                Err(exit) => exit,
            };
            // Who was asked to end and failed over it has ended all the same.
            if exit == Exit::Done || self.vitals.record().stop {
                break (Exit::Done, false);
            }
            let Some(pause) = self.judge(&exit) else { break (exit, true) };
            if self.nap(pause).await {
                break (Exit::Done, false);
            }
        };
        drop(inbox);
        self.end(exit, gave_up);
    }

    /// Takes note of a failure and decides: the pause before the next life, or nothing when the budget is spent.
    fn judge(&self, exit: &Exit) -> Option<Duration> {
        let (kind, key) = (self.vitals.kind, self.vitals.key.as_str());
        let mut record = self.vitals.record();
        let pause = if record.hopeless { None } else { record.backoff.after_failure(Instant::now()) };
        if let Exit::Panicked(text) = exit {
            record.last_panic = Some(text.clone());
        }
        record.state = if pause.is_some() { "backing-off" } else { "given-up" };
        if pause.is_some() {
            record.restarts += 1;
        }
        drop(record);
        self.vitals.place.tally.failed(matches!(exit, Exit::Panicked(_)), pause.is_some());
        self.house.count(kind, matches!(exit, Exit::Panicked(_)), pause.is_some());
        match pause {
            Some(pause) => log::warn!(kind, key; "{kind} {key} {exit}; starts again in {pause:?}"),
            None => log::error!(kind, key; "{kind} {key} {exit}; given up, {}", self.no_more()),
        }
        pause
    }

    /// Why there is no further life.
    fn no_more(&self) -> &'static str {
        if self.vitals.record().hopeless { "no restart cures that" } else { "its restarts are used up" }
    }

    /// Waits for the pause; true when the actor was asked to stop meanwhile.
    async fn nap(&self, pause: Duration) -> bool {
        let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
        poll_fn(|cx| {
            self.vitals.waker.register(cx.waker());
            if self.vitals.record().stop {
                return Poll::Ready(true);
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    fn end(self, exit: Exit, gave_up: bool) {
        let (kind, key) = (self.vitals.kind, self.vitals.key.clone());
        if gave_up {
            self.house.keep_given_up(self.ticket.number, &self.vitals);
            if self.options.policy == Policy::Permanent {
                self.house.raise("actors", format!("{kind} {key} {exit} and {}", self.no_more()));
            }
        } else {
            self.vitals.record().state = "ended";
        }
        drop(self.ticket);
        if let Some(parent) = self.options.on_exit {
            report(&parent, Exited { kind, key, exit, gave_up });
        }
    }
}

/// Tells the parent. A full mailbox is waited for in a task of its own, because this news comes only once.
fn report(parent: &Recipient<Exited>, news: Exited) {
    let Err(SendError::Full(news)) = parent.try_send(news) else { return };
    let request = parent.send(news);
    actix_rt::spawn(async move {
        if request.await.is_err() {
            log::debug!("the parent of an actor ended before it heard of the actor's end");
        }
    });
}

/// One life: value and context.
struct Body<A: Supervised>(Option<ContextFut<A, Context<A>>>);

impl<A: Supervised> Body<A> {
    fn begin(guard: &Guard<A>, inbox: &Rc<RefCell<Inbox<A>>>, name: &Arc<str>) -> Result<Self, Exit> {
        let incarnation = guard.vitals.begin();
        let life = Life::new(Arc::clone(&guard.vitals), incarnation, guard.mailbox.clone());
        let pump = Pump { inbox: Rc::clone(inbox), vitals: Arc::clone(&guard.vitals), incarnation };
        let made = caught(name, || {
            let mut context = Context::new();
            context.spawn(pump);
            let actor = A::fresh(guard.spec.clone(), life);
            context.into_future(actor)
        });
        made.map(|future| Self(Some(future)))
    }

    /// Polls the actor until its life ends.
    async fn live(mut self, guard: &Guard<A>, name: &Arc<str>) -> Exit {
        let vitals = &guard.vitals;
        let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let exit = poll_fn(|cx| {
            vitals.waker.register(cx.waker());
            if let Some(exit) = vitals.wish() {
                return Poll::Ready(exit);
            }
            let Some(future) = self.0.as_mut() else { return Poll::Ready(Exit::Done) };
            let ended = match caught(name, || Pin::new(future).poll(cx)) {
                Ok(poll) => poll.is_ready(),
                Err(exit) => return Poll::Ready(exit),
            };
            match vitals.wish() {
                Some(exit) => Poll::Ready(exit),
                None if ended => Poll::Ready(Exit::Failed("stopped without saying why".to_owned())),
                None => frozen(vitals, guard.options.limits.frozen, alarm.as_mut(), cx),
            }
        })
        .await;
        if let Err(panic) = self.finish(name) {
            // The end was decided before: what is done must not be done again.
            log::error!("{name} {panic}, while it was dropped after it {exit}");
        }
        exit
    }

    /// Drops value and context without calling any hook on them.
    fn finish(&mut self, name: &Arc<str>) -> Result<(), Exit> {
        let Some(mut future) = self.0.take() else { return Ok(()) };
        future.ctx().terminate();
        caught(name, || drop(future))
    }
}

impl<A: Supervised> Drop for Body<A> {
    /// Reached with a future only when the arbiter itself goes down.
    fn drop(&mut self) {
        if let Some(future) = self.0.as_mut() {
            future.ctx().terminate();
        }
    }
}

/// Ready once the oldest message in work is older than the limit; wakes the task for that moment.
fn frozen(
    vitals: &Vitals,
    limit: Option<Duration>,
    mut alarm: Pin<&mut tokio::time::Sleep>,
    cx: &mut TaskContext<'_>,
) -> Poll<Exit> {
    let Some(at) = limit.zip(vitals.busy_since()).and_then(|(limit, since)| since.checked_add(limit)) else {
        return Poll::Pending;
    };
    if alarm.deadline() != at {
        alarm.as_mut().reset(at);
    }
    alarm.poll(cx).map(|()| Exit::Frozen)
}

fn caught<T>(name: &Arc<str>, work: impl FnOnce() -> T) -> Result<T, Exit> {
    catch_unwind(AssertUnwindSafe(|| panic_hook::within(name, work)))
        .map_err(|payload| Exit::Panicked(panic_hook::text_of(&*payload)))
}

/// Hands messages from the inbox, which outlives lives, to the actor of this life.
struct Pump<A: Supervised> {
    inbox: Rc<RefCell<Inbox<A>>>,
    vitals: Arc<Vitals>,
    incarnation: u64,
}

impl<A: Supervised> Pump<A> {
    /// The next message with a mark for the time it is in work; the two ways in take turns. Messages of recipients
    /// have no name.
    fn next(&self, cx: &mut TaskContext<'_>) -> Option<(Envelope<A>, Busy)> {
        let mut inbox = self.inbox.borrow_mut();
        inbox.others_first = !inbox.others_first;
        for others in [inbox.others_first, !inbox.others_first] {
            let next =
                if others { self.next_of_others(&mut inbox, cx) } else { self.next_of_queue(&mut inbox, cx) };
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn next_of_queue(&self, inbox: &mut Inbox<A>, cx: &mut TaskContext<'_>) -> Option<(Envelope<A>, Busy)> {
        let Poll::Ready(Some(parcel)) = inbox.queue.poll_recv(cx) else { return None };
        let busy = self.vitals.enter(self.incarnation, parcel.message);
        Some((parcel.envelope, busy))
    }

    fn next_of_others(&self, inbox: &mut Inbox<A>, cx: &mut TaskContext<'_>) -> Option<(Envelope<A>, Busy)> {
        let Poll::Ready(Some(envelope)) = Pin::new(&mut inbox.others).poll_next(cx) else { return None };
        Some((envelope, self.vitals.enter(self.incarnation, "news")))
    }
}

impl<A: Supervised> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, cx: &mut TaskContext<'_>) -> Poll<()> {
        for _ in 0..TURN {
            // Also true after a stop: what follows is the next life's.
            if ctx.waiting() || self.vitals.wish().is_some() {
                return Poll::Pending;
            }
            let Some((mut envelope, _busy)) = self.next(cx) else { return Poll::Pending };
            let begun = std::time::Instant::now();
            envelope.handle(actor, ctx);
            self.vitals.place.tally.handled(begun.elapsed());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

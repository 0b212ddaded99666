//! The way to an actor, across its restarts.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::Envelope;
use actix::dev::channel::{AddressReceiver, AddressSender, channel};
use actix::prelude::*;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::life::Vitals;
use super::limited;

/// Why a message got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Too many messages wait already; this one was not accepted and has no effect.
    #[error("the actor's mailbox is full; nothing was done, try again later")]
    Full,
    /// The actor has ended, or it failed over this very message.
    #[error(
        "the actor ended or failed over this message; its effect is unknown, read the state before repeating it"
    )]
    Closed,
    /// No answer in time. A message still waiting will be skipped; one in work goes on.
    #[error("the actor did not answer in time; the effect is unknown, read the state before repeating it")]
    TimedOut,
}

/// The way to one actor, from any thread. It outlives restarts; it does not keep the actor alive, nor does dropping it
/// end the actor.
///
/// [`ask`](Self::ask) and [`tell`](Self::tell) share one queue in order; [`recipient`](Self::recipient) has another.
pub struct Mailbox<A: Actor<Context = Context<A>>> {
    vitals: Arc<Vitals>,
    permits: Arc<Semaphore>,
    limit: usize,
    queue: UnboundedSender<Parcel<A>>,
    others: AddressSender<A>,
}

/// One message on its way. The permit comes back when the message has been handled and the asker has its answer or
/// has left.
pub(super) struct Parcel<A: Actor> {
    pub(super) envelope: Envelope<A>,
    pub(super) message: &'static str,
    _waiting: Waiting,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The receiving side, kept by the guard across lives.
pub(super) struct Inbox<A: Actor> {
    pub(super) queue: UnboundedReceiver<Parcel<A>>,
    pub(super) others: AddressReceiver<A>,
    pub(super) others_first: bool,
}

/// Counts a message for as long as it waits.
struct Waiting(Arc<Vitals>);

impl Waiting {
    fn new(vitals: &Arc<Vitals>) -> Self {
        vitals.arrived();
        Self(Arc::clone(vitals))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.taken();
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    /// Both ends, for at most `limit` messages.
    pub(super) fn pair(vitals: Arc<Vitals>, limit: usize) -> (Self, Inbox<A>) {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS / 2);
        let (queue, parcels) = mpsc::unbounded_channel();
        let (others, from_others) = channel(limit);
        let permits = Arc::new(Semaphore::new(limit));
        let mailbox = Self { vitals, permits, limit, queue, others };
        (mailbox, Inbox { queue: parcels, others: from_others, others_first: false })
    }

    /// Sends a message and waits for its answer, but no longer than `limit`.
    ///
    /// Dropping the future skips the message if it is still waiting; once in work it goes on.
    ///
    /// # Errors
    /// [`Unreachable`]; after `Closed` and `TimedOut` the effect is unknown.
    pub async fn ask<M>(&self, message: M, limit: Duration) -> Result<M::Result, Unreachable>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (answer, answered) = oneshot::channel();
        let _permit = self.post::<M>(Envelope::new(message, Some(answer)))?;
        match limited(limit, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_gone)) => Err(Unreachable::Closed),
            Err(_late) => Err(Unreachable::TimedOut),
        }
    }

    /// Sends a message whose answer nobody waits for. Accepted does not mean handled: should the actor fail over it,
    /// nobody is told.
    ///
    /// # Errors
    /// [`Unreachable::Full`] and [`Unreachable::Closed`]; in both cases nothing was done.
    pub fn tell<M>(&self, message: M) -> Result<(), Unreachable>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.post::<M>(Envelope::new(message, None)).map(drop)
    }

    /// Asks the actor to end in order: it is done after the message it is at. Messages still waiting are not handled.
    pub fn stop(&self) {
        self.vitals.ask_to_stop();
    }

    /// A way in for one type of message, to be given to rooms that may not know this one. It has a queue of its own
    /// with the same limit, which is actix's: every clone may always add one message more. Its `try_send` tells full
    /// from closed.
    #[must_use]
    pub fn recipient<M>(&self) -> Recipient<M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        Addr::new(self.others.clone()).recipient()
    }

    /// Messages that wait or are being answered, without those of recipients.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.limit.saturating_sub(self.permits.available_permits())
    }

    /// Whether the actor has ended for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    #[cfg(test)]
    pub(super) fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    pub(super) fn post<M>(&self, envelope: Envelope<A>) -> Result<Arc<OwnedSemaphorePermit>, Unreachable> {
        if self.queue.is_closed() {
            return Err(Unreachable::Closed);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|refused| match refused {
            TryAcquireError::NoPermits => Unreachable::Full,
            TryAcquireError::Closed => Unreachable::Closed,
        })?;
        let permit = Arc::new(permit);
        let parcel = Parcel {
            envelope,
            message: short_name::<M>(),
            _waiting: Waiting::new(&self.vitals),
            _permit: Arc::clone(&permit),
        };
        self.queue.send(parcel).map_err(|_closed| Unreachable::Closed)?;
        Ok(permit)
    }
}

impl<A: Actor<Context = Context<A>>> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self {
            vitals: Arc::clone(&self.vitals),
            permits: Arc::clone(&self.permits),
            limit: self.limit,
            queue: self.queue.clone(),
            others: self.others.clone(),
        }
    }
}

/// A type's name without the path of its module.
fn short_name<M>() -> &'static str {
    let full = std::any::type_name::<M>();
    let end = full.find('<').unwrap_or(full.len());
    let path = full.get(..end).unwrap_or(full);
    path.rfind("::").and_then(|at| full.get(at + 2..)).unwrap_or(full)
}

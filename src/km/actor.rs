//! The client actor: one connection, kept alive, opened anew when it breaks.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::breaker::{Breaker, Pace};
use super::error::{Cause, Error};
use super::link::{Link, LinkError, Target};
use super::wire::{Answer, LaterCause, LeaseRequest, SealedBy};
use super::{Ask, Lease, SealInfo, Settings};
use crate::model::{Boot, Micros, Uid};
use crate::ops::{Chain, Health, Metrics, State};
use crate::supervision::{Life, Supervised};

/// The part of health that this actor reports.
const PART: &str = "key manager";

/// Asks for a lease.
#[derive(Message)]
#[rtype(result = "Result<Lease, Error>")]
pub(super) struct FetchLease(pub(super) Ask);

/// Time to see whether the key manager is there.
#[derive(Message)]
#[rtype(result = "()")]
struct LookTick;

/// What the client knows for ever.
pub(super) struct Wiring {
    pub(super) target: Target,
    pub(super) settings: Settings,
    pub(super) node: Boot,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

/// The connection while nobody uses it. Whoever uses it takes it out, so that a dropped use drops it.
type Slot = Arc<Mutex<Option<Link>>>;

pub(super) struct Client {
    wiring: Arc<Wiring>,
    life: Life,
    breaker: Breaker,
    slot: Slot,
}

impl Supervised for Client {
    type Spec = Arc<Wiring>;
    const KIND: &'static str = "km";

    fn key(spec: &Arc<Wiring>) -> String {
        spec.target.address.clone()
    }

    fn fresh(wiring: Arc<Wiring>, life: Life) -> Self {
        let settings = &wiring.settings;
        let pace = Pace { failures: settings.failures, first: settings.rest_first, max: settings.rest_max };
        Self { breaker: Breaker::new(pace), slot: Slot::default(), wiring, life }
    }
}

impl Actor for Client {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.notify(LookTick);
    }
}

impl Handler<FetchLease> for Client {
    type Result = ResponseActFuture<Self, Result<Lease, Error>>;

    fn handle(&mut self, FetchLease(ask): FetchLease, _: &mut Context<Self>) -> Self::Result {
        if let Err(rest) = self.breaker.check(Instant::now()) {
            let error = Error::Unavailable(Cause::Resting(rest));
            self.wiring.metrics.km_lease(error.word());
            return Box::pin(fut::ready(Err(error)));
        }
        let (wiring, slot, busy) =
            (Arc::clone(&self.wiring), Arc::clone(&self.slot), self.life.enter("FetchLease"));
        let fetched = async move {
            let fetched = timeout(wiring.settings.answer, fetch(&wiring, &slot, &ask)).await;
            drop(busy);
            fetched.unwrap_or(Err(Error::TimedOut))
        };
        Box::pin(fetched.into_actor(self).map(|fetched, act, _| {
            act.note(fetched.as_ref().err());
            act.wiring.metrics.km_lease(fetched.as_ref().map_or_else(Error::word, |_| "granted"));
            fetched
        }))
    }
}

impl Handler<LookTick> for Client {
    type Result = ();

    fn handle(&mut self, _: LookTick, ctx: &mut Context<Self>) {
        ctx.notify_later(LookTick, self.wiring.settings.look);
        // In use: the user will tell how it went.
        let Ok(slot) = Arc::clone(&self.slot).try_lock_owned() else { return };
        if self.breaker.check(Instant::now()).is_err() {
            return;
        }
        let wiring = Arc::clone(&self.wiring);
        let looked = async move {
            let looked = timeout(wiring.settings.answer, look(&wiring.target, slot)).await;
            looked.unwrap_or(Err(Error::TimedOut))
        };
        ctx.spawn(looked.into_actor(self).map(|looked, act, _| act.note(looked.as_ref().err())));
    }
}

impl Client {
    /// Takes note of how a try went: for the breaker and for health.
    fn note(&mut self, error: Option<&Error>) {
        let health = &self.wiring.health;
        let Some(error) = error.filter(|e| !matches!(e, Error::Busy | Error::Denied { .. })) else {
            self.breaker.succeeded();
            health.set(PART, State::Ok, "");
            return;
        };
        let why = format!("{}; jobs that need a credential wait", Chain(error));
        health.set(PART, State::Degraded, why);
        if matches!(error, Error::Unavailable(Cause::Database | Cause::Keys)) {
            // It answers, so asking again costs nobody anything.
            self.breaker.succeeded();
        } else {
            self.breaker.failed(Instant::now());
        }
    }
}

async fn look(target: &Target, mut slot: tokio::sync::OwnedMutexGuard<Option<Link>>) -> Result<(), Error> {
    let looked = match slot.take() {
        Some(mut link) => link.ping().await.map(|()| link),
        None => Link::open(target).await,
    };
    *slot = Some(looked.map_err(|e| of_link(target, e))?);
    Ok(())
}

async fn fetch(wiring: &Wiring, slot: &Slot, ask: &Ask) -> Result<Lease, Error> {
    let target = &wiring.target;
    let mut slot = slot.lock().await;
    if let Some(mut kept) = slot.take() {
        match exchange(wiring, &mut kept, ask).await {
            // Closed while it was not used: nobody has answered, so the question is put once more.
            Err(e) if e.is_stale() => log::debug!("the kept connection to the key manager had ended"),
            other => {
                let (lease, link) = (other.map_err(|e| of_link(target, e))?, kept);
                *slot = Some(link);
                return lease;
            }
        }
    }
    let mut link = Link::open(target).await.map_err(|e| of_link(target, e))?;
    let lease = exchange(wiring, &mut link, ask).await.map_err(|e| of_link(target, e))?;
    *slot = Some(link);
    lease
}

/// One question and its answer. The outer result is about the connection, the inner one about the lease.
async fn exchange(wiring: &Wiring, link: &mut Link, ask: &Ask) -> Result<Result<Lease, Error>, LinkError> {
    let request = LeaseRequest {
        request_id: Uid::random(),
        job: ask.job,
        attempt: ask.attempt,
        customer: ask.customer,
        account: ask.account,
        credential: ask.credential.clone(),
        purpose: ask.purpose.clone(),
        node: wiring.node.to_string(),
        issued_at: Micros::wall(),
    };
    let request_id = request.request_id;
    let (answer, by) = link.ask(&wiring.target.channel, request).await?;
    Ok(read(answer, &by, request_id))
}

fn read(answer: Answer, by: &SealedBy, request_id: Uid) -> Result<Lease, Error> {
    match answer {
        Answer::Lease(granted) => Ok(Lease {
            access_key: granted.access_key,
            secret: granted.secret,
            endpoint: granted.endpoint,
            expires_at: granted.expires_at,
            sealed: SealInfo { algorithm: by.algorithm.as_str(), key_id: by.key_id.to_string(), request_id },
        }),
        Answer::Denied => Err(Error::Denied { request: request_id }),
        Answer::Later(LaterCause::Rate) => Err(Error::Busy),
        Answer::Later(LaterCause::Database) => Err(Error::Unavailable(Cause::Database)),
        Answer::Later(LaterCause::Keys) => Err(Error::Unavailable(Cause::Keys)),
        Answer::Clock(theirs) => {
            let ours = Micros::wall();
            let apart: Duration = ours.since(theirs).max(theirs.since(ours));
            let text = format!("its clock and ours differ by {} s; set the clocks", apart.as_secs());
            Err(Error::Protocol(text))
        }
    }
}

fn of_link(target: &Target, error: LinkError) -> Error {
    match error {
        LinkError::Io(_) | LinkError::Closed => {
            let address = target.address.clone();
            Error::Unavailable(Cause::Connection { address, source: Box::new(error) })
        }
        LinkError::Version | LinkError::Wire(_) => Error::Protocol(Chain(&error).to_string()),
    }
}

/// Makes the actor panic in the middle of a message.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) enum Trip {
    Panic,
    Fail,
    Stop,
}

#[cfg(test)]
impl Handler<Trip> for Client {
    type Result = ();

    fn handle(&mut self, how: Trip, ctx: &mut Context<Self>) {
        match how {
            Trip::Panic => panic!("tripped by a test"),
            Trip::Fail => self.life.fail("tripped by a test"),
            Trip::Stop => ctx.stop(),
        }
    }
}

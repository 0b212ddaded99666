//! One actor a guest: dials it, serves the session, dials again; passes requests to the session.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::directory::Face;
use super::session::{self, Ask, Target};
use super::{Error, Links};
use crate::model::ServerId;
use crate::ops::Chain;
use crate::supervision::{Life, Supervised};
use crate::wire::{LookAnswer, Pong, Reference};

/// Commands wait, or the guest was just there.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Nudged;

/// Ask the guest's journal.
#[derive(Message)]
#[rtype(result = "Result<LookAnswer, Error>")]
pub(super) struct LookUp(pub(super) Reference);

/// Ask for a sign of life.
#[derive(Message)]
#[rtype(result = "Result<Pong, Error>")]
pub(super) struct PingNow;

/// End a command.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CancelIt(pub(super) Reference);

/// Identity and links of one guest's actor.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) links: Arc<Links>,
    pub(super) target: Target,
    pub(super) face: Face,
    pub(super) number: u64,
}

/// See the module.
pub(super) struct AgentActor {
    spec: Spec,
    life: Life,
    asks: mpsc::Sender<Ask>,
    inbox: Option<mpsc::Receiver<Ask>>,
}

/// The server and the number in an actor's key.
pub(super) fn parse_key(key: &str) -> Option<(ServerId, u64)> {
    let (server, number) = key.split_once('#')?;
    Some((ServerId(server.parse().ok()?), number.parse().ok()?))
}

impl Supervised for AgentActor {
    type Spec = Spec;
    const KIND: &'static str = "agent";

    fn key(spec: &Spec) -> String {
        format!("{}#{}", spec.target.server, spec.number)
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        let (asks, inbox) = mpsc::channel(spec.links.limits.waiting);
        Self { spec, life, asks, inbox: Some(inbox) }
    }
}

impl Actor for AgentActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(inbox) = self.inbox.take() else { return };
        let served = serve(self.spec.clone(), inbox);
        ctx.spawn(served.into_actor(self).map(|(), actor, _| actor.life.fail("its requests ended")));
    }
}

impl Handler<Nudged> for AgentActor {
    type Result = ();

    fn handle(&mut self, _: Nudged, _: &mut Context<Self>) {
        // Full: it will look at the rows anyway.
        let _ = self.asks.try_send(Ask::Nudged);
    }
}

impl Handler<CancelIt> for AgentActor {
    type Result = ();

    fn handle(&mut self, CancelIt(reference): CancelIt, _: &mut Context<Self>) {
        if self.asks.try_send(Ask::Cancel(Box::new(reference))).is_err() {
            log::warn!("a cancel for server {} is lost: too many requests wait", self.spec.target.server);
        }
    }
}

impl Handler<LookUp> for AgentActor {
    type Result = ResponseFuture<Result<LookAnswer, Error>>;

    fn handle(&mut self, LookUp(reference): LookUp, _: &mut Context<Self>) -> Self::Result {
        self.answer(|reply| Ask::Look(Box::new(reference), reply))
    }
}

impl Handler<PingNow> for AgentActor {
    type Result = ResponseFuture<Result<Pong, Error>>;

    fn handle(&mut self, _: PingNow, _: &mut Context<Self>) -> Self::Result {
        self.answer(Ask::Ping)
    }
}

impl AgentActor {
    fn answer<T: 'static>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Ask,
    ) -> ResponseFuture<Result<T, Error>> {
        let (reply, answer) = oneshot::channel();
        let server = self.spec.target.server;
        let sent = self.asks.try_send(ask(reply));
        Box::pin(async move {
            if sent.is_err() {
                return Err(Error::Busy);
            }
            answer.await.unwrap_or(Err(Error::Interrupted(server)))
        })
    }
}

/// Dials and serves until nobody can ask any more.
async fn serve(spec: Spec, mut asks: mpsc::Receiver<Ask>) {
    let limits = &spec.links.limits;
    let mut pause = limits.retry_first;
    loop {
        let began = Instant::now();
        let trouble = match session::open(&spec.links, &spec.target, &spec.face).await {
            Ok(mut session) => session.run(&mut asks).await,
            Err(trouble) => trouble,
        };
        let text = Chain(&trouble).to_string();
        // A guest that stays away is told of once, not at each dialling.
        let level = if spec.face.lost(&text) { log::Level::Info } else { log::Level::Debug };
        log::log!(level, server = spec.target.server.0;
            "no session with server {} at {}: {text}", spec.target.server, spec.target.address);
        // A session that lasted was no failure to connect.
        pause = if began.elapsed() > limits.retry_longest { limits.retry_first } else { pause };
        if !rest(spec.target.server, (limits.retry_first, jittered(pause)), &mut asks).await {
            return;
        }
        pause = (pause * 2).min(limits.retry_longest);
    }
}

/// Waits before the next dialling; who asks meanwhile is told that there is no session. A nudge shortens the wait to its
/// first length, because the guest may just have enrolled. False when nobody can ask any more.
async fn rest(
    server: ServerId,
    (shortest, pause): (Duration, Duration),
    asks: &mut mpsc::Receiver<Ask>,
) -> bool {
    let began = Instant::now();
    let mut until = began + pause;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            ask = asks.recv() => match ask {
                None => return false,
                Some(Ask::Nudged) => until = until.min(began + shortest),
                Some(ask) => ask.refuse(server),
            }
        }
    }
}

/// Between half and all of a pause, so that guests that were lost together are not dialled together.
fn jittered(pause: Duration) -> Duration {
    let [byte] = crate::crypto::random_bytes::<1>();
    pause / 2 + pause.mul_f64(f64::from(byte) / 510.0)
}

/// Bytes of the future that lives as long as its guest.
#[cfg(test)]
pub(super) fn size_of_a_session() -> usize {
    fn of<F>(_: impl FnOnce(Spec, mpsc::Receiver<Ask>) -> F) -> usize {
        size_of::<F>()
    }
    of(serve)
}

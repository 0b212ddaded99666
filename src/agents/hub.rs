//! The hub: keeps one actor for each accepted agent, passes nudges on, and writes down who was heard.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::ready;
use actix::prelude::*;

use super::Links;
use super::actor::{self, AgentActor};
use super::directory::{Directory, Entry, Face};
use super::session::Target;
use crate::model::{AgentId, CustomerId, Micros, ServerId};
use crate::mq::{Nudge, Topic};
use crate::ops::{Chain, State};
use crate::store::AnyConnection;
use crate::store::provisioning::agent::{self, AgentRow};
use crate::store::provisioning::{server, view};
use crate::supervision::{Arbiter, Exited, Life, Options, Supervised, Supervisor};

/// Name of the part in health.
const PART: &str = "guests";
/// A command that waits for longer has a guest that is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Guests without a session whose commands are looked for.
const MOST_AWAY: usize = 500;

/// A guest has just enrolled.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Appeared(pub(super) ServerId);

/// Links of the hub.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) links: Arc<Links>,
    pub(super) directory: Directory,
    pub(super) supervisor: Supervisor,
    pub(super) arbiter: Arbiter,
}

/// See the module.
pub(super) struct Hub {
    spec: Spec,
    life: Life,
    written: Micros,
}

impl Supervised for Hub {
    type Spec = Spec;
    const KIND: &'static str = "agents";

    fn key(spec: &Spec) -> String {
        spec.links.boot.to_string()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life, written: Micros(0) }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let inbox = self.spec.links.queue.subscribe(Topic::Guests);
        ctx.add_stream(futures_util::stream::unfold(inbox, |mut inbox| async move {
            inbox.recv().await.map(|nudge| (nudge, inbox))
        }));
        self.reconcile(None, ctx);
        ctx.run_interval(self.spec.links.limits.sweep, |hub, ctx| hub.reconcile(None, ctx));
        ctx.run_interval(self.spec.links.limits.heard_every, Self::write_heard);
    }
}

impl StreamHandler<Nudge> for Hub {
    fn handle(&mut self, nudge: Nudge, _: &mut Context<Self>) {
        if let Nudge::Guest(server) = nudge {
            self.spec.links.metrics.nudge(Topic::Guests.as_str());
            self.spec.directory.nudge(server);
        }
        self.spec.links.queue.settle(nudge);
    }

    fn finished(&mut self, _: &mut Context<Self>) {
        self.life.fail("the queue closed the inbox of the agents");
    }
}

impl Handler<Appeared> for Hub {
    type Result = ();

    fn handle(&mut self, Appeared(server): Appeared, ctx: &mut Context<Self>) {
        self.reconcile(Some(server), ctx);
    }
}

impl Handler<Exited> for Hub {
    type Result = ();

    fn handle(&mut self, news: Exited, _: &mut Context<Self>) {
        let Some((server, number)) = actor::parse_key(&news.key) else { return };
        if news.gave_up {
            log::error!(server = server.0; "the actor for server {server} was given up, the next sweep starts another: {}", news.exit);
        }
        self.spec.directory.left(server, number);
    }
}

impl Hub {
    /// Starts and stops actors until they fit the rows; then wakes the actor of the guest that asked for it.
    fn reconcile(&self, wake: Option<ServerId>, ctx: &mut Context<Self>) {
        let store = self.spec.links.store.clone();
        let views = self.spec.directory.views();
        let away = views.iter().filter(|view| !view.connected && view.trouble.is_some());
        let away: Vec<i64> = away.map(|view| view.server.0).take(MOST_AWAY).collect();
        let rows = async move {
            let read = move |c: &mut AnyConnection| {
                let before = view::now(c)?.minus(PATIENCE);
                Ok((agent::accepted(c)?, agent::kept_waiting(c, &away, before)?))
            };
            store.read(read).await
        };
        ctx.spawn(rows.into_actor(self).then(move |rows, hub, _| {
            match rows {
                Ok((rows, kept_waiting)) => {
                    hub.fit(&rows);
                    hub.tell(kept_waiting);
                }
                Err(error) => {
                    log::warn!("the agents cannot be read, the next sweep tries again: {}", Chain(&error));
                }
            }
            if let Some(server) = wake {
                hub.spec.directory.nudge(server);
            }
            ready(())
        }));
    }

    fn fit(&self, rows: &[AgentRow]) {
        let targets: Vec<Target> = rows.iter().filter_map(target).collect();
        let directory = &self.spec.directory;
        for server in directory.servers() {
            if !targets.iter().any(|target| target.server == server) {
                log::info!(server = server.0; "the agent of server {server} is not dialled any more");
                directory.remove(server);
            }
        }
        for target in targets {
            if directory.address(target.server) != Some(target.address) {
                self.start(target);
            }
        }
        let connected = directory.views().iter().filter(|view| view.connected).count();
        self.spec.links.metrics.agents_connected(connected);
    }

    /// A guest without a session is no fault by itself: it may be stopped. One that commands wait for is.
    fn tell(&self, kept_waiting: i64) {
        let health = &self.spec.links.health;
        if kept_waiting == 0 {
            health.set(PART, State::Ok, "");
        } else {
            let text = format!("guests without a session that commands wait for: {kept_waiting}");
            health.set(PART, State::Degraded, text);
        }
    }

    fn start(&self, target: Target) {
        let (server, address) = (target.server, target.address);
        let (number, face) = (self.spec.directory.next_number(), Face::new(&target));
        let spec = actor::Spec { links: Arc::clone(&self.spec.links), target, face: face.clone(), number };
        let on_exit = self.life.mailbox::<Self>().map(|mailbox| mailbox.recipient::<Exited>());
        let mut options = Options::transient(on_exit);
        options.limits.mailbox = self.spec.links.limits.waiting;
        let mailbox = self.spec.supervisor.spawn::<AgentActor>(&self.spec.arbiter, spec, options);
        self.spec.directory.enter(server, Entry { number, address, mailbox, face });
    }

    /// One write for all guests that were heard since the last.
    fn write_heard(&mut self, ctx: &mut Context<Self>) {
        let (since, now) = (self.written, Micros::wall());
        self.written = now;
        let heard: Vec<i64> = self
            .spec
            .directory
            .views()
            .iter()
            .filter(|view| view.heard.is_some_and(|at| at > since))
            .map(|view| view.server.0)
            .collect();
        if heard.is_empty() {
            return;
        }
        let store = self.spec.links.store.clone();
        let written = async move {
            let written = store
                .write(move |c| Ok(agent::heard(c, &heard, now)? + server::heard(c, &heard, now)?))
                .await;
            if let Err(error) = written {
                log::warn!("who was heard is not written down: {}", Chain(&error));
            }
        };
        ctx.spawn(written.into_actor(self));
    }
}

fn target(row: &AgentRow) -> Option<Target> {
    let address = row.address.as_ref()?.parse().ok()?;
    let server = ServerId(row.server?);
    Some(Target { agent: AgentId(row.id), customer: CustomerId(row.customer), server, address })
}

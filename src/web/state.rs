//! What every handler gets.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpMessage as _, HttpRequest};
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::agents::Agents;
use crate::crypto::KeyRing;
use crate::model::Uid;
use crate::ops::{Health, Metrics};
use crate::registry::Registry;
use crate::store::Store;
use crate::store::provisioning::sequence::Sequencer;
use crate::supervision::Supervisor;

use super::console::Desk;
use super::live::Streams;
use super::stale::Memory;

/// Limits of the listeners.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body of the APIs, in bytes.
    pub body: usize,
    /// Largest body from a guest, in bytes.
    pub agent_body: usize,
    /// Longest wait for a whole body.
    pub body_deadline: Duration,
    /// Longest wait for the head of a request.
    pub head_deadline: Duration,
    /// Longest wait for a client to take its answer when the connection closes.
    pub disconnect: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Requests worked on at once; one more is answered 503.
    pub concurrent: usize,
    /// Connections a worker thread holds.
    pub connections: usize,
    /// Worker threads a listener has.
    pub workers: usize,
    /// How long open requests get when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            agent_body: 256 * 1024,
            body_deadline: Duration::from_secs(10),
            head_deadline: Duration::from_secs(5),
            disconnect: Duration::from_secs(2),
            keep_alive: Duration::from_secs(75),
            concurrent: 1024,
            connections: 8192,
            workers: 2,
            drain: Duration::from_secs(5),
        }
    }
}

/// Handles to the rooms below. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The provisioning database.
    pub store: Store,
    /// Numbers for new things.
    pub sequencer: Sequencer,
    /// Jobs: submit, cancel, news.
    pub registry: Registry,
    /// Sessions with guests, where this process holds them.
    pub agents: Option<Agents>,
    /// Who may.
    pub access: Access,
    /// Seals user data before a job is stored.
    pub user_data: Arc<KeyRing>,
    /// Limits of the listeners.
    pub limits: Limits,
    /// How this process is.
    pub health: Health,
    /// Figures.
    pub metrics: Metrics,
    /// Actors, for the operators' view.
    pub supervisor: Supervisor,
    /// Streams of events that are open.
    pub streams: Arc<Streams>,
    /// Attempts to log in.
    pub desk: Arc<Desk>,
    /// Answers to reads, for the time the database is away.
    pub memory: Arc<Memory>,
    /// Requests worked on; shared by all workers and listeners of the APIs.
    pub gate: Arc<Semaphore>,
}

impl State {
    /// State over these rooms.
    #[must_use]
    pub fn new(parts: Parts, limits: Limits) -> Self {
        let Parts { store, sequencer, registry, agents, access, user_data, health, metrics, supervisor } =
            parts;
        let gate = Arc::new(Semaphore::new(limits.concurrent));
        let (streams, desk, memory) = (Arc::default(), Arc::default(), Arc::default());
        Self {
            store,
            sequencer,
            registry,
            agents,
            access,
            user_data,
            limits,
            health,
            metrics,
            supervisor,
            streams,
            desk,
            memory,
            gate,
        }
    }
}

/// What [`State::new`] needs from the other rooms.
pub struct Parts {
    /// The provisioning database.
    pub store: Store,
    /// Numbers for new things; one for the whole process.
    pub sequencer: Sequencer,
    /// Jobs.
    pub registry: Registry,
    /// Sessions with guests, where this process holds them.
    pub agents: Option<Agents>,
    /// Who may.
    pub access: Access,
    /// Seals user data before a job is stored.
    pub user_data: Arc<KeyRing>,
    /// How this process is.
    pub health: Health,
    /// Figures.
    pub metrics: Metrics,
    /// Actors, for the operators' view.
    pub supervisor: Supervisor,
}

/// Name of one request, made by us: in logs, in error answers, in the header `x-request-id`, on the job it submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub Uid);

impl RequestId {
    /// The id the listener gave this request; a fresh one where none did.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        request.extensions().get::<Self>().copied().unwrap_or_else(|| Self(Uid::random()))
    }
}

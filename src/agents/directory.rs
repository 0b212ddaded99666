//! Which guests this process dials. Plain data behind a short lock; survives every actor of the room.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::actor::{AgentActor, Nudged};
use crate::model::{AgentId, CustomerId, Micros, ServerId};
use crate::supervision::Mailbox;
use crate::wire::GuestStats;

/// How a guest's session is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct AgentView {
    /// The agent.
    pub agent: AgentId,
    /// Its server.
    pub server: ServerId,
    /// The tenant.
    pub customer: CustomerId,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Whether there is a session now.
    pub connected: bool,
    /// Number of the present or last session.
    pub session: i64,
    /// Version the agent said.
    pub version: i64,
    /// When it was heard last, in this process's clock.
    pub heard: Option<Micros>,
    /// Commands in flight.
    pub in_flight: usize,
    /// Figures of the last answer to a ping.
    pub stats: Option<GuestStats>,
    /// Why there is no session.
    pub trouble: Option<String>,
}

/// A view that its actor writes and others read.
#[derive(Clone)]
pub(super) struct Face(Arc<Mutex<AgentView>>);

impl Face {
    pub(super) fn new(target: &super::session::Target) -> Self {
        Self(Arc::new(Mutex::new(AgentView {
            agent: target.agent,
            server: target.server,
            customer: target.customer,
            address: target.address,
            connected: false,
            session: 0,
            version: 0,
            heard: None,
            in_flight: 0,
            stats: None,
            trouble: None,
        })))
    }

    pub(super) fn show(&self, change: impl FnOnce(&mut AgentView)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says that there is no session, and why; whether that is news.
    pub(super) fn lost(&self, why: &str) -> bool {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = view.connected || view.trouble.as_deref() != Some(why);
        view.connected = false;
        view.in_flight = 0;
        view.trouble = Some(why.to_owned());
        news
    }

    pub(super) fn view(&self) -> AgentView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One guest. The number tells a later actor for the same guest from an earlier one.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) address: SocketAddr,
    pub(super) mailbox: Mailbox<AgentActor>,
    pub(super) face: Face,
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<ServerId, Entry>,
    next: u64,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Directory(Arc<Mutex<Shelf>>);

impl Directory {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for the next actor.
    pub(super) fn next_number(&self) -> u64 {
        let mut shelf = self.shelf();
        shelf.next += 1;
        shelf.next
    }

    /// Enters an actor; the one before is stopped.
    pub(super) fn enter(&self, server: ServerId, entry: Entry) {
        if let Some(older) = self.shelf().entries.insert(server, entry) {
            older.mailbox.stop();
        }
    }

    /// Stops and forgets a guest's actor.
    pub(super) fn remove(&self, server: ServerId) {
        if let Some(entry) = self.shelf().entries.remove(&server) {
            entry.mailbox.stop();
        }
    }

    /// Forgets the actor of this number, if it is still the guest's.
    pub(super) fn left(&self, server: ServerId, number: u64) {
        let mut shelf = self.shelf();
        if shelf.entries.get(&server).is_some_and(|entry| entry.number == number) {
            shelf.entries.remove(&server);
        }
    }

    pub(super) fn address(&self, server: ServerId) -> Option<SocketAddr> {
        self.shelf().entries.get(&server).map(|entry| entry.address)
    }

    pub(super) fn servers(&self) -> Vec<ServerId> {
        self.shelf().entries.keys().copied().collect()
    }

    pub(super) fn mailbox(&self, server: ServerId) -> Option<Mailbox<AgentActor>> {
        self.shelf().entries.get(&server).map(|entry| entry.mailbox.clone())
    }

    pub(super) fn views(&self) -> Vec<AgentView> {
        self.shelf().entries.values().map(|entry| entry.face.view()).collect()
    }

    pub(super) fn nudge(&self, server: ServerId) {
        if let Some(mailbox) = self.mailbox(server) {
            // Full means that it has news already; closed, that it is being replaced. The rows wait.
            let _ = mailbox.tell(Nudged);
        }
    }
}

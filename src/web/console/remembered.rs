//! Who was in and what the overview showed, for the time the database is away.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::figures::Found;
use crate::access::Principal;
use crate::model::CustomerId;

/// How long a session is believed that cannot be looked at.
const SEEN: Duration = Duration::from_secs(600);
/// Sessions remembered.
const MOST_SEEN: usize = 4096;
/// Tenants whose last figures are kept.
const TENANTS: usize = 64;

/// A session: when it was looked at last, whose it is, the mark of its forms.
type Session = (Instant, Principal, String);

/// One for all workers of a process.
#[derive(Default)]
pub(super) struct Remembered {
    /// By the hash of their token.
    sessions: Mutex<HashMap<String, Session>>,
    figures: Mutex<HashMap<CustomerId, Arc<Found>>>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}

impl Remembered {
    /// Remembers a session that was just looked at.
    pub(super) fn seen(&self, token_hash: &str, (principal, csrf): &(Principal, String)) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MOST_SEEN {
            sessions.retain(|_, (at, ..)| at.elapsed() < SEEN);
        }
        if sessions.len() < MOST_SEEN || sessions.contains_key(token_hash) {
            sessions.insert(token_hash.to_owned(), (Instant::now(), principal.clone(), csrf.clone()));
        }
    }

    /// The session is over.
    pub(super) fn forget(&self, token_hash: &str) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(token_hash);
    }

    /// A session that was looked at not long ago.
    pub(super) fn last_seen(&self, token_hash: &str) -> Option<(Principal, String)> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, principal, csrf) = sessions.get(token_hash).filter(|(at, ..)| at.elapsed() < SEEN)?;
        Some((principal.clone(), csrf.clone()))
    }

    /// Keeps what a tenant's overview is made of.
    pub(super) fn keep_figures(&self, customer: CustomerId, found: &Arc<Found>) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.len() < TENANTS || figures.contains_key(&customer) {
            figures.insert(customer, Arc::clone(found));
        }
    }

    /// What a tenant's overview was made of last.
    pub(super) fn last_figures(&self, customer: CustomerId) -> Option<Arc<Found>> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).get(&customer).cloned()
    }
}

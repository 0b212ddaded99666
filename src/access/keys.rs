//! API keys: found by their id, opened once, kept in memory for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::QueryResult;

use super::{Error, Identity, Principal, Rule};
use crate::crypto::{Aad, KeyRing, Secret};
use crate::model::{AccountId, CustomerId, Micros, UserId};
use crate::store::provisioning::access::{self as rows, ACTIVE, ApiKeyRow, PersonRow};
use crate::store::{AnyConnection, Store};

/// How long a key and its rules are kept in memory: a key taken away still works this long at most.
pub const KEPT: Duration = Duration::from_secs(10);

/// How long a key is still believed whose row cannot be read, because the database is away: nobody can take it away
/// there meanwhile, and a node cut off alone has to stop some time. What it may do then is read what it read before.
const KEPT_AWAY: Duration = Duration::from_secs(600);

/// Most keys in memory; the memory of one is below 2 KiB.
const MOST: usize = 4096;

/// Longest access key looked for.
const LONGEST_KEY: usize = 64;

/// Seals the secret of an API key to its place.
#[must_use]
pub fn seal_api_secret(ring: &KeyRing, customer: CustomerId, access_key: &str, secret: &[u8]) -> Vec<u8> {
    ring.seal(&place(customer, access_key), secret)
}

fn place(customer: CustomerId, access_key: &str) -> Aad {
    Aad::new("api-key").with("customer", customer.0.to_be_bytes()).with("access-key", access_key)
}

struct Known {
    secret: Secret,
    principal: Principal,
    expires_at: Option<Micros>,
    read: Instant,
}

pub(super) struct Keys {
    ring: Arc<KeyRing>,
    known: Mutex<HashMap<String, Arc<Known>>>,
}

impl Keys {
    pub(super) fn new(ring: Arc<KeyRing>) -> Self {
        Self { ring, known: Mutex::default() }
    }

    /// The owner of a key, when `verify` accepts its secret. An unknown key costs the same work.
    pub(super) async fn admit(
        &self,
        store: &Store,
        access_key: &str,
        verify: impl Fn(&[u8]) -> bool,
        what: &'static str,
    ) -> Result<Principal, Error> {
        let now = Micros::wall();
        let found = match self.remembered(access_key) {
            Some(known) => Some(known),
            None => match self.load(store, access_key).await {
                Err(Error::Store(error)) => Some(self.last_known(access_key).ok_or(Error::Store(error))?),
                read => read?,
            },
        };
        let Some(known) = found.filter(|known| known.expires_at.is_none_or(|at| now < at)) else {
            // The result is thrown away; the time it takes is the point.
            std::hint::black_box(verify(b"no such key: the work is done all the same"));
            return Err(Error::UnknownKey(access_key.chars().take(LONGEST_KEY).collect()));
        };
        if verify(known.secret.expose()) {
            Ok(known.principal.clone())
        } else {
            Err(Error::WrongSignature(what))
        }
    }

    fn remembered(&self, access_key: &str) -> Option<Arc<Known>> {
        self.lock().get(access_key).filter(|known| known.read.elapsed() < KEPT).cloned()
    }

    fn last_known(&self, access_key: &str) -> Option<Arc<Known>> {
        self.lock().get(access_key).filter(|known| known.read.elapsed() < KEPT_AWAY).cloned()
    }

    async fn load(&self, store: &Store, access_key: &str) -> Result<Option<Arc<Known>>, Error> {
        if access_key.is_empty() || access_key.len() > LONGEST_KEY {
            return Ok(None);
        }
        let name = access_key.to_owned();
        let found = store.read(move |c| key_with_rules(c, &name)).await.map_err(Error::Store)?;
        let Some((row, acls)) = found else {
            self.lock().remove(access_key);
            return Ok(None);
        };
        let customer = CustomerId(row.customer);
        let secret = self
            .ring
            .open(&place(customer, &row.access_key), &row.sealed_secret)
            .map_err(|e| Error::Unreadable(row.access_key.clone(), e))?;
        let identity = Identity {
            customer,
            account: AccountId(row.account),
            person: UserId(row.person),
            access_key: row.access_key.clone(),
            name: row.name,
        };
        let known = Arc::new(Known {
            secret,
            principal: Principal::new(identity, rules(&acls)),
            expires_at: row.expires_at.map(Micros),
            read: Instant::now(),
        });
        self.remember(row.access_key, &known);
        Ok(Some(known))
    }

    fn remember(&self, access_key: String, known: &Arc<Known>) {
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, known| known.read.elapsed() < KEPT);
        }
        // More live keys than fit within ten seconds: the rest is read from the database each time.
        if all.len() < MOST || all.contains_key(&access_key) {
            all.insert(access_key, Arc::clone(known));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An active key of an active person, with the access control lists of the person's roles in the key's account.
fn key_with_rules(
    connection: &mut AnyConnection,
    access_key: &str,
) -> QueryResult<Option<(ApiKeyRow, Vec<String>)>> {
    let Some(row) = rows::api_key(connection, access_key)?.filter(|row| row.state == ACTIVE) else {
        return Ok(None);
    };
    let (customer, person) = (CustomerId(row.customer), UserId(row.person));
    if rows::person(connection, customer, person)?.is_none_or(|person| person.status != ACTIVE) {
        return Ok(None);
    }
    let acls = rows::acls(connection, customer, person, AccountId(row.account))?;
    Ok(Some((row, acls)))
}

pub(super) fn acls_of(connection: &mut AnyConnection, row: &PersonRow) -> QueryResult<Vec<String>> {
    rows::acls(connection, CustomerId(row.customer), UserId(row.id), AccountId(row.account))
}

/// Rules of access control lists; one that cannot be read grants nothing.
pub(super) fn rules(acls: &[String]) -> Vec<Rule> {
    acls.iter()
        .flat_map(|acl| {
            serde_json::from_str::<Vec<Rule>>(acl).unwrap_or_else(|error| {
                log::warn!("a role's access control list cannot be read and grants nothing: {error}");
                Vec::new()
            })
        })
        .collect()
}

/// Milliseconds since 1970 in a header.
pub(super) fn milliseconds(name: &'static str, text: &str) -> Result<i64, Error> {
    text.parse().ok().filter(|ms| *ms >= 0).ok_or(Error::BadHeader {
        name,
        remedy: "milliseconds since 1970 as decimal digits, such as 1388534400000",
    })
}

//! Who may do what: API keys with their signatures, people with their passwords, roles.
//!
//! A caller is let in by [`Access::dated`] or [`Access::native`] (signed requests) or by [`Access::person`] (a
//! session of the console) and is from then on a [`Principal`]. This room knows no HTTP: it gets texts and says who
//! it is. Secrets of keys lie sealed in the database and opened in this process's memory, for [`KEPT`] at most.

mod error;
mod keys;
mod nonces;
pub mod password;
mod principal;
pub mod signature;

pub use error::Error;
pub use keys::{KEPT, seal_api_secret};
pub use password::hash as hash_password;
pub use principal::{Action, Identity, Principal, Resource, Rule, Verb};

use std::sync::Arc;

use crate::crypto::KeyRing;
use crate::model::{AccountId, Micros, UserId};
use crate::store::Store;
use crate::store::provisioning::access::{self as rows, ACTIVE, PersonRow};
use signature::{dated, native};

/// Handle to the keys and roles. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Access {
    store: Store,
    keys: Arc<keys::Keys>,
    nonces: Arc<nonces::Nonces>,
}

impl Access {
    /// Access over this provisioning database; the ring opens the secrets of API keys.
    #[must_use]
    pub fn new(store: Store, ring: Arc<KeyRing>) -> Self {
        Self { store, keys: Arc::new(keys::Keys::new(ring)), nonces: Arc::default() }
    }

    /// Lets in who signed a request of the dated API.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::UnknownKey`], [`Error::WrongSignature`], and those of the database.
    pub async fn dated(&self, parts: &dated::Parts<'_>, signature: &str) -> Result<Principal, Error> {
        let sent = keys::milliseconds("x-esauth-timestamp", parts.timestamp)?;
        fresh(sent, dated::WINDOW_MS)?;
        let verify = |secret: &[u8]| dated::verify(secret, parts, signature);
        let what =
            "access key, method, path, timestamp and User-Agent joined by colons, by HMAC-SHA256 in base64";
        self.keys.admit(&self.store, parts.access_key, verify, what).await
    }

    /// Lets in who signed a request of the native API. The nonce of a write must be stored with it durably
    /// ([`native::replay_value`]); that of a read is checked in this process's memory only, because a repeated read
    /// changes nothing.
    ///
    /// # Errors
    /// As [`Access::dated`], and [`Error::Replayed`] for a read.
    pub async fn native(&self, parts: &native::Parts<'_>, signature: &str) -> Result<Principal, Error> {
        fresh(parts.timestamp_ms, native::WINDOW_MS)?;
        if !native::is_nonce(parts.nonce) {
            let remedy = "16 to 64 letters, digits, - or _";
            return Err(Error::BadHeader { name: native::NONCE_HEADER, remedy });
        }
        let verify = |secret: &[u8]| native::verify(secret, parts, signature);
        let what = "the nine lines of docs/api-signatures.md by HMAC-SHA256 in hexadecimal digits";
        let principal = self.keys.admit(&self.store, parts.key_id, verify, what).await?;
        let read = matches!(parts.method, "GET" | "HEAD");
        if read && !self.nonces.first_seen(parts.key_id, parts.nonce, Micros::wall().millis()) {
            return Err(Error::Replayed);
        }
        Ok(principal)
    }

    /// The person with this login, if the password fits. Takes some 50 ms on a blocking thread, whether the login
    /// exists or not.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn login(&self, login: &str, password: String) -> Result<Option<PersonRow>, Error> {
        let name: String = login.chars().take(64).collect();
        let row = self.store.read(move |c| rows::person_by_login(c, &name)).await.map_err(Error::Store)?;
        let stored = row.as_ref().map_or_else(String::new, |row| row.password_hash.clone());
        let fits = tokio::task::spawn_blocking(move || password::verify(&password, &stored)).await;
        Ok(row.filter(|row| fits.unwrap_or(false) && row.status == ACTIVE))
    }

    /// Somebody who logged in, with the rules of their roles as they are now. Nobody when the person is no longer
    /// active.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn person(&self, id: UserId) -> Result<Option<Principal>, Error> {
        let found = self
            .store
            .read(move |c| {
                let Some(row) = rows::person_of_session(c, id)? else { return Ok(None) };
                let acls = keys::acls_of(c, &row)?;
                Ok(Some((row, acls)))
            })
            .await
            .map_err(Error::Store)?;
        Ok(found.filter(|(row, _)| row.status == ACTIVE).map(|(row, acls)| {
            let identity = Identity {
                customer: crate::model::CustomerId(row.customer),
                account: AccountId(row.account),
                person: UserId(row.id),
                access_key: row.login.clone(),
                name: row.login,
            };
            Principal::new(identity, keys::rules(&acls))
        }))
    }
}

fn fresh(sent: i64, window_ms: i64) -> Result<(), Error> {
    let now = Micros::wall().millis();
    if signature::is_fresh(sent, now, window_ms) {
        return Ok(());
    }
    Err(Error::Stale { sent, now, window_secs: window_ms / 1000 })
}

//! The credentials database behind its keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as Diesel};

use super::super::wire;
use super::schema::{credential, tenant_key};
use super::vault::{Credential, Kek, Place, TenantKeys};
use crate::crypto::{self, Key};
use crate::model::{AccountId, CustomerId, Micros};
use crate::store::{self, AnyConnection, Store};

/// References whose newest version is remembered, so that an older row put back is noticed.
const MAX_REMEMBERED: usize = 100_000;
/// Most data keys of one tenant.
const MAX_TENANT_KEYS: i64 = 64;
/// A replacement races with another one at most this often.
const MAX_TRIES: u32 = 4;

/// Credentials, sealed one by one. Cheap to clone.
#[derive(Clone)]
pub struct CredentialStore {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    kek: Kek,
    newest: Mutex<HashMap<String, i64>>,
}

/// Why a credential is not handed out or not kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The database failed.
    #[error("the credentials database failed")]
    Database(#[source] store::Error),
    /// It must not be handed out; why is for the audit only.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A tenant's data key does not open: this process has not the key-encryption key it should have.
    #[error("the key-encryption key does not open the stored data keys; give the file that wrapped them")]
    Keys(#[source] crypto::Error),
    /// The reference belongs to another tenant, so it cannot be written.
    #[error("credential {0} belongs to another tenant; choose another reference")]
    Taken(String),
    /// Others replaced it again and again meanwhile.
    #[error("credential {0} was being replaced by others; nothing was stored, try again")]
    Contended(String),
    /// A part is empty or too long.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Why a credential is refused. Shown to auditors, never to the asker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing has this reference.
    #[error("no credential has this reference")]
    Unknown,
    /// It is another tenant's.
    #[error("the credential belongs to tenant {0}")]
    OtherTenant(CustomerId),
    /// It is another account's.
    #[error("the credential belongs to account {0}")]
    OtherAccount(i64),
    /// The row is older than one seen before.
    #[error("row version {found} was put back over version {newest}")]
    RolledBack {
        /// Version of the row.
        found: i64,
        /// Newest version seen.
        newest: i64,
    },
    /// The row does not open, or its data key was altered.
    #[error("the row does not open: {0}")]
    Sealed(crypto::Error),
}

/// A credential with the place it was entered for.
pub struct Found {
    /// Both halves.
    pub credential: Credential,
    /// Where it may be shown.
    pub place: Place,
    /// How often it was entered.
    pub version: i64,
}

#[derive(Queryable, Insertable, Clone)]
#[diesel(table_name = credential)]
struct Row {
    reference: String,
    customer: i64,
    account: i64,
    endpoint: String,
    version: i64,
    sealed: Vec<u8>,
    made_at: i64,
}

#[derive(Queryable, Insertable, Clone)]
#[diesel(table_name = tenant_key)]
struct KeyRow {
    id: String,
    customer: i64,
    state: String,
    wrapped: Vec<u8>,
    made_at: i64,
}

const ACTIVE: &str = "active";
const REFERENCE: &str =
    "a credential reference has 1 to 64 characters out of a-z, A-Z, 0-9, \".\", \"_\", \":\" and \"-\"";

impl CredentialStore {
    /// Over an open credentials database (`store::CREDENTIALS`).
    #[must_use]
    pub fn new(store: Store, kek: Kek) -> Self {
        Self { shared: Arc::new(Shared { store, kek, newest: Mutex::default() }) }
    }

    /// Whether the key-encryption key opens the data keys, to be asked before serving.
    ///
    /// # Errors
    /// [`CredentialError::Keys`] names the remedy.
    pub async fn check(&self) -> Result<(), CredentialError> {
        let rows = self.run_read(|c| tenant_key::table.order(tenant_key::id).load::<KeyRow>(c)).await?;
        rows.iter().try_for_each(|row| self.unwrap_key(CustomerId(row.customer), row).map(drop))
    }

    /// Keeps a credential, or replaces the one of the same reference; a new endpoint or account is a new entry of
    /// both halves. Answers the version kept, after the commit. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`CredentialError::Taken`] when another tenant has the reference; [`CredentialError::Database`] when it is
    /// not known whether it was kept: enter it again.
    pub async fn put(&self, place: &Place, entered: Credential) -> Result<i64, CredentialError> {
        check(place, &entered)?;
        for _ in 0..MAX_TRIES {
            let (present, keys) = self.read(&place.reference, place.customer).await?;
            if present.as_ref().is_some_and(|row| row.customer != place.customer.0) {
                return Err(CredentialError::Taken(place.reference.clone()));
            }
            let Some(keys) = self.tenant_keys(place.customer, &keys)? else {
                self.make_tenant_key(place.customer).await?;
                continue;
            };
            let version = present.map_or(1, |row| row.version.saturating_add(1));
            let row = Row {
                reference: place.reference.clone(),
                customer: place.customer.0,
                account: place.account.0,
                endpoint: place.endpoint.clone(),
                version,
                sealed: keys.seal(place, version, &entered),
                made_at: Micros::wall().0,
            };
            if self.write(row).await? {
                return Ok(version);
            }
        }
        Err(CredentialError::Contended(place.reference.clone()))
    }

    /// Opens the credential of this reference, if it is this tenant's and this account's.
    ///
    /// # Errors
    /// [`CredentialError::Refused`] or [`CredentialError::Database`].
    pub async fn get(&self, asked: &Asked<'_>) -> Result<Found, CredentialError> {
        let (present, keys) = self.read(asked.reference, asked.customer).await?;
        let row = present.ok_or(CredentialError::Refused(Refusal::Unknown))?;
        if row.customer != asked.customer.0 {
            return Err(CredentialError::Refused(Refusal::OtherTenant(CustomerId(row.customer))));
        }
        if row.account != asked.account.0 {
            return Err(CredentialError::Refused(Refusal::OtherAccount(row.account)));
        }
        let refused = |e| CredentialError::Refused(Refusal::Sealed(e));
        let keys = self.tenant_keys(asked.customer, &keys)?;
        let keys = keys.ok_or_else(|| refused(crypto::Error::NotSealed(0)))?;
        let place = Place {
            reference: row.reference,
            customer: asked.customer,
            account: asked.account,
            endpoint: row.endpoint,
        };
        let credential = keys.open(&place, row.version, &row.sealed).map_err(refused)?;
        self.remember(&place.reference, row.version)?;
        Ok(Found { credential, place, version: row.version })
    }

    /// Wraps up to `limit` data keys anew that a former key-encryption key wraps; answers how many it found. Zero
    /// means that the former key can be destroyed. May be stopped and repeated at any point.
    ///
    /// # Errors
    /// When the database fails, or a data key does not open under any key given.
    pub async fn rewrap(&self, limit: usize) -> Result<usize, CredentialError> {
        let rows = self.run_read(|c| tenant_key::table.order(tenant_key::id).load::<KeyRow>(c)).await?;
        let former = rows.into_iter().filter(|row| self.shared.kek.is_former(&row.wrapped)).take(limit);
        let mut found = 0;
        for row in former {
            let customer = CustomerId(row.customer);
            let key = self.unwrap_key(customer, &row)?;
            let (id, old, new) = (row.id, row.wrapped, self.shared.kek.wrap(customer, &key));
            let moved = self.run_write(move |c| {
                let target =
                    tenant_key::table.filter(tenant_key::id.eq(&id)).filter(tenant_key::wrapped.eq(&old));
                diesel::update(target).set(tenant_key::wrapped.eq(&new)).execute(c)
            });
            found += moved.await?;
        }
        Ok(found)
    }

    async fn read(
        &self,
        reference: &str,
        customer: CustomerId,
    ) -> Result<(Option<Row>, Vec<KeyRow>), CredentialError> {
        let reference = reference.to_owned();
        self.run_read(move |c| {
            let row = credential::table.find(&reference).first::<Row>(c).optional()?;
            let keys = tenant_key::table
                .filter(tenant_key::customer.eq(customer.0))
                .order((tenant_key::made_at.desc(), tenant_key::id))
                .limit(MAX_TENANT_KEYS)
                .load::<KeyRow>(c)?;
            Ok((row, keys))
        })
        .await
    }

    /// Whether the row is stored now: as the first of its reference, or over the version before it.
    async fn write(&self, row: Row) -> Result<bool, CredentialError> {
        let mine = row.clone();
        let written = self
            .shared
            .store
            .write(move |c| if row.version == 1 { insert(c, &row) } else { replace(c, &row) });
        match written.await {
            Ok(rows) if rows > 0 => Ok(true),
            // Another's, or one's own from a run whose answer was lost: the sealed bytes tell.
            Ok(_) | Err(store::Error::Unknown) => {
                let (present, _) = self.read(&mine.reference, CustomerId(mine.customer)).await?;
                Ok(present.is_some_and(|row| row.sealed == mine.sealed))
            }
            Err(store::Error::Query(Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _))) => {
                let (present, _) = self.read(&mine.reference, CustomerId(mine.customer)).await?;
                Ok(present.is_some_and(|row| row.sealed == mine.sealed))
            }
            Err(e) => Err(CredentialError::Database(e)),
        }
    }

    async fn make_tenant_key(&self, customer: CustomerId) -> Result<(), CredentialError> {
        let key = Key::random();
        let row = KeyRow {
            id: key.id().to_string(),
            customer: customer.0,
            state: ACTIVE.to_owned(),
            wrapped: self.shared.kek.wrap(customer, &key),
            made_at: Micros::wall().0,
        };
        let insert = move |c: &mut AnyConnection| {
            diesel::insert_into(tenant_key::table).values(row.clone()).execute(c)
        };
        self.run_write(insert).await.map(|_| ())
    }

    /// The tenant's keys, the newest active one sealing; nothing where it has none yet.
    fn tenant_keys(
        &self,
        customer: CustomerId,
        rows: &[KeyRow],
    ) -> Result<Option<TenantKeys>, CredentialError> {
        let Some(active) = rows.iter().find(|row| row.state == ACTIVE) else { return Ok(None) };
        let first = TenantKeys::new(&self.unwrap_key(customer, active)?, self.shared.kek.algorithm());
        let others = rows.iter().filter(|row| row.id != active.id);
        others
            .map(|row| self.unwrap_key(customer, row))
            .try_fold(first, |keys, former| Ok(keys.accepting(&former?)))
            .map(Some)
    }

    fn unwrap_key(&self, customer: CustomerId, row: &KeyRow) -> Result<Key, CredentialError> {
        let key = self.shared.kek.unwrap(customer, &row.id, &row.wrapped);
        key.map_err(|e| match e {
            crypto::Error::UnknownKey(_) => CredentialError::Keys(e),
            _ => CredentialError::Refused(Refusal::Sealed(e)),
        })
    }

    /// Notes the newest version seen; an older one was put back by somebody. What was seen is known for as long as
    /// this process lives.
    fn remember(&self, reference: &str, found: i64) -> Result<(), CredentialError> {
        let mut newest = self.newest();
        match newest.get_mut(reference) {
            Some(newest) if *newest > found => {
                Err(CredentialError::Refused(Refusal::RolledBack { found, newest: *newest }))
            }
            Some(newest) => {
                *newest = found;
                Ok(())
            }
            None => {
                if newest.len() < MAX_REMEMBERED {
                    newest.insert(reference.to_owned(), found);
                }
                Ok(())
            }
        }
    }

    fn newest(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run_read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, CredentialError> {
        self.shared.store.read(f).await.map_err(CredentialError::Database)
    }

    async fn run_write<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, CredentialError> {
        self.shared.store.write(f).await.map_err(CredentialError::Database)
    }
}

/// Which credential, and for whom.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The opaque reference.
    pub reference: &'a str,
    /// The tenant that asks.
    pub customer: CustomerId,
    /// The account it is needed for.
    pub account: AccountId,
}

fn insert(c: &mut AnyConnection, row: &Row) -> QueryResult<usize> {
    diesel::insert_into(credential::table).values(row.clone()).execute(c)
}

/// Over the version before, and never over another tenant's.
fn replace(c: &mut AnyConnection, row: &Row) -> QueryResult<usize> {
    let former = credential::table
        .filter(credential::reference.eq(&row.reference))
        .filter(credential::customer.eq(row.customer))
        .filter(credential::version.eq(row.version - 1));
    diesel::update(former)
        .set((
            credential::account.eq(row.account),
            credential::endpoint.eq(&row.endpoint),
            credential::version.eq(row.version),
            credential::sealed.eq(&row.sealed),
            credential::made_at.eq(row.made_at),
        ))
        .execute(c)
}

fn check(place: &Place, entered: &Credential) -> Result<(), CredentialError> {
    let named = |text: &str, max: usize| {
        (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    wire::check_names(&place.reference, "entry").map_err(|_unfit| CredentialError::Invalid(REFERENCE))?;
    if !named(&place.endpoint, 255) {
        return Err(CredentialError::Invalid("a cloud endpoint id has 1 to 255 visible ASCII characters"));
    }
    if !(1..=1024).contains(&entered.access_key.len()) || entered.secret.expose().len() > 16 * 1024 {
        return Err(CredentialError::Invalid("an access key has 1 to 1024 bytes, a secret at most 16 KiB"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

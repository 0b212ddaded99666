//! Keys and first rows of an installation.

use std::sync::Arc;

use super::cloud::ACCOUNT_NUMBER;
use super::credentials::{CloudCredential, REFERENCE};
use super::folder::derived;
use super::{Error, adapters};
use crate::access;
use crate::crypto::{Key, KeyRing};
use crate::store::Store;
use crate::store::provisioning::seed;

/// Console login of the seeded administrator.
pub(super) const LOGIN: &str = "admin";

/// Keys of the installation and what is made from them: the same for one data folder.
pub(super) struct Keys {
    pub(super) install: Arc<Key>,
    pub(super) ring: Arc<KeyRing>,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) password: String,
    pub(super) cloud: CloudCredential,
}

impl Keys {
    pub(super) fn of(install: Key, seal: &Key) -> Self {
        Self {
            ring: Arc::new(KeyRing::new(seal.derive("at-rest"))),
            access_key: derived(&install, "dev.access-key", 10).to_uppercase(),
            secret_key: derived(&install, "dev.secret-key", 20),
            password: derived(&install, "dev.console-password", 8),
            cloud: CloudCredential::of(&install),
            install: Arc::new(install),
        }
    }
}

/// Writes the first rows; false where they are there already.
pub(super) async fn plant(store: &Store, keys: &Keys) -> Result<bool, Error> {
    let fault = |source| Error::Database { name: "provisioning", source };
    if store.read(seed::is_seeded).await.map_err(fault)? {
        return Ok(false);
    }
    let password_hash = access::hash_password(&keys.password)
        .ok_or_else(|| Error::Part { part: "seeds", text: "the password cannot be hashed".to_owned() })?;
    let secrets = seed::Secrets {
        account_number: ACCOUNT_NUMBER.to_owned(),
        credential: REFERENCE.to_owned(),
        access_key: keys.access_key.clone(),
        sealed_secret: access::seal_api_secret(
            &keys.ring,
            seed::CUSTOMER,
            &keys.access_key,
            keys.secret_key.as_bytes(),
        ),
        login: LOGIN.to_owned(),
        password_hash,
    };
    let catalogue = adapters::catalogue();
    store.write(move |c| seed::seed(c, &catalogue, &secrets)).await.map_err(fault)?;
    Ok(true)
}

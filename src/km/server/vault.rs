//! Keys over keys over credentials: what is sealed under what. Pure.
//!
//! The key-encryption key comes from outside the database. It wraps one data key per tenant; the data key seals that
//! tenant's credentials, each bound to its tenant, account, endpoint, reference and version, so that a row copied to
//! another tenant or put back in an older version opens nothing.

use zeroize::Zeroizing;

use crate::crypto::{self, Aad, Algorithm, Key, KeyRing, Secret};
use crate::model::{AccountId, CustomerId};

/// The key-encryption key, with the former ones that still unwrap.
pub struct Kek(KeyRing);

impl Kek {
    /// Wraps with this key.
    #[must_use]
    pub fn new(key: &Key, algorithm: Algorithm) -> Self {
        Self(KeyRing::new(key.derive("kek")).sealing_with(algorithm))
    }

    /// Unwraps what this former key wrapped, too.
    #[must_use]
    pub fn accepting(self, former: &Key) -> Self {
        Self(self.0.with_decrypt_only(former.derive("kek")))
    }

    pub(super) fn wrap(&self, customer: CustomerId, data_key: &Key) -> Vec<u8> {
        self.0.seal(&wrap_aad(customer, &data_key.id().to_string()), data_key.expose())
    }

    /// The data key of that name and tenant.
    pub(super) fn unwrap(
        &self,
        customer: CustomerId,
        id: &str,
        wrapped: &[u8],
    ) -> Result<Key, crypto::Error> {
        Key::from_slice(self.0.open(&wrap_aad(customer, id), wrapped)?.expose())
    }

    /// Whether something is wrapped by a former key and should be wrapped anew.
    pub(super) fn is_former(&self, wrapped: &[u8]) -> bool {
        crypto::key_id_of(wrapped).is_ok_and(|id| id != self.0.active_id())
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

fn wrap_aad(customer: CustomerId, id: &str) -> Aad {
    Aad::new("tenant-key").with("tenant", customer.0.to_be_bytes()).with("key", id)
}

/// The data keys of one tenant.
pub(super) struct TenantKeys(KeyRing);

impl TenantKeys {
    pub(super) fn new(active: &Key, algorithm: Algorithm) -> Self {
        Self(KeyRing::new(active.derive("at-rest")).sealing_with(algorithm))
    }

    pub(super) fn accepting(self, former: &Key) -> Self {
        Self(self.0.with_decrypt_only(former.derive("at-rest")))
    }

    pub(super) fn seal(&self, place: &Place, version: i64, credential: &Credential) -> Vec<u8> {
        self.0.seal(&place.aad(version), &credential.encode())
    }

    pub(super) fn open(
        &self,
        place: &Place,
        version: i64,
        sealed: &[u8],
    ) -> Result<Credential, crypto::Error> {
        let plain = self.0.open(&place.aad(version), sealed)?;
        Credential::decode(plain.expose()).ok_or(crypto::Error::NotSealed(sealed.len()))
    }
}

/// Where a credential belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Opaque name, 1 to 64 characters.
    pub reference: String,
    /// The tenant.
    pub customer: CustomerId,
    /// The account at the cloud.
    pub account: AccountId,
    /// The cloud endpoint the credential may be shown to.
    pub endpoint: String,
}

impl Place {
    fn aad(&self, version: i64) -> Aad {
        Aad::new("credential")
            .with("tenant", self.customer.0.to_be_bytes())
            .with("account", self.account.0.to_be_bytes())
            .with("endpoint", &self.endpoint)
            .with("reference", &self.reference)
            .with("version", version.to_be_bytes())
    }
}

/// Both halves of a cloud credential.
pub struct Credential {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret: Secret,
}

impl Credential {
    /// Length of the access key, access key, secret.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (access_key, secret) = (self.access_key.as_bytes(), self.secret.expose());
        let mut plain = Zeroizing::new(Vec::with_capacity(8 + access_key.len() + secret.len()));
        plain.extend_from_slice(&(access_key.len() as u64).to_be_bytes());
        plain.extend_from_slice(access_key);
        plain.extend_from_slice(secret);
        plain
    }

    fn decode(plain: &[u8]) -> Option<Self> {
        let (len, rest) = plain.split_first_chunk::<8>()?;
        let (access_key, secret) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
        let access_key = std::str::from_utf8(access_key).ok()?.to_owned();
        Some(Self { access_key, secret: Secret::new(secret.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Credential, Kek, Place, TenantKeys};
    use crate::crypto::{Algorithm, Key, Secret};
    use crate::model::{AccountId, CustomerId};

    fn place() -> Place {
        let (customer, account) = (CustomerId(1), AccountId(2));
        Place { reference: "cred-1".to_owned(), customer, account, endpoint: "cloud-1".to_owned() }
    }

    #[test]
    fn a_credential_opens_in_its_own_place_and_version_only() {
        let keys = TenantKeys::new(&Key::random(), Algorithm::default());
        let credential =
            Credential { access_key: "AKIA".to_owned(), secret: Secret::new(b"s3cret".to_vec()) };
        let sealed = keys.seal(&place(), 3, &credential);
        let opened = keys.open(&place(), 3, &sealed).expect("its own place");
        assert_eq!((opened.access_key.as_str(), opened.secret.expose()), ("AKIA", &b"s3cret"[..]));
        for version in [2, 4] {
            assert!(keys.open(&place(), version, &sealed).is_err(), "opened as version {version}");
        }
        let elsewhere = [
            Place { reference: "cred-2".to_owned(), ..place() },
            Place { customer: CustomerId(2), ..place() },
            Place { account: AccountId(3), ..place() },
            Place { endpoint: "cloud-2".to_owned(), ..place() },
        ];
        for other in elsewhere {
            assert!(keys.open(&other, 3, &sealed).is_err(), "opened at {other:?}");
        }
    }

    #[test]
    fn a_data_key_unwraps_for_its_tenant_and_name_only() {
        let (old, new) = (Key::random(), Key::random());
        let data_key = Key::random();
        let id = data_key.id().to_string();
        let wrapped = Kek::new(&old, Algorithm::default()).wrap(CustomerId(1), &data_key);
        let kek = Kek::new(&new, Algorithm::Aes256Gcm).accepting(&old);
        assert!(kek.is_former(&wrapped));
        assert_eq!(kek.unwrap(CustomerId(1), &id, &wrapped).map(|k| k.id()), Ok(data_key.id()));
        assert!(kek.unwrap(CustomerId(2), &id, &wrapped).is_err());
        assert!(kek.unwrap(CustomerId(1), "another", &wrapped).is_err());
        assert!(Kek::new(&new, Algorithm::default()).unwrap(CustomerId(1), &id, &wrapped).is_err());
        assert!(!kek.is_former(&kek.wrap(CustomerId(1), &data_key)));
    }
}

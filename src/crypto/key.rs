//! Keys: made, derived, named.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::Error;

/// First part of everything that is derived or authenticated here; another protocol never produces it.
pub(super) const DOMAIN: &str = "dispatcher/v1";

/// 32 secret bytes, wiped when dropped. Has no `Debug`, `Clone` or `Serialize`.
///
/// A key does one job. It never encrypts by itself: cipher keys, its [`KeyId`] and further keys are all derived
/// by HKDF-SHA256 (RFC 5869) under different labels.
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// A fresh key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source.
    #[must_use]
    pub fn random() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// A key of these bytes. The caller wipes its own copy.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A key of exactly 32 bytes.
    ///
    /// # Errors
    /// [`Error::KeyLength`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(Error::KeyLength(bytes.len()));
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    /// The key for one purpose, such as `km-c2s`. Different purposes give unrelated keys.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self(self.expand("derive", purpose))
    }

    /// A second copy, made on purpose.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// The name of this key: 128 bits of HKDF output, so that it tells nothing about the key and commits to it
    /// (two keys of one name cannot be found with less than 2^64 tries).
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(*self.expand("key-id", ""))
    }

    /// The bytes, for storing a key sealed under another one or in a guarded file.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// HKDF output for a label of this crate and a purpose of the caller; the zero byte keeps the two apart.
    pub(super) fn expand<const N: usize>(&self, label: &str, purpose: &str) -> Zeroizing<[u8; N]>
    where
        [u8; N]: Zeroize,
    {
        let mut output = Zeroizing::new([0; N]);
        let info = [DOMAIN.as_bytes(), b"\0", label.as_bytes(), b"\0", purpose.as_bytes()].concat();
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA256 gives up to 8160 bytes; at most 32 are asked for"
        )]
        Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand(&info, output.as_mut_slice())
            .expect("short output");
        output
    }
}

/// Public name of a key: 16 bytes, shown as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// A name read from an envelope or a row.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes from the operating system's random source.
///
/// # Panics
/// When the operating system has no random source: nothing can be sealed safely then.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(test)]
    if crate::model::dice::fill(&mut bytes) {
        return bytes;
    }
    #[expect(clippy::expect_used, reason = "without randomness no key or nonce is safe")]
    getrandom::fill(&mut bytes).expect("the operating system's random source answers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Error, Key};

    #[test]
    fn purposes_give_unrelated_keys_and_names_do_not_depend_on_the_copy() {
        let key = Key::random();
        assert_ne!(key.derive("km-c2s").expose(), key.derive("km-s2c").expose());
        assert_ne!(key.derive("").expose(), key.expose());
        assert_eq!(key.derive("at-rest").expose(), key.duplicate().derive("at-rest").expose());
        assert_eq!(key.id(), key.duplicate().id());
        assert_ne!(key.id(), key.derive("at-rest").id());
        assert_ne!(Key::random().id(), key.id());
    }

    #[test]
    fn only_32_bytes_make_a_key() {
        assert_eq!(Key::from_slice(&[7; 31]).err(), Some(Error::KeyLength(31)));
        assert_eq!(Key::from_slice(&[7; 32]).map(|k| k.id()), Ok(Key::from_bytes([7; 32]).id()));
    }
}

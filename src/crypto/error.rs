//! What can go wrong with sealed or encoded bytes.

use super::KeyId;

/// Why bytes could not be opened or read. No text holds anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not have the form of an envelope.
    #[error("{0} bytes are no sealed envelope; they were cut, or never sealed by this program")]
    NotSealed(usize),
    /// The envelope names an algorithm that is not known.
    #[error("sealed with the unknown algorithm {0}; a newer version may know it")]
    UnknownAlgorithm(u8),
    /// The envelope names a key that is not on the ring.
    #[error("sealed under key {0}, which is not on this key ring; add it as decrypt-only")]
    UnknownKey(KeyId),
    /// The bytes were changed, or belong in another place than the one given.
    #[error("sealed bytes were altered or belong elsewhere; key {0} refuses them")]
    Refused(KeyId),
    /// A key must have 32 bytes.
    #[error("a key has 32 bytes, found {0}")]
    KeyLength(usize),
    /// Text is not in the encoding it should be in.
    #[error("text is not valid {0}")]
    Encoding(&'static str),
}

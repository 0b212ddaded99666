//! Secrets, sealing and certificates. Pure functions over bytes: no files, no sockets, no clock of its own.
//!
//! - [`Key`] is 32 secret bytes; a key does one job only, further jobs get keys derived from it.
//! - [`KeyRing`] seals with its active key and opens with the key an envelope names, never by trial.
//! - [`Aad`] says in which place sealed bytes belong, so that they cannot be put into another.
//! - [`hmac_sha256`], [`sha256`], [`same`], [`token`], [`hex`] and [`base64`] are the small tools around them.

mod aad;
mod aead;
pub mod base64;
mod error;
pub mod hex;
mod key;
mod mac;
pub mod pki;
mod ring;
mod secret;

pub use aad::Aad;
pub use aead::Algorithm;
pub use error::Error;
pub use key::{Key, KeyId, random_bytes};
pub use mac::{hmac_sha256, same, sha256, token};
pub use ring::{KeyRing, Opened, key_id_of};
pub use secret::Secret;

//! Secrets, sealing and certificates. Pure functions over bytes: no files, no sockets, no clock of its own.

pub mod pki;
mod secret;

pub use secret::Secret;

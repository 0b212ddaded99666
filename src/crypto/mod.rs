//! Secrets, sealing and certificates. Pure functions over bytes: no files, no sockets, no clock of its own.

mod secret;

pub use secret::Secret;

//! The databases: connections by URL scheme, group commit, reads, and the query functions of each database.
//!
//! Everything that blocks on a database happens behind [`Store`]: writes go through one group-committing writer
//! thread ([`Store::write`]), reads through a guarded pool of worker threads ([`Store::read`]). No other room opens a
//! connection on an actor's thread. This room knows rows and conditions; it never decides what a job does next.

mod check;
mod condition;
mod connection;
mod error;
mod fault;
#[cfg(test)]
mod group_tests;
mod handle;
mod keeper;
mod later;
#[cfg(test)]
mod limit_tests;
mod prepared;
mod reader;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url;
mod witness;
mod writer;

pub mod analytics;
pub mod provisioning;

pub use check::{Finding, Level, Status};
pub use condition::Standing;
pub use connection::{ANALYTICS, AnyConnection, CREDENTIALS, Database, Manager, PROVISIONING};
pub use error::Error;
pub use handle::{Counters, Settings, Store};
pub use keeper::{Desk, Keeper};
pub(crate) use later::{Later, catch_up, later};
pub(crate) use prepared::Prepared;
pub use url::{InvalidUrl, Target};

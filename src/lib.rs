//! The dispatcher: runs actions on clouds and on guest machines as durable, supervised jobs.
//!
//! Rooms in reading order; arrows between them point down only (`tests/it/architecture.rs` holds the table).
//!
//! | level | rooms |
//! |---|---|
//! | 0 | [`model`] plain data, [`crypto`] sealing and certificates |
//! | 1 | `config`, [`ops`], [`wire`], `supervision` |
//! | 2 | `store` rows and transitions |
//! | 3 | `mq` nudges, `cloud` providers, `km` key manager, [`agent`] the guest's side |
//! | 4 | `access` who may, `agents` the dispatcher's side of a guest |
//! | 5 | `jobs` steps, plans, actors |
//! | 6 | `monitor`, `worker`, `pinger` |
//! | 7 | `registry` routing and recovery |
//! | 8 | `web` HTTP; for tests only, `sim` the job core under virtual time |
//! | 9 | `boot` composition, `cli` command line |
//!
//! Without the feature `server` only what a guest needs is built.

pub mod agent;
pub mod crypto;
pub mod model;
pub mod ops;
pub mod wire;

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod agents;
#[cfg(feature = "server")]
pub mod boot;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod cloud;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod jobs;
#[cfg(feature = "server")]
pub mod km;
#[cfg(feature = "server")]
pub mod monitor;
#[cfg(feature = "server")]
pub mod mq;
#[cfg(feature = "server")]
pub mod pinger;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(test)]
#[cfg(feature = "server")]
pub mod sim;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod supervision;
#[cfg(feature = "server")]
pub mod web;
#[cfg(feature = "server")]
pub mod worker;

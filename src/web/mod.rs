//! HTTP: three listeners, one route table ([`routes`]), and handlers that only translate: parse, one call, status.
//!
//! - [`api_server`]: the dated API (`/api/enstratus`), the native API (`/api/v1`) and the console; plain on loopback, TLS anywhere.
//! - [`agent_server`]: TLS only, for guests.
//! - [`ops_server`]: health and metrics.
//!
//! Nothing here decides anything about jobs, and nothing is let in unless a route asks who it is: see [`auth`].

pub mod agent_socket;
pub mod auth;
pub mod body;
pub mod console;
pub mod enstratus;
pub mod error;
pub mod live;
pub mod ops;
pub mod rest;
pub mod routes;
mod server;
#[cfg(test)]
mod server_tests;
pub mod stale;
mod state;
#[cfg(test)]
pub(crate) mod testing;

pub use error::Fault;
pub use ops::Ops;
pub use server::{agent_server, api_server, ops_server};
pub use state::{Limits, Parts, RequestId, State};

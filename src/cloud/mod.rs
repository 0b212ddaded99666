//! Clouds: the one door through which servers are made, looked at and destroyed, and the drivers behind it.
//!
//! This room must never decide about a job: it makes the call it is asked for and says exactly what is known about
//! its outcome. A refusal is definite, everything else is unknown.

mod provider;
pub mod remote;
pub mod simulated;
mod watched;

pub use provider::{
    CallContext, CallError, Capabilities, Clouds, Credential, LaunchRequest, Machine, Provider, TokenClass,
};
pub use watched::{Answering, Watched};

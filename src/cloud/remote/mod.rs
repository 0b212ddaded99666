//! A cloud in a process of its own: the server in front of the simulated cloud, and the driver that calls it.
//!
//! Every call is one HTTP request over loopback. It carries who asks, for which account, and a signature over method,
//! path, signed time and body, so that the secret itself never travels. The answer says one of three things: done
//! (with what was found), refused (definite), unknown. Whatever else comes back, or does not come back, is unknown
//! once a byte may have been sent; a connection that was never made is a definite refusal.
//!
//! A cloud of class S refuses a request whose signed time is older than its `t_sig`: what a caller gave up on cannot
//! come true after that. The other classes promise no such end and check no time.
//!
//! This room's half of the wire must never decide more than the cloud inside the process does: faults, limits and
//! rules are the cloud's own.

mod client;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{NoCloud, Remote};
pub use server::serve;

//! Being built.

mod frame;
pub mod keyfile;
pub mod server;
mod wire;

pub use wire::Channel;

//! Being built.

mod frame;
pub mod keyfile;
mod wire;

//! Being built.
pub mod timeline;

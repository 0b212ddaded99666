//! Measurements of guests. Not critical.
pub mod schema;

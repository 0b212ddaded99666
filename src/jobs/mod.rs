//! Jobs: their steps, the pure plan of the next move, the driver that carries it out, and the actor around it.
//!
//! A job's truth is its rows; the actor is a cache of one claimed row and may die at any point. This room never
//! assumes that an effect happened: it looks, or leaves the outcome unknown. The protocol stands in
//! `docs/PROTOCOL.md`.

mod actor;
#[cfg(test)]
pub(crate) mod battery;
mod clock;
mod drive;
mod error;
pub mod machine;
#[cfg(test)]
mod machine_tests;
pub mod ports;
mod reading;
#[cfg(test)]
mod recorded;
mod request;
mod sql;
pub mod steps;
pub mod timeline;
pub mod watching;
#[cfg(test)]
mod watching_tests;
mod word;

pub use actor::{JobActor, Spec, Wake};
pub use clock::{ClockKeeper, ClockSpec, DatabaseClock};
#[cfg(test)]
pub(crate) use drive::drive;
pub(crate) use drive::set_aside;
pub use error::Error;
pub use request::{TAG_PREFIX, of_tag};
#[cfg(test)]
pub(crate) use sql::apply;
pub use sql::{Changes, SqlStore, SystemClock};
pub use word::by_word;

/// The tag of the server that a launch makes, as clouds show it.
#[cfg(test)]
pub(crate) fn launch_tag(job: crate::model::JobUid) -> String {
    request::tag(job, "create")
}

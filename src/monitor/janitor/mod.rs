//! The janitor: looks for what turns up at a cloud after its job ended, and for what carries a tag of this installation
//! and has no owner.
//!
//! A job that ends with a create that may still land leaves an *obligation*; the janitor looks for its tag from time to
//! time, and once a day at everything that carries one. What has an owner is left alone, and so is everything of a job
//! that is open: only that job adopts. What nobody owns becomes a job that takes it back, accepted in the commit of the
//! look, so that its call is an attempt as any other; what cannot be judged is reported and never destroyed.
//!
//! Any number of janitors may run. A row is claimed for one look; whoever dies holds nothing, and a look repeated
//! finds the same job, whose name is made from the tag and the resource.

mod actor;
mod look;
mod plan;
#[cfg(test)]
mod plan_tests;
mod sweep;
#[cfg(test)]
mod tests;

pub use actor::{Janitor, Spec};
pub use plan::Limits;

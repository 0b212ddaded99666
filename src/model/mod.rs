//! Plain data shared by every room: identities, times, states, outcomes, job kinds.
//!
//! This room never does I/O and knows no database, socket or actor. Whoever needs a word of the domain finds it
//! here with one meaning: *tenant* is [`CustomerId`], *fence* is [`Epoch`].

#[cfg(test)]
pub(crate) mod dice;
mod id;
mod kind;
mod nearest;
pub mod query;
mod rollup;
mod state;
mod time;

pub use id::{
    AccountId, AgentId, AttemptUid, BillingCodeId, Boot, CloudId, CustomerId, DataCenterId, Epoch,
    Generation, GroupId, ImageId, InvalidUid, JobId, JobUid, ProductId, RegionId, RoleId, ServerId, Uid,
    UserId, WatchUid,
};
pub use kind::{
    CommandParams, GroupParams, InvalidKind, JobKind, JobParams, LaunchParams, NoopParams, ServerParams,
    TakeBackParams,
};
pub use nearest::nearest;
pub use rollup::Rollup;
pub use state::{
    AttemptOutcome, ErrorClass, InvalidWord, JobState, ObligationState, PublicStatus, ServerStatus, Verdict,
    WatchKind,
};
pub use time::{Micros, boot_time_micros};

//! The moves of a job, each one item with its condition. Zero rows means: nothing of the item is done.
//!
//! Every function but [`cancel_asked`] names the epoch in its condition; evidence is accepted from anyone, and a
//! person's word ([`resolve`]) ends only what is set aside.

mod call;
mod claim;
mod end;
mod hold;
mod verdict;
mod wait;
mod word;

pub use call::{Close, Opened, Then, close_attempt, hand_over, may_act, open_attempt};
pub use claim::{Claim, claim, claim_and_open, needing_an_actor, next_due, owned_by, take_over};
pub use end::{End, Obligation, Sent, cancel_asked, end, withdraw};
pub use hold::{Wake, hold_queued, released, restate, wake};
pub use verdict::verdict;
pub use wait::{Quiet, Waiting, begin_undo, next_try, park, quarantine, wait};
pub use word::{Heard, Word, audited, hears, resolve};

use diesel::prelude::*;

use crate::model::{Epoch, JobUid};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::AnyConnection;
use crate::store::provisioning::schema::job;

/// Names a job and the epoch its writer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: JobUid,
    /// The epoch got at the claim.
    pub epoch: Epoch,
}

impl Fence {
    /// The epoch that a write of its holder names: the one got at the claim, whatever the row has by now.
    fn named(self, connection: &mut AnyConnection) -> QueryResult<i64> {
        if sabotaged(Fault::NoFence) {
            return job::table.find(self.job.to_string()).select(job::epoch).first(connection);
        }
        Ok(self.epoch.0)
    }
}

//! The end of a job by a person's word. Pure.

use std::time::Duration;

use super::request;
use super::steps::{Effect, step_of};
use crate::model::{JobParams, JobState, Micros};
use crate::store::provisioning::job::History;
use crate::store::provisioning::server::Seen;
use crate::store::provisioning::transition::{End, Fence, Obligation};

/// The end of a job in `state`, because `who` says so. None when it cannot be complete: a launch that left no trace
/// has no server to show for it, and a group is what its children are.
#[must_use]
pub fn by_word(
    history: &History,
    state: JobState,
    (who, reason): (&str, &str),
    (now, look_after): (Micros, Duration),
) -> Option<End> {
    let job = &history.job;
    let step = step_of(job.params.kind());
    let complete = state == JobState::Complete;
    if complete && (step.effect == Effect::Create && job.server.is_none() || step.effect == Effect::Children)
    {
        return None;
    }
    let server = job.server.or_else(|| job.params.server());
    let seen = match (step.effect, server) {
        (Effect::Move(operation), Some(server)) if complete => {
            Some(Seen { server, status: operation.proof(), private_ip: None, public_ip: None })
        }
        _ => None,
    };
    let sent = history.attempts.iter().any(|attempt| attempt.step == step.name);
    // A word is no proof that a create cannot land any more.
    let obligation = match &job.params {
        JobParams::LaunchServer(params) if sent && !complete => Some(Obligation {
            tag: request::tag(job.uid, step.name),
            customer: job.customer,
            account: job.account,
            region: params.region,
            look_at: now,
            look_until: now.plus(look_after),
        }),
        _ => None,
    };
    Some(End {
        fence: Fence { job: job.uid, epoch: job.epoch },
        state,
        try_no: job.try_no,
        message: format!("{state} by the word of {who}: {reason}"),
        code: "person".to_owned(),
        server,
        seen,
        obligation,
        kin: job.into(),
        cancel_known: false,
    })
}

//! How a job ends: what was seen of its server, and what may still turn up.

use super::{Driver, fence};
use crate::cloud::{Machine, TokenClass};
use crate::jobs::machine::{self, Ending, Promise};
use crate::jobs::request;
use crate::jobs::steps::{Effect, step_of};
use crate::model::{JobParams, JobState, ServerStatus, Verdict};
use crate::store::provisioning::job::History;
use crate::store::provisioning::server::Seen;
use crate::store::provisioning::transition::{End, Obligation};

impl Driver<'_> {
    pub(super) fn end(&self, history: &History, promise: Option<Promise>, ending: Ending) -> End {
        let job = &history.job;
        let Ending { state, code, message } = ending;
        End {
            fence: fence(job),
            state,
            try_no: job.try_no,
            message,
            code,
            server: job.server.or_else(|| job.params.server()),
            seen: seen(history),
            obligation: self.obligation(history, promise, state),
            kin: job.into(),
            cancel_known: job.cancel_by.is_some(),
        }
    }

    /// What may still turn up after this end: creates that were sent without a token, or never answered.
    fn obligation(&self, history: &History, promise: Option<Promise>, state: JobState) -> Option<Obligation> {
        let job = &history.job;
        let JobParams::LaunchServer(params) = &job.params else { return None };
        let step = step_of(job.params.kind());
        let promise = promise?;
        let creates = || history.attempts.iter().filter(|a| a.step == step.name);
        let sent = creates().next().is_some();
        // Its token is used up only by an answer: one that was waited out instead may land after all.
        let waited = creates().any(|a| a.quiet_until.is_some());
        let sure = promise.class == TokenClass::K && state != JobState::Unresolved && !waited;
        let now = self.ports.clock.now();
        (sent && !sure).then(|| Obligation {
            tag: request::tag(job.uid, step.name),
            customer: job.customer,
            account: job.account,
            region: params.region,
            look_at: now.plus(promise.quiet / 2),
            look_until: now.plus(self.ports.limits.look_after),
        })
    }
}

/// What the verdict says about the job's server. A look that finds it absent has no machine to show.
fn seen(history: &History) -> Option<Seen> {
    let job = &history.job;
    let verdict = machine::verdict_of_this_try(history)?;
    let server = job.server.or_else(|| job.params.server())?;
    let shown: Option<Machine> = serde_json::from_str(&verdict.raw).ok();
    let status = match (step_of(job.params.kind()).effect, verdict.verdict) {
        (Effect::Nothing | Effect::Command, _) => return None,
        (Effect::Move(operation), Verdict::Reached) => operation.proof(),
        // A look that finds it gone has nothing to show.
        (_, Verdict::Lost) => shown.as_ref().map_or(ServerStatus::Terminated, |machine| machine.state),
        (_, _) => shown.as_ref()?.state,
    };
    let (private_ip, public_ip) = shown.map_or((None, None), |m| (m.private_ip, m.public_ip));
    Some(Seen { server, status, private_ip, public_ip })
}

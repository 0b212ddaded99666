//! Writes that need the cloud: 202 and a job.

use std::time::Duration;

use serde_json::json;

use super::super::Fault;
use super::call::Call;
use super::reply::Reply;
use crate::model::{AccountId, JobId, JobParams, JobUid, PublicStatus, ServerId};
use crate::store::provisioning::accept::Submit;
use crate::store::provisioning::sequence::Sequence;

/// Longest a job of the dated API may take; its clients poll without an end, so every job gets one.
pub(super) const LIMIT: Duration = Duration::from_secs(3600);

/// What is asked for.
pub(super) struct Ask {
    pub(super) params: JobParams,
    pub(super) description: String,
    pub(super) account: AccountId,
    pub(super) server: Option<ServerId>,
}

/// Has a job stored and answers with it: of a repeat, with the first one.
pub(super) async fn submit(call: &Call, ask: Ask) -> Result<Reply, Fault> {
    let id = JobId(call.state.sequencer.next(Sequence::Job).await?);
    let kind = ask.params.kind();
    let description: String = ask.description.chars().take(255).collect();
    let submitted = call
        .state
        .registry
        .submit(Submit {
            entry: call.caller.entry(),
            uid: JobUid::random(),
            id,
            account: ask.account,
            person: call.caller.principal.person,
            params: ask.params,
            description: description.clone(),
            priority: 0,
            delay: Duration::ZERO,
            limit: LIMIT,
            server: ask.server,
        })
        .await?;
    let (id, request) = (submitted.row.id, call.caller.request);
    log::info!(job = id, request:% = request; "job {id} ({kind}) accepted for request {request}");
    if submitted.fresh {
        return Ok(Reply::Job(
            json!({ "jobId": id, "status": PublicStatus::Running, "description": description }),
        ));
    }
    Ok(Reply::job(&submitted.row))
}

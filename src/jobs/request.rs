//! The stored request of a create: complete before the first send, sealed because it holds a one-time secret, and
//! sent again byte-equal.

use super::Error;
use super::ports::{Enrolment, Ports};
use super::steps::Step;
use crate::cloud::LaunchRequest;
use crate::crypto::{self, Aad};
use crate::model::{AgentId, JobUid, LaunchParams};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::agent::NewAgent;
use crate::store::provisioning::job::{Attempt, Job};

/// Purpose under which requests are sealed.
const REQUEST: &str = "attempt.request";

/// What every tag of ours begins with.
pub const TAG_PREFIX: &str = "dispatcher-job=";

/// Tag that names job and step on what a create makes.
pub(super) fn tag(job: JobUid, step: &str) -> String {
    format!("{TAG_PREFIX}{job}.{step}")
}

/// The job and the step a tag names; none where it is not one of ours.
#[must_use]
pub fn of_tag(tag: &str) -> Option<(JobUid, &str)> {
    let (job, step) = tag.strip_prefix(TAG_PREFIX)?.split_once('.')?;
    Some((job.parse().ok()?, step))
}

fn place_of(job: JobUid) -> Aad {
    Aad::new(REQUEST).with("job", job.to_string())
}

/// Opens the request stored with an attempt of this job's create, to be sent once more.
pub(super) fn open(ports: &Ports, job: &Job, step: &Step, attempt: &Attempt) -> Result<LaunchRequest, Error> {
    let fault = Error::Request { job: attempt.job };
    let Ok(plain) = ports.ring.open(&place_of(attempt.job), &attempt.request) else { return Err(fault) };
    let mut request: LaunchRequest = serde_json::from_slice(plain.expose()).map_err(|_unreadable| fault)?;
    if sabotaged(Fault::EpochInToken) {
        request.token = token(ports, job, step);
    }
    Ok(request)
}

/// A request with the agent that may enrol by the token in it.
pub(super) struct Made {
    pub(super) sealed: Vec<u8>,
    pub(super) request: LaunchRequest,
    pub(super) agent: Option<NewAgent>,
}

/// Makes the request of a create. `agent` is the number for the agent of the new guest.
pub(super) fn make(
    ports: &Ports,
    job: &Job,
    step: &Step,
    params: &LaunchParams,
    agent: AgentId,
) -> Result<Made, Error> {
    let own = client_data(ports, job, params)?;
    let (user_data, agent) = match &ports.enrolment {
        Some(enrolment) => {
            let (data, new) = bootstrap(ports, job, enrolment, agent, own.as_deref());
            (Some(data), Some(new))
        }
        None => (own, None),
    };
    let request = LaunchRequest {
        token: token(ports, job, step),
        tag: tag(job.uid, step.name),
        name: params.name.clone(),
        product: params.provider_product.clone(),
        image: params.provider_image.clone(),
        data_center: params.provider_data_center.clone(),
        user_data,
        keypair: params.keypair.clone(),
    };
    let plain = serde_json::to_vec(&request).map_err(|_unwritable| Error::Request { job: job.uid })?;
    Ok(Made { sealed: ports.ring.seal(&place_of(job.uid), &plain), request, agent })
}

/// The client token: made from the install's secret, the job and the step, never from epoch, node, try or time.
fn token(ports: &Ports, job: &Job, step: &Step) -> String {
    if sabotaged(Fault::EpochInToken) {
        return crypto::token(&ports.install, job.uid, &format!("{}.{}", step.name, job.epoch), 0);
    }
    crypto::token(&ports.install, job.uid, step.name, 0)
}

fn client_data(ports: &Ports, job: &Job, params: &LaunchParams) -> Result<Option<Vec<u8>>, Error> {
    let Some(sealed) = &params.sealed_user_data else { return Ok(None) };
    let fault = || Error::Request { job: job.uid };
    let sealed = crypto::base64::decode(sealed).map_err(|_unreadable| fault())?;
    let aad = Aad::new(LaunchParams::USER_DATA).with("customer", job.customer.to_string());
    let plain = ports.ring.open(&aad, &sealed).map_err(|_unreadable| fault())?;
    Ok(Some(plain.expose().to_vec()))
}

/// What the guest's agent reads at its first start: whom to call, whom to trust, its one-time token.
fn bootstrap(
    ports: &Ports,
    job: &Job,
    enrolment: &Enrolment,
    agent: AgentId,
    own: Option<&[u8]>,
) -> (Vec<u8>, NewAgent) {
    let token = crypto::base64::encode_url(crypto::random_bytes::<32>());
    let mut data = serde_json::json!({
        "dispatcher": enrolment.urls,
        "root": enrolment.root,
        "token": token,
    });
    if let (Some(own), Some(fields)) = (own, data.as_object_mut()) {
        fields.insert("userData".to_owned(), crypto::base64::encode(own).into());
    }
    let new = NewAgent {
        id: agent,
        customer: job.customer,
        job: job.uid,
        token_hash: crypto::hex::encode(&crypto::sha256(token.as_bytes())),
        token_expires: ports.clock.now().plus(enrolment.token_life).min(job.deadline),
    };
    (data.to_string().into_bytes(), new)
}

//! `infrastructure/Server`: start, stop, pause, terminate; and the one delete that deletes nothing.

use std::time::Duration;

use super::super::Fault;
use super::call::Call;
use super::reply::Reply;
use super::submit::{Ask, submit};
use super::write::{NO_CONTENT, at_once};
use crate::access::{Resource, Verb};
use crate::model::{AccountId, JobParams, ServerId, ServerParams, ServerStatus};
use crate::store::provisioning::server::{self, ServerRow};

/// Longest reason kept.
const LONGEST_REASON: usize = 500;

pub(super) async fn start(call: Call) -> Result<Reply, Fault> {
    operate(call, "Start server", JobParams::StartServer).await
}

pub(super) async fn stop(call: Call) -> Result<Reply, Fault> {
    operate(call, "Stop server", JobParams::StopServer).await
}

pub(super) async fn pause(call: Call) -> Result<Reply, Fault> {
    operate(call, "Pause server", JobParams::PauseServer).await
}

async fn operate(call: Call, what: &str, params: fn(ServerParams) -> JobParams) -> Result<Reply, Fault> {
    let reason = call.input().at("reason").text_or_empty(LONGEST_REASON)?;
    job(&call, what, reason, params).await
}

/// With `terminateAfter=<milliseconds>` this only puts the automatic end off: to that long from now. It never
/// terminates. Without it, the server is terminated.
pub(super) async fn delete(call: Call) -> Result<Reply, Fault> {
    if call.query.text("terminateAfter").is_some() {
        return extend(call).await;
    }
    call.must(Verb::Delete, Resource::Server)?;
    let reason = call.query.text("reason").unwrap_or_default().chars().take(LONGEST_REASON).collect();
    job(&call, "Terminate", reason, JobParams::TerminateServer).await
}

async fn job(
    call: &Call,
    what: &str,
    reason: String,
    params: fn(ServerParams) -> JobParams,
) -> Result<Reply, Fault> {
    let row = existing(call).await?;
    if row.status == ServerStatus::Terminated.as_str() {
        return Err(Fault::conflict(format!("server {} is terminated already", row.id)));
    }
    let server = ServerId(row.id);
    let ask = Ask {
        params: params(ServerParams { server, reason }),
        description: format!("{what} {server}"),
        account: AccountId(row.account),
        server: Some(server),
    };
    submit(call, ask).await
}

/// The server in the path.
async fn existing(call: &Call) -> Result<ServerRow, Fault> {
    let (customer, number) = (call.customer(), call.number());
    let row = match number {
        Some(number) => call.read(move |c| server::by_id(c, customer, ServerId(number))).await?,
        None => None,
    };
    row.ok_or_else(|| missing(call.id.as_deref().unwrap_or_default()))
}

/// 404 about a server.
pub(super) fn missing(id: &str) -> Fault {
    let shown: String = id.chars().take(64).collect();
    Fault::not_found(format!("there is no server {shown}; GET infrastructure/Server lists them"))
}

/// Longest time a server's automatic end is put off.
const FARTHEST: Duration = Duration::from_secs(10 * 366 * 86_400);

async fn extend(call: Call) -> Result<Reply, Fault> {
    let longest = i64::try_from(FARTHEST.as_millis()).unwrap_or(i64::MAX);
    let asked = call.query.id("terminateAfter")?.filter(|ms| (1..=longest).contains(ms));
    let Some(ms) = asked.and_then(|ms| u64::try_from(ms).ok()) else {
        let message = format!("query terminateAfter: give milliseconds from now, 1 to {longest}");
        return Err(Fault::bad(message));
    };
    let (customer, id) = (call.customer(), call.number());
    let Some(id) = id.map(ServerId) else { return Err(missing(call.id.as_deref().unwrap_or_default())) };
    let check = move |c: &mut _| {
        let row = server::by_id(c, customer, id)?;
        Ok(match row {
            None => Some(missing(&id.to_string())),
            Some(row) if row.status == ServerStatus::Terminated.as_str() => {
                Some(Fault::conflict(format!("server {id} is terminated already")))
            }
            Some(_) => None,
        })
    };
    let apply = move |c: &mut crate::store::AnyConnection| {
        let at = c.now()?.plus(Duration::from_millis(ms));
        server::edit(c, customer, id, &server::Edit { terminate_after: Some(at), ..server::Edit::default() })
    };
    at_once(&call, NO_CONTENT, check, apply).await
}

//! `admin/Job`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use super::reply::put;
use crate::model::{JobId, JobKind, JobState, Micros, PublicStatus};
use crate::store::provisioning::job::{self, Filter, JobRow};

/// Most jobs in a list, newest first. Clients of this API know no pages.
const MOST: i64 = 1000;

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let rows = match (&call.id, call.number()) {
        (None, _) => {
            let filter = Filter { server: None, limit: MOST };
            call.read(move |c| job::list(c, customer, &filter)).await?
        }
        (Some(_), None) => Vec::new(),
        (Some(_), Some(number)) => {
            call.read(move |c| job::by_id(c, customer, JobId(number))).await?.into_iter().collect()
        }
    };
    Ok(rows.iter().map(shape).collect())
}

/// A job as clients poll it: `endDate` and `message` are absent while it runs; a launch that is complete says the
/// server's number, an error says why.
pub(super) fn shape(row: &JobRow) -> Value {
    // A state nobody knows is not an end.
    let status = row.state.parse::<JobState>().map_or(PublicStatus::Running, JobState::public);
    let mut shown = json!({
        "jobId": row.id,
        "status": status,
        "description": row.description,
        "startDate": Micros(row.created_at).enstratus(),
    });
    if status != PublicStatus::Running {
        put(&mut shown, "endDate", Micros(row.ended_at.unwrap_or(row.changed_at)).enstratus());
        put(&mut shown, "message", message(row, status));
    }
    shown
}

fn message(row: &JobRow, status: PublicStatus) -> String {
    let said = row.message.clone().unwrap_or_default();
    match (status, row.server) {
        _ if !said.is_empty() => said,
        (PublicStatus::Complete, Some(server)) if row.kind == JobKind::LaunchServer.as_str() => {
            server.to_string()
        }
        (PublicStatus::Error, _) => row.why.clone(),
        _ => said,
    }
}

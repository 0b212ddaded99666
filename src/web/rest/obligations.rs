//! `/obligations`: what is looked for after jobs ended, and what was found.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::jobs::{number, query};
use super::{Problem, reader};
use crate::access::Resource;
use crate::model::{JobId, Micros, ObligationState};
use crate::registry;
use crate::store::AnyConnection;
use crate::store::provisioning::obligation::{self, Filter, ObligationRow};
use crate::store::provisioning::{figures, job};
use crate::web::State;

/// Most obligations in one answer.
const MOST: i64 = 500;

/// An obligation as the API shows it; `number` is that of the job it names, where there is such a row.
pub(super) fn shown(row: &ObligationRow, number: Option<i64>) -> Value {
    json!({
        "tag": row.tag,
        "job": number,
        "account": row.account,
        "region": row.region,
        "state": row.state,
        "found": listed(&row.found),
        "looks": row.looks,
        "failures": row.failures,
        "record": record(&row.record),
        "madeAt": Micros(row.made_at).rfc3339(),
        "lookedAt": row.looked_at.map(|at| Micros(at).rfc3339()),
        "lookAt": Micros(row.look_at).rfc3339(),
        "lookUntil": Micros(row.look_until).rfc3339(),
        "closedAt": row.closed_at.map(|at| Micros(at).rfc3339()),
    })
}

/// A list that a row holds.
fn listed(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn record(text: &str) -> Vec<Value> {
    let look = |entry: Value| {
        let at = Micros(entry.get("at").and_then(Value::as_i64).unwrap_or_default());
        json!({ "at": at.rfc3339(), "answered": entry.get("answered"), "text": entry.get("text") })
    };
    listed(text).into_iter().map(look).collect()
}

/// Which obligations a list shows.
struct Asked {
    filter: Filter,
    job: Option<JobId>,
}

fn asked(request: &HttpRequest) -> Result<Asked, Problem> {
    let mut asked = Asked { filter: Filter { limit: MOST, ..Filter::default() }, job: None };
    for (name, value) in query(request, &["state", "job", "closed", "limit"])? {
        match name.as_str() {
            "state" => {
                let state: ObligationState = value
                    .parse()
                    .map_err(|e: crate::model::InvalidWord| Problem::field("state", e.to_string()))?;
                asked.filter.state = Some(state);
            }
            "job" => asked.job = Some(JobId(number("job", &value, 1, i64::MAX)?)),
            "limit" => asked.filter.limit = number("limit", &value, 1, MOST)?,
            _ => {
                asked.filter.closed = match value.as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(Problem::field("closed", "parameter closed must be true or false")),
                };
            }
        }
    }
    Ok(asked)
}

/// A tenant's obligations; closed ones with `closed=true` or their state.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        let Asked { mut filter, job: wanted } = asked(&request)?;
        let customer = caller.principal.customer;
        let read = move |c: &mut AnyConnection| {
            if let Some(id) = wanted {
                filter.job = job::by_id(c, customer, id)?.and_then(|row| row.uid.parse().ok());
                if filter.job.is_none() {
                    return Ok(None);
                }
            }
            let rows = obligation::list(c, customer, &filter)?;
            let uids: Vec<String> = rows.iter().map(|row| row.job.clone()).collect();
            Ok(Some((rows, figures::numbers(c, &uids)?)))
        };
        match (state.store.read(read).await?, wanted) {
            (Some(found), _) => Ok(found),
            (None, Some(id)) => Err(registry::Error::NoSuchJob(id).into()),
            (None, None) => Ok((Vec::new(), Vec::new())),
        }
    };
    let (rows, numbers) = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let of = |row: &ObligationRow| numbers.iter().find(|(uid, _)| *uid == row.job).map(|(_, id)| *id);
    let shown: Vec<Value> = rows.iter().map(|row| shown(row, of(row))).collect();
    Ok(HttpResponse::Ok().json(json!({ "obligations": shown })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::{AccountId, JobUid, RegionId};
    use crate::store::provisioning::job;
    use crate::store::provisioning::obligation::{self, Stray};
    use crate::web::rest::openapi::tests::fits;
    use crate::web::rest::tests::{get, submit};
    use crate::web::testing::{KEY, OTHER, READER, Rig};

    #[actix_rt::test]
    async fn what_is_owed_is_listed_by_state_and_job_to_its_tenant_only() {
        let rig = Rig::new().await;
        let id = submit(&rig, KEY, &json!({"kind": "noop"})).await.json["id"].as_i64().expect("a number");
        let customer = get(&rig, READER, &format!("/api/v1/jobs/{id}")).await.json["uid"].clone();
        let uid: JobUid = customer.as_str().expect("a uid").parse().expect("a uid");
        let row = rig.state.store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("a job");
        for job in [Some(uid), Some(JobUid::random()), None] {
            let stray = Stray {
                tag: format!(
                    "dispatcher-job={}.create",
                    job.map_or_else(|| "x".into(), |uid| uid.to_string())
                ),
                job,
                customer: crate::model::CustomerId(row.customer),
                account: AccountId(row.account),
                region: RegionId(1),
            };
            assert!(rig.state.store.write(move |c| obligation::noticed(c, &stray)).await.expect("written"));
        }
        let all = get(&rig, READER, "/api/v1/obligations").await;
        fits("get /obligations", 200, &all.json);
        assert_eq!(all.json["obligations"].as_array().expect("a list").len(), 3, "{}", all.text);
        assert_eq!(get(&rig, OTHER, "/api/v1/obligations").await.json["obligations"], json!([]));
        let one = get(&rig, READER, &format!("/api/v1/obligations?job={id}&state=watched&limit=9")).await;
        assert_eq!(
            (one.json["obligations"][0]["job"].clone(), one.json["obligations"][1].clone()),
            (id.into(), json!(null))
        );
        let none = get(&rig, READER, "/api/v1/obligations?state=needs-you&closed=true").await;
        assert_eq!(none.json["obligations"], json!([]));
        for (bad, said) in [
            ("state=open", "watched, taking-back"),
            ("closed=x", "true or false"),
            ("jb=1", "did you mean job?"),
        ] {
            let refused = get(&rig, READER, &format!("/api/v1/obligations?{bad}")).await;
            assert_eq!(refused.status, 400, "{bad}");
            assert!(refused.text.contains(said), "{bad}: {}", refused.text);
        }
        assert_eq!(get(&rig, READER, "/api/v1/obligations?job=999999").await.status, 404);
        let story = get(&rig, READER, &format!("/api/v1/jobs/{id}")).await;
        fits("get /jobs/{id}", 200, &story.json);
        assert_eq!(story.json["obligations"][0]["state"], "watched", "{}", story.text);
    }
}

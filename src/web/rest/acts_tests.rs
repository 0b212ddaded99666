//! What is done about jobs, servers and agents through the whole listener, and that answers are as documented.

use actix_web::test::TestRequest;
use diesel::prelude::*;
use serde_json::{Value, json};

use super::openapi::tests::fits;
use super::tests::{get, signed, submit};
use crate::model::{AgentId, JobState, JobUid, Micros};
use crate::store::provisioning::agent::{self, NewAgent};
use crate::store::provisioning::schema::{agent as agents, job};
use crate::store::provisioning::{seed, transition};
use crate::web::testing::{Answer, KEY, OTHER, OTHER_SERVER, READER, Rig, SERVER};

async fn post(rig: &Rig, key: &str, path: &str, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    rig.send(signed(key, "POST", path, &text)).await
}

fn keyed(key: &str, path: &str, body: &Value) -> TestRequest {
    signed(key, "POST", path, &body.to_string()).insert_header(("idempotency-key", "k-1"))
}

/// A job in this state, with the path of it.
async fn job_in(rig: &Rig, state: JobState, wish: Value) -> (i64, String) {
    let made = submit(rig, KEY, &wish).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.json["id"].as_i64().expect("a number");
    put(rig, id, state).await;
    (id, format!("/api/v1/jobs/{id}"))
}

async fn put(rig: &Rig, id: i64, state: JobState) {
    let ended = state.is_end().then_some(1_700_000_000_000_000_i64);
    let rows = rig
        .write(move |c| {
            diesel::update(job::table.filter(job::id.eq(id)))
                .set((job::state.eq(state.as_str()), job::ended_at.eq(ended)))
                .execute(c)
        })
        .await;
    assert_eq!(rows, 1);
}

async fn audit_of(rig: &Rig, job: &Value) -> Vec<(String, String, String)> {
    let subject = format!("job/{}", job["uid"].as_str().expect("a uid"));
    rig.state.store.read(move |c| transition::audited(c, &subject)).await.expect("read")
}

#[actix_rt::test]
async fn why_is_told_to_the_tenant_only() {
    let rig = Rig::new().await;
    let (id, path) = job_in(&rig, JobState::Queued, json!({"kind": "noop"})).await;
    let why = get(&rig, READER, &format!("{path}/why")).await;
    fits("get /jobs/{id}/why", 200, &why.json);
    assert_eq!(
        (&why.json["id"], &why.json["code"], &why.json["text"]),
        (&id.into(), &"dispatch".into(), &"accepted; waiting for a dispatcher to claim it".into())
    );
    assert_eq!(get(&rig, OTHER, &format!("{path}/why")).await.status, 404);
    assert_eq!(get(&rig, KEY, &format!("{path}/why?verbose=1")).await.status, 400);
}

#[actix_rt::test]
async fn a_retry_is_a_new_job_with_the_same_parameters_once_a_key() {
    let rig = Rig::new().await;
    let wish = json!({"kind": "launch-server", "priority": 4, "deadlineSeconds": 77, "params": {
        "name": "web-1", "dataCenter": "sim-2a", "product": "m1.large", "userData": "#!/bin/sh"}});
    let (id, path) = job_in(&rig, JobState::Running, wish).await;
    let retry = format!("{path}/retry");
    let open = post(&rig, KEY, &retry, &json!({})).await;
    assert_eq!(open.status, 409, "{}", open.text);
    assert!(open.text.contains("cancel it first"), "{}", open.text);
    fits("post /jobs/{id}/retry", 409, &open.json);
    put(&rig, id, JobState::Unresolved).await;
    let first = rig.send(keyed(KEY, &retry, &json!({}))).await;
    let again = rig.send(keyed(KEY, &retry, &json!({}))).await;
    fits("post /jobs/{id}/retry", 202, &first.json);
    assert_eq!((first.status.as_u16(), &first.json["id"]), (202, &again.json["id"]), "{}", first.text);
    let was = get(&rig, KEY, &path).await.json;
    assert_ne!(first.json["id"], was["id"]);
    assert_eq!((&first.json["params"], &first.json["priority"]), (&was["params"], &4.into()));
    assert_eq!(first.json["description"], format!("Launch server web-1 (retry of job {id})"));
    assert_eq!(first.json["state"], "queued");
    let other = rig.send(keyed(KEY, &retry, &json!({"priority": 9}))).await;
    assert_eq!(other.json["type"], "urn:dispatcher:problem:idempotency-conflict", "{}", other.text);
    for (key, body, status) in
        [(READER, json!({}), 403), (OTHER, json!({}), 404), (KEY, json!({"params": {}}), 400)]
    {
        assert_eq!(post(&rig, key, &retry, &body).await.status.as_u16(), status, "{key}");
    }
}

#[actix_rt::test]
async fn a_person_ends_what_is_set_aside_with_evidence_and_audit() {
    let rig = Rig::new().await;
    let wish = json!({"kind": "stop-server", "params": {"server": SERVER}});
    let (_, path) = job_in(&rig, JobState::Running, wish).await;
    let resolve = format!("{path}/resolve");
    let word = json!({"outcome": "complete", "reason": "seen on the provider's page"});
    let early = post(&rig, KEY, &resolve, &word).await;
    assert_eq!(early.status, 409, "{}", early.text);
    assert!(early.text.contains("only a quarantined job"), "{}", early.text);
    let was = get(&rig, KEY, &path).await.json;
    assert_eq!((was["evidence"].clone(), audit_of(&rig, &was).await), (json!([]), Vec::new()));

    put(&rig, was["id"].as_i64().expect("a number"), JobState::Quarantined).await;
    assert_eq!(post(&rig, READER, &resolve, &word).await.status, 403);
    assert_eq!(post(&rig, OTHER, &resolve, &word).await.status, 404);
    let done = rig.send(keyed(KEY, &resolve, &word)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    fits("post /jobs/{id}/resolve", 200, &done.json);
    assert_eq!((&done.json["state"], &done.json["why"]["code"]), (&"complete".into(), &"person".into()));
    assert_eq!(
        (&done.json["evidence"][0]["source"], &done.json["evidence"][0]["verdict"]),
        (&"person/admin".into(), &"reached".into())
    );
    let server = get(&rig, KEY, &format!("/api/v1/servers/{SERVER}")).await;
    assert_eq!(server.json["status"], "STOPPED");
    let again = rig.send(keyed(KEY, &resolve, &word)).await;
    assert_eq!((again.status.as_u16(), audit_of(&rig, &was).await.len()), (200, 1), "{}", again.text);

    // Another word comes too late: the end stands, the word is kept.
    let late = post(&rig, KEY, &resolve, &json!({"outcome": "failed", "reason": "I was wrong"})).await;
    assert_eq!((late.status.as_u16(), &late.json["state"]), (200, &"complete".into()), "{}", late.text);
    assert_eq!(late.json["endedAt"], done.json["endedAt"]);
    assert_eq!(late.json["evidence"].as_array().map(Vec::len), Some(2));
    let audit = audit_of(&rig, &was).await;
    assert_eq!((audit.len(), audit[1].0.as_str(), audit[1].1.as_str()), (2, "person/admin", "job.resolve"));
    assert!(audit[1].2.contains("failed (had ended before, unchanged): I was wrong"), "{audit:?}");
}

#[actix_rt::test]
async fn a_launch_without_a_server_cannot_be_called_complete() {
    let rig = Rig::new().await;
    let wish = json!({"kind": "launch-server", "params": {"name": "w", "dataCenter": "sim-2a", "product": "m1.large"}});
    let (_, path) = job_in(&rig, JobState::Quarantined, wish).await;
    let resolve = format!("{path}/resolve");
    let refused = post(&rig, KEY, &resolve, &json!({"outcome": "complete", "reason": "x"})).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("resolve it as failed or unresolved"), "{}", refused.text);
    let done = post(&rig, KEY, &resolve, &json!({"outcome": "failed", "reason": "it never came"})).await;
    assert_eq!((&done.json["state"], &done.json["status"]), (&"failed".into(), &"ERROR".into()));
    assert!(done.json["message"].as_str().is_some_and(|text| text.contains("person/admin")), "{}", done.text);
}

#[actix_rt::test]
async fn a_cancel_is_recorded_with_its_request() {
    let rig = Rig::new().await;
    let (id, path) = job_in(&rig, JobState::Queued, json!({"kind": "noop"})).await;
    let cancel = format!("{path}/cancel");
    assert_eq!(post(&rig, KEY, &cancel, &json!({"force": true})).await.status, 400);
    let first = rig.send(keyed(KEY, &cancel, &json!({}))).await;
    fits("post /jobs/{id}/cancel", 202, &first.json);
    assert!(first.json["cancelBy"].is_string(), "{}", first.text);
    put(&rig, id, JobState::Cancelled).await;
    assert_eq!(rig.send(keyed(KEY, &cancel, &json!({}))).await.status, 202);
    assert_eq!(post(&rig, KEY, &cancel, &json!({})).await.status, 409);
    assert_eq!(rig.send(keyed(KEY, &cancel, &Value::Null)).await.status, 409);
}

#[actix_rt::test]
async fn a_server_is_shown_and_its_moves_are_jobs() {
    let rig = Rig::new().await;
    let path = format!("/api/v1/servers/{SERVER}");
    let shown = get(&rig, READER, &path).await;
    fits("get /servers/{id}", 200, &shown.json);
    assert_eq!(shown.json["id"], SERVER);
    for (verb, kind) in [
        ("start", "start-server"),
        ("stop", "stop-server"),
        ("pause", "pause-server"),
        ("terminate", "terminate-server"),
    ] {
        let made = post(&rig, KEY, &format!("{path}/{verb}"), &json!({"reason": "r", "priority": 2})).await;
        assert_eq!(made.status, 202, "{}", made.text);
        fits(&format!("post /servers/{{id}}/{verb}"), 202, &made.json);
        assert_eq!((&made.json["kind"], &made.json["params"]["reason"]), (&kind.into(), &"r".into()));
        assert_eq!(post(&rig, READER, &format!("{path}/{verb}"), &Value::Null).await.status, 403);
        let other = post(&rig, KEY, &format!("/api/v1/servers/{OTHER_SERVER}/{verb}"), &Value::Null).await;
        assert_eq!((other.status.as_u16(), &other.json["field"]), (404, &"id".into()), "{}", other.text);
    }
    assert_eq!(post(&rig, KEY, &format!("{path}/stop"), &Value::Null).await.status, 202);
    let typo = post(&rig, KEY, &format!("{path}/stop"), &json!({"reson": "r"})).await;
    assert!(typo.status == 400 && typo.text.contains("did you mean reason?"), "{}", typo.text);
    for there in ["7", "0", "web"] {
        assert_eq!(get(&rig, KEY, &format!("/api/v1/servers/{there}")).await.status, 404, "{there}");
    }
    assert_eq!(get(&rig, OTHER, &path).await.status, 404);
    assert_eq!(rig.send(signed(KEY, "POST", &format!("{path}/reboot"), "")).await.status, 404);
}

#[actix_rt::test]
async fn an_agent_is_shown_and_runs_commands() {
    let rig = Rig::new().await;
    rig.write(|c| {
        let new = NewAgent {
            id: AgentId(42),
            customer: seed::CUSTOMER,
            job: JobUid::random(),
            token_hash: "h".to_owned(),
            token_expires: Micros(1),
        };
        agent::insert(c, &new)?;
        diesel::update(agents::table).set(agents::server.eq(Some(SERVER))).execute(c)
    })
    .await;
    let path = format!("/api/v1/agents/{SERVER}");
    let shown = get(&rig, READER, &path).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    fits("get /agents/{server}", 200, &shown.json);
    assert!(!shown.text.contains("oken"), "{}", shown.text);
    assert_eq!(get(&rig, OTHER, &path).await.status, 404);
    assert_eq!(get(&rig, KEY, &format!("/api/v1/agents/{OTHER_SERVER}")).await.status, 404);
    let run = format!("{path}/commands");
    let made = post(&rig, KEY, &run, &json!({"argv": ["uname", "-a"], "timeoutSecs": 9})).await;
    assert_eq!(made.status, 202, "{}", made.text);
    fits("post /agents/{server}/commands", 202, &made.json);
    assert_eq!(
        (&made.json["kind"], &made.json["params"]),
        (&"run-command".into(), &json!({"server": SERVER, "argv": ["uname", "-a"], "timeoutSecs": 9}))
    );
    for (key, body, status, field) in [
        (READER, json!({"argv": ["id"]}), 403, Value::Null),
        (KEY, json!({"argv": []}), 400, json!("argv")),
        (KEY, json!({"argv": [""]}), 400, json!("argv")),
        (KEY, json!({"argv": ["id"], "shell": true}), 400, json!("shell")),
        (OTHER, json!({"argv": ["id"]}), 404, json!("server")),
    ] {
        let answer = post(&rig, key, &run, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        assert_eq!(answer.json.get("field").cloned().unwrap_or_default(), field, "{}", answer.text);
    }
}

#[actix_rt::test]
async fn lists_and_problems_are_as_documented() {
    let rig = Rig::new().await;
    let made = submit(&rig, KEY, &json!({"kind": "noop"})).await;
    fits("post /jobs", 202, &made.json);
    let path = format!("/api/v1/jobs/{}", made.json["id"]);
    fits("get /jobs/{id}", 200, &get(&rig, KEY, &path).await.json);
    for list in ["/jobs", "/servers", "/agents", "/actors", "/health"] {
        let answer = get(&rig, KEY, &format!("/api/v1{list}")).await;
        fits(&format!("get {list}"), 200, &answer.json);
        let odd = get(&rig, KEY, &format!("/api/v1{list}?no-such=1")).await;
        assert_eq!(odd.status, 400, "{list}: {}", odd.text);
        fits(&format!("get {list}"), 400, &odd.json);
    }
}

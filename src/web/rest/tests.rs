//! The native API through the whole listener: signed, resolved, accepted once, shown to its tenant only.

use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::{Value, json};

use crate::access::signature::native;
use crate::model::{Micros, Uid};
use crate::web::testing::{Answer, KEY, OTHER, OTHER_SERVER, READER, Rig, SECRET, SERVER};

const HOST: &str = "dispatcher.test";

pub(super) fn signed(key: &str, method: &str, path: &str, body: &str) -> TestRequest {
    let (bare, query) = path.split_once('?').unwrap_or((path, ""));
    let (nonce, now) = (Uid::random().to_string(), Micros::wall().millis());
    let parts = native::Parts {
        method,
        path: bare,
        query,
        body: body.as_bytes(),
        host: HOST,
        timestamp_ms: now,
        nonce: &nonce,
        key_id: key,
    };
    let signature = native::sign(SECRET.as_bytes(), &parts);
    let request = TestRequest::default()
        .method(Method::from_bytes(method.as_bytes()).expect("a method"))
        .uri(path)
        .insert_header(("host", HOST))
        .insert_header((native::KEY_HEADER, key))
        .insert_header((native::TIMESTAMP_HEADER, now.to_string()))
        .insert_header((native::NONCE_HEADER, nonce))
        .insert_header((native::SIGNATURE_HEADER, signature));
    if body.is_empty() {
        return request;
    }
    request.insert_header(("content-length", body.len().to_string())).set_payload(body.to_owned())
}

pub(super) async fn get(rig: &Rig, key: &str, path: &str) -> Answer {
    rig.send(signed(key, "GET", path, "")).await
}

pub(in crate::web) async fn submit(rig: &Rig, key: &str, body: &Value) -> Answer {
    rig.send(signed(key, "POST", "/api/v1/jobs", &body.to_string())).await
}

#[actix_rt::test]
async fn a_submit_is_durable_resolved_and_seen_by_its_tenant_only() {
    let rig = Rig::new().await;
    let wish = json!({"kind": "launch-server", "priority": 3, "params": {
        "name": "web-1", "dataCenter": "sim-2a", "product": "m1.large", "userData": "#!/bin/sh secret"}});
    let made = submit(&rig, KEY, &wish).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.json["id"].as_i64().expect("a number");
    assert_eq!(made.headers.get("location").expect("set"), &format!("/api/v1/jobs/{id}"));
    assert_eq!(
        (&made.json["params"]["providerProduct"], &made.json["params"]["userData"]),
        (&"m1.large".into(), &true.into())
    );
    let path = format!("/api/v1/jobs/{id}");
    let shown = get(&rig, KEY, &path).await;
    assert_eq!(
        (&shown.json["state"], &shown.json["timeline"][0]["what"]),
        (&"queued".into(), &"accepted".into())
    );
    assert!(!shown.text.contains("bin/sh"), "{}", shown.text);
    for (key, there) in [(KEY, 200), (READER, 200), (OTHER, 404)] {
        for path in [path.clone(), format!("{path}/output"), format!("{path}/events")] {
            if path.ends_with("events") && there == 200 {
                continue;
            }
            assert_eq!(get(&rig, key, &path).await.status, there, "{key} {path}");
        }
    }
    let list = get(&rig, OTHER, "/api/v1/jobs").await;
    assert_eq!(list.json["jobs"], json!([]));
    let list = get(&rig, KEY, "/api/v1/jobs?state=open&kind=launch-server&limit=1").await;
    assert_eq!((&list.json["jobs"][0]["id"], &list.json["before"]), (&id.into(), &Value::Null));
    let second = submit(&rig, KEY, &json!({"kind": "noop"})).await.json["id"].clone();
    let list = get(&rig, KEY, "/api/v1/jobs?limit=1").await;
    assert_eq!((&list.json["jobs"][0]["id"], &list.json["before"]), (&second, &second));
    let list = get(&rig, KEY, "/api/v1/jobs?q=-kind%3Anoop%20by%3Ame%20target%3Aweb-*").await;
    assert_eq!(
        (list.json["jobs"].as_array().map(Vec::len), &list.json["jobs"][0]["id"]),
        (Some(1), &id.into())
    );
    let bad = get(&rig, KEY, "/api/v1/jobs?q=knd%3Anoop").await;
    assert_eq!((bad.status.as_u16(), &bad.json["field"]), (400, &"q".into()), "{}", bad.text);
    assert!(
        bad.json["detail"].as_str().is_some_and(|text| text.contains("did you mean kind?")),
        "{}",
        bad.text
    );
    let refused = rig.send(signed(READER, "POST", &format!("{path}/cancel"), "")).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

#[actix_rt::test]
async fn one_key_is_one_job_and_another_body_a_conflict() {
    let rig = Rig::new().await;
    let keyed =
        |body: &str| signed(KEY, "POST", "/api/v1/jobs", body).insert_header(("idempotency-key", "k-1"));
    let first = rig.send(keyed(r#"{"kind":"noop"}"#)).await;
    let again = rig.send(keyed(r#"{"kind":"noop"}"#)).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202), "{}", again.text);
    assert_eq!(first.json["id"], again.json["id"]);
    let other = rig.send(keyed(r#"{"kind":"noop","priority":1}"#)).await;
    assert_eq!(
        (other.status.as_u16(), &other.json["type"]),
        (409, &"urn:dispatcher:problem:idempotency-conflict".into())
    );
}

#[actix_rt::test]
async fn what_is_wrong_is_a_problem_with_field_and_request() {
    let rig = Rig::new().await;
    for (key, body, status, field) in [
        (KEY, json!({"kind": "launch-server", "params": {"name": "w"}}), 400, json!("params.region")),
        (
            KEY,
            json!({"kind": "launch-server", "params": {"name": "w", "image": "nope"}}),
            404,
            json!("params.image"),
        ),
        (
            KEY,
            json!({"kind": "stop-server", "params": {"server": OTHER_SERVER}}),
            404,
            json!("params.server"),
        ),
        (KEY, json!({"kind": "noop", "parms": {}}), 400, json!("parms")),
        (READER, json!({"kind": "stop-server", "params": {"server": SERVER}}), 403, Value::Null),
    ] {
        let answer = submit(&rig, key, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        assert_eq!(answer.headers.get("content-type").expect("typed"), "application/problem+json");
        assert_eq!(answer.json.get("field").cloned().unwrap_or_default(), field, "{}", answer.text);
        assert!(answer.json["requestId"].is_string(), "{}", answer.text);
    }
    let good = submit(&rig, KEY, &json!({"kind": "stop-server", "params": {"server": SERVER}})).await;
    assert_eq!(
        (good.status.as_u16(), &good.json["description"]),
        (202, &json!(format!("Stop server server-{SERVER}")))
    );
    let unsigned = rig.send(TestRequest::get().uri("/api/v1/jobs")).await;
    assert_eq!((unsigned.status.as_u16(), unsigned.json["status"].as_u64()), (403, Some(403)));
    assert_eq!(get(&rig, KEY, "/api/v1/nothing").await.json["title"], "Not Found");
}

#[actix_rt::test]
async fn lists_show_the_tenants_own_and_no_secret() {
    let rig = Rig::new().await;
    let servers = get(&rig, KEY, "/api/v1/servers").await;
    let ids: Vec<i64> =
        servers.json["servers"].as_array().expect("a list").iter().filter_map(|s| s["id"].as_i64()).collect();
    assert_eq!(ids, [SERVER]);
    for (path, field) in
        [("/api/v1/agents", "agents"), ("/api/v1/actors", "actors"), ("/api/v1/health", "parts")]
    {
        let answer = get(&rig, KEY, path).await;
        assert!(answer.status == 200 && answer.json[field].is_array(), "{path}: {}", answer.text);
    }
    assert_eq!(get(&rig, KEY, "/api/v1/servers?terminated=perhaps").await.status, 400);
}

//! Groups through the whole listener: as a whole or not at all, shown with their children, retried in part.

use serde_json::{Value, json};

use super::openapi::tests::fits;
use super::tests::{get, signed, submit};
use crate::model::JobUid;
use crate::store::provisioning::schema::job;
use crate::web::testing::{KEY, OTHER, READER, Rig};
use diesel::prelude::*;

fn wish(children: &Value) -> Value {
    json!({"kind": "group", "params": {"children": children, "together": 2, "stopOnFailure": true}})
}

fn uid(shown: &Value) -> JobUid {
    shown["uid"].as_str().and_then(|uid| uid.parse().ok()).expect("a uid")
}

/// Ends a job in this state, as if it had been worked at.
async fn end(rig: &Rig, shown: &Value, state: &'static str) {
    let (uid, group) = (uid(shown).to_string(), shown["kind"] == "group");
    rig.write(move |c| {
        let over = (job::state.eq(state), job::ended_at.eq(Some(1)), job::message.eq(Some("m")));
        diesel::update(job::table.find(&uid)).set((over, job::due_at.eq(None::<i64>))).execute(c)?;
        if group { Ok(0) } else { diesel::sql_query("UPDATE child SET done = 1").execute(c) }
    })
    .await;
}

#[actix_rt::test]
async fn a_group_is_shown_with_its_children_found_by_them_and_made_once() {
    let rig = Rig::new().await;
    let body = wish(&json!([
        {"kind": "noop", "params": {"note": "a"}, "priority": 5},
        {"kind": "noop"},
        {"kind": "stop-server", "params": {"server": 7000}},
    ]));
    let send = |body: String| {
        let request = signed(KEY, "POST", "/api/v1/jobs", &body).insert_header(("idempotency-key", "k"));
        rig.send(request)
    };
    let made = send(body.to_string()).await;
    assert_eq!(made.status, 202, "{}", made.text);
    fits("post /jobs", 202, &made.json);
    assert_eq!(
        (&made.json["description"], &made.json["state"]),
        (&json!("Group of 3 jobs"), &json!("awaiting"))
    );
    assert_eq!(made.json["params"]["stopOnFailure"], true);
    assert_eq!(send(body.to_string()).await.json["id"], made.json["id"], "the same key, the same group");
    let id = made.json["id"].as_i64().expect("a number");
    let shown = get(&rig, READER, &format!("/api/v1/jobs/{id}")).await.json;
    fits("get /jobs/{id}", 200, &shown);
    assert_eq!((&shown["children"]["total"], &shown["children"]["queued"]), (&json!(3), &json!(3)));
    let found = get(&rig, READER, &format!("/api/v1/jobs?q=parent:{id}")).await.json;
    let children = found["jobs"].as_array().expect("a list");
    assert_eq!(children.len(), 3, "{found}");
    assert!(children.iter().all(|child| child["parent"] == id));
    let why: Vec<&str> = children.iter().rev().filter_map(|child| child["why"]["code"].as_str()).collect();
    assert_eq!(why, ["dispatch", "dispatch", "group"]);
    let top = get(&rig, READER, "/api/v1/jobs?q=parent:none").await.json;
    assert_eq!(top["jobs"].as_array().map(Vec::len), Some(1), "children need not stand in a list");
    assert_eq!(get(&rig, OTHER, &format!("/api/v1/jobs?q=parent:{id}")).await.json["jobs"], json!([]));
}

#[actix_rt::test]
async fn what_is_wrong_in_a_child_is_named_and_nothing_is_stored() {
    let rig = Rig::new().await;
    let good = json!({"kind": "noop"});
    for (children, field, said, status) in [
        (json!([]), "params.children", "1 to 1000 jobs", 400),
        (json!({"kind": "noop"}), "params.children", "must be a list", 400),
        (json!([good, {"kind": "nop"}]), "params.children[1].kind", "did you mean noop?", 400),
        (
            json!([{"kind": "noop", "params": {"nte": ""}}]),
            "params.children[0].params.nte",
            "did you mean",
            400,
        ),
        (json!([wish(&json!([good]))]), "params.children[0].kind", "single jobs", 400),
        (json!([{"kind": "noop", "delaySeconds": 5}]), "params.children[0].delaySeconds", "whole group", 400),
        (
            json!([good, {"kind": "stop-server", "params": {"server": 1}}]),
            "params.children[1].params.server",
            "there is no server 1",
            404,
        ),
    ] {
        let answer = submit(&rig, KEY, &wish(&children)).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["field"]),
            (status, &json!(field)),
            "{}",
            answer.text
        );
        assert!(answer.json["detail"].as_str().is_some_and(|text| text.contains(said)), "{}", answer.text);
    }
    assert_eq!(submit(&rig, READER, &wish(&json!([good]))).await.status, 403, "each child needs its right");
    let schedule = json!({"name": "n", "cron": "@daily", "job": wish(&json!([good]))}).to_string();
    let refused = rig.send(signed(KEY, "POST", "/api/v1/schedules", &schedule)).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(get(&rig, KEY, "/api/v1/jobs").await.json["jobs"], json!([]));
}

#[actix_rt::test]
async fn a_retry_takes_up_only_what_did_not_end_complete() {
    let rig = Rig::new().await;
    let made =
        submit(&rig, KEY, &wish(&json!([{"kind": "noop"}, {"kind": "noop", "params": {"note": "b"}}])))
            .await
            .json;
    let id = made["id"].as_i64().expect("a number");
    let retry = format!("/api/v1/jobs/{id}/retry");
    assert_eq!(rig.send(signed(KEY, "POST", &retry, "")).await.status, 409, "it is open");
    let found = get(&rig, KEY, &format!("/api/v1/jobs?q=parent:{id}")).await.json;
    end(&rig, &found["jobs"][1], "complete").await;
    end(&rig, &found["jobs"][0], "failed").await;
    end(&rig, &made, "failed").await;
    let again = rig.send(signed(KEY, "POST", &retry, "")).await;
    assert_eq!(again.status, 202, "{}", again.text);
    assert_eq!(
        (&again.json["params"]["retryOf"], &again.json["params"]["children"]),
        (&json!(id), &json!(1))
    );
    let text = format!("Group of 1 job (retry of job {id})");
    assert_eq!(again.json["description"], text.as_str());
    let found = get(&rig, KEY, &format!("/api/v1/jobs?q=parent:{}", again.json["id"])).await.json;
    assert_eq!(
        (&found["jobs"][0]["params"]["note"], found["jobs"].as_array().map(Vec::len)),
        (&json!("b"), Some(1))
    );
    end(&rig, &found["jobs"][0], "complete").await;
    end(&rig, &again.json, "complete").await;
    let whole = rig.send(signed(KEY, "POST", &format!("/api/v1/jobs/{}/retry", again.json["id"]), "")).await;
    assert_eq!(whole.status, 409, "{}", whole.text);
    assert!(whole.text.contains("nothing to retry"), "{}", whole.text);
}

//! Schedules through the whole listener.

use serde_json::{Value, json};

use super::openapi::tests::fits;
use super::tests::{get, signed};
use crate::web::testing::{Answer, KEY, OTHER, READER, Rig};

const SCHEDULES: &str = "/api/v1/schedules";

async fn send(rig: &Rig, (key, method, path): (&str, &str, &str), body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    rig.send(signed(key, method, path, &text)).await
}

fn nightly() -> Value {
    json!({"name": "nightly", "cron": "30 3 * * *", "misfire": "once",
        "job": {"kind": "noop", "params": {"note": "x"}, "priority": 3, "deadlineSeconds": 60}})
}

#[actix_rt::test]
async fn a_schedule_is_made_shown_switched_fired_and_taken_away() {
    let rig = Rig::new().await;
    assert_eq!(send(&rig, (READER, "POST", SCHEDULES), &nightly()).await.status, 403);
    let keyed =
        || signed(KEY, "POST", SCHEDULES, &nightly().to_string()).insert_header(("idempotency-key", "k"));
    let made = rig.send(keyed()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    fits("post /schedules", 201, &made.json);
    let next = made.json["nextAt"].as_str().expect("a time").to_owned();
    assert!(next.ends_with("T03:30:00.000000Z"), "{next}");
    let again = rig.send(keyed()).await;
    assert_eq!((again.status.as_u16(), &again.json), (201, &made.json), "{}", again.text);
    let twice = send(&rig, (KEY, "POST", SCHEDULES), &nightly()).await;
    assert_eq!(twice.status, 409, "{}", twice.text);
    let listed = get(&rig, READER, SCHEDULES).await;
    fits("get /schedules", 200, &listed.json);
    assert_eq!(listed.json["schedules"], json!([made.json]));
    assert_eq!(get(&rig, OTHER, SCHEDULES).await.json["schedules"], json!([]));
    let path = format!("{SCHEDULES}/{}", made.json["id"]);
    assert_eq!(get(&rig, OTHER, &path).await.status, 404);
    let off = send(&rig, (KEY, "POST", &format!("{path}/disable")), &Value::Null).await;
    fits("post /schedules/{id}/disable", 200, &off.json);
    assert_eq!((&off.json["enabled"], &off.json["nextAt"]), (&json!(false), &Value::Null));
    let on = send(&rig, (KEY, "POST", &format!("{path}/enable")), &Value::Null).await;
    assert_eq!((&on.json["enabled"], on.json["nextAt"].as_str()), (&json!(true), Some(next.as_str())));
    assert_eq!(get(&rig, READER, &path).await.json, on.json);
    let fired = send(&rig, (KEY, "POST", &format!("{path}/fire")), &Value::Null).await;
    assert_eq!(fired.status, 202, "{}", fired.text);
    fits("post /schedules/{id}/fire", 202, &fired.json);
    assert_eq!(
        (&fired.json["description"], &fired.json["priority"]),
        (&"Do nothing (schedule nightly)".into(), &3.into())
    );
    assert_eq!(send(&rig, (READER, "POST", &format!("{path}/fire")), &Value::Null).await.status, 403);
    assert_eq!(send(&rig, (READER, "DELETE", &path), &Value::Null).await.status, 403);
    assert_eq!(send(&rig, (KEY, "DELETE", &path), &Value::Null).await.status, 204);
    assert_eq!(get(&rig, KEY, &path).await.status, 404);
}

#[actix_rt::test]
async fn what_is_wrong_with_a_schedule_is_named() {
    let rig = Rig::new().await;
    for (change, field, said) in [
        (json!({"cron": "30 3 * *"}), "cron", "has 4 fields"),
        (json!({"cron": "0 0 30 2 *"}), "cron", "no time that ever comes"),
        (json!({"misfire": "twice"}), "misfire", "must be skip"),
        (json!({"enabled": "yes"}), "enabled", "true or false"),
        (json!({"crom": "x"}), "crom", "did you mean cron?"),
        (json!({"job": {"kind": "nop"}}), "job.kind", "did you mean noop?"),
        (
            json!({"job": {"kind": "noop", "params": {"nte": 1}}}),
            "job.params.nte",
            "did you mean params.note?",
        ),
        (json!({"job": {"kind": "noop", "delaySeconds": 5}}), "job.delaySeconds", "leave delaySeconds out"),
        (json!({"job": null}), "job.kind", "missing"),
    ] {
        let mut wish = nightly();
        for (name, value) in change.as_object().expect("an object") {
            wish[name] = value.clone();
        }
        let refused = send(&rig, (KEY, "POST", SCHEDULES), &wish).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json["field"]),
            (400, &field.into()),
            "{}",
            refused.text
        );
        assert!(refused.text.contains(said), "{}", refused.text);
    }
}

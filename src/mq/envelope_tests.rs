//! Messages that travel, and those that must not get through.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Content, Envelope, Head, LARGEST, Refused, SCHEMA, WatchBody, decode};
use crate::model::{AccountId, JobUid, Micros, ServerId, Uid, Verdict, WatchKind, WatchUid};
use crate::mq::Nudge;

fn head(job: JobUid) -> Head {
    Head::of_job(Micros(1_795_000_000_000_000), job, 3, AccountId(7))
}

fn any_nudge() -> impl Strategy<Value = Nudge> {
    let uid = || any::<[u8; 16]>().prop_map(Uid::from_bytes);
    prop_oneof![
        uid().prop_map(|u| Nudge::Job(JobUid(u))),
        uid().prop_map(|u| Nudge::Cancel(JobUid(u))),
        uid().prop_map(|u| Nudge::Reported(JobUid(u))),
        any::<i64>().prop_map(|n| Nudge::Guest(ServerId(n))),
        (uid(), prop_oneof![Just(WatchKind::Cloud), Just(WatchKind::Guest), Just(WatchKind::Noop)])
            .prop_map(|(u, kind)| Nudge::Watch(kind, WatchUid(u))),
    ]
}

fn with(envelope: &Envelope, change: impl FnOnce(&mut Value)) -> Result<Content, Refused> {
    let mut value = serde_json::to_value(envelope).expect("plain data");
    change(&mut value);
    decode(value.to_string().as_bytes())
}

fn verdict(body: Value) -> Envelope {
    Envelope {
        kind: "verdict".into(),
        body,
        ..Envelope::of_nudge(head(JobUid::random()), Nudge::Guest(ServerId(1)))
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_understood(nudge in any_nudge(), epoch: i64, account: i64, at in 0_i64..i64::MAX) {
        let job = match nudge {
            Nudge::Job(job) | Nudge::Cancel(job) | Nudge::Reported(job) => job,
            _ => JobUid::random(),
        };
        let envelope = Envelope::of_nudge(Head::of_job(Micros(at), job, epoch, AccountId(account)), nudge);
        let text = envelope.encode();
        prop_assert_eq!(Envelope::parse(text.as_bytes()), Ok(envelope));
        prop_assert_eq!(decode(text.as_bytes()), Ok(Content::Nudge(nudge)));
    }

    #[test]
    fn no_bytes_are_understood_by_accident(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_message_is_malformed(nudge in any_nudge(), cut in 0.0_f64..1.0) {
        let text = Envelope::of_nudge(head(JobUid::random()), nudge).encode();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "a place inside a short text")]
        let at = (text.len() as f64 * cut) as usize;
        prop_assert!(matches!(decode(&text.as_bytes()[..at]), Err(Refused::Malformed(_))));
    }
}

#[test]
fn the_envelope_says_what_the_contract_lists() {
    let (job, watch) = (JobUid::random(), WatchUid::random());
    let body = WatchBody {
        watch_id: watch,
        target: "i-1".into(),
        expectation: "RUNNING".into(),
        deadline: Micros(5),
    };
    let envelope = Envelope::of_watch(head(job), WatchKind::Cloud, &body);
    let value: Value = serde_json::from_str(&envelope.encode()).expect("JSON");
    assert_eq!(
        (&value["schema"], &value["kind"], &value["jobId"], &value["epoch"], &value["accountId"]),
        (&json!(SCHEMA), &json!("watch.cloud"), &json!(job.to_string()), &json!(3), &json!(7))
    );
    assert_eq!(
        value["body"],
        json!({"watchId": watch.to_string(), "target": "i-1", "expectation": "RUNNING", "deadline": 5})
    );
    let trace = value["traceparent"].as_str().expect("a text");
    assert!(trace.starts_with(&format!("00-{job}-")) && trace.len() == 55, "{trace}");
    assert_eq!(
        decode(envelope.encode().as_bytes()),
        Ok(Content::Nudge(Nudge::Watch(WatchKind::Cloud, watch)))
    );
}

#[test]
fn what_nobody_knows_is_refused_with_its_reason() {
    let envelope = Envelope::of_nudge(head(JobUid::random()), Nudge::Job(JobUid::random()));
    let refused = |change: fn(&mut Value)| with(&envelope, change).expect_err("refused").to_string();
    assert!(
        refused(|v| v["schema"] = json!("dispatcher.message/2"))
            .contains("unknown schema \"dispatcher.message/2\"")
    );
    assert!(refused(|v| v["kind"] = json!("job.explode")).contains("unknown kind \"job.explode\""));
    assert!(refused(|v| v["jobId"] = Value::Null).contains("names no job"));
    assert!(refused(|v| v["jobId"] = json!("10001")).contains("names no job"));
    assert!(refused(|v| v["messageId"] = json!(4)).starts_with("malformed"));
    assert!(refused(|v| *v = json!([1])).contains("names no schema"));
    assert!(with(&envelope, |v| v["later"] = json!("fields are ignored")).is_ok());
    let large = vec![b' '; LARGEST + 1];
    assert_eq!(decode(&large), Err(Refused::Oversized(LARGEST + 1)));
    assert!(matches!(decode("[".repeat(100_000).as_bytes()), Err(Refused::Malformed(_))));
}

#[test]
fn a_verdict_names_a_watch_a_word_and_a_source_that_is_no_part_of_the_house() {
    let watch = WatchUid::random();
    let good =
        json!({"watchId": watch.to_string(), "source": "monitor/7", "verdict": "reached", "text": "seen"});
    let Ok(Content::Verdict(said)) = decode(verdict(good.clone()).encode().as_bytes()) else {
        panic!("a verdict")
    };
    assert_eq!(
        (said.watch, said.source.as_str(), said.verdict),
        (watch, "queue/monitor/7", Verdict::Reached)
    );
    for (field, wrong) in [
        ("watchId", json!("42")),
        ("source", json!("")),
        ("source", json!("a b")),
        ("source", json!("x".repeat(49))),
        ("verdict", json!("pending")),
        ("text", json!("x".repeat(5000))),
        ("state", json!("complete")),
    ] {
        let mut body = good.clone();
        body[field] = wrong.clone();
        let refused = decode(verdict(body).encode().as_bytes());
        assert!(matches!(refused, Err(Refused::Body { .. })), "{field} {wrong}: {refused:?}");
    }
    let mut nameless = verdict(good);
    nameless.job_id = None;
    assert!(matches!(decode(nameless.encode().as_bytes()), Ok(Content::Verdict(said)) if said.job.is_none()));
}

#[test]
fn a_canary_is_a_message_about_nothing() {
    assert_eq!(decode(Envelope::canary(Micros(1)).encode().as_bytes()), Ok(Content::Canary));
}

#[test]
fn the_examples_of_the_contract_are_what_is_sent_and_understood() {
    let page = include_str!("../../docs/queue.md");
    let examples: Vec<&str> =
        page.split("```json\n").skip(1).map(|rest| rest.split("```").next().expect("its end")).collect();
    let [watch, answer] = examples[..] else { panic!("a watch and a verdict: {examples:?}") };
    let sent = Envelope::parse(watch.as_bytes()).expect("an envelope");
    let Ok(Content::Nudge(Nudge::Watch(WatchKind::Cloud, uid))) = decode(watch.as_bytes()) else {
        panic!("a watch: {watch}")
    };
    let Ok(Content::Verdict(said)) = decode(answer.as_bytes()) else { panic!("a verdict: {answer}") };
    assert_eq!((said.watch, said.job.map(|job| job.to_string())), (uid, sent.job_id.clone()));
    // The same fields, no fewer and no more, are what this program writes.
    let body: WatchBody = serde_json::from_value(sent.body.clone()).expect("a watch's body");
    let own = Envelope::of_watch(head(JobUid::random()), WatchKind::Cloud, &body);
    let fields = |value: Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let shown: Value = serde_json::from_str(watch).expect("JSON");
    assert_eq!(fields(serde_json::to_value(&own).expect("plain data")), fields(shown.clone()));
    assert_eq!(own.body, shown["body"]);
    for line in crate::mq::Line::ALL {
        for key in line.keys() {
            assert!(page.contains(&format!("`{key}`")), "{key} is not in the contract");
        }
    }
    assert!(page.contains(&format!("`{SCHEMA}`")) && page.contains("262,144") && LARGEST == 262_144);
}

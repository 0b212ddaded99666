//! One key is one job, however often, however many at once, over both APIs, and after the process died.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number};
use crate::harness::http::Answer;
use crate::harness::ledger;
use crate::harness::{Order, Site, rows};

/// Clients that send the same thing at the same moment.
const AT_ONCE: usize = 100;

/// Sends the same request from many clients at the same moment.
fn together(site: &Site, send: impl Fn(&mut Client) -> Answer + Send + Sync + 'static) -> Vec<Answer> {
    let (send, gate) = (Arc::new(send), Arc::new(Barrier::new(AT_ONCE)));
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (send, gate, mut client) = (Arc::clone(&send), Arc::clone(&gate), site.client());
            std::thread::spawn(move || {
                gate.wait();
                send(&mut client)
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("a client's thread")).collect()
}

/// The one job all answers name.
#[track_caller]
fn the_one_job(answers: &[Answer], id: impl Fn(&Value) -> i64) -> i64 {
    let refused: Vec<_> = answers.iter().filter(|a| a.status != 202).map(|a| (a.status, a.text())).collect();
    assert!(refused.is_empty(), "{} of {} were not accepted: {refused:?}", refused.len(), answers.len());
    let ids: BTreeSet<i64> = answers.iter().map(|answer| id(&answer.json())).collect();
    assert_eq!(ids.len(), 1, "one key made these jobs: {ids:?}");
    ids.into_iter().next().expect("one")
}

#[test]
fn one_key_is_one_job_on_the_native_api_also_after_a_crash() {
    let mut site = Site::started(&[]);
    let body = noop("one of a hundred");
    let send = {
        let body = body.clone();
        move |client: &mut Client| {
            client.native("POST", "/api/v1/jobs", Some(&body), Some("key-native")).expect("an answer")
        }
    };
    let id = the_one_job(&together(&site, send.clone()), |job| number(job, "id"));
    let other = |client: &mut Client| {
        let body = noop("another request");
        client.native("POST", "/api/v1/jobs", Some(&body), Some("key-native")).expect("an answer")
    };
    let refused = other(&mut site.client()).expect(409).json();
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("idempotency key")), "{refused}");
    site.client().completed(id);
    site.kill();
    site.restart(&Order::default());
    assert_eq!(the_one_job(&together(&site, send), |job| number(job, "id")), id, "after a crash");
    other(&mut site.client()).expect(409);
    // Another key with the same body is another job; no key at all is another each time.
    let third = site.client().submit(&body, Some("key-other"));
    let (fourth, fifth) = (site.client().submit(&body, None), site.client().submit(&body, None));
    assert_eq!(BTreeSet::from([id, third, fourth, fifth]).len(), 4);
    site.stop();
    let stored = rows::jobs(&mut rows::open(&site.data()));
    assert_eq!(stored.len(), 4, "{stored:?}");
}

#[test]
fn one_key_is_one_server_on_the_dated_api_also_after_a_crash() {
    let mut site = Site::started(&["--guest-processes", "1"]);
    let catalogue = Catalogue::read(&mut site.client());
    let body = catalogue.dated_launch("once");
    let launch = move |client: &mut Client| {
        client.dated("POST", "infrastructure/Server", Some(&body), Some("key-dated")).expect("an answer")
    };
    let job = |answer: &Value| number(&answer["jobs"][0], "jobId");
    let id = the_one_job(&together(&site, launch.clone()), job);
    let other = catalogue.dated_launch("another");
    let refuse = |client: &mut Client| {
        client
            .dated("POST", "infrastructure/Server", Some(&other), Some("key-dated"))
            .expect("an answer")
            .expect(409)
    };
    refuse(&mut site.client());
    let server = number(&site.client().completed(id), "server");
    site.kill();
    site.restart(&Order::default());
    assert_eq!(the_one_job(&together(&site, launch), job), id, "after a crash");
    refuse(&mut site.client());
    let path = format!("infrastructure/Server/{server}");
    let terminate = move |client: &mut Client| {
        client.dated("DELETE", &path, None, Some("key-delete")).expect("an answer")
    };
    let end = the_one_job(&together(&site, terminate), job);
    site.client().completed(end);
    site.stop();
    let ledger = ledger::read(&site.data());
    assert_eq!((ledger.launches.len(), ledger.terminated.len()), (1, 1), "{ledger:?}");
}

#[test]
fn writes_that_need_no_job_are_done_once_per_key() {
    let mut site = Site::started(&["--without", "pinger"]);
    let body = json!({ "addBillingCode": [{ "name": "once", "description": "made by a test", "financeCode": "ONCE" }] });
    let add = move |client: &mut Client| {
        client.dated("POST", "admin/BillingCode", Some(&body), Some("key-code")).expect("an answer")
    };
    let answers = together(&site, add.clone());
    let bodies: BTreeSet<String> = answers.iter().map(|a| format!("{} {}", a.status, a.text())).collect();
    assert_eq!(bodies.len(), 1, "a hundred sends, one answer: {bodies:?}");
    assert!(bodies.iter().all(|body| body.starts_with("201")), "{bodies:?}");
    site.kill();
    site.restart(&Order::default());
    let again = add(&mut site.client());
    assert_eq!(BTreeSet::from([format!("{} {}", again.status, again.text())]), bodies, "after a crash");
    let codes = site.client().get_dated("admin/BillingCode");
    let same =
        codes["billingCodes"].as_array().expect("a list").iter().filter(|c| c["financeCode"] == "ONCE");
    assert_eq!(same.count(), 1, "{codes:#}");
    site.stop();
}

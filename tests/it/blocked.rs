//! A thread that stands still: health turns red and says which, the process ends by itself with an error, and the next
//! one on the same folder completes what was open.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number};
use crate::harness::http::{Http, NoAnswer};
use crate::harness::ledger;
use crate::harness::{Order, Site, wait_for};

/// How long the thread stands still: far longer than the process may live with it.
const BLOCK_MS: u64 = 600_000;
/// The probe's limit, less the time a thread may have been at rest before.
const LEAST: Duration = Duration::from_secs(4);
/// Longest wait for what takes about five seconds on a free machine.
const SOON: Duration = Duration::from_secs(60);

fn block(place: &str, hits: u32) -> Order {
    Order { place: place.to_owned(), hits, block_ms: Some(BLOCK_MS), ..Order::default() }
}

/// What `/health/ready` says once it is no longer well.
fn red(ops_url: &str) -> (u16, Value) {
    wait_for("health turns red", SOON, || {
        let answer = Http::new(ops_url).send("GET", "/health/ready", &[], b"").ok()?;
        (answer.status != 200).then(|| (answer.status, answer.json()))
    })
}

fn reason(health: &Value, part: &str) -> String {
    let parts = health["parts"].as_array().expect("parts");
    let found = parts.iter().find(|found| found["part"] == part).expect("the part");
    assert_eq!(found["state"], "red", "{health:#}");
    found["reason"].as_str().expect("a reason").to_owned()
}

/// The process ends by itself, with an error, and its last line says why.
fn ends(site: &mut Site, cause: &str) {
    let status = wait_for("the process ends by itself", SOON, || site.exited());
    assert_eq!(status.code(), Some(1), "{status}\n{}", site.log());
    let log = site.whole_log();
    let last = log.lines().last().unwrap_or_default();
    assert!(
        last.contains("the process must end and start anew") && last.contains(cause),
        "last line: {last}"
    );
}

/// Submits again under the same key what got no answer, and waits for all to complete.
fn all_complete(client: &mut Client, known: &[i64], unanswered: &[String]) {
    for id in known {
        client.completed(*id);
    }
    for key in unanswered {
        let id = client.submit(&noop(key), Some(key));
        client.completed(id);
    }
}

#[test]
fn a_blocked_arbiter_turns_health_red_ends_the_process_and_the_next_one_completes_its_jobs() {
    let mut site = Site::new();
    // The first start makes the folder.
    site.start(&["--guest-processes", "0"]);
    site.stop();
    site.restart(&block("call.after", 1));
    let ops_url = site.ready().ops_url.clone();
    let mut client = site.client();
    let began = Instant::now();
    let body = Catalogue::read(&mut client).launch("blocked");
    let launch = client.submit(&body, None);
    let waits = client.submit(&noop("behind it"), None);
    let (status, health) = red(&ops_url);
    assert!(began.elapsed() >= LEAST, "red after {:?}", began.elapsed());
    assert_eq!(status, 503);
    let why = reason(&health, "arbiters");
    assert!(why.starts_with("arbiter jobs has not moved for "), "{why}");
    ends(&mut site, "arbiter jobs has not moved for ");
    assert_eq!(
        ledger::read(&site.data()).launches.len(),
        1,
        "the call was made before the thread stood still"
    );

    site.restart(&Order::default());
    let mut client = site.client();
    let job = client.completed(launch);
    assert!(number(&job, "server") > 0);
    all_complete(&mut client, &[waits], &[]);
    site.stop();
    assert_eq!(ledger::read(&site.data()).launches.len(), 1, "and never made again");
}

#[test]
fn a_blocked_database_thread_turns_health_red_ends_the_process_and_the_next_one_completes_its_jobs() {
    let mut site = Site::new();
    site.start(&["--guest-processes", "0"]);
    site.stop();
    // Beyond the commits of a start, within those of some jobs.
    site.restart(&block("commit.provisioning", 40));
    let ops_url = site.ready().ops_url.clone();
    let watching = std::thread::spawn(move || red(&ops_url));
    let mut client = site.client();
    let (mut known, mut unanswered, mut began) = (Vec::new(), Vec::new(), Instant::now());
    for n in 0..1000 {
        let key = format!("job-{n}");
        began = Instant::now();
        match client.native("POST", "/api/v1/jobs", Some(&noop(&key)), Some(&key)) {
            Ok(answer) if answer.status == 202 => known.push(number(&answer.json(), "id")),
            Ok(answer) => {
                assert!(answer.status >= 500, "{}", answer.text());
                unanswered.push(key);
                break;
            }
            Err(NoAnswer::NotSent(_)) => break,
            Err(NoAnswer::Indefinite(_)) => {
                unanswered.push(key);
                break;
            }
        }
    }
    assert!(!unanswered.is_empty(), "the thread never stood still: {} jobs", known.len());
    let (status, health) = watching.join().expect("health turned red");
    assert_eq!(status, 503);
    let why = reason(&health, "threads");
    assert!(why.starts_with("thread provisioning-writer has been at one step for "), "{why}");
    ends(&mut site, "thread provisioning-writer has been at one step for ");
    assert!(began.elapsed() >= LEAST, "ended after {:?}", began.elapsed());

    site.restart(&Order::default());
    all_complete(&mut site.client(), &known, &unanswered);
    site.stop();
}

#[test]
fn a_blocked_main_thread_ends_the_process_too() {
    let mut site = Site::new();
    site.start(&["--guest-processes", "0"]);
    let mut client = site.client();
    let mut body = Catalogue::read(&mut client).launch("no keys");
    // Due in the next life, whose first lease, for this job or for the janitor, blocks.
    body["delaySeconds"] = 4.into();
    let launch = client.submit(&body, None);
    site.stop();
    site.restart(&block("lease.answer", 1));
    ends(&mut site, "arbiter main has not moved for ");
    let log = site.whole_log();
    assert!(log.lines().last().is_some_and(|last| last.contains("so it is ended")), "{}", site.log());
    site.restart(&Order::default());
    site.client().completed(launch);
    site.stop();
}

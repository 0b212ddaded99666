//! A part is away: what needs it waits and says why, everything else goes on, and it completes when the part is back.

use std::path::Path;
use std::time::{Duration, Instant};

use dispatcher::store::{Manager, analytics};
use serde_json::Value;

use crate::down::{mode_is, works};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, is_end, noop, number, run};
use crate::harness::ledger;
use crate::harness::{Site, wait_until};

/// Long enough for a job that wrongly goes on to be seen ending: a noop takes some milliseconds, a launch 200.
const STAYS: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(30);

/// What an open job waits for: code and text.
fn why(job: &Value) -> (String, String) {
    let word = |name: &str| job["why"][name].as_str().unwrap_or_default().to_owned();
    (word("code"), word("text"))
}

/// Looks at an open job for a while and sees it waiting all the time for the same cause.
#[track_caller]
fn stays_open(client: &mut Client, id: i64, cause: &str) {
    wait_until(&format!("job {id} says \"{cause}\""), SOON, || {
        let (code, text) = why(&client.job(id));
        format!("{code} {text}").contains(cause)
    });
    let until = Instant::now() + STAYS;
    while Instant::now() < until {
        let job = client.job(id);
        assert!(!is_end(&job), "it ended without what it needs: {job:#}");
        let dated = client.get_dated(&format!("admin/Job/{id}"));
        assert_eq!(dated["jobs"][0]["status"], "RUNNING", "{dated:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (code, text) = why(&client.job(id));
    assert!(format!("{code} {text}").contains(cause), "{code}: {text}");
}

#[test]
fn without_the_monitor_a_launch_waits_for_its_verdict_and_completes_when_the_monitor_is_back() {
    let mut site = Site::started(&["--without", "monitor"]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("unwatched");
    let id = client.submit(&body, None);
    wait_until("the cloud made the server", SOON, || ledger::read(&site.data()).launches.len() == 1);
    stays_open(&mut client, id, "verdict-cloud");
    let job = client.job(id);
    assert_eq!(job["state"], "awaiting", "{job:#}");
    assert!(why(&job).1.contains("RUNNING is seen"), "{job:#}");
    site.stop();
    site.start(&[]);
    let job = site.client().completed(id);
    let server = number(&job, "server");
    let dated = site.client().get_dated(&format!("admin/Job/{id}"));
    assert_eq!(dated["jobs"][0]["status"], "COMPLETE", "{dated:#}");
    assert_eq!(dated["jobs"][0]["message"], server.to_string(), "{dated:#}");
    site.stop();
    assert_eq!(ledger::read(&site.data()).launches.len(), 1, "waiting launched nothing twice");
}

#[test]
fn a_server_the_cloud_loses_before_the_look_ends_the_job_with_evidence() {
    let mut site = Site::new();
    // Slow to boot, so that it is lost before anybody can have seen it run.
    let settings = site.settings("[simulated]\nboot_ms = 60000\nlose_launched = 1\n");
    site.start(&["--config", &settings]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("lost");
    let id = client.submit(&body, None);
    let job = client.ended(id);
    assert_eq!(job["state"], "failed", "{job:#}");
    let dated = client.get_dated(&format!("admin/Job/{id}"));
    assert_eq!(dated["jobs"][0]["status"], "ERROR", "{dated:#}");
    let message = dated["jobs"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("TERMINATED") || message.contains("no such server"), "{dated:#}");
    let ledger = ledger::read(&site.data());
    let instance = ledger.launches[0].instance.clone();
    assert_eq!(ledger.lost, std::slice::from_ref(&instance));
    let timeline = job["timeline"].as_array().expect("a timeline");
    let verdict = timeline.iter().find(|entry| entry["what"] == "verdict").expect("a verdict");
    let text = verdict["text"].as_str().unwrap_or_default();
    assert!(text.contains("lost") && text.contains(&instance), "{verdict:#}");
    site.stop();
}

#[test]
fn without_the_key_manager_a_launch_waits_says_so_and_completes_when_it_is_back() {
    let mut site = Site::started(&["--without", "km"]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("keyless");
    let id = client.submit(&body, None);
    stays_open(&mut client, id, "key manager");
    assert_eq!(ledger::read(&site.data()).launches.len(), 0, "no call without a credential");
    let other = client.submit(&noop("needs no credential"), None);
    client.completed(other);
    let said = mode_is(&site.ready().ops_url, "key manager away");
    assert!(
        works(&said, "submits") && works(&said, "commands on guests") && !works(&said, "calls to clouds")
    );
    site.stop();
    site.start(&[]);
    site.client().completed(id);
    site.stop();
    assert_eq!(ledger::read(&site.data()).launches.len(), 1);
}

#[test]
fn without_the_worker_what_guests_report_waits_and_clouds_go_on() {
    let mut site = Site::started(&["--without", "worker"]);
    let mut client = site.client();
    let id = client.submit(&noop("nobody looks"), None);
    stays_open(&mut client, id, "verdict-noop");
    let server = client.server("goes-on");
    let command = client.submit(&run(server, &["/bin/echo", "hello"]), None);
    stays_open(&mut client, command, "verdict-guest");
    site.stop();
    site.start(&[]);
    site.client().completed(id);
    site.client().completed(command);
    site.stop();
    let ledger = ledger::read(&site.data());
    assert_eq!(ledger.commands.values().copied().collect::<Vec<_>>(), [1], "{ledger:?}");
}

/// Heartbeats written down for a guest.
fn heartbeats(site: &Site, server: i64) -> usize {
    heartbeats_in(&site.data().join("analytics.db"), server)
}

/// The same in a database somewhere else.
pub(crate) fn heartbeats_in(database: &Path, server: i64) -> usize {
    let url = format!("sqlite://{}", database.display());
    let mut connection = Manager::new(&url).expect("a URL").open().expect("the database");
    analytics::newest(&mut connection, server, 100).expect("rows").len()
}

/// The sum of a metric over all its labels.
pub(crate) fn sum(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|l| l.starts_with(name) && !l.starts_with('#'));
    let whole = lines.filter(|l| l[name.len()..].starts_with(['{', ' ']));
    whole.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn without_the_pinger_jobs_go_on_and_heartbeats_come_when_it_is_back() {
    let mut site = Site::new();
    let settings = site.settings("[pinger]\nevery_ms = 200\n");
    site.start(&["--config", &settings, "--without", "pinger"]);
    let mut client = site.client();
    let server = client.server("unheard");
    let command = client.submit(&run(server, &["/bin/echo", "hello"]), None);
    client.completed(command);
    assert_eq!(heartbeats(&site, server), 0, "nobody pings");
    site.stop();
    site.start(&["--config", &settings]);
    wait_until("heartbeats are written down", SOON, || heartbeats(&site, server) >= 2);
    site.stop();
}

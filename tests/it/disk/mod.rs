//! Disks that fail under the rows, under the cloud's journal and under a guest's: an fsync that answers EIO, a file system
//! that turned read-only. New work is refused loudly, nothing that was accepted is lost, and a file whose fsync failed
//! is not trusted again by the process that saw it.
//!
//! The faults are those of `shim.c`, compiled by the test and preloaded into the program under test.

mod shim;

use std::time::Duration;

use serde_json::Value;

use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number, page, run};
use crate::harness::http::NoAnswer;
use crate::harness::ledger;
use crate::harness::{Order, Site, rows, wait_for, wait_until};
use shim::Shim;

const SOON: Duration = Duration::from_secs(60);

/// A site whose files can fail.
fn fragile() -> (Site, Shim) {
    let mut site = Site::new();
    let shim = Shim::beside(&site);
    shim.preload(&mut site);
    (site, shim)
}

/// What a submit came to: a job's number, or none that is known.
fn tried(client: &mut Client, key: &str) -> Option<i64> {
    match client.native("POST", "/api/v1/jobs", Some(&noop(key)), Some(key)) {
        Ok(answer) if answer.status == 202 => Some(number(&answer.json(), "id")),
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{}", answer.text());
            let wait = answer.headers.get("retry-after").and_then(|wait| wait.parse::<u32>().ok());
            assert!(wait.is_some_and(|wait| wait <= 1), "{:?}", answer.headers);
            None
        }
        Err(NoAnswer::NotSent(_) | NoAnswer::Indefinite(_)) => None,
    }
}

#[test]
fn an_fsync_that_fails_ends_the_process_and_the_next_one_has_all_that_was_accepted() {
    let (mut site, shim) = fragile();
    site.start(&["--guest-processes", "0"]);
    let mut client = site.client();
    let mut accepted: Vec<i64> =
        (0..20).map(|n| client.submit(&noop("before"), Some(&format!("before-{n}")))).collect();
    shim.fail("fsync provisioning.db-wal");
    let keys: Vec<String> = (0..5).map(|n| format!("during-{n}")).collect();
    for key in &keys {
        assert_eq!(tried(&mut client, key), None, "nothing is accepted that is not on the disk");
    }
    let status = wait_for("the process ends by itself", SOON, || site.exited());
    assert_eq!(status.code(), Some(1), "{status}\n{}", site.log());
    let log = site.whole_log();
    assert!(log.contains("an fsync of the database's log failed"), "{}", site.log());
    assert!(shim.hits() >= 2, "SQLite met it, and the second look");
    shim.heal();
    site.restart(&Order::default());
    let mut client = site.client();
    // What was answered with a doubt may be there or not: its key decides, and makes one job.
    accepted.extend(keys.iter().map(|key| client.submit(&noop(key), Some(key))));
    for id in &accepted {
        client.completed(*id);
    }
    assert_eq!(client.jobs("").len(), accepted.len());
    site.stop();
    let stored = rows::jobs(&mut rows::open(&site.data()));
    assert_eq!(stored.len(), accepted.len());
}

/// What `/health/ready` says.
fn ready(site: &Site) -> (u16, Value) {
    let answer = page(&site.ready().ops_url, "/health/ready");
    (answer.status, answer.json())
}

#[test]
fn a_file_system_that_turned_read_only_refuses_submits_says_so_and_needs_no_restart() {
    let (mut site, shim) = fragile();
    site.start(&["--guest-processes", "0"]);
    let pid = site.ready().pid;
    let mut client = site.client();
    let mut accepted: Vec<i64> = (0..5).map(|_| client.submit(&noop("before"), None)).collect();
    accepted.iter().for_each(|id| drop(client.completed(*id)));
    shim.fail("rofs provisioning.db");
    for n in 0..10 {
        assert_eq!(tried(&mut client, &format!("during-{n}")), None);
    }
    wait_until("health names the mode", SOON, || {
        let (status, health) = ready(&site);
        status == 503 && health["mode"] == "provisioning database takes no writes"
    });
    let (_, health) = ready(&site);
    let works = health["works"].as_array().expect("a list");
    assert!(works.contains(&"reads".into()) && !works.contains(&"submits".into()), "{health:#}");
    assert_eq!(client.job(accepted[0])["state"], "complete", "reads go on");
    shim.heal();
    wait_until("there is a disk again", SOON, || {
        let id = tried(&mut client, "after");
        accepted.extend(id);
        id.is_some()
    });
    accepted.iter().for_each(|id| drop(client.completed(*id)));
    wait_until("health is well", SOON, || ready(&site).1["mode"] == "all parts up");
    assert_eq!(site.ready().pid, pid, "the same process");
    assert_eq!(client.jobs("").len(), accepted.len(), "exactly what was accepted is there");
    site.stop();
}

#[test]
fn the_clouds_journal_goes_on_in_a_fresh_file_and_one_launch_stays_one_server() {
    for fault in ["fsync cloud/journal", "rofs cloud/journal"] {
        let (mut site, shim) = fragile();
        site.start(&["--guest-processes", "0"]);
        let mut client = site.client();
        let body = Catalogue::read(&mut client).launch("on a bad disk");
        shim.fail(fault);
        let id = client.submit(&body, None);
        wait_until("the cloud met the fault", SOON, || shim.hits() > 0);
        let during = client.job(id);
        assert!(during["endedAt"].is_null(), "{fault}: nobody knows what became of it: {during:#}");
        shim.heal();
        client.completed(id);
        site.stop();
        assert_eq!(ledger::read(&site.data()).launches.len(), 1, "{fault}");
    }
}

#[test]
fn a_guests_journal_that_fails_defers_the_command_which_then_runs_once() {
    for fault in ["fsync /journal", "rofs /journal"] {
        let mut site = Site::new();
        let shim = Shim::beside(&site);
        // Only guests are fragile here.
        let program = shim.wrapped(&site);
        let settings = site.settings(&format!("[simulated]\nguest_program = \"{program}\"\n"));
        site.start(&["--config", &settings]);
        let mut client = site.client();
        let server = client.server("fragile");
        shim.fail(fault);
        let id = client.submit(&run(server, &["/bin/echo", "hello"]), None);
        wait_until("the guest met the fault", SOON, || shim.hits() > 0);
        let during = client.job(id);
        assert!(during["endedAt"].is_null(), "{fault}: {during:#}");
        shim.heal();
        client.completed(id);
        site.stop();
        let runs: Vec<_> = ledger::read(&site.data()).commands.into_values().collect();
        assert_eq!(runs, [1], "{fault}");
    }
}

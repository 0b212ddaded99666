//! A part is taken away under a running installation and brought back: what works as ever, what waits, and that health
//! says which mode it is. `tests/README.md` names the test of each row of the table "When a part is down".

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::absent::{heartbeats_in, sum};
use crate::harness::client::{is_end, noop, page, run};
use crate::harness::{Site, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// What the operators' listener says of the process.
pub(crate) fn health(ops_url: &str) -> Value {
    page(ops_url, "/health/ready").json()
}

/// Waits until the process says that it is in this mode, whatever else may be down.
#[track_caller]
pub(crate) fn mode_is(ops_url: &str, wanted: &str) -> Value {
    wait_for(&format!("health says \"{wanted}\""), SOON, || {
        let said = health(ops_url);
        let mut modes = said["modes"].as_array().expect("a list of modes").iter();
        (said["mode"] == wanted || modes.any(|mode| mode["mode"] == wanted)).then(|| said.clone())
    })
}

/// Whether something works, by the words of health.
#[track_caller]
pub(crate) fn works(health: &Value, what: &str) -> bool {
    health["works"].as_array().expect("what works").iter().any(|word| word == what)
}

fn metrics(site: &Site) -> String {
    page(&site.ready().ops_url, "/metrics").expect(200).text()
}

#[test]
fn without_the_analytics_database_points_wait_in_bounded_memory_and_nothing_else_notices() {
    let mut site = Site::new();
    let folder = site.beside("elsewhere");
    let database = folder.join("analytics.db");
    let text = format!(
        "[database]\nanalytics = \"sqlite://{}\"\n[pinger]\nevery_ms = 200\nspill = 5\n",
        database.display()
    );
    let settings = site.settings(&text);
    // It is away from the start: its folder does not exist.
    site.start(&["--config", &settings]);
    let ops_url = site.ready().ops_url.clone();
    let mut client = site.client();
    let server = client.server("measured");
    let said = mode_is(&ops_url, "analytics database away");
    assert_eq!(said["ok"], true, "it still gets requests: {said:#}");
    for what in ["submits", "reads", "calls to clouds", "commands on guests", "watches and work at once"] {
        assert!(works(&said, what), "{what}: {said:#}");
    }
    assert!(!works(&said, "measurements of guests"));
    let command = client.submit(&run(server, &["/bin/echo", "hello"]), None);
    client.completed(command);
    wait_until("five points wait and more are lost", SOON, || {
        let page = metrics(&site);
        sum(&page, "dispatcher_analytics_spilled") == 5.0
            && sum(&page, "dispatcher_analytics_lost_total") > 0.0
    });

    std::fs::create_dir(&folder).expect("room on the disk");
    mode_is(&ops_url, "all parts up");
    wait_until("nothing waits any more", SOON, || {
        sum(&metrics(&site), "dispatcher_analytics_spilled") == 0.0
    });
    assert!(heartbeats_in(&database, server) >= 5, "what waited is written");
    site.stop();
    assert!(!Path::new(&site.data().join("analytics.db")).exists());
}

#[test]
fn a_guest_that_stands_still_keeps_its_commands_waiting_health_counts_it_and_others_go_on() {
    let mut site = Site::started(&[]);
    let ops_url = site.ready().ops_url.clone();
    let mut client = site.client();
    let still = client.server("still");
    let guest = Pid::from_raw(*site.guests().first().expect("its guest"));
    let other = client.server("other");
    wait_until("both have a session", SOON, || sum(&metrics(&site), "dispatcher_agents_connected") == 2.0);
    kill(guest, Signal::SIGSTOP).expect("our own guest");
    // Its session ends only when its silence was noticed; from then on commands wait in line.
    wait_until("its silence is noticed", SOON, || sum(&metrics(&site), "dispatcher_agents_connected") == 1.0);
    let waits = client.submit(&run(still, &["/bin/echo", "late"]), None);
    let goes_on = client.submit(&run(other, &["/bin/echo", "now"]), None);
    client.completed(goes_on);
    let job = client.job(waits);
    assert!(!is_end(&job), "{job:#}");
    assert_eq!(job["why"]["code"], "verdict-guest", "{job:#}");
    let said = mode_is(&ops_url, "guests away");
    assert!(
        works(&said, "submits") && works(&said, "calls to clouds") && !works(&said, "commands on guests")
    );
    assert_eq!(said["ok"], true, "it still gets requests: {said:#}");
    let quiet = client.submit(&noop("needs no guest"), None);
    client.completed(quiet);
    kill(guest, Signal::SIGCONT).expect("our own guest");
    client.completed(waits);
    mode_is(&ops_url, "all parts up");
    site.stop();
}

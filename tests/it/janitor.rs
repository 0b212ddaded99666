//! A create that the cloud carries out long after its job has ended: found after the process was killed, taken back by
//! a job of its own, and told everywhere.

use std::process::Command;
use std::time::Duration;

use crate::harness::catalogue::Catalogue;
use crate::harness::ledger;
use crate::harness::{PROGRAM, Site, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// A cloud without tokens that breaks its word: Q is half a second, and its first create lands after six.
const CLOUD: &str = "[simulated]\nclass = \"T\"\nquiet_ms = 500\nland_late_ms = 6000\n";

#[test]
fn what_lands_after_its_job_was_cancelled_is_taken_back_even_when_the_process_died_meanwhile() {
    let mut site = Site::new();
    // The first life looks once, at its start.
    let settings = site.settings(&format!("{CLOUD}[jobs]\nsweep_ms = 100\n[janitor]\nsweep_ms = 3600000\n"));
    site.start(&["--config", &settings]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("late");
    let id = client.submit(&body, None);
    wait_until("the create is sent", SOON, || client.job(id)["attempts"][0]["outcome"] == "open");
    let asked = client.native("POST", &format!("/api/v1/jobs/{id}/cancel"), None, None);
    asked.expect("an answer").expect(202);
    assert_eq!(client.ended(id)["state"], "cancelled");
    wait_until("it lands", SOON, || ledger::read(&site.data()).launches.len() == 1);
    let owed = client.get("/api/v1/obligations");
    assert_eq!((&owed["obligations"][0]["job"], &owed["obligations"][0]["looks"]), (&id.into(), &0.into()));
    site.kill();

    let quick = "[janitor]\nsweep_ms = 50\nlater_ms = 500\nagain_ms = 100\n";
    let settings = site.settings(&format!("[simulated]\nclass = \"T\"\nquiet_ms = 500\n{quick}"));
    site.start(&["--config", &settings]);
    let mut client = site.client();
    let taken = wait_for("a job takes it back", SOON, || client.jobs("&kind=take-back").pop());
    let taken = client.completed(taken["id"].as_i64().expect("a number"));
    assert_eq!(taken["attempts"][0]["step"], "take-back", "{taken:#}");
    let ledger = ledger::read(&site.data());
    assert_eq!(ledger.terminated, [ledger.launches[0].instance.clone()], "{ledger:?}");
    let story = client.job(id);
    assert_eq!(story["state"], "cancelled", "an end stands");
    let evidence = story["evidence"].as_array().expect("a list");
    assert!(evidence.iter().any(|seen| seen["source"] == "janitor/taking-back"), "{story:#}");
    wait_until("it is seen gone", SOON, || client.job(id)["obligations"][0]["state"] == "watched");

    let ready = site.ready();
    let told = Command::new(PROGRAM)
        .args(["obligations", "--job", &id.to_string()])
        .env("DISPATCHER_URL", &ready.url)
        .env("DISPATCHER_ACCESS_KEY", &ready.access_key)
        .env("DISPATCHER_SECRET_KEY", &ready.secret_key)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("watched") && told.contains(&ledger.launches[0].instance), "{told}");
    assert_eq!(ledger::read(&site.data()).launches.len(), 1, "nothing was made anew");
    site.stop();
}

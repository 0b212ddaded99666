//! Rows that are put back to an older copy: what the copy knows goes on, and what it does not know is reported within one
//! look at the cloud, never destroyed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cloud_process::{Cloud, named};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{number, run};
use crate::harness::{PROGRAM, Site, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// The files of the provisioning database, from one folder into another.
fn copied(from: &Path, to: &Path) {
    for name in ["provisioning.db", "provisioning.db-wal", "provisioning.db-shm"] {
        let _absent = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("room on the disk");
        }
    }
}

fn restored(site: &Site) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["db", "restored", "--data"]).arg(site.data());
    let done = command.output().expect("the program starts");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn after_a_restore_what_the_copy_knows_goes_on_and_what_it_does_not_know_is_reported() {
    let mut site = Site::new();
    let (mut cloud, ready) = Cloud::started(&site, "[simulated]\nclass = \"K\"\n");
    let config = named(&site, &ready.url);
    site.start(&["--config", &config]);
    let mut client = site.client();
    let known = client.server("known");
    let before = client.submit(&run(known, &["/bin/echo", "before"]), None);
    client.completed(before);
    let look = |site: &Site| site.client().get("/api/v1/obligations");
    assert_eq!(look(&site)["obligations"].as_array().map(Vec::len), Some(0), "all is owned");

    // The copy is made while a launch is open that the cloud has not carried out yet.
    cloud.kill();
    let body = Catalogue::read(&mut client).launch("open");
    let open = client.submit(&body, None);
    wait_until("its call found nobody", SOON, || client.job(open).to_string().contains("Unreachable"));
    site.kill();
    let copy = site.beside("copy");
    std::fs::create_dir(&copy).expect("room on the disk");
    copied(&site.data(), &copy);

    // After the copy: the open launch completes, another one is made, and the known guest hears a newer epoch.
    cloud.start();
    site.start(&["--config", &config]);
    let mut client = site.client();
    client.completed(open);
    let body = Catalogue::read(&mut client).launch("lost");
    let lost = client.submit(&body, None);
    client.completed(lost);
    let lost_resource = client.job(lost)["resource"].as_str().expect("a server").to_owned();
    let after = client.submit(&run(known, &["/bin/echo", "after"]), None);
    client.completed(after);
    site.stop();
    assert_eq!(cloud.ledger().launches.len(), 3);

    copied(&copy, &site.data());
    let said = restored(&site);
    assert!(said.contains("generation 1") && said.contains("obligations --state needs-you"), "{said}");
    site.start(&["--config", &config]);
    let mut client = site.client();
    let again = client.completed(open);
    assert_eq!(number(&again, "epoch") >> 32, 1, "claimed in the new generation: {again:#}");
    let launches = cloud.ledger().launches;
    assert_eq!(launches.len(), 3, "the same token: nothing is made anew, {launches:?}");
    let command = client.submit(&run(known, &["/bin/echo", "again"]), None);
    client.completed(command);
    let mut reported = Value::Null;
    wait_until("what no row knows is reported", SOON, || {
        reported = look(&site)["obligations"].clone();
        reported.as_array().is_some_and(|all| all.iter().any(|owed| owed["state"] == "needs-you"))
    });
    let reported: Vec<&Value> =
        reported.as_array().expect("a list").iter().filter(|owed| owed["state"] == "needs-you").collect();
    assert_eq!(reported.len(), 1, "{reported:#?}");
    assert!(reported[0].to_string().contains(&lost_resource), "{reported:#?}");
    assert!(reported[0].to_string().contains("restored from an older copy"), "{reported:#?}");
    assert!(cloud.ledger().terminated.is_empty(), "reported, not destroyed");
    site.stop();
    cloud.stop();
}

//! The demonstration: one command tells the whole story, Ctrl-C takes everything away, and the folder goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::client::{run, terminate};
use crate::harness::ledger;
use crate::harness::{Order, Site, processes, wait_until};

/// What must be told, in this order.
const STORY: &[&str] = &[
    "Launch a server",
    "queued as job",
    "credential leased, sealed with",
    "call sent",
    "call answered ok",
    "watch published",
    "verdict reached",
    "complete",
    "shakes hands",
    "Run a command",
    "verdict reached",
    "complete",
    "| hello from",
    "heartbeat",
    "heard after",
    "stays up; open http://",
];

const SHOWN: Duration = Duration::from_secs(90);

/// How much of the story stands in the text, in order.
fn told(text: &str) -> usize {
    let mut rest = text;
    STORY
        .iter()
        .take_while(|part| rest.find(*part).map(|at| rest = &rest[at + part.len()..]).is_some())
        .count()
}

#[test]
fn the_demonstration_tells_its_story_ends_with_ctrl_c_and_goes_on() {
    let mut site = Site::new();
    site.start(&["--demo"]);
    let mut count = 0;
    wait_until("the story is told", SHOWN, || {
        count = told(&site.whole_log());
        assert!(site.exited().is_none(), "it ended after {:?}\n{}", STORY.get(count), site.whole_log());
        count == STORY.len()
    });
    assert!(site.whole_log().contains("memory"), "its memory is printed");
    let guests = site.guests();
    assert_eq!(guests.len(), 1, "one server, one guest");
    site.end_by(Signal::SIGINT);
    assert!(!processes::lives(guests[0]), "Ctrl-C takes the guest along");

    site.start(&[]);
    let server = {
        let ledger = ledger::read(&site.data());
        assert_eq!(ledger.launches.len(), 1);
        let found = site.client().get_dated("infrastructure/Server");
        found["servers"][0]["serverId"].as_i64().expect("the demonstration's server")
    };
    wait_until("its guest is back", SHOWN, || site.guests().len() == 1);
    let job = site.client().submit(&run(server, &["/bin/echo", "again"]), None);
    site.client().completed(job);
    site.stop();
}

#[test]
fn after_a_crash_living_guests_are_adopted_and_never_doubled() {
    let mut site = Site::started(&["--guest-processes", "2"]);
    let mut client = site.client();
    let servers: Vec<i64> = ["one", "two", "three"].iter().map(|name| client.server(name)).collect();
    wait_until("two guests run, the third server has none", SHOWN, || site.guests().len() == 2);
    let guests: BTreeSet<i32> = site.guests().into_iter().collect();
    for _ in 0..3 {
        site.kill();
        assert_eq!(site.guests().into_iter().collect::<BTreeSet<i32>>(), guests, "guests outlive a crash");
        site.restart(&Order::default());
        let mut client = site.client();
        let job = client.submit(&run(servers[0], &["/bin/true"]), None);
        client.completed(job);
        assert_eq!(site.guests().into_iter().collect::<BTreeSet<i32>>(), guests, "adopted, not doubled");
    }
    let mut client = site.client();
    let job = client.submit(&terminate(servers[0]), None);
    client.completed(job);
    wait_until("its guest ended with its server", SHOWN, || {
        site.guests().iter().filter(|guest| guests.contains(guest)).count() == 1
    });
    site.stop();
    let ledger = ledger::read(&site.data());
    assert_eq!(ledger.launches.len(), 3);
    assert!(ledger.commands.values().all(|runs| *runs == 1), "{ledger:?}");
}

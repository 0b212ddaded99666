//! Several nodes on one MariaDB and one RabbitMQ: one is killed, one stands still, all are exchanged one by one.
//!
//! Needs `DISPATCHER_TEST_MARIADB` and `DISPATCHER_TEST_RABBITMQ`; without them each test says loudly that it was skipped.

mod house;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use nix::sys::signal::Signal;
use serde_json::Value;

use dispatcher::store::provisioning::schema::{job, node};

use crate::down::{mode_is, works};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number, run};
use crate::harness::wait_until;
use house::House;

const SOON: Duration = Duration::from_secs(60);
/// Five times the figure: a takeover begins within 10 s.
const TAKEOVER: Duration = Duration::from_secs(50);

/// Open jobs by the life that owns them.
fn owners(house: &House) -> BTreeMap<String, i64> {
    let mut connection = house.database.open("p");
    let open = job::table.filter(job::ended_at.is_null().and(job::owner.is_not_null()));
    let rows: Vec<Option<String>> = open.select(job::owner).load(&mut connection).expect("rows");
    let mut found = BTreeMap::new();
    for owner in rows.into_iter().flatten() {
        *found.entry(owner).or_default() += 1;
    }
    found
}

/// Epochs of open jobs by uid: of one owner, or of all.
fn epochs(house: &House, owner: Option<&str>) -> BTreeMap<String, i64> {
    let mut connection = house.database.open("p");
    let mut open = job::table.filter(job::ended_at.is_null()).into_boxed();
    if let Some(owner) = owner {
        open = open.filter(job::owner.eq(owner.to_owned()));
    }
    let rows: Vec<(String, i64)> = open.select((job::uid, job::epoch)).load(&mut connection).expect("rows");
    rows.into_iter().collect()
}

/// States of all lives of a role.
fn lives(house: &House, role: &str) -> Vec<String> {
    let mut connection = house.database.open("p");
    node::table.filter(node::role.eq(role)).select(node::state).load(&mut connection).expect("rows")
}

fn end_of_all(client: &mut Client, jobs: &[i64]) {
    for job in jobs {
        client.completed(*job);
    }
}

#[test]
fn what_a_killed_node_held_goes_on_elsewhere_and_nothing_happens_twice() {
    let Some(mut house) = House::started((3, 2), "", "latency_ms = 1500") else { return };
    let mut client = house.client(1);
    let machine = client.server("first");
    let launch = Catalogue::read(&mut client).launch("by-three");
    let mut jobs = Vec::new();
    for node in 0..3 {
        let mut client = house.client(node);
        for _ in 0..6 {
            jobs.push(client.submit(&launch, None));
            jobs.push(client.submit(&noop("x"), None));
        }
        jobs.push(client.submit(&run(machine, &["/bin/sleep", "1"]), None));
    }
    wait_until("it is at work", SOON, || owners(&house).contains_key(&house.serve[0].life()));
    house.serve[0].kill();
    let killed = Instant::now();
    let mut held = epochs(&house, Some(&house.serve[0].life()));
    println!("the killed node held {} jobs", held.len());
    assert!(!held.is_empty(), "it was at work");
    // Submits go on meanwhile, at the nodes that are left.
    let mut client = house.client(2);
    jobs.push(client.submit(&noop("while one is dead"), None));
    let mut longest = Duration::ZERO;
    wait_until("another node goes on with each of its jobs", TAKEOVER, || {
        let now = epochs(&house, None);
        let count = held.len();
        held.retain(|uid, epoch| now.get(uid).is_some_and(|later| later == epoch));
        if held.len() < count {
            longest = killed.elapsed();
        }
        held.is_empty()
    });
    println!("the last of them went on {longest:?} after the kill");
    end_of_all(&mut client, &jobs);
    let ledger = house.ledger();
    assert_eq!(ledger.launches.len(), 19, "one server a launch");
    assert!(ledger.commands.values().all(|runs| *runs == 1), "{ledger:?}");
    assert_eq!(ledger.commands.len(), 3);
    let peers = house.serve.iter().chain(&house.monitors).chain(&house.others);
    let log: String = peers.map(house::Member::whole_log).collect();
    assert!(log.contains("stood still and was declared dead"), "a peer noticed it");

    // It comes back with a life of its own and takes part again.
    house.serve[0].start();
    let mut client = house.client(0);
    let job = client.submit(&noop("again"), None);
    client.completed(job);
    assert_eq!(lives(&house, "serve").iter().filter(|state| *state == "alive").count(), 3);
    house.stop();
    assert!(lives(&house, "serve").iter().all(|state| state == "dead"), "each said farewell");
    assert!(lives(&house, "monitor").iter().all(|state| state == "dead"));
}

/// How long a node stands still: far longer than it takes to be declared dead, and than any call.
const PAUSE: Duration = Duration::from_secs(60);

/// A job as the API shows it, but for what the janitor looks at after its end: that goes on.
fn without_looks(mut job: Value) -> Value {
    job.as_object_mut().and_then(|fields| fields.remove("obligations"));
    job
}

/// A node stands still for a minute in the middle of its calls and wakes: another has taken its jobs over, and what it still
/// had in hand moves none of them. Gives the installation and its jobs back.
fn stood_still(of_cloud: &str) -> Option<(House, Vec<i64>)> {
    let mut house = House::started((2, 1), "", of_cloud)?;
    let mut client = house.client(0);
    let machine = client.server("first");
    let launch = Catalogue::read(&mut client).launch("slow");
    let mut jobs: Vec<i64> = (0..4).map(|_| client.submit(&launch, None)).collect();
    jobs.push(client.submit(&run(machine, &["/bin/echo", "once"]), None));
    wait_until("its calls are on their way", SOON, || owners(&house).contains_key(&house.serve[0].life()));
    house.serve[0].signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut other = house.client(1);
    let ops_url = house.serve[1].ready("opsUrl");
    let said = mode_is(&ops_url, "node away");
    assert_eq!(said["ok"], true, "{said:#}");
    assert!(works(&said, "submits") && works(&said, "calls to clouds") && works(&said, "reads"), "{said:#}");
    end_of_all(&mut other, &jobs);
    let mut shown = || -> Vec<Value> { jobs.iter().map(|job| without_looks(other.job(*job))).collect() };
    let before = shown();
    wait_until("it stood still for a minute", PAUSE * 2, || stopped.elapsed() >= PAUSE);
    house.serve[0].signal(Signal::SIGCONT);
    let status = house.serve[0].ended(SOON);
    assert_eq!(
        status.code(),
        Some(1),
        "a life that was declared dead ends, and its supervisor starts a new one"
    );
    assert_eq!(before, shown(), "what it still had in hand moved no job");
    let ledger = house.ledger();
    assert!(ledger.commands.values().all(|runs| *runs == 1), "{ledger:?}");
    house.serve[0].start();
    mode_is(&ops_url, "all parts up");
    let mut client = house.client(0);
    let job = client.submit(&noop("again"), None);
    client.completed(job);
    Some((house, jobs))
}

/// Servers that each launch made.
fn made(house: &House) -> BTreeMap<String, usize> {
    house.ledger().launches.into_iter().fold(BTreeMap::new(), |mut made, launch| {
        *made.entry(launch.job).or_default() += 1;
        made
    })
}

/// Those of them that were not destroyed again.
fn alive(house: &House) -> BTreeMap<String, usize> {
    let ledger = house.ledger();
    let gone = |instance: &String| ledger.terminated.contains(instance);
    let left = ledger.launches.iter().filter(|launch| !gone(&launch.instance));
    left.fold(BTreeMap::new(), |mut alive, launch| {
        *alive.entry(launch.job.clone()).or_default() += 1;
        alive
    })
}

#[test]
fn a_node_that_stood_still_for_a_minute_and_wakes_changes_nothing() {
    let Some((mut house, _)) = stood_still("latency_ms = 2000") else { return };
    let made = made(&house);
    assert_eq!(made.len(), 5);
    assert!(
        made.values().all(|servers| *servers == 1),
        "class K: its late calls made nothing anew: {made:?}"
    );
    house.stop();
}

#[test]
fn a_node_that_stood_still_on_a_cloud_without_tokens_leaves_at_most_one_server_after_the_sweep() {
    let cloud = "latency_ms = 2000\nclass = \"T\"\nquiet_ms = 8000";
    let Some((mut house, _)) = stood_still(cloud) else { return };
    let made = made(&house);
    assert_eq!(made.len(), 5);
    // Class T: for a while there may be two, one from each owner, and never more; the sweep of what is owed leaves one.
    assert!(made.values().all(|servers| *servers <= 2), "{made:?}");
    wait_until("the sweep leaves one server of each launch", SOON * 2, || {
        alive(&house).values().all(|n| *n == 1)
    });
    let twice = made.values().filter(|servers| **servers > 1).count();
    println!("class T: {twice} of {} launches made a second server", made.len());
    house.stop();
}

#[test]
fn a_cancel_asked_at_any_node_ends_a_command_on_its_guest() {
    let Some(mut house) = House::started((2, 1), "", "") else { return };
    let mut client = house.client(0);
    let machine = client.server("first");
    let mut took = Vec::new();
    for round in 0..20 {
        let (asks, cancels) = (round % 2, (round / 2) % 2);
        let mut client = house.client(asks);
        let job = client.submit(&run(machine, &["/bin/sh", "-c", "echo up; sleep 600"]), None);
        let output = format!("/api/v1/jobs/{job}/output?stream=stdout");
        wait_until("it runs", SOON, || {
            client.native("GET", &output, None, None).is_ok_and(|answer| answer.text() == "up\n")
        });
        let mut other = house.client(cancels);
        let asked = Instant::now();
        let path = format!("/api/v1/jobs/{job}/cancel");
        other
            .native("POST", &path, Some(&Value::Object(serde_json::Map::new())), None)
            .expect("asked")
            .expect(202);
        let ended = client.ended(job);
        took.push(asked.elapsed());
        assert_eq!(ended["state"], "cancelled", "{ended}");
        assert!(ended.to_string().contains("cancelled on the guest"), "{ended}");
    }
    took.sort();
    let p95 = took[18];
    println!("a cancel ended a command on its guest within {p95:?} (95 of 100), {:?} at most", took[19]);
    // Five times the figure.
    assert!(p95 < Duration::from_secs(5), "{took:?}");
    house.stop();
}

#[test]
fn a_key_manager_that_goes_away_has_launches_wait_and_everything_else_go_on() {
    let Some(mut house) = House::started((1, 1), "", "") else { return };
    let mut client = house.client(0);
    let machine = client.server("before");
    let ops_url = house.serve[0].ready("opsUrl");
    let km = house.others.iter().position(|member| member.name() == "km").expect("it is there");
    house.others[km].kill();
    let body = Catalogue::read(&mut client).launch("waits");
    let waits = client.submit(&body, None);
    let why = format!("/api/v1/jobs/{waits}/why");
    wait_until("the job says what it waits for", SOON, || client.get(&why)["code"] == "key-manager");
    let said = mode_is(&ops_url, "key manager away");
    assert!(works(&said, "submits") && works(&said, "commands on guests"), "{said:#}");
    assert!(!works(&said, "calls to clouds"), "{said:#}");
    let others = [client.submit(&noop("no key"), None), client.submit(&run(machine, &["/bin/true"]), None)];
    end_of_all(&mut client, &others);
    assert_eq!(house.ledger().launches.len(), 1, "no call without a lease");
    house.others[km].start();
    client.completed(waits);
    mode_is(&ops_url, "all parts up");
    house.stop();
}

#[test]
fn a_rolling_restart_under_load_fails_no_submit_and_no_job() {
    let Some(mut house) = House::started((3, 2), "[jobs]\ndrain_ms = 20000", "") else { return };
    let urls: Vec<String> = house.serve.iter().map(|node| node.ready("url")).collect();
    let over = &AtomicBool::new(false);
    let mut accepted: Vec<i64> = Vec::new();
    let clients: Vec<Vec<Client>> =
        (0..3).map(|_| urls.iter().map(|url| house.client_at(url)).collect()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(thread, nodes)| scope.spawn(move || submit_until(nodes, thread, over)))
            .collect();
        for node in &mut house.serve {
            std::thread::sleep(Duration::from_millis(500));
            node.stop();
            let log = node.whole_log();
            assert!(log.contains("jobs still at work, taken up again by the next life: 0"), "{log}");
            node.start();
        }
        for member in house.monitors.iter_mut().chain(&mut house.others) {
            member.stop();
            member.start();
        }
        over.store(true, Ordering::Release);
        for thread in threads {
            accepted.extend(thread.join().expect("no submit failed"));
        }
    });
    assert!(accepted.len() > 50, "there was load: {}", accepted.len());
    let mut client = house.client(0);
    end_of_all(&mut client, &accepted);
    let failed = client.jobs("&state=failed").len() + client.jobs("&state=unresolved").len();
    assert_eq!(failed, 0);
    house.stop();
}

/// Submits again and again as a client behind a list of nodes does: the next node where one does not answer or is
/// stopping, with the same key. Fails with any other answer, and when a round over all nodes finds nobody.
fn submit_until(mut nodes: Vec<Client>, thread: usize, over: &AtomicBool) -> Vec<i64> {
    let mut accepted = Vec::new();
    let mut turn = thread;
    while !over.load(Ordering::Acquire) {
        let (key, before) = (format!("rolling-{thread}-{}", accepted.len()), accepted.len());
        for _ in 0..nodes.len() {
            turn += 1;
            let node = turn % nodes.len();
            let asked = nodes[node].native("POST", "/api/v1/jobs", Some(&noop("roll")), Some(&key));
            let Ok(answer) = asked else { continue };
            if answer.status == 202 {
                accepted.push(number(&answer.json(), "id"));
                break;
            }
            assert_eq!(answer.status, 503, "only a node that is stopping refuses: {}", answer.text());
        }
        assert_eq!(accepted.len(), before + 1, "one of the nodes takes the job");
    }
    accepted
}

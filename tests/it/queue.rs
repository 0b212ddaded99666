//! The whole house with RabbitMQ between its parts: what a broker that fails may cost, and what it may not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use dispatcher::model::Uid;
use dispatcher::store::provisioning::schema::outbox;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::broker::{Broker, is_here};
use crate::down::{mode_is, works};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, page, run};
use crate::harness::ledger;
use crate::harness::rows;
use crate::harness::{Ready, Site, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Five times the figure for 99 of 100 submits, whatever the broker does.
const ACCEPT: Duration = Duration::from_millis(2500);
/// Five times the figure for publishing everything once the broker is back.
const PUBLISHED: Duration = Duration::from_secs(50);
/// Five times what a backlog of a minute may cost in memory: a row is read when it is published, not before.
const GROWTH_KB: i64 = 5 * 8192;
/// Clients that submit without pause.
const CLIENTS: usize = 4;
/// Hints only: within the time of a test nothing is found by a sweep.
const NO_SWEEPS: &str =
    "[jobs]\nsweep_ms = 600000\n[monitor]\nsweep_ms = 600000\n[worker]\nsweep_ms = 600000\n";

fn settings(site: &Site, broker: &Broker) -> String {
    let queue = format!("[queue]\nurl = \"{}\"\nreconnect_most_ms = 1000\ncanary_ms = 1000\n", broker.url());
    site.settings(&format!("{NO_SWEEPS}{queue}"))
}

/// A figure of the operators' page; 0 where it is not shown.
fn figure(ready: &Ready, name: &str) -> i64 {
    let answer = page(&ready.ops_url, "/metrics").expect(200);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    #[expect(clippy::cast_possible_truncation, reason = "counts and whole seconds")]
    let whole = line.unwrap_or_default() as i64;
    whole
}

fn queue_part(ready: &Ready) -> (String, String) {
    let health = page(&ready.ops_url, "/health/ready").expect(200).json();
    let parts = health["parts"].as_array().expect("parts").clone();
    let part = parts.iter().find(|part| part["part"] == "queue").expect("the queue says how it is").clone();
    let word = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
    (word("state"), word("reason"))
}

/// Clients that submit until they are told to stop. Every submit must be accepted.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(Vec<i64>, Vec<Duration>)>>,
}

impl Load {
    fn begin(ready: &Ready) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n: usize| {
            let (ready, stop) = (ready.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut client, mut ids, mut took) = (Client::new(&ready), Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    ids.push(client.submit(&noop(&format!("client {n}")), None));
                    took.push(began.elapsed());
                    std::thread::sleep(Duration::from_millis(50));
                }
                (ids, took)
            })
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop }
    }

    /// Numbers of all accepted jobs; none was accepted late.
    #[track_caller]
    fn end(self, when: &str) -> BTreeSet<i64> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut took) = (BTreeSet::new(), Vec::new());
        for client in self.clients {
            let (ids, times) = client.join().expect("every submit is accepted");
            all.extend(ids);
            took.extend(times);
        }
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        println!(
            "{when}: {} submits accepted, 99 of 100 within {p99:?}, all within {:?}",
            all.len(),
            took.last()
        );
        assert!(p99 < ACCEPT, "{when}: {p99:?}");
        all
    }
}

/// Memory of the process that is resident, in kB.
fn resident_kb(ready: &Ready) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", ready.pid)).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// All of these are complete, and nothing waits to be published.
fn all_done(site: &Site, ids: &BTreeSet<i64>) {
    wait_until("every accepted job is complete", SOON, || {
        let mut open = rows::open(&site.data());
        let done = rows::jobs(&mut open).into_iter().filter(|j| j.state == "complete").map(|j| j.id);
        ids.is_subset(&done.collect())
    });
    wait_until("the outbox is empty", SOON, || {
        let left: i64 = outbox::table.count().get_result(&mut rows::open(&site.data())).expect("a count");
        left == 0 && figure(site.ready(), "dispatcher_outbox_rows ") == 0
    });
}

/// Publishes messages of its own, as somebody with access to the broker could.
fn publish(broker: &Broker, messages: &[(String, Vec<u8>)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connection =
            Connection::connect(&broker.url(), ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        for (key, body) in messages {
            let (exchange, options) = ("dispatcher.jobs".into(), BasicPublishOptions::default());
            let sent = channel.basic_publish(
                exchange,
                key.as_str().into(),
                options,
                body,
                BasicProperties::default(),
            );
            assert!(sent.await.expect("sent").await.expect("confirmed").is_ack());
        }
        connection.close(200, "bye".into()).await.expect("closed");
    });
}

/// Ten copies of every hint about every job, newest first, while and after it happens, and rubbish in between.
fn repeated_and_broken_messages_change_nothing(site: &Site, broker: &Broker, server: i64) {
    let mut client = site.client();
    let before = ledger::read(&site.data()).launches.len();
    let body = Catalogue::read(&mut client).launch("under repeats");
    let launch = client.submit(&body, None);
    let command = client.submit(&run(server, &["/bin/echo", "once"]), None);
    let jobs = rows::jobs(&mut rows::open(&site.data()));
    let mut messages = Vec::new();
    for kind in ["job.due", "job.cancel", "work.reported"] {
        for row in jobs.iter().rev() {
            let hint = json!({
                "schema": "dispatcher.message/1", "messageId": Uid::random().to_string(), "kind": kind,
                "jobId": row.uid, "issuedAt": 1, "body": {},
            });
            messages.extend(std::iter::repeat_n((kind.to_owned(), hint.to_string().into_bytes()), 10));
        }
        messages.push((kind.to_owned(), b"{not json".to_vec()));
        messages.push((kind.to_owned(), vec![b'x'; 10 * 1024 * 1024]));
    }
    publish(broker, &messages);
    client.completed(launch);
    client.completed(command);
    publish(broker, &messages);
    wait_until("the broken ones are dead letters", SOON, || {
        let dead = |queue: &str| {
            let name = format!("dispatcher_queue_consumed_total{{queue=\"{queue}\",outcome=\"dead\"}} ");
            figure(site.ready(), &name)
        };
        [dead("due"), dead("node"), dead("work")] == [4, 4, 4]
    });
    wait_until("whoever watches the figure hears of them", SOON, || {
        figure(site.ready(), "dispatcher_queue_dead_letters ") == 12
    });
    let ledger = ledger::read(&site.data());
    assert!(ledger.commands.values().all(|runs| *runs == 1), "nor runs anything twice: {ledger:?}");
    assert_eq!(ledger.launches.len(), before + 1, "a repeated hint launches nothing twice");
    assert_eq!(client.job(launch)["state"], "complete");
    assert_eq!(client.job(command)["state"], "complete", "a hint of a cancel is no cancel");
}

#[test]
fn a_broker_that_dies_stops_or_is_blocked_costs_no_submit_and_no_message() {
    if !is_here("a broker under faults") {
        return;
    }
    let broker = Broker::started();
    let mut site = Site::new();
    let file = settings(&site, &broker);
    site.start(&["--config", &file]);
    let ready = site.ready().clone();
    wait_until("the queue is up", SOON, || {
        queue_part(&ready) == ("ok".into(), format!("amqp: connected to {}", &broker.url()[7..]))
    });
    let mut client = site.client();
    let server = client.server("over a broker");
    let command = client.submit(&run(server, &["/bin/echo", "hello"]), None);
    client.completed(command);
    assert!(figure(&ready, "dispatcher_queue_published_total{outcome=\"confirmed\"} ") >= 6);
    repeated_and_broken_messages_change_nothing(&site, &broker, server);

    for (when, fault, seconds) in
        [("killed", Broker::kill as fn(&Broker), 2), ("stopped for a minute", Broker::stop, 60)]
    {
        let before = resident_kb(&ready);
        let load = Load::begin(&ready);
        fault(&broker);
        wait_until("the backlog grows older", SOON * 2, || {
            figure(&ready, "dispatcher_outbox_oldest_seconds ") >= seconds
                && queue_part(&ready).0 == "degraded"
        });
        let said = mode_is(&ready.ops_url, "queue away");
        assert!(
            works(&said, "submits") && works(&said, "reads") && !works(&said, "watches and work at once")
        );
        let grown = resident_kb(&ready) - before;
        assert!(grown < GROWTH_KB, "{when}: {grown} kB more while nothing could be published");
        broker.start();
        let back = Instant::now();
        wait_until("the oldest is published", PUBLISHED, || {
            figure(&ready, "dispatcher_outbox_oldest_seconds ") == 0
        });
        println!("{when}: {grown} kB more meanwhile, all published {:?} after it was back", back.elapsed());
        all_done(&site, &load.end(when));
    }

    let load = Load::begin(&ready);
    broker.short_of_memory(true);
    wait_until("the broker takes no messages", SOON, || {
        figure(&ready, "dispatcher_queue_blocked ") == 1
            && figure(&ready, "dispatcher_outbox_oldest_seconds ") >= 2
            && queue_part(&ready).1.contains("takes no messages")
    });
    broker.short_of_memory(false);
    wait_until("the oldest is published", SOON, || figure(&ready, "dispatcher_outbox_oldest_seconds ") == 0);
    all_done(&site, &load.end("blocked"));
    assert_eq!(figure(&ready, "dispatcher_queue_blocked "), 0);
    site.stop();
}

//! SIGTERM under load: no more is taken, what is at work comes to its end, nothing is lost; a second one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number};
use crate::harness::http::NoAnswer;
use crate::harness::ledger;
use crate::harness::{Order, Ready, Site, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// What a drain may take.
const DRAIN: Duration = Duration::from_secs(30);

/// Submits until nobody is there any more; the jobs accepted, and the keys without an answer.
fn submit_until_refused(ready: &Ready, thread: usize, over: &AtomicBool) -> (Vec<i64>, Vec<String>) {
    let mut client = Client::new(ready);
    let (mut accepted, mut unanswered) = (Vec::new(), Vec::new());
    for n in 0.. {
        let key = format!("term-{thread}-{n}");
        match client.native("POST", "/api/v1/jobs", Some(&noop(&key)), Some(&key)) {
            Ok(answer) if answer.status == 202 => accepted.push(number(&answer.json(), "id")),
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Err(NoAnswer::Indefinite(_)) => unanswered.push(key),
            Err(NoAnswer::NotSent(_)) if over.load(Ordering::Acquire) => break,
            Err(NoAnswer::NotSent(_)) => std::thread::yield_now(),
        }
        if over.load(Ordering::Acquire) {
            break;
        }
    }
    (accepted, unanswered)
}

#[test]
fn sigterm_under_load_drains_within_its_time_ends_with_0_and_loses_nothing() {
    let mut site = Site::started(&["--guest-processes", "0"]);
    let ready = site.ready().clone();
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|thread| {
            let (ready, over) = (ready.clone(), Arc::clone(&over));
            std::thread::spawn(move || submit_until_refused(&ready, thread, &over))
        })
        .collect();
    wait_until("there is load", SOON, || site.client().jobs("").len() > 50);
    let asked = Instant::now();
    // Checks that it ends with 0 and leaves nobody behind.
    site.stop();
    let took = asked.elapsed();
    assert!(took < DRAIN, "{took:?}");
    println!("drained {took:?} after SIGTERM under load");
    over.store(true, Ordering::Release);
    let (mut accepted, mut unanswered) = (Vec::new(), Vec::new());
    for client in clients {
        let (jobs, keys) = client.join().expect("no odd answer");
        accepted.extend(jobs);
        unanswered.extend(keys);
    }
    assert!(accepted.len() > 50, "{}", accepted.len());
    site.restart(&Order::default());
    let mut client = site.client();
    accepted.extend(unanswered.iter().map(|key| client.submit(&noop(key), Some(key))));
    for id in &accepted {
        client.completed(*id);
    }
    assert_eq!(client.jobs("").len(), accepted.len(), "nothing is there that was not accepted");
    site.stop();
}

#[test]
fn a_second_sigterm_ends_at_once_and_the_next_life_completes_what_was_at_work() {
    let mut site = Site::new();
    let settings = site.settings("[simulated]\nlatency_ms = 15000\n[jobs]\ndrain_ms = 25000\n");
    site.start(&["--guest-processes", "0", "--config", &settings]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("at work");
    let id = client.submit(&body, None);
    wait_until("its call is under way", SOON, || {
        client.job(id)["attempts"].as_array().is_some_and(|all| !all.is_empty())
    });
    kill(site.pid(), Signal::SIGTERM).expect("our own child");
    wait_until("it waits for the job", SOON, || site.whole_log().contains("jobs still at work: 1"));
    let asked = Instant::now();
    kill(site.pid(), Signal::SIGTERM).expect("our own child");
    let status = wait_for("it ends at once", SOON, || site.exited());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "the call alone takes longer than {took:?}");
    assert!(status.success(), "{status}\n{}", site.log());
    assert!(site.whole_log().contains("stopped at once"), "{}", site.log());
    let settings = site.settings("[simulated]\nlatency_ms = 0\n");
    site.start(&["--guest-processes", "0", "--config", &settings]);
    site.client().completed(id);
    site.stop();
    assert_eq!(ledger::read(&site.data()).launches.len(), 1, "once");
}

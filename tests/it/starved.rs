//! Too little of the machine: a tenth of a processor, and memory that runs out. Load is shed with 429 or 503, nothing that
//! was accepted is lost, and a process that the kernel killed for its memory has crashed like any other.
//!
//! A control group does it where one can be made (version 1 or 2, as root). Elsewhere the process is stopped for nine
//! tenths of the time, and its address space is limited: the same want by other means.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::client::{Client, noop, number};
use crate::harness::http::NoAnswer;
use crate::harness::{Order, Ready, Site, wait_for};

const SOON: Duration = Duration::from_secs(120);
/// Clients that submit at the same time: more than a process works on at once (1024).
const CLIENTS: usize = 1300;
/// Submits of each.
const EACH: usize = 1;
/// Stack of a client's thread.
const STACK: usize = 256 * 1024;

/// A control group of our own; its processes leave with it.
struct Group(PathBuf);

impl Group {
    /// A group under this controller with this setting, and the process in it; none where that is not possible.
    fn holding(pid: Pid, controller: &str, settings: &[(&str, String)]) -> Option<Self> {
        let base = Path::new("/sys/fs/cgroup");
        let first = base.join(controller);
        let base = if first.is_dir() { first } else { base.to_path_buf() };
        let group = Self(base.join(format!("dispatcher-it-{pid}-{controller}")));
        std::fs::create_dir(&group.0).ok()?;
        let set = settings.iter().filter(|(name, _)| group.0.join(name).exists());
        let mut done = 0;
        for (name, value) in set {
            std::fs::write(group.0.join(name), value).ok()?;
            done += 1;
        }
        (done > 0).then_some(())?;
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let parent = self.0.parent().map(|parent| parent.join("cgroup.procs"));
        let left = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines() {
            let _moved = parent.as_ref().map(|parent| std::fs::write(parent, pid));
        }
        let _removed = std::fs::remove_dir(&self.0);
    }
}

/// A tenth of one processor for a process, until dropped.
enum Tenth {
    Group(#[expect(dead_code, reason = "it holds until it is dropped")] Group),
    Stopped(Pid, Arc<AtomicBool>, Option<JoinHandle<()>>),
}

impl Tenth {
    fn of(pid: Pid) -> Self {
        let settings = [
            ("cpu.cfs_period_us", "100000".to_owned()),
            ("cpu.cfs_quota_us", "10000".to_owned()),
            ("cpu.max", "10000 100000".to_owned()),
        ];
        if let Some(group) = Group::holding(pid, "cpu", &settings) {
            println!("a tenth of a processor by a control group");
            return Self::Group(group);
        }
        println!("a tenth of a processor by stopping it for nine tenths of the time");
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Acquire) {
                let _stopped = kill(pid, Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(90));
                let _going = kill(pid, Signal::SIGCONT);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self::Stopped(pid, over, Some(thread))
    }
}

impl Drop for Tenth {
    fn drop(&mut self) {
        if let Self::Stopped(pid, over, thread) = self {
            over.store(true, Ordering::Release);
            let _ended = thread.take().map(JoinHandle::join);
            let _going = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// What became of the submits of one client.
#[derive(Default)]
struct Said {
    accepted: Vec<i64>,
    shed: usize,
    unanswered: Vec<String>,
    slowest: Duration,
}

fn client(ready: &Ready, thread: usize) -> Said {
    let mut client = Client::new(ready);
    let mut said = Said::default();
    for n in 0..EACH {
        let key = format!("starved-{thread}-{n}");
        let began = Instant::now();
        match client.native("POST", "/api/v1/jobs", Some(&noop(&key)), Some(&key)) {
            Ok(answer) if answer.status == 202 => said.accepted.push(number(&answer.json(), "id")),
            Ok(answer) => {
                assert!(matches!(answer.status, 429 | 503), "{}: {}", answer.status, answer.text());
                assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
                said.shed += 1;
            }
            Err(NoAnswer::NotSent(_)) => said.shed += 1,
            Err(NoAnswer::Indefinite(_)) => said.unanswered.push(key),
        }
        said.slowest = said.slowest.max(began.elapsed());
    }
    said
}

fn load(ready: &Ready) -> Said {
    let threads: Vec<_> = (0..CLIENTS)
        .map(|thread| {
            let ready = ready.clone();
            let threads = std::thread::Builder::new().stack_size(STACK);
            threads.spawn(move || client(&ready, thread)).expect("a thread")
        })
        .collect();
    let mut all = Said::default();
    for thread in threads {
        let said = thread.join().expect("only 202, 429, 503");
        all.accepted.extend(said.accepted);
        all.unanswered.extend(said.unanswered);
        all.shed += said.shed;
        all.slowest = all.slowest.max(said.slowest);
    }
    all
}

/// Everything accepted completes, and what was not answered is known by its key.
fn nothing_lost(site: &Site, said: &Said) {
    let mut client = site.client();
    let again = said.unanswered.iter().map(|key| client.submit(&noop(key), Some(key)));
    let again: Vec<i64> = again.collect();
    for id in said.accepted.iter().chain(&again) {
        client.completed(*id);
    }
    assert_eq!(client.jobs("").len(), said.accepted.len() + again.len());
}

#[test]
fn with_a_tenth_of_a_processor_load_is_shed_and_nothing_accepted_is_lost() {
    let mut site = Site::started(&["--guest-processes", "0"]);
    let ready = site.ready().clone();
    let tenth = Tenth::of(site.pid());
    let said = load(&ready);
    drop(tenth);
    println!(
        "{} accepted, {} shed, {} without an answer, slowest {:?}",
        said.accepted.len(),
        said.shed,
        said.unanswered.len(),
        said.slowest
    );
    assert!(site.exited().is_none(), "slow is not stuck: it lives\n{}", site.log());
    assert!(!said.accepted.is_empty());
    nothing_lost(&site, &said);
    site.stop();
}

/// Lets the memory of a process run out soon.
fn cramped(pid: Pid) -> Option<Group> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let limit = ((kib("RssAnon:") / 2).max(512) * 1024).to_string();
    let settings = [("memory.limit_in_bytes", "4M".to_owned()), ("memory.max", limit)];
    let settings = settings.map(|(name, value)| (name, value));
    if let Some(group) = Group::holding(pid, "memory", &settings) {
        println!("memory by a control group");
        // What it has stays its own; what it touches from now on counts.
        return Some(group);
    }
    println!("memory by a limit of its address space");
    let space = (kib("VmSize:") + 1024) * 1024;
    let status = Command::new("prlimit").args([format!("--pid={pid}"), format!("--as={space}")]).status();
    assert!(status.expect("prlimit starts").success());
    None
}

#[test]
fn a_process_whose_memory_runs_out_has_crashed_and_the_next_one_completes_what_was_accepted() {
    let mut site = Site::started(&["--guest-processes", "0"]);
    let ready = site.ready().clone();
    let mut before = Said::default();
    let mut early = site.client();
    before.accepted.extend((0..20).map(|_| early.submit(&noop("before"), None)));
    let group = cramped(site.pid());
    // Bodies of this size have to be held in memory, many at a time.
    let bulk = "x".repeat(900 * 1024);
    let threads: Vec<_> = (0..32)
        .map(|thread| {
            let (ready, bulk) = (ready.clone(), bulk.clone());
            std::thread::spawn(move || {
                let mut client = Client::new(&ready);
                for n in 0..200 {
                    let key = format!("bulk-{thread}-{n}");
                    // Refused for its length, or not answered at all.
                    match client.native("POST", "/api/v1/jobs", Some(&noop(&bulk)), Some(&key)) {
                        Ok(answer) => assert_ne!(answer.status, 202, "{}", answer.text()),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    let status = wait_for("it is out of memory", SOON, || site.exited());
    assert!(!status.success(), "{status}");
    println!("ended with {status}");
    for thread in threads {
        thread.join().expect("nothing was accepted");
    }
    drop(group);
    site.restart(&Order::default());
    nothing_lost(&site, &before);
    site.stop();
}

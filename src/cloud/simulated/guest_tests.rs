//! Guests, with a small script in the agent's place, and the whole cloud under `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Mutex, MutexGuard};

use super::machine::Effect;
use super::process::Process;
use super::tests::{Site, request, settings, wait_for, with_account};
use super::{Settings, Simulated};
use crate::cloud::{LaunchRequest, Provider, TokenClass};
use crate::model::ServerStatus;

/// Behaves as an agent does towards its cloud: takes the folder's lock or exits 4, writes its pid file, listens,
/// ends on SIGTERM. Its user data may ask it to misbehave.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import fcntl, json, os, signal, socket, sys
args = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder, (host, port) = args["--data"], args["--listen"].rsplit(":", 1)
mode = json.load(open(args["--user-data"])).get("mode", "")
lock = open(os.path.join(folder, "lock"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(4)
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write("%d\n" % os.getpid())
if mode == "dies":
    sys.exit(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: sys.exit(0))
start = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19])
named = os.path.join(folder, "pid")
if mode != "nameless":
    with open(named + ".new", "w") as f:
        json.dump({"pid": os.getpid(), "startTime": start, "address": host}, f)
    os.rename(named + ".new", named)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((host, int(port)))
listener.listen()
while True:
    signal.pause()
"#;

/// Guest tests start many processes; one at a time keeps a small machine responsive.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

fn program(folder: &Path) -> PathBuf {
    let path = folder.join("agent.py");
    if !path.exists() {
        // Renamed into place: a file that any process still holds open for writing cannot be run.
        let fresh = folder.join("agent.py.new");
        std::fs::write(&fresh, STAND_IN).expect("written");
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o700)).expect("its owner");
        std::fs::rename(&fresh, &path).expect("renamed");
    }
    path
}

fn with_guests(folder: &Path) -> Settings {
    Settings { guest_program: program(folder), guest_processes: 3, ..settings(folder, TokenClass::K) }
}

fn asking(token: &str, mode: &str) -> LaunchRequest {
    let user_data = serde_json::json!({ "mode": mode }).to_string().into_bytes();
    LaunchRequest { user_data: Some(user_data), ..request(token) }
}

/// Ends what a failed test would leave behind.
struct Sweep(Vec<PathBuf>);

impl Drop for Sweep {
    fn drop(&mut self) {
        for folder in &self.0 {
            for process in Process::all_of(folder).unwrap_or_default() {
                process.signal(Signal::SIGKILL);
            }
        }
    }
}

impl Site {
    async fn boot(&self, request: &LaunchRequest) -> (String, PathBuf, Sweep) {
        let id = self.launch(request).await.expect("launched").id;
        let folder = self.cloud.folder_of(&id);
        (id, folder.clone(), Sweep(vec![folder]))
    }

    async fn state(&self, id: &str) -> ServerStatus {
        let machine = self.cloud.machine(&self.context(), id).await.expect("a look");
        machine.expect("visible").state
    }
}

fn living(folder: &Path) -> Vec<Process> {
    Process::all_of(folder).expect("readable")
}

async fn one_guest(folder: &Path) -> Process {
    wait_for("one guest that wrote its pid file", async || {
        living(folder).len() == 1 && Process::named_in(folder).is_some()
    })
    .await;
    living(folder)[0]
}

fn is_frozen(process: Process) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).is_ok_and(|stat| stat.contains(") T "))
}

fn starts(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("starts")).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn a_guest_lives_as_its_server_does() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::open(with_guests(folder.path())).await;
    site.cloud.start_guests();
    let (id, guest, _sweep) = site.boot(&request("t")).await;
    let first = one_guest(&guest).await;
    site.cloud.pause(&site.context(), &id).await.expect("paused");
    wait_for("it is frozen", async || is_frozen(first)).await;
    site.cloud.stop(&site.context(), &id).await.expect("stopping");
    wait_for("it ended", async || living(&guest).is_empty()).await;
    wait_for("stopped", async || site.state(&id).await == ServerStatus::Stopped).await;
    site.cloud.start(&site.context(), &id).await.expect("started");
    let second = one_guest(&guest).await;
    assert_ne!(first, second);
    site.cloud.terminate(&site.context(), &id).await.expect("terminated");
    wait_for("it is wound up", async || !guest.join("user-data.json").exists()).await;
    assert!(living(&guest).is_empty());
    assert_eq!(starts(&guest), 2);
    site.cloud.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_dies_comes_back_and_a_stubborn_one_is_killed() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let grace = Duration::from_millis(100);
    let site = Site::open(Settings { guest_grace: grace, ..with_guests(folder.path()) }).await;
    site.cloud.start_guests();
    let (_, guest, _sweep) = site.boot(&asking("t", "stubborn")).await;
    let first = one_guest(&guest).await;
    assert!(first.signal(Signal::SIGKILL));
    wait_for("another process", async || living(&guest).first().is_some_and(|p| *p != first)).await;
    one_guest(&guest).await;
    let (_, dying, _sweep) = site.boot(&asking("u", "dies")).await;
    wait_for("a third start", async || starts(&dying) == 3).await;
    site.cloud.shutdown().await;
    assert!(living(&guest).is_empty() && living(&dying).is_empty());
}

#[tokio::test]
async fn guests_are_limited_and_an_end_makes_room() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::open(Settings { guest_processes: 1, ..with_guests(folder.path()) }).await;
    let (first, ..) = site.boot(&request("t1")).await;
    let (second, ..) = site.boot(&request("t2")).await;
    site.cloud.terminate(&site.context(), &first).await.expect("terminated");
    let (third, ..) = site.boot(&request("t3")).await;
    let guest = |id: &str| site.cloud.look(|w| w.instance(id).map(|i| i.launched.guest));
    assert_eq!([guest(&first), guest(&second), guest(&third)], [Some(true), Some(false), Some(true)]);
    let addresses = site.cloud.look(|w| w.instances().map(|i| i.launched.address).collect::<BTreeSet<_>>());
    assert_eq!(addresses.len(), 3);
}

#[tokio::test]
async fn living_guests_are_adopted_by_pid_file_or_by_command_line() {
    let _turn = turn().await;
    for mode in ["", "nameless"] {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Site::open(with_guests(folder.path())).await;
        site.cloud.start_guests();
        let (id, guest, _sweep) = site.boot(&asking("t", mode)).await;
        wait_for("it started", async || starts(&guest) == 1).await;
        let before = living(&guest);
        site.cloud.leave_guests().await;
        drop(site);
        assert_eq!(living(&guest), before, "left as it was");

        let again = Site::open(with_guests(folder.path())).await;
        again.cloud.start_guests();
        // Adopted in any order with this: it must end up frozen, then thawed.
        wait_for("it is adopted and frozen", async || {
            again.cloud.pause(&again.context(), &id).await.expect("paused");
            tokio::time::sleep(Duration::from_millis(300)).await;
            let frozen = is_frozen(before[0]);
            again.cloud.start(&again.context(), &id).await.expect("thawed");
            tokio::time::sleep(Duration::from_millis(300)).await;
            frozen && !is_frozen(before[0])
        })
        .await;
        again.cloud.terminate(&again.context(), &id).await.expect("terminated");
        wait_for("it is wound up", async || !guest.join("user-data.json").exists()).await;
        assert!(living(&guest).is_empty());
        assert_eq!(starts(&guest), 1, "never a second one");
        again.cloud.shutdown().await;
    }
}

#[tokio::test]
async fn a_dropped_cloud_lets_go_of_folder_and_guests() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::open(with_guests(folder.path())).await;
    site.cloud.start_guests();
    let (_, guest, _sweep) = site.boot(&request("t")).await;
    let before = one_guest(&guest).await;
    let second = Simulated::open(with_account(with_guests(folder.path()))).await;
    assert!(second.err().expect("in use").to_string().contains("locked by another process"));
    drop(site);
    let again = Site::open(with_guests(folder.path())).await;
    assert_eq!(living(&guest), [before]);
    again.cloud.start_guests();
    again.cloud.shutdown().await;
    assert!(living(&guest).is_empty(), "an order right after the start holds for adopted guests");
}

#[tokio::test]
async fn a_guest_whose_server_ended_while_nobody_looked_is_ended_at_the_next_start() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::open(with_guests(folder.path())).await;
    site.cloud.start_guests();
    let (id, guest, _sweep) = site.boot(&request("t")).await;
    one_guest(&guest).await;
    site.cloud.leave_guests().await;
    site.cloud.terminate(&site.context(), &id).await.expect("terminated");
    drop(site);
    let again = Site::open(with_guests(folder.path())).await;
    again.cloud.start_guests();
    wait_for("it is wound up", async || !guest.join("user-data.json").exists()).await;
    assert!(living(&guest).is_empty());
    again.cloud.shutdown().await;
}

#[tokio::test]
async fn a_process_that_holds_the_folder_unseen_is_not_doubled() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::open(with_guests(folder.path())).await;
    let (_, guest, _sweep) = site.boot(&request("t")).await;
    let lock = std::fs::File::create(guest.join("lock")).expect("made");
    lock.lock().expect("free");
    site.cloud.start_guests();
    wait_for("it found the folder held", async || {
        tokio::time::sleep(Duration::from_millis(700)).await;
        living(&guest).is_empty()
    })
    .await;
    assert_eq!(starts(&guest), 0);
    drop(lock);
    one_guest(&guest).await;
    assert_eq!(starts(&guest), 1);
    site.cloud.shutdown().await;
}

/// Launches and terminates without end, and writes down every answer, until it is killed.
#[tokio::test]
async fn victim() {
    let Some(folder) = std::env::var_os("CLOUD_VICTIM").map(PathBuf::from) else { return };
    let site = Site::open(with_guests(&folder)).await;
    site.cloud.start_guests();
    let mut answers =
        std::fs::OpenOptions::new().append(true).create(true).open(folder.join("answers")).expect("open");
    let mut told = |line: String| answers.write_all(line.as_bytes()).expect("told");
    for round in 0.. {
        let token = format!("t{}", round % 40);
        let made = site.launch(&request(&token)).await.expect("launched");
        told(format!("{token} {}\n", made.id));
        if round % 3 == 0 {
            site.cloud.terminate(&site.context(), &made.id).await.expect("terminated");
            told(format!("{token} {}\n", made.id));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn start_victim(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("ours"))
        .args(["--exact", "cloud::simulated::guest_tests::victim"])
        .env("CLOUD_VICTIM", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

#[tokio::test]
async fn killed_at_any_point_the_cloud_converges() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().canonicalize().expect("there");
    program(&data);
    for round in 0..8_u64 {
        let mut child = start_victim(&data);
        let answered = || std::fs::metadata(data.join("answers")).map_or(0, |file| file.len());
        let before = answered();
        wait_for("the victim works", async || answered() > before).await;
        tokio::time::sleep(Duration::from_millis(17 * round)).await;
        kill(Pid::from_raw(i32::try_from(child.id()).expect("small")), Signal::SIGKILL).expect("ours");
        child.wait().expect("ours");
    }
    let cloud = Simulated::open(with_account(with_guests(&data))).await.expect("opens");
    let _sweep =
        Sweep(cloud.look(|w| w.instances().map(|i| cloud.folder_of(&i.launched.instance)).collect()));
    let text = std::fs::read_to_string(data.join("cloud/journal.jsonl")).expect("the ledger");
    let mut made = BTreeMap::new();
    for line in text.lines() {
        if let Effect::Launch(launched) = serde_json::from_str(line).expect("an effect") {
            assert_eq!(made.insert(launched.token.clone(), launched.instance), None, "two for {line}");
        }
    }
    let answers = std::fs::read_to_string(data.join("answers")).expect("answers");
    for (token, id) in answers.lines().filter_map(|line| line.split_once(' ')) {
        assert_eq!(made.get(token).map(String::as_str), Some(id), "an answer without an effect");
    }
    cloud.start_guests();
    let wanted = cloud.look(|w| w.guests().clone());
    assert!(!wanted.is_empty() && wanted.len() <= 3);
    wait_for("one process for each guest, none for the others", async || {
        made.values().all(|id| living(&cloud.folder_of(id)).len() == usize::from(wanted.contains(id)))
    })
    .await;
    cloud.shutdown().await;
    assert!(made.values().all(|id| living(&cloud.folder_of(id)).is_empty()));
}

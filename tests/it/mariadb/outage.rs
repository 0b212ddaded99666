//! A server of the test's own under a submitting house: it stands still (SIGSTOP), it is killed (SIGKILL) and started
//! again. Nothing is accepted meanwhile, refusals come with a time to come back, and the way back is short.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::down::{mode_is, works};
use crate::harness::client::{Client, is_end, noop, number};
use crate::harness::{Ready, Site, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// How long the server is away.
const AWAY: Duration = Duration::from_secs(30);
/// Five times the figure: accepted again within 5 s.
const BACK: Duration = Duration::from_secs(25);
/// Clients that submit without pause but for a short one.
const CLIENTS: usize = 3;

/// A MariaDB that is this test's alone.
struct Private {
    folder: tempfile::TempDir,
    port: u16,
}

impl Private {
    fn started() -> Self {
        let folder = tempfile::Builder::new().prefix("dispatcher-db-").tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let server = Self { folder, port };
        server.order("start");
        server
    }

    #[track_caller]
    fn order(&self, what: &str) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services/mariadb.sh");
        let status =
            Command::new(script).arg(what).arg(self.folder.path()).arg(self.port.to_string()).status();
        assert!(status.expect("the script runs").success(), "MariaDB does not {what}");
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).expect("it runs");
        kill(Pid::from_raw(pid.trim().parse().expect("a pid")), signal).expect("our own server");
    }

    /// Has its administrator say something to it.
    #[track_caller]
    fn told(&self, text: &str) {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--user=root", &socket, "--execute", text]);
        let done = client.output().expect("its client");
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn settings(&self, user: &str) -> String {
        let url = |name: &str| format!("mysql://{user}@127.0.0.1:{}/{name}", self.port);
        format!(
            "[database]\nprovisioning = \"{}\"\nanalytics = \"{}\"\ncredentials = \"{}\"\n",
            url("p"),
            url("a"),
            url("c")
        )
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services/mariadb.sh");
        let _stopped =
            Command::new(script).arg("stop").arg(self.folder.path()).arg(self.port.to_string()).status();
    }
}

/// One submit: when it was sent, how long it took, what came of it.
struct Try {
    at: Instant,
    took: Duration,
    job: Option<i64>,
    key: String,
    doubtful: bool,
}

struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Try>>>,
}

impl Load {
    fn begin(ready: &Ready, name: &'static str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = |thread: usize| {
            let (ready, over) = (ready.clone(), Arc::clone(&over));
            std::thread::spawn(move || submit(&ready, &format!("{name}-{thread}"), &over))
        };
        Self { clients: (0..CLIENTS).map(client).collect(), over }
    }

    fn end(self) -> Vec<Try> {
        self.over.store(true, Ordering::Release);
        self.clients.into_iter().flat_map(|client| client.join().expect("only 202 and 503")).collect()
    }
}

fn submit(ready: &Ready, name: &str, over: &AtomicBool) -> Vec<Try> {
    let mut client = Client::new(ready);
    let mut tries = Vec::new();
    while !over.load(Ordering::Acquire) {
        let (at, key) = (Instant::now(), format!("{name}-{}", tries.len()));
        let answer = client.native("POST", "/api/v1/jobs", Some(&noop(&key)), Some(&key)).expect("an answer");
        let job = (answer.status == 202).then(|| number(&answer.json(), "id"));
        if job.is_none() {
            assert_eq!(answer.status, 503, "{}", answer.text());
            let wait = answer.headers.get("retry-after").and_then(|wait| wait.parse::<u32>().ok());
            assert!(wait.is_some_and(|wait| wait <= 1), "{:?}", answer.headers);
        }
        let doubtful = job.is_none() && answer.text().contains("unknown");
        tries.push(Try { at, took: at.elapsed(), job, key, doubtful });
        std::thread::sleep(Duration::from_millis(20));
    }
    tries
}

/// Takes the server away under load and brings it back; what became of the submits.
fn outage(site: &Site, what: &'static str, (away, back): (&dyn Fn(), &dyn Fn())) -> Vec<Try> {
    let ready = site.ready().clone();
    let load = Load::begin(&ready, what);
    wait_until("there is load", SOON, || site.client().jobs("").len() > 20);
    let gone = Instant::now();
    away();
    let said = mode_is(&ready.ops_url, "provisioning database away");
    assert!(!works(&said, "submits"), "{said:#}");
    wait_until("it was away for its time", SOON, || gone.elapsed() >= AWAY);
    let returned = Instant::now();
    back();
    mode_is(&ready.ops_url, "all parts up");
    wait_until("submits are accepted again", SOON, || returned.elapsed() > Duration::from_secs(6));
    let tries = load.end();
    let meanwhile: Vec<&Try> = tries.iter().filter(|t| t.at > gone && t.at + t.took < returned).collect();
    let accepted: Vec<&str> = meanwhile
        .iter()
        .filter(|t| t.job.is_some() && t.at > gone + SETTLES)
        .map(|t| t.key.as_str())
        .collect();
    assert!(accepted.is_empty(), "{what}: accepted while the server was away: {accepted:?}");
    let first =
        tries.iter().filter(|t| t.job.is_some() && t.at + t.took >= returned).map(|t| t.at + t.took).min();
    let took = first.expect("accepted again").duration_since(returned);
    assert!(took < BACK, "{what}: accepted again only {took:?} after the server was back");
    let mut times: Vec<Duration> = meanwhile.iter().map(|t| t.took).collect();
    times.sort_unstable();
    println!(
        "{what}: {} refused while away, slowest {:?}, median {:?}; accepted again {took:?} after",
        meanwhile.len(),
        times.last().copied().unwrap_or_default(),
        times.get(times.len() / 2).copied().unwrap_or_default(),
    );
    tries
}

/// Waits for a job; when it does not complete, tells who was at work on it.
#[track_caller]
fn completes(client: &mut Client, id: i64) {
    let deadline = Instant::now() + SOON;
    while !is_end(&client.job(id)) {
        if Instant::now() > deadline {
            let actors = client.get("/api/v1/actors");
            panic!("job {id} does not end: {:#}\nactors: {actors:#}", client.job(id));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    client.completed(id);
}

/// What the server was doing when it was taken away may still come to its end.
const SETTLES: Duration = Duration::from_millis(200);

#[test]
fn a_server_that_is_stopped_or_killed_under_load_costs_no_accepted_job_and_is_back_soon() {
    if super::Server::given().is_none() {
        return;
    }
    let server = Private::started();
    let mut site = Site::new();
    let settings = site.settings(&server.settings("root"));
    site.start(&["--config", &settings, "--guest-processes", "0"]);
    let pid = site.ready().pid;
    let mut tries =
        outage(&site, "stopped", (&|| server.signal(Signal::SIGSTOP), &|| server.signal(Signal::SIGCONT)));
    tries.extend(outage(&site, "killed", (&|| server.signal(Signal::SIGKILL), &|| server.order("start"))));
    assert_eq!(site.ready().pid, pid, "the same process");
    assert!(site.exited().is_none(), "{}", site.log());
    let mut client = site.client();
    let mut known: Vec<i64> = tries.iter().filter_map(|t| t.job).collect();
    for id in &known {
        completes(&mut client, *id);
    }
    // Those nobody knew about: the same key gives the one job there is, or makes it.
    for doubtful in tries.iter().filter(|t| t.doubtful) {
        known.push(client.submit(&noop(&doubtful.key), Some(&doubtful.key)));
    }
    known.sort_unstable();
    known.dedup();
    assert_eq!(client.jobs("").len(), known.len(), "what was refused is not there");
    site.stop();
}

/// As a replica is, and a server whose operator froze it: an administrator could still write, the dispatcher cannot.
#[test]
fn a_server_that_takes_no_writes_has_submits_refused_and_what_is_there_shown() {
    if super::Server::given().is_none() {
        return;
    }
    let server = Private::started();
    for host in ["%", "localhost", "127.0.0.1"] {
        let rights = ["p", "a", "c"].map(|name| format!("GRANT ALL ON {name}.* TO app@'{host}';")).concat();
        server.told(&format!("CREATE USER app@'{host}'; {rights}"));
    }
    let mut site = Site::new();
    let settings = site.settings(&server.settings("app"));
    site.start(&["--config", &settings, "--guest-processes", "0"]);
    let (pid, ops_url) = (site.ready().pid, site.ready().ops_url.clone());
    let mut client = site.client();
    let before = client.submit(&noop("before"), None);
    client.completed(before);

    server.told("SET GLOBAL read_only = 1");
    let refused = |client: &mut Client| client.native("POST", "/api/v1/jobs", Some(&noop("no")), Some("no"));
    let answer = refused(&mut client).expect("an answer").expect(503);
    assert_eq!(answer.headers.get("retry-after").map(String::as_str), Some("1"), "{:?}", answer.headers);
    let said = mode_is(&ops_url, "provisioning database takes no writes");
    assert!(works(&said, "reads") && !works(&said, "submits"), "{said:#}");
    assert_eq!(client.job(before)["state"], "complete", "what is there is read as ever");
    refused(&mut client).expect("an answer").expect(503);

    server.told("SET GLOBAL read_only = 0");
    mode_is(&ops_url, "all parts up");
    let job = client.submit(&noop("no"), Some("no"));
    client.completed(job);
    assert_eq!(client.jobs("").len(), 2, "what was refused was not stored");
    assert_eq!(site.ready().pid, pid);
    assert!(site.exited().is_none(), "the same process\n{}", site.log());
    site.stop();
}

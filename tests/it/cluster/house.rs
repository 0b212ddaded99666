//! A whole installation: every role a process of its own, on one MariaDB, one RabbitMQ and one simulated cloud.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::ledger::{self, Ledger};
use crate::harness::{LOOK, PROGRAM, READY, processes, wait_until};
use crate::mariadb::Server;

/// A process of the installation.
pub(super) struct Member {
    name: String,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    ready: Value,
}

impl Member {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(super) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let (file, log) = (self.folder.join("ready.json"), self.folder.join("log"));
        let _absent = std::fs::remove_file(&file);
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let child = Command::new(PROGRAM)
            .args(&self.arguments)
            .arg("--data")
            .arg(self.folder.join("data"))
            .arg("--ready-file")
            .arg(&file)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the program starts"));
        let deadline = Instant::now() + READY;
        self.ready = loop {
            if let Ok(text) = std::fs::read(&file) {
                break serde_json::from_slice(&text).expect("the ready file holds its contract");
            }
            let ended = self.child.as_mut().expect("just started").try_wait().expect("our own child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} is not ready\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(LOOK);
        };
    }

    pub(super) fn ready(&self, field: &str) -> String {
        self.ready[field].as_str().unwrap_or_else(|| panic!("{} says no {field}", self.name)).to_owned()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its life in the database.
    pub(super) fn life(&self) -> String {
        std::fs::read_to_string(self.folder.join("data").join("boot")).expect("a life").trim().to_owned()
    }

    fn pid(&self) -> Pid {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("our own child");
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Asks it to end and waits.
    #[track_caller]
    pub(super) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.ended(Duration::from_secs(60));
        assert!(status.success(), "{} ended with {status}\n{}", self.name, self.log());
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                return status;
            }
            if Instant::now() > deadline {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                panic!("{} still runs after {limit:?}\n{}", self.name, self.log());
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.name, self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// The installation.
pub(super) struct House {
    pub(super) serve: Vec<Member>,
    pub(super) monitors: Vec<Member>,
    pub(super) others: Vec<Member>,
    pub(super) cloud: Member,
    entrance: Value,
    folder: tempfile::TempDir,
    pub(super) database: Server,
}

impl House {
    /// So many of each, ready, with these further settings, and with these of the cloud. None where MariaDB or RabbitMQ
    /// are not given.
    pub(super) fn started((nodes, monitors): (usize, usize), settings: &str, of_cloud: &str) -> Option<Self> {
        let database = Server::given()?;
        let Ok(broker) = std::env::var("DISPATCHER_TEST_RABBITMQ") else {
            assert!(!crate::broker::is_here("several nodes"));
            return None;
        };
        let folder = tempfile::Builder::new().prefix("dispatcher-cluster-").tempdir().expect("a folder");
        let [km, agents @ ..] = free_ports::<9>();
        let common = common(&database, (&broker, km), settings);
        let site = Site { folder: folder.path(), common, km, agents: &agents[..nodes] };
        run(site.folder, &["keys", "make", "--folder", "keys"]);
        let bare = site.write("bare", &format!("[simulated]\n{of_cloud}\n"));
        let said = run(site.folder, &["setup", "--config", &bare, "--keys", "keys", "--json"]);
        let entrance: Value = serde_json::from_str(&said).expect("JSON");
        let root = site.keys("");
        let cloud = site.member("cloud", &["simulated-cloud", "--keys", &root, "--config", &bare]);
        let url = cloud.ready("url");
        let others = site.write("others", &site.listen(0, &url));
        let role = |role: &str, name: &str, config: &str| {
            site.member(name, &[role, "--config", config, "--keys", &site.keys(role)])
        };
        let house_others = vec![role("km", "km", &others), role("worker", "worker", &others)];
        let monitor = |number| role("monitor", &format!("monitor-{number}"), &others);
        let monitors = (0..monitors).map(monitor).collect();
        let serve = |number: usize| {
            let config = site.write(&format!("serve-{number}"), &site.listen(agents[number], &url));
            role("serve", &format!("serve-{number}"), &config)
        };
        let serve = (0..nodes).map(serve).collect();
        let entrance = entrance["entrance"].clone();
        Some(Self { serve, monitors, others: house_others, cloud, entrance, folder, database })
    }

    /// A client of one node.
    pub(super) fn client(&self, node: usize) -> Client {
        self.client_at(&self.serve[node].ready("url"))
    }

    pub(super) fn client_at(&self, url: &str) -> Client {
        let word = |field: &str| self.entrance[field].as_str().expect("a word").to_owned();
        Client::at(url, word("accessKey"), word("secretKey"))
    }

    /// What cloud and guests did.
    pub(super) fn ledger(&self) -> Ledger {
        ledger::read(&self.cloud_data())
    }

    fn cloud_data(&self) -> PathBuf {
        self.folder.path().join("cloud").join("data")
    }

    /// Stops every process in order; nobody stays.
    #[track_caller]
    pub(super) fn stop(&mut self) {
        for member in self.serve.iter_mut().chain(&mut self.monitors).chain(&mut self.others) {
            if member.child.is_some() {
                member.stop();
            }
        }
        self.cloud.stop();
        let data = self.cloud_data();
        wait_until("no guest is left", Duration::from_secs(30), || processes::agents(&data).is_empty());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for member in self.serve.iter().chain(&self.monitors).chain(&self.others) {
            if member.child.is_some() {
                // One that stands still cannot be killed by a plain end of the test otherwise.
                let _gone = kill(member.pid(), Signal::SIGCONT);
            }
        }
        processes::end_all(&self.cloud_data());
    }
}

/// Settings of every process.
fn common(database: &Server, (broker, km): (&str, u16), settings: &str) -> String {
    format!(
        "[database]\nprovisioning = \"{}\"\nanalytics = \"{}\"\ncredentials = \"{}\"\n\
         [queue]\nurl = \"{broker}\"\nprefix = \"it{km}x{}\"\ncanary_ms = 1000\n\
         [km]\naddress = \"127.0.0.1:{km}\"\n{settings}\n",
        database.url("p"),
        database.url("a"),
        database.url("c"),
        std::process::id(),
    )
}

/// Where an installation is set up.
struct Site<'a> {
    folder: &'a Path,
    common: String,
    km: u16,
    /// Ports of the nodes' listeners for guests.
    agents: &'a [u16],
}

impl Site<'_> {
    /// Writes a settings file; its path.
    fn write(&self, name: &str, more: &str) -> String {
        let path = self.folder.join(format!("{name}.toml"));
        std::fs::write(&path, format!("{}{more}", self.common)).expect("room on the disk");
        path.display().to_string()
    }

    /// Settings of a role's listeners.
    fn listen(&self, agents: u16, cloud: &str) -> String {
        let urls: Vec<String> =
            self.agents.iter().map(|port| format!("\"https://127.0.0.1:{port}\"")).collect();
        format!(
            "[listen]\napi = [\"127.0.0.1:0\"]\nkm = [\"127.0.0.1:{}\"]\nagents = [\"127.0.0.1:{agents}\"]\n\
             agent_urls = [{}]\n[simulated]\nurl = \"{cloud}\"\n",
            self.km,
            urls.join(", ")
        )
    }

    fn keys(&self, role: &str) -> String {
        self.folder.join("keys").join(role).display().to_string()
    }

    /// A process that is ready.
    #[track_caller]
    fn member(&self, name: &str, arguments: &[&str]) -> Member {
        let mut member = Member {
            name: name.to_owned(),
            folder: self.folder.join(name),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            child: None,
            ready: Value::Null,
        };
        std::fs::create_dir(&member.folder).expect("room on the disk");
        member.start();
        member
    }
}

/// Runs a command of the program in a folder; what it printed.
#[track_caller]
fn run(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new(PROGRAM).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let done = done.expect("the program starts");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Ports nobody listens on now.
fn free_ports<const N: usize>() -> [u16; N] {
    let bound = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    bound.map(|listener| listener.local_addr().expect("bound").port())
}

//! The simulated cloud as a process of its own: dispatchers come and go, the cloud and its guests stay.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::down::{mode_is, works};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{noop, number, run};
use crate::harness::ledger::{self, Ledger};
use crate::harness::{Order, PROGRAM, READY, Site, processes, wait_for, wait_until};

/// Longest wait for anything on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What the ready file of the cloud says, and nothing else.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ready {
    pub(crate) url: String,
    pid: u32,
}

/// A cloud in a process of its own.
pub(crate) struct Cloud {
    data: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Cloud {
    /// Starts a cloud that trusts the keys of the site.
    pub(crate) fn started(site: &Site, settings: &str) -> (Self, Ready) {
        let data = site.beside("cloud");
        std::fs::create_dir_all(&data).expect("room on the disk");
        let data = data.canonicalize().expect("just made");
        let file = site.beside("cloud.toml");
        std::fs::write(&file, settings).expect("room on the disk");
        // Named as seen from the folder it starts in: whose command line names the data folder is taken for a guest of it.
        let keys = Path::new("data/keys");
        let arguments = ["--keys", &keys.display().to_string(), "--config", &file.display().to_string()];
        let mut cloud =
            Self { data, arguments: arguments.iter().map(|&word| word.to_owned()).collect(), child: None };
        let ready = cloud.start();
        (cloud, ready)
    }

    #[track_caller]
    pub(crate) fn start(&mut self) -> Ready {
        let (ready, log) = (self.data.with_file_name("cloud.json"), self.data.with_file_name("cloud.log"));
        let _absent = std::fs::remove_file(&ready);
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let child = Command::new(PROGRAM)
            .current_dir(self.data.parent().expect("the site's folder"))
            .args(["simulated-cloud", "--data"])
            .arg(&self.data)
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.arguments)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the program starts"));
        let told: Ready = wait_for("the cloud is ready", READY, || {
            serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()
        });
        assert_eq!(told.pid, self.child.as_ref().expect("just started").id());
        told
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Asks it to end, and sees that nobody is left.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM)
            .expect("our own child");
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                panic!("the cloud still runs {SOON:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "it ended with {status}");
        let left = processes::naming(&self.data);
        assert!(left.is_empty(), "these live on: {left:?}");
    }

    fn guests(&self) -> Vec<i32> {
        processes::agents(&self.data)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        ledger::read(&self.data)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read(self.data.with_file_name("cloud.log")).unwrap_or_default();
            eprintln!("--- the cloud's log ---\n{}", String::from_utf8_lossy(&log));
        }
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        processes::end_all(&self.data);
    }
}

pub(crate) fn named(site: &Site, url: &str) -> String {
    site.settings(&format!("[simulated]\nurl = \"{url}\"\n"))
}

#[test]
fn a_dispatcher_that_is_killed_takes_neither_cloud_nor_guests_with_it() {
    let mut site = Site::new();
    let (mut cloud, ready) = Cloud::started(&site, "[simulated]\nboot_ms = 1500\n");
    let settings = named(&site, &ready.url);
    site.start(&["--config", &settings]);

    // Killed while a server boots: the job is taken up, and nothing is made twice.
    let body = Catalogue::read(&mut site.client()).launch("far");
    let launch = site.client().submit(&body, None);
    wait_until("the cloud made the server", SOON, || cloud.ledger().launches.len() == 1);
    site.kill();
    site.restart(&Order::default());
    let server = number(&site.client().completed(launch), "server");
    assert_eq!(cloud.ledger().launches.len(), 1, "one job, one server");
    assert!(!site.data().join("cloud").exists() && site.guests().is_empty(), "the dispatcher has no cloud");
    let guests = cloud.guests();
    assert_eq!(guests.len(), 1, "one server, one guest");

    // Killed while a command runs: the guest lives on, and so does the job.
    let command = site.client().submit(&run(server, &["/bin/sleep", "2"]), None);
    wait_until("the command runs", SOON, || cloud.ledger().commands.len() == 1);
    site.kill();
    assert_eq!(cloud.guests(), guests, "guests belong to the cloud");
    site.restart(&Order::default());
    site.client().completed(command);
    assert_eq!(cloud.ledger().commands.values().copied().collect::<Vec<_>>(), [1]);

    // The cloud is killed as well: it comes back at the same address and adopts its guests.
    cloud.kill();
    assert_eq!(cloud.guests(), guests, "guests outlive the process that keeps them");
    let body = Catalogue::read(&mut site.client()).launch("waits");
    let waits = site.client().submit(&body, None);
    wait_until("the job says that the cloud is away", SOON, || {
        site.client().job(waits).to_string().contains("Unreachable")
    });
    let said = mode_is(&site.ready().ops_url, "cloud away");
    assert!(
        works(&said, "submits") && works(&said, "commands on guests") && !works(&said, "calls to clouds")
    );
    let other = site.client().submit(&noop("needs no cloud"), None);
    site.client().completed(other);
    assert_eq!(cloud.start().url, ready.url, "a restart keeps its port");
    site.client().completed(waits);
    mode_is(&site.ready().ops_url, "all parts up");
    assert!(cloud.guests().contains(&guests[0]), "the first guest was adopted");
    assert_eq!(cloud.ledger().launches.len(), 2);

    site.stop();
    assert_eq!(cloud.guests().len(), 2, "a dispatcher that stops in order ends no guest of another's");
    cloud.stop();
}

#[test]
fn classes_and_faults_are_those_of_the_cloud() {
    let mut site = Site::new();
    let wanted = "[simulated]\nclass = \"S\"\nquiet_ms = 2000\nlose_answers = 1\n";
    let (mut cloud, ready) = Cloud::started(&site, wanted);
    // What the dispatcher's own settings say about a cloud inside it does not count.
    let settings = named(&site, &ready.url);
    site.start(&["--config", &settings]);
    let mut client = site.client();
    let body = Catalogue::read(&mut client).launch("unanswered");
    let job = client.submit(&body, None);
    client.completed(job);
    let ledger = cloud.ledger();
    assert_eq!(ledger.launches.len(), 1, "looked for after the quiet time, not made again: {ledger:?}");
    assert!(site.whole_log().contains("class S"), "{}", site.log());
    site.stop();
    cloud.stop();
}

#[test]
fn what_cannot_work_is_refused_with_the_remedy() {
    let refused = |arguments: &[&str]| {
        let done = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().expect("it starts");
        assert!(!done.status.success(), "{arguments:?} was accepted");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name).display().to_string();
    let text = refused(&["simulated-cloud", "--listen", "0.0.0.0:0", "--data", &data("open")]);
    assert!(text.contains("loopback") && text.contains("127.0.0.1"), "{text}");
    assert!(!Path::new(&data("open")).exists(), "refused before anything was made");

    let far = folder.path().join("far.toml");
    std::fs::write(&far, "[simulated]\nurl = \"http://192.0.2.1:80\"\n").expect("room on the disk");
    let far = far.display().to_string();
    let text = refused(&["dev", "--listen", "127.0.0.1:0", "--data", &data("dev"), "--config", &far]);
    assert!(text.contains("http://127.0.0.1:PORT"), "{text}");
}

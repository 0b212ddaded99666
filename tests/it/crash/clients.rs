//! Clients that submit without pause, and the logs by which they are believed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::rng::Rng;
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, is_end, noop, number, terminate};
use crate::harness::http::NoAnswer;
use crate::harness::{Ready, Site, wait_for};

/// Servers one client keeps at a time.
const SERVERS: usize = 2;
/// Pause after a refused connection: nobody is there for some hundred milliseconds.
const NOBODY: Duration = Duration::from_millis(10);

/// One line of a client's log.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// About to send this body under this key.
    Invoke { key: String, body: Value },
    /// 202 with this job.
    Ok { key: String, job: i64 },
    /// No answer: it may have been taken or not.
    Indefinite { key: String },
    /// Nobody was there: it was not taken.
    Unsent { key: String },
    /// Refused for now: it was not taken.
    Later { key: String },
    /// An answer that should not come.
    Odd { key: String, status: u16, text: String },
}

struct Shared {
    /// Where the process listens now, and how often it was started.
    ready: Mutex<(Ready, u64)>,
    over: AtomicBool,
}

/// The running clients.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    logs: Vec<PathBuf>,
}

impl Clients {
    pub(super) fn start(site: &Site, count: usize, rng: &mut Rng) -> Self {
        let catalogue = Catalogue::read(&mut site.client());
        let ready = Mutex::new((site.ready().clone(), 0));
        let shared = Arc::new(Shared { ready, over: AtomicBool::new(false) });
        let logs: Vec<PathBuf> = (0..count).map(|n| site.beside(&format!("client-{n}.log"))).collect();
        let threads = logs.iter().enumerate().map(|(n, log)| {
            let worker = Worker::new(n, log, Rng::new(rng.next()), (catalogue.clone(), Arc::clone(&shared)));
            std::thread::spawn(move || worker.run())
        });
        let threads = threads.collect();
        Self { shared, threads, logs }
    }

    /// Tells them where the process is now.
    pub(super) fn connect(&self, ready: &Ready) {
        let mut shared = self.shared.ready.lock().expect("no client panicked");
        *shared = (ready.clone(), shared.1 + 1);
    }

    /// Ends them and reads what they wrote.
    pub(super) fn stop(self) -> Vec<Line> {
        self.shared.over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client's thread");
        }
        let texts = self.logs.iter().map(|log| std::fs::read_to_string(log).expect("a log"));
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| serde_json::from_str(&line).expect("a line of ours")).collect()
    }
}

/// A server one client launched.
struct Server {
    id: i64,
    commands: Vec<i64>,
}

/// What a request is about.
#[derive(Clone)]
enum Aim {
    Noop,
    Launch,
    /// On the server with this number.
    Command(i64),
    Terminate,
}

struct Worker {
    name: usize,
    count: u64,
    log: File,
    rng: Rng,
    catalogue: Catalogue,
    shared: Arc<Shared>,
    client: Option<(Client, u64)>,
    launching: Vec<i64>,
    servers: Vec<Server>,
    unsure: Vec<(String, Value, Aim)>,
}

impl Worker {
    fn new(name: usize, log: &Path, rng: Rng, (catalogue, shared): (Catalogue, Arc<Shared>)) -> Self {
        Self {
            name,
            count: 0,
            log: File::options().create_new(true).append(true).open(log).expect("a log"),
            rng,
            catalogue,
            shared,
            client: None,
            launching: Vec::new(),
            servers: Vec::new(),
            unsure: Vec::new(),
        }
    }

    fn run(mut self) {
        while !self.shared.over.load(Ordering::SeqCst) {
            // Who got no answer asks again under the same key, as every careful client does.
            if let Some((key, body, aim)) = self.unsure.pop() {
                self.send(key, body, aim);
                continue;
            }
            self.look_at_launches();
            let (body, aim) = self.choose();
            let key = format!("client{}-{}", self.name, self.count);
            self.count += 1;
            let body = with_key(body, &key);
            self.write(&Line::Invoke { key: key.clone(), body: body.clone() });
            self.send(key, body, aim);
        }
    }

    fn choose(&mut self) -> (Value, Aim) {
        let dice = self.rng.below(100);
        let room = self.servers.len() + self.launching.len() < SERVERS;
        if room && dice < 40 {
            return (self.catalogue.launch(""), Aim::Launch);
        }
        if dice < 65
            && let Some(server) = self.servers.last()
        {
            let body = json!({ "kind": "run-command", "params": { "server": server.id, "timeoutSecs": 60 } });
            return (body, Aim::Command(server.id));
        }
        if dice < 90
            && let Some(server) = self.idle_server()
        {
            return (terminate(server), Aim::Terminate);
        }
        (noop(""), Aim::Noop)
    }

    /// Takes a server whose commands have all ended, so that terminating it disturbs none.
    fn idle_server(&mut self) -> Option<i64> {
        let about = |aim: &Aim, id| matches!(aim, Aim::Command(server) if *server == id);
        let first = self.servers.first()?;
        if first.commands.is_empty() || self.unsure.iter().any(|(_, _, aim)| about(aim, first.id)) {
            return None;
        }
        let commands = first.commands.clone();
        let all_ended = commands.iter().all(|command| self.job(*command).is_some_and(|job| is_end(&job)));
        all_ended.then(|| self.servers.remove(0).id)
    }

    fn look_at_launches(&mut self) {
        let Some(id) = self.launching.first().copied() else { return };
        let Some(job) = self.job(id).filter(is_end) else { return };
        self.launching.remove(0);
        if job["state"] == "complete" {
            self.servers.push(Server { id: number(&job, "server"), commands: Vec::new() });
        }
    }

    fn job(&mut self, id: i64) -> Option<Value> {
        let answer = self.client().native("GET", &format!("/api/v1/jobs/{id}"), None, None).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    fn client(&mut self) -> &mut Client {
        let (ready, start) = self.shared.ready.lock().expect("no client panicked").clone();
        if self.client.as_ref().is_none_or(|(_, known)| *known != start) {
            self.client = Some((Client::new(&ready), start));
        }
        &mut self.client.as_mut().expect("just made").0
    }

    fn send(&mut self, key: String, body: Value, aim: Aim) {
        let answer = self.client().native("POST", "/api/v1/jobs", Some(&body), Some(&key));
        match answer {
            Ok(answer) if answer.status == 202 => {
                let job = number(&answer.json(), "id");
                self.write(&Line::Ok { key, job });
                self.accepted(job, &aim);
            }
            Ok(answer) if answer.status == 503 => {
                self.write(&Line::Later { key: key.clone() });
                self.unsure.push((key, body, aim));
                std::thread::sleep(NOBODY);
            }
            Ok(answer) => {
                self.write(&Line::Odd { key, status: answer.status, text: answer.text() });
            }
            Err(NoAnswer::NotSent(_)) => {
                self.write(&Line::Unsent { key: key.clone() });
                self.unsure.push((key, body, aim));
                std::thread::sleep(NOBODY);
            }
            Err(NoAnswer::Indefinite(_)) => {
                self.write(&Line::Indefinite { key: key.clone() });
                self.unsure.push((key, body, aim));
            }
        }
    }

    fn accepted(&mut self, job: i64, aim: &Aim) {
        match aim {
            Aim::Launch => self.launching.push(job),
            Aim::Command(id) => {
                let server = self.servers.iter_mut().find(|server| server.id == *id);
                server.into_iter().for_each(|server| server.commands.push(job));
            }
            Aim::Noop | Aim::Terminate => {}
        }
    }

    fn write(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("plain data");
        text.push(b'\n');
        self.log.write_all(&text).and_then(|()| self.log.sync_data()).expect("room on the disk");
    }
}

/// Puts the key into the body, so that a job tells which request made it.
fn with_key(mut body: Value, key: &str) -> Value {
    let kind = body["kind"].as_str().unwrap_or_default().to_owned();
    let params = &mut body["params"];
    match kind.as_str() {
        "noop" => params["note"] = json!(key),
        "launch-server" => params["name"] = json!(key),
        "run-command" => params["argv"] = json!(["/bin/echo", key]),
        "terminate-server" => params["reason"] = json!(key),
        other => panic!("no client sends {other}"),
    }
    body
}

/// Sends again every request that was sent and never answered; how many there were. Each must be accepted now.
pub(super) fn ask_again(client: &mut Client, logs: &[Line]) -> Vec<(String, i64)> {
    let mut open: Vec<(String, Value)> = Vec::new();
    for line in logs {
        match line {
            Line::Invoke { key, body } => open.push((key.clone(), body.clone())),
            Line::Ok { key, .. } | Line::Odd { key, .. } => open.retain(|(other, _)| other != key),
            Line::Indefinite { .. } | Line::Unsent { .. } | Line::Later { .. } => {}
        }
    }
    let sent = |key: &str| logs.iter().any(|line| matches!(line, Line::Indefinite { key: k } if k == key));
    open.retain(|(key, _)| sent(key));
    open.into_iter()
        .map(|(key, body)| {
            let job = wait_for("an unanswered request is accepted", Duration::from_secs(30), || {
                let answer = client.native("POST", "/api/v1/jobs", Some(&body), Some(&key)).ok()?;
                (answer.status != 503).then(|| number(&answer.expect(202).json(), "id"))
            });
            (key, job)
        })
        .collect()
}

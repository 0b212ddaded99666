//! Clients that ask without pause: launches, commands, terminates, no-ops, cancels, with and without keys.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Error;
use super::caller::{Answer, Caller};
use super::diary::{Diary, Line};
use super::house::House;
use super::plan::Plan;
use super::rng::Rng;
use super::scenario::Mix;

/// Servers one client keeps at a time.
const SERVERS: usize = 2;
/// Pause after nobody took a request.
const NOBODY: Duration = Duration::from_millis(20);
/// Pause between two requests of a client: the house is to be full of work, not of requests.
const PAUSE: Duration = Duration::from_millis(15);

/// What the clients share.
struct Shared {
    over: Cell<bool>,
    accepted: Cell<usize>,
}

/// The running clients.
pub(super) struct Load {
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
    logs: Vec<PathBuf>,
}

impl Load {
    /// Starts them.
    pub(super) fn start(house: &House, plan: &Plan, rng: &mut Rng) -> Result<Self, Error> {
        let shared = Rc::new(Shared { over: Cell::new(false), accepted: Cell::new(0) });
        let (mut tasks, mut logs) = (Vec::new(), Vec::new());
        for name in 0..plan.clients {
            let log = house.folder.join(format!("client-{name}.log"));
            let worker = Worker {
                name,
                count: 0,
                diary: Diary::new(&log)?,
                rng: rng.split(),
                mix: plan.scenario.mix,
                caller: Caller::new(house, name),
                shared: Rc::clone(&shared),
                launching: VecDeque::new(),
                servers: VecDeque::new(),
                unsure: Vec::new(),
            };
            logs.push(log);
            tasks.push(tokio::task::spawn_local(worker.run()));
        }
        Ok(Self { shared, tasks, logs })
    }

    /// Jobs accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.get()
    }

    /// Whether a client has ended, which none does before it is told to.
    pub(super) fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends them and reads what they wrote.
    pub(super) async fn stop(self) -> Result<Vec<Line>, Error> {
        self.shared.over.set(true);
        for task in self.tasks {
            task.await.map_err(|e| Error::Failed(format!("a client ended badly: {e}")))??;
        }
        let mut lines = Vec::new();
        for log in &self.logs {
            lines.extend(Diary::read(log)?);
        }
        Ok(lines)
    }
}

/// A server a client launched. Nobody else touches it.
struct Server {
    id: i64,
    /// Jobs about it that have not been seen to end.
    open: VecDeque<i64>,
    /// Whether it runs, or shall run once what is open has ended.
    up: bool,
    /// Whether a command was sent to it.
    used: bool,
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    Noop,
    Launch,
    /// On the server with this number.
    Command(i64),
    /// Stops it, or starts it.
    Move(i64, bool),
    Terminate,
}

impl Aim {
    const fn server(self) -> Option<i64> {
        match self {
            Self::Command(id) | Self::Move(id, _) => Some(id),
            Self::Noop | Self::Launch | Self::Terminate => None,
        }
    }
}

/// A request that nobody has answered yet.
struct Open {
    mark: String,
    keyed: bool,
    body: Value,
    aim: Aim,
}

struct Worker {
    name: usize,
    count: u64,
    diary: Diary,
    rng: Rng,
    mix: Mix,
    caller: Caller,
    shared: Rc<Shared>,
    launching: VecDeque<i64>,
    servers: VecDeque<Server>,
    unsure: Vec<Open>,
}

impl Worker {
    async fn run(mut self) -> Result<(), Error> {
        while !self.shared.over.get() {
            // Who got no answer asks again under the same key, as every careful client does.
            if let Some(open) = self.unsure.pop() {
                self.send(open).await?;
                continue;
            }
            self.look_at_launches().await;
            self.look_at_servers().await;
            let (body, aim) = self.choose();
            let mark = format!("client{}-{}", self.name, self.count);
            self.count += 1;
            let keyed = aim != Aim::Noop || self.rng.below(100) >= self.mix.keyless;
            let body = marked(body, &mark);
            self.diary.write(&Line::Invoke { mark: mark.clone(), keyed, body: body.clone() }).await?;
            self.send(Open { mark, keyed, body, aim }).await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn choose(&mut self) -> (Value, Aim) {
        let (dice, mix) = (self.rng.below(100), self.mix);
        let room = self.servers.len() + self.launching.len() < SERVERS;
        let mut border = mix.launches;
        if room && dice < border {
            return (crate::cli::bench::launch(""), Aim::Launch);
        }
        border += mix.commands;
        let id = self.servers.iter().rev().find(|server| server.up).map(|server| server.id);
        if dice < border
            && let Some(id) = id
        {
            let body = json!({ "kind": "run-command", "params": { "server": id, "timeoutSecs": 60 } });
            return (body, Aim::Command(id));
        }
        // What terminates or moves a server disturbs nothing that is open about it.
        let idle = self.servers.iter().position(|server| server.open.is_empty());
        border += mix.terminates;
        if dice < border
            && let Some(server) = idle.filter(|at| self.is_used(*at)).and_then(|at| self.servers.remove(at))
        {
            let body = json!({ "kind": "terminate-server", "params": { "server": server.id } });
            return (body, Aim::Terminate);
        }
        border += mix.moves;
        if dice < border
            && let Some(server) = idle.and_then(|at| self.servers.get(at))
        {
            let kind = if server.up { "stop-server" } else { "start-server" };
            let body = json!({ "kind": kind, "params": { "server": server.id } });
            return (body, Aim::Move(server.id, !server.up));
        }
        (json!({ "kind": "noop", "params": {} }), Aim::Noop)
    }

    fn is_used(&self, at: usize) -> bool {
        self.servers.get(at).is_some_and(|server| server.used)
    }

    /// Looks at one open job of each server. One whose move did not complete is left alone from then on: nobody knows
    /// how it is.
    async fn look_at_servers(&mut self) {
        for at in 0..self.servers.len() {
            let Some(id) = self.servers.get(at).and_then(|server| server.open.front().copied()) else {
                continue;
            };
            let Some(job) = self.caller.job(id).await.filter(is_end) else { continue };
            let text = |field| job.get(field).and_then(Value::as_str).unwrap_or_default();
            let moved = text("kind") != "run-command";
            let Some(server) = self.servers.get_mut(at) else { continue };
            server.open.pop_front();
            if moved && text("state") != "complete" {
                self.servers.remove(at);
                return;
            }
        }
    }

    async fn look_at_launches(&mut self) {
        let Some(id) = self.launching.front().copied() else { return };
        let Some(job) = self.caller.job(id).await.filter(is_end) else { return };
        self.launching.pop_front();
        let server = job.get("server").and_then(Value::as_i64);
        if let (Some("complete"), Some(id)) = (job.get("state").and_then(Value::as_str), server) {
            self.servers.push_back(Server { id, open: VecDeque::new(), up: true, used: false });
        }
    }

    async fn send(&mut self, open: Open) -> Result<(), Error> {
        let answer = self.caller.submit(&open.body, Some(&open.mark).filter(|_| open.keyed)).await;
        let mark = open.mark.clone();
        match answer {
            Answer::Ok(said) => {
                let job = said.get("id").and_then(Value::as_i64).unwrap_or_default();
                self.diary.write(&Line::Ok { mark, job }).await?;
                self.shared.accepted.set(self.shared.accepted.get() + 1);
                self.accepted(job, open.aim).await?;
            }
            Answer::NotTaken => {
                self.diary.write(&Line::NotTaken { mark }).await?;
                // Without a key nobody could tell a second one from the first, should it have been taken after all.
                self.unsure.extend(Some(open).filter(|open| open.keyed));
                tokio::time::sleep(NOBODY).await;
            }
            Answer::Indefinite => {
                self.diary.write(&Line::Indefinite { mark }).await?;
                self.unsure.extend(Some(open).filter(|open| open.keyed));
            }
            Answer::Odd(text) => self.diary.write(&Line::Odd { mark, text }).await?,
        }
        Ok(())
    }

    async fn accepted(&mut self, job: i64, aim: Aim) -> Result<(), Error> {
        if aim == Aim::Launch {
            self.launching.push_back(job);
        }
        let server = self.servers.iter_mut().find(|server| Some(server.id) == aim.server());
        if let Some(server) = server {
            server.open.push_back(job);
            match aim {
                Aim::Move(_, up) => server.up = up,
                _ => server.used = true,
            }
        }
        let cancels = match aim {
            Aim::Noop | Aim::Launch => self.mix.cancels,
            Aim::Command(_) => self.mix.command_cancels,
            Aim::Move(..) | Aim::Terminate => 0,
        };
        if self.rng.below(100) < cancels {
            tokio::time::sleep(self.rng.time(0, self.mix.cancel_ms)).await;
            match self.caller.cancel(job).await {
                Answer::Ok(_) => self.diary.write(&Line::Cancelled { job }).await?,
                // It ended before, or nobody knows; either is the job's own business.
                Answer::NotTaken | Answer::Indefinite => {}
                Answer::Odd(text) => {
                    let mark = format!("cancel of job {job}");
                    self.diary.write(&Line::Odd { mark, text }).await?;
                }
            }
        }
        Ok(())
    }
}

fn is_end(job: &Value) -> bool {
    let state = job.get("state").and_then(Value::as_str);
    matches!(state, Some("complete" | "failed" | "cancelled" | "unresolved"))
}

/// Where the body of a kind carries its mark.
pub(super) const fn field_of(kind: &str) -> &'static str {
    match kind.as_bytes() {
        b"noop" => "note",
        b"launch-server" => "name",
        b"run-command" => "argv",
        // Those about a server.
        _ => "reason",
    }
}

/// Puts the mark into the body, so that a job tells which request made it.
fn marked(mut body: Value, mark: &str) -> Value {
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default();
    let field = field_of(kind);
    let value = if field == "argv" { json!(["/bin/echo", mark]) } else { json!(mark) };
    if let Some(params) = body.get_mut("params").and_then(Value::as_object_mut) {
        params.insert(field.to_owned(), value);
    }
    body
}

/// Keyed requests that were sent and never answered.
pub(super) fn unanswered(lines: &[Line]) -> Vec<(String, Value)> {
    let mut open: Vec<(String, Value)> = Vec::new();
    let (mut sent, mut done) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for line in lines {
        match line {
            Line::Invoke { mark, keyed: true, body } => open.push((mark.clone(), body.clone())),
            Line::Ok { mark, .. } | Line::Odd { mark, .. } => drop(done.insert(mark.as_str())),
            Line::Indefinite { mark } => drop(sent.insert(mark.as_str())),
            Line::Invoke { .. } | Line::NotTaken { .. } | Line::Cancelled { .. } => {}
        }
    }
    open.retain(|(mark, _)| sent.contains(mark.as_str()) && !done.contains(mark.as_str()));
    open
}

#[cfg(test)]
mod tests {
    use super::{Line, marked, unanswered};
    use serde_json::json;

    #[test]
    fn a_job_tells_which_request_made_it() {
        let body = marked(json!({"kind": "run-command", "params": {"server": 1}}), "client0-1");
        assert_eq!(body["params"]["argv"][1], "client0-1");
        let body = marked(json!({"kind": "launch-server", "params": {"name": ""}}), "client0-2");
        assert_eq!(body["params"]["name"], "client0-2");
    }

    #[test]
    fn only_keyed_requests_that_left_and_were_never_answered_are_asked_again() {
        let invoke = |mark: &str, keyed| Line::Invoke { mark: mark.into(), keyed, body: json!(mark) };
        let indefinite = |mark: &str| Line::Indefinite { mark: mark.into() };
        let lines = [
            invoke("a", true),
            indefinite("a"),
            Line::Ok { mark: "a".into(), job: 1 },
            invoke("b", true),
            indefinite("b"),
            invoke("c", false),
            indefinite("c"),
            invoke("d", true),
            Line::NotTaken { mark: "d".into() },
        ];
        assert_eq!(unanswered(&lines), [("b".to_owned(), json!("b"))]);
    }
}

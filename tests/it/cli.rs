//! The command line against a real process: what each command prints, as text and as JSON, and what it ends with.

use std::process::{Command, Stdio};
use std::time::Duration;

use diesel::prelude::*;
use dispatcher::store::provisioning::schema::job;
use serde_json::Value;

use crate::harness::{Order, PROGRAM, Site, rows, wait_for, wait_until};

const LONG: Duration = Duration::from_secs(90);

/// What one command did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The same, if it ended so.
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// The same, if its error says these.
    #[track_caller]
    fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "no \"{part}\" in: {}", self.err);
        }
        assert!(self.out.is_empty(), "an error prints nothing else: {}", self.out);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    /// JSON, one value a line.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words).stdin(Stdio::null()).env_remove("RUST_LOG");
    for name in ["DISPATCHER_URL", "DISPATCHER_ACCESS_KEY", "DISPATCHER_SECRET_KEY"] {
        command.env_remove(name);
    }
    command
}

fn ran(mut command: Command) -> Ran {
    let done = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: done.status.code().expect("not a signal"), out: text(&done.stdout), err: text(&done.stderr) }
}

/// Runs a command against the site; `words` begin with its two names.
fn run(site: &Site, words: &[&str]) -> Ran {
    let ready = site.beside("ready.json").display().to_string();
    // Options of this client stand before what is handed on to a guest.
    let cut = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (ours, theirs) = words.split_at(cut);
    ran(command(&[ours, &["--ready-file", &ready], theirs].concat()))
}

/// The same line, split at its blanks.
fn line(site: &Site, text: &str) -> Ran {
    run(site, &text.split(' ').collect::<Vec<_>>())
}

#[track_caller]
fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect()
}

#[track_caller]
fn id_of(value: &Value) -> i64 {
    value["id"].as_i64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[test]
fn jobs_without_a_guest() {
    let site = Site::started(&[]);
    let first = line(&site, "jobs submit noop --note hello --wait").ends(0);
    assert!(first.out.contains("accepted") && first.out.contains("complete"), "{}", first.out);
    let accepted = line(&site, "jobs submit noop --json").ends(0).json();
    assert_eq!((&accepted["kind"], &accepted["priority"]), (&"noop".into(), &0.into()));
    let second = id_of(&accepted);
    let story = line(&site, &format!("jobs watch {second} --json")).ends(0).lines();
    assert_eq!(story[0]["what"], "accepted");
    assert_eq!(story.last().expect("an end")["state"], "complete");
    // The same key is the same job.
    let keyed = || id_of(&line(&site, "jobs submit noop --idempotency-key k-1 --json").ends(0).json());
    assert_eq!(keyed(), keyed());

    let shown = line(&site, &format!("jobs show {second}")).ends(0);
    assert!(shown.out.starts_with(&format!("job {second}: Do nothing\ncomplete:")), "{}", shown.out);
    let shown = line(&site, &format!("jobs show {second} --json")).ends(0).json();
    let fields = names(&shown);
    for field in
        ["id", "uid", "kind", "params", "state", "why", "timeline", "attempts", "evidence", "version"]
    {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    let why = line(&site, &format!("jobs why {second} --json")).ends(0).json();
    assert_eq!(names(&why), ["code", "id", "since", "state", "text", "until"]);
    assert!(line(&site, &format!("jobs why {second}")).ends(0).out.contains("is complete since"));

    let retried = line(&site, &format!("jobs retry {second} --wait --json")).ends(0);
    assert_eq!(retried.lines().last().expect("an end")["state"], "complete");
    line(&site, &format!("jobs cancel {second}")).ends(1).says(&["refused with 409", "ended"]);
    line(&site, &format!("jobs resolve {second} failed --reason x")).ends(4);
}

#[test]
fn lists_are_searched_and_what_is_wrong_says_what_to_do() {
    let site = Site::started(&[]);
    let ids: Vec<i64> =
        (0..3).map(|_| id_of(&line(&site, "jobs submit noop --json").ends(0).json())).collect();
    for id in &ids {
        line(&site, &format!("jobs watch {id}")).ends(0);
    }
    let list = line(&site, "jobs list").ends(0);
    assert!(list.out.starts_with("ID ") && list.out.lines().count() == 4, "{}", list.out);
    let of = |query: &str| {
        let found = run(&site, &["jobs", "list", "--q", query, "--json"]).ends(0).json();
        assert_eq!(names(&found), ["before", "jobs"]);
        found["jobs"].as_array().expect("a list").iter().map(id_of).collect::<Vec<_>>()
    };
    assert_eq!(of("state:complete kind:noop by:me newer:1h"), [ids[2], ids[1], ids[0]]);
    assert_eq!(of(&format!("-{} -id:{}", ids[0], ids[1])), [ids[2]]);
    assert_eq!(of("\"do noth\"").len(), 3);
    assert!(of("state:failed,queued").is_empty() && of("older:1h").is_empty());
    assert_eq!(of(&ids[1].to_string()), [ids[1]]);
    let page = line(&site, "jobs list --limit 2").ends(0);
    assert!(page.out.contains(&format!("add --before {}", ids[1])), "{}", page.out);
    let rest = line(&site, &format!("jobs list --before {} --kind noop --state complete", ids[1])).ends(0);
    assert!(rest.out.contains(&ids[0].to_string()) && !rest.out.contains("--before"), "{}", rest.out);
    let none = run(&site, &["jobs", "list", "--q", "needs:me"]).ends(0);
    assert!(none.out.contains("no job matches"), "{}", none.out);

    run(&site, &["jobs", "list", "--q", "stat:failed"]).ends(1).says(&[
        "stat",
        "failed",
        "did you mean state?",
    ]);
    line(&site, "jobs list --state done").ends(1).says(&["done", "queued"]);
    line(&site, "jobs show 99999999").ends(6).says(&["no job 99999999"]);
    line(&site, "jobs submit stop 99999999").ends(6).says(&["no server 99999999", "list yours"]);
    line(&site, "jobs show web").ends(2).says(&["web"]);
    line(&site, "jobs submit noop --timeout 5s").ends(2).says(&["--wait"]);
    let nobody = "jobs list --url http://127.0.0.1:1 --access-key K";
    let mut missing = command(&nobody.split(' ').collect::<Vec<_>>());
    missing.env("HOME", site.data());
    ran(missing).ends(2).says(&["secret key is missing", "--ready-file"]);
    let mut deaf = command(&nobody.split(' ').collect::<Vec<_>>());
    deaf.env("DISPATCHER_SECRET_KEY", "S");
    ran(deaf).ends(7).says(&["no answer from http://127.0.0.1:1", "dispatcher dev"]);
    let mut forged = command(&["jobs", "list", "--access-key", &site.ready().access_key]);
    forged.env("DISPATCHER_SECRET_KEY", "wrong").env("DISPATCHER_URL", &site.ready().url);
    ran(forged).ends(1).says(&["refused with 403"]);
    ran(command(&["jobs", "list", "--ready-file", "/nowhere/ready.json"]))
        .ends(1)
        .says(&["check that it exists"]);

    let health = line(&site, "health --json").ends(0).json();
    let told = vec!["mode", "modes", "ok", "parts", "since", "waits", "works"];
    assert_eq!((names(&health), &health["ok"]), (told, &true.into()));
    let shown = line(&site, "health").ends(0).out;
    let mode = health["mode"].as_str().expect("a mode");
    assert!(shown.starts_with(mode) && shown.contains("\nPART "), "{shown}");
}

#[test]
fn actors_by_kind_and_one_in_full() {
    let site = Site::started(&[]);
    let all = line(&site, "actors --json").ends(0).json();
    assert_eq!(names(&all), ["actors", "arbiters", "kinds"]);
    let found = all["actors"].as_array().expect("a list");
    let registry = found.iter().find(|actor| actor["kind"] == "registry").expect("a registry");
    let name = format!("registry/{}", registry["key"].as_str().expect("a key"));
    let one = line(&site, &format!("actors {name} --json")).ends(0).json();
    assert_eq!(
        (&one["state"], &one["arbiter"], &one["parent"]),
        (&"running".into(), &"plumbing".into(), &Value::Null)
    );
    for field in ["oldestSince", "restartBudget", "restartWindowSeconds", "job", "epoch", "server"] {
        assert!(names(&one).contains(&field), "{field}: {one}");
    }
    let text = line(&site, &format!("actors {name}")).ends(0);
    assert!(text.out.starts_with(&format!("actor {name}: running")), "{}", text.out);
    // Every actor can be asked for by the name it is listed under, slashes and all.
    for actor in found {
        let name =
            format!("{}/{}", actor["kind"].as_str().expect("kind"), actor["key"].as_str().expect("key"));
        line(&site, &format!("actors {name}")).ends(0);
    }
    let kind = line(&site, "actors --kind monitor --json").ends(0).json();
    assert!(
        kind["actors"].as_array().expect("a list").iter().all(|actor| actor["kind"] == "monitor"),
        "{kind}"
    );
    assert!(line(&site, "actors").ends(0).out.contains("P99 US"));
    line(&site, "actors --kind nothing").ends(1).says(&["nothing", "known are"]);
    line(&site, "actors registry/nobody").ends(6).says(&["registry/nobody", "list those there are"]);
    line(&site, "actors registry").ends(2).says(&["KIND/KEY"]);
}

#[test]
fn open_jobs_are_cancelled_waited_for_and_resolved() {
    let mut site = Site::started(&["--without", "worker"]);
    let open = || id_of(&line(&site, "jobs submit noop --json").ends(0).json());
    let (first, second) = (open(), open());
    line(&site, &format!("jobs watch {first} --timeout 1s")).ends(5);
    wait_until("both wait for their verdict", LONG, || {
        let found =
            run(&site, &["jobs", "list", "--q", "state:awaiting waits:verdict", "--json"]).ends(0).json();
        found["jobs"].as_array().is_some_and(|jobs| jobs.len() == 2)
    });
    assert!(line(&site, &format!("jobs why {first}")).ends(0).out.contains("awaiting"));
    line(&site, &format!("jobs retry {first}")).ends(1).says(&["refused with 409", "cancel it first"]);
    line(&site, &format!("jobs resolve {first} failed --reason x")).ends(1).says(&["refused with 409"]);
    let asked = line(&site, &format!("jobs cancel {first} --json")).ends(0).json();
    assert_eq!(id_of(&asked), first);
    line(&site, &format!("jobs watch {first} --timeout 60s")).ends(4);
    let gone = line(&site, &format!("jobs show {first} --json")).ends(0).json();
    assert_eq!(gone["state"], "cancelled", "{gone}");

    // A job that was set aside waits for a person's word.
    site.kill();
    let mut connection = rows::open(&site.data());
    diesel::update(job::table.filter(job::id.eq(second)))
        .set((job::state.eq("quarantined"), job::owner.eq(None::<String>), job::due_at.eq(i64::MAX / 4)))
        .execute(&mut connection)
        .expect("set aside");
    drop(connection);
    site.restart(&Order::default());
    let needy = run(&site, &["jobs", "list", "--q", "needs:me"]).ends(0);
    assert!(needy.out.contains(&second.to_string()), "{}", needy.out);
    assert!(line(&site, &format!("jobs why {second}")).ends(0).out.contains("jobs resolve"));
    let word =
        run(&site, &["jobs", "resolve", &second.to_string(), "failed", "--reason", "looked by hand"]).ends(0);
    assert!(word.out.contains("is failed") && word.out.contains("kept as evidence"), "{}", word.out);
    line(&site, &format!("jobs watch {second}")).ends(3);
    let again = line(&site, &format!("jobs resolve {second} failed --reason again --json")).ends(0).json();
    assert_eq!((id_of(&again), &again["state"]), (second, &"failed".into()), "its end stands: {again}");
    site.stop();
}

#[test]
fn schedules_fire_pauses_hold_and_delays_put_off() {
    let mut site = Site::started(&[]);
    let words =
        ["schedules", "add", "nightly", "--cron", "0 3 * * *", "--job", r#"{"kind": "noop"}"#, "--json"];
    let made = run(&site, &words).ends(0).json();
    let schedule = id_of(&made);
    let next = made["nextAt"].as_str().unwrap_or_else(|| panic!("when it fires: {made}"));
    assert!(next.contains("T03:00:00"), "{made}");
    let wrong = ["schedules", "add", "x", "--cron", "61 3 * * *", "--job", r#"{"kind": "noop"}"#];
    run(&site, &wrong).ends(1).says(&["no cron expression", "minute hour"]);
    let fired = line(&site, &format!("schedules fire {schedule} --json")).ends(0).json();
    line(&site, &format!("jobs watch {} --timeout 60s", id_of(&fired))).ends(0);
    line(&site, &format!("schedules disable {schedule}")).ends(0);
    let shown = line(&site, &format!("schedules show {schedule} --json")).ends(0).json();
    assert_eq!(shown["enabled"], false, "{shown}");
    assert!(line(&site, "schedules list").ends(0).out.contains("nightly"));
    line(&site, &format!("schedules remove {schedule}")).ends(0);
    line(&site, &format!("schedules show {schedule}")).ends(6);

    let held = line(&site, "pauses add --kind noop --reason upkeep --json").ends(0).json();
    let job = id_of(&line(&site, "jobs submit noop --json").ends(0).json());
    wait_until("it says what holds it", LONG, || {
        let why = line(&site, &format!("jobs why {job}")).ends(0);
        why.out.contains("upkeep") && why.out.contains("pause")
    });
    assert!(line(&site, "pauses list").ends(0).out.contains("upkeep"));
    line(&site, &format!("pauses remove {}", id_of(&held))).ends(0);
    line(&site, &format!("jobs watch {job} --timeout 60s")).ends(0);

    let later = id_of(&line(&site, "jobs submit noop --delay 1h --json").ends(0).json());
    wait_until("it says until when it is put off", LONG, || {
        let why = line(&site, &format!("jobs why {later} --json")).ends(0).json();
        why["state"] == "queued" && why["until"].is_string()
    });
    line(&site, &format!("jobs cancel {later}")).ends(0);
    line(&site, &format!("jobs watch {later} --timeout 60s")).ends(4);
    let urgent = line(&site, "jobs submit noop --priority 7 --json").ends(0).json();
    assert_eq!(urgent["priority"], 7, "{urgent}");
    site.stop();
}

#[test]
fn limits_hold_jobs_and_groups_end_with_their_children() {
    let mut site = Site::started(&["--without", "worker"]);
    let set = line(&site, "limits set 300 --together 1 --rate 100/1s --burst 100 --reason small").ends(0);
    assert!(set.out.starts_with("account 300: at most 1 at work together; 100 starts in 1 s"), "{}", set.out);
    let open = || id_of(&line(&site, "jobs submit noop --json").ends(0).json());
    let (first, second) = (open(), open());
    wait_until("one works and the other waits for its place", LONG, || {
        let why = line(&site, &format!("jobs why {second}")).ends(0);
        why.out.contains("account 300 has 1 of 1 jobs at work; this one is next (limit)")
    });
    let listed = line(&site, "limits list --json").ends(0).json();
    let limit = &listed["limits"][0];
    assert_eq!(
        (&limit["atWork"], &limit["waiting"], &limit["reason"]),
        (&1.into(), &1.into(), &"small".into())
    );
    assert!(line(&site, "limits list --account 301").ends(0).out.contains("nothing is limited"));
    line(&site, &format!("jobs cancel {first}")).ends(0);
    line(&site, &format!("jobs watch {first} --timeout 60s")).ends(4);
    wait_until("the next one has the place", LONG, || {
        line(&site, &format!("jobs why {second} --json")).ends(0).json()["state"] == "awaiting"
    });
    line(&site, "limits clear 300").ends(0);
    line(&site, "limits clear 300").ends(6).says(&["account 300 has no limit"]);
    site.stop();

    let mut site = Site::started(&[]);
    let file = site.beside("jobs.json").display().to_string();
    std::fs::write(&file, r#"[{"kind": "noop"}, {"kind": "noop", "params": {"note": "b"}}]"#)
        .expect("written");
    let ran =
        run(&site, &["jobs", "submit", "group", &file, "--together", "1", "--note", "two", "--wait"]).ends(0);
    assert!(ran.out.contains("of 2 children have ended") && ran.out.contains("2 complete"), "{}", ran.out);
    let found = line(&site, "jobs list --kind group --json").ends(0).json();
    let group = id_of(&found["jobs"][0]);
    assert_eq!(found["jobs"][0]["description"], "Group of 2 jobs: two");
    let shown = line(&site, &format!("jobs show {group}")).ends(0);
    assert!(
        shown.out.contains("2 of 2 have ended, 2 complete") && shown.out.contains("CHILD"),
        "{}",
        shown.out
    );
    let children = line(&site, &format!("jobs list --q parent:{group} --json")).ends(0).json();
    assert_eq!(children["jobs"].as_array().map(Vec::len), Some(2));
    line(&site, &format!("jobs retry {group}")).ends(1).says(&["nothing to retry"]);
    site.stop();
}

#[test]
fn servers_and_commands_on_their_guests() {
    let site = Site::started(&["--guest-processes", "1"]);
    let launched = run(
        &site,
        &[
            "jobs",
            "submit",
            "launch",
            "web-1",
            "--region",
            "Simulated East",
            "--data-center",
            "2000",
            "--product",
            "m1.small",
            "--image",
            "Debian 64 bit",
            "--wait",
            "--json",
        ],
    )
    .ends(0);
    assert_eq!(launched.lines().last().expect("an end")["state"], "complete");
    let servers = line(&site, "servers list --json").ends(0).json();
    let server = id_of(&servers["servers"][0]);
    assert!(line(&site, "servers list").ends(0).out.contains("web-1"));
    let shown = line(&site, &format!("servers show {server} --json")).ends(0).json();
    assert_eq!((&shown["name"], &shown["status"]), (&"web-1".into(), &"RUNNING".into()));
    assert!(line(&site, &format!("servers show {server}")).ends(0).out.contains("jobs list --server"));
    line(&site, "servers show 99999999").ends(6).says(&["list yours"]);
    wait_for("its agent has joined", LONG, || {
        let agents = line(&site, "agents list --json").ends(0).json();
        (agents["agents"][0]["state"] == "accepted").then_some(())
    });
    assert!(line(&site, "agents list").ends(0).out.contains("accepted"));
    let agent = line(&site, &format!("agents show {server} --json")).ends(0).json();
    assert_eq!(agent["server"], server);
    line(&site, "agents show 99999999").ends(6).says(&["no agent on server"]);
    guest(&site, server);
    called_off(&site, server);
    moves(&site, server);
}

/// A cancel ends a command on its guest, keeps what it wrote, and says what became of it.
fn called_off(site: &Site, server: i64) {
    let argv = ["agents", "run", &server.to_string(), "--json", "--", "/bin/sh", "-c", "echo up; sleep 600"];
    let job = id_of(&run(site, &argv).ends(0).json());
    wait_until("it runs", LONG, || line(site, &format!("jobs output {job}")).ends(0).out == "up\n");
    let asked = std::time::Instant::now();
    line(site, &format!("jobs cancel {job}")).ends(0);
    line(site, &format!("jobs watch {job}")).ends(4);
    println!("a cancelled command ended {:?} after its cancel was asked", asked.elapsed());
    let shown = line(site, &format!("jobs show {job} --json")).ends(0).json();
    assert_eq!(shown["state"], "cancelled", "{shown}");
    assert!(shown.to_string().contains("cancelled on the guest"), "{shown}");
    assert!(line(site, &format!("jobs show {job}")).ends(0).out.contains("cancelled on the guest"));
    assert_eq!(line(site, &format!("jobs output {job}")).ends(0).out, "up\n", "what it wrote is kept");
}

#[test]
fn rows_that_were_put_back_get_a_new_generation_only_while_nobody_works_on_them() {
    let mut site = Site::started(&[]);
    let data = site.data().display().to_string();
    let restored = || ran(command(&["db", "restored", "--data", &data, "--json"]));
    let refused = restored().ends(3).json();
    assert_eq!(
        (&refused["raised"], &refused["alive"][0]["role"]),
        (&false.into(), &"dev".into()),
        "{refused}"
    );
    site.stop();
    let raised = restored().ends(0).json();
    assert_eq!(names(&raised), ["declaredDead", "generation", "openJobs", "raised"]);
    assert_eq!((&raised["generation"], &raised["declaredDead"]), (&1.into(), &0.into()));
    site.restart(&Order::default());
    let first = id_of(&line(&site, "jobs submit noop --json").ends(0).json());
    line(&site, &format!("jobs watch {first}")).ends(0);
    site.kill();
    let mut connection = rows::open(&site.data());
    let epoch: i64 =
        job::table.filter(job::id.eq(first)).select(job::epoch).first(&mut connection).expect("it");
    assert_eq!(epoch, (1 << 32) + 1, "claims are made in the new generation");
    drop(connection);
    // A process that was killed is written down as alive; its beat stands still.
    let text = ran(command(&["db", "restored", "--data", &data])).ends(0);
    assert!(text.out.contains("watching their beats") && text.out.contains("generation 2"), "{}", text.out);
    ran(command(&["db", "restored", "--data", "/nowhere"])).ends(2).says(&["there is no file"]);
}

/// Commands: their bytes, their exit code, and one run only.
fn guest(site: &Site, server: i64) {
    let id = server.to_string();
    let agents = |tail: &[&str]| run(site, &[&["agents", "run", &id][..], tail].concat());
    let said = agents(&["--wait", "--", "/bin/sh", "-c", "echo out; echo err >&2"]).ends(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    let failed = agents(&["--wait", "--", "/bin/sh", "-c", "echo half; exit 7"]).ends(7);
    assert_eq!(failed.out, "half\n");
    agents(&["--wait", "--", "/bin/sh", "-c", "kill -9 $$"]).ends(137);
    let absent = agents(&["--wait", "--", "/nowhere/program"]).ends(125);
    assert!(absent.err.contains("jobs show"), "{}", absent.err);
    agents(&["--wait"]).ends(2);
    let json = agents(&["--wait", "--json", "--", "/bin/sh", "-c", "exit 3"]).ends(3);
    assert_eq!(json.lines().last().expect("an end")["state"], "failed");
    let late = agents(&["--wait", "--timeout", "1s", "--", "/bin/sleep", "6"]).ends(5);
    assert!(late.err.contains("it goes on") && late.err.contains("jobs watch"), "{}", late.err);
    // The same key twice: one job, one run.
    let once =
        |_| id_of(&agents(&["--idempotency-key", "k-9", "--json", "--", "/bin/echo", "once"]).ends(0).json());
    let twice: Vec<i64> = (0..2).map(once).collect();
    assert_eq!(twice[0], twice[1]);
    line(site, &format!("jobs watch {}", twice[0])).ends(0);
    assert_eq!(line(site, &format!("jobs output {}", twice[0])).ends(0).out, "once\n");
    assert_eq!(line(site, &format!("jobs output {} --from 2", twice[0])).ends(0).out, "ce\n");
    assert_eq!(line(site, &format!("jobs output {} --stream stderr", twice[0])).ends(0).out, "");
    let failed = run(site, &["jobs", "submit", "run", &id, "--wait", "--", "/bin/false"]).ends(3);
    assert!(failed.out.contains("exit code 1"), "{}", failed.out);
    let found =
        run(site, &["jobs", "list", "--q", "state:failed kind:run* target:web-* took:<10m", "--json"]);
    assert_eq!(found.ends(0).json()["jobs"].as_array().expect("a list").len(), 5);
}

/// Stop, start, pause, terminate.
fn moves(site: &Site, server: i64) {
    for (verb, status) in [("stop", "STOPPED"), ("start", "RUNNING"), ("pause", "PAUSED")] {
        let moved = line(site, &format!("servers {verb} {server} --reason test --wait"));
        if verb == "pause" && moved.code != 0 {
            // Not every kind of provider can; then it says so.
            assert!(
                moved.out.contains("pause") || moved.err.contains("pause"),
                "{} {}",
                moved.out,
                moved.err
            );
            continue;
        }
        moved.ends(0);
        let shown = line(site, &format!("servers show {server} --json")).ends(0).json();
        assert_eq!(shown["status"], status, "after {verb}");
    }
    let gone = line(site, &format!("servers terminate {server} --wait --json")).ends(0);
    assert_eq!(gone.lines().last().expect("an end")["state"], "complete");
    assert!(line(site, "servers list").ends(0).out.contains("jobs submit launch"));
    let all = line(site, "servers list --terminated --json").ends(0).json();
    assert_eq!(all["servers"][0]["status"], "TERMINATED", "{all}");
}

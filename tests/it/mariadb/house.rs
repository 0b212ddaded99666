//! The whole house on a server: it works, survives its own death and the server's absence, and shares with nobody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use dispatcher::store::provisioning::schema::job;
use serde_json::Value;

use super::Server;
use crate::down::{mode_is, works};
use crate::harness::catalogue::Catalogue;
use crate::harness::client::{Client, noop, number, run};
use crate::harness::http::Http;
use crate::harness::ledger;
use crate::harness::{PROGRAM, Site, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn settings(server: &Server) -> String {
    let url = |name| server.through(name);
    format!(
        "[database]\nprovisioning = \"{}\"\nanalytics = \"{}\"\ncredentials = \"{}\"\n",
        url("p"),
        url("a"),
        url("c")
    )
}

fn db(site: &Site, config: &str, what: &str) -> (Option<i32>, Value) {
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["db", what, "--json", "--config", config, "--data"]).arg(site.data());
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {output:?}"));
    (output.status.code(), json)
}

/// The sockets a process has open, by the kernel's numbers.
fn sockets_of(pid: i32) -> BTreeSet<String> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process");
    let names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    names.map(|name| name.display().to_string()).filter(|name| name.starts_with("socket:")).collect()
}

#[test]
fn a_launch_and_a_command_complete_and_go_on_after_a_kill() {
    let Some(server) = Server::given() else { return };
    let mut site = Site::new();
    let config = site.settings(&settings(&server));
    let (code, said) = db(&site, &config, "status");
    assert_eq!(code, Some(3), "nothing is there yet: {said:#}");
    let (code, said) = db(&site, &config, "migrate");
    assert_eq!(code, Some(0), "{said:#}");
    let (code, said) = db(&site, &config, "check");
    assert_eq!(code, Some(0), "{said:#}");
    site.start(&["--config", &config]);
    let mut client = site.client();
    let machine = client.server("on-mariadb");
    let command = client.submit(&run(machine, &["/bin/echo", "hello"]), Some("once"));
    client.completed(command);
    let sleeping = client.submit(&run(machine, &["/bin/sleep", "2"]), None);
    let body = Catalogue::read(&mut client).launch("killed-meanwhile");
    let launching = client.submit(&body, None);
    for guest in site.guests() {
        let theirs = sockets_of(guest);
        let ours = sockets_of(i32::try_from(site.ready().pid).expect("a pid"));
        assert!(theirs.is_disjoint(&ours), "guest {guest} has connections of the dispatcher");
    }
    site.kill();
    site.restart(&crate::harness::Order::default());
    let mut client = site.client();
    client.completed(sleeping);
    client.completed(launching);
    let again = client.submit(&run(machine, &["/bin/echo", "hello"]), Some("once"));
    assert_eq!(again, command, "the key is known after the kill");
    site.stop();
    let ledger = ledger::read(&site.data());
    assert_eq!(ledger.launches.len(), 2, "nothing was launched twice");
    assert!(ledger.commands.values().all(|runs| *runs == 1), "{ledger:?}");
    assert!(!site.data().join("provisioning.db").exists(), "no file is made beside the server");
    let ended: i64 = job::table
        .filter(job::ended_at.is_not_null())
        .count()
        .get_result(&mut server.open("p"))
        .expect("a count");
    assert_eq!(ended, 4);
}

/// Logs in at the console; the cookie of the session.
fn session(site: &Site) -> String {
    let ready = site.ready();
    let body = format!("login={}&password={}&next=%2F", ready.console_user, ready.console_password);
    let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let answer = Http::new(&ready.url).send("POST", "/login", &headers, body.as_bytes()).expect("an answer");
    let cookie = answer.headers.get("set-cookie").expect("a session").split(';').next().map(str::to_owned);
    let cookie = cookie.expect("a cookie");
    assert!(overview(site, &cookie).contains("All parts are up."));
    cookie
}

fn overview(site: &Site, cookie: &str) -> String {
    let headers = [("cookie", cookie.to_owned())];
    let answer = Http::new(&site.ready().url).send("GET", "/", &headers, b"").expect("an answer");
    answer.expect(200).text()
}

/// What works while rows can be neither read nor written.
fn away(site: &Site, client: &mut Client, (before, cookie): (i64, &str)) {
    let ops_url = &site.ready().ops_url;
    let said = mode_is(ops_url, "provisioning database away");
    assert_eq!(said["ok"], false, "another node may reach it: {said:#}");
    assert!(works(&said, "health and metrics") && !works(&said, "reads") && !works(&said, "submits"));
    // What was read before is shown again, marked; what was not is refused, with a time to come back.
    let path = format!("/api/v1/jobs/{before}");
    let read = client.native("GET", &path, None, None).expect("an answer").expect(200);
    assert_eq!(read.json()["state"], "complete", "{}", read.text());
    assert!(read.headers.contains_key("x-dispatcher-stale"), "{:?}", read.headers);
    assert!(read.headers.get("warning").is_some_and(|text| text.starts_with("110")), "{:?}", read.headers);
    let new = client.native("GET", "/api/v1/jobs?limit=17", None, None).expect("an answer");
    assert_eq!(new.status, 503, "{}", new.text());
    let said = client.get("/api/v1/health");
    assert_eq!(said["mode"], "provisioning database away", "{said:#}");
    let page = overview(site, cookie);
    for wanted in ["id=\"stale\"", "<strong>Provisioning database away</strong>", "Works: health and metrics"]
    {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    // A key that nobody checked gets nothing, stale or not.
    let mut stranger = Client::at(&site.ready().url, site.ready().access_key.clone(), "guessed".to_owned());
    let read = stranger.native("GET", &path, None, None).expect("an answer");
    assert_eq!(read.status, 403, "{}", read.text());
    let live = crate::harness::client::page(ops_url, "/health/live");
    assert_eq!(live.status, 200, "a restart would not help");
}

#[test]
fn while_the_server_is_away_submits_are_refused_and_everything_heals() {
    let Some(server) = Server::given() else { return };
    let mut site = Site::new();
    let config = site.settings(&settings(&server));
    site.start(&["--config", &config]);
    let mut client = site.client();
    let before = client.submit(&noop("before"), None);
    client.completed(before);
    let cookie = session(&site);
    server.proxy.down(true);
    for n in 0..20 {
        let (body, key) = (noop("while it is away"), format!("away-{n}"));
        let answer = client.native("POST", "/api/v1/jobs", Some(&body), Some(&key)).expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
        let wait: u32 = answer.headers.get("retry-after").and_then(|v| v.parse().ok()).expect("Retry-After");
        assert!(wait <= 1, "{wait}");
    }
    away(&site, &mut client, (before, &cookie));
    server.proxy.down(false);
    let back = Instant::now();
    let mut after = None;
    wait_until("a submit is accepted", SOON, || {
        let body = noop("after");
        let answer = client.native("POST", "/api/v1/jobs", Some(&body), Some("after")).expect("an answer");
        after = (answer.status == 202).then(|| number(&answer.json(), "id"));
        after.is_some()
    });
    println!("a submit is accepted {:?} after the server is back", back.elapsed());
    let path = format!("/api/v1/jobs/{before}");
    let mut in_a_row = 0;
    wait_until("reads are answered by each reader", SOON, || {
        let answer = client.native("GET", &path, None, None).expect("an answer");
        in_a_row = if answer.status == 200 { in_a_row + 1 } else { 0 };
        in_a_row == 20
    });
    client.completed(after.expect("accepted"));
    mode_is(&site.ready().ops_url, "all parts up");
    let fresh = client.native("GET", &path, None, None).expect("an answer").expect(200);
    assert!(!fresh.headers.contains_key("x-dispatcher-stale"), "{:?}", fresh.headers);
    println!("and completes {:?} after", back.elapsed());
    let jobs = client.jobs("");
    assert_eq!(jobs.len(), 2, "what was refused is not there: {jobs:#?}");
    site.stop();
}

#[test]
fn a_second_process_on_the_same_database_is_refused_by_name() {
    let Some(server) = Server::given() else { return };
    let mut first = Site::new();
    let config = first.settings(&settings(&server));
    first.start(&["--config", &config]);
    let mut second = Site::new();
    let same = second.settings(&settings(&server));
    second.start_refused(&["--config", &same]);
    let log = second.whole_log();
    assert!(log.contains("another dispatcher works alone on mysql://"), "{log}");
    let mut client = first.client();
    let id = client.submit(&noop("undisturbed"), None);
    client.completed(id);
    first.stop();
}

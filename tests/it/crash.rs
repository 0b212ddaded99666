//! `dispatcher verify-crash` in its short forms: killed again and again under clients that never pause, nothing is lost
//! and nothing happens twice.
//!
//! What it does and how it judges stands in `src/cli/verify/`. The forms that kill run only where `DISPATCHER_TEST_VERIFY`
//! is set: its words are added to the command line, such as `--kills 200`. `DISPATCHER_TEST_SEED` makes the same choices again.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::PROGRAM;

/// Runs the command; what it ended with, and what it said.
fn verify(arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(PROGRAM);
    command.args(["verify-crash", "--json"]).args(arguments);
    if let Ok(seed) = std::env::var("DISPATCHER_TEST_SEED") {
        command.args(["--seed", &seed]);
    }
    if let Ok(more) = std::env::var("DISPATCHER_TEST_VERIFY") {
        command.args(more.split_whitespace());
    }
    // Its progress goes to standard error, which shows when a test fails.
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    (done.status.code(), serde_json::from_str(&said).unwrap_or(Value::String(said)))
}

/// Whether the long runs are asked for.
fn asked() -> bool {
    let asked = std::env::var_os("DISPATCHER_TEST_VERIFY").is_some();
    if !asked {
        eprintln!("SKIPPED: set DISPATCHER_TEST_VERIFY to kill processes for some minutes");
    }
    asked
}

/// A run in which enough happened and nothing is wrong.
#[track_caller]
fn proved((code, said): (Option<i32>, Value)) {
    println!("{said:#}");
    assert_eq!(code, Some(0), "{:#}", said["found"]);
    assert_eq!(said["ok"], true);
    for (field, least) in [("kills", 15), ("accepted", 500)] {
        assert!(said[field].as_u64().is_some_and(|n| n >= least), "{field}: {}", said[field]);
    }
    let found = said["found"].as_object().expect("classes");
    assert!(
        found.len() >= 10 && found.values().all(|of| of.as_array().is_some_and(Vec::is_empty)),
        "{found:?}"
    );
}

#[test]
fn killed_again_and_again_nothing_is_lost_and_nothing_happens_twice() {
    if asked() {
        proved(verify(&[]));
    }
}

#[cfg(all(feature = "mysql", feature = "amqp"))]
#[test]
fn several_nodes_on_servers_killed_cut_and_stopped_lose_nothing_and_do_nothing_twice() {
    if !asked() {
        return;
    }
    let given = |name| std::env::var(name).ok();
    let (Some(database), Some(broker)) =
        (given("DISPATCHER_TEST_MARIADB"), given("DISPATCHER_TEST_RABBITMQ"))
    else {
        assert!(!crate::broker::is_here("crashes on servers"), "RabbitMQ without MariaDB");
        return;
    };
    let words = ["--database", &database, "--queue", &broker, "--nodes", "3", "--monitors", "2"];
    proved(verify(&words));
}

#[test]
fn wrong_use_is_said_before_anything_is_begun() {
    for (words, said) in [
        (&["--database", "mysql://u@h"][..], "--queue"),
        (&["--kills", "0"][..], "--kills"),
        (&["--class", "N"][..], "K, S, T"),
    ] {
        let done =
            Command::new(PROGRAM).arg("verify-crash").args(words).output().expect("the program starts");
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

//! The ready file is a contract for tools: what it says, who may read it, and what stays the same for a folder.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::harness::client::page;
use crate::harness::{Order, Site};

#[test]
fn the_ready_file_says_all_is_private_and_stays_the_same_for_a_folder() {
    let mut site = Site::started(&[]);
    let file = site.beside("ready.json");
    let mode = std::fs::metadata(&file).expect("the ready file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    let ready = site.ready().clone();
    let found: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
    let names: Vec<&str> = found.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut contract = [
        "url",
        "agentUrl",
        "accessKey",
        "secretKey",
        "consoleUrl",
        "consoleUser",
        "consolePassword",
        "opsUrl",
        "pid",
    ];
    contract.sort_unstable();
    assert_eq!(names, contract);
    assert!(ready.url.starts_with("http://127.0.0.1:"), "{}", ready.url);
    assert!(ready.agent_url.starts_with("https://127.0.0.1:"), "{}", ready.agent_url);
    assert!(ready.console_url.starts_with(&ready.url), "{}", ready.console_url);
    assert!(!ready.console_user.is_empty() && ready.console_password.len() >= 12, "a login");
    for path in ["/health/live", "/health/ready"] {
        page(&ready.ops_url, path).expect(200);
    }
    let metrics = page(&ready.ops_url, "/metrics").expect(200).text();
    assert!(metrics.contains("dispatcher_commits_total") && metrics.ends_with("# EOF\n"), "{metrics}");
    page(&ready.url, "/metrics").expect(404);

    site.kill();
    site.restart(&Order::default());
    let again = site.ready();
    let kept = |r: &crate::harness::Ready| {
        (r.access_key.clone(), r.secret_key.clone(), r.console_user.clone(), r.console_password.clone())
    };
    assert_eq!(kept(again), kept(&ready), "keys stay with the folder");
    site.stop();
}

#[test]
fn a_folder_in_use_is_refused_and_the_first_process_goes_on() {
    let mut site = Site::started(&[]);
    let output = std::process::Command::new(crate::harness::PROGRAM)
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(site.data())
        .output()
        .expect("the program starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in use"), "{said}");
    let id = site.client().submit(&crate::harness::client::noop("still here"), None);
    site.client().completed(id);
    site.stop();
}

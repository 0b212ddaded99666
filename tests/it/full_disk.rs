//! A disk without room: submits are refused, what was accepted is there, and room is all it takes to go on.

use std::time::Duration;

use crate::harness::client::{noop, number};
use crate::harness::{Site, rows, wait_until};

/// Room for some hundred jobs beyond the first rows.
const ROOM: u64 = 4 * 1024 * 1024;
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_full_disk_refuses_submits_keeps_what_was_accepted_and_needs_no_restart() {
    let mut site = Site::new();
    site.limit_files(ROOM);
    site.start(&[]);
    let pid = site.ready().pid;
    let mut client = site.client();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for n in 0..4000 {
        let body = noop(&format!("{n} {}", "x".repeat(900)));
        let answer = client.native("POST", "/api/v1/jobs", Some(&body), None).expect("an answer");
        match answer.status {
            202 => accepted.push(number(&answer.json(), "id")),
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
        if refused == 10 {
            break;
        }
    }
    assert!(refused == 10 && !accepted.is_empty(), "{} accepted, {refused} refused", accepted.len());
    site.unlimit_files();
    wait_until("there is room again", SOON, || {
        let answer =
            client.native("POST", "/api/v1/jobs", Some(&noop("room")), Some("room")).expect("an answer");
        let id = (answer.status == 202).then(|| number(&answer.json(), "id"));
        accepted.extend(id);
        id.is_some()
    });
    for id in &accepted {
        client.completed(*id);
    }
    assert_eq!(site.ready().pid, pid, "the same process");
    let jobs = client.jobs("");
    assert_eq!(jobs.len(), accepted.len(), "exactly what was accepted is there");
    site.stop();
    let stored = rows::jobs(&mut rows::open(&site.data()));
    assert_eq!(stored.len(), accepted.len());
}

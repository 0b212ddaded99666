//! The stream of a job's events over HTTP: from its begin, and from where a reader was cut off.

use crate::harness::Site;
use crate::harness::client::{Client, noop};

/// The whole stream of a job that has ended.
fn stream(client: &mut Client, job: i64, last: Option<String>) -> String {
    let path = format!("/api/v1/jobs/{job}/events");
    let answer = client.native_with("GET", &path, None, last.map(|id| ("last-event-id", id)));
    let answer = answer.expect("an answer").expect(200);
    assert_eq!(answer.headers.get("content-type").map(String::as_str), Some("text/event-stream"));
    answer.text()
}

fn ids(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

#[test]
fn a_reader_that_was_cut_off_goes_on_where_it_was() {
    let mut site = Site::started(&[]);
    let mut client = site.client();
    let job = client.submit(&noop("told"), None);
    client.completed(job);
    let whole = stream(&mut client, job, None);
    assert!(whole.contains("event: end"), "{whole}");
    let all = ids(&whole);
    assert!(all.len() >= 4, "{whole}");
    // What was sent within five seconds before comes again; a reader drops what it has.
    let again = stream(&mut client, job, all.last().map(|id| (*id).to_owned()));
    assert_eq!(ids(&again), all, "it took less than five seconds");
    let (at, mark) = all.last().and_then(|id| id.split_once('.')).expect("time and mark");
    let later = at.parse::<i64>().expect("microseconds") + 6_000_000;
    let rest = stream(&mut client, job, Some(format!("{later}.{mark}")));
    assert_eq!(ids(&rest), Vec::<&str>::new(), "all of it was heard: {rest}");
    assert!(rest.contains("event: job") && rest.contains("event: end"), "how it is now: {rest}");
    // What is no id of ours is as none.
    assert_eq!(ids(&stream(&mut client, job, Some("yesterday".to_owned()))), all);
    site.stop();
}

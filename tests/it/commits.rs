//! Many writes, few commits: 64 clients at once share the disk.

use std::sync::{Arc, Barrier};

use crate::absent::sum;
use crate::harness::Site;
use crate::harness::client::{noop, page};

const CLIENTS: u32 = 64;
const EACH: u32 = 20;

#[test]
fn sixty_four_clients_share_their_commits() {
    let mut site = Site::started(&["--without", "pinger"]);
    let metrics = site.ready().ops_url.clone();
    let read = |name: &str| sum(&page(&metrics, "/metrics").expect(200).text(), name);
    // The first request of a key opens its secret; it is no part of the measurement.
    let first = site.client().submit(&noop("first"), None);
    site.client().completed(first);
    let before = (read("dispatcher_commits_total"), read("dispatcher_commit_items_total"));
    let gate = Arc::new(Barrier::new(CLIENTS as usize));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (gate, mut api) = (Arc::clone(&gate), site.client());
            std::thread::spawn(move || {
                gate.wait();
                (0..EACH).map(|n| api.submit(&noop(&format!("{client}.{n}")), None)).collect::<Vec<i64>>()
            })
        })
        .collect();
    let jobs: Vec<i64> = threads.into_iter().flat_map(|t| t.join().expect("a client's thread")).collect();
    let commits = read("dispatcher_commits_total") - before.0;
    let items = read("dispatcher_commit_items_total") - before.1;
    let submits = f64::from(CLIENTS * EACH);
    println!("{submits} submits, {items} items in {commits} commits: {:.1} items a commit", items / commits);
    assert_eq!(jobs.len(), (CLIENTS * EACH) as usize);
    assert!(commits > 0.0 && items >= submits, "every submit is an item: {items}");
    assert!(commits < submits / 4.0, "{commits} commits for {submits} submits");
    site.stop();
}

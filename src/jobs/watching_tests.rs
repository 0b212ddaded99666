//! Looks that panic, hang and decide beside one another, under one watcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel::prelude::*;
use tokio::sync::Notify;

use super::sql::Changes;
use super::watching::{Look, Sight, Spec, Watcher};
use crate::model::{JobUid, Micros, Verdict, WatchKind, WatchUid};
use crate::mq::{Embedded, Topic};
use crate::ops::{Health, Metrics};
use crate::store::provisioning::schema::watch as watches;
use crate::store::provisioning::watch::{self, Watch};
use crate::store::{Manager, PROVISIONING, Settings, Store};
use crate::supervision::{Limits, Options, Supervisor, TRIPS};

/// Looks as the watch's target says.
#[derive(Default)]
struct Odd {
    panics: AtomicUsize,
    hanging: AtomicUsize,
}

/// Counts the looks that hang, until they are dropped.
struct Hanging<'a>(&'a AtomicUsize);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait(?Send)]
impl Look for Odd {
    const ROLE: &'static str = "odd";
    const KINDS: &'static [WatchKind] = &[WatchKind::Noop];
    const TOPIC: Topic = Topic::Work;

    async fn follow(&self, watch: &Watch, _: &Notify) -> Option<Sight> {
        match watch.target.as_str() {
            "panic" => {
                self.panics.fetch_add(1, SeqCst);
                panic!("a look on demand")
            }
            "hang" => {
                self.hanging.fetch_add(1, SeqCst);
                let _hanging = Hanging(&self.hanging);
                std::future::pending().await
            }
            _ => Some(Sight { verdict: Verdict::Reached, text: "seen".to_owned(), raw: String::new() }),
        }
    }
}

struct House {
    store: Store,
    look: Arc<Odd>,
    supervisor: Supervisor,
    _folder: tempfile::TempDir,
}

fn house() -> House {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/p.db", folder.path().display());
    let settings = Settings::new(Manager::new(&url).expect("a url"));
    let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database");
    let (look, supervisor) = (Arc::new(Odd::default()), Supervisor::new(Health::new()));
    let spec = Spec {
        look: Arc::clone(&look),
        store: store.clone(),
        queue: Arc::new(Embedded::new()),
        changes: Changes::new(),
        metrics: Metrics::new(),
        source: "odd/test".to_owned(),
        sweep: Duration::from_millis(10),
        together: 8,
    };
    let limits = Limits { backoff_first: Duration::from_millis(1), ..Limits::default() };
    let options = Options { limits, ..Options::permanent() };
    let _mailbox = supervisor.spawn::<Watcher<Odd>>(&supervisor.here(), spec, options);
    House { store, look, supervisor, _folder: folder }
}

impl House {
    async fn watch(&self, target: &'static str) -> WatchUid {
        let uid = WatchUid::random();
        let insert = move |c: &mut crate::store::AnyConnection| {
            diesel::insert_into(watches::table)
                .values((
                    watches::uid.eq(uid.to_string()),
                    watches::job.eq(JobUid::random().to_string()),
                    watches::customer.eq(1),
                    watches::step.eq("noop"),
                    watches::try_no.eq(1),
                    watches::kind.eq(WatchKind::Noop.as_str()),
                    watches::target.eq(target),
                    watches::expectation.eq(""),
                    watches::due_at.eq(0),
                    watches::looks.eq(0),
                    watches::deadline.eq(i64::MAX),
                    watches::made_at.eq(0),
                    watches::done_at.eq(None::<i64>),
                ))
                .execute(c)
        };
        self.store.write(insert).await.expect("stored");
        uid
    }

    async fn done_at(&self, uid: WatchUid) -> Option<Micros> {
        self.store.read(move |c| watch::by_uid(c, uid)).await.expect("a read").expect("there").done_at
    }

    async fn decided(&self, uid: WatchUid) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.done_at(uid).await.is_none() {
            assert!(Instant::now() < deadline, "it is never decided");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[actix_rt::test]
async fn a_look_that_panics_or_hangs_takes_no_other_with_it_and_is_looked_at_again() {
    let house = house();
    let (panics, hangs) = (house.watch("panic").await, house.watch("hang").await);
    for _ in 0..20 {
        let good = house.watch("good").await;
        house.decided(good).await;
    }
    house.until("the panicking one is looked at again", || house.look.panics.load(SeqCst) > 3).await;
    assert_eq!(house.look.hanging.load(SeqCst), 1, "one look at a time for a watch");
    assert_eq!((house.done_at(panics).await, house.done_at(hangs).await), (None, None));
    let shown = house.supervisor.snapshots();
    assert_eq!(shown.iter().map(|s| s.restarts).sum::<u64>(), 0, "the watcher itself was not touched");
}

#[actix_rt::test]
async fn looks_of_a_life_that_ended_do_not_go_on_beside_those_of_the_next() {
    let house = house();
    house.watch("hang").await;
    for how in TRIPS {
        house.until("it is looked at", || house.look.hanging.load(SeqCst) == 1).await;
        house.supervisor.survives("odd", how).await;
        let good = house.watch("good").await;
        house.decided(good).await;
        house.until("the next life looks", || house.look.hanging.load(SeqCst) == 1).await;
    }
}

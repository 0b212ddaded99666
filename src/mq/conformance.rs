//! What every queue must do, whatever it is made of. Run on the embedded queue here, and on RabbitMQ by `amqp::tests`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::{Nudge, Queue, Topic};
use crate::model::{
    AccountId, CustomerId, JobId, JobParams, JobUid, Micros, NoopParams, ServerId, Uid, UserId, WatchKind,
    WatchUid,
};
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::provisioning::watch::{self, Watch};
use crate::store::{Manager, PROVISIONING, Settings, Store};

/// Longest wait on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// A queue under test, and the rows its messages are about.
pub(super) struct Rig {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) store: Store,
    _folder: tempfile::TempDir,
}

pub(super) fn rows() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/p.db", folder.path().display());
    let settings = Settings::new(Manager::new(&url).expect("a url"));
    (Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database"), folder)
}

impl Rig {
    pub(super) const fn new(queue: Arc<dyn Queue>, store: Store, folder: tempfile::TempDir) -> Self {
        Self { queue, store, _folder: folder }
    }

    /// A change with its announcement, as the parts make it.
    pub(super) async fn say(&self, nudge: Nudge) {
        let announce = self.queue.announce();
        self.store.write(move |c| announce.note(c, nudge)).await.expect("stored");
        self.queue.publish(nudge);
    }

    pub(super) async fn job(&self, id: i64) -> JobUid {
        let uid = JobUid::random();
        let entry = Entry {
            customer: CustomerId(1),
            access_key: "AK".into(),
            request: Uid::random(),
            replay: None,
            idem: None,
            repeat_by_key: false,
        };
        let submit = Submit {
            entry,
            uid,
            id: JobId(id),
            account: AccountId(1),
            person: UserId(1),
            params: JobParams::Noop(NoopParams::default()),
            description: "no-op".into(),
            priority: 0,
            delay: Duration::ZERO,
            limit: Duration::from_secs(600),
            server: None,
        };
        self.store.write(move |c| accept::accept(c, &submit)).await.expect("accepted");
        uid
    }

    pub(super) async fn watch(&self, job: JobUid, kind: WatchKind, try_no: i32) -> WatchUid {
        let open = Watch {
            uid: WatchUid::random(),
            job,
            customer: CustomerId(1),
            step: "create".into(),
            try_no,
            kind,
            target: "i-1".into(),
            expectation: "RUNNING".into(),
            due_at: Micros(0),
            deadline: Micros(9),
            made_at: Micros(0),
            done_at: None,
        };
        let uid = open.uid;
        self.store.write(move |c| watch::plant(c, &open)).await.expect("stored");
        uid
    }
}

/// The next hint of a reader, which is settled.
pub(super) async fn next(rig: &Rig, reader: &mut Receiver<Nudge>) -> Nudge {
    let nudge = tokio::time::timeout(LONG, reader.recv()).await.expect("in time").expect("an open queue");
    rig.queue.settle(nudge);
    nudge
}

/// Waits for this hint, whatever comes before it.
pub(super) async fn until(rig: &Rig, reader: &mut Receiver<Nudge>, wanted: Nudge) {
    while next(rig, reader).await != wanted {}
}

pub(super) async fn every_hint_reaches_the_reader_of_its_topic(rig: &Rig) {
    let job = rig.job(1).await;
    let mut readers = [Topic::Jobs, Topic::Watches, Topic::Work, Topic::Guests]
        .map(|topic| (topic, rig.queue.subscribe(topic)));
    let nudges = [
        Nudge::Job(job),
        Nudge::Cancel(job),
        Nudge::Reported(job),
        Nudge::Guest(ServerId(7)),
        Nudge::Watch(WatchKind::Cloud, rig.watch(job, WatchKind::Cloud, 1).await),
        Nudge::Watch(WatchKind::Guest, rig.watch(job, WatchKind::Guest, 2).await),
        Nudge::Watch(WatchKind::Noop, rig.watch(job, WatchKind::Noop, 3).await),
    ];
    for nudge in nudges {
        rig.say(nudge).await;
    }
    for (topic, reader) in &mut readers {
        let mut missing: HashSet<Nudge> = nudges.into_iter().filter(|n| n.topic() == *topic).collect();
        while !missing.is_empty() {
            let nudge = next(rig, reader).await;
            assert_eq!(nudge.topic(), *topic);
            missing.remove(&nudge);
        }
    }
}

pub(super) async fn a_hint_nobody_reads_holds_nobody_up_and_the_newest_reader_gets_the_next(rig: &Rig) {
    let (first, second) = (rig.job(1).await, rig.job(2).await);
    rig.say(Nudge::Job(first)).await;
    let mut old = rig.queue.subscribe(Topic::Jobs);
    let mut new = rig.queue.subscribe(Topic::Jobs);
    rig.say(Nudge::Job(second)).await;
    until(rig, &mut new, Nudge::Job(second)).await;
    assert!(old.try_recv().is_err(), "a reader that was replaced gets nothing");
}

pub(super) async fn after_a_reader_ended_the_next_one_gets_what_comes(rig: &Rig) {
    let mut reader = rig.queue.subscribe(Topic::Jobs);
    for n in 1..4 {
        let nudge = Nudge::Job(rig.job(n).await);
        rig.say(nudge).await;
        until(rig, &mut reader, nudge).await;
        drop(reader);
        reader = rig.queue.subscribe(Topic::Jobs);
    }
}

pub(super) async fn a_thousand_hints_of_one_moment_all_arrive(rig: &Rig) {
    let mut reader = rig.queue.subscribe(Topic::Guests);
    let announce = rig.queue.announce();
    let all = move |c: &mut crate::store::AnyConnection| {
        (0..1000).try_for_each(|n| announce.note(c, Nudge::Guest(ServerId(n))))
    };
    rig.store.write(all).await.expect("stored");
    (0..1000).for_each(|n| rig.queue.publish(Nudge::Guest(ServerId(n))));
    let mut missing: HashSet<i64> = (0..1000).collect();
    while !missing.is_empty() {
        if let Nudge::Guest(server) = next(rig, &mut reader).await {
            missing.remove(&server.0);
        }
    }
}

pub(super) async fn a_repeated_hint_is_as_good_as_one_and_a_reminder_needs_no_row(rig: &Rig) {
    let mut jobs = rig.queue.subscribe(Topic::Jobs);
    let mut guests = rig.queue.subscribe(Topic::Guests);
    let (twice, last) = (Nudge::Job(rig.job(1).await), Nudge::Job(rig.job(2).await));
    for nudge in [twice, twice, last] {
        rig.say(nudge).await;
    }
    until(rig, &mut jobs, twice).await;
    until(rig, &mut jobs, last).await;
    rig.queue.settle(last);
    rig.queue.remind(Nudge::Guest(ServerId(3)));
    until(rig, &mut guests, Nudge::Guest(ServerId(3))).await;
}

/// Every check above, as tests on the queue that a function makes; none where it cannot be made here.
macro_rules! suite {
    ($rig:path: $($check:ident),+ $(,)?) => {$(
        #[actix_rt::test]
        async fn $check() {
            if let Some(rig) = $rig().await {
                crate::mq::conformance::$check(&rig).await;
            }
        }
    )+};
    ($rig:path) => {
        crate::mq::conformance::suite!(
            $rig:
            every_hint_reaches_the_reader_of_its_topic,
            a_hint_nobody_reads_holds_nobody_up_and_the_newest_reader_gets_the_next,
            after_a_reader_ended_the_next_one_gets_what_comes,
            a_thousand_hints_of_one_moment_all_arrive,
            a_repeated_hint_is_as_good_as_one_and_a_reminder_needs_no_row,
        );
    };
}

pub(crate) use suite;

mod tests {
    use super::{Rig, rows};
    use crate::mq::Embedded;
    use crate::store::provisioning::outbox;
    use std::sync::Arc;

    #[expect(clippy::unused_async, reason = "a queue elsewhere has to be dialled")]
    async fn embedded() -> Option<Rig> {
        let (store, folder) = rows();
        Some(Rig::new(Arc::new(Embedded::new()), store, folder))
    }

    suite!(embedded);

    #[actix_rt::test]
    async fn rows_that_are_the_queue_need_no_message() {
        let rig = embedded().await.expect("always");
        rig.say(crate::mq::Nudge::Job(rig.job(1).await)).await;
        assert_eq!(rig.store.read(outbox::backlog).await.expect("read"), (0, None));
    }
}

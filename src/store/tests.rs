//! The door to a database under concurrency, faults and panics, and the guards of the moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use diesel::prelude::*;
use futures_util::future::join_all;

use super::keeper::Break;
use super::provisioning::accept::{self, Accepted, Entry, IdemKey, Submit};
use super::provisioning::job::{self, Attempt};
use super::provisioning::node;
use super::provisioning::schema::{idem, job as jobs, replay, setting};
use super::provisioning::transition::{self, Claim, End, Fence, Kin, Opened, Waiting};
use super::testing::{Bed, on_both};
use super::{Error, PROVISIONING, Settings, Store};
use crate::model::{
    AccountId, AttemptOutcome, AttemptUid, Boot, CustomerId, Epoch, Generation, JobId, JobParams, JobState,
    JobUid, Micros, NoopParams, Uid, UserId,
};
use crate::ops::Health;
use crate::supervision::Supervisor;

on_both!(
    keys_that_differ_in_case_or_trailing_blanks_are_different,
    two_dispatchers_with_links_of_their_own_race_for_a_claim_and_one_wins,
    text_of_every_script_and_length_comes_back_as_it_was,
    the_items_of_one_commit_may_share_its_time_and_the_next_commit_has_its_own,
    many_writers_share_one_commit,
    attempts_of_one_commit_are_written_together_and_again_and_histories_read_together_are_those_read_alone,
    a_bad_item_fails_alone,
    a_full_queue_is_said_at_once,
    readers_survive_panics,
    panic_error_and_stop_of_the_databases_actor_are_survived_and_no_write_is_lost,
    a_writer_that_ends_is_started_again_and_serves_what_waited,
    what_one_item_opened_another_of_the_same_commit_sees,
    old_records_are_forgotten_a_few_at_a_time_and_young_ones_kept,
    one_idempotency_key_makes_one_job_however_many_ask_together,
    a_repeat_of_the_same_item_is_its_own_answer_and_a_used_number_is_nobodys,
    one_of_many_lives_claims_and_only_a_living_one_takes_over,
    an_end_is_written_once_and_complete_only_from_awaiting,
    a_call_whose_commit_came_late_stays_the_only_one,
    the_most_urgent_of_those_that_are_due_comes_first_and_what_is_put_off_does_not,
);

struct House {
    store: Store,
    _bed: Bed,
}

fn open_with(bed: Bed, change: impl FnOnce(&mut Settings), on_commit: super::writer::OnCommit) -> House {
    let mut settings = Settings::new(bed.manager());
    change(&mut settings);
    House { store: Store::open(PROVISIONING, &settings, on_commit).expect("a database"), _bed: bed }
}

fn open(bed: Bed) -> House {
    open_with(bed, |_| {}, Arc::new(|_, _| {}))
}

fn set(name: &str) -> impl use<> + FnMut(&mut super::AnyConnection) -> QueryResult<usize> + Send + 'static {
    let name = name.to_owned();
    move |c| {
        diesel::insert_into(setting::table)
            .values((setting::name.eq(&name), setting::value.eq("v")))
            .execute(c)
    }
}

async fn count(store: &Store) -> i64 {
    store.read(|c| setting::table.count().get_result(c)).await.expect("a count")
}

/// Holds the writer until the sender is dropped; what is written meanwhile waits together.
async fn hold(store: &Store) -> (blocking::Sender<()>, tokio::task::JoinHandle<()>) {
    let (open, gate) = blocking::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let (store, mut began) = (store.clone(), Some(began));
    let held = actix_rt::spawn(async move {
        let blocked = store.write(move |_| {
            if let Some(began) = began.take() {
                let _ = began.send(());
                let _ = gate.recv();
            }
            Ok(())
        });
        blocked.await.expect("let go");
    });
    begun.await.expect("it holds");
    (open, held)
}

async fn many_writers_share_one_commit(bed: Bed) {
    let house = open(bed);
    let (gate, held) = hold(&house.store).await;
    let before = house.store.counters();
    let writes: Vec<_> = (0..100).map(|n| Box::pin(house.store.write(set(&format!("s{n}"))))).collect();
    let mut all = Box::pin(join_all(writes));
    assert!(futures_util::poll!(&mut all).is_pending());
    drop(gate);
    assert!(all.await.iter().all(|r| matches!(r, Ok(1))));
    held.await.expect("ended");
    let after = house.store.counters();
    assert_eq!(after.items - before.items, 101, "the one that held it, and a hundred");
    assert!(after.commits - before.commits <= 3, "{after:?} after {before:?}");
    assert_eq!(after.replays, 0);
    assert_eq!(count(&house.store).await, 100);
}

async fn a_bad_item_fails_alone(bed: Bed) {
    let house = open(bed);
    let (gate, held) = hold(&house.store).await;
    let good = house.store.write(set("a"));
    let twice = house.store.write(set("a"));
    let panics = house.store.write(|_| -> QueryResult<()> { panic!("poison item") });
    let refused = house.store.write(|c| super::provisioning::insert_new(set("a")(c)));
    let other = house.store.write(set("b"));
    let mut all = Box::pin(async { tokio::join!(good, twice, panics, refused, other) });
    assert!(futures_util::poll!(&mut all).is_pending());
    drop(gate);
    let (good, twice, panics, refused, other) = all.await;
    held.await.expect("ended");
    assert!(matches!(good, Ok(1)) && matches!(other, Ok(1)), "{good:?} {other:?}");
    assert!(matches!(&twice, Err(Error::Query(_))), "{twice:?}");
    assert!(matches!(&panics, Err(Error::Panicked(text)) if text == "poison item"), "{panics:?}");
    assert!(matches!(refused, Ok(false)), "a unique violation that is expected is an answer: {refused:?}");
    assert!(house.store.counters().replays >= 5);
    assert_eq!(count(&house.store).await, 2);
    assert!(matches!(house.store.write(set("c")).await, Ok(1)), "the writer lives");
}

async fn a_full_queue_is_said_at_once(bed: Bed) {
    let house = open_with(bed, |s| s.waiting_writes = 2, Arc::new(|_, _| {}));
    let (gate, held) = hold(&house.store).await;
    let mut waiting: Vec<_> = (0..2).map(|n| Box::pin(house.store.write(set(&format!("w{n}"))))).collect();
    for write in &mut waiting {
        assert!(futures_util::poll!(write).is_pending());
    }
    assert_eq!(house.store.waiting(), 3);
    assert!(matches!(house.store.write(set("x")).await, Err(Error::Busy)));
    drop(gate);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    held.await.expect("ended");
    assert_eq!(count(&house.store).await, 2, "what was refused left nothing");
}

async fn readers_survive_panics(bed: Bed) {
    let house = open(bed);
    for _ in 0..10 {
        let answer = house.store.read(|_| -> QueryResult<()> { panic!("poison query") }).await;
        assert!(matches!(&answer, Err(Error::Panicked(text)) if text == "poison query"), "{answer:?}");
    }
    let reads = join_all((0..50).map(|_| count(&house.store))).await;
    assert_eq!(reads, vec![0; 50]);
}

async fn panic_error_and_stop_of_the_databases_actor_are_survived_and_no_write_is_lost(bed: Bed) {
    let house = open(bed);
    let supervisor = Supervisor::new(Health::new());
    let keeper = house.store.kept(&supervisor, &supervisor.here());
    for (n, how) in (1_i64..).zip([Break::Panic, Break::Fail, Break::Stop]) {
        keeper.tell(how).expect("accepted");
        let name = format!("after {n}");
        assert!(matches!(house.store.write(set(&name)).await, Ok(1)), "{name}");
        assert_eq!(count(&house.store).await, n);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let restarts = || supervisor.snapshots().iter().find(|s| s.kind == "database").map(|s| s.restarts);
    while restarts() != Some(3) {
        assert!(std::time::Instant::now() < deadline, "{:?} restarts", restarts());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(house.store.write(set("last")).await, Ok(1)));
}

async fn a_writer_that_ends_is_started_again_and_serves_what_waited(bed: Bed) {
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&commits);
    let faulty = Arc::new(move |_: usize, _: Duration| {
        assert!(counted.fetch_add(1, Ordering::SeqCst) != 1, "on demand, outside every guard");
    });
    let house = open_with(bed, |_| {}, faulty);
    let supervisor = Supervisor::new(Health::new());
    house.store.keep(&supervisor, &supervisor.here());
    assert!(matches!(house.store.write(set("first")).await, Ok(1)));
    assert!(
        matches!(house.store.write(set("second")).await, Err(Error::Unknown)),
        "its answer died with the thread"
    );
    assert!(matches!(house.store.write(set("third")).await, Ok(1)), "the next thread serves it");
    assert_eq!(count(&house.store).await, 3, "unknown was stored");
    let shown = supervisor.snapshots();
    let keeper = shown.iter().find(|s| s.kind == "database").expect("it is shown");
    assert_eq!((keeper.key.as_str(), keeper.restarts), ("provisioning", 1));
}

fn submit(uid: JobUid, id: i64, key: Option<&str>) -> Submit {
    Submit {
        entry: Entry {
            customer: CustomerId(1),
            access_key: "AK".into(),
            request: Uid::random(),
            replay: None,
            idem: key.map(|key| IdemKey { key: key.into(), body_hash: "h".into() }),
            repeat_by_key: false,
        },
        uid,
        id: JobId(id),
        account: AccountId(1),
        person: UserId(1),
        params: JobParams::Noop(NoopParams::default()),
        description: "no-op".into(),
        priority: 0,
        delay: Duration::ZERO,
        limit: Duration::from_secs(60),
        server: None,
    }
}

async fn accepted(store: &Store, submit: &Submit) -> Result<Accepted, Error> {
    let submit = submit.clone();
    store.write(move |c| accept::accept(c, &submit)).await
}

async fn the_most_urgent_of_those_that_are_due_comes_first_and_what_is_put_off_does_not(bed: Bed) {
    let house = open(bed);
    let mut uids = Vec::new();
    for (id, priority, delay) in [(1, -1, 0), (2, 5, 0), (3, 0, 0), (4, 5, 0), (5, 100, 3600)] {
        let delay = Duration::from_secs(delay);
        let job = Submit { priority, delay, ..submit(JobUid::random(), id, None) };
        assert!(matches!(accepted(&house.store, &job).await, Ok(Accepted::Stored(_))));
        uids.push(job.uid.to_string());
    }
    let read = |limit| house.store.read(move |c| transition::needing_an_actor(c, limit));
    let order = [1, 3, 2, 0].map(|at| uids[at].clone());
    assert_eq!(read(10).await.expect("a read"), order, "the older one first where they are as urgent");
    assert_eq!(read(2).await.expect("a read"), order[..2], "and when there is not room for all");
}

async fn one_idempotency_key_makes_one_job_however_many_ask_together(bed: Bed) {
    let house = open(bed);
    let all: Vec<_> = (0..100).map(|n| submit(JobUid::random(), n, Some("k"))).collect();
    let answers = join_all(all.iter().map(|s| accepted(&house.store, s))).await;
    let fresh = answers.iter().filter(|a| matches!(a, Ok(Accepted::Stored(_)))).count();
    let same = answers.iter().filter(|a| matches!(a, Ok(Accepted::Same(_)))).count();
    assert_eq!((fresh, same), (1, 99));
    let rows: (i64, i64) = house
        .store
        .read(|c| Ok((jobs::table.count().get_result(c)?, idem::table.count().get_result(c)?)))
        .await
        .expect("counts");
    assert_eq!(rows, (1, 1));
    let mut other = submit(JobUid::random(), 500, Some("k"));
    other.entry.idem = Some(IdemKey { key: "k".into(), body_hash: "another".into() });
    assert!(matches!(accepted(&house.store, &other).await, Ok(Accepted::Conflict)));
}

async fn a_repeat_of_the_same_item_is_its_own_answer_and_a_used_number_is_nobodys(bed: Bed) {
    let house = open(bed);
    let mut first = submit(JobUid::random(), 1, Some("k"));
    first.entry.replay = Some("signature".into());
    assert!(matches!(accepted(&house.store, &first).await, Ok(Accepted::Stored(_))));
    assert!(
        matches!(accepted(&house.store, &first).await, Ok(Accepted::Stored(_))),
        "its commit was unknown"
    );
    let mut replayed = first.clone();
    replayed.entry.request = Uid::random();
    assert!(matches!(accepted(&house.store, &replayed).await, Ok(Accepted::Replayed)));
    replayed.entry.repeat_by_key = true;
    assert!(matches!(accepted(&house.store, &replayed).await, Ok(Accepted::Same(_))));
    let taken = submit(JobUid::random(), 1, None);
    assert!(accepted(&house.store, &taken).await.is_err(), "never accepted without a row");
}

async fn life(store: &Store) -> Boot {
    let boot = Boot::random();
    store.write(move |c| node::register(c, boot, "test")).await.expect("alive");
    boot
}

async fn queued(store: &Store, id: i64) -> JobUid {
    let uid = JobUid::random();
    accepted(store, &submit(uid, id, None)).await.expect("accepted");
    uid
}

fn claim_of(job: JobUid, epoch: i64, boot: Boot) -> Claim {
    let seen = Fence { job, epoch: Epoch(epoch) };
    let next = seen.epoch.after(Generation(0));
    Claim { seen, next, from: JobState::Queued, to: JobState::Running, boot, crashes: 0 }
}

fn end_of(job: JobUid, epoch: i64, state: JobState) -> End {
    End {
        fence: Fence { job, epoch: Epoch(epoch) },
        state,
        try_no: 1,
        message: "m".into(),
        code: "c".into(),
        server: None,
        seen: None,
        obligation: None,
        kin: Kin::default(),
        cancel_known: false,
    }
}

async fn old_records_are_forgotten_a_few_at_a_time_and_young_ones_kept(bed: Bed) {
    let house = open(bed);
    let store = &house.store;
    let fill = |c: &mut super::AnyConnection| -> QueryResult<()> {
        for n in 0..2500_i64 {
            let row = (
                replay::access_key.eq("K"),
                replay::value.eq(n.to_string()),
                replay::request.eq("r"),
                replay::made_at.eq(n),
            );
            diesel::insert_into(replay::table).values(row).execute(c)?;
        }
        Ok(())
    };
    store.write(fill).await.expect("filled");
    let (mut rounds, limit) = (0, Micros(2400));
    while store.write(move |c| accept::forget(c, limit, limit)).await.expect("forgotten") > 0 {
        rounds += 1;
    }
    assert_eq!(rounds, 3, "no more than about a thousand at once");
    let left: i64 = store.read(|c| replay::table.count().get_result(c)).await.expect("a count");
    assert_eq!(left, 100, "the young ones stay");
}

/// The first attempt at a job.
fn attempt_at(uid: JobUid) -> Attempt {
    Attempt {
        uid: AttemptUid::random(),
        job: uid,
        customer: CustomerId(1),
        step: "noop".to_owned(),
        variant: 0,
        try_no: 1,
        n: 1,
        epoch: Epoch(1),
        token: String::new(),
        request: Vec::new(),
        lease: String::new(),
        outcome: AttemptOutcome::Open,
        class: None,
        evidence: String::new(),
        output: String::new(),
        started_at: Micros(0),
        closed_at: None,
        quiet_until: None,
        version: 1,
    }
}

async fn attempts_of_one_commit_are_written_together_and_again_and_histories_read_together_are_those_read_alone(
    bed: Bed,
) {
    let house = open(bed);
    let store = &house.store;
    let boot = life(store).await;
    let mut jobs = Vec::new();
    for id in 0..20 {
        jobs.push(queued(store, id).await);
    }
    let all: Vec<(Claim, Attempt)> =
        jobs.iter().map(|uid| (claim_of(*uid, 0, boot), attempt_at(*uid))).collect();
    // As items run again whose commit was unknown: every row is there already.
    for _ in 0..2 {
        let (gate, held) = hold(store).await;
        let items = all.iter().cloned().map(|(claim, attempt)| {
            Box::pin(store.write(move |c| transition::claim_and_open(c, &claim, &attempt, &mut Vec::new())))
        });
        let mut waiting = Box::pin(join_all(items.collect::<Vec<_>>()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(gate);
        assert!(waiting.await.iter().all(|done| matches!(done, Ok(Some(true)))));
        held.await.expect("ended");
    }
    assert_eq!(store.counters().replays, 0, "a row that is there is no fault of its neighbours");
    let asked = [jobs.clone(), vec![JobUid::random()]].concat();
    let together = store.read(move |c| job::histories(c, &asked)).await.expect("read");
    assert_eq!(together.len(), jobs.len(), "what is gone is left out");
    for uid in jobs {
        let alone = store.read(move |c| job::history(c, uid)).await.expect("read").expect("a job");
        assert_eq!(alone.attempts.len(), 1);
        assert_eq!(together.iter().find(|history| history.job.uid == uid), Some(&alone));
    }
}

async fn what_one_item_opened_another_of_the_same_commit_sees(bed: Bed) {
    let house = open(bed);
    let store = &house.store;
    let (boot, uid) = (life(store).await, queued(store, 1).await);
    store.write(move |c| transition::claim(c, &claim_of(uid, 0, boot))).await.expect("claimed");
    let (gate, held) = hold(store).await;
    let opens = |attempt: Attempt| {
        Box::pin(store.write(move |c| transition::open_attempt(c, boot, JobState::Running, &attempt, None)))
    };
    // One that was given up as unknown comes late, beside the one that was planned instead, and an end.
    let (late, planned) = (attempt_at(uid), attempt_at(uid));
    let end = end_of(uid, 1, JobState::Failed);
    let ends = Box::pin(store.write(move |c| transition::end(c, &end)));
    let mut all = Box::pin(futures_util::future::join3(opens(late), opens(planned), ends));
    assert!(futures_util::poll!(&mut all).is_pending());
    drop(gate);
    let (late, planned, ended) = all.await;
    held.await.expect("ended");
    assert_eq!((late.expect("run"), planned.expect("run")), (Opened::Yes, Opened::Fenced));
    assert!(!ended.expect("run"), "no job fails with an open attempt");
    let history = store.read(move |c| job::history(c, uid)).await.expect("read").expect("a job");
    assert_eq!((history.attempts.len(), history.job.ended_at), (1, None));
}

async fn one_of_many_lives_claims_and_only_a_living_one_takes_over(bed: Bed) {
    let house = open(bed);
    let store = &house.store;
    let uid = queued(store, 1).await;
    let mut lives = Vec::new();
    for _ in 0..10 {
        lives.push(life(store).await);
    }
    let claims = lives.iter().map(|boot| claim_of(uid, 0, *boot));
    let won = join_all(claims.map(|claim| store.write(move |c| transition::claim(c, &claim)))).await;
    assert_eq!(won.iter().filter(|won| matches!(won, Ok(true))).count(), 1);
    let winner = won.iter().position(|won| matches!(won, Ok(true))).map(|at| lives[at]).expect("one");
    let (again, alive) = (claim_of(uid, 0, winner), *lives.iter().find(|b| **b != winner).expect("others"));
    assert!(matches!(store.write(move |c| transition::claim(c, &again)).await, Ok(true)), "it was mine");
    assert!(
        store
            .write(move |c| transition::take_over(c, alive, Generation(0), 10))
            .await
            .expect("asked")
            .is_empty()
    );
    store.write(move |c| node::declare_dead(c, &winner.to_string(), 0)).await.expect("dead");
    assert!(
        store
            .write(move |c| transition::take_over(c, winner, Generation(0), 10))
            .await
            .expect("asked")
            .is_empty(),
        "a life declared dead takes nothing, not even its own"
    );
    let taken =
        store.write(move |c| transition::take_over(c, alive, Generation(0), 10)).await.expect("taken");
    assert_eq!(taken, vec![uid.to_string()]);
    let row = store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
    assert_eq!((row.epoch, row.crashes, row.owner), (2, 1, Some(alive.to_string())));
    stale_writes_nothing(store, uid, (winner, 1)).await;
}

/// Every move with an old epoch leaves the row as it is.
async fn stale_writes_nothing(store: &Store, uid: JobUid, (boot, epoch): (Boot, i64)) {
    let fence = Fence { job: uid, epoch: Epoch(epoch) };
    let waiting = Waiting { until: Micros(1), code: "c".into(), why: "w".into() };
    let before = store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
    let moved = store
        .write(move |c| {
            Ok(vec![
                transition::may_act(c, fence, boot, JobState::Running)?,
                transition::wait(c, fence, &waiting)?,
                transition::quarantine(c, fence, &waiting, None)?,
                transition::park(c, fence, boot, &waiting)?,
                transition::begin_undo(c, fence, boot, "w")?,
                transition::next_try(c, fence, 1, "the effect did not last")?,
                transition::end(c, &end_of(uid, epoch, JobState::Failed))?,
                transition::end(c, &end_of(uid, epoch, JobState::Unresolved))?,
            ])
        })
        .await
        .expect("asked");
    assert_eq!(moved, vec![false; 8]);
    let after = store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
    assert_eq!(after.version, before.version);
}

async fn an_end_is_written_once_and_complete_only_from_awaiting(bed: Bed) {
    let house = open(bed);
    let (store, boot) = (&house.store, life(&house.store).await);
    let uid = queued(store, 1).await;
    store.write(move |c| transition::claim(c, &claim_of(uid, 0, boot))).await.expect("claimed");
    let early = end_of(uid, 1, JobState::Complete);
    assert!(matches!(store.write(move |c| transition::end(c, &early)).await, Ok(false)));
    for (state, done) in [
        (JobState::Cancelled, true),
        (JobState::Cancelled, true),
        (JobState::Failed, false),
        (JobState::Unresolved, false),
    ] {
        let end = end_of(uid, 1, state);
        assert_eq!(store.write(move |c| transition::end(c, &end)).await.expect("asked"), done, "{state}");
    }
    assert!(matches!(store.write(move |c| transition::cancel_asked(c, uid, "ann")).await, Ok(false)));
    let row = store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
    assert_eq!((row.state.as_str(), row.owner), ("cancelled", None));
}

fn call_of(job: JobUid, epoch: i64) -> Attempt {
    Attempt {
        uid: AttemptUid::random(),
        job,
        customer: CustomerId(1),
        step: "noop".to_owned(),
        variant: 0,
        try_no: 1,
        n: 1,
        epoch: Epoch(epoch),
        token: String::new(),
        request: Vec::new(),
        lease: String::new(),
        outcome: AttemptOutcome::Open,
        class: None,
        evidence: String::new(),
        output: String::new(),
        started_at: Micros(0),
        closed_at: None,
        quiet_until: None,
        version: 1,
    }
}

/// A write is given up as unknown while the server stands still, and is carried out later, after its job was planned anew
/// from rows that did not show it yet.
async fn a_call_whose_commit_came_late_stays_the_only_one(bed: Bed) {
    let house = open(bed);
    let (store, boot) = (&house.store, life(&house.store).await);
    let uid = queued(store, 1).await;
    let open =
        async || store.read(move |c| job::history(c, uid)).await.expect("a read").expect("the job").attempts;
    let begin = async |call: Attempt| {
        let claim = claim_of(uid, 0, boot);
        store
            .write(move |c| transition::claim_and_open(c, &claim, &call, &mut Vec::new()))
            .await
            .expect("asked")
    };
    let (late, anew) = (call_of(uid, 1), call_of(uid, 1));
    assert_eq!(begin(late.clone()).await, Some(true));
    assert_eq!(begin(anew).await, Some(false), "the claim stands, its attempt is the other one");
    assert_eq!(begin(late.clone()).await, Some(true), "the same item again finds itself");
    assert_eq!(open().await.iter().map(|a| a.uid).collect::<Vec<_>>(), [late.uid]);
    let next = async |call: Attempt| {
        let write = store.write(move |c| transition::open_attempt(c, boot, JobState::Running, &call, None));
        write.await.expect("asked")
    };
    assert_eq!(next(call_of(uid, 1)).await, Opened::Fenced, "nothing is sent while another call is open");
    assert_eq!(next(late.clone()).await, Opened::Yes, "the same item again finds itself");
    assert_eq!(open().await.len(), 1);
}

async fn keys_that_differ_in_case_or_trailing_blanks_are_different(bed: Bed) {
    let house = open(bed);
    for (id, key) in (1..).zip(["key", "KEY", "key ", " key", "k\u{e9}y", "ke\u{301}y"]) {
        let mut one = submit(JobUid::random(), id, Some(key));
        one.entry.replay = Some(key.to_owned());
        let answer = accepted(&house.store, &one).await;
        assert!(matches!(answer, Ok(Accepted::Stored(_))), "{key:?} is a key of its own: {answer:?}");
        let again = accepted(&house.store, &submit(JobUid::random(), 100 + id, Some(key))).await;
        let Ok(Accepted::Same(first)) = again else { panic!("{key:?} again: {again:?}") };
        assert_eq!(first.job, Some(one.uid));
        let mut replayed = submit(JobUid::random(), 200 + id, None);
        replayed.entry.replay = Some(key.to_owned());
        assert!(matches!(accepted(&house.store, &replayed).await, Ok(Accepted::Replayed)), "{key:?}");
    }
}

async fn two_dispatchers_with_links_of_their_own_race_for_a_claim_and_one_wins(bed: Bed) {
    let (one, two) = (Settings::new(bed.manager()), Settings::new(bed.manager()));
    let house = open(bed);
    let stores = [one, two].map(|settings| {
        Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("the same database")
    });
    let boots = [life(&stores[0]).await, life(&stores[1]).await];
    for id in 1..=40 {
        let uid = queued(&house.store, id).await;
        let tries = stores.iter().zip(boots).map(|(store, boot)| {
            let claim = claim_of(uid, 0, boot);
            store.write(move |c| transition::claim(c, &claim))
        });
        let won: Vec<bool> = join_all(tries).await.into_iter().map(|won| won.expect("asked")).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let row = house.store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job");
        let winner = boots[usize::from(won[1])];
        assert_eq!((row.epoch, row.owner), (1, Some(winner.to_string())));
    }
}

async fn text_of_every_script_and_length_comes_back_as_it_was(bed: Bed) {
    let house = open(bed);
    let long = "\u{1f600}".repeat(5_000);
    for (id, text) in
        (1..).zip(["", " ", "na\u{ef}ve \u{4f60}\u{597d} \u{1f600}", "'; DROP TABLE job; --\\", &long])
    {
        let (name, value) = (format!("text {id}"), text.to_owned());
        let stored = house
            .store
            .write(move |c| {
                let row = (setting::name.eq(&name), setting::value.eq(&value));
                diesel::insert_into(setting::table).values(row).execute(c)
            })
            .await;
        if text.len() > 10_000 && stored.is_err() {
            assert!(
                matches!(stored, Err(Error::Query(_) | Error::Unavailable(_))),
                "refused, not cut: {stored:?}"
            );
            continue;
        }
        stored.expect("stored");
        let name = format!("text {id}");
        let back: String = house
            .store
            .read(move |c| setting::table.find(name).select(setting::value).first(c))
            .await
            .expect("a read");
        assert_eq!(back, text);
    }
}

async fn the_items_of_one_commit_may_share_its_time_and_the_next_commit_has_its_own(bed: Bed) {
    let house = open(bed);
    let time = || house.store.write(|c| Ok((c.now()?, c.now()?)));
    let (first, second) = (time().await.expect("asked"), time().await.expect("asked"));
    assert!(first.0 <= first.1 && first.1 < second.0, "{first:?} {second:?}");
}

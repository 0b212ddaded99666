//! The door to a database whose links break at the worst moments.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use dispatcher::model::{AccountId, CustomerId, JobId, JobParams, JobUid, NoopParams, Uid, UserId};
use dispatcher::store::provisioning::accept::{self, Accepted, Entry, IdemKey, Submit};
use dispatcher::store::provisioning::schema::{idem, job, setting};
use dispatcher::store::{AnyConnection, Error, Manager, PROVISIONING, Settings, Store};
use futures_util::future::join_all;

use super::Server;

const SOON: Duration = Duration::from_secs(30);

fn open(server: &Server) -> Store {
    let manager = Manager::new(&server.through("p")).expect("a URL");
    manager.create().expect("a database");
    Store::open(PROVISIONING, &Settings::new(manager), Arc::new(|_, _| {})).expect("the server answers")
}

fn submit(id: i64, key: Option<&str>) -> Submit {
    Submit {
        entry: Entry {
            customer: CustomerId(1),
            access_key: "AK".to_owned(),
            request: Uid::random(),
            replay: Some(format!("replay {id}")),
            idem: key.map(|key| IdemKey { key: key.to_owned(), body_hash: "h".to_owned() }),
            repeat_by_key: false,
        },
        uid: JobUid::random(),
        id: JobId(id),
        account: AccountId(1),
        person: UserId(1),
        params: JobParams::Noop(NoopParams::default()),
        description: "no-op".to_owned(),
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

fn counts(connection: &mut AnyConnection) -> (i64, i64) {
    let jobs = job::table.count().get_result(connection).expect("a count");
    (jobs, idem::table.count().get_result(connection).expect("a count"))
}

async fn put(store: &Store, name: &str, value: &str) -> Result<usize, Error> {
    let (name, value) = (name.to_owned(), value.to_owned());
    let write = move |c: &mut AnyConnection| {
        diesel::insert_into(setting::table)
            .values((setting::name.eq(&name), setting::value.eq(&value)))
            .execute(c)
    };
    store.write(write).await
}

/// Tries until it succeeds; how long that took.
async fn until<T, F: Future<Output = Result<T, Error>>>(
    what: &str,
    mut again: impl FnMut() -> F,
) -> (T, Duration) {
    let began = Instant::now();
    loop {
        match again().await {
            Ok(value) => return (value, began.elapsed()),
            Err(error) => assert!(began.elapsed() < SOON, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn a_commit_whose_answer_is_lost_is_found_again_and_nothing_is_stored_twice() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    let mut direct = server.open("p");
    for round in 0..10_i64 {
        let lost = round % 2 == 0;
        let cut = server.proxy.cut();
        if lost {
            server.proxy.lose_answers(1);
        } else {
            server.proxy.lose_commits(1);
        }
        let keyed = submit(round * 10, Some(&format!("key {round}")));
        let others: Vec<_> = (1..6).map(|n| submit(round * 10 + n, None)).collect();
        let all = std::iter::once(&keyed).chain(&others).map(|one| accepted(&store, one));
        for answer in join_all(all).await {
            assert!(matches!(answer, Ok(Accepted::Stored(_))), "round {round}: {answer:?}");
        }
        assert!(server.proxy.cut() > cut, "round {round}: no link was cut");
        let again = Submit { uid: JobUid::random(), id: JobId(10_000 + round), ..keyed.clone() };
        let again = Submit { entry: Entry { request: Uid::random(), replay: None, ..again.entry }, ..again };
        let Ok(Accepted::Same(first)) = accepted(&store, &again).await else {
            panic!("the same key is the same job")
        };
        assert_eq!(first.job, Some(keyed.uid));
    }
    assert_eq!(counts(&mut direct), (60, 10), "six jobs a round, whether the commit or its answer was lost");
}

#[actix_rt::test]
async fn a_commit_that_is_never_answered_is_called_unknown_not_refused() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    let mut direct = server.open("p");
    server.proxy.lose_answers(u32::MAX);
    let one = submit(1, Some("k"));
    let answer = accepted(&store, &one).await;
    assert!(matches!(answer, Err(Error::Unknown)), "{answer:?}");
    server.proxy.lose_answers(0);
    assert_eq!(counts(&mut direct), (1, 1), "it was stored, and once");
    let (again, _) = until("the same item again", || accepted(&store, &one)).await;
    assert!(matches!(again, Accepted::Stored(row) if row.uid == one.uid.to_string()));
    assert_eq!(counts(&mut direct), (1, 1));
}

fn sessions(direct: &mut AnyConnection) -> Vec<i64> {
    #[derive(QueryableByName)]
    struct Session {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        id: i64,
    }
    let sql = "SELECT CAST(id AS SIGNED) AS id FROM information_schema.processlist \
         WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    let found: Vec<Session> = diesel::sql_query(sql).load(direct).expect("the server says who is there");
    found.into_iter().map(|session| session.id).collect()
}

#[actix_rt::test]
async fn sessions_that_the_server_kills_are_opened_again_by_writer_and_readers() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    let mut direct = server.open("p");
    for round in 0..5 {
        // Both readers have a connection.
        let read = || store.read(|c| setting::table.count().get_result::<i64>(c));
        let reads = join_all((0..20).map(|_| read())).await;
        reads.into_iter().for_each(|count| assert_eq!(count.expect("a count"), round));
        let killed = sessions(&mut direct);
        assert!(!killed.is_empty());
        for id in killed {
            let _gone = direct.batch_execute(&format!("KILL {id}"));
        }
        assert_eq!(put(&store, &format!("s{round}"), "v").await.expect("the writer opens a link anew"), 1);
        for _ in 0..4 {
            let (count, _) = until("readers open links anew", read).await;
            assert_eq!(count, round + 1);
        }
    }
}

#[actix_rt::test]
async fn a_server_that_is_away_is_said_at_once_and_found_again() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    put(&store, "before", "v").await.expect("stored");
    server.proxy.down(true);
    let began = Instant::now();
    for n in 0..20 {
        let write = put(&store, &format!("away {n}"), "v").await;
        assert!(matches!(write, Err(Error::Connect(_) | Error::Unavailable(_))), "{write:?}");
        let read = store.read(|c| setting::table.count().get_result::<i64>(c)).await;
        assert!(matches!(read, Err(Error::Connect(_) | Error::Unavailable(_))), "{read:?}");
    }
    println!("20 writes and 20 reads refused in {:?}", began.elapsed());
    server.proxy.down(false);
    let (_, writes) = until("writes", || put(&store, "after", "v")).await;
    let read = || store.read(|c| setting::table.select(setting::name).order(setting::name).load::<String>(c));
    let (names, reads) = until("reads", read).await;
    assert_eq!(names, ["after", "before"], "what was refused left nothing");
    println!("writes again after {writes:?}, reads after {reads:?}");
}

#[actix_rt::test]
async fn a_server_that_stands_still_holds_nobody_for_long() {
    let Some(server) = Server::given() else { return };
    let manager = Manager::new(&server.through("p")).expect("a URL");
    manager.create().expect("a database");
    let settings = Settings {
        stall_limit: Duration::from_millis(200),
        answer_limit: Duration::from_secs(2),
        ..Settings::new(manager)
    };
    let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("the server answers");
    put(&store, "before", "v").await.expect("stored");
    server.proxy.frozen(true);
    let held = put(&store, "held", "v").await;
    assert!(matches!(held, Err(Error::Unknown)), "nobody knows what becomes of it: {held:?}");
    let refused = put(&store, "refused", "v").await;
    assert!(matches!(refused, Err(Error::Connect(_))), "{refused:?}");
    let read = store.read(|c| setting::table.count().get_result::<i64>(c)).await;
    assert!(matches!(read, Err(Error::Connect(_))), "{read:?}");
    server.proxy.frozen(false);
    until("writes", || put(&store, "after", "v")).await;
    let (names, _) = until("reads", || {
        store.read(|c| setting::table.select(setting::name).order(setting::name).load::<String>(c))
    })
    .await;
    assert!(!names.contains(&"refused".to_owned()), "{names:?}");
}

/// Holds a row in a transaction of its own until it is let go.
fn hold_row(mut c: AnyConnection, name: &'static str) -> (blocking::Sender<()>, std::thread::JoinHandle<()>) {
    let (go, gate) = blocking::channel();
    let (began, begun) = blocking::channel();
    let thread = std::thread::spawn(move || {
        // Ours would be ended by the server after 2 s.
        c.batch_execute("SET SESSION idle_transaction_timeout = 0").expect("our own session");
        c.batch_execute(&format!("BEGIN; UPDATE setting SET value = 'theirs' WHERE name = '{name}'"))
            .expect("it holds");
        began.send(()).expect("somebody waits");
        let _let_go = gate.recv();
        c.batch_execute("COMMIT").expect("committed");
    });
    begun.recv().expect("it holds");
    (go, thread)
}

/// One item that writes two rows; the second one may have to wait for another session.
async fn pair(store: &Store, first: &'static str, second: &'static str) -> Result<(), Error> {
    store
        .write(move |c| {
            for name in [first, second] {
                diesel::update(setting::table.find(name)).set(setting::value.eq("ours")).execute(c)?;
            }
            Ok(())
        })
        .await
}

fn values(direct: &mut AnyConnection) -> Vec<(String, String)> {
    setting::table.order(setting::name).select((setting::name, setting::value)).load(direct).expect("rows")
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[actix_rt::test]
async fn a_lock_that_is_let_go_late_is_waited_for_and_one_never_let_go_leaves_no_half_item() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    for name in ["a", "b"] {
        put(&store, name, "old").await.expect("stored");
    }
    let mut direct = server.open("p");
    let (go, holder) = hold_row(server.open("p"), "b");
    let (done, answer) = tokio::sync::oneshot::channel();
    let writer = store.clone();
    actix_rt::spawn(async move {
        let _ = done.send(pair(&writer, "a", "b").await);
    });
    // Longer than one wait for a lock: the first try is rolled back as a whole, a later one succeeds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(values(&mut direct), pairs(&[("a", "old"), ("b", "old")]), "nothing is half done");
    drop(go);
    holder.join().expect("no panic");
    answer.await.expect("an answer").expect("done in the end");
    assert_eq!(values(&mut direct), pairs(&[("a", "ours"), ("b", "ours")]));
    assert!(store.counters().replays >= 1, "{:?}", store.counters());
}

#[actix_rt::test]
async fn a_deadlock_is_tried_again_and_both_sides_end_whole() {
    let Some(server) = Server::given() else { return };
    let store = open(&server);
    for name in ["a", "b"] {
        put(&store, name, "old").await.expect("stored");
    }
    let mut deadlocks = 0;
    for _ in 0..10 {
        let mut other = server.open("p");
        let (ready, begun) = blocking::channel();
        let theirs = std::thread::spawn(move || {
            // Weighs more than the writer's, so that the server ends the writer's transaction.
            other
                .batch_execute(
                    "BEGIN; UPDATE setting SET value = 'theirs' WHERE name = 'b'; \
                     INSERT INTO setting VALUES ('x1', 'x'), ('x2', 'x'), ('x3', 'x'), ('x4', 'x')",
                )
                .expect("it holds b");
            ready.send(()).expect("somebody waits");
            std::thread::sleep(Duration::from_millis(100));
            let second = other.batch_execute("UPDATE setting SET value = 'theirs' WHERE name = 'a'");
            let deadlock = second.is_err();
            other.batch_execute("ROLLBACK").expect("taken back");
            deadlock
        });
        begun.recv().expect("it holds b");
        let before = store.counters().replays;
        pair(&store, "a", "b").await.expect("done in the end");
        let lost_by_them = theirs.join().expect("no panic");
        deadlocks += u64::from(lost_by_them) + (store.counters().replays - before).min(1);
        let mut direct = server.open("p");
        assert_eq!(values(&mut direct), pairs(&[("a", "ours"), ("b", "ours")]));
    }
    assert!(deadlocks > 0, "the two never met");
    assert!(store.counters().replays > 0, "the writer never lost");
}

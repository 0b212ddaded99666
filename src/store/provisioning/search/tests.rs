use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use diesel::connection::InstrumentationEvent;
use diesel::prelude::*;

use super::{COUNTED, Search, WALK, among, attempts, counts, page};
use crate::model::query::{Field, Query};
use crate::model::{CustomerId, JobId, JobState, Micros, ServerId, UserId};
use crate::store::provisioning::job::{Filter, list};
use crate::store::provisioning::view;
use crate::store::{AnyConnection, Manager, PROVISIONING};

const MINE: i64 = 200;

struct House {
    connection: AnyConnection,
    _folder: tempfile::TempDir,
}

fn house() -> House {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/p.db", folder.path().display());
    let mut connection = Manager::new(&url).expect("a url").open().expect("a file");
    PROVISIONING.migrate(&mut connection).expect("migrated");
    House { connection, _folder: folder }
}

/// Jobs `1..=n`, one a second before now, the newest last; every hundredth failed, the others complete.
fn fill(c: &mut AnyConnection, n: i64) {
    let now = Micros::wall().0;
    run(
        c,
        &format!(
            "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < {n}) \
             INSERT INTO job SELECT printf('%032d', i), i, {MINE}, 300, 500, 'K', 'r', 'noop', '{{}}', 'Do nothing', \
             CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'complete' END, 1, NULL, 1, 0, 0, NULL, NULL, '', '', NULL, \
             NULL, NULL, 0, {now} - ({n} - i) * 1000000, NULL, {now}, {now}, {now} - ({n} - i) * 1000000 + 500000, 1, \
             NULL, FALSE FROM k"
        ),
    );
}

fn run(c: &mut AnyConnection, sql: &str) {
    diesel::sql_query(sql).execute(c).unwrap_or_else(|e| panic!("{sql}: {e}"));
}

fn search(text: &str) -> Search {
    let query: Query = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    Search { customer: CustomerId(MINE), person: UserId(500), query, scope: None }
}

fn found(c: &mut AnyConnection, text: &str) -> Vec<i64> {
    let found = page(c, &search(text), None, 50).unwrap_or_else(|e| panic!("{text}: {e}"));
    found.rows.iter().map(|row| row.id).collect()
}

#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

/// Every statement that was sent meanwhile, without its values.
fn statements(c: &mut AnyConnection, work: impl FnOnce(&mut AnyConnection)) -> BTreeSet<String> {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let sink = Arc::clone(&seen);
    c.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let sql = text.split(" -- binds").next().unwrap_or_default().to_owned();
            sink.lock().expect("a list").insert(sql);
        }
    });
    work(c);
    c.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let seen = seen.lock().expect("a list").clone();
    assert!(!seen.is_empty(), "nothing was asked");
    seen
}

/// Steps of a statement's plan that read a whole table or sort many rows.
fn costly(c: &mut AnyConnection, sql: &str) -> Vec<String> {
    let plan: Vec<Step> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}"))
        .load(c)
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert!(!plan.is_empty(), "{sql}");
    let costs = |detail: &String| detail.starts_with("SCAN") || detail.contains("TEMP B-TREE FOR ORDER");
    // One row of a constant is no table.
    plan.into_iter().map(|step| step.detail).filter(costs).filter(|d| d != "SCAN CONSTANT ROW").collect()
}

const SEARCHES: &[(Field, &[&str])] = &[
    (Field::State, &["state:complete", "state:open", "state:failed,complete", "-state:failed"]),
    (Field::Needs, &["needs:me", "-needs:me"]),
    (Field::Kind, &["kind:noop", "kind:launch*", "-kind:noop", "kind:noop state:failed"]),
    (Field::Class, &["class:auth,quota", "-class:auth", "class:auth state:failed"]),
    (Field::Waits, &["waits:queue,lock", "-waits:queue"]),
    (Field::Account, &["account:300,301", "-account:300"]),
    (Field::Server, &["server:7", "server:7,8 state:open", "-server:7", "server:1,2,3,4,5,6"]),
    (Field::Target, &["target:web-*", "target:db", "-target:db"]),
    (Field::By, &["by:me", "by:ad*", "-by:admin"]),
    (Field::Node, &["node:4f*", "-node:4f*"]),
    (Field::Older, &["older:1h", "-older:1h", "older:1h state:failed"]),
    (Field::Newer, &["newer:1h", "newer:1h older:10s"]),
    (Field::From, &["from:2026-01-01"]),
    (Field::To, &["to:2100-01-01"]),
    (Field::Took, &["took:>5m", "took:<5m", "-took:>5m"]),
    (Field::Attempts, &["attempts:>2", "attempts:<2", "attempts:1"]),
    (Field::Outcome, &["outcome:unknown", "-outcome:unknown"]),
    (Field::Parent, &["parent:7", "parent:none"]),
    (Field::Id, &["7", "id:7,8", "-7", "web", "\"do not\""]),
];

#[test]
fn no_search_reads_the_whole_table_or_sorts_it() {
    let House { mut connection, _folder } = house();
    let c = &mut connection;
    let fields: BTreeSet<Field> = SEARCHES.iter().map(|(field, _)| *field).collect();
    assert_eq!(fields, Field::ALL.iter().copied().collect(), "every field is looked at");
    let texts = SEARCHES.iter().flat_map(|(_, texts)| texts.iter().copied()).chain([""]);
    for text in texts {
        let search = search(text);
        let asked = statements(c, |c| {
            page(c, &search, Some(JobId(9000)), 50).expect("found");
            counts(c, &search).expect("counted");
            among(c, &search, &[1, 2]).expect("looked at");
            let scoped = search.only(&[JobState::Quarantined, JobState::Unresolved]);
            page(c, &scoped, None, 50).expect("found");
        });
        for sql in asked {
            let costly = costly(c, &sql);
            // A list of numbers is short; to put it in order costs nothing.
            let few = sql.contains("`job`.`id` IN");
            assert!(few || costly.is_empty(), "{text}: {costly:?}\n{sql}");
            assert!(!costly.iter().any(|step| step.starts_with("SCAN")), "{text}: {costly:?}\n{sql}");
        }
    }
    let beside = statements(c, |c| {
        attempts(c, &["a".to_owned()]).expect("counted");
        view::oldest_waiting(c, CustomerId(MINE)).expect("found");
        view::counts(c, CustomerId(MINE)).expect("counted");
        for server in [None, Some(ServerId(7))] {
            list(c, CustomerId(MINE), &Filter { server, limit: 9 }).expect("found");
        }
    });
    for sql in beside {
        assert_eq!(costly(c, &sql), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn a_plan_that_reads_everything_is_seen() {
    let House { mut connection, _folder } = house();
    assert_eq!(costly(&mut connection, "SELECT * FROM job WHERE kind = 'noop'"), ["SCAN job"]);
    assert_eq!(costly(&mut connection, "SELECT id FROM job WHERE customer = 1 ORDER BY changed_at").len(), 1);
}

#[test]
fn pages_hang_together_and_a_walk_says_where_it_ended() {
    let House { mut connection, _folder } = house();
    let c = &mut connection;
    fill(c, WALK + 2500);
    assert_eq!(found(c, "")[..3], [12_500, 12_499, 12_498]);
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let found = page(c, &search("state:failed"), before, 50).expect("found");
        seen.extend(found.rows.iter().map(|row| row.id));
        before = found.before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=125).rev().map(|i| i * 100).collect::<Vec<i64>>());
    // Nothing fits: the first answer has looked at so many, and the second at the rest.
    let first = page(c, &search("account:1"), None, 50).expect("found");
    assert_eq!((first.rows.len(), first.cut, first.before), (0, true, Some(JobId(2501))));
    let second = page(c, &search("account:1"), first.before, 50).expect("found");
    assert_eq!((second.rows.len(), second.cut, second.before), (0, false, None));
    // Times are turned into numbers, so that far ones need no walk: a job a second.
    let old = page(c, &search("older:12480s"), None, 50).expect("found");
    assert!(!old.cut && (15..=20).contains(&old.rows.len()), "{}", old.rows.len());
    assert_eq!(old.rows.last().map(|row| row.id), Some(1));
    let new = page(c, &search("newer:10s"), None, 50).expect("found");
    assert!((5..=11).contains(&new.rows.len()) && new.rows[0].id == 12_500, "{}", new.rows.len());
    let all = counts(c, &search("")).expect("counted");
    let of = |counts: &super::Counts, state: &str| {
        counts.states.iter().find(|(word, _)| word == state).map(|(_, n)| *n)
    };
    assert_eq!((of(&all, "failed"), of(&all, "complete"), all.whole), (Some(125), Some(COUNTED + 1), true));
    let some = counts(c, &search("kind:noop")).expect("counted");
    assert_eq!((of(&some, "failed"), some.whole), (Some(100), false));
    let few = counts(c, &search("kind:noop newer:1h")).expect("counted");
    assert!(few.whole && (30..=37).contains(&of(&few, "failed").unwrap_or(0)), "{few:?}");
}

/// Makes six jobs differ in all that can be searched by.
const DIFFERENT: &[&str] = &[
    "SET state = 'queued', ended_at = NULL, why_code = 'dispatch' WHERE id = 1",
    "SET state = 'running', ended_at = NULL, why_code = 'server-busy', owner = '4f2a' WHERE id = 2",
    "SET state = 'quarantined', ended_at = NULL, why_code = 'crashes' WHERE id = 3",
    "SET state = 'unresolved', account = 301, person = 510 WHERE id = 4",
    "SET kind = 'launch-server', description = 'Launch server web-1' WHERE id = 5",
    "SET kind = 'stop-server', description = 'Stop server 50%_!', server = 7, created_at = 1 WHERE id = 6",
    "SET customer = 1 WHERE id = 7",
    "INSERT INTO person VALUES (500, 200, 300, 'A', 'B', 'e', 'admin', '', 'UTC', 'ACTIVE'), \
     (510, 200, 300, 'A', 'B', 'e', 'deploy', '', 'UTC', 'ACTIVE')",
    "INSERT INTO server (id, customer, account, cloud, region, data_center, product, provider_product, image, name, \
     description, provider_id, job, status, platform, architecture, agent_version, budget, owner, user_groups, \
     started_at, changed_at, version) VALUES (7, 200, 300, 1, 1, 1, 1, '', 1, 'Web-Big', '', '', '', 'RUNNING', '', '', \
     0, 0, 0, '', 0, 0, 1)",
    "INSERT INTO attempt SELECT 'a' || i, printf('%032d', 4), 200, 's', 0, 1, i, 1, '', x'', '', \
     CASE i WHEN 1 THEN 'refused' ELSE 'open' END, CASE i WHEN 1 THEN 'auth' END, '', '', 0, NULL, NULL, 1 \
     FROM (SELECT 1 AS i UNION SELECT 2)",
];

#[test]
fn every_term_finds_what_it_says_and_its_opposite_the_rest() {
    let House { mut connection, _folder } = house();
    let c = &mut connection;
    fill(c, 7);
    for sql in DIFFERENT {
        // Rows that no job ever wrote need no fence.
        let start = if sql.starts_with("SET") { concat!("UPDATE", " job ") } else { "" };
        run(c, &format!("{start}{sql}"));
    }
    for (text, ids) in [
        ("state:open", vec![3, 2, 1]),
        ("needs:me", vec![4, 3]),
        ("kind:launch*,stop-server", vec![6, 5]),
        ("class:auth", vec![4]),
        ("waits:queue", vec![1]),
        ("waits:lock,crash", vec![3, 2]),
        ("account:301", vec![4]),
        ("server:7", vec![6]),
        ("target:web-*", vec![6, 5]),
        ("target:web-1", vec![5]),
        ("by:me", vec![6, 5, 3, 2, 1]),
        ("by:dep*", vec![4]),
        ("node:4f*", vec![2]),
        ("older:1h", vec![6]),
        ("to:1971-01-01", vec![6]),
        ("took:>1d", vec![6]),
        ("attempts:>1", vec![4]),
        ("attempts:2", vec![4]),
        ("outcome:unknown", vec![4]),
        ("4", vec![4]),
        ("id:2,4,99", vec![4, 2]),
        ("\"stop server 50%_!\"", vec![6]),
        ("web-b", vec![6]),
        ("launch", vec![5]),
        ("50", vec![]),
    ] {
        assert_eq!(found(c, text), ids, "{text}");
        let rest: Vec<i64> = (1..=6).rev().filter(|id| !ids.contains(id)).collect();
        assert_eq!(found(c, &format!("-{text}")), rest, "-{text}");
        let all: Vec<i64> = (1..=6).collect();
        let mut some = among(c, &search(text), &all).expect("looked at");
        some.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        assert_eq!(some, ids, "{text}");
    }
    assert_eq!(found(c, "state:open waits:queue by:me"), [1]);
    assert_eq!(found(c, "state:open -state:queued,running"), [3]);
    assert_eq!(found(c, "state:failed state:queued"), Vec::<i64>::new());
    let made = attempts(c, &[format!("{:032}", 4)]).expect("counted");
    assert_eq!(made.values().copied().collect::<Vec<_>>(), [2]);
}

//! Each breach, planted into rows that hold, is found; and nothing is found in rows that hold.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;

use super::{Invariant, Moment, Violation, violations};
use crate::model::Micros;
use crate::store::testing::{Bed, on_both};
use crate::store::{AnyConnection, PROVISIONING};

/// A second, in the database's unit.
const SECOND: i64 = 1_000_000;
/// The deadline of every planted job.
const DEADLINE: i64 = 1000 * SECOND;

struct JobIs {
    id: i64,
    kind: &'static str,
    state: &'static str,
    /// Columns that differ from a job that ended well.
    with: &'static str,
}

fn job(c: &mut AnyConnection, JobIs { id, kind, state, with }: JobIs) {
    let ended =
        if matches!(state, "complete" | "failed" | "cancelled" | "unresolved") { "50" } else { "NULL" };
    let message = if ended == "NULL" { "NULL" } else { "''" };
    let sql = format!(
        "INSERT INTO job (uid, id, customer, account, person, access_key, request, kind, params, description, state, \
         epoch, try_no, crashes, undo_begun, why_code, why, message, priority, created_at, changed_at, deadline, \
         ended_at, version) VALUES ('j{id}', {id}, 1, 1, 1, '', 'r{id}', '{kind}', '', '', '{state}', 2, 1, 0, 0, '', \
         '', {message}, 0, 0, 0, {DEADLINE}, {ended}, 1)"
    );
    c.batch_execute(&sql).expect("a job");
    if !with.is_empty() {
        c.batch_execute(&format!("UPDATE job SET {with} WHERE id = {id}")).expect("its columns");
    }
}

fn attempt(c: &mut AnyConnection, (uid, job): (&str, i64), step: &str, (n, epoch): (i32, i64)) {
    let sql = format!(
        "INSERT INTO attempt (uid, job, customer, step, variant, try_no, n, epoch, token, request, lease, outcome, \
         evidence, output, started_at, closed_at, version) VALUES ('{uid}', 'j{job}', 1, '{step}', 0, 1, {n}, {epoch}, \
         '', '', '', 'ok', '', '', {n}, 20, 1)"
    );
    c.batch_execute(&sql).expect("an attempt");
}

fn watch(c: &mut AnyConnection, (uid, job): (&str, i64), step: &str, done: &str) {
    let sql = format!(
        "INSERT INTO watch (uid, job, customer, step, try_no, kind, target, expectation, due_at, deadline, looks, \
         made_at, done_at) VALUES ('{uid}', 'j{job}', 1, '{step}', 1, 'cloud', '', '', 0, {DEADLINE}, 0, 0, {done})"
    );
    c.batch_execute(&sql).expect("a watch");
}

fn evidence(c: &mut AnyConnection, subject: &str, source: &str, job: i64) {
    let sql = format!(
        "INSERT INTO evidence (subject, source, job, customer, verdict, text, raw, made_at) VALUES ('{subject}', \
         '{source}', 'j{job}', 1, 'reached', '', '', 30)"
    );
    c.batch_execute(&sql).expect("evidence");
}

fn command(c: &mut AnyConnection, (id, job, attempt): (&str, i64, &str), state: &str) {
    let done = if state == "done" { "30" } else { "NULL" };
    let sql = format!(
        "INSERT INTO guest_command (id, seq, job, attempt, customer, server, epoch, operation, user_name, state, \
         made_at, expires_at, done_at) VALUES ('{id}', 1, 'j{job}', '{attempt}', 1, 7, 1, '', '', '{state}', 0, 0, \
         {done})"
    );
    c.batch_execute(&sql).expect("a command");
}

fn server(c: &mut AnyConnection, id: i64, job: i64) {
    let sql = format!(
        "INSERT INTO server (id, customer, account, cloud, region, data_center, product, provider_product, image, name, \
         description, provider_id, job, status, platform, architecture, agent_version, budget, owner, user_groups, \
         started_at, changed_at, version) VALUES ({id}, 1, 1, 1, 1, 1, 1, '', 1, '', '', 'i-{id}', 'j{job}', 'RUNNING', \
         '', '', 0, 1, 1, '', 0, 0, 1)"
    );
    c.batch_execute(&sql).expect("a server");
}

/// One job of every sort, as the protocol leaves them.
fn well(c: &mut AnyConnection) {
    c.batch_execute("INSERT INTO node VALUES ('alive', 'dev', 1, 'alive', 0); INSERT INTO node VALUES ('dead', 'dev', 1, 'dead', 0)")
        .expect("two lives");
    job(c, JobIs { id: 1, kind: "launch-server", state: "complete", with: "resource = 'i-7', server = 7" });
    attempt(c, ("a1", 1), "create", (1, 1));
    attempt(c, ("a1b", 1), "create", (2, 2));
    c.batch_execute("UPDATE attempt SET token = 't1', request = 'bytes' WHERE job = 'j1'").expect("a token");
    c.batch_execute("UPDATE attempt SET outcome = 'refused' WHERE uid = 'a1'")
        .expect("the first was refused");
    watch(c, ("w1", 1), "create", "30");
    evidence(c, "w1", "monitor", 1);
    server(c, 7, 1);
    job(c, JobIs { id: 2, kind: "run-command", state: "complete", with: "" });
    attempt(c, ("a2", 2), "run", (1, 1));
    watch(c, ("w2", 2), "run", "30");
    evidence(c, "w2", "worker", 2);
    command(c, ("c2", 2, "a2"), "done");
    evidence(c, "a2", "agent", 2);
    c.batch_execute("INSERT INTO output VALUES ('c2', 'stdout', 0, 'abc'); INSERT INTO output VALUES ('c2', 'stdout', 3, 'de')")
        .expect("output");
    job(c, JobIs { id: 3, kind: "noop", state: "awaiting", with: "due_at = 5" });
    attempt(c, ("a3", 3), "noop", (1, 1));
    watch(c, ("w3", 3), "noop", "NULL");
    job(c, JobIs { id: 4, kind: "noop", state: "running", with: "owner = 'alive'" });
    job(c, JobIs { id: 5, kind: "noop", state: "queued", with: "why_code = 'pause', epoch = 0" });
    job(c, JobIs { id: 6, kind: "run-command", state: "cancelled", with: "cancel_by = 'ann'" });
    attempt(c, ("a6", 6), "run", (1, 1));
    watch(c, ("w6", 6), "run", "50");
    command(c, ("c6", 6, "a6"), "expired");
    job(c, JobIs { id: 7, kind: "stop-server", state: "complete", with: "why_code = 'person'" });
    evidence(c, "word", "person/ann", 7);
    job(c, JobIs { id: 8, kind: "launch-server", state: "unresolved", with: "" });
    attempt(c, ("a8", 8), "create", (1, 1));
    c.batch_execute("UPDATE attempt SET outcome = 'open', closed_at = NULL, token = 't8' WHERE uid = 'a8'")
        .expect("never answered");
    c.batch_execute(
        "INSERT INTO obligation VALUES ('tag', 'j8', 1, 1, 1, 'watched', NULL, 0, 0, 0, 0, '[]', '[]', 0, NULL, NULL, 1)",
    )
    .expect("owed");
    c.batch_execute("INSERT INTO idem VALUES (1, 'AK', 'key', '', 'j1', 202, NULL, 0)").expect("a key");
    c.batch_execute("INSERT INTO idem VALUES (1, 'AK', 'made', '', NULL, 201, 9, 0)")
        .expect("a key without a job");
}

fn found(c: &mut AnyConnection) -> Vec<Violation> {
    let moment = Moment { now: Micros(DEADLINE / 2), quiet: Duration::from_secs(10) };
    violations(c, moment).expect("rows are read")
}

/// What is planted, which invariant it breaks, and the job that is named.
type Plant = (&'static str, Invariant, Option<i64>);

fn plants() -> Vec<Plant> {
    use Invariant::*;
    vec![
        ("UPDATE job SET ended_at = NULL WHERE id = 1", I1, Some(1)),
        ("UPDATE job SET state = 'running' WHERE id = 6", I1, Some(6)),
        ("UPDATE job SET owner = 'alive' WHERE id = 1", I1, Some(1)),
        ("UPDATE attempt SET epoch = 3 WHERE uid = 'a1b'", I2, Some(1)),
        ("UPDATE attempt SET epoch = 0 WHERE uid = 'a3'", I2, Some(3)),
        ("UPDATE job SET epoch = 0 WHERE id = 4", I2, Some(4)),
        ("UPDATE guest_command SET epoch = 9 WHERE id = 'c2'", I2, Some(2)),
        (
            "UPDATE attempt SET epoch = 2 WHERE uid = 'a1'; UPDATE attempt SET epoch = 1 WHERE uid = 'a1b'",
            I3,
            Some(1),
        ),
        ("UPDATE attempt SET n = 1 WHERE uid = 'a1b'", I3, Some(1)),
        ("UPDATE attempt SET outcome = 'refused' WHERE job = 'j1'", I4, Some(1)),
        ("UPDATE attempt SET closed_at = NULL WHERE uid = 'a3'", I4, Some(3)),
        ("UPDATE attempt SET try_no = 2 WHERE uid = 'a3'", I4, Some(3)),
        ("UPDATE guest_command SET attempt = 'none' WHERE id = 'c6'", I4, Some(6)),
        ("UPDATE attempt SET token = 'other' WHERE uid = 'a1b'", I5, Some(1)),
        ("UPDATE attempt SET request = 'others' WHERE uid = 'a1b'", I5, Some(1)),
        ("UPDATE attempt SET outcome = 'open', closed_at = NULL WHERE uid = 'a6'", I6, Some(6)),
        ("UPDATE attempt SET outcome = 'open', closed_at = NULL WHERE uid = 'a2'", I6, Some(2)),
        ("UPDATE guest_command SET state = 'waiting' WHERE id = 'c6'", I6, Some(6)),
        ("UPDATE guest_command SET state = 'sent' WHERE id = 'c6'", I6, Some(6)),
        ("UPDATE guest_command SET state = 'done', done_at = 60 WHERE id = 'c6'", I6, Some(6)),
        ("DELETE FROM evidence WHERE subject = 'w1'", I7, Some(1)),
        ("UPDATE evidence SET verdict = 'lost' WHERE subject = 'w1'", I7, Some(1)),
        ("UPDATE job SET try_no = 2 WHERE id = 1", I7, Some(1)),
        ("UPDATE watch SET done_at = NULL WHERE uid = 'w1'", I7, Some(1)),
        ("UPDATE job SET cancel_by = 'ann' WHERE id = 1", I7, Some(1)),
        ("UPDATE job SET undo_begun = 1 WHERE id = 1", I7, Some(1)),
        ("UPDATE job SET why_code = '' WHERE id = 7", I7, Some(7)),
        ("UPDATE job SET state = 'failed' WHERE id = 1", I8, Some(1)),
        ("DELETE FROM obligation", I8, Some(8)),
        ("UPDATE server SET job = 'nobody'", I8, None),
        ("UPDATE server SET busy_by = 'j2'", I8, Some(2)),
        ("INSERT INTO output VALUES ('c2', 'stdout', 4, 'e')", I9, Some(2)),
        ("INSERT INTO output VALUES ('c2', 'stdout', 9, 'e')", I9, Some(2)),
        ("UPDATE evidence SET subject = 'a6', source = 'agent-started' WHERE subject = 'a2'", I9, Some(6)),
        ("UPDATE guest_command SET attempt = 'a2' WHERE id = 'c6'", I9, Some(6)),
        ("UPDATE job SET owner = 'dead' WHERE id = 4", I10, Some(4)),
        ("UPDATE job SET owner = NULL WHERE id = 4", I10, Some(4)),
        (
            "UPDATE job SET due_at = NULL WHERE id = 3; UPDATE watch SET done_at = 5 WHERE uid = 'w3'",
            I10,
            Some(3),
        ),
        ("UPDATE job SET request = 'r1' WHERE id = 5", I11, Some(5)),
        ("UPDATE idem SET job = 'nobody' WHERE idem_key = 'key'", I11, None),
        ("INSERT INTO idem VALUES (1, 'AK', 'again', '', 'j1', 202, NULL, 0)", I11, Some(1)),
        ("UPDATE attempt SET job = 'nobody' WHERE uid = 'a8'", I11, None),
        ("UPDATE job SET owner = 'stranger' WHERE id = 4", I12, Some(4)),
        ("UPDATE job SET deadline = 1 WHERE id = 3", I13, Some(3)),
        ("UPDATE job SET ended_at = 2000000000 WHERE id = 1", I13, Some(1)),
        ("UPDATE attempt SET token = 't1' WHERE uid = 'a8'", I14, Some(8)),
    ]
}

on_both!(each_breach_that_is_planted_is_found_and_rows_that_hold_show_none);

async fn each_breach_that_is_planted_is_found_and_rows_that_hold_show_none(bed: Bed) {
    let manager = bed.manager();
    let mut c = manager.open().expect("a database");
    PROVISIONING.migrate(&mut c).expect("tables");
    well(&mut c);
    assert_eq!(found(&mut c), Vec::new());
    let plants = plants();
    for (sql, invariant, job) in &plants {
        c.begin().expect("a transaction");
        c.batch_execute(sql).expect(sql);
        let breaches = found(&mut c);
        assert!(
            breaches.iter().any(|breach| (breach.invariant, breach.job) == (*invariant, *job)),
            "{sql}: {breaches:#?}"
        );
        c.rollback().expect("taken back");
    }
    assert_eq!(found(&mut c), Vec::new(), "nothing planted is left");
    let all: BTreeSet<Invariant> = plants.iter().map(|(_, invariant, _)| *invariant).collect();
    assert_eq!(all, Invariant::ALL.iter().copied().collect(), "an invariant has no plant");
}

#[test]
fn a_breach_says_which_rule_which_job_and_what_was_seen() {
    let breach = Violation {
        invariant: Invariant::I6,
        job: Some(7),
        text: "failed with call 1 of create open".into(),
    };
    assert_eq!(
        breach.to_string(),
        "I6 job 7: failed with call 1 of create open (a job that failed or was cancelled has left nothing open)"
    );
}

//! One run in which all is well, and what each thing that is not leads to.

use std::collections::BTreeMap;

use serde_json::json;

use super::diary::Line;
use super::judge::{Class, Sources, compare};
use super::ledger::{Launch, Ledger};
use crate::store::provisioning::whole::Whole;

fn job(id: i64, kind: &str, state: &str, params: &serde_json::Value) -> Whole {
    Whole {
        uid: format!("u{id}"),
        id,
        kind: kind.to_owned(),
        state: state.to_owned(),
        ended_at: Some(1),
        params: json!({ "kind": kind, "params": params }).to_string(),
        ..Whole::default()
    }
}

fn invoke(mark: &str) -> Line {
    Line::Invoke { mark: mark.into(), keyed: true, body: json!({}) }
}

fn ok(mark: &str, job: i64) -> Line {
    Line::Ok { mark: mark.into(), job }
}

fn attempts() -> Vec<(String, String, String)> {
    let attempt = |job: &str, step: &str, token: &str| (job.to_owned(), step.to_owned(), token.to_owned());
    vec![attempt("u2", "launch", "t"), attempt("u2", "launch", "t2"), attempt("u4", "terminate", "")]
}

/// A no-op, a launch, a command on its server and its end; an unanswered request that its key found again.
fn well() -> Sources {
    let launched = Whole {
        server: Some(70),
        resource: Some("i-1".into()),
        ..job(2, "launch-server", "complete", &json!({"name": "client0-1"}))
    };
    let jobs = vec![
        job(1, "noop", "complete", &json!({"note": "client0-0"})),
        launched,
        job(3, "run-command", "complete", &json!({"server": 70, "argv": ["/bin/echo", "client0-2"]})),
        job(4, "terminate-server", "complete", &json!({"server": 70, "reason": "client0-3"})),
    ];
    let keys = jobs.iter().map(|job| (format!("client0-{}", job.id - 1), job.uid.clone())).collect();
    let lines = (0..4).map(|n| invoke(&format!("client0-{n}")));
    let answered = [ok("client0-0", 1), ok("client0-1", 2), ok("client0-2", 3)];
    let unsure = Line::Indefinite { mark: "client0-3".into() };
    let ledger = Ledger {
        launches: vec![Launch { instance: "i-1".into(), token: "t".into(), job: "u2".into() }],
        terminated: vec!["i-1".into()],
        lost: Vec::new(),
        moves: Vec::new(),
        floors: BTreeMap::from([("u3".to_owned(), 2)]),
        commands: BTreeMap::from([("u3.run.1.70".to_owned(), 1)]),
    };
    Sources {
        lines: lines.chain(answered).chain([unsure]).collect(),
        asked_again: vec![("client0-3".into(), 4)],
        attempts: attempts(),
        jobs,
        keys,
        ledger,
        ..Sources::default()
    }
}

/// The classes that are not empty after this change.
fn found(change: impl FnOnce(&mut Sources)) -> Vec<Class> {
    let mut sources = well();
    change(&mut sources);
    compare(&sources).classes.into_keys().collect()
}

#[test]
fn a_run_in_which_all_is_well_has_nothing_in_any_class() {
    let verdict = compare(&well());
    assert!(verdict.is_clean(), "{:?}", verdict.classes);
    assert_eq!((verdict.acknowledged, verdict.unanswered, verdict.found_again), (4, 1, 1));
    assert_eq!(verdict.counts.values().sum::<usize>(), 4);
}

#[test]
fn accepted_and_gone_or_never_ended_is_lost() {
    assert_eq!(found(|s| s.lines.push(ok("client0-9", 99))), [Class::Lost]);
    assert_eq!(found(|s| s.jobs[0].ended_at = None), [Class::Lost]);
    assert_eq!(found(|s| drop(s.keys.remove("client0-0"))), [Class::Lost]);
    assert_eq!(found(|s| s.lines.push(Line::Cancelled { job: 99 })), [Class::Lost]);
}

#[test]
fn two_of_anything_are_doubled() {
    let twice = |s: &mut Sources| {
        let again = Launch { instance: "i-2".into(), token: "t2".into(), job: "u2".into() };
        s.ledger.launches.push(again);
        s.ledger.lost.push("i-2".into());
    };
    assert_eq!(found(twice), [Class::Duplicated]);
    assert_eq!(
        found(|s| {
            s.ledger.commands.insert("u3.run.1.70".into(), 2);
        }),
        [Class::Duplicated]
    );
    assert_eq!(found(|s| s.ledger.terminated.push("i-1".into())), [Class::Duplicated]);
    assert_eq!(found(|s| s.lines.push(ok("client0-0", 2))), [Class::Lost, Class::Duplicated]);
    let second = |s: &mut Sources| s.jobs.push(job(5, "noop", "complete", &json!({"note": "client0-0"})));
    assert_eq!(found(second), [Class::Duplicated]);
}

#[test]
fn an_effect_without_an_owner_is_unexpected() {
    let stray = |uid: &'static str| {
        move |s: &mut Sources| {
            let stray = Launch { instance: "i-9".into(), token: "t9".into(), job: uid.into() };
            s.attempts.push((uid.into(), "launch".into(), "t9".into()));
            s.ledger.launches.push(stray);
        }
    };
    assert_eq!(found(stray("nobody")), [Class::Unexpected]);
    assert_eq!(
        found(|s| {
            s.ledger.commands.insert("nobody.run.1.1".into(), 1);
        }),
        [Class::Unexpected]
    );
    let orphan = |s: &mut Sources| {
        s.jobs[1].state = "cancelled".into();
        s.ledger.terminated.clear();
        s.jobs.pop();
        s.asked_again.clear();
        s.lines.retain(|line| !matches!(line, Line::Indefinite { .. }));
    };
    assert_eq!(found(orphan), [Class::Unexpected, Class::FalseFailure]);
}

#[test]
fn an_end_that_is_not_true_is_a_false_one() {
    assert_eq!(found(|s| s.ledger.commands.clear()), [Class::FalseSuccess]);
    assert_eq!(found(|s| s.jobs[2].state = "failed".into()), [Class::FalseFailure]);
    assert_eq!(found(|s| s.jobs[0].state = "unresolved".into()), [Class::Unresolved]);
    let too_late = |s: &mut Sources| {
        s.jobs[2].state = "cancelled".into();
        s.jobs[2].cancel_by = Some("admin".into());
        s.jobs[2].message = Some("cancelled by admin; by then: exit code 0".into());
    };
    assert_eq!(found(too_late), []);
    let cancelled = |s: &mut Sources| {
        s.jobs[0].cancel_by = Some("admin".into());
        s.lines.push(Line::Cancelled { job: 1 });
    };
    assert_eq!(found(cancelled), [Class::FalseSuccess]);
}

#[test]
fn what_a_key_does_not_find_and_what_nobody_should_hear_is_said() {
    let silent = |s: &mut Sources| s.not_again.push(("client0-3".into(), "404".into()));
    assert_eq!(found(silent), [Class::NotFoundAgain]);
    let odd = |s: &mut Sources| s.lines.push(Line::Odd { mark: "client0-0".into(), text: "500".into() });
    assert_eq!(found(odd), [Class::OddAnswer]);
}

#[test]
fn a_call_that_nobody_wrote_down_before_is_unexpected() {
    assert_eq!(found(|s| s.attempts.retain(|(job, ..)| job != "u4")), [Class::Unexpected]);
    assert_eq!(found(|s| s.attempts.retain(|(.., token)| token != "t")), [Class::Unexpected]);
}

#[test]
fn a_move_that_happened_is_no_failure_and_one_that_did_not_no_success() {
    let stop = |state: &'static str, moved: bool| {
        move |s: &mut Sources| {
            let stop = job(5, "stop-server", state, &json!({"server": 70, "reason": "client0-9"}));
            s.jobs.push(Whole { created_at: 10, ended_at: Some(20), ..stop });
            s.ledger.moves.push(("i-1".into(), "stop-server", if moved { 15 } else { 25 }));
        }
    };
    assert_eq!(found(stop("complete", true)), []);
    assert_eq!(found(stop("failed", false)), []);
    assert_eq!(found(stop("failed", true)), [Class::FalseFailure]);
    assert_eq!(found(stop("complete", false)), [Class::FalseSuccess]);
}

#[test]
fn a_look_that_raised_no_floor_is_a_breach() {
    assert_eq!(found(|s| s.called_off.push(("u3".into(), 2))), []);
    assert_eq!(found(|s| s.called_off.push(("u3".into(), 3))), [Class::Invariant]);
    assert_eq!(found(|s| s.called_off.push(("u9".into(), 1))), [Class::Invariant]);
}

//! Histories that were recorded from runs of earlier versions, and the plan of this version for each step of them.
//!
//! With `DISPATCHER_RECORD_HISTORIES` naming a folder, whatever runs jobs in a test writes a file a job: one line of JSON
//! for each decision, with all facts it was made from and the move it came to. Files that are worth keeping go to
//! `tests/histories/`. Every later version must find a legal move for each line, and the same one; a rule that is changed
//! on purpose is recorded anew, so that the change is seen in review. What a later version has added to rows is filled in.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::{Facts, Limits, Plan, Promise, plan, verdict_of_this_try};
use super::timeline::samples;
use crate::model::{AttemptOutcome, Boot, JobKind, JobState, JobUid, Micros, Verdict};
use crate::store::provisioning::job::History;

/// Names the folder for new recordings.
const VARIABLE: &str = "DISPATCHER_RECORD_HISTORIES";

/// The facts of one decision.
#[derive(Serialize, Deserialize)]
struct Recorded {
    now: Micros,
    boot: Boot,
    since: Micros,
    promise: Option<Promise>,
    limits: Limits,
    history: History,
}

/// Writes a decision down, where a folder is named.
pub(super) fn note(facts: &Facts<'_>, planned: &Plan) {
    static LAST: Mutex<Option<HashMap<JobUid, Value>>> = Mutex::new(None);
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let uid = facts.history.job.uid;
    let mut history = facts.history.clone();
    // Sealed bytes decide nothing.
    history.attempts.iter_mut().for_each(|attempt| attempt.request.clear());
    let Facts { now, boot, since, promise, .. } = *facts;
    let limits = *facts.limits;
    let recorded = Recorded { now, boot, since, promise, limits, history };
    let line = json!({ "facts": recorded, "plan": planned });
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let before = last.get_or_insert_default().insert(uid, line["facts"]["history"].clone());
    // Asked again about the same rows: nothing new.
    if before.as_ref() == Some(&line["facts"]["history"]) {
        return;
    }
    let file = folder.join(format!("{uid}.jsonl"));
    let mut file = std::fs::File::options().create(true).append(true).open(file).expect("a folder");
    writeln!(file, "{line}").expect("room on the disk");
}

/// The template filled with what was recorded; fields that are not in the record keep the template's values.
fn filled(template: Value, recorded: Value) -> Value {
    match (template, recorded) {
        (Value::Object(mut fields), Value::Object(found)) => {
            for (name, value) in found {
                let under = fields.remove(&name).unwrap_or(Value::Null);
                // What a job is asked for has a shape of its own for each kind.
                let value = if name == "params" { value } else { filled(under, value) };
                fields.insert(name, value);
            }
            Value::Object(fields)
        }
        (Value::Array(mut templates), Value::Array(found)) if !templates.is_empty() => {
            let template = templates.swap_remove(0);
            Value::Array(found.into_iter().map(|value| filled(template.clone(), value)).collect())
        }
        (_, recorded) => recorded,
    }
}

fn template() -> Value {
    let history = samples::launch();
    let evidence = json!({ "subject": "", "source": "", "job": history.job.uid, "customer": 1, "verdict": "pending",
        "text": "", "raw": "", "made_at": 0 });
    let mut history = serde_json::to_value(history).expect("plain data");
    history["evidence"] = json!([evidence]);
    json!({ "limits": Limits::default(), "history": history })
}

/// The move, without its words: variant, end, call, attempt.
fn essence(plan: &Value) -> Value {
    match plan {
        Value::Object(fields) => {
            let Some((name, inner)) = fields.iter().next() else { return Value::Null };
            let kept = |name: &str| inner.get(name).cloned();
            json!([
                name,
                kept("state"),
                kept("n"),
                kept("attempt"),
                kept("resend"),
                kept("code"),
                if inner.is_string() { inner.clone() } else { Value::Null }
            ])
        }
        other => other.clone(),
    }
}

/// What is wrong with a move, by the invariants of `docs/PROTOCOL.md`.
fn illegal(recorded: &Recorded, planned: &Plan) -> Option<&'static str> {
    let job = &recorded.history.job;
    let open = recorded.history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    let others = job.owner.is_some_and(|owner| owner != recorded.boot);
    if job.ended_at.is_some() || others {
        return (*planned != Plan::Leave).then_some("it moves what has ended or is another's");
    }
    match planned {
        Plan::Leave => Some("it leaves a job of its own that has not ended"),
        Plan::Rest | Plan::Claim(_) if job.owner.is_some() => Some("it does nothing with a job of its own"),
        Plan::Rest
            if job.due_at.is_none() && recorded.history.watches.iter().all(|w| w.done_at.is_some()) =>
        {
            Some("nothing will ever wake the job")
        }
        Plan::Send { .. } | Plan::Undo { .. } | Plan::BeginUndo { .. } | Plan::Withdraw { .. } if open => {
            Some("it moves on past an open call")
        }
        Plan::End(ending) if open && ending.state != JobState::Unresolved => {
            Some("it ends for sure with an open call")
        }
        Plan::End(ending) if ending.state == JobState::Complete => {
            // A command that ended before its cancel came keeps its own result.
            let may_be_called_off = job.cancel_by.is_none() || job.params.kind() == JobKind::RunCommand;
            let reached =
                verdict_of_this_try(&recorded.history).is_some_and(|e| e.verdict == Verdict::Reached);
            let well = reached && job.state == JobState::Awaiting && may_be_called_off && !job.undo_begun;
            (!well).then_some("it completes without the evidence of this try")
        }
        _ => None,
    }
}

fn planned(recorded: &Recorded) -> Plan {
    plan(&Facts {
        history: &recorded.history,
        now: recorded.now,
        boot: recorded.boot,
        promise: recorded.promise,
        limits: &recorded.limits,
        since: recorded.since,
    })
}

/// Replays a file; the moves of its lines.
fn replay(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("a recorded history");
    let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut moves = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{shown}:{number}: {e}"));
        let facts = filled(template(), line["facts"].clone());
        let recorded: Recorded = serde_json::from_value(facts)
            .unwrap_or_else(|e| panic!("{shown}:{number}: cannot be read any more: {e}"));
        let planned = planned(&recorded);
        assert_eq!(illegal(&recorded, &planned), None, "{shown}:{number}: {planned:?}");
        let now = essence(&serde_json::to_value(&planned).expect("plain data"));
        assert_eq!(
            now,
            essence(&line["plan"]),
            "{shown}:{number}: another move than the version that recorded it"
        );
        moves.push(now);
    }
    moves
}

#[test]
fn every_recorded_history_replays_with_legal_moves_and_the_same_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the recorded histories")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    assert!(files.len() >= 12, "{files:?}");
    let moves: Vec<Value> = files.iter().flat_map(|file| replay(file)).collect();
    let all = moves.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    // Every kind of end and every way of going on is among them.
    for wanted in ["Send", "Resolve", "BeginUndo", "Undo", "Quarantine", "Claim", "Wait", "Withdraw"] {
        assert!(all.contains(&format!("[\"{wanted}\"")), "no recorded history has the move {wanted}");
    }
    for end in ["complete", "failed", "cancelled", "unresolved"] {
        assert!(all.contains(&format!("[\"End\",\"{end}\"")), "no recorded history ends {end}");
    }
}

#[test]
fn a_row_with_more_columns_than_were_recorded_is_filled_in() {
    let mut facts = template();
    let removed = facts["history"]["job"].as_object_mut().expect("a job").remove("priority");
    assert!(removed.is_some());
    let whole = filled(template(), facts);
    assert_eq!(whole["history"]["job"]["priority"], 0);
}

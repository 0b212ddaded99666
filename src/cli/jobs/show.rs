//! Jobs as text.

use std::io::Write;

use actix_web::http::Method;
use serde_json::Value;

use super::super::client::{Client, Error};
use super::super::table;
use super::text;

/// Bytes asked for at once.
const WINDOW: usize = 64 * 1024;

pub(super) fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let empty = Vec::new();
    let jobs = answer.get("jobs").and_then(Value::as_array).unwrap_or(&empty);
    let next = answer.get("before").and_then(Value::as_i64);
    if jobs.is_empty() {
        match next {
            Some(next) => writeln!(out, "no match so far; look further back: add --before {next}")?,
            None => writeln!(out, "no job matches; ask for one with \"dispatcher jobs submit\"")?,
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                text(job, "id"),
                text(job, "state"),
                text(job, "kind"),
                clock(&text(job, "createdAt")),
                text(job, "description"),
                why(job),
            ]
        })
        .collect();
    table::write(out, &["ID", "STATE", "KIND", "SUBMITTED", "WHAT", "WHY"], &rows)?;
    if let Some(next) = next {
        writeln!(out, "older ones: add --before {next}")?;
    }
    Ok(())
}

/// What an open job waits for, or what an ended one said.
fn why(job: &Value) -> String {
    let waits = job.get("why").map(|why| text(why, "text")).filter(|text| !text.is_empty() && text != "-");
    waits.unwrap_or_else(|| text(job, "message"))
}

pub(super) fn job(out: &mut dyn Write, job: &Value) -> Result<(), Error> {
    writeln!(out, "job {}: {}", text(job, "id"), text(job, "description"))?;
    writeln!(out, "{}: {}", text(job, "state"), why(job))?;
    writeln!(out)?;
    if let Some(children) = job.get("children") {
        writeln!(out, "{:10} {}", "children", progress(children))?;
    }
    let facts =
        ["kind", "parent", "server", "resource", "createdAt", "deadline", "endedAt", "cancelBy", "uid"];
    for fact in facts {
        let value = text(job, fact);
        if value != "-" {
            writeln!(out, "{fact:10} {value}")?;
        }
    }
    let timeline = job.get("timeline").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !timeline.is_empty() {
        writeln!(out)?;
    }
    timeline.iter().try_for_each(|found| entry(out, found))
}

/// How far a group is.
fn progress(children: &Value) -> String {
    let mut told = format!("{} of {} have ended", text(children, "ended"), text(children, "total"));
    let states = [
        "complete",
        "failed",
        "cancelled",
        "unresolved",
        "running",
        "awaiting",
        "undoing",
        "quarantined",
        "queued",
    ];
    for state in states {
        if let Some(many) = children.get(state).and_then(Value::as_i64).filter(|many| *many > 0) {
            told.push_str(&format!(", {many} {state}"));
        }
    }
    told
}

/// The children of a group: those that are not complete first.
pub(super) fn children(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let mut jobs: Vec<&Value> = answer.get("jobs").and_then(Value::as_array).into_iter().flatten().collect();
    jobs.sort_by_key(|job| (text(job, "state") == "complete", job.get("id").and_then(Value::as_i64)));
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![text(job, "id"), text(job, "state"), text(job, "kind"), text(job, "description"), why(job)]
        })
        .collect();
    writeln!(out)?;
    table::write(out, &["CHILD", "STATE", "KIND", "WHAT", "WHY"], &rows)?;
    if answer.get("before").is_some_and(Value::is_i64) {
        writeln!(
            out,
            "there are more: list them with \"dispatcher jobs list --q parent:NUMBER --before ...\""
        )?;
    }
    Ok(())
}

/// Why a job waits, or how it ended.
pub(super) fn sentence(out: &mut dyn Write, why: &Value) -> Result<(), Error> {
    let (id, state) = (text(why, "id"), text(why, "state"));
    writeln!(
        out,
        "job {id} is {state} since {}: {} ({})",
        text(why, "since"),
        text(why, "text"),
        text(why, "code")
    )?;
    let until = text(why, "until");
    if until != "-" {
        writeln!(out, "it goes on at the latest at {until}")?;
    }
    if state == "quarantined" {
        writeln!(out, "if you know what became of it: \"dispatcher jobs resolve {id} failed --reason ...\"")?;
    }
    Ok(())
}

pub(super) fn cancelled(out: &mut dyn Write, job: &Value) -> Result<(), Error> {
    let id = text(job, "id");
    Ok(writeln!(out, "cancel of job {id} asked; watch it end with \"dispatcher jobs watch {id}\"")?)
}

pub(super) fn resolved(out: &mut dyn Write, job: &Value) -> Result<(), Error> {
    let (id, state) = (text(job, "id"), text(job, "state"));
    Ok(writeln!(out, "job {id} is {state}: {}; your word is kept as evidence", text(job, "message"))?)
}

/// One line of a timeline, its detail below it.
pub(super) fn entry(out: &mut dyn Write, entry: &Value) -> Result<(), Error> {
    writeln!(out, "{}  {:8}  {}", clock(&text(entry, "at")), text(entry, "what"), text(entry, "text"))?;
    let detail = text(entry, "detail");
    if detail != "-" {
        writeln!(out, "{:27}{}", "", table::clean(&detail, 200))?;
    }
    Ok(out.flush()?)
}

/// The time of day of an RFC 3339 time, to the millisecond.
fn clock(at: &str) -> String {
    match at.split_once('T') {
        Some((_, time)) => time.chars().take(12).collect(),
        None => at.to_owned(),
    }
}

/// Copies what is stored of a command's output, byte for byte.
pub(super) async fn output(
    client: &Client,
    out: &mut dyn Write,
    id: i64,
    stream: &str,
    from: u64,
) -> Result<(), Error> {
    let mut from = from;
    loop {
        let path = format!("/api/v1/jobs/{id}/output?stream={stream}&from={from}&limit={WINDOW}");
        let bytes = client.bytes(Method::GET, &path, None, None).await?;
        out.write_all(&bytes)?;
        from = from.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if bytes.is_empty() {
            return Ok(out.flush()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{entry, job, list};
    use serde_json::json;

    fn shown(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_list_shows_why_and_how_to_get_more() {
        let jobs = json!({"jobs": [
            {"id": 10001, "state": "awaiting", "kind": "noop", "createdAt": "2026-11-22T10:00:00.123456Z",
             "description": "no-op", "why": {"code": "x", "text": "waiting until nothing is seen"}, "message": null},
            {"id": 10000, "state": "failed", "kind": "noop", "createdAt": "2026-11-22T09:00:00.1Z",
             "description": "bad\u{1b}[31m", "why": {"code": "", "text": ""}, "message": "refused"}],
            "before": 10000});
        let text = shown(|out| list(out, &jobs).expect("memory"));
        assert!(text.contains("10001  awaiting  noop  10:00:00.123  no-op"), "{text}");
        assert!(text.contains("refused") && text.contains("--before 10000"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let none = shown(|out| list(out, &json!({"jobs": []})).expect("memory"));
        assert!(none.contains("jobs submit"), "{none}");
        let none = shown(|out| list(out, &json!({"jobs": [], "before": 7})).expect("memory"));
        assert!(none.contains("--before 7"), "{none}");
    }

    #[test]
    fn a_job_shows_its_timeline() {
        let found = json!({"id": 1, "description": "d", "state": "complete", "message": "41", "timeline": [
            {"at": "2026-11-22T10:00:00.123456Z", "what": "accepted", "text": "accepted", "detail": "uid"}]});
        let text = shown(|out| job(out, &found).expect("memory"));
        assert!(text.starts_with("job 1: d\ncomplete: 41\n"), "{text}");
        assert!(text.contains("10:00:00.123  accepted  accepted\n"), "{text}");
        assert!(shown(|out| entry(out, &json!({})).expect("memory")).starts_with("-  -"));
    }
}

//! `dispatcher obligations`: a client of the native API.

use std::io::Write;

use serde_json::Value;

use super::client::{Error, Target};
use super::jobs::{print, text};
use super::table;
use crate::model::ObligationState;

/// Shows what is looked for at clouds after jobs ended, and what was found
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Only those in this state: watched, taking-back, needs-you or closed
    #[arg(long)]
    state: Option<ObligationState>,
    /// Only those of this job
    #[arg(long)]
    job: Option<i64>,
    /// Closed ones too
    #[arg(long)]
    closed: bool,
}

impl Args {
    fn path(&self) -> String {
        let mut terms: Vec<String> = Vec::new();
        terms.extend(self.state.map(|state| format!("state={state}")));
        terms.extend(self.job.map(|job| format!("job={job}")));
        terms.extend(self.closed.then(|| "closed=true".to_owned()));
        let query = if terms.is_empty() { String::new() } else { format!("?{}", terms.join("&")) };
        format!("/api/v1/obligations{query}")
    }
}

/// Lists them.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    let answer = client.get(&args.path()).await?;
    if args.json {
        print(out, &answer)?;
    } else {
        list(out, &answer)?;
    }
    Ok(0)
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let all = answer.get("obligations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        writeln!(out, "nothing is looked for")?;
        return Ok(());
    }
    let fields = ["job", "account", "region", "state", "looks", "lookAt", "lookUntil"];
    let line = |one: &Value| -> Vec<String> {
        fields.iter().map(|field| text(one, field)).chain([found(one), text(one, "tag")]).collect()
    };
    let rows: Vec<Vec<String>> = all.iter().map(line).collect();
    let heads = ["JOB", "ACCOUNT", "REGION", "STATE", "LOOKS", "NEXT LOOK", "UNTIL", "FOUND", "TAG"];
    Ok(table::write(out, &heads, &rows)?)
}

/// What the last look found, or why it was not answered.
fn found(one: &Value) -> String {
    let things = one.get("found").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let said = |thing: &Value| {
        format!("{} {}: {}", text(thing, "resource"), text(thing, "state"), text(thing, "text"))
    };
    let last = one.get("record").and_then(Value::as_array).and_then(|looks| looks.last());
    let failed = last.is_some_and(|look| look.get("answered") == Some(&Value::Bool(false)));
    match last {
        Some(look) if failed || things.is_empty() => text(look, "text"),
        _ => table::clean(&things.iter().map(said).collect::<Vec<_>>().join("; "), 400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, list};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn filters_become_the_query_and_a_wrong_state_names_the_right_ones() {
        let line = ["obligations", "--state", "needs-you", "--job", "7", "--closed", "--json"];
        let args = Line::try_parse_from(line).expect("good").args;
        assert_eq!(args.path(), "/api/v1/obligations?state=needs-you&job=7&closed=true");
        assert_eq!(Line::try_parse_from(["obligations"]).expect("good").args.path(), "/api/v1/obligations");
        let error = Line::try_parse_from(["obligations", "--state", "open"]).expect_err("bad").to_string();
        assert!(error.contains("needs-you"), "{error}");
    }

    #[test]
    fn what_was_found_or_failed_stands_in_one_line_each() {
        let seen = json!({"job": 7, "state": "taking-back", "tag": "t", "looks": 2, "found": [
            {"resource": "i-1", "state": "RUNNING", "text": "job 9 takes it back"}],
            "record": [{"at": "a", "answered": true, "text": "i-1"}]});
        let failed = json!({"job": null, "state": "watched", "tag": "u", "looks": 0, "found": [],
            "record": [{"at": "a", "answered": false, "text": "cannot look: no route"}]});
        let mut out = Vec::new();
        list(&mut out, &json!({"obligations": [seen, failed]})).expect("memory");
        list(&mut out, &json!({"obligations": []})).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        for part in ["i-1 RUNNING: job 9 takes it back", "cannot look: no route", "nothing is looked for\n"] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}

//! `dispatcher actors` and `dispatcher health`: how the process is that answers.

use std::io::Write;

use serde_json::Value;

use super::client::{Error, Target};
use super::jobs::{escaped, print, text};
use super::{servers, table};

/// What a command ends with that found something not well.
const NOT_WELL: u8 = 3;

/// Where to ask, and how to show it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Which actors to show.
#[derive(Debug, clap::Args)]
pub(super) struct Actors {
    #[command(flatten)]
    args: Args,
    /// Only actors of this kind
    #[arg(long, conflicts_with = "actor")]
    kind: Option<String>,
    /// One actor in full
    #[arg(value_name = "KIND/KEY")]
    actor: Option<String>,
}

impl Actors {
    fn path(&self) -> Result<String, Error> {
        match (&self.kind, &self.actor) {
            (None, None) => Ok("/api/v1/actors".to_owned()),
            (Some(kind), _) => Ok(format!("/api/v1/actors?kind={}", escaped(kind))),
            (None, Some(actor))
                if actor.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) =>
            {
                let parts: Vec<String> = actor.split('/').map(escaped).collect();
                Ok(format!("/api/v1/actors/{}", parts.join("/")))
            }
            (None, Some(actor)) => Err(Error::Usage(format!(
                "\"{actor}\" names no actor; write KIND/KEY as \"dispatcher actors\" lists them, or --kind {actor}"
            ))),
        }
    }
}

fn all<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Shows the actors.
pub(super) async fn actors(wish: &Actors, out: &mut dyn Write) -> Result<u8, Error> {
    let path = wish.path()?;
    let answer = wish.args.target.client()?.get(&path).await?;
    match (wish.args.json, &wish.actor) {
        (true, _) => print(out, &answer)?,
        (false, Some(actor)) => {
            writeln!(out, "actor {}: {}", table::clean(actor, 200), text(&answer, "state"))?;
            servers::facts(out, &answer)?;
        }
        (false, None) => actors_of(out, &answer)?,
    }
    Ok(0)
}

fn actors_of(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let fields = [
        "kind",
        "count",
        "ill",
        "deepestMailbox",
        "oldestSince",
        "restarts",
        "panics",
        "handled",
        "handlerP99Micros",
    ];
    let rows: Vec<Vec<String>> = all(answer, "kinds")
        .iter()
        .map(|kind| fields.iter().map(|field| text(kind, field)).collect())
        .collect();
    let headings = ["KIND", "ACTORS", "DOWN", "DEEPEST", "OLDEST", "RESTARTS", "PANICS", "HANDLED", "P99 US"];
    table::write(out, &headings, &rows)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> = all(answer, "actors").iter().map(actor).collect();
    table::write(out, &["KIND", "KEY", "STATE", "WAITING", "NOW", "SINCE", "RESTARTS", "LAST PANIC"], &rows)?;
    writeln!(out)?;
    let fields = ["name", "lagMs", "red"];
    let rows: Vec<Vec<String>> = all(answer, "arbiters")
        .iter()
        .map(|arbiter| fields.iter().map(|field| text(arbiter, field)).collect())
        .collect();
    Ok(table::write(out, &["ARBITER", "LAG MS", "RED"], &rows)?)
}

fn actor(actor: &Value) -> Vec<String> {
    let message = actor.get("message").unwrap_or(&Value::Null);
    let (name, since) = (text(message, "name"), text(message, "since"));
    let of = |field| text(actor, field);
    vec![of("kind"), of("key"), of("state"), of("mailbox"), name, since, of("restarts"), of("lastPanic")]
}

/// Shows the parts; ends with 3 when the process may take no work.
pub(super) async fn health(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let answer = args.target.client()?.get("/api/v1/health").await?;
    if args.json {
        print(out, &answer)?;
    } else {
        health_of(out, &answer)?;
    }
    Ok(if is_well(&answer) { 0 } else { NOT_WELL })
}

fn is_well(answer: &Value) -> bool {
    answer.get("ok").and_then(Value::as_bool).unwrap_or(false)
}

fn health_of(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    writeln!(out, "{}", text(answer, "mode"))?;
    for mode in all(answer, "modes") {
        let of = |field| text(mode, field);
        writeln!(out, "  {} since {}: {}", of("mode"), of("since"), of("reason"))?;
        writeln!(out, "    {}", of("sees"))?;
    }
    for (said, field) in [("works", "works"), ("waits", "waits")] {
        for word in all(answer, field).iter().filter_map(Value::as_str) {
            writeln!(out, "  {said}: {word}")?;
        }
    }
    writeln!(out)?;
    let fields = ["part", "state", "since", "reason"];
    let rows: Vec<Vec<String>> = all(answer, "parts")
        .iter()
        .map(|part| fields.iter().map(|field| text(part, field)).collect())
        .collect();
    table::write(out, &["PART", "STATE", "SINCE", "WHY"], &rows)?;
    if !is_well(answer) {
        writeln!(out, "not ready: look into the log for the parts above, and at \"dispatcher actors\"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Actors, actors_of, health_of, is_well};
    use clap::Parser;
    use serde_json::json;

    #[test]
    fn actors_show_what_they_do_and_what_they_died_of() {
        let answer = json!({"kinds": [{"kind": "job", "count": 1, "ill": 0, "deepestMailbox": 2, "oldestSince": null,
             "restarts": 1, "panics": 1, "handled": 9, "handlerP99Micros": 64}], "actors": [
            {"kind": "job", "key": "ab", "state": "running", "mailbox": 2,
             "message": {"name": "Wake", "since": "2026-11-22T10:00:00Z"}, "restarts": 1, "lastPanic": "boom"},
            {"kind": "registry", "key": "cd", "state": "running", "mailbox": 0, "message": null, "restarts": 0,
             "lastPanic": null}],
            "arbiters": [{"name": "jobs", "lagMs": 3, "red": false}]});
        let mut out = Vec::new();
        actors_of(&mut out, &answer).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(
            shown.contains("job   1       0     2        -       1         1       9        64"),
            "{shown}"
        );
        assert!(shown.contains("Wake  2026-11-22T10:00:00Z  1         boom"), "{shown}");
        assert!(shown.contains("registry  cd   running  0        -"), "{shown}");
        assert!(shown.contains("jobs     3       false"), "{shown}");
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        actors: Actors,
    }

    #[test]
    fn one_actor_is_named_by_kind_and_key() {
        let path = |words: &[&str]| {
            let words = std::iter::once("actors").chain(words.iter().copied());
            Line::try_parse_from(words).expect("good").actors.path()
        };
        assert_eq!(path(&[]).expect("all"), "/api/v1/actors");
        assert_eq!(path(&["--kind", "job"]).expect("a kind"), "/api/v1/actors?kind=job");
        assert_eq!(path(&["agent/7#1"]).expect("one"), "/api/v1/actors/agent/7%231");
        assert_eq!(path(&["monitor/monitor/ab"]).expect("one"), "/api/v1/actors/monitor/monitor/ab");
        assert!(path(&["job"]).expect_err("no key").to_string().contains("--kind job"));
    }

    #[test]
    fn what_is_not_well_says_where_to_look() {
        let mut out = Vec::new();
        let ill = json!({"ok": false, "mode": "provisioning database away", "works": ["health and metrics"],
            "waits": ["submits: refused at once"], "modes": [{"mode": "provisioning database away", "since": "s",
            "reason": "away: gone", "sees": "submits are refused at once"}],
            "parts": [{"part": "store", "state": "red", "since": "s", "reason": "gone"}]});
        health_of(&mut out, &ill).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(
            shown.contains("store  red    s      gone") && shown.contains("dispatcher actors"),
            "{shown}"
        );
        assert!(
            shown.starts_with(
                "provisioning database away\n  provisioning database away since s: away: gone\n"
            ),
            "{shown}"
        );
        assert!(shown.contains("works: health and metrics\n  waits: submits: refused at once\n"), "{shown}");
        assert!(!is_well(&ill) && is_well(&json!({"ok": true})) && !is_well(&json!({})));
    }
}

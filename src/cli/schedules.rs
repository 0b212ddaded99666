//! `dispatcher schedules …`: a client of the native API.

use std::io::Write;

use serde_json::{Value, json};

use super::client::{Error, Target};
use super::jobs::{print, text};
use super::{follow, servers, table};
use crate::model::Uid;

/// Submits jobs again and again, by cron expressions.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List schedules
    List,
    /// Show one schedule
    Show(One),
    /// Make a schedule
    Add(Add),
    /// Have it fire again, from its next time on
    Enable(One),
    /// Have it fire no more until it is enabled
    Disable(One),
    /// Submit its job now
    Fire(One),
    /// Take it away; its jobs stay
    Remove(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// Number of the schedule
    schedule: i64,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Its name
    name: String,
    /// When, in UTC: minute hour day-of-month month day-of-week, or @daily and the like
    #[arg(long)]
    cron: String,
    /// The job as JSON, as POST /api/v1/jobs takes it
    #[arg(long, value_parser = object)]
    job: Value,
    /// What becomes of a time that passed while nobody could fire: skip it, or make up for it once
    #[arg(long, default_value = "skip", value_parser = ["skip", "once"])]
    misfire: String,
    /// Make it, but do not have it fire yet
    #[arg(long)]
    disabled: bool,
}

fn object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err("it must be an object, such as {\"kind\":\"noop\"}".to_owned())
    }
}

impl Add {
    fn body(&self) -> Value {
        json!({
            "name": self.name, "cron": self.cron, "job": self.job, "misfire": self.misfire,
            "enabled": !self.disabled,
        })
    }
}

/// Carries out a command.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    let path = |one: &One, verb: &str| format!("/api/v1/schedules/{}{verb}", one.schedule);
    let (path, wish) = match &args.command {
        Command::List => {
            let answer = client.get("/api/v1/schedules").await?;
            if args.json {
                print(out, &answer)?;
            } else {
                list(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Show(which) => {
            let answer = client.get(&path(which, "")).await?;
            if args.json {
                print(out, &answer)?;
            } else {
                one(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Remove(which) => {
            client.delete(&path(which, "")).await?;
            if args.json {
                print(out, &json!({ "id": which.schedule, "removed": true }))?;
            } else {
                writeln!(out, "schedule {} is gone; its jobs stay", which.schedule)?;
            }
            return Ok(0);
        }
        Command::Add(wish) => ("/api/v1/schedules".to_owned(), wish.body()),
        Command::Enable(which) => (path(which, "/enable"), json!({})),
        Command::Disable(which) => (path(which, "/disable"), json!({})),
        Command::Fire(which) => (path(which, "/fire"), json!({})),
    };
    let answer = follow::once(&client, &path, &wish, &Uid::random().to_string()).await?;
    match &args.command {
        _ if args.json => print(out, &answer)?,
        Command::Fire(_) => {
            let id = text(&answer, "id");
            writeln!(out, "job {id} accepted; watch it with \"dispatcher jobs watch {id}\"")?;
        }
        _ => one(out, &answer)?,
    }
    Ok(0)
}

fn one(out: &mut dyn Write, schedule: &Value) -> Result<(), Error> {
    let next = match schedule.get("nextAt").and_then(Value::as_str) {
        Some(at) => format!("fires next at {at}"),
        None => "fires no more until it is enabled".to_owned(),
    };
    writeln!(out, "schedule {}: {}; {next}", text(schedule, "id"), text(schedule, "name"))?;
    servers::facts(out, schedule)
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let found = answer.get("schedules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if found.is_empty() {
        writeln!(out, "no schedule; make one with \"dispatcher schedules add NAME --cron … --job …\"")?;
        return Ok(());
    }
    let fields = ["id", "name", "cron", "nextAt", "lastAt", "lastJob", "description"];
    let rows: Vec<Vec<String>> =
        found.iter().map(|row| fields.iter().map(|field| text(row, field)).collect()).collect();
    Ok(table::write(out, &["ID", "NAME", "CRON", "NEXT", "LAST", "LAST JOB", "JOB"], &rows)?)
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, list, one};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        schedules: Args,
    }

    #[test]
    fn a_schedule_has_a_name_a_time_and_a_job() {
        let line = ["schedules", "add", "nightly", "--cron", "30 3 * * *", "--job", r#"{"kind":"noop"}"#];
        let args = Line::try_parse_from(line).expect("good").schedules;
        let Command::Add(wish) = args.command else { panic!("no schedule") };
        let body = json!({"name": "nightly", "cron": "30 3 * * *", "job": {"kind": "noop"},
            "misfire": "skip", "enabled": true});
        assert_eq!(wish.body(), body);
        for bad in [
            &["schedules", "add", "n", "--cron", "@daily"][..],
            &["schedules", "add", "n", "--cron", "@daily", "--job", "noop"],
            &["schedules", "add", "n", "--cron", "@daily", "--job", "[]"],
            &["schedules", "fire", "nightly"],
        ] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn schedules_are_a_table_and_one_says_when_it_fires() {
        let schedule = json!({"id": 7, "name": "nightly", "cron": "@daily", "nextAt": "t", "lastJob": null});
        let mut out = Vec::new();
        list(&mut out, &json!({"schedules": [schedule]})).expect("memory");
        one(&mut out, &schedule).expect("memory");
        one(&mut out, &json!({"id": 8, "name": "n", "nextAt": null})).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.starts_with("ID  NAME     CRON"), "{shown}");
        assert!(shown.contains("fires next at t") && shown.contains("until it is enabled"), "{shown}");
    }
}

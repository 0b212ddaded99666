//! `dispatcher limits …`: a client of the native API.

use std::io::Write;

use serde_json::{Value, json};

use super::client::{Error, Target};
use super::jobs::{duration, escaped, print, text};
use super::{follow, table};
use crate::model::Uid;

/// Bounds how many jobs of an account are at work together, and how many start in which time.
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
    /// List limits with their use, learned ones too
    List {
        /// Only those of this account
        #[arg(long)]
        account: Option<i64>,
    },
    /// Set the limit of an account, or of a kind within it, in the place of the one before
    Set(Set),
    /// Take a limit away: what it alone held begins at once
    Clear {
        /// Number of the account
        account: i64,
        /// Only the limit of this kind within the account
        #[arg(long)]
        kind: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Number of the account
    account: i64,
    /// Only jobs of this kind, such as launch-server
    #[arg(long)]
    kind: Option<String>,
    /// Jobs at work at the same time
    #[arg(long, value_name = "N", required_unless_present = "rate")]
    together: Option<u32>,
    /// Starts in a time, such as 10/1s, 30/1m
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    rate: Option<(u32, u64)>,
    /// Starts that may come at once; 1 where absent
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Why, in your words
    #[arg(long, default_value = "")]
    reason: String,
}

/// A rate such as `10/1s`, `30/1m`; a bare number counts seconds as one.
fn rate(typed: &str) -> Result<(u32, u64), String> {
    let (starts, time) = typed.split_once('/').unwrap_or((typed, "1s"));
    let starts = starts.parse().ok().filter(|starts| *starts > 0);
    let starts = starts.ok_or_else(|| format!("\"{typed}\" is no rate; write one like 10/1s, 30/1m"))?;
    Ok((starts, duration(time)?.as_secs()))
}

/// Carries out a command.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    match &args.command {
        Command::List { account } => {
            let answer = of_account(client.get("/api/v1/limits").await?, *account);
            if args.json {
                print(out, &answer)?;
            } else {
                list(out, &answer)?;
            }
        }
        Command::Set(wish) => {
            let key = Uid::random().to_string();
            let set = follow::once(&client, "/api/v1/limits", &wish.body(), &key).await?;
            if args.json {
                print(out, &set)?;
            } else {
                let (work, waits) = (text(&set, "atWork"), text(&set, "waiting"));
                writeln!(out, "{}: {}; {work} at work, {waits} waiting", whose(&set), what(&set))?;
            }
        }
        Command::Clear { account, kind } => {
            let only = kind.as_ref().map(|kind| format!("?kind={}", escaped(kind))).unwrap_or_default();
            client.delete(&format!("/api/v1/limits/{account}{only}")).await?;
            if args.json {
                print(out, &json!({ "account": account, "kind": kind, "cleared": true }))?;
            } else {
                let gone = json!({ "account": account, "kind": kind });
                writeln!(out, "{} has no limit any more; what it held begins", whose(&gone))?;
            }
        }
    }
    Ok(0)
}

impl Set {
    fn body(&self) -> Value {
        json!({
            "account": self.account,
            "kind": self.kind,
            "together": self.together,
            "starts": self.rate.map(|(starts, _)| starts),
            "seconds": self.rate.map(|(_, seconds)| seconds),
            "burst": self.burst,
            "reason": self.reason,
        })
    }
}

/// The limits of one account only, where one is named.
fn of_account(mut answer: Value, account: Option<i64>) -> Value {
    if let (Some(account), Some(limits)) = (account, answer.get_mut("limits").and_then(Value::as_array_mut)) {
        limits.retain(|limit| limit.get("account").and_then(Value::as_i64) == Some(account));
    }
    answer
}

fn whose(limit: &Value) -> String {
    match limit.get("kind").and_then(Value::as_str) {
        Some(kind) => format!("{kind} of account {}", text(limit, "account")),
        None => format!("account {}", text(limit, "account")),
    }
}

/// What a limit allows, in words.
fn what(limit: &Value) -> String {
    let together =
        limit.get("together").and_then(Value::as_i64).map(|most| format!("at most {most} at work together"));
    let rate = limit.get("rate").filter(|rate| rate.is_object()).map(|rate| {
        let (starts, seconds) = (text(rate, "starts"), text(rate, "seconds"));
        format!("{starts} starts in {seconds} s, {} at once", text(rate, "burst"))
    });
    let learned = limit.get("learned").filter(|learned| learned.is_object()).map(|learned| {
        format!("{} for now: throttled {}", text(learned, "text"), text(learned, "throttledAt"))
    });
    let all: Vec<String> = [together, rate, learned].into_iter().flatten().collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let limits = answer.get("limits").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if limits.is_empty() {
        writeln!(out, "nothing is limited")?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = limits
        .iter()
        .map(|limit| {
            let used = |field| text(limit, field);
            vec![
                used("account"),
                used("kind"),
                what(limit),
                used("atWork"),
                used("waiting"),
                used("by"),
                used("reason"),
            ]
        })
        .collect();
    Ok(table::write(out, &["ACCOUNT", "KIND", "LIMIT", "AT WORK", "WAITING", "BY", "REASON"], &rows)?)
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, list, of_account, rate, whose};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: Args,
    }

    #[test]
    fn a_limit_bounds_work_or_starts() {
        let line = ["limits", "set", "300", "--together", "4", "--rate", "30/1m", "--burst", "5", "--json"];
        let args = Line::try_parse_from(line).expect("good").limits;
        let Command::Set(wish) = args.command else { panic!("no limit") };
        assert_eq!(
            wish.body(),
            json!({"account": 300, "kind": null, "together": 4, "starts": 30, "seconds": 60, "burst": 5, "reason": ""})
        );
        for bad in [
            &["limits", "set", "300"][..],
            &["limits", "set", "300", "--burst", "2", "--together", "1"],
            &["limits", "set", "300", "--rate", "0/1s"],
            &["limits", "set", "300", "--rate", "10/1w"],
            &["limits", "clear"],
        ] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
        assert_eq!(rate("7"), Ok((7, 1)));
    }

    #[test]
    fn limits_are_a_table_in_words() {
        let answer = json!({"limits": [
            {"account": 300, "kind": null, "together": 4, "rate": {"starts": 10, "seconds": 60, "burst": 1},
             "learned": {"text": "2 calls a second", "throttledAt": "t"}, "atWork": 4, "waiting": 12, "by": "ann", "reason": ""},
            {"account": 301, "kind": "noop", "together": 1, "rate": null, "learned": null, "atWork": 0, "waiting": 0,
             "by": "ann", "reason": "r"},
        ]});
        let mut out = Vec::new();
        list(&mut out, &answer).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        let told =
            "at most 4 at work together; 10 starts in 60 s, 1 at once; 2 calls a second for now: throttled t";
        assert!(shown.starts_with("ACCOUNT  KIND") && shown.contains(told), "{shown}");
        assert_eq!(of_account(answer.clone(), Some(301))["limits"].as_array().map(Vec::len), Some(1));
        assert_eq!(whose(&answer["limits"][1]), "noop of account 301");
        let mut out = Vec::new();
        list(&mut out, &json!({"limits": []})).expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "nothing is limited\n");
    }
}

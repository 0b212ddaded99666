//! `dispatcher pauses …`: a client of the native API.

use std::io::Write;

use serde_json::{Value, json};

use super::client::{Error, Target};
use super::jobs::{print, text};
use super::{follow, table};
use crate::model::Uid;

/// Holds kinds of jobs, or those of an account, and lets them go again.
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
    /// List pauses
    List,
    /// Begin no more jobs of a kind or an account; what is at work goes on
    Add(Add),
    /// End a pause: what it held begins at once
    Remove {
        /// Number of the pause
        pause: i64,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Kind of job, such as launch-server
    #[arg(long, required_unless_present = "account")]
    kind: Option<String>,
    /// Number of the account; with --kind, only jobs that have both
    #[arg(long)]
    account: Option<i64>,
    /// Why, in your words
    #[arg(long, default_value = "")]
    reason: String,
}

/// Carries out a command.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    match &args.command {
        Command::List => {
            let answer = client.get("/api/v1/pauses").await?;
            if args.json {
                print(out, &answer)?;
            } else {
                list(out, &answer)?;
            }
        }
        Command::Add(wish) => {
            let key = Uid::random().to_string();
            let made = follow::once(&client, "/api/v1/pauses", &wish.body(), &key).await?;
            if args.json {
                print(out, &made)?;
            } else {
                let id = text(&made, "id");
                writeln!(out, "pause {id}: {}; end it with \"dispatcher pauses remove {id}\"", held(&made))?;
            }
        }
        Command::Remove { pause } => {
            client.delete(&format!("/api/v1/pauses/{pause}")).await?;
            if args.json {
                print(out, &json!({ "id": pause, "ended": true }))?;
            } else {
                writeln!(out, "pause {pause} has ended; what it held begins")?;
            }
        }
    }
    Ok(0)
}

impl Add {
    fn body(&self) -> Value {
        json!({ "kind": self.kind, "account": self.account, "reason": self.reason })
    }
}

/// What a pause holds, in words.
fn held(pause: &Value) -> String {
    match (pause.get("kind").and_then(Value::as_str), pause.get("account").and_then(Value::as_i64)) {
        (Some(kind), Some(account)) => format!("no {kind} of account {account} begins"),
        (Some(kind), None) => format!("no {kind} begins"),
        (None, account) => format!("no job of account {} begins", account.unwrap_or_default()),
    }
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let pauses = answer.get("pauses").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if pauses.is_empty() {
        writeln!(out, "nothing is paused")?;
        return Ok(());
    }
    let fields = ["id", "kind", "account", "by", "since", "reason"];
    let rows: Vec<Vec<String>> =
        pauses.iter().map(|pause| fields.iter().map(|field| text(pause, field)).collect()).collect();
    Ok(table::write(out, &["ID", "KIND", "ACCOUNT", "BY", "SINCE", "REASON"], &rows)?)
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, held, list};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        pauses: Args,
    }

    #[test]
    fn a_pause_needs_a_kind_or_an_account() {
        let line = ["pauses", "add", "--kind", "noop", "--account", "300", "--reason", "night", "--json"];
        let args = Line::try_parse_from(line).expect("good").pauses;
        assert!(args.json);
        let Command::Add(wish) = args.command else { panic!("no pause") };
        assert_eq!(wish.body(), json!({"kind": "noop", "account": 300, "reason": "night"}));
        for bad in [&["pauses", "add"][..], &["pauses", "add", "--reason", "x"], &["pauses", "remove", "x"]] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pauses_are_a_table_in_words() {
        let pause = json!({"id": 7, "kind": "noop", "account": null, "by": "k", "since": "t", "reason": ""});
        assert_eq!(held(&pause), "no noop begins");
        assert_eq!(held(&json!({"account": 3})), "no job of account 3 begins");
        let mut out = Vec::new();
        list(&mut out, &json!({"pauses": [pause]})).expect("memory");
        list(&mut out, &json!({"pauses": []})).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.starts_with("ID  KIND  ACCOUNT") && shown.ends_with("nothing is paused\n"), "{shown}");
    }
}

//! `dispatcher jobs …`: a client of the native API.

mod show;
mod submit;
mod watch;

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Error, Target};
use super::follow::{self, Follow};
use super::table;
use crate::model::Uid;

/// Asks for jobs and looks at them.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    /// Ask for an action
    Submit(Box<submit::Args>),
    /// List jobs, newest first
    List(List),
    /// Show one job with its timeline
    Show {
        /// Number of the job
        id: i64,
    },
    /// Show a job's timeline as it happens; ends with the job
    Watch {
        /// Number of the job
        id: i64,
        /// Longest wait, such as 90s, 10m, 2h
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Say in one sentence what a job waits for, or how it ended
    Why {
        /// Number of the job
        id: i64,
    },
    /// Ask for the cancel of a job
    Cancel {
        /// Number of the job
        id: i64,
    },
    /// Ask for the same as an ended job once more
    Retry {
        /// Number of the job
        id: i64,
        #[command(flatten)]
        follow: Follow,
    },
    /// End a quarantined job by your word; it is kept as evidence
    Resolve(Resolve),
    /// Print what a job's command wrote
    Output {
        /// Number of the job
        id: i64,
        /// Which stream
        #[arg(long, default_value = "stdout", value_parser = ["stdout", "stderr"])]
        stream: String,
        /// Start at this byte
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Resolve {
    /// Number of the job
    id: i64,
    /// How it ended
    #[arg(value_parser = ["complete", "failed", "cancelled", "unresolved"])]
    outcome: String,
    /// How you know
    #[arg(long)]
    reason: String,
    /// Makes repeats of this command one; made up where absent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    /// What to search for, such as "state:failed class:auth newer:1d"; the same text as in the console
    #[arg(long, value_name = "QUERY", allow_hyphen_values = true)]
    q: Option<String>,
    /// Only these states, separated by commas; "open" stands for all that have not ended
    #[arg(long)]
    state: Option<String>,
    /// Only these kinds, separated by commas; a star at the end stands for any ending
    #[arg(long)]
    kind: Option<String>,
    /// Only jobs about this server
    #[arg(long)]
    server: Option<i64>,
    /// Only jobs older than this number
    #[arg(long)]
    before: Option<i64>,
    /// At most so many, up to 500
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
}

/// Carries out a command and says what the process ends with.
///
/// 0 is done or complete, 3 a failed job, 4 one that was cancelled or whose outcome stayed unknown. Stopping it in the
/// middle stops the showing, never a job.
///
/// # Errors
/// See [`Error`]; [`Error::exit_code`] is then what the process ends with.
pub async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let (client, as_json) = (args.target.client()?, args.json);
    let show = |write: fn(&mut dyn Write, &Value) -> Result<(), Error>| if as_json { print } else { write };
    match &args.command {
        Command::Submit(submit) => return submit::run(&client, submit, as_json, out).await,
        Command::List(list) => show(show::list)(out, &client.get(&list.path()).await?)?,
        Command::Show { id } => {
            let job = client.get(&format!("/api/v1/jobs/{id}")).await?;
            show(show::job)(out, &job)?;
            if !as_json && job.get("children").is_some() {
                let children = client.get(&format!("/api/v1/jobs?q=parent%3A{id}&limit=500")).await?;
                show::children(out, &children)?;
            }
        }
        Command::Why { id } => {
            show(show::sentence)(out, &client.get(&format!("/api/v1/jobs/{id}/why")).await?)?;
        }
        Command::Watch { id, timeout } => return watch(&client, (*id, *timeout), as_json, out).await,
        Command::Cancel { id } => {
            let key = Uid::random().to_string();
            let path = format!("/api/v1/jobs/{id}/cancel");
            show(show::cancelled)(out, &follow::once(&client, &path, &Value::Null, &key).await?)?;
        }
        Command::Retry { id, follow } => {
            let path = format!("/api/v1/jobs/{id}/retry");
            return Ok(follow.ask(&client, (&path, Value::Null), as_json, out).await?.code);
        }
        Command::Resolve(resolve) => {
            let job = resolve.send(&client).await?;
            show(show::resolved)(out, &job)?;
            return Ok(if text(&job, "state") == resolve.outcome { 0 } else { 4 });
        }
        Command::Output { id, stream, from } => show::output(&client, out, *id, stream, *from).await?,
    }
    Ok(0)
}

/// Shows a job's timeline until it has ended, and says what the process ends with.
pub(super) async fn watch(
    client: &Client,
    (id, timeout): (i64, Option<Duration>),
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    watch::run(client, id, timeout, as_json, out).await
}

impl Resolve {
    async fn send(&self, client: &Client) -> Result<Value, Error> {
        let path = format!("/api/v1/jobs/{}/resolve", self.id);
        let body = serde_json::json!({ "outcome": self.outcome, "reason": self.reason });
        let key = self.idempotency_key.clone().unwrap_or_else(|| Uid::random().to_string());
        follow::once(client, &path, &body, &key).await
    }
}

impl List {
    fn path(&self) -> String {
        let mut query = vec![format!("limit={}", self.limit)];
        let mut add = |name: &str, value: Option<String>| {
            query.extend(value.map(|value| format!("{name}={}", escaped(&value))));
        };
        add("q", self.q.clone());
        add("state", self.state.clone());
        add("kind", self.kind.clone());
        add("server", self.server.map(|id| id.to_string()));
        add("before", self.before.map(|id| id.to_string()));
        format!("/api/v1/jobs?{}", query.join("&"))
    }
}

/// Percent-encodes all but letters, digits and a few marks that mean nothing in a query.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b',' => {
                done.push(char::from(byte));
            }
            _ => done.push_str(&format!("%{byte:02X}")),
        }
        done
    })
}

/// JSON for programs, as it came.
pub(super) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// The same where text could be shown instead.
pub(super) fn print(out: &mut dyn Write, value: &Value) -> Result<(), Error> {
    Ok(json(out, value)?)
}

/// A time such as `90s`, `10m`, `2h`, `1d`; a bare number means seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let factor = match text.strip_prefix(digits.as_str()) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => 0,
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(factor))
        .filter(|seconds| (1..=31 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("\"{text}\" is no time from 1s to 31d; write one like 90s, 10m, 2h"))
}

/// What the process ends with after a job ended in this state.
fn exit_code(state: &str) -> u8 {
    match state {
        "complete" => 0,
        "failed" => 3,
        _ => 4,
    }
}

/// A field of a job as text; a dash where there is none.
pub(super) fn text(job: &Value, field: &str) -> String {
    match job.get(field) {
        Some(Value::String(text)) => table::clean(text, 400),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => table::clean(&other.to_string(), 400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, duration, escaped, exit_code};
    use clap::Parser;
    use std::time::Duration;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        jobs: Args,
    }

    fn parsed(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(std::iter::once("jobs").chain(line.iter().copied())).map(|line| line.jobs)
    }

    #[test]
    fn the_command_line_is_consistent_and_holds_no_secret() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
        assert!(parsed(&["--secret-key", "x", "list"]).is_err());
        assert!(parsed(&["list", "--limit", "501"]).is_err());
        assert!(parsed(&["list", "--ready-file", "r", "--url", "u"]).is_err());
        let args = parsed(&["list", "--state", "open", "--json"]).expect("good");
        assert!(args.json);
        let Command::List(list) = args.command else { panic!("no list") };
        assert_eq!(list.path(), "/api/v1/jobs?limit=50&state=open");
        let args = parsed(&["list", "--q", "-kind:noop \"a b\""]).expect("good");
        let Command::List(list) = args.command else { panic!("no list") };
        assert_eq!(list.path(), "/api/v1/jobs?limit=50&q=-kind%3Anoop%20%22a%20b%22");
    }

    #[test]
    fn a_retry_has_terms_and_a_word_needs_a_reason() {
        let args = parsed(&["retry", "7", "--wait", "--priority", "-3"]).expect("good");
        assert!(
            matches!(args.command, Command::Retry { id: 7, follow } if follow.wait && follow.priority == Some(-3))
        );
        assert!(parsed(&["retry", "7", "--timeout", "5s"]).is_err());
        assert!(parsed(&["resolve", "7", "failed", "--reason", "gone"]).is_ok());
        assert!(parsed(&["resolve", "7", "failed"]).is_err());
        assert!(parsed(&["resolve", "7", "running", "--reason", "x"]).is_err());
    }

    #[test]
    fn times_have_units_and_limits() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "0", "-1", "1w", "99999999999999999999s", "400d", "ü"] {
            assert!(duration(bad).expect_err(bad).contains("90s"), "{bad}");
        }
    }

    #[test]
    fn ends_have_their_codes_and_queries_are_escaped() {
        assert_eq!(["complete", "failed", "cancelled", "unresolved"].map(exit_code), [0, 3, 4, 4]);
        assert_eq!(escaped("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}

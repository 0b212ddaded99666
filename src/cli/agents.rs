//! `dispatcher agents …`: a client of the native API.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Error, Target};
use super::follow::Follow;
use super::jobs::{duration, print, text};
use super::{guest, servers, table};

/// Looks at agents and runs commands through them.
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
    /// List agents
    List,
    /// Show the agent of a server
    Show {
        /// Number of the server
        server: i64,
    },
    /// Run a command on a server's guest, without a shell; with --wait its output comes as it is written, and this
    /// process ends with the command's exit code
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Number of the server
    server: i64,
    /// Longest run of the command, at most 24h
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration)]
    limit: Duration,
    #[command(flatten)]
    follow: Follow,
    /// Program and arguments, after --
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

/// Carries out a command and says what the process ends with, as with jobs.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    let wish = match &args.command {
        Command::List => {
            let answer = client.get("/api/v1/agents").await?;
            if args.json {
                print(out, &answer)?;
            } else {
                list(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Show { server } => {
            let answer = client.get(&format!("/api/v1/agents/{server}")).await?;
            if args.json {
                print(out, &answer)?;
            } else {
                one(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Run(wish) => wish,
    };
    let path = format!("/api/v1/agents/{}/commands", wish.server);
    let body = json!({ "argv": wish.argv, "timeoutSecs": wish.limit.as_secs() });
    if !wish.follow.wait {
        return Ok(wish.follow.ask(&client, (&path, body), args.json, out).await?.code);
    }
    if args.json {
        let asked = wish.follow.ask(&client, (&path, body), true, out).await?;
        return guest::end(&client, asked.id).await;
    }
    let id = wish.follow.begin(&client, (&path, body)).await?.0;
    guest::follow(&client, id, wish.follow.timeout, out).await
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let agents = answer.get("agents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if agents.is_empty() {
        writeln!(out, "no agent; one enrols with each server that is launched")?;
        return Ok(());
    }
    let fields = ["server", "state", "address", "platform", "version", "session", "lastContact"];
    let rows: Vec<Vec<String>> =
        agents.iter().map(|agent| fields.iter().map(|field| text(agent, field)).collect()).collect();
    let headings = ["SERVER", "STATE", "ADDRESS", "PLATFORM", "VERSION", "SESSION", "LAST CONTACT"];
    Ok(table::write(out, &headings, &rows)?)
}

fn one(out: &mut dyn Write, agent: &Value) -> Result<(), Error> {
    let server = text(agent, "server");
    writeln!(out, "agent of server {server}: {}", text(agent, "state"))?;
    servers::facts(out, agent)?;
    Ok(writeln!(out, "run a command: \"dispatcher agents run {server} --wait -- uname -a\"")?)
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, list, one};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        agents: Args,
    }

    #[test]
    fn a_command_comes_after_two_dashes_as_it_is() {
        let line = ["agents", "run", "7", "--wait", "--limit", "1m", "--", "ls", "--json"];
        let args = Line::try_parse_from(line).expect("good").agents;
        assert!(!args.json);
        let Command::Run(wish) = args.command else { panic!("no run") };
        assert_eq!(
            (wish.server, wish.limit.as_secs(), wish.argv),
            (7, 60, vec!["ls".into(), "--json".into()])
        );
        assert!(wish.follow.wait);
        assert!(Line::try_parse_from(["agents", "run", "7"]).is_err());
    }

    #[test]
    fn agents_are_a_table_and_one_tells_what_to_do_with_it() {
        let agent = json!({"server": 7, "state": "accepted", "address": "127.0.0.1:1", "version": 3});
        let mut out = Vec::new();
        list(&mut out, &json!({"agents": [agent]})).expect("memory");
        one(&mut out, &agent).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.contains("7       accepted  127.0.0.1:1"), "{shown}");
        assert!(shown.contains("agents run 7 --wait"), "{shown}");
    }
}

//! `dispatcher servers …`: a client of the native API.

use std::io::Write;

use serde_json::{Value, json};

use super::client::{Error, Target};
use super::follow::Follow;
use super::jobs::{print, text};
use super::table;

/// Looks at servers and moves them.
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
    /// List servers
    List {
        /// Terminated ones too
        #[arg(long)]
        terminated: bool,
    },
    /// Show one server
    Show {
        /// Number of the server
        server: i64,
    },
    /// Start a stopped server
    Start(Move),
    /// Stop a server
    Stop(Move),
    /// Freeze a server
    Pause(Move),
    /// Destroy a server
    Terminate(Move),
}

#[derive(Debug, clap::Args)]
struct Move {
    /// Number of the server
    server: i64,
    /// Why, in your words
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    follow: Follow,
}

/// Carries out a command and says what the process ends with, as with jobs.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let client = args.target.client()?;
    let (verb, wish) = match &args.command {
        Command::List { terminated } => {
            let answer = client.get(&format!("/api/v1/servers?terminated={terminated}")).await?;
            if args.json {
                print(out, &answer)?;
            } else {
                list(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Show { server } => {
            let answer = client.get(&format!("/api/v1/servers/{server}")).await?;
            if args.json {
                print(out, &answer)?;
            } else {
                one(out, &answer)?;
            }
            return Ok(0);
        }
        Command::Start(wish) => ("start", wish),
        Command::Stop(wish) => ("stop", wish),
        Command::Pause(wish) => ("pause", wish),
        Command::Terminate(wish) => ("terminate", wish),
    };
    let path = format!("/api/v1/servers/{}/{verb}", wish.server);
    let body = json!({ "reason": wish.reason });
    Ok(wish.follow.ask(&client, (&path, body), args.json, out).await?.code)
}

fn list(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    let servers = answer.get("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if servers.is_empty() {
        writeln!(out, "no server; make one with \"dispatcher jobs submit launch NAME\"")?;
        return Ok(());
    }
    let fields = ["id", "name", "status", "privateIp", "publicIp", "resource", "lastContact"];
    let rows: Vec<Vec<String>> =
        servers.iter().map(|server| fields.iter().map(|field| text(server, field)).collect()).collect();
    let headings = ["ID", "NAME", "STATUS", "PRIVATE", "PUBLIC", "RESOURCE", "LAST CONTACT"];
    Ok(table::write(out, &headings, &rows)?)
}

fn one(out: &mut dyn Write, server: &Value) -> Result<(), Error> {
    writeln!(out, "server {}: {}", text(server, "id"), text(server, "name"))?;
    facts(out, server)?;
    let id = text(server, "id");
    Ok(writeln!(out, "its jobs: \"dispatcher jobs list --server {id}\"")?)
}

/// Every field that says something, one a line.
pub(super) fn facts(out: &mut dyn Write, thing: &Value) -> Result<(), Error> {
    for name in thing.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let value = text(thing, name);
        if !matches!(value.as_str(), "-" | "") {
            writeln!(out, "{name:14} {value}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Args, Command, list, one};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        servers: Args,
    }

    #[test]
    fn moves_have_a_reason_and_may_be_followed() {
        let line = ["servers", "stop", "7", "--reason", "night", "--wait", "--timeout", "5m", "--json"];
        let args = Line::try_parse_from(line).expect("good").servers;
        assert!(args.json);
        assert!(matches!(args.command, Command::Stop(wish) if wish.server == 7 && wish.follow.wait));
        for bad in [&["servers", "stop"][..], &["servers", "stop", "web"], &["servers", "reboot", "7"]] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn servers_are_a_table_and_one_is_its_facts() {
        let server =
            json!({"id": 7, "name": "web\u{1b}", "status": "RUNNING", "privateIp": null, "label": ""});
        let mut out = Vec::new();
        list(&mut out, &json!({"servers": [server]})).expect("memory");
        one(&mut out, &server).expect("memory");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.starts_with("ID  NAME  STATUS") && shown.contains("7   web�  RUNNING"), "{shown}");
        assert!(shown.contains("jobs list --server 7") && !shown.contains("label"), "{shown}");
        let mut out = Vec::new();
        list(&mut out, &json!({"servers": []})).expect("memory");
        assert!(String::from_utf8(out).expect("text").contains("submit launch"));
    }
}

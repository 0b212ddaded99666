//! `dispatcher jobs submit …`: asks for an action, once, however often the line breaks meanwhile.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::client::{Client, Error};
use super::super::follow::Follow;
use super::duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    follow: Follow,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Does nothing outside
    Noop {
        /// Kept with the job
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Make a server
    Launch(Launch),
    /// Run a command on a server's guest, without a shell
    Run {
        /// Number of the server
        server: i64,
        /// Longest run of the command, at most 24h
        #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration)]
        limit: Duration,
        /// Program and arguments, after --
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Destroy a server
    Terminate(Server),
    /// Start a stopped server
    Start(Server),
    /// Stop a server
    Stop(Server),
    /// Freeze a server
    Pause(Server),
    /// Many jobs as one: accepted as a whole, ended when all of them have ended
    Group(Group),
}

#[derive(Debug, clap::Args)]
struct Group {
    /// File with a JSON list of jobs, each {"kind": ..., "params": {...}}, or one such object a line; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many of them may be open at the same time; all where absent
    #[arg(long, value_name = "N")]
    together: Option<u16>,
    /// Begin no further one after one has not ended complete
    #[arg(long)]
    stop_on_failure: bool,
    /// In words
    #[arg(long, default_value = "")]
    note: String,
}

impl Group {
    fn params(&self) -> Result<Value, Error> {
        let file = |source| Error::File { what: "jobs", path: self.file.clone(), source };
        let text = if self.file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin().lock())
        } else {
            std::fs::read_to_string(&self.file)
        };
        let children = jobs_in(&text.map_err(file)?).map_err(|e| file(e.into()))?;
        Ok(json!({
            "children": children,
            "together": self.together,
            "stopOnFailure": self.stop_on_failure,
            "note": self.note,
        }))
    }
}

/// A list of jobs, or jobs one after another.
fn jobs_in(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text);
    }
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

#[derive(Debug, clap::Args)]
struct Launch {
    /// Name of the server
    name: String,
    /// Image by number, name or the provider's name; may be left out where there is only one
    #[arg(long)]
    image: Option<String>,
    /// Product (size) by number, name or the provider's name
    #[arg(long)]
    product: Option<String>,
    /// Data centre by number, name or the provider's name
    #[arg(long)]
    data_center: Option<String>,
    /// Region by number, name or the provider's name
    #[arg(long)]
    region: Option<String>,
    /// Billing code by number, name or finance code
    #[arg(long)]
    budget: Option<String>,
    /// In words
    #[arg(long)]
    description: Option<String>,
    /// Colour or icon
    #[arg(long)]
    label: Option<String>,
    /// Key pair at the provider
    #[arg(long)]
    keypair: Option<String>,
    /// File with user data for the first boot
    #[arg(long, value_name = "FILE")]
    user_data_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Server {
    /// Number of the server
    server: i64,
    /// Why, in your words
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn run(
    client: &Client,
    args: &Args,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    let asked = args.follow.ask(client, ("/api/v1/jobs", args.body()?), as_json, out).await?;
    Ok(asked.code)
}

impl Args {
    fn body(&self) -> Result<Value, Error> {
        let (kind, params) = match &self.what {
            What::Noop { note } => ("noop", json!({ "note": note })),
            What::Launch(launch) => ("launch-server", launch.params()?),
            What::Run { server, limit, argv } => {
                ("run-command", json!({ "server": server, "argv": argv, "timeoutSecs": limit.as_secs() }))
            }
            What::Terminate(server) => ("terminate-server", server.params()),
            What::Start(server) => ("start-server", server.params()),
            What::Stop(server) => ("stop-server", server.params()),
            What::Pause(server) => ("pause-server", server.params()),
            What::Group(group) => ("group", group.params()?),
        };
        Ok(json!({ "kind": kind, "params": params }))
    }
}

impl Server {
    fn params(&self) -> Value {
        json!({ "server": self.server, "reason": self.reason })
    }
}

impl Launch {
    fn params(&self) -> Result<Value, Error> {
        let mut params = Map::new();
        let mut add = |name: &str, value: &Option<String>| {
            params.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
        };
        add("name", &Some(self.name.clone()));
        add("image", &self.image);
        add("product", &self.product);
        add("dataCenter", &self.data_center);
        add("region", &self.region);
        add("budget", &self.budget);
        add("description", &self.description);
        add("label", &self.label);
        add("keypair", &self.keypair);
        if let Some(path) = &self.user_data_file {
            let text = std::fs::read_to_string(path).map_err(|source| Error::File {
                what: "user data file",
                path: path.clone(),
                source,
            })?;
            add("userData", &Some(text));
        }
        Ok(Value::Object(params))
    }
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        submit: Args,
    }

    fn body(line: &[&str]) -> Value {
        let words = std::iter::once("submit").chain(line.iter().copied());
        Line::try_parse_from(words)
            .unwrap_or_else(|e| panic!("{line:?}: {e}"))
            .submit
            .body()
            .expect("complete")
    }

    #[test]
    fn what_is_typed_becomes_the_body() {
        assert_eq!(body(&["noop", "--note", "x"]), json!({"kind": "noop", "params": {"note": "x"}}));
        assert_eq!(
            body(&["launch", "web-1", "--product", "small", "--priority", "-3", "--deadline", "10m"]),
            json!({"kind": "launch-server", "params": {"name": "web-1", "product": "small"}})
        );
        assert_eq!(
            body(&["run", "7", "--limit", "1m", "--", "ls", "-l"]),
            json!({"kind": "run-command", "params": {"server": 7, "argv": ["ls", "-l"], "timeoutSecs": 60}})
        );
        for (word, kind) in
            [("terminate", "terminate-server"), ("start", "start-server"), ("stop", "stop-server")]
        {
            assert_eq!(body(&[word, "7"])["kind"], kind);
        }
    }

    #[test]
    fn a_group_is_read_from_a_list_or_from_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let job = json!({"kind": "noop", "params": {"note": "a"}});
        for text in [format!("[{job}, {job}]"), format!("{job}\n{job}\n")] {
            let file = folder.path().join("jobs.json");
            std::fs::write(&file, text).expect("written");
            let name = file.to_str().expect("text");
            assert_eq!(
                body(&["group", name, "--together", "3", "--stop-on-failure"]),
                json!({"kind": "group", "params":
                    {"children": [job, job], "together": 3, "stopOnFailure": true, "note": ""}})
            );
        }
        let words = ["submit", "group", "/nowhere/jobs.json"];
        assert!(Line::try_parse_from(words).expect("a line").submit.body().is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [&["run", "7"][..], &["launch"], &["stop", "web-1"], &["noop", "--timeout", "5m"]] {
            let words = std::iter::once("submit").chain(line.iter().copied());
            assert!(Line::try_parse_from(words).is_err(), "{line:?}");
        }
    }
}

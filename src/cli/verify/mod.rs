//! `dispatcher verify-crash`: proves on the operator's own machine that no accepted job is lost or done twice.
//!
//! It starts a house of real processes, puts it under load, kills and cuts without pause, heals, waits for quiet, and
//! compares three independent sources: what clients wrote down, the rows, and the ledgers of cloud and guests. Only
//! processes that it started itself are touched, each by its number. Nothing here reads a row that it could change.

mod caller;
mod diary;
pub mod guests;
mod house;
mod judge;
#[cfg(test)]
mod judge_tests;
pub mod ledger;
mod load;
mod nemesis;
mod plan;
mod processes;
pub mod proxy;
mod recovery;
mod report;
pub mod rng;
mod scenario;
mod served;
mod trial;

use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::client;
use super::jobs::print;
use crate::config;
use crate::crypto::random_bytes;
use crate::model::Uid;
use crate::ops::failpoint::FAULTS;
use house::{Faults, House};
use nemesis::Broker;
use plan::{Form, Plan, each_place};
use scenario::Scenario;
use served::Servers;

/// Kills and jobs of a usual run, and of one that looks for a deliberate fault.
const USUAL: (u32, u32) = (15, 500);
const FOCUSED: (u32, u32) = (12, 150);
/// What the command ends with that found something.
const FOUND: u8 = 3;

/// Prove on this machine that no accepted job is lost or done twice: kill processes under load and compare what clients
/// were told, the rows, and what cloud and guests did
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// MariaDB or MySQL for schemas of its own, as mysql://user@host:port; without it and --queue embedded parts
    #[arg(long, value_name = "URL", requires = "queue")]
    database: Option<String>,
    /// File whose first line is the database user's password, which only you may read
    #[arg(long, value_name = "FILE", requires = "database")]
    password_file: Option<PathBuf>,
    /// RabbitMQ for queues of its own, as amqp://host:port/vhost
    #[arg(long, value_name = "URL", requires = "database")]
    queue: Option<String>,
    /// File with the broker user's password, which only you may read
    #[arg(long, value_name = "FILE", requires = "queue")]
    queue_password_file: Option<PathBuf>,
    /// Certificates (PEM) trusted for an amqps broker
    #[arg(long, value_name = "FILE", requires = "queue")]
    queue_ca_file: Option<PathBuf>,
    /// Processes of serve, with --database
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Processes of monitor, with --database
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    monitors: u8,
    /// Processes to kill, at least [default: 15]; each named place of the work is a place of death at least once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: Option<u32>,
    /// Deaths at each named place, at least [default: 1, more with many kills, 20 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    each_place: Option<u32>,
    /// Jobs to accept, at least [default: 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: Option<u32>,
    /// Clients that ask without pause
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=64))]
    clients: u8,
    /// Makes the same choices again; timing differs all the same
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How the simulated cloud tells a repeated create: K, S or T; see docs/PROTOCOL.md
    #[arg(long, value_name = "CLASS", value_parser = ["K", "S", "T"])]
    class: Option<String>,
    /// Deliberate faults that must be found, in a build with the feature sabotage; the run is then made for the first
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    faults: Vec<String>,
    /// Run as for a deliberate fault, without it: nothing may be found then
    #[arg(long, value_name = "FAULT", conflicts_with = "faults")]
    like: Option<String>,
    /// List the deliberate faults there are, and which of them need --database
    #[arg(long)]
    list_faults: bool,
    /// Command that stops the broker, run by /bin/sh
    #[arg(long, value_name = "COMMAND", requires_all = ["queue", "start_broker"])]
    stop_broker: Option<String>,
    /// Command that starts it again
    #[arg(long, value_name = "COMMAND", requires = "stop_broker")]
    start_broker: Option<String>,
    /// Folder below which a folder of its own is made
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Keep folder, schemas and queues for a look
    #[arg(long)]
    keep: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What was typed cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// The house cannot be made or held up.
    #[error("{0}")]
    Failed(String),
    /// A file or a process of ours.
    #[error("a file or process of the run")]
    Io(#[from] std::io::Error),
}

impl From<Error> for client::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Usage(text) => Self::Usage(text),
            other => Self::Failed(crate::ops::Chain(&other).to_string()),
        }
    }
}

impl Args {
    fn servers(&self) -> Option<Servers> {
        let (database, url) = (self.database.clone()?, self.queue.clone()?);
        let queue = config::Queue {
            url,
            password_file: self.queue_password_file.clone(),
            ca_file: self.queue_ca_file.clone(),
            prefix: format!("verify-{}", Uid::random()),
            ..config::Queue::default()
        };
        Some(Servers { database, password_file: self.password_file.clone(), queue })
    }

    fn plan(&self, servers: Option<&Servers>) -> Result<Plan, Error> {
        if !self.faults.is_empty() && !cfg!(feature = "sabotage") {
            return Err(Error::Usage(
                "--faults: this program has no deliberate faults in it; build it with --features sabotage"
                    .to_owned(),
            ));
        }
        let form = match servers {
            None => Form::Embedded,
            Some(servers) => Form::Served {
                nodes: self.nodes.into(),
                monitors: self.monitors.into(),
                links: served::links(servers, self.stop_broker.is_some())?,
            },
        };
        let scenario = self.scenario(form)?;
        let count =
            |given: Option<u32>, usual: u32| usize::try_from(given.unwrap_or(usual)).unwrap_or(usize::MAX);
        let focused = scenario.only.is_some();
        let kills = count(self.kills, if focused { FOCUSED.0 } else { USUAL.0 });
        let each = if focused { 1 } else { each_place(kills) };
        Ok(Plan {
            seed: self.seed.unwrap_or_else(|| u64::from(u32::from_le_bytes(random_bytes::<4>()))),
            kills,
            each_place: count(self.each_place, u32::try_from(each).unwrap_or(u32::MAX)),
            jobs: count(self.jobs, if focused { FOCUSED.1 } else { USUAL.1 }),
            clients: self.clients.into(),
            form,
            scenario,
        })
    }

    fn scenario(&self, form: Form) -> Result<Scenario, Error> {
        let mut scenario = match self.faults.first().or(self.like.as_ref()) {
            None => Scenario::default(),
            Some(fault) => Scenario::of_fault(fault).ok_or_else(|| {
                Error::Usage(format!("there is no deliberate fault \"{fault}\"; --list-faults lists them"))
            })?,
        };
        if scenario.served && form == Form::Embedded {
            return Err(Error::Usage(
                "this fault shows between several nodes only; name --database and --queue".to_owned(),
            ));
        }
        match self.class.as_deref() {
            Some("S") => scenario.class = "S",
            Some("T") => scenario.class = "T",
            Some(_) => scenario.class = "K",
            None => {}
        }
        Ok(scenario)
    }

    /// The command that makes the same choices again.
    fn replay(&self, plan: &Plan) -> String {
        let mut words = vec!["dispatcher verify-crash".to_owned()];
        let mut word = |name: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{name} {value}")));
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        word("database", self.database.clone());
        word("password-file", path(&self.password_file));
        word("queue", self.queue.clone());
        word("queue-password-file", path(&self.queue_password_file));
        word("queue-ca-file", path(&self.queue_ca_file));
        let served = self.database.is_some();
        word("nodes", served.then(|| self.nodes.to_string()));
        word("monitors", served.then(|| self.monitors.to_string()));
        word("class", self.class.clone());
        word("faults", Some(self.faults.join(",")).filter(|faults| !faults.is_empty()));
        word("like", self.like.clone());
        word("stop-broker", self.stop_broker.as_ref().map(|command| format!("'{command}'")));
        word("start-broker", self.start_broker.as_ref().map(|command| format!("'{command}'")));
        word("kills", Some(plan.kills.to_string()));
        word("each-place", self.each_place.map(|each| each.to_string()));
        word("jobs", Some(plan.jobs.to_string()));
        word("clients", Some(self.clients.to_string()));
        word("seed", Some(plan.seed.to_string()));
        words.join(" ")
    }
}

/// Makes the house, tries it, and says what was found.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, client::Error> {
    if args.list_faults {
        return list_faults(args.json, out);
    }
    let servers = args.servers();
    let plan = args.plan(servers.as_ref())?;
    let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut typed = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let folder = fresh_folder(args.folder.as_deref())?;
    let faults = Faults { names: args.faults.clone(), lose_every: plan.scenario.lose_every };
    let mut house = match made(&folder, servers, (&plan, &faults)).await {
        Ok(house) => house,
        Err(error) => {
            if !args.keep {
                let _gone = std::fs::remove_dir_all(&folder);
            }
            return Err(error.into());
        }
    };
    let broker = Broker { stop: args.stop_broker.clone(), start: args.start_broker.clone() };
    let tried = tokio::select! {
        tried = trial::run(&mut house, &plan, broker) => tried,
        _ = asked.recv() => Err(Error::Failed("asked to end before there was a verdict".to_owned())),
        _ = typed.recv() => Err(Error::Failed("asked to end before there was a verdict".to_owned())),
    };
    let left = house.clear(args.keep).await;
    let mut run = tried?;
    run.replay = args.replay(&plan);
    run.left = if args.keep { vec![format!("folder {}, as asked", folder.display())] } else { left };
    if args.json {
        print(out, &run.json())?;
    } else {
        run.show(out)?;
    }
    Ok(if run.verdict.is_clean() { 0 } else { FOUND })
}

fn list_faults(json: bool, out: &mut dyn Write) -> Result<u8, client::Error> {
    let served = |name| Scenario::of_fault(name).is_some_and(|scenario| scenario.served);
    if json {
        let all: Vec<_> = FAULTS
            .iter()
            .map(|fault| {
                serde_json::json!({ "name": fault.name, "what": fault.what, "needsServers": served(fault.name) })
            })
            .collect();
        print(out, &all.into())?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = FAULTS
        .iter()
        .map(|fault| {
            let needs = if served(fault.name) { "servers" } else { "-" };
            vec![fault.name.to_owned(), needs.to_owned(), fault.what.to_owned()]
        })
        .collect();
    super::table::write(out, &["FAULT", "NEEDS", "WHAT IT DOES"], &rows)?;
    Ok(0)
}

async fn made(
    folder: &Path,
    servers: Option<Servers>,
    (plan, faults): (&Plan, &Faults),
) -> Result<House, Error> {
    let settings = plan.scenario.cloud_settings(plan.seed);
    match (servers, plan.form) {
        (Some(servers), Form::Served { nodes, monitors, .. }) => {
            served::house(folder, servers, (nodes, monitors), (&settings, faults)).await
        }
        _ => House::embedded(folder, &settings, faults).await,
    }
}

/// A folder that only its owner may look into.
fn fresh_folder(below: Option<&Path>) -> Result<PathBuf, Error> {
    let below = below.map_or_else(std::env::temp_dir, Path::to_path_buf);
    std::fs::create_dir_all(&below)?;
    let folder = below.canonicalize()?.join(format!("dispatcher-verify-{}", Uid::random()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn typed(words: &[&str]) -> Result<Args, clap::Error> {
        let words = std::iter::once("verify-crash").chain(words.iter().copied());
        Line::try_parse_from(words).map(|line| line.args)
    }

    #[test]
    fn servers_are_named_both_or_none() {
        assert!(typed(&["--database", "mysql://u@h"]).is_err());
        assert!(typed(&["--queue", "amqp://h"]).is_err());
        assert!(typed(&["--class", "N"]).is_err());
        let args = typed(&["--database", "mysql://u@h", "--queue", "amqp://127.0.0.1"]).expect("both");
        assert!(args.servers().is_some_and(|servers| servers.queue.prefix.len() <= 40));
    }

    #[test]
    fn the_command_that_replays_names_the_seed_and_every_choice() {
        let args = typed(&["--seed", "7", "--class", "S", "--kills", "20"]).expect("good");
        let plan = args.plan(None).expect("a plan");
        assert_eq!(
            args.replay(&plan),
            "dispatcher verify-crash --class S --kills 20 --jobs 500 --clients 6 --seed 7"
        );
    }

    #[test]
    fn deliberate_faults_need_a_build_that_has_them() {
        let args = typed(&["--faults", "no-look"]).expect("a word");
        assert_eq!(args.plan(None).is_ok(), cfg!(feature = "sabotage"));
    }
}

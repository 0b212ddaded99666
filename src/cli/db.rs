//! `dispatcher db`: makes, looks at and checks the databases of an installation.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::Error;
use super::jobs::print;
use super::{restored, table};
use crate::boot::{ALL_DATABASES, Databases};
use crate::config::{Config, ms};
use crate::ops::Chain;
use crate::store::{Database, Finding, Level, Manager, PROVISIONING, Status};

/// What a command ends with that found something to be done.
pub(super) const TO_DO: u8 = 3;

/// Make, look at and check the databases
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    /// Settings file (TOML) whose section "database" names them
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder with those that are files
    #[arg(long, global = true, value_name = "DIR", default_value = "dispatcher-data")]
    data: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum What {
    /// Make databases that are missing and apply missing migrations; harmless to repeat
    Migrate,
    /// Compare tables and settings with what the program needs, and say what to do; ends with 3 when something is wrong
    Check,
    /// Show where the databases are and which migrations they have; ends with 3 when some are missing
    Status,
    /// Say that the database of jobs was put back to an older state (a restore, a failover that lost commits), so that
    /// guests go on listening; ends with 3 while a process works on it
    Restored,
}

/// One database as it was found.
struct Seen {
    name: &'static str,
    place: String,
    outcome: Result<Told, String>,
}

enum Told {
    Status(Status),
    Findings(Vec<Finding>),
}

impl Seen {
    fn is_well(&self) -> bool {
        match &self.outcome {
            Ok(Told::Status(status)) => status.pending.is_empty() && status.unknown.is_empty(),
            Ok(Told::Findings(findings)) => findings.iter().all(|f| f.level != Level::Error),
            Err(_) => false,
        }
    }

    fn json(&self) -> Value {
        let told = match &self.outcome {
            Ok(Told::Status(status)) => json!({ "migrations": status }),
            Ok(Told::Findings(findings)) => json!({ "findings": findings }),
            Err(error) => json!({ "error": error }),
        };
        let mut whole = json!({ "database": self.name, "at": self.place, "ok": self.is_well() });
        if let (Some(whole), Value::Object(told)) = (whole.as_object_mut(), told) {
            whole.extend(told);
        }
        whole
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |state: &str, what: &str, found: String| {
            vec![self.name.to_owned(), state.to_owned(), what.to_owned(), found]
        };
        match &self.outcome {
            Err(error) => vec![row("error", "connection", error.clone())],
            Ok(Told::Findings(findings)) => {
                findings.iter().map(|f| row(word(f.level), f.what, f.found.clone())).collect()
            }
            Ok(Told::Status(status)) => {
                let list = |title: &str, versions: &[String]| match versions {
                    [] => String::new(),
                    some => format!("; {title} {}", some.join(", ")),
                };
                let text = format!(
                    "{} applied{}{}",
                    status.applied.len(),
                    list("missing", &status.pending),
                    list("unknown", &status.unknown)
                );
                vec![row(if self.is_well() { "ok" } else { "error" }, "migrations", text)]
            }
        }
    }

    fn remedies(&self) -> Vec<String> {
        let remedy = |what: &str, text: &str| format!("{}: {what}: {text}", self.name);
        match &self.outcome {
            Ok(Told::Findings(findings)) => {
                findings.iter().filter(|f| f.level != Level::Ok).map(|f| remedy(f.what, &f.remedy)).collect()
            }
            Ok(Told::Status(status)) if !status.unknown.is_empty() => {
                vec![remedy("migrations", "a newer dispatcher was here; run that one")]
            }
            Ok(Told::Status(status)) if !status.pending.is_empty() => {
                vec![remedy("migrations", "run dispatcher db migrate")]
            }
            Ok(Told::Status(_)) => Vec::new(),
            Err(_) => vec![remedy("connection", "see that the server runs, and that [database] names it")],
        }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

/// Does it for each database, and ends with 3 when something is left to be done.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let config = Config::load_or_default(args.config.as_deref());
    let config = config.map_err(|e| Error::Usage(Chain(&e).to_string()))?;
    let databases = Databases::new(&config.database, &args.data);
    if matches!(args.what, What::Restored) {
        let manager = databases.manager(PROVISIONING).map_err(|e| Error::Usage(Chain(&e).to_string()))?;
        missing(&manager).map_err(Error::Usage)?;
        return restored::run(&manager, ms(config.node.still_ms), args.json, out).await;
    }
    let mut all = Vec::new();
    for which in ALL_DATABASES {
        let manager = databases.manager(which).map_err(|e| Error::Usage(Chain(&e).to_string()))?;
        let outcome = look(args, which, &manager);
        all.push(Seen { name: which.name, place: manager.target().to_string(), outcome });
    }
    show(args, out, &all)?;
    Ok(if all.iter().all(Seen::is_well) { 0 } else { TO_DO })
}

fn look(args: &Args, which: Database, manager: &Manager) -> Result<Told, String> {
    let fault = |error: crate::store::Error| Chain(&error).to_string();
    match args.what {
        What::Migrate if !manager.is_server() => {
            std::fs::create_dir_all(&args.data)
                .map_err(|e| format!("folder {} cannot be made: {e}", args.data.display()))?;
        }
        What::Migrate => manager.create().map_err(fault)?,
        What::Check | What::Status | What::Restored => missing(manager)?,
    }
    let mut connection = manager.open().map_err(fault)?;
    match args.what {
        What::Migrate => which
            .migrate(&mut connection)
            .and_then(|()| which.status(&mut connection))
            .map(Told::Status)
            .map_err(fault),
        What::Status | What::Restored => which.status(&mut connection).map(Told::Status).map_err(fault),
        What::Check => which.check(&mut connection).map(Told::Findings).map_err(fault),
    }
}

/// A look must not make the file it looks for.
fn missing(manager: &Manager) -> Result<(), String> {
    match manager.target() {
        crate::store::Target::File(path) if !std::path::Path::new(path).exists() => {
            Err(format!("there is no file {path}; run dispatcher db migrate, or give --data"))
        }
        _ => Ok(()),
    }
}

fn show(args: &Args, out: &mut dyn Write, all: &[Seen]) -> Result<(), Error> {
    if args.json {
        let all: Vec<Value> = all.iter().map(Seen::json).collect();
        return print(out, &json!({ "databases": all }));
    }
    for seen in all {
        writeln!(out, "{}  {}", seen.name, seen.place)?;
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> = all.iter().flat_map(Seen::rows).collect();
    table::write(out, &["DATABASE", "STATE", "WHAT", "FOUND"], &rows)?;
    let remedies: Vec<String> = all.iter().flat_map(Seen::remedies).collect();
    if !remedies.is_empty() {
        writeln!(out, "\nto do:")?;
        remedies.iter().try_for_each(|remedy| writeln!(out, "- {remedy}"))?;
    }
    Ok(())
}

//! `dispatcher config`: checks settings, shows what is in force and where it came from, prints the reference.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::Error;
use super::jobs::print;
use super::table;
use crate::boot::{self, Role};
use crate::config::{self, Found};
use crate::ops::Chain;

/// What a command ends with that found something to be done.
const TO_DO: u8 = 3;

/// Check settings, and show them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    /// Settings file (TOML), or a folder whose *.toml files are read in the order of their names
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum What {
    /// Name everything that is wrong with the settings; ends with 3 when something is
    Check {
        /// Look also for the keys and files this role needs
        #[arg(long)]
        role: Option<Role>,
    },
    /// Show every setting with its value and where that came from
    Show,
    /// Print all settings with their defaults and what they are for, as a settings file
    Reference,
}

/// Does it.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let found = Found::read(args.config.as_deref(), std::env::vars());
    match args.what {
        What::Reference => {
            out.write_all(config::reference().as_bytes())?;
            Ok(0)
        }
        What::Check { role } => check(args, &found, role, out),
        What::Show => show(args, &found, out),
    }
}

fn problems(found: &Found) -> Vec<String> {
    found.problems.iter().map(|problem| Chain(problem).to_string()).collect()
}

fn check(args: &Args, found: &Found, role: Option<Role>, out: &mut dyn Write) -> Result<u8, Error> {
    let mut problems = problems(found);
    if let Some(role) = role.filter(|_| problems.is_empty()) {
        problems.extend(boot::examine(role, &found.config).iter().map(|problem| Chain(problem).to_string()));
    }
    let code = if problems.is_empty() { 0 } else { TO_DO };
    if args.json {
        print(out, &json!({ "ok": problems.is_empty(), "problems": problems }))?;
        return Ok(code);
    }
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    match problems.len() {
        0 => writeln!(out, "the settings are in order")?,
        many => writeln!(out, "\n{many} to be mended; \"dispatcher config reference\" shows every setting")?,
    }
    Ok(code)
}

fn show(args: &Args, found: &Found, out: &mut dyn Write) -> Result<u8, Error> {
    if !found.problems.is_empty() {
        return Err(Error::Usage(problems(found).join("\n")));
    }
    let effective = found.effective();
    if args.json {
        let all: Vec<Value> = effective
            .iter()
            .map(|(key, value, origin)| json!({ "key": key, "value": value, "from": origin }))
            .collect();
        print(out, &json!({ "settings": all }))?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> =
        effective.into_iter().map(|(key, value, origin)| vec![key, value, origin]).collect();
    table::write(out, &["KEY", "VALUE", "FROM"], &rows)?;
    Ok(0)
}

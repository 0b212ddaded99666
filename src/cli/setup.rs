//! `dispatcher setup`: first rows of an installation whose roles are processes of their own.

use std::io::Write;
use std::path::PathBuf;

use super::client::Error;
use super::jobs::print;
use crate::boot::{self, Setup};
use crate::config::Config;
use crate::ops::Chain;

/// Make the databases, the first tenant and its administrator; harmless to repeat
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Settings file (TOML) whose section "database" names the servers
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder of the whole installation, as "dispatcher keys make" made it
    #[arg(long, value_name = "DIR", default_value = "dispatcher-keys")]
    keys: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Does it, and says how to get in.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let fault = |error: &(dyn std::error::Error + 'static)| Error::Usage(Chain(error).to_string());
    let config = Config::load(&args.config).map_err(|e| fault(&e))?;
    let setup = Setup { config, keys: args.keys.clone() };
    let made = boot::setup(&setup).await.map_err(|e| fault(&e))?;
    if args.json {
        print(out, &serde_json::json!({ "fresh": made.is_some(), "entrance": made }))?;
        return Ok(0);
    }
    let Some(entrance) = made else {
        writeln!(out, "the databases were set up before and are as they must be; nothing was changed")?;
        return Ok(0);
    };
    writeln!(out, "console login  {}\npassword       {}", entrance.console_user, entrance.console_password)?;
    writeln!(out, "access key     {}\nsecret key     {}", entrance.access_key, entrance.secret_key)?;
    writeln!(
        out,
        "\nkeep these as you keep passwords; start the roles with dispatcher km, serve, monitor, worker and pinger"
    )?;
    Ok(0)
}

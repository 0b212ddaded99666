//! `dispatcher keys`: makes, renews and lists the keys and certificates of an installation.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::client::Error;
use super::jobs::print;
use super::table;
use crate::boot::{self, Listed};
use crate::ops::Chain;

/// What a command ends with that found something to be done.
const TO_DO: u8 = 3;

/// Make, renew and list the keys of an installation
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    /// Folder of the whole installation; keep it where no role runs
    #[arg(long, global = true, value_name = "DIR", default_value = "dispatcher-keys")]
    folder: PathBuf,
    /// Name or address under which guests reach the listener for handshakes; may be given several times
    #[arg(long = "name", global = true, value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum What {
    /// Make what is missing: keys, roots, and a folder for each role; harmless to repeat
    Make,
    /// Make the certificates of roles anew; keys and roots stay
    Renew,
    /// List the files, and when certificates end; ends with 3 when one must be renewed
    Show,
}

/// Does it, and lists what is there.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let fault = |error: &(dyn std::error::Error + 'static)| Error::Usage(Chain(error).to_string());
    match args.what {
        What::Make => boot::make(&args.folder, &args.names, false).map_err(|e| fault(&e))?,
        What::Renew => boot::make(&args.folder, &args.names, true).map_err(|e| fault(&e))?,
        What::Show => {}
    }
    let files = boot::list(&args.folder).map_err(|e| fault(&e))?;
    let code = if files.iter().any(|file| file.renew) { TO_DO } else { 0 };
    if args.json {
        print(out, &json!({ "folder": args.folder, "files": files }))?;
        return Ok(code);
    }
    let rows: Vec<Vec<String>> = files.iter().map(row).collect();
    table::write(out, &["FILE", "ENDS", "TO DO"], &rows)?;
    if !matches!(args.what, What::Show) {
        let folder = args.folder.display();
        writeln!(
            out,
            "\ncopy {folder}/ROLE to the hosts of that role and name it by keys.folder; keep {folder} itself away from them"
        )?;
    }
    Ok(code)
}

fn row(file: &Listed) -> Vec<String> {
    let to_do = if file.renew { "run dispatcher keys renew" } else { "" };
    vec![file.file.clone(), file.ends.clone().unwrap_or_default(), to_do.to_owned()]
}

//! How long a cancel, asked for at another node, takes to reach a command that runs on a guest. The command's own
//! process is looked at, not what rows say about it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::guests;
use super::house::House;
use super::load::percentile;
use crate::cli::client::{Client, Error};

/// Guests with commands.
const GUESTS: u32 = 4;
/// Commands that are cancelled.
const CANCELS: usize = 24;
/// Commands in a row that no cancel reached, after which no more are tried.
const ENOUGH: usize = 3;
/// Longest wait for a command to begin.
const BEGIN: Duration = Duration::from_secs(20);
/// A cancel that has not reached its command by then did not reach it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Seconds after which a command ends by itself.
const LENGTH: u64 = 6;
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// From the cancel to the end of the command's process, in milliseconds.
#[derive(Default)]
pub(super) struct Cancels {
    /// None where no cancel reached its command.
    pub(super) percentiles: Option<(f64, f64)>,
    pub(super) asked: usize,
    pub(super) unreached: usize,
}

/// Runs commands by the first node and cancels them by the second.
pub(super) async fn measure(house: &House) -> Result<Cancels, Error> {
    let (asks, cancels) = (Rc::new(house.client_of(0)?), house.client_of(1)?);
    guests::launch(&asks, GUESTS).await?;
    let servers = servers(&asks).await?;
    let (mut took, mut found, mut in_a_row) = (Vec::new(), Cancels::default(), 0);
    for (n, server) in servers.iter().cycle().take(CANCELS).enumerate() {
        let note = house.folder().join(format!("command-{n}"));
        let job = begin(&asks, *server, &note).await?;
        let began = Instant::now();
        cancels.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({}), None).await?;
        found.asked += 1;
        if gone(&note, began).await? {
            took.push(began.elapsed());
            in_a_row = 0;
        } else {
            found.unreached += 1;
            in_a_row += 1;
        }
        if in_a_row == ENOUGH {
            break;
        }
    }
    if !took.is_empty() {
        found.percentiles = Some((percentile(&mut took, 50), percentile(&mut took, 95)));
    }
    Ok(found)
}

async fn servers(client: &Client) -> Result<Vec<i64>, Error> {
    let listed = client.get("/api/v1/servers").await?;
    let servers = listed.get("servers").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(servers.iter().filter_map(|server| server.get("id")?.as_i64()).collect())
}

/// Has a command run that writes its number down, and waits until it does; its job.
async fn begin(client: &Client, server: i64, note: &Path) -> Result<i64, Error> {
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep {LENGTH}", note.display());
    let params = json!({ "server": server, "argv": ["/bin/sh", "-c", script], "timeoutSecs": 60 });
    let made = client.post("/api/v1/jobs", &json!({ "kind": "run-command", "params": params }), None).await?;
    let began = Instant::now();
    while !note.exists() {
        if began.elapsed() > BEGIN {
            return Err(Error::Usage(format!("a command on server {server} does not begin")));
        }
        tokio::time::sleep(LOOK).await;
    }
    made.get("id").and_then(Value::as_i64).ok_or_else(|| Error::Usage("a job has no number".to_owned()))
}

/// Whether the command's process is gone in time, and before it would have ended by itself.
async fn gone(note: &Path, began: Instant) -> Result<bool, Error> {
    let pid = std::fs::read_to_string(note)?.trim().to_owned();
    let process = PathBuf::from(format!("/proc/{pid}/cmdline"));
    while began.elapsed() < PATIENCE {
        // A number without a command line is a process that has ended and that nobody has asked about yet.
        if std::fs::read(&process).unwrap_or_default().is_empty() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(false)
}

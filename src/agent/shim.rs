//! The shim: a process of its own around one command, so that the command and the news of its end survive the agent.
//!
//! It takes the command's lock, notes the effect in the ledger, starts the command in a process group of its own, keeps
//! its output up to a limit, enforces the time limit and writes how it ended. It never reads the network.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::place::{Place, Process, Spec, json};
use super::{Error, files};
use crate::model::Micros;
use crate::wire::{Outcome, Stream};

/// How long output is still read after the command ended: a background process may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes moved at once.
const PIECE: usize = 64 * 1024;
/// Where commands look for programs.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Carries out the command of this folder, unless its end is written already.
pub(super) async fn run(dir: &Path) -> Result<(), Error> {
    // Fails only for a leader of a process group, which already stands apart from the agent.
    let _ = nix::unistd::setsid();
    let place = Place::at(dir.to_owned());
    let _lock = place.lock()?;
    if place.result()?.is_some() {
        return Ok(());
    }
    let mut term = signal(SignalKind::terminate()).map_err(start_error("the signal handler"))?;
    let text = files::read(&place.spec())?.unwrap_or_default();
    let spec: Spec = match serde_json::from_slice(&text) {
        Ok(spec) => spec,
        Err(e) => return place.finish(failed(&format!("the orders are unreadable: {e}"))).map(drop),
    };
    if let Some(own) = Process::of(std::process::id()) {
        files::replace(&place.shim(), &json(&own))?;
    }
    // In this order: an agent that finds no shim.json has written its note before this look.
    if place.cancel_asked() {
        return place.finish(Outcome::Cancelled).map(drop);
    }
    if let Err(e) = note_effect(&spec) {
        return place.finish(failed(&e.to_string())).map(drop);
    }
    let mut child = match start(&spec) {
        Ok(child) => child,
        Err(e) => return place.finish(failed(&e.to_string())).map(drop),
    };
    if let Some(process) = child.id().and_then(Process::of) {
        files::replace(&place.child(), &json(&process))?;
    }
    let copies = copy_output(&mut child, &place, spec.output_limit)?;
    let outcome = tokio::select! {
        status = child.wait() => ended(status),
        () = tokio::time::sleep(Duration::from_secs(spec.timeout_secs.into())) => {
            end(&mut child, &spec).await;
            Outcome::TimedOut { after_secs: spec.timeout_secs }
        }
        _ = term.recv() => {
            end(&mut child, &spec).await;
            if place.cancel_asked() { Outcome::Cancelled } else { Outcome::Interrupted }
        }
    };
    for copy in copies {
        let stop = copy.abort_handle();
        if tokio::time::timeout(LAST_WORDS, copy).await.is_err() {
            stop.abort();
        }
    }
    place.finish(outcome).map(drop)
}

/// One line for tests and audits, durable before the command can do anything.
fn note_effect(spec: &Spec) -> Result<(), Error> {
    let line = serde_json::json!({ "effect": "command", "command": spec.command, "at": Micros::wall() })
        .to_string()
        + "\n";
    let mut ledger = files::append(&spec.effects)?;
    ledger
        .write_all(line.as_bytes())
        .and_then(|()| ledger.sync_data())
        .map_err(Error::file("write", &spec.effects))
}

fn start(spec: &Spec) -> std::io::Result<Child> {
    let (program, arguments) = spec
        .argv
        .split_first()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "no program is named"))?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", std::env::var_os("HOME").unwrap_or_else(|| "/".into()))
        .env("DISPATCHER_COMMAND", spec.command.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| std::io::Error::new(e.kind(), format!("cannot start \"{program}\": {e}")))
}

fn copy_output(child: &mut Child, place: &Place, limit: u64) -> Result<Vec<JoinHandle<()>>, Error> {
    let mut copies = Vec::with_capacity(2);
    if let Some(pipe) = child.stdout.take() {
        copies.push(tokio::spawn(copy(pipe, files::append(&place.output(Stream::Stdout))?, limit)));
    }
    if let Some(pipe) = child.stderr.take() {
        copies.push(tokio::spawn(copy(pipe, files::append(&place.output(Stream::Stderr))?, limit)));
    }
    Ok(copies)
}

/// Keeps the first `limit` bytes and reads the rest away, so that the command never waits for a full pipe.
async fn copy(mut pipe: impl AsyncRead + Unpin, mut file: File, limit: u64) {
    let mut left = limit;
    let mut truncated = false;
    let mut piece = vec![0; PIECE];
    loop {
        let read = match pipe.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read as u64,
        };
        let kept = read.min(left);
        let bytes = usize::try_from(kept).ok().and_then(|kept| piece.get(..kept)).unwrap_or_default();
        if let Err(e) = file.write_all(bytes) {
            log::error!("output is lost, its file cannot be written: {e}");
            left = 0;
            continue;
        }
        left -= kept;
        if kept < read && !truncated {
            truncated = true;
            let _ = file.write_all(format!("\n[output truncated after {limit} bytes]\n").as_bytes());
        }
    }
    let _ = file.sync_data();
}

/// Ends the command's whole group: politely, then hard.
async fn end(child: &mut Child, spec: &Spec) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let Some(group) = group else { return };
    let _ = killpg(group, Signal::SIGTERM);
    let _ = tokio::time::timeout(Duration::from_millis(spec.grace_millis), child.wait()).await;
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait().await;
}

fn ended(status: std::io::Result<ExitStatus>) -> Outcome {
    match status {
        Ok(status) => Outcome::Done { exit_code: status.code(), signal: status.signal() },
        Err(e) => {
            log::error!("the command's end cannot be read: {e}");
            Outcome::Interrupted
        }
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned() }
}

fn start_error(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Start { what, source }
}

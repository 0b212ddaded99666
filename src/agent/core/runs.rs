//! Starting commands.

use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{Core, Event};
use crate::agent::machine::{Record, Verdict};
use crate::agent::place::{Place, Spec};
use crate::agent::{Error, files, stats};
use crate::model::Micros;
use crate::wire::{AgentFrame, CommandId, CommandResult, Offsets, Operation, Outcome, Reference, Run};

/// Most arguments of a command.
const MAX_ARGUMENTS: usize = 1024;
/// Longest time limit of a command, in seconds.
const MAX_TIMEOUT_SECS: u32 = 24 * 3600;
/// Pause between two looks at a shim that is not this process's child.
const WATCH_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Core {
    pub(super) async fn run_command(&mut self, run: Run) {
        if let Err(reason) = self.check(&run) {
            return self.answer_end(run.command, Outcome::Failed { reason });
        }
        let reference = Reference {
            command: run.command.clone(),
            job: run.job,
            epoch: run.epoch,
            output_from: run.output_from,
        };
        let now = Micros::wall();
        let verdict = match self.book.on_run(&run, now, self.settings.limits.furthest_expiry) {
            Verdict::Refuse { floor } => return self.answer_end(run.command, Outcome::Refused { floor }),
            _ if run.operation == Operation::GetAgentData => {
                return self.answer_end(run.command, Outcome::Data { data: stats::read() });
            }
            verdict => verdict,
        };
        let waiting = self.live.contains_key(&run.command);
        if verdict == Verdict::Start && !waiting && self.running < self.settings.limits.at_once {
            // The record of the start raises the floor as well: one write to the disk, not two.
            return self.start(run).await;
        }
        if let Err(e) = self.raise(&reference, now).await {
            return self.answer(AgentFrame::Deferred { command: run.command, reason: e.to_string() });
        }
        match verdict {
            Verdict::Stored(_) | Verdict::Attach => self.feed(run.command, run.output_from),
            _ if waiting => self.feed(run.command, run.output_from),
            Verdict::Expired => {
                self.end_unstarted(run.command, Some(run.output_from), Outcome::Expired).await;
            }
            Verdict::TooFar => {
                let reason =
                    format!("its expiry lies more than {:?} ahead", self.settings.limits.furthest_expiry);
                self.answer_end(run.command, Outcome::Failed { reason });
            }
            Verdict::Start | Verdict::Refuse { .. } => self.enqueue(run),
        }
    }

    fn enqueue(&mut self, run: Run) {
        if self.queue.len() >= self.settings.limits.queue {
            let reason = format!("{} commands wait already", self.queue.len());
            return self.answer(AgentFrame::Deferred { command: run.command, reason });
        }
        self.live.insert(run.command.clone(), watch::Sender::new(None));
        self.answer(AgentFrame::Accepted { command: run.command.clone() });
        self.feed(run.command.clone(), run.output_from);
        self.queue.push_back(run);
    }

    /// Everything that can be known without the journal. The text says what is wrong.
    fn check(&self, run: &Run) -> Result<(), String> {
        let server = self.current.as_ref().map(|current| current.session.server);
        if run.command.job() != run.job {
            return Err(format!("command {} is not of job {}", run.command, run.job));
        }
        if Some(run.command.server()) != server {
            return Err(format!("command {} is for another guest", run.command));
        }
        let Operation::RunCommand { argv, timeout_secs } = &run.operation else { return Ok(()) };
        if argv.first().is_none_or(String::is_empty) {
            return Err("no program is named".to_owned());
        }
        if argv.len() > MAX_ARGUMENTS {
            return Err(format!("{} arguments, at most {MAX_ARGUMENTS} are taken", argv.len()));
        }
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err("an argument holds a zero byte".to_owned());
        }
        if !(1..=MAX_TIMEOUT_SECS).contains(timeout_secs) {
            return Err(format!("a time limit of {timeout_secs} s is not within 1 to {MAX_TIMEOUT_SECS} s"));
        }
        Ok(())
    }

    pub(super) async fn start(&mut self, run: Run) {
        let Operation::RunCommand { argv, timeout_secs } = run.operation else { return };
        let place = self.place(&run.command);
        let command = run.command;
        let spec = Spec {
            command: command.clone(),
            argv,
            timeout_secs,
            output_limit: self.settings.limits.output,
            grace_millis: u64::try_from(self.settings.limits.grace.as_millis()).unwrap_or(u64::MAX),
            effects: self.settings.data.join("effects.jsonl"),
        };
        let at = Micros::wall();
        let prepared = match place.prepare(&spec) {
            Ok(()) => self.record(Record::Started { command: command.clone(), epoch: run.epoch, at }).await,
            Err(e) => Err(e),
        };
        if let Err(e) = prepared {
            self.live.remove(&command);
            return self.answer(AgentFrame::Deferred { command, reason: e.to_string() });
        }
        log::info!("command {command} starts, asked for by user {}", run.user);
        self.live.entry(command.clone()).or_insert_with(|| watch::Sender::new(None));
        self.running += 1;
        match self.spawn_shim(&place) {
            Ok(child) => {
                self.answer(AgentFrame::Started { command: command.clone(), at });
                self.feed(command.clone(), run.output_from);
                self.attend(command, Some(child));
            }
            Err(e) => {
                log::error!("command {command} cannot start: {e}");
                self.feed(command.clone(), run.output_from);
                let outcome = Outcome::Failed { reason: e.to_string() };
                let result = CommandResult { outcome, output: Offsets::default(), at: Micros::wall() };
                // Through the inbox, as every other end; the inbox may be full, so not by waiting here.
                let events = self.events.clone();
                tokio::spawn(async move { events.send(Event::Ended { command, result }).await });
            }
        }
    }

    fn spawn_shim(&self, place: &Place) -> Result<Child, Error> {
        let log = files::append(&place.log())?;
        Command::new(&self.settings.shim.program)
            .args(&self.settings.shim.arguments)
            .arg("--dir")
            .arg(place.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|source| Error::Start { what: "the shim", source })
    }

    /// Waits, beside the core, for the end of a command's shim, and tells it.
    pub(super) fn attend(&self, command: CommandId, child: Option<Child>) {
        let (place, events) = (self.place(&command), self.events.clone());
        tokio::spawn(async move {
            if let Some(mut child) = child {
                // Whatever its exit code, what counts is the status it left.
                let _ = child.wait().await;
            }
            let result = settled(&place).await;
            let _ = events.send(Event::Ended { command, result }).await;
        });
    }

    /// Takes what waits as places become free.
    pub(super) async fn pump(&mut self) {
        while self.running < self.settings.limits.at_once {
            let Some(run) = self.queue.pop_front() else { return };
            if run.expires_at <= Micros::wall() {
                self.end_unstarted(run.command, None, Outcome::Expired).await;
            } else {
                self.start(run).await;
            }
        }
    }

    /// The end of a command that never ran, written down so that it never will.
    pub(super) async fn end_unstarted(
        &mut self,
        command: CommandId,
        feed: Option<Offsets>,
        outcome: Outcome,
    ) {
        let result = CommandResult { outcome, output: Offsets::default(), at: Micros::wall() };
        let record = Record::Done { command: command.clone(), result: result.clone() };
        if let Err(e) = self.record(record).await {
            return self.answer(AgentFrame::Deferred { command, reason: e.to_string() });
        }
        self.tell(&command, result);
        if let Some(from) = feed {
            self.feed(command, from);
        }
    }

    /// Tells those who wait for this command how it ended.
    pub(super) fn tell(&mut self, command: &CommandId, result: CommandResult) {
        if let Some(ending) = self.live.remove(command) {
            ending.send_replace(Some(result));
        }
    }

    /// An answer to this sender alone; nothing is written down.
    pub(super) fn answer_end(&mut self, command: CommandId, outcome: Outcome) {
        let result = CommandResult { outcome, output: Offsets::default(), at: Micros::wall() };
        self.answer(AgentFrame::Result { command, result });
    }

    pub(super) fn place(&self, command: &CommandId) -> Place {
        Place::at(self.places().join(command.to_string()))
    }

    /// Makes sure a result that is known now can be told later as one that is still awaited.
    pub(super) fn ending_of(&self, command: &CommandId) -> Option<watch::Receiver<Option<CommandResult>>> {
        if let Some(ending) = self.live.get(command) {
            return Some(ending.subscribe());
        }
        let result = self.book.result(command)?;
        Some(watch::channel(Some(result.clone())).1)
    }
}

/// The result, when no shim lives any more. Trouble with the disk is waited out: without the lock nothing is known.
async fn settled(place: &Place) -> CommandResult {
    loop {
        let asked = place.clone();
        match tokio::task::spawn_blocking(move || asked.settle()).await {
            Ok(Ok(Some(result))) => return result,
            Ok(Ok(None)) => {}
            Ok(Err(e)) => log::error!("the end of a command cannot be read: {}", crate::ops::Chain(&e)),
            Err(e) => log::error!("the end of a command cannot be read: {e}"),
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

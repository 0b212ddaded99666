//! Looks, cancels, ends, and what goes into the journal.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::Core;
use crate::agent::Error;
use crate::agent::feed::Feed;
use crate::agent::machine::Record;
use crate::model::Micros;
use crate::ops::Chain;
use crate::wire::{AgentFrame, CommandId, CommandResult, LookAnswer, LookState, Offsets, Outcome, Reference};

impl Core {
    pub(super) async fn look(&mut self, reference: Reference) {
        let command = reference.command.clone();
        if let Some(floor) = self.book.floor(reference.job).filter(|floor| reference.epoch < *floor) {
            return self.answer(AgentFrame::LookAnswer(LookAnswer {
                command,
                state: LookState::Refused,
                floor,
            }));
        }
        if let Err(e) = self.raise(&reference, Micros::wall()).await {
            // No answer: an answer without the floor on disk would be a promise that a crash breaks.
            return log::error!("a look at {command} stays unanswered: {}", Chain(&e));
        }
        let state = match self.book.state(&command) {
            LookState::Absent if self.live.contains_key(&command) => LookState::Running,
            state => state,
        };
        self.answer(AgentFrame::LookAnswer(LookAnswer { command, state, floor: reference.epoch }));
    }

    pub(super) async fn cancel(&mut self, reference: Reference) {
        let command = reference.command.clone();
        if let Some(floor) = self.book.floor(reference.job).filter(|floor| reference.epoch < *floor) {
            return self.answer_end(command, Outcome::Refused { floor });
        }
        if let Err(e) = self.raise(&reference, Micros::wall()).await {
            return log::error!("the cancel of {command} is not carried out: {}", Chain(&e));
        }
        if self.book.result(&command).is_some() {
            return self.feed(command, reference.output_from);
        }
        if self.book.knows(&command) {
            log::info!("command {command} is cancelled while it runs");
            if let Err(e) = self.place(&command).ask_cancel() {
                log::error!("command {command} cannot be cancelled: {}", Chain(&e));
            }
            // Whoever asks hears how it ended, also one that did not send the command.
            let heard = self.current.as_ref().is_some_and(|current| current.feeds.contains_key(&command));
            if !heard {
                self.feed(command, reference.output_from);
            }
            return;
        }
        // Waiting, or never heard of: written down as ended, so that a frame that comes late finds that end.
        let feed = (!self.live.contains_key(&command)).then_some(reference.output_from);
        self.queue.retain(|run| run.command != command);
        self.end_unstarted(command, feed, Outcome::Cancelled).await;
    }

    pub(super) async fn ended(&mut self, command: CommandId, result: CommandResult) {
        self.running = self.running.saturating_sub(1);
        log::info!("command {command} ended: {:?}", result.outcome);
        let record = Record::Done { command: command.clone(), result: result.clone() };
        if let Err(e) = self.record(record.clone()).await {
            // The status file still says it; after a restart it is read again.
            log::error!("the end of {command} is not in the journal: {}", Chain(&e));
            self.book.apply(record);
        }
        self.tell(&command, result);
        self.pump().await;
    }

    /// The dispatcher has stored the result and all output.
    pub(super) fn acknowledged(&mut self, command: &CommandId) {
        if self.book.result(command).is_none() {
            return;
        }
        if let Some(current) = &mut self.current {
            current.feeds.remove(command);
        }
        let place = self.place(command);
        tokio::task::spawn_blocking(move || {
            if let Err(e) = std::fs::remove_dir_all(place.dir())
                && e.kind() != std::io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {e}", place.dir().display());
            }
        });
    }

    /// Lets the session listen in on a command that is live or ended. One feed a command: a new one begins anew.
    pub(super) fn feed(&mut self, command: CommandId, from: Offsets) {
        let (Some(result), place) = (self.ending_of(&command), self.place(&command)) else { return };
        let Some(current) = &mut self.current else { return };
        let out = current.session.bulk.clone();
        let task = tokio::spawn(Feed { command: command.clone(), place, from, result, out }.run());
        if let Some(older) = current.feeds.insert(command, task.abort_handle()) {
            older.abort();
        }
        current.feeds.retain(|_, feed| !feed.is_finished());
    }

    /// Raises the job's floor to the sender's epoch, durably.
    pub(super) async fn raise(&mut self, reference: &Reference, at: Micros) -> Result<(), Error> {
        match self.book.raised_by(reference, at) {
            Some(record) => self.record(record).await,
            None => Ok(()),
        }
    }

    /// Writes a record and then takes it in. When this returns `Ok` the record survives a power cut.
    pub(super) async fn record(&mut self, record: Record) -> Result<(), Error> {
        let (journal, written) = (Arc::clone(&self.journal), record.clone());
        tokio::task::spawn_blocking(move || {
            journal.lock().unwrap_or_else(PoisonError::into_inner).write(&written)
        })
        .await
        .map_err(|e| Error::Start { what: "the writing of the journal", source: e.into() })??;
        self.book.apply(record);
        self.compact().await;
        Ok(())
    }

    async fn compact(&mut self) {
        let journal = Arc::clone(&self.journal);
        if !journal.lock().unwrap_or_else(PoisonError::into_inner).is_long() {
            return;
        }
        self.book.forget_before(Micros::wall().minus(self.settings.limits.keep()));
        let book = self.book.clone();
        let done = tokio::task::spawn_blocking(move || {
            journal.lock().unwrap_or_else(PoisonError::into_inner).compact(&book)
        });
        if let Ok(Err(e)) = done.await {
            log::error!("the journal stays long: {}", Chain(&e));
        }
    }

    pub(super) fn places(&self) -> PathBuf {
        self.settings.data.join("commands")
    }

    /// Removes folders of commands the journal does not know: prepared and never started, or forgotten.
    pub(super) fn sweep_places(&self) {
        let Ok(entries) = std::fs::read_dir(self.places()) else { return };
        for entry in entries.flatten() {
            let known = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<CommandId>().ok())
                .is_some_and(|command| self.book.knows(&command));
            if !known && let Err(e) = std::fs::remove_dir_all(entry.path()) {
                log::warn!("cannot remove {}: {e}", entry.path().display());
            }
        }
    }
}

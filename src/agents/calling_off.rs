//! How a cancel reaches a command that was sent to a guest: by its row, whichever node was asked.
//!
//! First the guest's journal is asked. That look is a write: it raises the floor of the job on the guest, so that no
//! older frame has an effect any more. What is absent then never runs; what runs is ended; what has ended says how.

use super::session::{Session, Trouble, have_of};
use crate::model::{Epoch, Micros, Verdict};
use crate::ops::failpoint::{Fault, hit, sabotaged};
use crate::store::provisioning::agent::{self, CommandRow};
use crate::wire::{CommandId, CommandResult, DispatcherFrame, LookAnswer, LookState, Outcome, Reference};

/// What is said of a command that a look did not find.
pub const ABSENT: &str = "its guest had not got the command and takes it no more; it never ran";

impl Session<'_> {
    /// Asks the guest's journal about each command whose end was asked for, once an epoch and beat.
    pub(super) async fn call_off(&mut self) -> Result<(), Trouble> {
        let server = self.target.server;
        let rows = self.links.store.read(move |c| agent::called_off(c, server)).await?;
        for row in rows {
            let (Ok(command), Some(epoch)) = (row.id.parse::<CommandId>(), row.cancel_epoch.map(Epoch))
            else {
                continue;
            };
            if self.called_off.get(&command) != Some(&epoch) {
                self.ask_about(command, row, epoch).await?;
            }
        }
        Ok(())
    }

    async fn ask_about(&mut self, command: CommandId, row: CommandRow, epoch: Epoch) -> Result<(), Trouble> {
        // A look with the epoch of the command's own sender would raise no floor: it would only read.
        let asked = if sabotaged(Fault::ReadOnlyLook) { Epoch(row.epoch) } else { epoch };
        if !self.machine.holds(&command) {
            let id = row.id.clone();
            let have = self.links.store.read(move |c| have_of(c, &id)).await?;
            self.machine.sending(command.clone(), row, have);
        }
        self.called_off.insert(command.clone(), epoch);
        hit("cancel.before");
        self.send(&DispatcherFrame::Look(self.reference(command, asked))).await
    }

    fn reference(&self, command: CommandId, epoch: Epoch) -> Reference {
        let output_from = self.machine.have(&command);
        Reference { job: command.job(), command, epoch, output_from }
    }

    /// What the journal of the guest says about a command that is to end.
    pub(super) async fn looked(&mut self, answer: &LookAnswer) -> Result<(), Trouble> {
        let command = answer.command.clone();
        let Some(epoch) = self.called_off.get(&command).copied() else { return Ok(()) };
        match answer.state {
            LookState::Absent => {
                let Some((row, have)) = self.machine.take(&command) else { return Ok(()) };
                let result = CommandResult { outcome: Outcome::Cancelled, output: have, at: Micros::wall() };
                let text = ABSENT.to_owned();
                self.finished(&row, (command, result), (Verdict::Lost, text)).await
            }
            LookState::Running | LookState::Done { .. } | LookState::Interrupted => {
                self.send(&DispatcherFrame::Cancel(self.reference(command, epoch))).await?;
                hit("cancel.after");
                Ok(())
            }
            LookState::Refused => {
                log::info!("{command} was called off by a later owner of its job");
                self.called_off.remove(&command);
                Ok(())
            }
        }
    }
}

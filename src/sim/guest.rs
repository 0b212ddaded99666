//! Guests: the real journal's decisions, with shims that run and machines that are switched off.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{SECOND, World};
use super::wrong::Wrong;
use crate::agent::machine::{Book, Record, Verdict};
use crate::model::{Epoch, JobUid, Micros};
use crate::wire::{
    AgentFrame, CommandId, CommandResult, DispatcherFrame, LookAnswer, LookState, Offsets, Outcome,
    Reference, Run,
};

/// The longest way ahead that an expiry may lie.
const FURTHEST: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// One guest.
#[derive(Default)]
pub(super) struct Guest {
    book: Book,
    /// What is on its disk.
    journal: Vec<Record>,
    /// Number of the session it is in.
    session: Option<i64>,
    /// The highest number it ever was in.
    highest: i64,
    /// Which life of the agent, so that what a dead one had planned does not happen.
    generation: u64,
    /// Shims at work, and those that ended and left a status.
    shims: BTreeMap<CommandId, Option<CommandResult>>,
    up: bool,
    /// How often each command ran.
    ran: BTreeMap<CommandId, u32>,
    /// Which commands a look called absent, and for senders of which epoch.
    absent: BTreeMap<CommandId, Epoch>,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self { up: true, ..Self::default() }
    }

    pub(super) fn ran_for(&self, job: JobUid) -> u32 {
        self.ran.iter().filter(|(id, _)| id.job() == job).map(|(_, n)| n).sum()
    }

    fn record(&mut self, record: Record) {
        self.journal.push(record.clone());
        self.book.apply(record);
    }
}

impl World {
    fn guest(&mut self, server: i64) -> &mut Guest {
        self.guests.get_mut(&server).expect("a guest that is there")
    }

    /// A dispatcher dials; false when the guest is away or in a newer session.
    pub(super) fn open_session(&mut self, server: i64, number: i64, holder: usize) -> bool {
        let guest = self.guest(server);
        if !guest.up || guest.highest > number {
            return false;
        }
        let older = guest.session.replace(number);
        guest.highest = number;
        if let Some(older) = older {
            self.break_session(server, older);
        }
        self.guest(server).session = Some(number);
        let session = self.sessions.entry((server, number)).or_default();
        (session.up, session.holder) = (true, holder);
        true
    }

    pub(super) fn break_session(&mut self, server: i64, number: i64) {
        if self.guest(server).session == Some(number) {
            self.guest(server).session = None;
        }
        if let Some(session) = self.sessions.get_mut(&(server, number)) {
            session.up = false;
            session.frames.clear();
            if let Some(waker) = session.waker.take() {
                waker.wake();
            }
        }
    }

    /// A frame leaves for the guest. One that is lost breaks its session, as a cut connection does.
    pub(super) fn send_to_guest(&mut self, server: i64, number: i64, frame: DispatcherFrame) {
        let delay = self.chance.range(1_000, 50_000);
        if self.faults.strikes(&mut self.chance, 60) {
            self.figures.broken_sessions += 1;
            let lost = self.chance.one_in(2);
            self.after(delay, move |w| {
                if !lost {
                    w.guest_hears(server, number, frame);
                }
                w.break_session(server, number);
            });
        } else {
            self.after(delay, move |w| w.guest_hears(server, number, frame));
        }
    }

    fn reply(&mut self, server: i64, frame: AgentFrame) {
        let Some(number) = self.guest(server).session else { return };
        let delay = self.chance.range(1_000, 50_000);
        self.after(delay, move |w| {
            let Some(session) = w.sessions.get_mut(&(server, number)).filter(|s| s.up) else { return };
            session.frames.push_back(frame);
            if let Some(waker) = session.waker.take() {
                waker.wake();
            }
        });
    }

    fn guest_hears(&mut self, server: i64, number: i64, frame: DispatcherFrame) {
        let guest = self.guest(server);
        if !guest.up || guest.session != Some(number) {
            return;
        }
        match frame {
            DispatcherFrame::Run(run) => self.guest_runs(server, &run),
            DispatcherFrame::Look(reference) => self.guest_looks(server, &reference),
            DispatcherFrame::Cancel(reference) => self.guest_cancels(server, &reference),
            _ => {}
        }
    }

    fn guest_runs(&mut self, server: i64, run: &Run) {
        let now = self.now;
        let verdict = self.guest(server).book.on_run(run, now, FURTHEST);
        let command = run.command.clone();
        match verdict {
            Verdict::Refuse { floor } => self.answers(server, command, Outcome::Refused { floor }),
            Verdict::Stored(result) => self.reply(server, AgentFrame::Result { command, result }),
            // Its end is told to whoever holds the session by then.
            Verdict::Attach => {}
            Verdict::Expired => {
                let result = result_at(now, Outcome::Expired);
                let record = Record::Done { command: command.clone(), result: result.clone() };
                self.guest(server).record(record);
                self.reply(server, AgentFrame::Result { command, result });
            }
            Verdict::TooFar => {
                self.answers(server, command, Outcome::Failed { reason: "too far ahead".to_owned() });
            }
            Verdict::Start => self.guest_starts(server, run),
        }
    }

    fn answers(&mut self, server: i64, command: CommandId, outcome: Outcome) {
        let result = result_at(self.now, outcome);
        self.reply(server, AgentFrame::Result { command, result });
    }

    fn guest_starts(&mut self, server: i64, run: &Run) {
        let (command, epoch, at) = (run.command.clone(), run.epoch, self.now);
        let sent = self.rows.command(&command.to_string()).is_some_and(|row| row.state != "waiting");
        if !sent {
            self.violated(format!("I4: command {command} starts and is not marked as sent"));
        }
        if let Some(absent) = self.guest(server).absent.get(&command).copied()
            && epoch < absent
        {
            self.violated(format!(
                "look: command {command} of epoch {epoch} starts after a look of epoch {absent} called it absent"
            ));
        }
        let record = Record::Started { command: command.clone(), epoch, at };
        let late = self.wrong == Some(Wrong::JournalAfterStart);
        let (generation, spawn) = (self.guest(server).generation, self.chance.range(500, 30_000));
        let write = move |w: &mut Self| {
            if w.guest(server).generation == generation {
                w.guest(server).record(record);
            }
        };
        if late {
            self.after(spawn + SECOND / 5, write);
        } else {
            write(self);
        }
        // Between the record and the shim the agent may die.
        self.after(spawn, move |w| w.guest_spawns(server, generation, command));
    }

    fn guest_spawns(&mut self, server: i64, generation: u64, command: CommandId) {
        if self.guest(server).generation != generation {
            return;
        }
        let number = self.job_number(command.job());
        self.note("runs command of job", number, 0);
        let guest = self.guest(server);
        let count = guest.ran.entry(command.clone()).or_default();
        *count += 1;
        let twice = *count > 1;
        guest.shims.insert(command.clone(), None);
        if twice {
            self.violated(format!("I9: command {command} ran twice"));
        }
        let time = self.chance.range(10_000, 3 * SECOND);
        let exit_code = i32::from(self.chance.one_in(8));
        self.after(time, move |w| w.shim_ends(server, command, exit_code));
    }

    fn shim_ends(&mut self, server: i64, command: CommandId, code: i32) {
        let result = result_at(self.now, Outcome::Done { exit_code: Some(code), signal: None });
        let guest = self.guest(server);
        // A machine that was switched off meanwhile took its shims along.
        let Some(shim) = guest.shims.get_mut(&command) else { return };
        if shim.is_some() {
            return;
        }
        *shim = Some(result);
        if guest.up {
            self.settle(server, command);
        }
    }

    /// The agent hears of a shim's end, or finds what it left.
    fn settle(&mut self, server: i64, command: CommandId) {
        let now = self.now;
        let guest = self.guest(server);
        let result = match guest.shims.get(&command) {
            Some(None) => return,
            Some(Some(result)) => result.clone(),
            None => result_at(now, Outcome::Interrupted),
        };
        guest.record(Record::Done { command: command.clone(), result: result.clone() });
        self.reply(server, AgentFrame::Result { command, result });
    }

    fn guest_looks(&mut self, server: i64, reference: &Reference) {
        let now = self.now;
        let guest = self.guest(server);
        let floor = guest.book.floor(reference.job);
        let command = reference.command.clone();
        if let Some(floor) = floor.filter(|floor| reference.epoch < *floor) {
            let answer = LookAnswer { command, state: LookState::Refused, floor };
            return self.reply(server, AgentFrame::LookAnswer(answer));
        }
        if let Some(record) = guest.book.raised_by(reference, now) {
            guest.record(record);
        }
        let state = guest.book.state(&command);
        if state == LookState::Absent {
            let epoch = guest.absent.entry(command.clone()).or_insert(reference.epoch);
            *epoch = (*epoch).max(reference.epoch);
        }
        self.figures.looks += 1;
        self.reply(server, AgentFrame::LookAnswer(LookAnswer { command, state, floor: reference.epoch }));
    }

    fn guest_cancels(&mut self, server: i64, reference: &Reference) {
        let (now, command) = (self.now, reference.command.clone());
        let guest = self.guest(server);
        let floor = guest.book.floor(reference.job);
        if let Some(floor) = floor.filter(|floor| reference.epoch < *floor) {
            return self.answers(server, command, Outcome::Refused { floor });
        }
        if let Some(record) = guest.book.raised_by(reference, now) {
            guest.record(record);
        }
        if let Some(result) = guest.book.result(&command).cloned() {
            return self.reply(server, AgentFrame::Result { command, result });
        }
        let result = result_at(now, Outcome::Cancelled);
        if guest.book.knows(&command) {
            // It runs: its shim ends it and leaves that as its status.
            if let Some(shim) = guest.shims.get_mut(&command).filter(|shim| shim.is_none()) {
                *shim = Some(result);
                self.settle(server, command);
            }
            return;
        }
        guest.record(Record::Done { command: command.clone(), result: result.clone() });
        self.reply(server, AgentFrame::Result { command, result });
    }

    /// The agent dies; with `all` its machine is switched off, and the shims with it. It comes back by itself.
    pub(super) fn guest_dies(&mut self, server: i64, all: bool) {
        self.figures.guest_crashes += 1;
        self.note("guest dies", server.unsigned_abs(), u64::from(all));
        let guest = self.guest(server);
        guest.up = false;
        guest.generation += 1;
        guest.book = Book::default();
        let session = guest.session.take();
        if all {
            // A status that was left on the disk stays.
            guest.shims.retain(|_, shim| shim.is_some());
        }
        if let Some(number) = session {
            self.break_session(server, number);
        }
        let away = self.chance.range(SECOND / 10, 10 * SECOND);
        self.after(away, move |w| w.guest_returns(server));
    }

    fn guest_returns(&mut self, server: i64) {
        let guest = self.guest(server);
        let mut book = Book::default();
        guest.journal.iter().cloned().for_each(|record| book.apply(record));
        let mut open: Vec<CommandId> = book.open().cloned().collect();
        open.sort();
        guest.book = book;
        guest.up = true;
        let known: BTreeSet<CommandId> = guest.ran.keys().cloned().collect();
        self.note("guest returns", server.unsigned_abs(), known.len() as u64);
        for command in open {
            self.settle(server, command);
        }
    }
}

fn result_at(at: Micros, outcome: Outcome) -> CommandResult {
    CommandResult { outcome, output: Offsets::default(), at }
}

//! Decisions of the journal: which commands run, which are answered from memory, which are refused. Pure.
//!
//! Four rules hold here (`PROTOCOL.md` section 5): a command id runs at most once; the floor of a job never falls, and
//! whoever is below it is refused; a command that was started and cut off is answered *interrupted*, never run again;
//! a look raises the floor, so that what it called absent stays absent for older senders.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{Epoch, JobUid, Micros};
use crate::wire::{CommandId, CommandResult, LookState, Outcome, Reference, Run};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// Senders below this epoch are refused for this job.
    Floor { job: JobUid, epoch: Epoch, at: Micros },
    /// The command is about to be given to its shim.
    Started { command: CommandId, epoch: Epoch, at: Micros },
    /// The command ended this way.
    Done { command: CommandId, result: CommandResult },
}

/// What to do with a command that was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The sender is too old.
    Refuse { floor: Epoch },
    /// It ended before; this was its result.
    Stored(CommandResult),
    /// It runs: the sender may listen in.
    Attach,
    /// Never seen and in time.
    Start,
    /// Never seen and too late.
    Expired,
    /// Its expiry lies further ahead than the journal's memory reaches back.
    TooFar,
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Started { at: Micros },
    Done(CommandResult),
}

/// What the journal's records add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Book {
    floors: HashMap<JobUid, (Epoch, Micros)>,
    commands: HashMap<CommandId, Entry>,
}

impl Book {
    /// Takes a record in.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Floor { job, epoch, at } => self.raise(job, epoch, at),
            Record::Started { command, epoch, at } => {
                self.raise(command.job(), epoch, at);
                self.commands.entry(command).or_insert(Entry::Started { at });
            }
            Record::Done { command, result } => {
                // The first end stands.
                if !matches!(self.commands.get(&command), Some(Entry::Done(_))) {
                    self.commands.insert(command, Entry::Done(result));
                }
            }
        }
    }

    fn raise(&mut self, job: JobUid, epoch: Epoch, at: Micros) {
        let floor = self.floors.entry(job).or_insert((epoch, at));
        *floor = (floor.0.max(epoch), floor.1.max(at));
    }

    /// The lowest epoch served for this job; nothing when it was never heard of.
    pub(crate) fn floor(&self, job: JobUid) -> Option<Epoch> {
        self.floors.get(&job).map(|(epoch, _)| *epoch)
    }

    /// The record that an epoch at or above the floor must leave before it is answered; nothing when it stands already.
    pub(crate) fn raised_by(&self, reference: &Reference, at: Micros) -> Option<Record> {
        let record = Record::Floor { job: reference.job, epoch: reference.epoch, at };
        (self.floor(reference.job) != Some(reference.epoch)).then_some(record)
    }

    /// What to do with a command sent now. `furthest` is the longest way ahead an expiry may lie.
    pub(crate) fn on_run(&self, run: &Run, now: Micros, furthest: Duration) -> Verdict {
        if let Some(floor) = self.floor(run.job).filter(|floor| run.epoch < *floor) {
            return Verdict::Refuse { floor };
        }
        match self.commands.get(&run.command) {
            Some(Entry::Done(result)) => Verdict::Stored(result.clone()),
            Some(Entry::Started { .. }) => Verdict::Attach,
            None if run.expires_at <= now => Verdict::Expired,
            None if run.expires_at > now.plus(furthest) => Verdict::TooFar,
            None => Verdict::Start,
        }
    }

    /// What the journal says about a command, asked at or above the floor.
    pub(crate) fn state(&self, command: &CommandId) -> LookState {
        match self.commands.get(command) {
            Some(Entry::Done(CommandResult { outcome: Outcome::Interrupted, .. })) => LookState::Interrupted,
            Some(Entry::Done(result)) => LookState::Done { result: result.clone() },
            Some(Entry::Started { .. }) => LookState::Running,
            None => LookState::Absent,
        }
    }

    /// Commands that were started and have no end yet.
    pub(crate) fn open(&self) -> impl Iterator<Item = &CommandId> {
        self.commands
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Started { .. }))
            .map(|(command, _)| command)
    }

    /// How the command ended, if it did.
    pub(crate) fn result(&self, command: &CommandId) -> Option<&CommandResult> {
        match self.commands.get(command) {
            Some(Entry::Done(result)) => Some(result),
            _ => None,
        }
    }

    /// Whether the journal knows the command.
    pub(crate) fn knows(&self, command: &CommandId) -> bool {
        self.commands.contains_key(command)
    }

    /// Forgets what ended or was touched before `horizon`. Commands without an end stay.
    pub(crate) fn forget_before(&mut self, horizon: Micros) {
        self.commands.retain(|_, entry| match entry {
            Entry::Started { .. } => true,
            Entry::Done(result) => result.at >= horizon,
        });
        let kept: std::collections::HashSet<JobUid> = self.commands.keys().map(CommandId::job).collect();
        self.floors.retain(|job, (_, at)| *at >= horizon || kept.contains(job));
    }

    /// Records that make this book anew.
    pub(crate) fn records(&self) -> Vec<Record> {
        let floors =
            self.floors.iter().map(|(job, (epoch, at))| Record::Floor { job: *job, epoch: *epoch, at: *at });
        let commands = self.commands.iter().map(|(command, entry)| match entry {
            Entry::Started { at } => {
                let epoch = self.floor(command.job()).unwrap_or(Epoch(0));
                Record::Started { command: command.clone(), epoch, at: *at }
            }
            Entry::Done(result) => Record::Done { command: command.clone(), result: result.clone() },
        });
        floors.chain(commands).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServerId, Uid};
    use crate::wire::{Offsets, Operation};
    use proptest::prelude::{Strategy, prop_oneof, proptest};

    const FAR: Duration = Duration::from_secs(3600);

    fn job(n: u8) -> JobUid {
        JobUid(Uid::from_bytes([n; 16]))
    }

    fn command(job_no: u8, r#try: u32) -> CommandId {
        CommandId::new(job(job_no), "run", r#try, ServerId(1)).expect("valid")
    }

    fn run(command: CommandId, epoch: i64, expires: i64) -> Run {
        Run {
            job: command.job(),
            command,
            epoch: Epoch(epoch),
            operation: Operation::RunCommand { argv: vec!["true".into()], timeout_secs: 1 },
            user: String::new(),
            expires_at: Micros(expires),
            output_from: Offsets::default(),
        }
    }

    fn ended(outcome: Outcome, at: i64) -> CommandResult {
        CommandResult { outcome, output: Offsets::default(), at: Micros(at) }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Run {
            job: u8,
            r#try: u32,
            epoch: i64,
            late: bool,
        },
        Look {
            job: u8,
            r#try: u32,
            epoch: i64,
        },
        End {
            job: u8,
            r#try: u32,
        },
        /// The agent dies; what was open is found interrupted; the book is read back from its records.
        Crash,
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..2_u8, 0..2_u32, 0..4_i64, proptest::bool::weighted(0.2))
                .prop_map(|(job, r#try, epoch, late)| Event::Run { job, r#try, epoch, late }),
            2 => (0..2_u8, 0..2_u32, 0..4_i64).prop_map(|(job, r#try, epoch)| Event::Look { job, r#try, epoch }),
            2 => (0..2_u8, 0..2_u32).prop_map(|(job, r#try)| Event::End { job, r#try }),
            1 => proptest::strategy::Just(Event::Crash),
        ]
    }

    /// Plays events as the agent would and counts starts.
    #[derive(Default)]
    struct Play {
        book: Book,
        starts: HashMap<CommandId, u32>,
        called_absent: HashMap<CommandId, Epoch>,
    }

    impl Play {
        fn step(&mut self, event: &Event) {
            match *event {
                Event::Run { job, r#try, epoch, late } => {
                    self.sent(&run(command(job, r#try), epoch, if late { 1 } else { 100 }));
                }
                Event::Look { job: n, r#try, epoch } => {
                    let reference = Reference {
                        command: command(n, r#try),
                        job: job(n),
                        epoch: Epoch(epoch),
                        output_from: Offsets::default(),
                    };
                    if self.book.floor(reference.job).is_some_and(|floor| reference.epoch < floor) {
                        return;
                    }
                    if let Some(record) = self.book.raised_by(&reference, Micros(50)) {
                        self.book.apply(record);
                    }
                    assert_eq!(self.book.floor(reference.job), Some(reference.epoch));
                    if self.book.state(&reference.command) == LookState::Absent {
                        self.called_absent.insert(reference.command, reference.epoch);
                    }
                }
                Event::End { job, r#try } => {
                    let command = command(job, r#try);
                    if self.book.knows(&command) {
                        let result = ended(Outcome::Done { exit_code: Some(0), signal: None }, 60);
                        self.book.apply(Record::Done { command, result });
                    }
                }
                Event::Crash => {
                    let mut again = Book::default();
                    self.book.records().into_iter().for_each(|record| again.apply(record));
                    assert_eq!(again, self.book);
                    for command in self.book.open().cloned().collect::<Vec<_>>() {
                        again.apply(Record::Done { command, result: ended(Outcome::Interrupted, 70) });
                    }
                    self.book = again;
                }
            }
        }

        fn sent(&mut self, run: &Run) {
            let floor = self.book.floor(run.job);
            match self.book.on_run(run, Micros(50), FAR) {
                Verdict::Start => {
                    assert!(floor.is_none_or(|floor| run.epoch >= floor), "started below the floor");
                    if let Some(epoch) = self.called_absent.get(&run.command) {
                        assert!(run.epoch >= *epoch, "a look called it absent for this sender");
                    }
                    *self.starts.entry(run.command.clone()).or_default() += 1;
                    let (command, epoch) = (run.command.clone(), run.epoch);
                    self.book.apply(Record::Started { command, epoch, at: Micros(50) });
                }
                Verdict::Refuse { floor } => assert!(run.epoch < floor),
                Verdict::Expired => assert_eq!(run.expires_at, Micros(1)),
                Verdict::Attach | Verdict::Stored(_) => {
                    assert!(self.starts.contains_key(&run.command), "never started");
                }
                Verdict::TooFar => panic!("no expiry lies that far ahead here"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_command_starts_twice_and_no_floor_falls(events in proptest::collection::vec(events(), 0..60)) {
            let mut play = Play::default();
            for event in &events {
                let floors: Vec<_> = (0..2).map(|n| play.book.floor(job(n))).collect();
                play.step(event);
                for (n, before) in (0..2).zip(floors) {
                    assert!(play.book.floor(job(n)) >= before, "a floor fell");
                }
            }
            assert!(play.starts.values().all(|starts| *starts == 1), "{:?}", play.starts);
        }
    }

    #[test]
    fn the_horizon_takes_what_ended_but_never_what_is_open() {
        let mut book = Book::default();
        for (n, at) in [(1, 10), (2, 30)] {
            book.apply(Record::Started { command: command(n, 1), epoch: Epoch(1), at: Micros(at) });
        }
        book.apply(Record::Started { command: command(3, 1), epoch: Epoch(1), at: Micros(10) });
        for (n, at) in [(1, 11), (2, 31)] {
            book.apply(Record::Done { command: command(n, 1), result: ended(Outcome::Cancelled, at) });
        }
        book.forget_before(Micros(20));
        assert_eq!(book.state(&command(1, 1)), LookState::Absent);
        assert_eq!(book.floor(job(1)), None);
        assert!(book.result(&command(2, 1)).is_some());
        assert_eq!(book.open().collect::<Vec<_>>(), [&command(3, 1)]);
        assert_eq!(book.floor(job(3)), Some(Epoch(1)));
    }

    #[test]
    fn an_expiry_beyond_the_memory_is_refused_and_one_in_the_past_is_expired() {
        let book = Book::default();
        assert_eq!(book.on_run(&run(command(1, 1), 1, 50), Micros(50), FAR), Verdict::Expired);
        assert_eq!(book.on_run(&run(command(1, 1), 1, 51), Micros(50), FAR), Verdict::Start);
        let far = i64::try_from(FAR.as_micros()).expect("small") + 51;
        assert_eq!(book.on_run(&run(command(1, 1), 1, far), Micros(50), FAR), Verdict::TooFar);
    }
}

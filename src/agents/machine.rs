//! What a session knows of the commands it has sent, and what each frame means. Pure.

use std::collections::HashMap;

use crate::model::Verdict;
use crate::store::provisioning::agent::CommandRow;
use crate::wire::{
    AgentFrame, CommandId, CommandResult, LookAnswer, Offsets, Outcome, Pong, Stream, decode_bytes,
};

/// What is to be done about a frame, in this order: what is stored comes before what is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// The guest has begun.
    Started(Box<CommandRow>),
    /// A new piece of output.
    Output { command: CommandId, stream: Stream, start: u64, data: Vec<u8> },
    /// The end: to be stored, then acknowledged.
    Finished { row: Box<CommandRow>, command: CommandId, result: CommandResult },
    /// The guest's queue is full: the command is sent again later.
    Later(CommandId),
    /// Somebody may wait for this.
    Looked(LookAnswer),
    /// Somebody may wait for this; it is a heartbeat.
    Ponged(Pong),
    /// Nothing.
    Nothing,
}

/// Why a session with this peer cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error("output of {command} begins at {offset}, but only {have} bytes are known: a piece is missing")]
    Gap { command: CommandId, offset: u64, have: u64 },
    #[error("output of {command} goes beyond {limit} bytes")]
    TooMuch { command: CommandId, limit: u64 },
    #[error("result of {command} speaks of {said} bytes of output, {have} came")]
    Short { command: CommandId, said: u64, have: u64 },
    #[error("output of {0} is not base64")]
    Base64(CommandId),
    #[error("a second hello")]
    Hello,
}

struct Flight {
    row: CommandRow,
    have: Offsets,
}

/// Commands in flight over one session.
pub(crate) struct Machine {
    flights: HashMap<CommandId, Flight>,
    output_limit: u64,
}

impl Machine {
    pub(crate) fn new(output_limit: u64) -> Self {
        Self { flights: HashMap::new(), output_limit }
    }

    /// Takes note of a command that is about to be sent, with the output already stored.
    pub(crate) fn sending(&mut self, command: CommandId, row: CommandRow, have: Offsets) {
        self.flights.insert(command, Flight { row, have });
    }

    /// Whether this command is in flight.
    pub(crate) fn holds(&self, command: &CommandId) -> bool {
        self.flights.contains_key(command)
    }

    /// How much of a command's output is stored.
    pub(crate) fn have(&self, command: &CommandId) -> Offsets {
        self.flights.get(command).map(|flight| flight.have).unwrap_or_default()
    }

    /// Forgets a command, whose end is known in another way than by its result.
    pub(crate) fn take(&mut self, command: &CommandId) -> Option<(CommandRow, Offsets)> {
        self.flights.remove(command).map(|flight| (flight.row, flight.have))
    }

    /// Commands in flight.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// What a frame means. A frame about a command that was not sent here means nothing: a guest speaks only of what
    /// it was given.
    pub(crate) fn hear(&mut self, frame: AgentFrame) -> Result<Act, Breach> {
        Ok(match frame {
            AgentFrame::Hello(_) => return Err(Breach::Hello),
            AgentFrame::Accepted { .. } => Act::Nothing,
            AgentFrame::Started { command, .. } => self
                .flights
                .get(&command)
                .map_or(Act::Nothing, |flight| Act::Started(Box::new(flight.row.clone()))),
            AgentFrame::Deferred { command, .. } => {
                self.flights.remove(&command).map_or(Act::Nothing, |_| Act::Later(command))
            }
            AgentFrame::Output { command, stream, offset, data } => {
                return self.output(command, stream, offset, &data);
            }
            AgentFrame::Result { command, result } => return self.result(command, result),
            AgentFrame::LookAnswer(answer) => Act::Looked(answer),
            AgentFrame::Pong(pong) => Act::Ponged(pong),
        })
    }

    fn output(&mut self, command: CommandId, stream: Stream, offset: u64, data: &str) -> Result<Act, Breach> {
        let limit = self.output_limit;
        let Some(flight) = self.flights.get_mut(&command) else { return Ok(Act::Nothing) };
        let Ok(mut data) = decode_bytes(data) else { return Err(Breach::Base64(command)) };
        let have = flight.have.of(stream);
        let Some(known) = have.checked_sub(offset) else { return Err(Breach::Gap { command, offset, have }) };
        // What is stored already is dropped, so that no byte stands twice.
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        data.drain(..known);
        if data.is_empty() {
            return Ok(Act::Nothing);
        }
        let end = have.saturating_add(data.len() as u64);
        if end > limit {
            return Err(Breach::TooMuch { command, limit });
        }
        *flight.have.of_mut(stream) = end;
        Ok(Act::Output { command, stream, start: have, data })
    }

    fn result(&mut self, command: CommandId, result: CommandResult) -> Result<Act, Breach> {
        let Some(flight) = self.flights.get(&command) else { return Ok(Act::Nothing) };
        for stream in Stream::ALL {
            let (said, have) = (result.output.of(stream), flight.have.of(stream));
            if said > have {
                return Err(Breach::Short { command, said, have });
            }
        }
        let Some(flight) = self.flights.remove(&command) else { return Ok(Act::Nothing) };
        Ok(Act::Finished { row: Box::new(flight.row), command, result })
    }
}

/// What a guest's answer means for its job, in the words of a verdict and for people.
pub(crate) fn meaning(result: &CommandResult) -> (Verdict, String) {
    match &result.outcome {
        Outcome::Done { exit_code: Some(0), .. } => (Verdict::Reached, "exit code 0".to_owned()),
        Outcome::Done { exit_code: Some(code), .. } => (Verdict::Failed, format!("exit code {code}")),
        Outcome::Done { signal: Some(signal), .. } => (Verdict::Failed, format!("ended by signal {signal}")),
        Outcome::Done { .. } => (Verdict::Unknown, "ended without exit code or signal".to_owned()),
        Outcome::Data { .. } => (Verdict::Reached, "figures read".to_owned()),
        Outcome::TimedOut { after_secs } => {
            (Verdict::Failed, format!("killed after its time limit of {after_secs} s"))
        }
        Outcome::Cancelled => (Verdict::Failed, "cancelled on the guest".to_owned()),
        Outcome::Interrupted => (
            Verdict::Unknown,
            "it was started on the guest and cut off; nobody knows how far it got".to_owned(),
        ),
        Outcome::Expired => (Verdict::Lost, "it reached the guest after its expiry and never ran".to_owned()),
        Outcome::Refused { floor } => {
            (Verdict::Unknown, format!("the guest serves only epochs from {floor} on for this job"))
        }
        Outcome::Failed { reason } => {
            let reason: String = reason.chars().take(300).collect();
            (Verdict::Lost, format!("it could not be started on the guest: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobUid, Micros, ServerId};
    use crate::wire::encode_bytes;
    use proptest::prelude::{any, proptest};

    const LIMIT: u64 = 100;

    fn command() -> CommandId {
        CommandId::new(JobUid::random(), "run", 1, ServerId(7)).expect("valid")
    }

    fn row(command: &CommandId) -> CommandRow {
        CommandRow {
            id: command.to_string(),
            seq: 1,
            job: command.job().to_string(),
            attempt: String::new(),
            customer: 1,
            server: 7,
            epoch: 1,
            operation: String::new(),
            user_name: String::new(),
            state: String::new(),
            made_at: 0,
            expires_at: 0,
            sent_at: None,
            done_at: None,
            result: None,
            cancel_epoch: None,
        }
    }

    fn output(command: &CommandId, offset: u64, data: &[u8]) -> AgentFrame {
        let data = encode_bytes(data);
        AgentFrame::Output { command: command.clone(), stream: Stream::Stdout, offset, data }
    }

    fn result(command: &CommandId, stdout: u64) -> AgentFrame {
        let result = CommandResult {
            outcome: Outcome::Done { exit_code: Some(0), signal: None },
            output: Offsets { stdout, stderr: 0 },
            at: Micros(1),
        };
        AgentFrame::Result { command: command.clone(), result }
    }

    proptest! {
        /// Whatever is repeated or overlaps, the bytes stored are those printed, each once.
        #[test]
        fn pieces_make_the_output_exactly(cuts in proptest::collection::vec((0..100_usize, 0..100_usize), 0..40), from in 0..100_u64) {
            let printed: Vec<u8> = (0..100).collect();
            let command = command();
            let mut machine = Machine::new(LIMIT);
            let already = usize::try_from(from).expect("small");
            machine.sending(command.clone(), row(&command), Offsets { stdout: from, stderr: 0 });
            let mut stored = printed[..already].to_vec();
            for (a, b) in cuts {
                let (start, end) = (a.min(b), a.max(b));
                match machine.hear(output(&command, start as u64, &printed[start..end])) {
                    Ok(Act::Output { start, data, .. }) => {
                        assert_eq!(start, stored.len() as u64);
                        stored.extend(data);
                    }
                    Ok(act) => assert_eq!(act, Act::Nothing),
                    Err(breach) => {
                        assert!(matches!(breach, Breach::Gap { .. }) && start > stored.len(), "{breach}");
                    }
                }
                assert_eq!(stored, printed[..stored.len()]);
            }
        }

        #[test]
        fn no_frame_of_a_stranger_does_anything(text in any::<String>()) {
            let mut machine = Machine::new(LIMIT);
            let stranger = command();
            assert_eq!(machine.hear(output(&stranger, 0, text.as_bytes())), Ok(Act::Nothing));
            assert_eq!(machine.hear(result(&stranger, 0)), Ok(Act::Nothing));
        }
    }

    #[test]
    fn a_result_counts_once_and_only_with_all_its_output() {
        let command = command();
        let mut machine = Machine::new(LIMIT);
        machine.sending(command.clone(), row(&command), Offsets::default());
        assert!(matches!(machine.hear(result(&command, 3)), Err(Breach::Short { said: 3, have: 0, .. })));
        machine.hear(output(&command, 0, b"abc")).expect("stored");
        assert!(matches!(machine.hear(result(&command, 3)), Ok(Act::Finished { .. })));
        assert_eq!(machine.hear(result(&command, 3)), Ok(Act::Nothing));
        assert_eq!(machine.len(), 0);
    }

    #[test]
    fn a_guest_cannot_fill_the_database() {
        let command = command();
        let mut machine = Machine::new(LIMIT);
        machine.sending(command.clone(), row(&command), Offsets::default());
        assert!(matches!(machine.hear(output(&command, 0, &[0; 101])), Err(Breach::TooMuch { .. })));
    }

    #[test]
    fn only_a_clean_exit_is_success_and_doubt_stays_doubt() {
        let of = |outcome| meaning(&CommandResult { outcome, output: Offsets::default(), at: Micros(1) }).0;
        assert_eq!(of(Outcome::Done { exit_code: Some(0), signal: None }), Verdict::Reached);
        assert_eq!(of(Outcome::Done { exit_code: Some(1), signal: None }), Verdict::Failed);
        assert_eq!(of(Outcome::Done { exit_code: None, signal: Some(9) }), Verdict::Failed);
        assert_eq!(of(Outcome::Done { exit_code: None, signal: None }), Verdict::Unknown);
        assert_eq!(of(Outcome::Interrupted), Verdict::Unknown);
        assert_eq!(of(Outcome::Expired), Verdict::Lost);
    }
}

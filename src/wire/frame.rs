//! Frames of the session: JSON texts, one a WebSocket message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{CommandId, FRAME_LIMIT};
use crate::model::{Boot, Epoch, JobUid, Micros};

/// Why a text is no frame, or a frame no text.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_LIMIT`].
    #[error("a frame of {0} bytes is longer than the {FRAME_LIMIT} allowed")]
    TooLong(usize),
    /// Not the JSON of a known frame.
    #[error("the frame is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Output that is no base64.
    #[error("the frame's output is not base64")]
    Base64(#[from] base64::DecodeError),
}

/// What the dispatcher sends.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum DispatcherFrame {
    /// First frame of a session.
    Hello(DispatcherHello),
    /// Run this command, or attach to it.
    Run(Run),
    /// Say what became of a command; raises the job's floor before it is answered.
    Look(Reference),
    /// End a command.
    Cancel(Reference),
    /// Are you there?
    Ping {
        /// Comes back in the answer.
        n: u64,
    },
    /// The result of this command is stored; its files may go.
    Ack {
        /// The command.
        command: CommandId,
    },
}

/// First frame of the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DispatcherHello {
    /// The process that dials.
    pub boot: Boot,
    /// Number of this session; a higher one replaces a lower one.
    pub session_no: i64,
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Name of the command.
    pub command: CommandId,
    /// The job; the one in `command`.
    pub job: JobUid,
    /// The sender's fence.
    pub epoch: Epoch,
    /// What to do.
    pub operation: Operation,
    /// Who asked, for the guest's log. Not the account it runs under.
    pub user: String,
    /// Not started after this point, in the **agent's** clock.
    pub expires_at: Micros,
    /// How much output the sender already has.
    #[serde(default)]
    pub output_from: Offsets,
}

/// Names a command with the sender's fence.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reference {
    /// The command.
    pub command: CommandId,
    /// Its job.
    pub job: JobUid,
    /// The sender's fence.
    pub epoch: Epoch,
    /// How much of its output the sender has, in case it has to be sent.
    #[serde(default)]
    pub output_from: Offsets,
}

/// Byte offsets in a command's two outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Offsets {
    /// In its standard output.
    #[serde(default)]
    pub stdout: u64,
    /// In its standard error.
    #[serde(default)]
    pub stderr: u64,
}

/// The closed list of what an agent does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Operation {
    /// Run a program. Never a shell: the arguments reach it as they are.
    RunCommand {
        /// Program and arguments.
        argv: Vec<String>,
        /// Longest run, in seconds.
        timeout_secs: u32,
    },
    /// Read the guest's figures. Pure: may be asked any number of times.
    GetAgentData,
}

impl Operation {
    /// The words of every operation, as the agent announces them.
    pub const WORDS: &'static [&'static str] = &["run-command", "get-agent-data"];

    /// The operation's word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::RunCommand { .. } => "run-command",
            Self::GetAgentData => "get-agent-data",
        }
    }
}

/// What the agent sends.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AgentFrame {
    /// Answer to the dispatcher's hello.
    Hello(AgentHello),
    /// The command waits for a free place.
    Accepted {
        /// The command.
        command: CommandId,
    },
    /// The command is journalled and was given to its shim.
    Started {
        /// The command.
        command: CommandId,
        /// When, in the agent's clock.
        at: Micros,
    },
    /// The agent's queue is full; nothing was done. Send it again later.
    Deferred {
        /// The command.
        command: CommandId,
        /// Why.
        reason: String,
    },
    /// A piece of output. Pieces of one stream come in order and without gaps.
    Output {
        /// The command.
        command: CommandId,
        /// Which output.
        stream: Stream,
        /// Where in the stream the piece begins.
        offset: u64,
        /// The bytes, base64.
        data: String,
    },
    /// The end of a command; all its output was sent before.
    Result {
        /// The command.
        command: CommandId,
        /// How it ended.
        result: CommandResult,
    },
    /// Answer to a look.
    LookAnswer(LookAnswer),
    /// Answer to a ping.
    Pong(Pong),
}

/// First frame of the agent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentHello {
    /// See [`super::AGENT_VERSION`].
    pub version: i64,
    /// The agent's clock now; expiries are stated in it.
    pub clock: Micros,
    /// Names this life of the agent's process.
    pub boot: Boot,
    /// Operating system and processor.
    pub platform: String,
    /// Words of the operations it knows.
    pub operations: Vec<String>,
}

/// One of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word rows and files carry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Offsets {
    /// The offset in this stream.
    #[must_use]
    pub const fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// The place of this stream's offset.
    pub const fn of_mut(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CommandResult {
    /// What happened.
    pub outcome: Outcome,
    /// Lengths of its outputs in bytes.
    #[serde(default)]
    pub output: Offsets,
    /// When it ended, in the agent's clock.
    pub at: Micros,
}

/// What happened to a command.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran to its end: an exit code, or the signal that ended it.
    Done {
        /// Exit code, absent when a signal ended it.
        #[serde(default)]
        exit_code: Option<i32>,
        /// Signal, absent when it exited.
        #[serde(default)]
        signal: Option<i32>,
    },
    /// The figures asked for.
    Data {
        /// The figures.
        data: GuestStats,
    },
    /// It ran into its time limit and was killed.
    TimedOut {
        /// The limit in seconds.
        after_secs: u32,
    },
    /// It was ended, or taken from the queue, because the dispatcher asked.
    Cancelled,
    /// It was started, and nobody can know how far it got.
    Interrupted,
    /// Its time was over before it could start; it never ran.
    Expired,
    /// The sender's epoch is too low; nothing was done.
    Refused {
        /// The lowest epoch served for this job.
        floor: Epoch,
    },
    /// It could not be started; it never ran.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Answer to a look.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LookAnswer {
    /// The command asked about.
    pub command: CommandId,
    /// What the journal says.
    pub state: LookState,
    /// The job's floor after the look.
    pub floor: Epoch,
}

/// What the agent's journal says about a command.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum LookState {
    /// It ended.
    Done {
        /// How.
        result: CommandResult,
    },
    /// It runs or waits for a free place.
    Running,
    /// It was started and cut off.
    Interrupted,
    /// The agent does not know it, and will refuse senders below the floor.
    Absent,
    /// The asker's own epoch is below the floor; nothing was looked up.
    Refused,
}

/// Answer to a ping.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Pong {
    /// The ping's number.
    pub n: u64,
    /// The agent's clock.
    pub clock: Micros,
    /// The guest's figures.
    pub stats: GuestStats,
}

/// Figures of a guest.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GuestStats {
    /// Load average over one minute.
    pub cpu_load: f64,
    /// Processors.
    pub cpu_count: u32,
    /// Memory in bytes.
    pub memory_total: u64,
    /// Memory in use, in bytes.
    pub memory_used: u64,
    /// Processes.
    pub processes: u32,
}

macro_rules! texts {
    ($($frame:ident),+) => {$(
        impl $frame {
            /// The frame's text.
            ///
            /// # Errors
            /// [`FrameError::TooLong`] above [`FRAME_LIMIT`].
            pub fn encode(&self) -> Result<String, FrameError> {
                let text = serde_json::to_string(self)?;
                if text.len() > FRAME_LIMIT { Err(FrameError::TooLong(text.len())) } else { Ok(text) }
            }

            /// The frame of a text.
            ///
            /// # Errors
            /// When the text is too long or no such frame.
            pub fn decode(text: &str) -> Result<Self, FrameError> {
                if text.len() > FRAME_LIMIT {
                    return Err(FrameError::TooLong(text.len()));
                }
                Ok(serde_json::from_str(text)?)
            }
        }
    )+};
}

texts!(DispatcherFrame, AgentFrame);

/// Output bytes as a frame carries them.
#[must_use]
pub fn encode_bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Output bytes out of a frame.
///
/// # Errors
/// When the text is no base64.
pub fn decode_bytes(text: &str) -> Result<Vec<u8>, FrameError> {
    Ok(STANDARD.decode(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServerId;
    use proptest::prelude::{any, proptest};

    fn command() -> CommandId {
        CommandId::new(JobUid::random(), "run", 1, ServerId(7)).expect("valid")
    }

    #[test]
    fn frames_keep_their_text_and_a_newer_sender_may_add_fields() {
        let command = command();
        let run = DispatcherFrame::Run(Run {
            job: command.job(),
            command: command.clone(),
            epoch: Epoch(3),
            operation: Operation::RunCommand { argv: vec!["true".into()], timeout_secs: 5 },
            user: "7".into(),
            expires_at: Micros(9),
            output_from: Offsets::default(),
        });
        assert_eq!(DispatcherFrame::decode(&run.encode().expect("text")).expect("frame"), run);
        let newer = format!(
            r#"{{"type":"result","command":"{command}","hue":1,"result":{{"outcome":{{"outcome":"done","exit_code":0}},"at":1,"hue":2}}}}"#
        );
        let AgentFrame::Result { result, .. } = AgentFrame::decode(&newer).expect("frame") else {
            panic!("another frame");
        };
        assert_eq!(result.outcome, Outcome::Done { exit_code: Some(0), signal: None });
        for bad in ["", "{}", r#"{"type":"run"}"#, r#"{"type":"format-disk"}"#] {
            DispatcherFrame::decode(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_full_chunk_fits_a_frame_and_nothing_longer_than_the_limit_passes() {
        let output = AgentFrame::Output {
            command: command(),
            stream: Stream::Stderr,
            offset: u64::MAX,
            data: encode_bytes(&[0; super::super::CHUNK]),
        };
        output.encode().expect("fits");
        let long = format!(r#"{{"type":"ping","n":1,"x":"{}"}}"#, "a".repeat(FRAME_LIMIT));
        assert!(matches!(DispatcherFrame::decode(&long), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn bytes_survive_and_no_text_panics(bytes: Vec<u8>, text in any::<String>()) {
            assert_eq!(decode_bytes(&encode_bytes(&bytes)).expect("own text"), bytes);
            let _ = AgentFrame::decode(&text);
            let _ = DispatcherFrame::decode(&text);
        }
    }
}

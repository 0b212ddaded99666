//! What dispatcher and guest agent say to each other: the handshake over HTTP and the frames of the WebSocket
//! subprotocol [`SUBPROTOCOL`].
//!
//! Plain data and its text, shared by `agent` and `agents`; no sockets, no decisions. Unknown fields are ignored, so
//! that either side may be newer; what the agent can do it says in its hello.

mod catalogue;
mod command;
mod frame;
mod handshake;

pub use catalogue::{Argument, ArgumentType, CATALOGUE, Described};
pub use command::{CommandId, InvalidCommandId};
pub use frame::{
    AgentFrame, AgentHello, CommandResult, DispatcherFrame, DispatcherHello, FrameError, GuestStats,
    LookAnswer, LookState, Offsets, Operation, Outcome, Pong, Reference, Run, Stream, decode_bytes,
    encode_bytes,
};
pub use handshake::{HANDSHAKE_PATH, HandshakeAnswer, HandshakeRequest};

/// Name of the WebSocket subprotocol; a breaking change takes a new one.
pub const SUBPROTOCOL: &str = "dispatcher-agent.v1";
/// Longest frame, in bytes of text.
pub const FRAME_LIMIT: usize = 256 * 1024;
/// Most output bytes put in one frame: with base64 and the frame's other fields well below [`FRAME_LIMIT`].
pub const CHUNK: usize = 64 * 1024;
/// Version the agent announces; rises with each operation it learns.
pub const AGENT_VERSION: i64 = 1;
/// Port the agent listens on.
pub const AGENT_PORT: u16 = 2003;
/// Path of the WebSocket on the agent.
pub const SESSION_PATH: &str = "/session";

/// The host name in a guest's certificate, by which the dispatcher checks it no matter where the guest's address is.
#[must_use]
pub fn agent_host_name(server: crate::model::ServerId) -> String {
    format!("agent-{server}.agents.internal")
}

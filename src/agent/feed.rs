//! Sends a command's output and then its result to one session, by reading the files the shim writes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::place::Place;
use crate::wire::{AgentFrame, CHUNK, CommandId, CommandResult, Offsets, Stream, encode_bytes};

/// Shortest pause between two looks at the files.
const EAGER: Duration = Duration::from_millis(10);
/// Longest pause, reached when nothing is written.
const IDLE: Duration = Duration::from_millis(250);

/// What one feed needs.
pub(super) struct Feed {
    pub(super) command: CommandId,
    pub(super) place: Place,
    /// Where to begin in each output.
    pub(super) from: Offsets,
    /// Becomes the result when the command has ended.
    pub(super) result: watch::Receiver<Option<CommandResult>>,
    /// The session. Bounded: a slow reader makes the feed wait, not the agent grow.
    pub(super) out: mpsc::Sender<AgentFrame>,
}

impl Feed {
    /// Runs until the result is sent or the session is gone.
    pub(super) async fn run(mut self) {
        let mut pause = EAGER;
        loop {
            // Read before the files: with a result at hand they do not grow any more.
            let ended = self.result.borrow_and_update().clone();
            let Some(moved) = self.send_new().await else { return };
            if let Some(result) = ended {
                let _ = self.out.send(AgentFrame::Result { command: self.command, result }).await;
                return;
            }
            pause = if moved { EAGER } else { (pause * 2).min(IDLE) };
            tokio::select! {
                changed = self.result.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sends what the files have beyond what was sent: whether that was anything; nothing when the session is gone.
    async fn send_new(&mut self) -> Option<bool> {
        let mut moved = false;
        for stream in Stream::ALL {
            let Ok(file) = File::open(self.place.output(stream)) else { continue };
            while let Some(bytes) = piece(&file, self.from.of(stream)) {
                let offset = self.from.of(stream);
                *self.from.of_mut(stream) += bytes.len() as u64;
                let data = encode_bytes(&bytes);
                self.out
                    .send(AgentFrame::Output { command: self.command.clone(), stream, offset, data })
                    .await
                    .ok()?;
                moved = true;
            }
        }
        Some(moved)
    }
}

/// The next bytes from `offset`; nothing at the end of what is written.
fn piece(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    let read = file.read_at(&mut bytes, offset).ok().filter(|read| *read > 0)?;
    bytes.truncate(read);
    Some(bytes)
}

//! One session's socket: frames in to the core, answers and output out. Decides nothing.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::Limits;
use super::core::{Event, Session};
use super::listen::Socket;
use crate::model::ServerId;
use crate::wire::{AgentFrame, DispatcherFrame};

/// Answers that may wait for the socket; more means that the dispatcher does not read.
const CONTROL: usize = 1024;
/// Pieces of output that may wait for the socket, about 90 KB each.
const BULK: usize = 8;

/// Serves a session until either side ends it.
pub(super) async fn run(
    mut socket: Socket,
    connection: u64,
    server: ServerId,
    events: &mpsc::Sender<Event>,
    limits: &Limits,
) {
    let reason = match hello(&mut socket, limits).await {
        Ok(number) => {
            let (control, mut answers) = mpsc::channel(CONTROL);
            let (bulk, mut pieces) = mpsc::channel(BULK);
            let session = Session { connection, number, server, control, bulk };
            if events.send(Event::Opened(session)).await.is_err() {
                return;
            }
            let mut pipes = Pipes { answers: &mut answers, pieces: &mut pieces };
            let reason = pump(&mut socket, &mut pipes, connection, events, limits).await;
            format!("session {number} ended: {reason}")
        }
        Err(reason) => format!("no session: {reason}"),
    };
    log::info!("{reason}");
    // The peer may be gone; closing is a courtesy.
    let _ = tokio::time::timeout(limits.greeting, socket.close(None)).await;
}

struct Pipes<'a> {
    answers: &'a mut mpsc::Receiver<AgentFrame>,
    pieces: &'a mut mpsc::Receiver<AgentFrame>,
}

async fn hello(socket: &mut Socket, limits: &Limits) -> Result<i64, String> {
    let first = tokio::time::timeout(limits.greeting, next(socket))
        .await
        .map_err(|e| format!("no hello: {e}"))??
        .ok_or("no hello")?;
    match first {
        DispatcherFrame::Hello(hello) => Ok(hello.session_no),
        _ => Err("the first frame is no hello".to_owned()),
    }
}

async fn pump(
    socket: &mut Socket,
    pipes: &mut Pipes<'_>,
    connection: u64,
    events: &mpsc::Sender<Event>,
    limits: &Limits,
) -> String {
    let mut heard = Instant::now();
    loop {
        let outgoing = tokio::select! {
            biased;
            answer = pipes.answers.recv() => answer,
            piece = pipes.pieces.recv() => piece,
            incoming = tokio::time::timeout_at(heard + limits.idle, next(socket)) => {
                match incoming {
                    Ok(Ok(Some(frame))) => {
                        heard = Instant::now();
                        if events.send(Event::Frame { session: connection, frame }).await.is_err() {
                            return "the agent stops".to_owned();
                        }
                        continue;
                    }
                    Ok(Ok(None)) => return "closed by the dispatcher".to_owned(),
                    Ok(Err(reason)) => return reason,
                    Err(_) => return format!("nothing heard for {:?}", limits.idle),
                }
            }
        };
        let Some(frame) = outgoing else { return "replaced".to_owned() };
        let text = match frame.encode() {
            Ok(text) => text,
            Err(e) => return e.to_string(),
        };
        match tokio::time::timeout(limits.idle, socket.send(Message::text(text))).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return e.to_string(),
            Err(_) => return format!("nothing taken for {:?}", limits.idle),
        }
    }
}

/// The next frame; nothing when the peer closed.
async fn next(socket: &mut Socket) -> Result<Option<DispatcherFrame>, String> {
    loop {
        match socket.next().await {
            None | Some(Ok(Message::Close(_))) => return Ok(None),
            Some(Ok(Message::Text(text))) => {
                return DispatcherFrame::decode(&text).map(Some).map_err(|e| e.to_string());
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Binary(_))) => return Err("a binary message is no frame".to_owned()),
            Some(Err(e)) => return Err(e.to_string()),
        }
    }
}

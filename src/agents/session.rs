//! One session: dialling, the socket loop, and storing before acknowledging.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::directory::Face;
use super::machine::{Act, Breach, Machine, meaning};
use super::{Error, Links};
use crate::crypto::pki;
use crate::model::{AgentId, CustomerId, Epoch, Micros, ServerId, Verdict};
use crate::mq::Nudge;
use crate::ops::failpoint::hit;
use crate::store::provisioning::agent::{self, CommandRow};
use crate::store::provisioning::job::Evidence;
use crate::store::{self, AnyConnection};
use crate::wire::{
    AgentFrame, AgentHello, CommandId, CommandResult, DispatcherFrame, DispatcherHello, FRAME_LIMIT,
    FrameError, LookAnswer, Offsets, Operation, Outcome, Pong, Reference, Run, SESSION_PATH, SUBPROTOCOL,
    Stream, agent_host_name,
};

/// Size of a connection's read and write buffers: with the library's 128 KiB each, thousands of idle guests would cost
/// a gigabyte. Larger frames are read in pieces.
const BUFFER: usize = 1024;
/// Source of the evidence that holds a guest's result.
const RESULT: &str = "agent";
/// Source of the evidence that a guest has begun.
const STARTED: &str = "agent-started";

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Whom to dial.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) agent: AgentId,
    pub(super) customer: CustomerId,
    pub(super) server: ServerId,
    pub(super) address: SocketAddr,
}

/// What a session can be asked.
pub(super) enum Ask {
    Nudged,
    Look(Box<Reference>, oneshot::Sender<Result<LookAnswer, Error>>),
    Ping(oneshot::Sender<Result<Pong, Error>>),
    Cancel(Box<Reference>),
}

impl Ask {
    /// Says that there is no session.
    pub(super) fn refuse(self, server: ServerId) {
        match self {
            Self::Nudged => {}
            // Who asked may have stopped waiting.
            Self::Look(_, reply) => drop(reply.send(Err(Error::Absent(server)))),
            Self::Ping(reply) => drop(reply.send(Err(Error::Absent(server)))),
            Self::Cancel(reference) => log::warn!("{} is not cancelled: no session", reference.command),
        }
    }
}

/// Why there is no session, or none any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("no session within {0:?}")]
    Slow(Duration),
    #[error("its certificate names {0}, which is not this guest")]
    Stranger(String),
    #[error("the WebSocket failed")]
    Socket(#[source] Box<tungstenite::Error>),
    #[error("it does not speak {SUBPROTOCOL}")]
    Language,
    #[error("its first frame is no hello")]
    NoHello,
    #[error("it sent what is no frame")]
    Frame(#[from] FrameError),
    #[error("it broke the protocol")]
    Breach(#[from] Breach),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("it closed the session")]
    Closed,
    #[error("nobody needs the session")]
    Alone,
    #[error("another node of the dispatcher holds the session with it")]
    Elsewhere,
    #[error("the rows cannot be read or written")]
    Store(#[from] store::Error),
}

impl From<tungstenite::Error> for Trouble {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

/// An open session.
pub(super) struct Session<'a> {
    pub(super) links: &'a Links,
    pub(super) target: &'a Target,
    face: &'a Face,
    socket: Socket,
    pub(super) machine: Machine,
    /// What the guest can do, its clock, and when it said so.
    hello: AgentHello,
    greeted: Instant,
    heard: Instant,
    /// Whether rows may wait beyond those in flight.
    more: bool,
    pings: HashMap<u64, oneshot::Sender<Result<Pong, Error>>>,
    next_ping: u64,
    looks: Vec<(CommandId, oneshot::Sender<Result<LookAnswer, Error>>)>,
    /// Commands whose end was asked for, and under which epoch the guest's journal was asked about them.
    pub(super) called_off: HashMap<CommandId, Epoch>,
}

/// Dials a guest and greets it under a fresh session number.
pub(super) async fn open<'a>(
    links: &'a Links,
    target: &'a Target,
    face: &'a Face,
) -> Result<Session<'a>, Trouble> {
    let limit = links.limits.connect;
    let (agent, boot) = (target.agent, links.boot.to_string());
    let number =
        links.store.write(move |c| agent::next_session(c, agent, &boot)).await?.ok_or(Trouble::Elsewhere)?;
    // On the heap, so that what a handshake needs is given back: the session's own future lives as long as its guest.
    let dialled = Box::pin(tokio::time::timeout(limit, greet(links, target, number))).await;
    let (socket, hello) = dialled.map_err(|_late| Trouble::Slow(limit))??;
    log::info!(server = target.server.0; "session {number} with server {} is open", target.server);
    face.show(|view| {
        view.connected = true;
        view.session = number;
        view.version = hello.version;
        view.heard = Some(Micros::wall());
        view.trouble = None;
    });
    let now = Instant::now();
    Ok(Session {
        links,
        target,
        face,
        socket,
        machine: Machine::new(links.limits.output),
        hello,
        greeted: now,
        heard: now,
        more: false,
        pings: HashMap::new(),
        next_ping: 0,
        looks: Vec::new(),
        called_off: HashMap::new(),
    })
}

async fn greet(links: &Links, target: &Target, number: i64) -> Result<(Socket, AgentHello), Trouble> {
    let name = agent_host_name(target.server);
    let stream = TcpStream::connect(target.address).await.map_err(Trouble::Connect)?;
    stream.set_nodelay(true).map_err(Trouble::Connect)?;
    // Nobody closes it.
    let _turn = links.greeting.acquire().await;
    let host = name
        .clone()
        .try_into()
        .map_err(|e| Trouble::Connect(std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
    let tls = TlsConnector::from(std::sync::Arc::clone(&links.tls));
    let tls = tls.connect(host, stream).await.map_err(Trouble::Connect)?;
    let uri =
        tls.get_ref().1.peer_certificates().and_then(|certs| certs.first()).and_then(|c| pki::uri_of(c));
    if uri.as_ref() != Some(&pki::agent_uri(target.customer, target.server)) {
        return Err(Trouble::Stranger(uri.unwrap_or_else(|| "nobody".to_owned())));
    }
    let mut request = format!("wss://{name}{SESSION_PATH}").into_client_request()?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_LIMIT))
        .max_frame_size(Some(FRAME_LIMIT))
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    let (mut socket, response) =
        tokio_tungstenite::client_async_with_config(request, tls, Some(config)).await?;
    if response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).is_none_or(|name| name != SUBPROTOCOL) {
        return Err(Trouble::Language);
    }
    let hello = DispatcherFrame::Hello(DispatcherHello { boot: links.boot, session_no: number });
    socket.send(Message::text(hello.encode()?)).await?;
    match next(&mut socket).await? {
        AgentFrame::Hello(hello) => Ok((socket, hello)),
        _ => Err(Trouble::NoHello),
    }
}

async fn next(socket: &mut Socket) -> Result<AgentFrame, Trouble> {
    loop {
        match socket.next().await.ok_or(Trouble::Closed)?? {
            Message::Text(text) => return Ok(AgentFrame::decode(&text)?),
            Message::Close(_) => return Err(Trouble::Closed),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// A command that may be sent: what is left of its time, and the output that is stored already.
struct Sendable {
    row: CommandRow,
    left: i64,
    have: Offsets,
}

impl Session<'_> {
    /// Serves until something goes wrong, and says what.
    pub(super) async fn run(&mut self, asks: &mut mpsc::Receiver<Ask>) -> Trouble {
        match self.serve(asks).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn serve(&mut self, asks: &mut mpsc::Receiver<Ask>) -> Result<std::convert::Infallible, Trouble> {
        let limits = &self.links.limits;
        let mut beat = tokio::time::interval(limits.ping);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let silent = self.heard + limits.idle;
            tokio::select! {
                frame = tokio::time::timeout_at(silent, next(&mut self.socket)) => {
                    let frame = frame.map_err(|_late| Trouble::Silent(limits.idle))??;
                    self.heard = Instant::now();
                    self.face.show(|view| view.heard = Some(Micros::wall()));
                    let act = self.machine.hear(frame)?;
                    self.act(act).await?;
                }
                // On the heap while they last, as with the handshake.
                ask = asks.recv() => Box::pin(self.asked(ask.ok_or(Trouble::Alone)?)).await?,
                _ = beat.tick() => Box::pin(self.beat()).await?,
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Trouble> {
        self.ping(None).await?;
        // A guest that could not write its journal did not answer: it is asked again.
        self.called_off.clear();
        // A nudge may have been lost, a deferred command may find a place now.
        self.refill().await
    }

    /// Carries out what a frame asks for; most of them ask for nothing that waits.
    async fn act(&mut self, act: Act) -> Result<(), Trouble> {
        if let Act::Nothing = act { Ok(()) } else { Box::pin(self.perform(act)).await }
    }

    pub(super) async fn send(&mut self, frame: &DispatcherFrame) -> Result<(), Trouble> {
        let limit = self.links.limits.idle;
        let text = Message::text(frame.encode()?);
        tokio::time::timeout(limit, self.socket.send(text))
            .await
            .map_err(|_late| Trouble::Silent(limit))??;
        Ok(())
    }

    async fn asked(&mut self, ask: Ask) -> Result<(), Trouble> {
        match ask {
            Ask::Nudged => self.refill().await,
            Ask::Ping(reply) => self.ping(Some(reply)).await,
            Ask::Cancel(reference) => self.send(&DispatcherFrame::Cancel(*reference)).await,
            Ask::Look(reference, reply) => {
                self.looks.retain(|(_, waiting)| !waiting.is_closed());
                self.looks.push((reference.command.clone(), reply));
                self.send(&DispatcherFrame::Look(*reference)).await
            }
        }
    }

    async fn ping(&mut self, reply: Option<oneshot::Sender<Result<Pong, Error>>>) -> Result<(), Trouble> {
        self.pings.retain(|_, waiting| !waiting.is_closed());
        self.next_ping += 1;
        if let Some(reply) = reply {
            self.pings.insert(self.next_ping, reply);
        }
        self.send(&DispatcherFrame::Ping { n: self.next_ping }).await
    }

    /// Calls off what is to end, then sends what waits, in the order of the rows, as far as the window allows.
    async fn refill(&mut self) -> Result<(), Trouble> {
        self.call_off().await?;
        let window = self.links.limits.window;
        if self.machine.len() >= window {
            self.more = true;
            return Ok(());
        }
        let (server, limit) = (self.target.server, i64::try_from(window).unwrap_or(i64::MAX));
        let rows = self.links.store.read(move |c| agent::open_commands(c, server, limit)).await?;
        self.more = rows.len() >= window;
        let mut fresh = Vec::new();
        for row in rows {
            match (row.id.parse::<CommandId>(), serde_json::from_str::<Operation>(&row.operation)) {
                (Ok(command), Ok(operation)) if command.server() == server => {
                    if !self.machine.holds(&command) {
                        fresh.push((command, operation, row));
                    }
                }
                _ => log::error!("command {} cannot be read and is never sent; job={}", row.id, row.job),
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let rows: Vec<CommandRow> = fresh.iter().map(|(_, _, row)| row.clone()).collect();
        let sendable = self.links.store.write(move |c| rows.iter().map(|row| mark(c, row)).collect()).await?;
        let sendable: Vec<Option<Sendable>> = sendable;
        hit("command.marked");
        for ((command, operation, _), sendable) in fresh.into_iter().zip(sendable) {
            if let Some(sendable) = sendable {
                self.dispatch(command, operation, sendable).await?;
            }
        }
        self.show_flights();
        Ok(())
    }

    async fn dispatch(
        &mut self,
        command: CommandId,
        operation: Operation,
        sendable: Sendable,
    ) -> Result<(), Trouble> {
        let Sendable { row, left, have } = sendable;
        if !self.hello.operations.iter().any(|word| word == operation.word()) {
            let outcome = Outcome::Failed {
                reason: format!("agent version {} does not know {}", self.hello.version, operation.word()),
            };
            let result = CommandResult { outcome, output: have, at: Micros::wall() };
            let told = meaning(&result);
            return self.finished(&row, (command, result), told).await;
        }
        let clock = self.hello.clock.plus(self.greeted.elapsed());
        let run = DispatcherFrame::Run(Run {
            job: command.job(),
            command: command.clone(),
            epoch: Epoch(row.epoch),
            operation,
            user: row.user_name.clone(),
            expires_at: Micros(clock.0.saturating_add(left)),
            output_from: have,
        });
        self.machine.sending(command, row, have);
        self.send(&run).await?;
        hit("command.sent");
        Ok(())
    }

    async fn perform(&mut self, act: Act) -> Result<(), Trouble> {
        match act {
            Act::Nothing => Ok(()),
            Act::Later(command) => {
                log::info!("{command} is sent again later: the guest's queue is full");
                Ok(())
            }
            Act::Ponged(pong) => {
                self.face.show(|view| view.stats = Some(pong.stats.clone()));
                if let Some(reply) = self.pings.remove(&pong.n) {
                    // Who asked may have stopped waiting.
                    let _ = reply.send(Ok(pong));
                }
                Ok(())
            }
            Act::Looked(answer) => {
                self.looked(&answer).await?;
                if let Some(at) = self.looks.iter().position(|(command, _)| *command == answer.command) {
                    let _ = self.looks.swap_remove(at).1.send(Ok(answer));
                }
                Ok(())
            }
            Act::Started(row) => self.started(&row).await,
            Act::Output { command, stream, start, data } => {
                let (id, start) = (command.to_string(), i64::try_from(start).unwrap_or(i64::MAX));
                let append =
                    move |c: &mut AnyConnection| agent::append_output(c, &id, stream.as_str(), start, &data);
                self.links.store.write(append).await?;
                Ok(())
            }
            Act::Finished { row, command, result } => {
                let told = meaning(&result);
                self.finished(&row, (command, result), told).await
            }
        }
    }

    async fn started(&self, row: &CommandRow) -> Result<(), Trouble> {
        let text = format!("started on server {}", self.target.server);
        let Some(seen) = evidence(row, STARTED, (Verdict::Pending, text), String::new()) else {
            return Ok(());
        };
        self.links.store.write(move |c| agent::note(c, &seen)).await?;
        Ok(())
    }

    /// Stores a result, then tells the guest that it may forget it, then whoever waits for it.
    pub(super) async fn finished(
        &mut self,
        row: &CommandRow,
        (command, result): (CommandId, CommandResult),
        told: (Verdict, String),
    ) -> Result<(), Trouble> {
        self.called_off.remove(&command);
        let raw = serde_json::to_string(&result).unwrap_or_default();
        let Some(seen) = evidence(row, RESULT, told, raw.clone()) else { return Ok(()) };
        let (id, job, word) = (row.id.clone(), seen.job, seen.verdict.as_str());
        log::info!(job:% = job; "{command} ended on server {}: {}", self.target.server, seen.text);
        hit("result.before");
        let announce = self.links.queue.announce();
        let item = move |c: &mut AnyConnection| {
            let finished = agent::finish(c, &id, &raw, &seen)?;
            announce.note(c, Nudge::Reported(job))?;
            Ok(finished)
        };
        self.links.store.write(item).await?;
        hit("result.after");
        self.links.metrics.agent_command(word);
        self.links.queue.publish(Nudge::Reported(job));
        self.send(&DispatcherFrame::Ack { command }).await?;
        self.show_flights();
        if std::mem::take(&mut self.more) {
            // Not awaited here, so that a long queue is no deep recursion: the next beat or this nudge refills.
            self.links.queue.remind(Nudge::Guest(self.target.server));
        }
        Ok(())
    }

    fn show_flights(&self) {
        let count = self.machine.len();
        self.face.show(|view| view.in_flight = count);
    }
}

/// Marks a row as sent; nothing when it must not be. What is left of its time is told by the database's clock.
fn mark(c: &mut AnyConnection, row: &CommandRow) -> diesel::QueryResult<Option<Sendable>> {
    if !agent::mark_sent(c, &row.id)? {
        return Ok(None);
    }
    let left = row.expires_at.saturating_sub(c.now()?.0);
    Ok(Some(Sendable { row: row.clone(), left, have: have_of(c, &row.id)? }))
}

/// How much of a command's output is stored.
pub(super) fn have_of(c: &mut AnyConnection, id: &str) -> diesel::QueryResult<Offsets> {
    let mut have = Offsets::default();
    for stream in Stream::ALL {
        let end = agent::output_end(c, id, stream.as_str())?;
        *have.of_mut(stream) = u64::try_from(end).unwrap_or(0);
    }
    Ok(have)
}

fn evidence(
    row: &CommandRow,
    source: &str,
    (verdict, text): (Verdict, String),
    raw: String,
) -> Option<Evidence> {
    let Ok(job) = row.job.parse() else {
        log::error!("command {} names no job: {}", row.id, row.job);
        return None;
    };
    Some(Evidence {
        subject: row.attempt.clone(),
        source: source.to_owned(),
        job,
        customer: CustomerId(row.customer),
        verdict,
        text,
        raw,
        // The database's clock is written instead.
        made_at: Micros(0),
    })
}

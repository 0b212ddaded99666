//! The agent's heart: one task that takes frames one by one, asks the journal, and starts shims.
//!
//! Everything that must not happen twice happens here in order: record first (fsync), then the act, then the answer.

mod records;
mod runs;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::journal::Journal;
use super::machine::Book;
use super::{Error, Settings, stats};
use crate::model::{Boot, Micros, ServerId};
use crate::wire::{
    AGENT_VERSION, AgentFrame, AgentHello, CommandId, CommandResult, DispatcherFrame, Operation, Pong, Run,
};

/// What reaches the core.
#[derive(Debug)]
pub(super) enum Event {
    /// A session said hello.
    Opened(Session),
    /// A session sent a frame.
    Frame {
        /// Which life of which session.
        session: u64,
        /// The frame.
        frame: DispatcherFrame,
    },
    /// A shim is gone and this is its command's end.
    Ended {
        /// The command.
        command: CommandId,
        /// Its end.
        result: CommandResult,
    },
}

/// The dispatcher's end of a session, as the core sees it. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct Session {
    /// Number of the connection in this process, so that late frames of a replaced session are told apart.
    pub(super) connection: u64,
    /// The dispatcher's number.
    pub(super) number: i64,
    /// Who this guest is, by the certificate the session was made with.
    pub(super) server: ServerId,
    /// Answers, sent before output.
    pub(super) control: mpsc::Sender<AgentFrame>,
    /// Output and results.
    pub(super) bulk: mpsc::Sender<AgentFrame>,
}

struct Current {
    session: Session,
    feeds: HashMap<CommandId, AbortHandle>,
}

impl Drop for Current {
    fn drop(&mut self) {
        self.feeds.values().for_each(AbortHandle::abort);
    }
}

type Ending = watch::Sender<Option<CommandResult>>;

/// See the module.
pub(super) struct Core {
    settings: Arc<Settings>,
    boot: Boot,
    journal: Arc<Mutex<Journal>>,
    book: Book,
    /// Commands that run or wait, with the place their end is told.
    live: HashMap<CommandId, Ending>,
    queue: VecDeque<Run>,
    running: usize,
    current: Option<Current>,
    events: mpsc::Sender<Event>,
}

impl Core {
    /// Opens the journal and takes up the commands that were open when the agent last ended.
    pub(super) fn open(settings: Arc<Settings>, events: mpsc::Sender<Event>) -> Result<Self, Error> {
        let keep = settings.limits.keep();
        let (journal, book) = Journal::open(&settings.data.join("journal"), Micros::wall(), keep)?;
        let mut core = Self {
            settings,
            boot: Boot::random(),
            journal: Arc::new(Mutex::new(journal)),
            book,
            live: HashMap::new(),
            queue: VecDeque::new(),
            running: 0,
            current: None,
            events,
        };
        core.sweep_places();
        for command in core.book.open().cloned().collect::<Vec<_>>() {
            log::info!("command {command} was open when the agent ended; looking for its shim");
            core.live.insert(command.clone(), watch::Sender::new(None));
            core.running += 1;
            core.attend(command, None);
        }
        Ok(core)
    }

    /// Runs until the events end.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Opened(session) => self.opened(session),
                Event::Frame { session, frame } => {
                    if self.current.as_ref().is_some_and(|current| current.session.connection == session) {
                        self.frame(frame).await;
                    }
                }
                Event::Ended { command, result } => self.ended(command, result).await,
            }
        }
    }

    fn opened(&mut self, session: Session) {
        if let Some(current) = &self.current
            && !current.session.control.is_closed()
            && current.session.number > session.number
        {
            log::warn!("session {} refused: session {} is newer", session.number, current.session.number);
            return;
        }
        let hello = AgentFrame::Hello(AgentHello {
            version: AGENT_VERSION,
            clock: Micros::wall(),
            boot: self.boot,
            platform: super::platform(),
            operations: Operation::WORDS.iter().map(|word| (*word).to_owned()).collect(),
        });
        log::info!("session {} of the dispatcher is open", session.number);
        self.current = Some(Current { session, feeds: HashMap::new() });
        self.answer(hello);
    }

    /// Queues an answer; a session that does not read its answers is ended.
    fn answer(&mut self, frame: AgentFrame) {
        let Some(current) = &self.current else { return };
        if let Err(e) = current.session.control.try_send(frame) {
            log::warn!("session {} is dropped: {e}", current.session.number);
            self.current = None;
        }
    }

    async fn frame(&mut self, frame: DispatcherFrame) {
        match frame {
            DispatcherFrame::Hello(_) => log::warn!("a second hello in one session is ignored"),
            DispatcherFrame::Ping { n } => {
                self.answer(AgentFrame::Pong(Pong { n, clock: Micros::wall(), stats: stats::read() }));
            }
            DispatcherFrame::Ack { command } => self.acknowledged(&command),
            DispatcherFrame::Run(run) => self.run_command(run).await,
            DispatcherFrame::Look(reference) => self.look(reference).await,
            DispatcherFrame::Cancel(reference) => self.cancel(reference).await,
        }
    }
}

//! The dispatcher's side of guests: who may enrol, one session with each, and the commands that go over it.
//!
//! Rows are the truth: a command is sent because its row waits, and is acknowledged to the guest after its result is a
//! row. This room never decides what a result means for a job's state, and never takes an address for an identity.
//!
//! | file | does |
//! |---|---|
//! | `handshake` | who a guest is: pure decision, and the call around it |
//! | `machine` | what a session knows and what each frame means; pure |
//! | `session` | dialling, the socket loop, storing before acknowledging |
//! | `calling_off` | a cancel that reaches a command on its guest |
//! | `actor` | one a guest: dials again and again, takes requests |
//! | `hub`, `directory` | which guests there are; nudges to them; who was heard |

mod actor;
mod calling_off;
mod directory;
mod error;
mod handshake;
mod hub;
pub(crate) mod machine;
mod session;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use calling_off::ABSENT;
pub use directory::AgentView;
pub use error::Error;

use crate::crypto::pki::{self, Authority, Identity};
use crate::model::{Boot, Epoch, JobUid, ServerId};
use crate::mq::Queue;
use crate::ops::{Health, Metrics};
use crate::store::Store;
use crate::supervision::{Arbiter, Mailbox, Options, Supervisor};
use crate::wire::{CommandId, HandshakeAnswer, HandshakeRequest, LookAnswer, Offsets, Pong, Reference};
use directory::Directory;

/// Sessions greeted at the same time.
const GREETED_AT_ONCE: usize = 32;

/// Sizes and times of this room.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Life of a guest's certificate; the guest renews it at two thirds.
    pub certificate_life: Duration,
    /// What a guest is told to wait whose server is not known yet.
    pub not_yet: Duration,
    /// Handshakes worked on at once; one more is answered [`Error::Busy`].
    pub handshakes: usize,
    /// For connecting, TLS, WebSocket and hello together.
    pub connect: Duration,
    /// Between two pings of a session.
    pub ping: Duration,
    /// A session that hears nothing for this long is ended.
    pub idle: Duration,
    /// First pause before dialling again; doubles.
    pub retry_first: Duration,
    /// Longest pause before dialling again.
    pub retry_longest: Duration,
    /// Commands in flight over one session.
    pub window: usize,
    /// Requests that may wait for one guest.
    pub waiting: usize,
    /// Most bytes stored of one output of one command.
    pub output: u64,
    /// How often the accepted agents are read again.
    pub sweep: Duration,
    /// How often the guests that were heard are written down.
    pub heard_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            certificate_life: Duration::from_secs(24 * 3600),
            not_yet: Duration::from_secs(2),
            handshakes: 64,
            connect: Duration::from_secs(5),
            ping: Duration::from_secs(5),
            idle: Duration::from_secs(20),
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(10),
            window: 64,
            waiting: 256,
            output: 16 * 1024 * 1024,
            sweep: Duration::from_secs(5),
            heard_every: Duration::from_secs(10),
        }
    }
}

/// What this room works with.
pub struct Parts {
    /// The provisioning database.
    pub store: Store,
    /// Nudges: commands that wait come in, results that were stored go out.
    pub queue: Arc<dyn Queue>,
    /// This process's life.
    pub boot: Boot,
    /// The agents root.
    pub authority: Authority,
    /// The dispatcher's role, by the services root.
    pub role: Identity,
    /// Figures.
    pub metrics: Metrics,
    /// Told when commands wait for guests that cannot be reached.
    pub health: Health,
    /// Sizes and times.
    pub limits: Limits,
}

/// What every actor of this room knows.
struct Links {
    store: Store,
    queue: Arc<dyn Queue>,
    boot: Boot,
    authority: Authority,
    tls: Arc<rustls::ClientConfig>,
    /// Sessions being greeted at once: all guests at the same time, as after a start, would need many times what they
    /// need later, and the process would keep it.
    greeting: Semaphore,
    metrics: Metrics,
    health: Health,
    limits: Limits,
}

/// Handle to this room. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Agents {
    links: Arc<Links>,
    hub: Mailbox<hub::Hub>,
    directory: Directory,
    handshakes: Arc<Semaphore>,
}

impl Agents {
    /// Starts the room: every accepted agent is dialled, on this arbiter.
    ///
    /// # Errors
    /// When the role's certificate or the agents root cannot be used for TLS.
    pub fn start(supervisor: &Supervisor, on: &Arbiter, parts: Parts) -> Result<Self, Error> {
        let mut tls = pki::client_config(parts.authority.cert_pem(), Some(&parts.role))?;
        // Sessions last; what would shorten the next handshake is kept for every guest and hardly ever used.
        tls.resumption = rustls::client::Resumption::disabled();
        let tls = Arc::new(tls);
        let Parts { store, queue, boot, authority, metrics, health, limits, .. } = parts;
        let handshakes = Arc::new(Semaphore::new(limits.handshakes));
        let greeting = Semaphore::new(GREETED_AT_ONCE);
        let links = Arc::new(Links { store, queue, boot, authority, tls, greeting, metrics, health, limits });
        let directory = Directory::default();
        let spec = hub::Spec {
            links: Arc::clone(&links),
            directory: directory.clone(),
            supervisor: supervisor.clone(),
            arbiter: on.clone(),
        };
        let hub = supervisor.spawn::<hub::Hub>(on, spec, Options::permanent());
        Ok(Self { links, hub, directory, handshakes })
    }

    /// Enrols a guest, or gives an enrolled one a new certificate. `peer` is for the log: identity is a key.
    ///
    /// Dropping the future may leave the token bound to the key; the same key may come again.
    ///
    /// # Errors
    /// [`Error::status`] has the HTTP status of each.
    pub async fn handshake(
        &self,
        request: HandshakeRequest,
        peer: SocketAddr,
    ) -> Result<HandshakeAnswer, Error> {
        let Ok(_permit) = self.handshakes.try_acquire() else { return Err(Error::Busy) };
        let answer = handshake::handle(&self.links, request, peer).await?;
        // The sweep finds it as well; this only saves the wait.
        let _ = self.hub.tell(hub::Appeared(answer.server_id));
        Ok(answer)
    }

    /// Says that commands wait for this guest. May be lost; the sweep finds the rows.
    pub fn nudge(&self, server: ServerId) {
        self.directory.nudge(server);
    }

    /// Asks a guest's journal about a command. This raises the job's floor on the guest: once answered, frames of
    /// lower epochs have no effect any more.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Busy`], [`Error::TimedOut`], [`Error::Interrupted`]: after the last two the floor
    /// may have been raised or not.
    pub async fn look(
        &self,
        command: &CommandId,
        epoch: Epoch,
        limit: Duration,
    ) -> Result<LookAnswer, Error> {
        let (server, job): (ServerId, JobUid) = (command.server(), command.job());
        let reference = Reference { command: command.clone(), job, epoch, output_from: Offsets::default() };
        let mailbox = self.directory.mailbox(server).ok_or(Error::Absent(server))?;
        mailbox.ask(actor::LookUp(reference), limit).await.map_err(Error::unreachable(server, limit))?
    }

    /// Asks a guest for a sign of life and its figures.
    ///
    /// # Errors
    /// As [`Agents::look`].
    pub async fn ping(&self, server: ServerId, limit: Duration) -> Result<Pong, Error> {
        let mailbox = self.directory.mailbox(server).ok_or(Error::Absent(server))?;
        mailbox.ask(actor::PingNow, limit).await.map_err(Error::unreachable(server, limit))?
    }

    /// Asks a guest to end a command, queued or running. The end comes as the command's result.
    ///
    /// # Errors
    /// [`Error::Absent`] and [`Error::Busy`]: nothing was sent.
    pub fn cancel(&self, command: &CommandId, epoch: Epoch) -> Result<(), Error> {
        let server = command.server();
        let (job, output_from) = (command.job(), Offsets::default());
        let reference = Reference { command: command.clone(), job, epoch, output_from };
        let mailbox = self.directory.mailbox(server).ok_or(Error::Absent(server))?;
        mailbox.tell(actor::CancelIt(reference)).map_err(Error::unreachable(server, Duration::ZERO))
    }

    /// Every guest this process dials, by its server.
    #[must_use]
    pub fn connected(&self) -> Vec<AgentView> {
        self.directory.views()
    }

    /// Ends every session and dials nobody any more. Commands at work on guests go on; their rows are taken up again
    /// by the next life.
    pub fn stop(&self) {
        self.hub.stop();
        for server in self.directory.servers() {
            self.directory.remove(server);
        }
    }

    /// Ends the session with a guest and refuses it from now on: its server is gone, or a person said so.
    ///
    /// # Errors
    /// Those of the database; the session is ended all the same.
    pub async fn drop_agent(&self, server: ServerId) -> Result<bool, Error> {
        self.directory.remove(server);
        let revoke =
            move |c: &mut crate::store::AnyConnection| crate::store::provisioning::agent::revoke(c, server);
        Ok(self.links.store.write(revoke).await?)
    }
}

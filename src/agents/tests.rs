//! The hub and the actors of guests under panics, errors and stops, with guests that are played.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};

use super::{Agents, Error, Limits, Parts};
use crate::crypto::pki::{self, Authority};
use crate::model::{AgentId, AttemptUid, Boot, CustomerId, Epoch, JobUid, Micros, ServerId};
use crate::mq::{Embedded, Nudge, Queue};
use crate::ops::{Health, Metrics};
use crate::store::provisioning::agent::{self, Enrolled, NewAgent, NewCommand, command};
use crate::store::provisioning::node;
use crate::store::{Manager, PROVISIONING, Settings, Store};
use crate::supervision::{Supervisor, TRIPS};
use crate::wire::{
    AgentFrame, AgentHello, CommandId, CommandResult, DispatcherFrame, GuestStats, Offsets, Operation,
    Outcome, Pong, SUBPROTOCOL, agent_host_name,
};

const CUSTOMER: CustomerId = CustomerId(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SOON: Duration = Duration::from_secs(30);

/// What a played guest did.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<CommandId>>>);

impl Journal {
    /// Commands that were run, each once: a command that comes again is answered from here.
    fn ran(&self) -> Vec<CommandId> {
        self.0.lock().expect("no panic").clone()
    }

    fn run(&self, command: CommandId) {
        let mut ran = self.0.lock().expect("no panic");
        if !ran.contains(&command) {
            ran.push(command);
        }
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the WebSocket library's")]
fn speak(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

async fn play(stream: TcpStream, tls: TlsAcceptor, journal: Journal) -> Option<()> {
    let tls = tls.accept(stream).await.ok()?;
    let mut socket = tokio_tungstenite::accept_hdr_async(tls, speak).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let frame: DispatcherFrame = serde_json::from_str(&text).expect("a frame");
        let answer = match frame {
            DispatcherFrame::Hello(_) => AgentFrame::Hello(AgentHello {
                version: 1,
                clock: Micros::wall(),
                boot: Boot::random(),
                platform: "test".to_owned(),
                operations: Operation::WORDS.iter().map(|word| (*word).to_owned()).collect(),
            }),
            DispatcherFrame::Run(run) => {
                journal.run(run.command.clone());
                let outcome = Outcome::Done { exit_code: Some(0), signal: None };
                let result = CommandResult { outcome, output: Offsets::default(), at: Micros::wall() };
                AgentFrame::Result { command: run.command, result }
            }
            DispatcherFrame::Ping { n } => {
                AgentFrame::Pong(Pong { n, clock: Micros::wall(), stats: GuestStats::default() })
            }
            // A look is never answered.
            DispatcherFrame::Look(_) | DispatcherFrame::Cancel(_) | DispatcherFrame::Ack { .. } => continue,
        };
        let text = serde_json::to_string(&answer).expect("plain data");
        socket.send(Message::text(text)).await.ok()?;
    }
    None
}

struct House {
    store: Store,
    queue: Arc<Embedded>,
    agents: Agents,
    supervisor: Supervisor,
    root: (String, String),
    services: Authority,
    _folder: tempfile::TempDir,
}

fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits { retry_first: ms(10), retry_longest: ms(50), ping: ms(200), sweep: ms(100), ..Limits::default() }
}

async fn house() -> House {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/p.db", folder.path().display());
    let settings = Settings::new(Manager::new(&url).expect("a url"));
    let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database");
    let boot = Boot::random();
    store.write(move |c| node::register(c, boot, "test")).await.expect("alive");
    let services = Authority::create("services").expect("a root");
    let authority = Authority::create("agents").expect("a root");
    let key = authority.key_pem();
    let root = (authority.cert_pem().to_owned(), key.expose_text().expect("text").to_owned());
    let queue = Arc::new(Embedded::new());
    let parts = Parts {
        store: store.clone(),
        queue: Arc::<Embedded>::clone(&queue),
        boot,
        authority,
        role: services.issue_role(pki::DISPATCHER_ROLE, &[], DAY).expect("issued"),
        metrics: Metrics::new(),
        health: Health::new(),
        limits: limits(),
    };
    let supervisor = Supervisor::new(Health::new());
    let agents = Agents::start(&supervisor, &supervisor.here(), parts).expect("it starts");
    House { store, queue, agents, supervisor, root, services, _folder: folder }
}

impl House {
    /// A guest that is enrolled and listens.
    async fn guest(&self, server: ServerId) -> Journal {
        let agents = Authority::load(&self.root.0, &self.root.1).expect("the root");
        let names = [agent_host_name(server)];
        let identity = agents.issue_role(&pki::agent_uri(CUSTOMER, server), &names, DAY).expect("issued");
        let tls = pki::server_config(&identity, Some(self.services.cert_pem()), true).expect("settings");
        let (tls, journal) = (TlsAcceptor::from(Arc::new(tls)), Journal::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let its = journal.clone();
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                actix_rt::spawn(play(stream, tls.clone(), its.clone()));
            }
        });
        self.enrol(server, address).await;
        journal
    }

    async fn enrol(&self, server: ServerId, address: SocketAddr) {
        let id = AgentId(server.0);
        let new = NewAgent {
            id,
            customer: CUSTOMER,
            job: JobUid::random(),
            token_hash: server.to_string(),
            token_expires: Micros(0),
        };
        let enrolled = Enrolled {
            id,
            server,
            address: address.to_string(),
            version: 1,
            platform: "linux".to_owned(),
            instance: None,
            serial: "1".to_owned(),
            expires_at: Micros(i64::MAX),
        };
        let stored =
            self.store.write(move |c| Ok((agent::insert(c, &new)?, agent::enrol(c, &enrolled)?))).await;
        stored.expect("enrolled");
    }

    /// Queues a command, nudges, and waits until its result is a row.
    async fn command(&self, seq: i64, server: ServerId) -> CommandId {
        let job = JobUid::random();
        let id = CommandId::new(job, "run", 1, server).expect("valid");
        let operation = Operation::RunCommand { argv: vec!["true".to_owned()], timeout_secs: 60 };
        let new = NewCommand {
            id: id.to_string(),
            seq,
            job,
            attempt: AttemptUid::random(),
            customer: CUSTOMER,
            server,
            epoch: Epoch(1),
            operation: serde_json::to_string(&operation).expect("text"),
            user: "ann".to_owned(),
            expires_at: Micros::wall().plus(Duration::from_secs(600)),
        };
        self.store.write(move |c| agent::insert_command(c, &new)).await.expect("stored");
        self.queue.publish(Nudge::Guest(server));
        let (name, deadline) = (id.to_string(), Instant::now() + SOON);
        loop {
            let name = name.clone();
            let row = self.store.read(move |c| agent::command_by_id(c, &name)).await.expect("a read");
            if row.is_some_and(|row| row.state == command::DONE) {
                return id;
            }
            assert!(Instant::now() < deadline, "{id} has no result: {:?}", self.agents.connected());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "not within {SOON:?}: {what}: {:?}", self.agents.connected());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn connected(&self, guests: usize) {
        let there = || self.agents.connected().iter().filter(|view| view.connected).count() == guests;
        self.until("all sessions are open", there).await;
    }

    /// Lives of the actors of guests, by key.
    fn lives(&self) -> BTreeSet<(String, u64)> {
        let all = self.supervisor.snapshots().into_iter().filter(|s| s.kind == "agent");
        all.filter(|s| s.state != "given-up").map(|s| (s.key, s.incarnation)).collect()
    }
}

#[actix_rt::test]
async fn panic_error_and_stop_of_a_guests_actor_are_survived_and_its_session_serves_again() {
    let house = house().await;
    let (one, two) = (ServerId(7), ServerId(8));
    let (first, second) = (house.guest(one).await, house.guest(two).await);
    house.connected(2).await;
    let mut ran = Vec::new();
    for (seq, how) in (1..).zip(TRIPS) {
        house.supervisor.survives("agent", how).await;
        ran.push(house.command(seq, one).await);
        house.command(seq + 100, two).await;
        house.agents.ping(one, SOON).await.expect("it answers");
    }
    assert_eq!(first.ran(), ran, "each command once, in order");
    assert_eq!(second.ran().len(), 3);
}

#[actix_rt::test]
async fn panic_error_and_stop_of_the_hub_are_survived_and_touch_no_session() {
    let house = house().await;
    let old = ServerId(7);
    let journal = house.guest(old).await;
    house.connected(1).await;
    let lives = house.lives();
    for (n, how) in (1..).zip(TRIPS) {
        house.supervisor.survives("agents", how).await;
        // Nudges reach the sessions again, and guests that enrolled are dialled.
        house.command(n, old).await;
        let new = ServerId(10 + n);
        let fresh = house.guest(new).await;
        let command = house.command(n + 100, new).await;
        assert_eq!(fresh.ran(), [command], "{how:?}");
    }
    assert_eq!(journal.ran().len(), 3);
    assert!(house.lives().is_superset(&lives), "the session that was open lived on");
}

#[actix_rt::test]
async fn a_guests_actor_that_is_given_up_touches_no_other_and_the_next_sweep_starts_another() {
    let house = house().await;
    let (poor, well) = (ServerId(7), ServerId(8));
    let (_one, journal) = (house.guest(poor).await, house.guest(well).await);
    house.connected(2).await;
    let of = |server: ServerId| {
        let lives = house.lives();
        lives.into_iter().find(|(key, _)| key.starts_with(&format!("{server}#"))).expect("its actor")
    };
    let (ruined, kept) = (of(poor), of(well));
    let (given_up, served) = tokio::join!(house.supervisor.ruin("agent", &ruined.0), async {
        let mut served = Vec::new();
        for seq in 1..=20 {
            served.push(house.command(seq, well).await);
        }
        served
    });
    let () = given_up;
    assert_eq!(journal.ran(), served, "its neighbour served meanwhile");
    assert_eq!(of(well), kept, "in the same life");
    house.connected(2).await;
    assert_ne!(of(poor).0, ruined.0, "another actor took over");
    house.command(200, poor).await;
    assert!(house.supervisor.snapshots().iter().any(|s| s.key == ruined.0 && s.state == "given-up"));
}

#[actix_rt::test]
async fn a_look_at_a_guest_that_never_answers_is_dropped_at_its_limit_and_the_session_goes_on() {
    let house = house().await;
    let server = ServerId(7);
    house.guest(server).await;
    house.connected(1).await;
    let done = house.command(1, server).await;
    let lives = house.lives();
    let limit = Duration::from_millis(50);
    for _ in 0..3 {
        let late = house.agents.look(&done, Epoch(2), limit).await;
        assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    }
    house.agents.ping(server, SOON).await.expect("it answers");
    house.command(2, server).await;
    assert_eq!(house.lives(), lives);
}

/// What a session with an idle guest holds on to is its own future above all.
#[test]
fn a_session_that_waits_is_small() {
    let size = super::actor::size_of_a_session();
    assert!(size < 5 * 1024, "{size} bytes");
}

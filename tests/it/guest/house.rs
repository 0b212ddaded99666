//! The dispatcher's side with real agents: enrolment over rows, sessions, results stored once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use dispatcher::agents::{Agents, Error, Limits, Parts};
use dispatcher::crypto::pki::{self, Authority};
use dispatcher::crypto::{hex, sha256};
use dispatcher::model::{
    AgentId, AttemptUid, Boot, CustomerId, Epoch, Generation, JobUid, Micros, ServerId, ServerStatus, Verdict,
};
use dispatcher::mq::{Embedded, Nudge, Queue as _, Topic};
use dispatcher::ops::{Health, Metrics};
use dispatcher::store::provisioning::agent::{self, NewAgent, NewCommand, command};
use dispatcher::store::provisioning::node;
use dispatcher::store::provisioning::server::{self, ServerRow};
use dispatcher::store::{Manager, PROVISIONING, Settings, Store};
use dispatcher::supervision::Supervisor;
use dispatcher::wire::{
    AGENT_VERSION, CommandId, CommandResult, HANDSHAKE_PATH, HandshakeRequest, LookState, Operation, Outcome,
    Stream,
};

use super::harness::{self, Guest, SERVER, wait_until};

const CUSTOMER: CustomerId = CustomerId(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SOON: Duration = Duration::from_secs(10);

fn limits() -> Limits {
    Limits {
        ping: Duration::from_millis(100),
        idle: Duration::from_secs(2),
        connect: Duration::from_secs(2),
        retry_first: Duration::from_millis(20),
        retry_longest: Duration::from_millis(200),
        sweep: Duration::from_millis(200),
        heard_every: Duration::from_millis(100),
        not_yet: Duration::from_secs(1),
        ..Limits::default()
    }
}

/// The dispatcher's rooms that guests need, on a database of their own.
struct House {
    folder: tempfile::TempDir,
    store: Store,
    queue: Arc<Embedded>,
    services: Authority,
    agents_root: (String, String),
    boots: Vec<Boot>,
    agents: Agents,
}

fn open_store(folder: &std::path::Path) -> Store {
    let url = format!("sqlite://{}", folder.join("p.db").display());
    let settings = Settings::new(Manager::new(&url).expect("a url"));
    Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database")
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let store = open_store(folder.path());
        let services = Authority::create("services").expect("root");
        let root = Authority::create("agents").expect("root");
        let key = root.key_pem();
        let agents_root = (root.cert_pem().to_owned(), key.expose_text().expect("text").to_owned());
        let (queue, boot) = (Arc::new(Embedded::new()), Boot::random());
        store.write(move |c| node::register(c, boot, "serve")).await.expect("registered");
        let agents = start(&store, &queue, &services, (&agents_root, boot));
        Self { folder, store, queue, services, agents_root, boots: vec![boot], agents }
    }

    /// As a new process of the dispatcher on the same rows: it has no session while the one before it lives.
    async fn restart(&mut self) {
        let another = self.another().await;
        let old = std::mem::replace(&mut self.agents, another);
        let trouble = || self.agents.connected().into_iter().find_map(|view| view.trouble);
        wait_until("the second node to see the first", || trouble().is_some()).await;
        let told = trouble().expect("told");
        assert!(told.contains("another node"), "{told}");
        assert!(old.connected().iter().all(|view| view.connected), "the first lost its session");
        let boot = self.boots[self.boots.len() - 2];
        self.store.write(move |c| node::declare_dead(c, &boot.to_string(), 0)).await.expect("written");
        old.stop();
    }

    async fn another(&mut self) -> Agents {
        let boot = Boot::random();
        self.boots.push(boot);
        self.store.write(move |c| node::register(c, boot, "serve")).await.expect("registered");
        start(&self.store, &self.queue, &self.services, (&self.agents_root, boot))
    }

    async fn expect_agent(&self, id: i64, job: JobUid, token: &str, life: Duration) {
        let new = NewAgent {
            id: AgentId(id),
            customer: CUSTOMER,
            job,
            token_hash: hex::encode(&sha256(token.as_bytes())),
            token_expires: Micros::wall().plus(life),
        };
        assert!(self.store.write(move |c| agent::insert(c, &new)).await.expect("stored"));
    }

    async fn have_server(&self, id: i64, job: JobUid) {
        let row = ServerRow {
            id,
            customer: CUSTOMER.0,
            account: 1,
            cloud: 1,
            region: 1,
            data_center: 1,
            product: 1,
            provider_product: String::new(),
            image: 1,
            name: "seven".into(),
            description: String::new(),
            provider_id: format!("i-{id}"),
            job: job.to_string(),
            status: ServerStatus::Running.as_str().into(),
            platform: String::new(),
            architecture: String::new(),
            agent_version: 0,
            budget: 1,
            label: None,
            keypair: None,
            owner: 1,
            user_groups: String::new(),
            private_ip: None,
            public_ip: None,
            started_at: 0,
            stopped_at: None,
            terminate_after: None,
            pause_after: None,
            last_contact: None,
            busy_by: None,
            changed_at: 0,
            version: 1,
        };
        assert!(self.store.write(move |c| server::insert(c, &row)).await.expect("stored"));
    }

    /// A guest that enrols at this house, and its process.
    async fn guest(&self) -> Guest {
        let job = JobUid::random();
        self.expect_agent(5, job, "t0k3n", DAY).await;
        let url = serve(&self.services, &self.agents);
        let mut guest = Guest::of(&self.services, &url);
        guest.start().await;
        // Not known yet: the guest is told to come again.
        wait_until("a refusal", || guest.log().contains("not known yet")).await;
        self.have_server(SERVER.0, job).await;
        self.connected().await;
        guest
    }

    async fn connected(&self) {
        wait_until("the session", || self.agents.connected().iter().any(|view| view.connected)).await;
    }

    /// Queues a command, as a job does, and says so.
    async fn queue(&self, seq: i64, argv: &[&str]) -> (CommandId, AttemptUid) {
        let queued = self.queue_under(seq, (JobUid::random(), Epoch(1)), argv).await;
        self.queue.publish(Nudge::Guest(SERVER));
        queued
    }

    /// Queues a command of this job under this epoch; the session's next beat finds it.
    async fn queue_under(
        &self,
        seq: i64,
        (job, epoch): (JobUid, Epoch),
        argv: &[&str],
    ) -> (CommandId, AttemptUid) {
        let (id, new) = new_command(seq, (job, epoch), argv);
        let attempt = new.attempt;
        assert!(self.store.write(move |c| agent::insert_command(c, &new)).await.expect("stored"));
        (id, attempt)
    }

    /// Asks for the end of a command, as the owner of its job does, on whichever node.
    async fn call_off(&self, id: &CommandId, epoch: Epoch) {
        let name = id.to_string();
        assert!(self.store.write(move |c| agent::call_off(c, &name, epoch)).await.expect("asked"));
        self.queue.publish(Nudge::Guest(SERVER));
    }

    async fn result(&self, id: &CommandId) -> Outcome {
        let id = id.to_string();
        let row = self.store.read(move |c| agent::command_by_id(c, &id)).await.expect("read").expect("there");
        let result: CommandResult =
            serde_json::from_str(&row.result.expect("a result")).expect("one of ours");
        result.outcome
    }

    async fn state(&self, id: &CommandId) -> String {
        let id = id.to_string();
        self.store.read(move |c| agent::command_by_id(c, &id)).await.expect("read").expect("there").state
    }

    async fn done(&self, id: &CommandId) {
        let deadline = tokio::time::Instant::now() + SOON;
        while self.state(id).await != command::DONE {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{id} has no result: {:?}",
                self.agents.connected()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The verdict by the guest's own word, and how many rows say it.
    async fn verdict(&self, attempt: AttemptUid) -> Vec<(String, String)> {
        use diesel::prelude::*;
        use dispatcher::store::provisioning::schema::evidence;
        self.store
            .read(move |c| {
                evidence::table
                    .filter(evidence::subject.eq(attempt.to_string()))
                    .order(evidence::source.asc())
                    .select((evidence::source, evidence::verdict))
                    .load(c)
            })
            .await
            .expect("read")
    }

    async fn stdout(&self, id: &CommandId) -> Vec<u8> {
        let id = id.to_string();
        let read = move |c: &mut dispatcher::store::AnyConnection| {
            agent::read_output(c, &id, Stream::Stdout.as_str(), 10_000)
        };
        let mut bytes = Vec::new();
        for (start, piece) in self.store.read(read).await.expect("read") {
            assert_eq!(usize::try_from(start).expect("small"), bytes.len(), "pieces must join");
            bytes.extend(piece);
        }
        bytes
    }
}

fn new_command(seq: i64, (job, epoch): (JobUid, Epoch), argv: &[&str]) -> (CommandId, NewCommand) {
    let id = CommandId::new(job, "run", 1, SERVER).expect("valid");
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let operation = Operation::RunCommand { argv, timeout_secs: 60 };
    let new = NewCommand {
        id: id.to_string(),
        seq,
        job,
        attempt: AttemptUid::random(),
        customer: CUSTOMER,
        server: SERVER,
        epoch,
        operation: serde_json::to_string(&operation).expect("text"),
        user: "key".into(),
        expires_at: Micros::wall().plus(Duration::from_secs(60)),
    };
    (id, new)
}

fn start(
    store: &Store,
    queue: &Arc<Embedded>,
    services: &Authority,
    ((cert, key), boot): (&(String, String), Boot),
) -> Agents {
    let supervisor = Supervisor::new(Health::new());
    let parts = Parts {
        store: store.clone(),
        queue: Arc::<Embedded>::clone(queue),
        boot,
        authority: Authority::load(cert, key).expect("loads"),
        role: services.issue_role(pki::DISPATCHER_ROLE, &[], DAY).expect("issued"),
        metrics: Metrics::new(),
        health: Health::new(),
        limits: limits(),
    };
    Agents::start(&supervisor, &supervisor.here(), parts).expect("starts")
}

fn serve(services: &Authority, agents: &Agents) -> String {
    let listener = services.issue_server(&["127.0.0.1".to_owned()], DAY).expect("issued");
    let tls = pki::server_config(&listener, None, false).expect("server");
    let data = web::Data::new(agents.clone());
    let server = HttpServer::new(move || {
        App::new().app_data(data.clone()).route(HANDSHAKE_PATH, web::post().to(handshake))
    })
    .workers(1)
    .disable_signals()
    .bind_rustls_0_23("127.0.0.1:0", tls)
    .expect("bound");
    let port = server.addrs()[0].port();
    actix_rt::spawn(server.run());
    format!("https://127.0.0.1:{port}")
}

async fn handshake(
    call: HttpRequest,
    body: web::Json<HandshakeRequest>,
    agents: web::Data<Agents>,
) -> HttpResponse {
    match agents.handshake(body.into_inner(), call.peer_addr().expect("a peer")).await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(error) => {
            let mut response = HttpResponse::build(error.status().try_into().expect("a status"));
            if let Some(after) = error.retry_after() {
                response.insert_header(("retry-after", after.as_secs().to_string()));
            }
            response.body(error.to_string())
        }
    }
}

#[actix_rt::test]
async fn a_command_row_becomes_one_run_its_output_and_one_verdict() {
    let house = House::new().await;
    let mut reports = house.queue.subscribe(Topic::Work);
    let guest = house.guest().await;
    let (first, attempt) = house.queue(1, &["python3", "-c", "print('x' * 300000, end='')"]).await;
    let (second, refused) = house.queue(2, &["false"]).await;
    house.done(&first).await;
    house.done(&second).await;
    let word = |source: &str, verdict: Verdict| (source.to_owned(), verdict.as_str().to_owned());
    let both = |verdict| vec![word("agent", verdict), word("agent-started", Verdict::Pending)];
    assert_eq!(house.verdict(attempt).await, both(Verdict::Reached));
    assert_eq!(house.verdict(refused).await, both(Verdict::Failed));
    assert_eq!(house.stdout(&first).await, vec![b'x'; 300_000]);
    // Each once; which of two that were sent together begins first is nobody's promise.
    let (mut effects, mut wanted) = (guest.effects(), [first.to_string(), second.to_string()]);
    effects.sort();
    wanted.sort();
    assert_eq!(effects, wanted);
    let mut told = [reports.recv().await.expect("open"), reports.recv().await.expect("open")];
    told.sort_by_key(|nudge| *nudge != Nudge::Reported(first.job()));
    assert_eq!(told, [Nudge::Reported(first.job()), Nudge::Reported(second.job())]);

    let pong = house.agents.ping(SERVER, SOON).await.expect("alive");
    assert!(pong.stats.memory_total > 0);
    let looked = house.agents.look(&first, Epoch(1), SOON).await.expect("answered");
    assert!(matches!(looked.state, LookState::Done { .. }) && looked.floor == Epoch(1), "{looked:?}");
    let store = house.store.clone();
    let read = move || {
        let store = store.clone();
        async move { store.read(move |c| server::by_id(c, CUSTOMER, SERVER)).await.expect("read").expect("there") }
    };
    let row = read().await;
    assert_eq!(row.agent_version, AGENT_VERSION);
    assert!(row.last_contact.is_some());
    let absent = house.agents.ping(ServerId(99), SOON).await;
    assert!(matches!(absent, Err(Error::Absent(ServerId(99)))));
}

#[actix_rt::test]
async fn neither_a_dead_agent_nor_a_new_dispatcher_runs_a_command_twice_or_loses_its_end() {
    let mut house = House::new().await;
    let mut guest = house.guest().await;
    let gate = guest.data().join("gate");
    let script = format!(
        "import os,time\nprint('one',flush=True)\nwhile not os.path.exists({:?}): time.sleep(0.01)\nprint('two')",
        gate.display().to_string()
    );
    let (id, attempt) = house.queue(1, &["python3", "-c", &script]).await;
    wait_until("the command to run", || guest.effects().len() == 1).await;
    house.restart().await;
    house.connected().await;
    guest.kill();
    guest.start().await;
    wait_until("the session to be back", || house.agents.connected().iter().any(|view| view.in_flight == 1))
        .await;
    std::fs::write(&gate, "").expect("written");
    house.done(&id).await;
    assert_eq!(house.stdout(&id).await, b"one\ntwo\n");
    assert_eq!(house.verdict(attempt).await[0], ("agent".to_owned(), "reached".to_owned()));
    assert_eq!(guest.effects().len(), 1);
    let folder = guest.data().join("commands").join(id.to_string());
    wait_until("the acknowledgement", || !folder.exists()).await;
}

#[actix_rt::test]
async fn of_a_hundred_uses_of_a_token_one_gets_a_certificate() {
    let house = House::new().await;
    let job = JobUid::random();
    house.expect_agent(5, job, "t0k3n", DAY).await;
    house.expect_agent(6, JobUid::random(), "late", Duration::ZERO).await;
    let peer: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let request = |token: Option<&str>, key: &dispatcher::crypto::Secret| HandshakeRequest {
        token: token.map(ToOwned::to_owned),
        csr_pem: pki::make_request(key, "127.1.0.7:2003").expect("a request"),
        address: "127.1.0.7:2003".parse().expect("an address"),
        instance_id: None,
        agent_version: 1,
        platform: "linux".into(),
    };
    let keys: Vec<_> = (0..100).map(|_| pki::new_key_pem().expect("a key")).collect();
    let early = house.agents.handshake(request(Some("t0k3n"), &keys[0]), peer).await;
    assert!(matches!(early, Err(Error::NotYet(_))), "the server is not known");
    house.have_server(SERVER.0, job).await;
    house.have_server(8, JobUid::random()).await;

    // More at once than are worked on: those are told to come again, which they do.
    let tries = keys.iter().map(|key| async {
        loop {
            match house.agents.handshake(request(Some("t0k3n"), key), peer).await {
                Err(Error::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => return other,
            }
        }
    });
    let answers = futures_util::future::join_all(tries).await;
    let winner = answers.iter().position(Result::is_ok).expect("one wins");
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_ok());
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|answer| matches!(answer, Err(Error::Conflict))), "{lost:?}");

    let again =
        house.agents.handshake(request(Some("t0k3n"), &keys[winner]), peer).await.expect("the same key");
    assert_eq!(again.server_id, SERVER);
    let der = pki::first_der(&again.cert_pem).expect("a certificate");
    assert_eq!(pki::uri_of(&der), Some(pki::agent_uri(CUSTOMER, SERVER)));
    house.agents.handshake(request(None, &keys[winner]), peer).await.expect("a known key needs no token");
    let loser = &keys[(winner + 1) % 100];
    for token in [None, Some("guess"), Some("late")] {
        let refused = house.agents.handshake(request(token, loser), peer).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{token:?}: {refused:?}");
    }
    let moved = HandshakeRequest {
        address: "127.1.0.8:2003".parse().expect("an address"),
        ..request(None, &keys[winner])
    };
    let refused = house.agents.handshake(moved, peer).await;
    assert!(
        matches!(refused, Err(Error::Malformed(_))),
        "an address the key does not vouch for: {refused:?}"
    );
}

#[actix_rt::test]
async fn a_revoked_guest_is_let_go_and_a_frozen_one_times_out() {
    let house = House::new().await;
    let mut guest = house.guest().await;
    guest.signal(nix::sys::signal::Signal::SIGSTOP);
    let frozen = house.agents.ping(SERVER, Duration::from_millis(300)).await;
    assert!(matches!(frozen, Err(Error::TimedOut { .. })), "{frozen:?}");
    wait_until("silence to be noticed", || house.agents.connected().iter().all(|view| !view.connected)).await;
    guest.signal(nix::sys::signal::Signal::SIGCONT);
    house.connected().await;
    assert!(house.agents.drop_agent(SERVER).await.expect("revoked"));
    wait_until("it to be forgotten", || house.agents.connected().is_empty()).await;
    guest.kill();
    let status = harness::end_of(guest.spawn_process()).await;
    assert_eq!(status.code(), Some(3), "its next announcement is refused for good");
    drop(house.folder);
}

#[actix_rt::test]
async fn a_command_that_is_called_off_in_its_row_ends_on_its_guest_and_keeps_its_output() {
    let mut house = House::new().await;
    let guest = house.guest().await;
    let argv = ["sh", "-c", "sleep 600 & echo $!; wait"];
    for another_node in [false, true] {
        let (id, attempt) = house.queue(1, &argv).await;
        let deadline = tokio::time::Instant::now() + SOON;
        while !house.stdout(&id).await.ends_with(b"\n") {
            assert!(tokio::time::Instant::now() < deadline, "it never runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let printed = house.stdout(&id).await;
        let child = String::from_utf8(printed.clone()).expect("a number").trim().to_owned();
        if another_node {
            house.restart().await;
            house.connected().await;
        }
        house.call_off(&id, Epoch(2)).await;
        house.done(&id).await;
        assert_eq!(house.result(&id).await, Outcome::Cancelled);
        assert_eq!(house.verdict(attempt).await[0], ("agent".to_owned(), "failed".to_owned()));
        assert_eq!(house.stdout(&id).await, printed, "what it had written is kept");
        wait_until("what it started to be gone", || !harness::runs(&child, "sleep")).await;
        let looked = house.agents.look(&id, Epoch(1), SOON).await.expect("answered");
        assert_eq!((looked.state, looked.floor), (LookState::Refused, Epoch(2)), "the floor was raised");
    }
    assert_eq!(guest.effects().len(), 2);
}

#[actix_rt::test]
async fn a_command_its_guest_never_got_is_called_off_for_good() {
    let house = House::new().await;
    let guest = house.guest().await;
    // Marked as sent by a node that died before it sent it.
    let (id, new) = new_command(1, (JobUid::random(), Epoch(1)), &["true"]);
    let (attempt, name) = (new.attempt, id.to_string());
    let called_off = move |c: &mut dispatcher::store::AnyConnection| {
        agent::insert_command(c, &new)?;
        Ok(agent::mark_sent(c, &name)? && agent::call_off(c, &name, Epoch(2))?)
    };
    assert!(house.store.write(called_off).await.expect("written"));
    house.queue.publish(Nudge::Guest(SERVER));
    house.done(&id).await;
    assert_eq!(house.verdict(attempt).await, [("agent".to_owned(), "lost".to_owned())]);
    let looked = house.agents.look(&id, Epoch(2), SOON).await.expect("answered");
    assert_eq!((looked.state, looked.floor), (LookState::Absent, Epoch(2)), "the floor was raised");
    assert!(guest.effects().is_empty(), "it never ran");
}

#[actix_rt::test]
async fn a_guest_refuses_rows_of_an_older_copy_and_takes_them_under_a_new_generation() {
    let house = House::new().await;
    let guest = house.guest().await;
    let job = JobUid::random();
    let seen = CommandId::new(job, "other", 1, SERVER).expect("valid");
    // What the lost rows had claimed for the seventh time.
    let looked = house.agents.look(&seen, Epoch(7), SOON).await.expect("answered");
    assert_eq!((looked.state, looked.floor), (LookState::Absent, Epoch(7)));
    let restored = Epoch(2);
    let (old, attempt) = house.queue_under(1, (job, restored.after(Generation(0))), &["true"]).await;
    house.queue.publish(Nudge::Guest(SERVER));
    house.done(&old).await;
    assert_eq!(house.result(&old).await, Outcome::Refused { floor: Epoch(7) });
    assert_eq!(house.verdict(attempt).await[0].1, "unknown");
    assert!(guest.effects().is_empty());

    let name = old.to_string();
    let again = move |c: &mut dispatcher::store::AnyConnection| {
        use diesel::prelude::*;
        use dispatcher::store::provisioning::schema::{evidence, guest_command};
        diesel::delete(evidence::table.filter(evidence::subject.eq(attempt.to_string()))).execute(c)?;
        diesel::delete(guest_command::table.find(name.clone())).execute(c)
    };
    house.store.write(again).await.expect("rows as they were restored");
    let (new, attempt) = house.queue_under(2, (job, restored.after(Generation(1))), &["true"]).await;
    house.queue.publish(Nudge::Guest(SERVER));
    house.done(&new).await;
    assert_eq!(house.verdict(attempt).await[0], ("agent".to_owned(), "reached".to_owned()));
    assert_eq!(guest.effects(), [new.to_string()]);
}

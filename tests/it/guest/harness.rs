//! A guest process, a stub of the handshake, and a session to drive the one with.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use dispatcher::crypto::pki::{self, Authority, Identity};
use dispatcher::model::{AgentId, Boot, CustomerId, Epoch, JobUid, Micros, ServerId};
use dispatcher::wire::{
    AgentFrame, CommandId, CommandResult, DispatcherFrame, DispatcherHello, HANDSHAKE_PATH, HandshakeAnswer,
    HandshakeRequest, Offsets, Operation, Run, SESSION_PATH, SUBPROTOCOL, Stream, agent_host_name,
    decode_bytes,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

pub(super) const SERVER: ServerId = ServerId(7);
const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Waits for something to become true.
pub(super) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How a process ends, without holding up the stub, which runs on this thread.
pub(super) async fn end_of(mut process: Child) -> std::process::ExitStatus {
    let mut status = None;
    wait_until("the process to end", || {
        status = process.try_wait().expect("a child");
        status.is_some()
    })
    .await;
    status.expect("ended")
}

/// Whether this pid runs a program of this name.
pub(super) fn runs(pid: &str, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains(&format!("({name})")) && !stat.contains(") Z "))
}

pub(super) fn command_on(server: i64, step: &str, r#try: u32) -> CommandId {
    CommandId::new(JobUid::random(), step, r#try, ServerId(server)).expect("valid")
}

pub(super) fn command(step: &str, r#try: u32) -> CommandId {
    command_on(SERVER.0, step, r#try)
}

pub(super) fn run_of(command: &CommandId, epoch: i64, argv: &[&str]) -> Run {
    Run {
        command: command.clone(),
        job: command.job(),
        epoch: Epoch(epoch),
        operation: Operation::RunCommand {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            timeout_secs: 60,
        },
        user: "1".to_owned(),
        expires_at: Micros::wall().plus(Duration::from_secs(60)),
        output_from: Offsets::default(),
    }
}

/// What the stub was asked and what it answers.
#[derive(Default)]
pub(super) struct Stub {
    refusals: Mutex<Vec<u16>>,
    tokens: Mutex<Vec<Option<String>>>,
}

impl Stub {
    /// Answers the next handshakes with these statuses, and the ones after with a certificate.
    pub(super) fn answer_first_with(&self, statuses: &[u16]) {
        *self.refusals.lock().expect("whole") = statuses.iter().rev().copied().collect();
    }

    /// The tokens shown so far.
    pub(super) fn tokens(&self) -> Vec<Option<String>> {
        self.tokens.lock().expect("whole").clone()
    }
}

pub(super) struct Guest {
    pub(super) services: Authority,
    pub(super) agents: Arc<Authority>,
    pub(super) role: Identity,
    pub(super) stub: Arc<Stub>,
    folder: tempfile::TempDir,
    host: u8,
    process: Option<Child>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Shims outlive their agent on purpose; not these tests.
        let Ok(places) = std::fs::read_dir(self.data().join("commands")) else { return };
        for place in places.flatten() {
            for file in ["shim.json", "child.json"] {
                kill_named_in(&place.path().join(file));
            }
        }
    }
}

impl Guest {
    pub(super) fn unstarted() -> Self {
        static HOSTS: AtomicU8 = AtomicU8::new(1);
        let services = Authority::create("services").expect("root");
        let agents = Arc::new(Authority::create("agents").expect("root"));
        let role = services.issue_role(pki::DISPATCHER_ROLE, &[], DAY).expect("role");
        let folder = tempfile::tempdir().expect("folder");
        let stub = Arc::new(Stub::default());
        let url = serve(&services, &agents, &stub);
        let user_data = serde_json::json!({
            "dispatcher": url, "root": services.cert_pem(), "token": "t0k3n", "instanceId": "i-7",
        });
        std::fs::write(folder.path().join("user-data.json"), user_data.to_string()).expect("written");
        let host = HOSTS.fetch_add(1, Ordering::Relaxed);
        Self { services, agents, role, stub, folder, host, process: None }
    }

    pub(super) async fn start_new() -> Self {
        let mut guest = Self::unstarted();
        guest.start().await;
        guest
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.data().join(name)).expect("there")
    }

    pub(super) fn spawn_process(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_dispatcher-agent"))
            .arg("run")
            .args(["--listen", &format!("127.1.77.{}:0", self.host)])
            .arg("--data")
            .arg(self.data())
            .arg("--user-data")
            .arg(self.folder.path().join("user-data.json"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("log")).expect("made"))
            .spawn()
            .expect("starts")
    }

    /// Starts the agent and waits until it was enrolled.
    pub(super) async fn start(&mut self) {
        let process = self.spawn_process();
        let pid = process.id();
        self.process = Some(process);
        wait_until("the agent's pid file", || self.pid_file().is_some_and(|file| file["pid"] == pid)).await;
        wait_until("the certificate", || self.data().join("cert.pem").exists()).await;
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        let mut process = self.process.take().expect("runs");
        process.kill().expect("killed");
        process.wait().expect("ended");
    }

    pub(super) fn kill_shim(&self, command: &CommandId) {
        kill_named_in(&self.data().join("commands").join(command.to_string()).join("shim.json"));
    }

    fn pid_file(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.data().join("pid")).ok()?).ok()
    }

    /// The commands in the ledger, in order.
    pub(super) fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.data().join("effects.jsonl")).unwrap_or_default();
        let command = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(line["effect"], "command");
            line["command"].as_str().expect("text").to_owned()
        };
        text.lines().map(command).collect()
    }

    /// A session that was greeted back.
    pub(super) async fn session(&self, number: i64) -> Session {
        let mut session = self.dial(Some(&self.role), number).await.expect("the dispatcher's role is let in");
        assert!(matches!(session.next().await, AgentFrame::Hello(hello) if hello.version > 0));
        session
    }

    /// Dials and says hello, whatever comes back; an error of any layer up to the first frame is one.
    pub(super) async fn dial(&self, id: Option<&Identity>, number: i64) -> Result<Session, String> {
        let address: std::net::SocketAddr =
            self.pid_file().expect("runs")["address"].as_str().expect("text").parse().expect("address");
        let tls = pki::client_config(self.agents.cert_pem(), id).expect("client");
        let name = agent_host_name(SERVER);
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(Arc::new(tls))
            .connect(name.clone().try_into().expect("a name"), stream)
            .await
            .map_err(|e| e.to_string())?;
        let mut request = format!("wss://{name}{SESSION_PATH}").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (socket, _) = tokio_tungstenite::client_async(request, tls).await.map_err(|e| e.to_string())?;
        let mut session = Session { socket };
        let hello = DispatcherHello { boot: Boot::random(), session_no: number };
        session.send(DispatcherFrame::Hello(hello)).await;
        Ok(session)
    }
}

fn kill_named_in(path: &std::path::Path) {
    let Ok(text) = std::fs::read(path) else { return };
    let process: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let pid = i32::try_from(process["pid"].as_i64().expect("a number")).expect("a pid");
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// A TLS listener that signs every key it is shown.
fn serve(services: &Authority, agents: &Arc<Authority>, stub: &Arc<Stub>) -> String {
    let listener = services.issue_server(&["127.0.0.1".to_owned()], DAY).expect("issued");
    let tls = pki::server_config(&listener, None, false).expect("server");
    let data = web::Data::new((Arc::clone(agents), Arc::clone(stub)));
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
    request: web::Json<HandshakeRequest>,
    data: web::Data<(Arc<Authority>, Arc<Stub>)>,
) -> HttpResponse {
    let (agents, stub) = data.get_ref();
    stub.tokens.lock().expect("whole").push(request.token.clone());
    if let Some(status) = stub.refusals.lock().expect("whole").pop() {
        return HttpResponse::build(status.try_into().expect("a status"))
            .insert_header(("retry-after", "0"))
            .finish();
    }
    assert_eq!(request.instance_id.as_deref(), Some("i-7"));
    let read = pki::read_request(&request.csr_pem).expect("a request");
    assert_eq!(read.common_name, request.address.to_string());
    let uri = pki::agent_uri(CustomerId(1), SERVER);
    let signed = agents.sign_agent(&request.csr_pem, &uri, &[agent_host_name(SERVER)], DAY).expect("signed");
    HttpResponse::Ok().json(HandshakeAnswer {
        agent_id: AgentId(1),
        customer_id: CustomerId(1),
        server_id: SERVER,
        server_name: "seven".to_owned(),
        cert_pem: signed.cert_pem,
        expires_at: signed.not_after,
        valid_secs: DAY.as_secs(),
    })
}

/// The dispatcher's end of a session.
pub(super) struct Session {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

/// Everything a session heard of one command.
pub(super) struct End {
    pub(super) result: CommandResult,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) started: bool,
}

impl Session {
    pub(super) async fn send(&mut self, frame: DispatcherFrame) {
        // A peer that has hung up is noticed by the next read.
        let _ = self.socket.send(Message::text(frame.encode().expect("fits"))).await;
    }

    pub(super) async fn next(&mut self) -> AgentFrame {
        self.try_next().await.expect("the session lives")
    }

    async fn try_next(&mut self) -> Option<AgentFrame> {
        let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time")?;
        match message.ok()? {
            Message::Text(text) => Some(AgentFrame::decode(&text).expect("a frame")),
            _ => None,
        }
    }

    /// Whether the agent ends the session without serving it.
    pub(super) async fn ends(&mut self) -> bool {
        self.try_next().await.is_none()
    }

    pub(super) async fn end_of(&mut self, command: &CommandId) -> End {
        self.end_from(command, 0).await
    }

    /// Reads until the command's result; checks that output comes without gaps from this offset.
    pub(super) async fn end_from(&mut self, wanted: &CommandId, from: u64) -> End {
        let (mut stdout, mut stderr, mut was_started) = (Vec::new(), Vec::new(), false);
        loop {
            match self.next().await {
                AgentFrame::Result { command, result } if command == *wanted => {
                    return End { result, stdout, stderr, started: was_started };
                }
                AgentFrame::Started { command, .. } if command == *wanted => was_started = true,
                AgentFrame::Output { command, stream, offset, data } if command == *wanted => {
                    let bytes = decode_bytes(&data).expect("base64");
                    if stream == Stream::Stdout {
                        assert_eq!(offset, from + stdout.len() as u64);
                        stdout.extend(bytes);
                    } else {
                        stderr.extend(bytes);
                    }
                }
                frame => panic!("unexpected {frame:?}"),
            }
        }
    }

    pub(super) async fn output_of(&mut self, wanted: &CommandId, expected: &[u8]) {
        assert_eq!(self.output_line(wanted).await.as_bytes(), expected.trim_ascii_end());
    }

    /// The first line a command prints, without its end.
    pub(super) async fn output_line(&mut self, wanted: &CommandId) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\n") {
            if let AgentFrame::Output { command, data, .. } = self.next().await
                && command == *wanted
            {
                text.extend(decode_bytes(&data).expect("base64"));
            }
        }
        String::from_utf8(text).expect("text").trim_end().to_owned()
    }
}

//! What the driver makes of a cloud that is away, slow, cut off or talks nonsense, and whom the server lets in.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use awc::http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::client::Remote;
use super::serve;
use super::wire::{
    Answer, CALL, KEY_HEADER, SIGNATURE_HEADER, Signed, TERMS_HEADER, TIME_HEADER, sign, terms_of,
};
use crate::cloud::simulated::{Account, Fault, Operation, Settings, Simulated, capabilities_of};
use crate::cloud::{CallContext, CallError, Credential, LaunchRequest, Provider, TokenClass};
use crate::crypto::Secret;
use crate::model::{ErrorClass, Micros};

const PATIENCE: Duration = Duration::from_secs(30);

fn secret() -> Secret {
    Secret::from("right".to_owned())
}

fn context(secret: &Secret, limit: Duration) -> CallContext<'_> {
    CallContext {
        account_number: "4711",
        region: "sim-east-1",
        credential: Credential { access_key: "AK", secret },
        limit,
    }
}

fn request(user_data: Option<Vec<u8>>) -> LaunchRequest {
    LaunchRequest {
        token: "t".into(),
        tag: "dispatcher-job=t.launch".into(),
        name: "web".into(),
        product: "m1.small".into(),
        image: "sim-ubuntu-64".into(),
        data_center: "sim-east-1a".into(),
        user_data,
        keypair: None,
    }
}

/// What a foreign server does with a call after it has read it whole.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Says nothing, and keeps the connection.
    Stall,
    /// Hangs up.
    Cut,
    /// Hangs up in the middle of the body.
    CutBody,
    /// One byte of a long head after the other.
    Drip,
    /// An answer longer than any may be.
    Oversized,
    /// These bytes, then the end.
    Says(&'static str),
}

/// A server that tells its capabilities as a cloud does, and treats calls as asked.
async fn foreign(behaviour: Behaviour) -> Remote {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_rt::spawn(behave(stream, behaviour));
        }
    });
    Remote::connect(&url, PATIENCE).await.expect("its capabilities")
}

async fn behave(mut stream: TcpStream, behaviour: Behaviour) {
    let body = serde_json::to_string(&capabilities_of(TokenClass::K)).expect("plain data");
    let told = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    while let Some(head) = read_request(&mut stream).await {
        if head.starts_with("GET /capabilities") {
            stream.write_all(told.as_bytes()).await.expect("written");
            continue;
        }
        match behaviour {
            Behaviour::Stall => std::future::pending().await,
            Behaviour::Cut => return,
            Behaviour::CutBody => {
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n\"do").await;
                return;
            }
            Behaviour::Drip => {
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Behaviour::Oversized => {
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n").await;
                while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
            }
            Behaviour::Says(bytes) => {
                let _gone = stream.write_all(bytes.as_bytes()).await;
                return;
            }
        }
    }
}

/// Reads a whole request; its head.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8_lossy(&read[..end]).into_owned();
        }
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&chunk[..n]);
    };
    let length = head.to_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let whole = head.len() + 4 + length.map_or(0, |n| n.trim().parse::<usize>().expect("a number"));
    while read.len() < whole {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&chunk[..n]);
    }
    Some(head)
}

#[actix_rt::test]
async fn without_a_whole_answer_to_a_call_that_was_sent_its_outcome_is_unknown() {
    let secret = secret();
    for behaviour in [
        Behaviour::Stall,
        Behaviour::Cut,
        Behaviour::CutBody,
        Behaviour::Drip,
        Behaviour::Oversized,
        Behaviour::Says("nonsense\r\n\r\n"),
        Behaviour::Says("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n\"maybe\""),
        Behaviour::Says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        Behaviour::Says("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        // An answer to another question.
        Behaviour::Says("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\"done\""),
    ] {
        let cloud = foreign(behaviour).await;
        let error = cloud
            .launch(&context(&secret, Duration::from_secs(2)), &request(None))
            .await
            .expect_err("no whole answer");
        assert!(!error.is_definite(), "{behaviour:?}: {error}");
    }
}

#[actix_rt::test]
async fn a_connection_that_is_never_made_is_a_definite_refusal_worth_another_try() {
    let site = Site::open(TokenClass::K).await;
    let (cloud, secret) = (site.client().await, secret());
    cloud.check(&context(&secret, PATIENCE)).await.expect("it answers");
    let kept = site.close().await;
    // A connection that was kept may be served once more, or end under a request, whose outcome is unknown then. The one
    // after it is never made.
    let deadline = std::time::Instant::now() + PATIENCE;
    while !cloud.check(&context(&secret, PATIENCE)).await.is_err_and(|error| error.is_definite()) {
        assert!(std::time::Instant::now() < deadline, "kept connections never end");
    }
    let error = cloud.launch(&context(&secret, PATIENCE), &request(None)).await.expect_err("nobody there");
    assert!(error.is_definite() && error.class() == ErrorClass::Transient, "{error}");
    assert_eq!(kept.look(crate::cloud::simulated::machine::World::launches), 0);
    drop(kept);
    let nowhere = Remote::connect(&site.url, Duration::ZERO).await.expect_err("nobody there").to_string();
    assert!(nowhere.contains(&site.url) && nowhere.contains("dispatcher simulated-cloud"), "{nowhere}");
    // The same address again, as after a restart: kept connections do no harm.
    let again = Site::open_at(TokenClass::K, site.address).await;
    cloud.check(&context(&secret, PATIENCE)).await.expect("it is back");
    let other = Site::open(TokenClass::S).await;
    let changed = Remote::connect(&other.url, PATIENCE).await.expect("it answers");
    assert_eq!(changed.capabilities(), &capabilities_of(TokenClass::S));
    again.close().await;
}

#[actix_rt::test]
async fn refusals_and_unknown_outcomes_travel_as_they_are() {
    let site = Site::open(TokenClass::K).await;
    let (cloud, secret) = (site.client().await, secret());
    let faults = site.cloud().faults();
    for class in ErrorClass::ALL {
        faults.next(Operation::Check, 1, Fault::Refuse(*class));
        let error = cloud.check(&context(&secret, PATIENCE)).await.expect_err("refused");
        faults.next(Operation::Check, 1, Fault::Refuse(*class));
        let direct = site.cloud().check(&context(&secret, PATIENCE)).await.expect_err("refused");
        assert_eq!(error, direct);
    }
    let wait = Duration::from_micros(7_000_001);
    faults.next(Operation::Launch, 1, Fault::Throttle(wait));
    let error = cloud.launch(&context(&secret, PATIENCE), &request(None)).await.expect_err("throttled");
    assert!(matches!(error, CallError::Refused { retry_after: Some(told), .. } if told == wait));
    faults.next(Operation::Terminate, 1, Fault::FailBefore);
    let error = cloud.terminate(&context(&secret, PATIENCE), "i-1").await.expect_err("a fault");
    assert_eq!(error, CallError::unknown("500 InternalError after the request was sent"));
    let long = cloud
        .launch(&context(&secret, PATIENCE), &request(Some(vec![0; 300_000])))
        .await
        .expect_err("too long to send");
    assert_eq!(long.class(), ErrorClass::Bug);
    site.close().await;
}

#[actix_rt::test]
async fn what_a_caller_gave_up_on_is_carried_out_all_the_same() {
    let site = Site::open(TokenClass::K).await;
    let (cloud, secret) = (site.client().await, secret());
    site.cloud().faults().next(Operation::Launch, 1, Fault::Stall(Duration::from_millis(300)));
    let context = context(&secret, PATIENCE);
    let wish = request(None);
    let call = cloud.launch(&context, &wish);
    let taken = async {
        while site.cloud().faults().remaining(Operation::Launch) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! { _ = call => panic!("it stalls"), () = taken => {} }
    let until = tokio::time::Instant::now() + PATIENCE;
    while site.cloud().look(crate::cloud::simulated::machine::World::launches) == 0 {
        assert!(tokio::time::Instant::now() < until, "it never landed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    site.close().await;
}

/// A raw request with each part to be forged.
struct Forged<'a> {
    secret: &'a [u8],
    key: &'a str,
    signed_at: i64,
    terms: &'a str,
    /// What is sent, and what was signed.
    body: (&'a str, &'a str),
}

const CHECK: &str = r#"{"account":"4711","region":"sim-east-1","limitMs":30000,"ask":"check"}"#;
const LIST: &str = r#"{"account":"4711","region":"sim-east-1","limitMs":30000,"ask":{"list":""}}"#;

impl<'a> Forged<'a> {
    fn honest(terms: &'a str) -> Self {
        let signed_at = Micros::wall().millis();
        Self { secret: b"right", key: "AK", signed_at, terms, body: (CHECK, CHECK) }
    }

    async fn send(&self, url: &str) -> (u16, Answer) {
        let signed_at = self.signed_at.to_string();
        let signed = Signed {
            method: "POST",
            path: CALL,
            access_key: self.key,
            signed_at: &signed_at,
            terms: self.terms,
            body: self.body.1.as_bytes(),
        };
        let place: Uri = format!("{url}{CALL}").parse().expect("an address");
        let mut answer = awc::Client::default()
            .post(place)
            .insert_header((KEY_HEADER, self.key))
            .insert_header((TIME_HEADER, signed_at.as_str()))
            .insert_header((TERMS_HEADER, self.terms))
            .insert_header((SIGNATURE_HEADER, sign(self.secret, &signed)))
            .send_body(self.body.0.to_owned())
            .await
            .expect("an answer");
        let body = answer.body().await.expect("a body");
        (answer.status().as_u16(), serde_json::from_slice(&body).expect("an answer"))
    }
}

fn class_of(answer: &Answer) -> ErrorClass {
    match answer {
        Answer::Refused { class, .. } => *class,
        other => panic!("no refusal: {other:?}"),
    }
}

#[actix_rt::test]
async fn only_what_the_account_signed_is_let_in() {
    let site = Site::open(TokenClass::K).await;
    let terms = terms_of(&capabilities_of(TokenClass::K));
    let honest = || Forged::honest(&terms);
    assert_eq!(honest().send(&site.url).await, (200, Answer::Done));
    for (what, forged) in [
        ("another secret", Forged { secret: b"wrong", ..honest() }),
        ("an unknown key", Forged { key: "AL", secret: b"", ..honest() }),
        ("no key", Forged { key: "", secret: b"", ..honest() }),
        ("another body than was signed", Forged { body: (LIST, CHECK), ..honest() }),
    ] {
        let (status, answer) = forged.send(&site.url).await;
        assert_eq!((status, class_of(&answer)), (403, ErrorClass::Auth), "{what}: {answer:?}");
    }
    let others = r#"{"account":"4712","region":"sim-east-1","limitMs":30000,"ask":"check"}"#;
    let (status, answer) = Forged { body: (others, others), ..honest() }.send(&site.url).await;
    assert_eq!((status, class_of(&answer)), (403, ErrorClass::Auth), "another account: {answer:?}");
    let (status, answer) = Forged { body: ("{}", "{}"), ..honest() }.send(&site.url).await;
    assert_eq!((status, class_of(&answer)), (400, ErrorClass::Bug), "no call: {answer:?}");
    let long = "x".repeat(300_000);
    let (status, answer) = Forged { body: (&long, &long), ..honest() }.send(&site.url).await;
    assert_eq!((status, class_of(&answer)), (400, ErrorClass::Bug), "too long: {answer:?}");
    // No time ends a request outside class S.
    let old = Forged { signed_at: honest().signed_at - 86_400_000, ..honest() };
    assert_eq!(old.send(&site.url).await, (200, Answer::Done));
    site.close().await;
}

#[actix_rt::test]
async fn class_s_refuses_what_was_signed_too_long_ago_and_other_terms_are_refused_everywhere() {
    let site = Site::open(TokenClass::S).await;
    let terms = terms_of(&capabilities_of(TokenClass::S));
    let now = Micros::wall().millis();
    let of = |signed_at| Forged { signed_at, ..Forged::honest(&terms) };
    assert_eq!(of(now).send(&site.url).await, (200, Answer::Done));
    assert_eq!(of(now - 200_000).send(&site.url).await, (200, Answer::Done), "within t_sig of 300 s");
    for signed_at in [now - 301_000, now + 60_000, 0, i64::MAX] {
        let (status, answer) = of(signed_at).send(&site.url).await;
        assert_eq!((status, class_of(&answer)), (503, ErrorClass::Transient), "{signed_at}: {answer:?}");
        assert!(format!("{answer:?}").contains("RequestExpired"), "{answer:?}");
    }
    let (_, answer) = Forged::honest("of another cloud").send(&site.url).await;
    assert!(format!("{answer:?}").contains("TermsChanged"), "{answer:?}");
    let secret = secret();
    let cloud = site.client().await;
    cloud.launch(&context(&secret, PATIENCE), &request(None)).await.expect("launched");
    site.close().await;
}

/// A served cloud in a folder of its own.
struct Site {
    url: String,
    address: SocketAddr,
    cloud: std::cell::RefCell<Option<Arc<Simulated>>>,
    server: ServerHandle,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn open(class: TokenClass) -> Self {
        Self::open_at(class, ([127, 0, 0, 1], 0).into()).await
    }

    async fn open_at(class: TokenClass, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let account = Account { number: "4711".into(), access_key: "AK".into(), secret: secret() };
        let settings =
            Settings { guest_processes: 0, accounts: vec![account], ..Settings::new(folder.path(), class) };
        let cloud = Arc::new(Simulated::open(settings).await.expect("the cloud opens"));
        let listener = StdListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = serve(Arc::clone(&cloud), listener).expect("a server");
        let handle = server.handle();
        actix_rt::spawn(server);
        Self {
            url: format!("http://{address}"),
            address,
            cloud: std::cell::RefCell::new(Some(cloud)),
            server: handle,
            _folder: folder,
        }
    }

    fn cloud(&self) -> Arc<Simulated> {
        self.cloud.borrow().clone().expect("open")
    }

    async fn client(&self) -> Remote {
        Remote::connect(&self.url, PATIENCE).await.expect("it answers")
    }

    /// Ends the server; the cloud as it is then.
    async fn close(&self) -> Arc<Simulated> {
        let cloud = self.cloud.borrow_mut().take().expect("open");
        self.server.stop(false).await;
        cloud
    }
}

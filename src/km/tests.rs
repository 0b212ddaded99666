use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpListener;

use super::actor::Trip;
use super::server::{self, Limits, Rate};
use super::testkit::{Authority, CANARY, Manor, ask, captured, place, until};
use super::wire::{Answer, Granted, Session};
use super::{Ask, Cause, Channel, Error, Km, Links, Settings, Target, frame};
use crate::crypto::{Algorithm, Key, Secret};
use crate::model::{AccountId, Boot, CustomerId, Micros};
use crate::ops::{Chain, Health, Metrics, State};
use crate::store;
use crate::supervision::Supervisor;

struct Client {
    km: Km,
    health: Health,
    metrics: Metrics,
    supervisor: Supervisor,
}

fn quick() -> Settings {
    Settings {
        look: Duration::from_millis(20),
        rest_first: Duration::from_millis(50),
        rest_max: Duration::from_millis(200),
        ..Settings::default()
    }
}

fn client(target: Target, settings: Settings) -> Client {
    let (health, metrics) = (Health::new(), Metrics::new());
    let supervisor = Supervisor::with_metrics(health.clone(), metrics.clone());
    let links = Links { node: Boot::random(), health: health.clone(), metrics: metrics.clone() };
    let km = super::start(&supervisor, &supervisor.here(), target, settings, links);
    Client { km, health, metrics, supervisor }
}

impl Client {
    fn state(&self) -> Option<State> {
        self.health.ready().1.into_iter().find(|part| part.part == "key manager").map(|part| part.state)
    }
}

#[actix::test]
async fn a_lease_comes_over_tls_and_says_how_it_was_sealed() {
    let manor = Manor::start(server::Settings::default()).await;
    let client = client(manor.target(), Settings::default());
    let before = Micros::wall();
    let lease = client.km.lease(ask()).await.expect("granted");
    assert_eq!(lease.access_key, "AKIA");
    assert_eq!(lease.secret.expose_text(), Some(CANARY));
    assert_eq!(lease.endpoint, place().endpoint);
    assert!(lease.expires_at.since(before) >= Duration::from_secs(299));
    assert_eq!(lease.sealed.algorithm, "XChaCha20-Poly1305");
    assert_eq!(lease.sealed.key_id, manor.transport.derive("km-s2c").id().to_string());
    assert_eq!(client.state(), Some(State::Ok));
    let page = client.metrics.encode();
    assert!(page.contains("dispatcher_km_leases_total{outcome=\"granted\"} 1"), "{page}");
    let second = client.km.lease(ask()).await.expect("over the kept connection");
    assert_ne!(second.sealed.request_id, lease.sealed.request_id);
}

#[actix::test]
async fn aes_is_a_setting_of_the_sealing_side() {
    let manor = Manor::start(server::Settings::default()).await;
    let channel = Channel::new(&manor.transport, Algorithm::Aes256Gcm);
    let client = client(Target { channel, ..manor.target() }, Settings::default());
    let lease = client.km.lease(ask()).await.expect("both sides open both");
    assert_eq!(lease.sealed.algorithm, "XChaCha20-Poly1305", "this key manager seals so");
}

#[actix::test]
async fn every_denial_reads_the_same() {
    let manor = Manor::start(server::Settings::default()).await;
    let client = client(manor.target(), Settings::default());
    let asks = [
        Ask { credential: "cred-2".to_owned(), ..ask() },
        Ask { customer: CustomerId(9), ..ask() },
        Ask { account: AccountId(9), ..ask() },
    ];
    for asked in asks {
        let error = client.km.lease(asked.clone()).await.err().expect("denied");
        let Error::Denied { request } = error else { panic!("{asked:?}: {error}") };
        let text = Error::Denied { request }.to_string();
        assert_eq!(text, format!("the key manager denied request {request}; its audit log says why"));
    }
    assert_eq!(client.state(), Some(State::Ok), "a denial is no fault of the key manager");
    let invalid = Ask { purpose: "two words".to_owned(), ..ask() };
    assert!(matches!(client.km.lease(invalid).await, Err(Error::Invalid(_))));
    assert_eq!(client.state(), Some(State::Ok), "nor is a wrong question");
    assert!(client.km.lease(ask()).await.is_ok());
}

#[actix::test]
async fn it_waits_out_a_key_manager_that_is_down() {
    let mut manor = Manor::start(server::Settings::default()).await;
    let client = client(manor.target(), quick());
    assert!(client.km.lease(ask()).await.is_ok());
    manor.stop().await;
    until("the client noticed", async || client.state() == Some(State::Degraded)).await;
    until("the breaker opened", async || {
        matches!(client.km.lease(ask()).await, Err(Error::Unavailable(Cause::Resting(_))))
    })
    .await;
    assert!(client.health.ready().0, "work that needs no secret goes on");
    manor.start_again().await;
    let since = tokio::time::Instant::now();
    until("leases are granted again", async || client.km.lease(ask()).await.is_ok()).await;
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(client.state(), Some(State::Ok));
}

#[actix::test]
async fn a_key_manager_without_its_database_lets_jobs_wait() {
    let manor = Manor::start(server::Settings::default()).await;
    let client = client(manor.target(), quick());
    let url = format!("sqlite://{}/credentials.db", manor.folder.path().display());
    let mut connection = store::Manager::new(&url).expect("a url").open().expect("a database");
    store::CREDENTIALS.revert(&mut connection).expect("the tables are gone");
    let error = client.km.lease(ask()).await.err().expect("there is no table");
    assert!(matches!(error, Error::Unavailable(Cause::Database)), "{error}");
    assert!(!error.is_definite());
}

#[actix::test]
async fn a_connection_closed_while_idle_costs_no_lease() {
    let settings = server::Settings { idle: Duration::from_millis(30), ..server::Settings::default() };
    let manor = Manor::start(settings).await;
    // No looks in between: the kept connection goes stale.
    let client = client(manor.target(), Settings { look: Duration::from_secs(3600), ..quick() });
    for _ in 0..3 {
        assert!(client.km.lease(ask()).await.is_ok());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

#[actix::test]
async fn panic_error_and_stop_of_the_actor_are_survived_and_the_next_ask_served() {
    let manor = Manor::start(server::Settings::default()).await;
    let client = client(manor.target(), Settings::default());
    assert!(client.km.lease(ask()).await.is_ok());
    for (trip, lives) in [(Trip::Panic, 2), (Trip::Fail, 3), (Trip::Stop, 4)] {
        client.km.mailbox.tell(trip).expect("accepted");
        assert!(client.km.lease(ask()).await.is_ok(), "the ask behind it is served by life {lives}");
        let snapshots = client.supervisor.snapshots();
        let snapshot = snapshots.iter().find(|s| s.kind == "km").expect("it lives");
        assert_eq!((snapshot.restarts, snapshot.incarnation), (lives - 1, lives));
    }
    let snapshot = client.supervisor.snapshots().into_iter().find(|s| s.kind == "km").expect("it lives");
    assert!(snapshot.last_panic.is_some_and(|text| text.contains("tripped")));
}

#[actix::test]
async fn a_thousand_reads_meet_the_rate() {
    let tenant = Rate { burst: 50, per_second: 1 };
    let limits = Limits { customer: tenant, ..Limits::default() };
    let manor = Manor::start(server::Settings { limits, ..server::Settings::default() }).await;
    let client = client(manor.target(), Settings::default());
    let (mut granted, mut busy) = (0, 0);
    for _ in 0..1000 {
        match client.km.lease(ask()).await {
            Ok(_) => granted += 1,
            Err(Error::Busy) => busy += 1,
            Err(e) => panic!("{}", Chain(&e)),
        }
    }
    assert!((50..100).contains(&granted), "{granted} granted");
    assert_eq!(granted + busy, 1000);
}

#[actix::test]
async fn another_transport_key_or_authority_is_refused() {
    let manor = Manor::start(server::Settings::default()).await;
    let channel = Channel::new(&Key::random(), Algorithm::default());
    let stranger = client(Target { channel, ..manor.target() }, quick());
    assert!(matches!(stranger.km.lease(ask()).await, Err(Error::Protocol(_))));

    let other = Authority::new();
    let tls = other.client(&[&rustls::version::TLS13], true);
    let stranger = client(Target { tls, ..manor.target() }, quick());
    assert!(matches!(stranger.km.lease(ask()).await, Err(Error::Unavailable(_))));

    let server_name = ServerName::try_from("other.test").expect("a name");
    let misled = client(Target { server_name, ..manor.target() }, quick());
    assert!(matches!(misled.km.lease(ask()).await, Err(Error::Unavailable(_))));
}

/// A false key manager with the right keys and certificate that answers each question as if it were the first.
async fn serve_first_answer_again(manor: &Manor) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = Target { address: listener.local_addr().expect("bound").to_string(), ..manor.target() };
    let (tls, channel) = (tokio_rustls::TlsAcceptor::from(manor.authority.server()), manor.channel());
    tokio::spawn(async move {
        let mut first = None;
        loop {
            let (stream, _) = listener.accept().await.expect("a caller");
            let mut stream = tls.accept(stream).await.expect("a handshake");
            let session = Session::random();
            frame::write(&mut stream, &channel.seal_hello(session)).await.expect("sent");
            while let Ok(Some(bytes)) = frame::read(&mut stream).await {
                if bytes.is_empty() {
                    frame::write(&mut stream, &[]).await.expect("sent");
                    continue;
                }
                let question = channel.open_request(session, &bytes).expect("opens");
                let lease = Answer::Lease(Granted {
                    access_key: "AKIA".to_owned(),
                    secret: Secret::from("of another account".to_owned()),
                    endpoint: "cloud-1".to_owned(),
                    expires_at: Micros::wall(),
                });
                let answer = channel.seal_answer(&question, &lease);
                if frame::write(&mut stream, first.get_or_insert(answer)).await.is_err() {
                    break;
                }
            }
        }
    });
    target
}

#[actix::test]
async fn the_answer_to_another_question_is_never_taken() {
    let manor = Manor::start(server::Settings::default()).await;
    let target = serve_first_answer_again(&manor).await;
    let client = client(target, quick());
    assert!(client.km.lease(ask()).await.is_ok(), "the first answer fits");
    for _ in 0..2 {
        let error = client.km.lease(ask()).await.err().expect("the first answer fits no other question");
        assert!(matches!(error, Error::Protocol(_)), "{error}");
    }
}

#[actix::test]
async fn silence_ends_in_time() {
    let manor = Manor::start(server::Settings::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let settings = Settings { answer: Duration::from_millis(100), ..quick() };
    let client = client(Target { address, ..manor.target() }, settings);
    let error = client.km.lease(ask()).await.err().expect("nobody answers");
    assert!(matches!(error, Error::TimedOut | Error::Unavailable(Cause::Resting(_))), "{error}");
}

#[actix::test]
async fn no_log_line_holds_a_secret() {
    let captured = captured();
    let mut manor = Manor::start(server::Settings::default()).await;
    let transport = crate::crypto::hex::encode(manor.transport.expose());
    let client = client(manor.target(), quick());
    let leased = ask();
    client.km.lease(leased.clone()).await.expect("granted");
    let denied = Ask { credential: "cred-2".to_owned(), ..ask() };
    client.km.lease(denied.clone()).await.err().expect("denied");
    manor.stop().await;
    client.km.lease(ask()).await.err().expect("it is down");
    until("the client noticed", async || client.state() == Some(State::Degraded)).await;

    let lines = captured.lines();
    let audited = |word: &str, job: String| {
        lines.iter().any(|l| l.contains("dispatcher::km::audit") && l.contains(word) && l.contains(&job))
    };
    assert!(audited("lease granted", leased.job.to_string()), "the grant is written down");
    assert!(audited("lease refused: refused: no credential has this reference", denied.job.to_string()));
    let coded = crate::crypto::base64::encode(CANARY);
    let bytes = format!("{:?}", CANARY.as_bytes());
    for line in &lines {
        for secret in [CANARY, &coded, &bytes, &transport] {
            assert!(!line.contains(secret), "leaked: {line}");
        }
    }
}

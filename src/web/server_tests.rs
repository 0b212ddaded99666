//! Listeners over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use actix_web::{HttpMessage as _, web};

use super::testing::{KEY, Rig, signed};
use super::{Limits, State, agent_server, api_server};
use crate::model::Micros;

/// Sends bytes and reads until the other side closes or says nothing for five seconds.
async fn talk(address: SocketAddr, bytes: Vec<u8>) -> String {
    tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).expect("listens");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        // The other side may close before it has read all.
        let _ = socket.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .expect("talked")
}

fn listen(state: &State) -> (SocketAddr, actix_web::dev::ServerHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = api_server(state.clone(), vec![listener], None).expect("serves");
    let handle = server.handle();
    actix_rt::spawn(server);
    (address, handle)
}

/// A signed request as bytes, without its body.
fn head(method: &str, path: &str, extra: &str) -> String {
    let request = signed(KEY, method, path, "").to_request();
    let headers: String = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().expect("text")))
        .collect();
    format!("{method} /api/enstratus/{path} HTTP/1.1\r\nhost: x\r\n{headers}{extra}\r\n")
}

const LIST: &str = "2014-07-30/admin/Job";

#[actix::test]
async fn a_listener_serves_and_refuses_within_its_limits() {
    let limits = Limits { workers: 1, body_deadline: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::with(limits).await;
    let (address, handle) = listen(&rig.state);

    let good = talk(address, head("GET", LIST, "connection: close\r\n").into_bytes()).await;
    assert!(good.starts_with("HTTP/1.1 200 OK") && good.contains("x-request-id: "), "{good}");
    assert!(good.ends_with(r#"{"jobs":[]}"#), "{good}");

    // A body that is announced too large is answered as JSON, not by a reset.
    let path = "2014-07-30/infrastructure/Server";
    let body = vec![b'x'; 2 * 1024 * 1024];
    let large = head("POST", path, &format!("connection: close\r\ncontent-length: {}\r\n", body.len()));
    let large = talk(address, [large.into_bytes(), body].concat()).await;
    assert!(large.starts_with("HTTP/1.1 413") && large.contains("1048576 bytes"), "{large}");

    // A body that does not come.
    let slow = head("POST", path, "connection: close\r\ncontent-length: 10\r\n");
    let slow = talk(address, slow.into_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body-timeout"), "{slow}");

    // Two lengths: one of them would be a smuggled request.
    let both = head("POST", path, "content-length: 3\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n";
    let both = talk(address, both.into_bytes()).await;
    assert!(!both.contains("HTTP/1.1 2"), "{both}");
    handle.stop(true).await;
}

#[actix::test]
async fn a_silent_socket_is_closed() {
    let limits = Limits { workers: 1, head_deadline: Duration::from_millis(200), ..Limits::default() };
    let rig = Rig::with(limits).await;
    let (address, handle) = listen(&rig.state);
    let began = Micros::wall();
    let dripped = talk(address, b"GET / HTTP/1.1\r\nhost:".to_vec()).await;
    assert!(dripped.is_empty() || dripped.starts_with("HTTP/1.1 408"), "{dripped}");
    assert!(Micros::wall().since(began) < Duration::from_secs(4), "it was closed, not given up by us");
    handle.stop(true).await;
}

async fn broken() -> String {
    panic!("this handler is broken");
}

#[actix::test]
async fn a_panic_is_an_answer_and_the_worker_lives_on() {
    let rig = Rig::with(Limits { workers: 1, ..Limits::default() }).await;
    let app = actix_web::App::new()
        .app_data(web::Data::new(rig.state.clone()))
        .wrap(actix_web::middleware::from_fn(super::server::named))
        .route("/broken", web::get().to(broken))
        .route("/well", web::get().to(|| async { "well" }));
    let app = actix_web::test::init_service(app).await;
    for _ in 0..3 {
        let request = actix_web::test::TestRequest::get().uri("/broken").to_request();
        let error = actix_web::test::try_call_service(&app, request).await.expect_err("it panicked");
        assert_eq!(error.error_response().status(), 500);
        let request = actix_web::test::TestRequest::get().uri("/well").to_request();
        assert_eq!(actix_web::test::call_service(&app, request).await.status(), 200);
    }
}

#[actix::test]
async fn one_request_too_many_is_told_to_come_back() {
    let rig = Rig::with(Limits { concurrent: 1, ..Limits::default() }).await;
    let held = rig.state.gate.clone().try_acquire_owned().expect("free");
    let answer = rig.call(KEY, "GET", LIST, "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers.get("retry-after").expect("when"), "1");
    drop(held);
    assert_eq!(rig.call(KEY, "GET", LIST, "").await.status, 200);
}

#[actix::test]
async fn guests_are_served_over_tls_only() {
    let rig = Rig::new().await;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
        )
        .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let routes = |config: &mut web::ServiceConfig| {
        config.route("/agent/handshake", web::post().to(|| async { "hello" }));
    };
    let server = agent_server(rig.state.clone(), vec![listener], &tls, routes).expect("serves");
    let handle = server.handle();
    actix_rt::spawn(server);
    let plain = talk(address, b"POST /agent/handshake HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()).await;
    assert!(!plain.contains("HTTP/1.1"), "plain text was answered: {plain}");
    handle.stop(true).await;
}

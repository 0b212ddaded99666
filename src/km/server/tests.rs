use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::frame;
use super::super::link::{Link, LinkError, Target};
use super::super::testkit::{Manor, place};
use super::super::wire::{Answer, LeaseRequest, WINDOW, tests::request};
use super::Settings;
use crate::crypto::pki;
use crate::model::{Micros, Uid};

/// A request that would be granted.
fn fine() -> LeaseRequest {
    LeaseRequest {
        request_id: Uid::random(),
        customer: place().customer,
        account: place().account,
        credential: place().reference,
        issued_at: Micros::wall(),
        ..request()
    }
}

/// Whether the key manager closed the connection without a word.
async fn closed(link: &mut Link) -> bool {
    matches!(frame::read(&mut link.stream).await, Ok(None) | Err(_))
}

#[actix::test]
async fn a_request_is_answered_once() {
    let manor = Manor::start(Settings::default()).await;
    let (target, channel) = (manor.target(), manor.channel());
    let mut link = Link::open(&target).await.expect("a connection");
    let (question, bytes) = channel.seal_request(link.session, fine()).expect("fits");
    for turn in 0..3 {
        frame::write(&mut link.stream, &bytes).await.expect("sent");
        let answer = frame::read(&mut link.stream).await.expect("read").expect("an answer");
        let (answer, _) = channel.open_answer(&question, &answer).expect("opens");
        assert_eq!(matches!(answer, Answer::Lease(_)), turn == 0, "at turn {turn}");
        assert_eq!(matches!(answer, Answer::Denied), turn != 0, "at turn {turn}");
    }
    // Sealed anew under the same id, and on another connection: seen before as well.
    let again = LeaseRequest { request_id: question.request().request_id, ..fine() };
    let mut other = Link::open(&target).await.expect("a connection");
    let (answer, _) = other.ask(&channel, again).await.expect("an answer");
    assert!(matches!(answer, Answer::Denied));
    // The recorded bytes themselves open on no other connection.
    frame::write(&mut other.stream, &bytes).await.expect("sent");
    assert!(closed(&mut other).await);
}

#[actix::test]
async fn a_date_outside_the_window_is_answered_with_the_clock() {
    let manor = Manor::start(Settings::default()).await;
    let (target, channel) = (manor.target(), manor.channel());
    let mut link = Link::open(&target).await.expect("a connection");
    let far = WINDOW + Duration::from_secs(2);
    for issued_at in [Micros::wall().minus(far), Micros::wall().plus(far)] {
        let (answer, _) = link.ask(&channel, LeaseRequest { issued_at, ..fine() }).await.expect("an answer");
        let Answer::Clock(now) = answer else { panic!("a lease for a request dated {issued_at:?}") };
        assert!(now.since(Micros::wall()) < Duration::from_secs(1));
    }
    let near = WINDOW.saturating_sub(Duration::from_secs(5));
    for issued_at in [Micros::wall().minus(near), Micros::wall().plus(near)] {
        let (answer, _) = link.ask(&channel, LeaseRequest { issued_at, ..fine() }).await.expect("an answer");
        assert!(matches!(answer, Answer::Lease(_)));
    }
}

#[actix::test]
async fn what_does_not_open_ends_the_connection() {
    let manor = Manor::start(Settings::default()).await;
    let target = manor.target();
    for bytes in [vec![0; 1], vec![0; 1000], b"DKM1\x01".to_vec()] {
        let mut link = Link::open(&target).await.expect("a connection");
        link.ping().await.expect("somebody is there");
        frame::write(&mut link.stream, &bytes).await.expect("sent");
        assert!(closed(&mut link).await);
    }
    let mut link = Link::open(&target).await.expect("a connection");
    link.stream.write_all(&[0xff; 16]).await.expect("sent");
    link.stream.flush().await.expect("sent");
    assert!(closed(&mut link).await, "a frame of 4 GiB was waited for");
}

#[actix::test]
async fn every_flipped_bit_of_a_request_ends_the_connection() {
    let manor = Manor::start(Settings::default()).await;
    let (target, channel) = (manor.target(), manor.channel());
    for place in [0, 4, 10, 30, 60, 200] {
        let mut link = Link::open(&target).await.expect("a connection");
        let (_, mut bytes) = channel.seal_request(link.session, fine()).expect("fits");
        bytes[place] ^= 1;
        frame::write(&mut link.stream, &bytes).await.expect("sent");
        assert!(closed(&mut link).await, "byte {place}");
    }
}

#[actix::test]
async fn without_a_certificate_or_with_old_tls_nobody_is_heard() {
    let manor = Manor::start(Settings::default()).await;
    let nameless = manor.authority.client(&[&rustls::version::TLS13], false);
    let old = manor.authority.client(&[&rustls::version::TLS12], true);
    for tls in [nameless, old] {
        // Without the checks of our own client, which would end it first.
        let target = manor.target();
        let stream = TcpStream::connect(&target.address).await.expect("a listener");
        let Ok(mut stream) = TlsConnector::from(tls).connect(target.server_name, stream).await else {
            continue;
        };
        assert!(matches!(frame::read(&mut stream).await, Ok(None) | Err(_)), "it was greeted");
    }
    let old = manor.authority.client(&[&rustls::version::TLS12], true);
    let refused = Link::open(&Target { tls: old, ..manor.target() }).await;
    assert!(matches!(refused.err(), Some(LinkError::Version)), "our own client speaks no old TLS either");
    assert!(Link::open(&manor.target()).await.is_ok());
}

#[actix::test]
async fn only_roles_that_need_credentials_are_heard() {
    let manor = Manor::start(Settings::default()).await;
    for uri in [pki::PINGER_ROLE, pki::KEY_MANAGER_ROLE, "urn:dispatcher:agent:200:7"] {
        let target = Target { tls: manor.authority.stranger(uri), ..manor.target() };
        assert!(Link::open(&target).await.is_err(), "{uri} was greeted");
    }
    for uri in [pki::MONITOR_ROLE, pki::DISPATCHER_ROLE] {
        let target = Target { tls: manor.authority.stranger(uri), ..manor.target() };
        assert!(Link::open(&target).await.is_ok(), "{uri} was refused");
    }
}

#[actix::test]
async fn a_silent_connection_is_closed() {
    let settings = Settings { idle: Duration::from_millis(50), ..Settings::default() };
    let manor = Manor::start(settings).await;
    let mut link = Link::open(&manor.target()).await.expect("a connection");
    let waited = tokio::time::timeout(Duration::from_secs(10), closed(&mut link)).await;
    assert_eq!(waited, Ok(true));
}

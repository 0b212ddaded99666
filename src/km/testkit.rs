//! A whole key manager on loopback, for tests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::server::{Credential, CredentialStore, Kek, Place, Server, Settings};
use super::{Ask, Channel, Target};
use crate::crypto::{Algorithm, Key, Secret, pki};
use crate::model::{AccountId, AttemptUid, CustomerId, JobUid};
use crate::store::{self, Store};

/// The secret of every credential in these tests. Found anywhere but in a lease, it has leaked.
pub(super) const CANARY: &str = "canary-7f3a-never-to-be-seen";

/// An authority that certifies both sides.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signs itself").der().clone();
        Self { issuer: rcgen::Issuer::new(params, key), certificate }
    }

    fn leaf(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        self.leaf_of(name, pki::DISPATCHER_ROLE)
    }

    fn leaf_of(&self, name: &str, uri: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().expect("a uri")));
        let certificate = params.signed_by(&key, &self.issuer).expect("signs").der().clone();
        (vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        roots
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots().into(), Arc::clone(&provider));
        let (chain, key) = self.leaf("km.test");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key);
        Arc::new(config.expect("a certificate"))
    }

    /// With a certificate of another role.
    pub(super) fn stranger(&self, uri: &str) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_root_certificates(self.roots());
        let (chain, key) = self.leaf_of("node.test", uri);
        Arc::new(builder.with_client_auth_cert(chain, key).expect("a certificate"))
    }

    /// With a certificate of its own, or without any.
    pub(super) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        certified: bool,
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots());
        if !certified {
            return Arc::new(builder.with_no_client_auth());
        }
        let (chain, key) = self.leaf("node.test");
        Arc::new(builder.with_client_auth_cert(chain, key).expect("a certificate"))
    }
}

/// A key manager that can be stopped and started again on the same address and folder.
pub(super) struct Manor {
    pub(super) authority: Authority,
    pub(super) transport: Key,
    pub(super) credentials: CredentialStore,
    pub(super) address: SocketAddr,
    pub(super) settings: Settings,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    pub(super) folder: TempDir,
}

pub(super) fn open_store(folder: &TempDir) -> Store {
    let url = format!("sqlite://{}/credentials.db", folder.path().display());
    let settings = store::Settings::new(store::Manager::new(&url).expect("a url"));
    Store::open(store::CREDENTIALS, &settings, Arc::new(|_, _| {})).expect("a database")
}

impl Manor {
    /// Started, with the one credential of [`place`].
    pub(super) async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kek = Kek::new(&Key::random(), Algorithm::default());
        let credentials = CredentialStore::new(open_store(&folder), kek);
        credentials.put(&place(), credential()).await.expect("kept");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (authority, transport) = (Authority::new(), Key::random());
        let mut manor = Self { authority, transport, credentials, address, settings, running: None, folder };
        manor.serve(listener);
        manor
    }

    pub(super) async fn stop(&mut self) {
        let (stop, served) = self.running.take().expect("it runs");
        stop.send(()).expect("it listens");
        served.await.expect("no panic");
    }

    pub(super) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.serve(listener);
    }

    pub(super) fn channel(&self) -> Channel {
        Channel::new(&self.transport, Algorithm::default())
    }

    /// As an honest node would have it.
    pub(super) fn target(&self) -> Target {
        let versions = [&rustls::version::TLS13];
        Target {
            address: self.address.to_string(),
            server_name: ServerName::try_from("km.test").expect("a name"),
            tls: self.authority.client(&versions, true),
            channel: self.channel(),
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let server =
            Server::new(self.authority.server(), self.channel(), self.credentials.clone(), self.settings);
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(listener, async move {
            stopped.await.ok();
        }));
        self.running = Some((stop, served));
    }
}

pub(super) fn place() -> Place {
    let (customer, account) = (CustomerId(1), AccountId(2));
    Place { reference: "cred-1".to_owned(), customer, account, endpoint: "cloud-1".to_owned() }
}

pub(super) fn credential() -> Credential {
    Credential { access_key: "AKIA".to_owned(), secret: Secret::from(CANARY.to_owned()) }
}

pub(super) fn ask() -> Ask {
    Ask {
        job: JobUid::random(),
        attempt: AttemptUid::random(),
        customer: place().customer,
        account: place().account,
        credential: place().reference,
        purpose: "launch-server".to_owned(),
    }
}

/// Waits until something holds, at most 20 s.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every log line of this test process from now on, at every level.
pub(super) fn captured() -> &'static Captured {
    static CAPTURED: OnceLock<&'static Captured> = OnceLock::new();
    CAPTURED.get_or_init(|| {
        let captured: &'static Captured = Box::leak(Box::default());
        log::set_logger(captured).expect("no other test of this binary installs a logger");
        log::set_max_level(log::LevelFilter::Trace);
        captured
    })
}

/// Log lines.
#[derive(Default)]
pub(super) struct Captured(Mutex<Vec<String>>);

impl Captured {
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl log::Log for Captured {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        struct Pairs(String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Pairs {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut pairs = Pairs(format!("{} {} {}", record.level(), record.target(), record.args()));
        record.key_values().visit(&mut pairs).expect("plain values");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(pairs.0);
    }

    fn flush(&self) {}
}

//! Certificates: two roots, the leaves they sign, and the TLS settings made from them.
//!
//! The *services* root signs the dispatcher's listener, the dispatcher's role and the key manager; the *agents* root
//! signs guests. They never vouch for each other, so that a stolen guest key commands nobody. A leaf says who it is by
//! one URI name; host names are only what TLS needs to dial.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Secret, hex};
use crate::model::Micros;

/// URI name of the dispatcher when it dials a guest or the key manager.
pub const DISPATCHER_ROLE: &str = "urn:dispatcher:role:dispatcher";
/// URI name of the key manager.
pub const KEY_MANAGER_ROLE: &str = "urn:dispatcher:role:km";
/// URI name of a monitor when it asks the key manager.
pub const MONITOR_ROLE: &str = "urn:dispatcher:role:monitor";
/// URI name of a pinger when it dials a guest.
pub const PINGER_ROLE: &str = "urn:dispatcher:role:pinger";

/// How far a certificate's start lies before its making, so that a machine whose clock is late still accepts it.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);
/// Life of a root. Replacing one means enrolling every guest anew.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Longest signing request read, in bytes; an honest P-256 one has about 500.
const CSR_LIMIT: usize = 8 * 1024;

/// URI name of a guest's agent.
#[must_use]
pub fn agent_uri(customer: crate::model::CustomerId, server: crate::model::ServerId) -> String {
    format!("urn:dispatcher:agent:{customer}:{server}")
}

/// The guest an agent's URI names.
#[must_use]
pub fn server_of_agent_uri(uri: &str) -> Option<crate::model::ServerId> {
    let (customer, server) = uri.strip_prefix("urn:dispatcher:agent:")?.split_once(':')?;
    customer.parse::<i64>().ok()?;
    server.parse().ok().map(crate::model::ServerId)
}

/// The first certificate of a PEM text.
#[must_use]
pub fn first_der(cert_pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()
}

/// Why a certificate or TLS setting could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate library refused.
    #[error("cannot {what}")]
    Certificate {
        /// What was being done.
        what: &'static str,
        /// Its reason.
        #[source]
        source: rcgen::Error,
    },
    /// A PEM text holds no usable item.
    #[error("the PEM text holds no usable {what}: {reason}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// A signing request that must not be signed.
    #[error("the signing request is refused: {0}")]
    Request(String),
    /// TLS refused the certificate, key or roots.
    #[error("cannot make the TLS settings")]
    Tls(#[from] rustls::Error),
    /// The roots for peers' certificates were refused.
    #[error("cannot make the check of peers' certificates: {0}")]
    Verifier(String),
    /// A name that cannot stand in a certificate.
    #[error("\"{name}\" cannot stand in a certificate as a name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    fn while_doing(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |source| Self::Certificate { what, source }
    }

    fn name(name: &str, reason: &rcgen::Error) -> Self {
        Self::Name { name: name.to_owned(), reason: reason.to_string() }
    }
}

/// A root: signs leaves, never used for TLS itself.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate with its private key.
pub struct Identity {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: Secret,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What [`Authority::sign_agent`] made.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: Micros,
}

/// What a signing request proves and says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// SHA-256 of the public key's `SubjectPublicKeyInfo`, lower-case hexadecimal: the identity of the asker.
    pub key_hash: String,
    /// The common name the asker put in. Never copied into a certificate.
    pub common_name: String,
}

impl Authority {
    /// A new root with a fresh P-256 key.
    ///
    /// # Errors
    /// When the library cannot make the key or the certificate.
    pub fn create(common_name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let mut params = blank(common_name, ROOT_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(Error::while_doing("sign the root"))?;
        Ok(Self { cert_pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// A root kept on disk.
    ///
    /// # Errors
    /// When either text is no PEM of its kind, or the key does not belong to the certificate.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(Error::while_doing("read the root's key"))?;
        let cert =
            CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(pem_error("root certificate"))?;
        let (_, parsed) = X509Certificate::from_der(&cert)
            .map_err(|e| Error::Pem { what: "root certificate", reason: e.to_string() })?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            let reason = "the private key belongs to another certificate".to_owned();
            return Err(Error::Pem { what: "root", reason });
        }
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key)
            .map_err(Error::while_doing("read the root's certificate"))?;
        Ok(Self { cert_pem: cert_pem.to_owned(), issuer })
    }

    /// The root's certificate, PEM; what others are told to trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The root's private key, PKCS#8 PEM, for a file of mode 0600.
    #[must_use]
    pub fn key_pem(&self) -> Secret {
        Secret::from(self.issuer.key().serialize_pem())
    }

    /// A certificate for a TLS listener under these DNS names and addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_server(&self, names: &[String], life: Duration) -> Result<Identity, Error> {
        let common = names.first().map_or("dispatcher", String::as_str);
        let mut params = leaf(common, names, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// A certificate for a role, named by a URI, good for both ends of a connection.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_role(&self, uri: &str, names: &[String], life: Duration) -> Result<Identity, Error> {
        self.issue(&with_uri(uri, names, life, &BOTH_ENDS)?)
    }

    /// Signs a guest's public key.
    ///
    /// Only the key is taken from the request, after its self-signature was checked; the subject and every extension
    /// are made here, so that whatever else the request asks for has no effect.
    ///
    /// # Errors
    /// [`Error::Request`] when the request is malformed, not signed by its own key, or its key is not P-256.
    pub fn sign_agent(
        &self,
        csr_pem: &str,
        uri: &str,
        names: &[String],
        life: Duration,
    ) -> Result<Signed, Error> {
        let request = parse_request(csr_pem)?;
        let params = with_uri(uri, names, life, &BOTH_ENDS)?;
        let cert = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(Error::while_doing("sign the guest's certificate"))?;
        let serial = serial_of(cert.der()).unwrap_or_default();
        let not_after = Micros(params.not_after.unix_timestamp().saturating_mul(1_000_000));
        Ok(Signed { cert_pem: cert.pem(), serial, not_after })
    }

    fn issue(&self, params: &CertificateParams) -> Result<Identity, Error> {
        let key = new_key()?;
        let cert = params.signed_by(&key, &self.issuer).map_err(Error::while_doing("sign a certificate"))?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: Secret::from(key.serialize_pem()) })
    }
}

const BOTH_ENDS: [ExtendedKeyUsagePurpose; 2] =
    [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

/// Reads a signing request and checks that its maker holds the key.
///
/// # Errors
/// As [`Authority::sign_agent`].
pub fn read_request(csr_pem: &str) -> Result<Request, Error> {
    let request = parse_request(csr_pem)?;
    let common_name = match request.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(text)) => text.clone(),
        Some(DnValue::PrintableString(text)) => text.as_str().to_owned(),
        _ => String::new(),
    };
    Ok(Request {
        key_hash: hex::encode(&Sha256::digest(request.public_key.subject_public_key_info())),
        common_name,
    })
}

/// A new P-256 key, PKCS#8 PEM.
///
/// # Errors
/// When the library cannot make one.
pub fn new_key_pem() -> Result<Secret, Error> {
    Ok(Secret::from(new_key()?.serialize_pem()))
}

/// A signing request for this key; it says nothing but `common_name`.
///
/// # Errors
/// When the text is no private key.
pub fn make_request(key_pem: &Secret, common_name: &str) -> Result<String, Error> {
    let text = key_pem.expose_text().ok_or_else(|| no_key("it is not UTF-8"))?;
    let key = KeyPair::from_pem(text).map_err(Error::while_doing("read the private key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    let request = params.serialize_request(&key).map_err(Error::while_doing("make a signing request"))?;
    request.pem().map_err(Error::while_doing("write a signing request"))
}

/// Settings of a TLS listener (1.2 with AEAD suites, or 1.3). With `client_roots_pem`, clients may show a certificate
/// of these roots; with `require_client` they must.
///
/// # Errors
/// When a PEM text is unusable or certificate and key do not match.
pub fn server_config(
    id: &Identity,
    client_roots_pem: Option<&str>,
    require_client: bool,
) -> Result<rustls::ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match client_roots_pem {
        None if require_client => {
            return Err(Error::Verifier(
                "client certificates are required but no roots are given".to_owned(),
            ));
        }
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), Arc::clone(&provider));
            let verifier = if require_client { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|e| Error::Verifier(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(builder.with_single_cert(chain(&id.cert_pem)?, private_key(&id.key_pem)?)?)
}

/// Settings of a TLS client that trusts these roots and nothing else, and shows `id` when asked.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(roots_pem: &str, id: Option<&Identity>) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots(roots_pem)?);
    Ok(match id {
        None => builder.with_no_client_auth(),
        Some(id) => builder.with_client_auth_cert(chain(&id.cert_pem)?, private_key(&id.key_pem)?)?,
    })
}

/// The first URI among a certificate's names: who it says it is.
#[must_use]
pub fn uri_of(cert_der: &[u8]) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(cert_der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

/// A certificate's serial number, lower-case hexadecimal.
#[must_use]
pub fn serial_of(cert_der: &[u8]) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(cert_der).ok()?;
    Some(hex::encode(cert.raw_serial()))
}

/// The last moment a PEM certificate is good, to the second.
#[must_use]
pub fn not_after(cert_pem: &str) -> Option<Micros> {
    let der = first_der(cert_pem)?;
    let (_, cert) = X509Certificate::from_der(&der).ok()?;
    Some(Micros(cert.validity().not_after.timestamp().saturating_mul(1_000_000)))
}

fn parse_request(csr_pem: &str) -> Result<CertificateSigningRequestParams, Error> {
    if csr_pem.len() > CSR_LIMIT {
        return Err(Error::Request(format!("{} bytes, at most {CSR_LIMIT} are read", csr_pem.len())));
    }
    let request =
        CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| Error::Request(e.to_string()))?;
    // The library names the key after the signature's algorithm, so the length is checked as well: an uncompressed
    // point of P-256 is one byte of form and two coordinates of 32.
    let point = request.public_key.der_bytes();
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256
        || point.len() != 65
        || point.first() != Some(&4)
    {
        return Err(Error::Request("its key is not an uncompressed P-256 key".to_owned()));
    }
    Ok(request)
}

fn blank(common_name: &str, life: Duration) -> Result<CertificateParams, Error> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|e| Error::Verifier(format!("no random serial number: {e}")))?;
    // Positive in DER, and never starting with a zero byte.
    serial[0] = serial[0] & 0x7f | 0x40;
    let now = Micros::wall();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = named(common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.minus(BACKDATE).since(Micros(0));
    params.not_after = epoch + now.plus(life).since(Micros(0));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn leaf(common_name: &str, names: &[String], life: Duration) -> Result<CertificateParams, Error> {
    let mut params = blank(common_name, life)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|e| Error::name(name, &e))?),
        });
    }
    Ok(params)
}

fn with_uri(
    uri: &str,
    names: &[String],
    life: Duration,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<CertificateParams, Error> {
    let mut params = leaf(uri, names, life)?;
    params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(|e| Error::name(uri, &e))?));
    params.extended_key_usages = usages.to_vec();
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::while_doing("make a key"))
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for cert in chain(pem)? {
        store.add(cert)?;
    }
    Ok(store)
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(pem_error("certificate"))?;
    if certs.is_empty() {
        return Err(Error::Pem { what: "certificate", reason: "there is none".to_owned() });
    }
    Ok(certs)
}

fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.expose()).map_err(pem_error("private key"))
}

fn pem_error(what: &'static str) -> impl FnOnce(rustls::pki_types::pem::Error) -> Error {
    move |e| Error::Pem { what, reason: e.to_string() }
}

fn no_key(reason: &str) -> Error {
    Error::Pem { what: "private key", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A mutual handshake over a pipe; gives what the server saw as the client's URI.
    async fn shake(
        server: rustls::ServerConfig,
        client: rustls::ClientConfig,
    ) -> Result<Option<String>, String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = async {
            let mut tls = TlsAcceptor::from(Arc::new(server)).accept(far).await.map_err(|e| e.to_string())?;
            let uri = tls.get_ref().1.peer_certificates().and_then(|c| c.first()).and_then(|c| uri_of(c));
            tls.write_all(b"!").await.map_err(|e| e.to_string())?;
            Ok(uri)
        };
        let dialling = async {
            let name = "peer.internal".try_into().expect("a DNS name");
            let mut tls =
                TlsConnector::from(Arc::new(client)).connect(name, near).await.map_err(|e| e.to_string())?;
            tls.read_u8().await.map_err(|e| e.to_string())
        };
        let (seen, dialled): (Result<_, String>, Result<u8, String>) = tokio::join!(serving, dialling);
        dialled?;
        seen
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }

    #[tokio::test]
    async fn a_role_is_seen_and_the_other_root_is_refused() {
        let services = Authority::create("services").expect("root");
        let agents = Authority::create("agents").expect("root");
        let names = ["peer.internal".to_owned()];
        let listener = services.issue_server(&names, DAY).expect("listener");
        let role = services.issue_role(DISPATCHER_ROLE, &[], DAY).expect("role");
        let stolen = agents.issue_role(DISPATCHER_ROLE, &[], DAY).expect("foreign role");
        let server = || server_config(&listener, Some(services.cert_pem()), true).expect("server");

        let good = client_config(services.cert_pem(), Some(&role)).expect("client");
        assert_eq!(shake(server(), good).await, Ok(Some(DISPATCHER_ROLE.to_owned())));
        let foreign = client_config(services.cert_pem(), Some(&stolen)).expect("client");
        shake(server(), foreign).await.expect_err("a role of another root is refused");
        let nameless = client_config(services.cert_pem(), None).expect("client");
        shake(server(), nameless).await.expect_err("a client without a certificate is refused");
        let misled = client_config(agents.cert_pem(), Some(&role)).expect("client");
        shake(server(), misled).await.expect_err("a server of another root is refused");
    }

    #[test]
    fn a_hostile_request_gets_a_guest_certificate_and_nothing_more() {
        let agents = Authority::create("agents").expect("root");
        let key = new_key().expect("key");
        let mut params = CertificateParams::new(vec!["dispatcher".to_owned()]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("dispatcher");
        params.subject_alt_names.push(SanType::URI(DISPATCHER_ROLE.try_into().expect("uri")));
        let hostile = params.serialize_request(&key).expect("request").pem().expect("pem");

        let uri = "urn:dispatcher:agent:1:7";
        let signed = agents.sign_agent(&hostile, uri, &["guest.internal".to_owned()], DAY).expect("signed");
        let cert_der = der(&signed.cert_pem);
        let (_, cert) = X509Certificate::from_der(&cert_der).expect("parsed");
        assert!(!cert.is_ca());
        assert_eq!(cert.public_key().raw, key.subject_public_key_info());
        assert_eq!(uri_of(&cert_der).as_deref(), Some(uri));
        assert!(!cert.subject().to_string().contains("CN=dispatcher"), "{}", cert.subject());
        let names = cert.subject_alternative_name().expect("well-formed").expect("present");
        assert_eq!(names.value.general_names.len(), 2, "the name and the uri, no more");
        assert_eq!(serial_of(&cert_der).as_deref(), Some(signed.serial.as_str()));
        assert_eq!(not_after(&signed.cert_pem), Some(signed.not_after));
    }

    #[test]
    fn a_request_not_signed_by_its_key_or_with_another_kind_of_key_is_refused() {
        let agents = Authority::create("agents").expect("root");
        let honest = make_request(&new_key_pem().expect("key"), "127.1.0.1:2003").expect("request");
        assert_eq!(read_request(&honest).expect("honest").common_name, "127.1.0.1:2003");

        let mut bytes = CertificateSigningRequestDerBytes::of(&honest);
        bytes.flip_last();
        agents.sign_agent(&bytes.pem(), "urn:x", &[], DAY).expect_err("a broken signature is refused");
        for other in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(other).expect("key");
            let request = CertificateParams::default().serialize_request(&key).expect("request");
            agents
                .sign_agent(&request.pem().expect("pem"), "urn:x", &[], DAY)
                .expect_err("only P-256 is signed");
        }
        for text in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
            agents.sign_agent(text, "urn:x", &[], DAY).expect_err("no request");
        }
        agents.sign_agent(&"A".repeat(CSR_LIMIT + 1), "urn:x", &[], DAY).expect_err("too long");
    }

    #[test]
    fn a_root_survives_its_files_and_a_foreign_key_is_refused() {
        let root = Authority::create("services").expect("root");
        let other = Authority::create("agents").expect("root");
        let key = root.key_pem();
        let again = Authority::load(root.cert_pem(), key.expose_text().expect("text")).expect("loads");
        let leaf = again.issue_server(&["127.0.0.1".to_owned()], DAY).expect("leaf");
        assert!(server_config(&leaf, None, false).is_ok());
        let foreign = other.key_pem();
        Authority::load(root.cert_pem(), foreign.expose_text().expect("text")).expect_err("a foreign key");
    }

    struct CertificateSigningRequestDerBytes(Vec<u8>);

    impl CertificateSigningRequestDerBytes {
        fn of(pem: &str) -> Self {
            let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
            Self(der.expect("a request").to_vec())
        }

        fn flip_last(&mut self) {
            *self.0.last_mut().expect("not empty") ^= 1;
        }

        fn pem(&self) -> String {
            use base64::Engine as _;
            let body = base64::engine::general_purpose::STANDARD.encode(&self.0);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
        }
    }
}

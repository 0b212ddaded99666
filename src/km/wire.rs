//! What dispatcher and key manager say to each other, sealed once more inside TLS.
//!
//! ```text
//! key manager → hello   { version, session }                         sealed with km-s2c
//! dispatcher  → request { request id, job, attempt, …, issued at }   sealed with km-c2s, bound to the session
//! key manager → answer  lease | denied | later | clock               sealed with km-s2c, bound to the request
//! ```
//!
//! A session is 16 random bytes of one connection: what was recorded on one connection opens on no other, also not
//! after a restart of the key manager. The answer's associated data repeats every part of the request and the hash
//! of its sealed bytes, so that an answer fits one question only.

use std::borrow::Cow;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::{self, Aad, Algorithm, Key, KeyRing, Secret};
use crate::model::{AccountId, AttemptUid, CustomerId, JobUid, Micros, Uid};

/// Version of this exchange, part of all associated data.
const VERSION: &str = "1";

/// How far the clocks of both sides may differ, and how old a request may be.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Longest credential reference, purpose or node name, in bytes.
const MAX_NAME: usize = 64;

/// Faults of sealed messages. Texts hold no secret and nothing the other side chose at length.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The bytes do not open here.
    #[error("{what} does not open with the transport key")]
    Sealed {
        /// Which message.
        what: &'static str,
        /// What the envelope said.
        #[source]
        source: crypto::Error,
    },
    /// The bytes open and hold something else than expected.
    #[error("{0} holds something this version does not understand")]
    Content(&'static str),
    /// A part is too long or has characters it may not have.
    #[error("{0} must have 1 to 64 characters out of a-z, A-Z, 0-9, \".\", \"_\", \":\" and \"-\"")]
    Name(&'static str),
}

/// Asks for one credential, for one attempt of one job.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRequest {
    /// Random; never used twice.
    pub(crate) request_id: Uid,
    /// The job.
    pub(crate) job: JobUid,
    /// Its attempt.
    pub(crate) attempt: AttemptUid,
    /// The tenant.
    pub(crate) customer: CustomerId,
    /// The account at the cloud.
    pub(crate) account: AccountId,
    /// Opaque reference of the credential.
    pub(crate) credential: String,
    /// What it is needed for.
    pub(crate) purpose: String,
    /// The asking process.
    pub(crate) node: String,
    /// The asking process's clock.
    pub(crate) issued_at: Micros,
}

impl LeaseRequest {
    /// Checks the parts that are free text.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        check_names(&self.credential, &self.purpose)?;
        check_name("node", &self.node)
    }

    /// How far the request's clock is from `now`, either way.
    pub(crate) fn skew(&self, now: Micros) -> Duration {
        now.since(self.issued_at).max(self.issued_at.since(now))
    }
}

/// Checks what an asker chooses freely.
pub(crate) fn check_names(credential: &str, purpose: &str) -> Result<(), WireError> {
    check_name("credential", credential)?;
    check_name("purpose", purpose)
}

fn check_name(part: &'static str, text: &str) -> Result<(), WireError> {
    let fits = (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    fits.then_some(()).ok_or(WireError::Name(part))
}

/// What the key manager says.
pub(crate) enum Answer {
    /// Here it is.
    Lease(Granted),
    /// No, for good. Why stands in the key manager's audit only.
    Denied,
    /// Not now: too many requests, or the key manager lacks its database or its key.
    Later(LaterCause),
    /// The clocks differ by more than [`WINDOW`]; holds the key manager's.
    Clock(Micros),
}

/// Why a lease may be had later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LaterCause {
    /// Too many requests of this node or tenant.
    Rate,
    /// The credentials database does not answer.
    Database,
    /// The key-encryption key is not the right one.
    Keys,
}

/// A granted credential.
pub(crate) struct Granted {
    /// The public half.
    pub(crate) access_key: String,
    /// The secret half.
    pub(crate) secret: Secret,
    /// The endpoint it was entered for.
    pub(crate) endpoint: String,
    /// When the holder must have dropped it.
    pub(crate) expires_at: Micros,
}

/// The random name of one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session([u8; 16]);

impl Session {
    pub(crate) fn random() -> Self {
        Self(crypto::random_bytes())
    }
}

/// A request on its way, with all that its answer is bound to.
pub(crate) struct Question {
    request: LeaseRequest,
    session: Session,
    hash: [u8; 32],
}

impl Question {
    pub(crate) const fn request(&self) -> &LeaseRequest {
        &self.request
    }

    fn answer_aad(&self) -> Aad {
        let r = &self.request;
        Aad::new("km-answer")
            .with("version", VERSION)
            .with("direction", "s2c")
            .with("session", self.session.0)
            .with("request", r.request_id.as_bytes())
            .with("request-hash", self.hash)
            .with("node", &r.node)
            .with("tenant", r.customer.0.to_be_bytes())
            .with("account", r.account.0.to_be_bytes())
            .with("credential", &r.credential)
            .with("purpose", &r.purpose)
            .with("job", r.job.0.as_bytes())
            .with("attempt", r.attempt.0.as_bytes())
    }
}

/// How a message was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedBy {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: crypto::KeyId,
}

/// The keys of both directions, made from one transport key.
pub struct Channel {
    requests: KeyRing,
    answers: KeyRing,
}

impl Channel {
    /// The channel of this transport key.
    #[must_use]
    pub fn new(transport: &Key, algorithm: Algorithm) -> Self {
        Self {
            requests: KeyRing::new(transport.derive("km-c2s")).sealing_with(algorithm),
            answers: KeyRing::new(transport.derive("km-s2c")).sealing_with(algorithm),
        }
    }

    /// The channel, opening what was sealed under this transport key too. To change keys without a pause: both
    /// sides accept the new one, both seal with it, both forget the old one.
    #[must_use]
    pub fn accepting(self, transport: &Key) -> Self {
        Self {
            requests: self.requests.with_decrypt_only(transport.derive("km-c2s")),
            answers: self.answers.with_decrypt_only(transport.derive("km-s2c")),
        }
    }

    pub(crate) fn seal_hello(&self, session: Session) -> Vec<u8> {
        self.answers.seal(&hello_aad(), &session.0)
    }

    pub(crate) fn open_hello(&self, bytes: &[u8]) -> Result<Session, WireError> {
        let plain = self.answers.open(&hello_aad(), bytes).map_err(|e| sealed("the hello", e))?;
        plain.expose().try_into().map(Session).ok().ok_or(WireError::Content("the hello"))
    }

    pub(crate) fn seal_request(
        &self,
        session: Session,
        request: LeaseRequest,
    ) -> Result<(Question, Vec<u8>), WireError> {
        request.check()?;
        let plain = serde_json::to_vec(&request).ok().ok_or(WireError::Content("the request"))?;
        let bytes = self.requests.seal(&request_aad(session), &plain);
        let hash = crypto::sha256(&bytes);
        Ok((Question { request, session, hash }, bytes))
    }

    pub(crate) fn open_request(&self, session: Session, bytes: &[u8]) -> Result<Question, WireError> {
        let plain = self.requests.open(&request_aad(session), bytes).map_err(|e| sealed("the request", e))?;
        let request: LeaseRequest =
            serde_json::from_slice(plain.expose()).ok().ok_or(WireError::Content("the request"))?;
        request.check()?;
        Ok(Question { request, session, hash: crypto::sha256(bytes) })
    }

    pub(crate) fn seal_answer(&self, question: &Question, answer: &Answer) -> Vec<u8> {
        self.answers.seal(&question.answer_aad(), &answer.encode())
    }

    pub(crate) fn open_answer(
        &self,
        question: &Question,
        bytes: &[u8],
    ) -> Result<(Answer, SealedBy), WireError> {
        let opened =
            self.answers.open_with(&question.answer_aad(), bytes).map_err(|e| sealed("the answer", e))?;
        let answer = Answer::decode(opened.plain.expose()).ok_or(WireError::Content("the answer"))?;
        Ok((answer, SealedBy { algorithm: opened.algorithm, key_id: opened.key_id }))
    }
}

fn sealed(what: &'static str, source: crypto::Error) -> WireError {
    WireError::Sealed { what, source }
}

fn hello_aad() -> Aad {
    Aad::new("km-hello").with("version", VERSION).with("direction", "s2c")
}

fn request_aad(session: Session) -> Aad {
    Aad::new("km-request").with("version", VERSION).with("direction", "c2s").with("session", session.0)
}

/// The answer as JSON. The secret is base64 and so never needs an escape: reading borrows it instead of copying.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, tag = "status", rename_all = "kebab-case")]
enum AnswerText<'a> {
    Lease { access_key: Cow<'a, str>, secret: &'a str, endpoint: Cow<'a, str>, expires_at: Micros },
    Denied,
    Later { cause: LaterCause },
    Clock { now: Micros },
}

impl Answer {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let secret;
        let text = match self {
            Self::Lease(granted) => {
                secret = Zeroizing::new(crypto::base64::encode(granted.secret.expose()));
                AnswerText::Lease {
                    access_key: Cow::Borrowed(&granted.access_key),
                    secret: &secret,
                    endpoint: Cow::Borrowed(&granted.endpoint),
                    expires_at: granted.expires_at,
                }
            }
            Self::Denied => AnswerText::Denied,
            Self::Later(cause) => AnswerText::Later { cause: *cause },
            Self::Clock(now) => AnswerText::Clock { now: *now },
        };
        // Room enough that the buffer never grows: a grown buffer leaves a copy behind that nobody wipes.
        let mut plain = Zeroizing::new(Vec::with_capacity(text.room()));
        // Writing plain data into memory cannot fail; a cut text would be refused by the reader.
        let _ = serde_json::to_writer(&mut *plain, &text);
        plain
    }

    fn decode(plain: &[u8]) -> Option<Self> {
        Some(match serde_json::from_slice(plain).ok()? {
            AnswerText::Lease { access_key, secret, endpoint, expires_at } => Self::Lease(Granted {
                access_key: access_key.into_owned(),
                secret: Secret::new(crypto::base64::decode(secret).ok()?),
                endpoint: endpoint.into_owned(),
                expires_at,
            }),
            AnswerText::Denied => Self::Denied,
            AnswerText::Later { cause } => Self::Later(cause),
            AnswerText::Clock { now } => Self::Clock(now),
        })
    }
}

impl AnswerText<'_> {
    fn room(&self) -> usize {
        const FRAME: usize = 256;
        match self {
            // A character of JSON text takes at most six bytes.
            Self::Lease { access_key, secret, endpoint, .. } => {
                FRAME + 6 * (access_key.len() + endpoint.len()) + secret.len()
            }
            Self::Denied | Self::Later { .. } | Self::Clock { .. } => FRAME,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::{Answer, Channel, Granted, LeaseRequest, Question, Session};
    use crate::crypto::{Algorithm, Key, Secret};
    use crate::model::{AccountId, AttemptUid, CustomerId, JobUid, Micros, Uid};

    type Change = fn(&mut Question);

    pub(crate) fn request() -> LeaseRequest {
        LeaseRequest {
            request_id: Uid::random(),
            job: JobUid::random(),
            attempt: AttemptUid::random(),
            customer: CustomerId(1),
            account: AccountId(2),
            credential: "cred-1".to_owned(),
            purpose: "cloud-call".to_owned(),
            node: "boot-1".to_owned(),
            issued_at: Micros(1_000_000_000),
        }
    }

    fn channel() -> Channel {
        Channel::new(&Key::from_bytes([1; 32]), Algorithm::default())
    }

    fn lease() -> Answer {
        Answer::Lease(Granted {
            access_key: "AKIA\"quoted\"".to_owned(),
            secret: Secret::new(vec![0, 1, 0xff]),
            endpoint: "cloud-1".to_owned(),
            expires_at: Micros(7),
        })
    }

    #[test]
    fn a_lease_survives_the_way_there_and_back() {
        let (channel, session) = (channel(), Session::random());
        assert!(channel.open_hello(&channel.seal_hello(session)).is_ok_and(|s| s == session));
        let (question, bytes) = channel.seal_request(session, request()).expect("fits");
        let asked = channel.open_request(session, &bytes).expect("opens");
        assert_eq!(asked.request(), question.request());
        let (answer, by) =
            channel.open_answer(&question, &channel.seal_answer(&asked, &lease())).expect("opens");
        let Answer::Lease(granted) = answer else { panic!("not a lease") };
        assert_eq!(
            (granted.access_key.as_str(), granted.secret.expose()),
            ("AKIA\"quoted\"", &[0, 1, 0xff][..])
        );
        assert_eq!(by.algorithm, Algorithm::XChaCha20Poly1305);
    }

    #[test]
    fn an_answer_fits_the_one_question_it_was_made_for() {
        let (channel, session) = (channel(), Session::random());
        let (question, bytes) = channel.seal_request(session, request()).expect("fits");
        let asked = channel.open_request(session, &bytes).expect("opens");
        let changes: [(&str, Change); 10] = [
            ("request id", |q| q.request.request_id = Uid::random()),
            ("request hash", |q| q.hash[0] ^= 1),
            ("session", |q| q.session = Session::random()),
            ("node", |q| q.request.node.push('x')),
            ("tenant", |q| q.request.customer = CustomerId(9)),
            ("account", |q| q.request.account = AccountId(9)),
            ("credential", |q| q.request.credential.push('x')),
            ("purpose", |q| q.request.purpose.push('x')),
            ("job", |q| q.request.job = JobUid::random()),
            ("attempt", |q| q.request.attempt = AttemptUid::random()),
        ];
        for (part, change) in changes {
            let mut other = channel.open_request(session, &bytes).expect("opens");
            change(&mut other);
            let answer = channel.seal_answer(&other, &lease());
            assert!(channel.open_answer(&question, &answer).is_err(), "an answer for another {part} opened");
        }
        assert!(channel.open_answer(&question, &channel.seal_answer(&asked, &Answer::Denied)).is_ok());
    }

    #[test]
    fn directions_and_sessions_do_not_mix() {
        let (channel, session) = (channel(), Session::random());
        let (question, bytes) = channel.seal_request(session, request()).expect("fits");
        assert!(channel.open_answer(&question, &bytes).is_err(), "a request came back as its answer");
        assert!(
            channel.open_request(Session::random(), &bytes).is_err(),
            "a request of another connection opened"
        );
        assert!(channel.open_request(session, &channel.seal_hello(session)).is_err());
        let stranger = Channel::new(&Key::from_bytes([2; 32]), Algorithm::default());
        assert!(stranger.open_request(session, &bytes).is_err());
    }

    #[test]
    fn transport_keys_change_without_a_pause() {
        let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let session = Session::random();
        let ahead = Channel::new(&new, Algorithm::Aes256Gcm).accepting(&old);
        let behind = channel().accepting(&new);
        let (question, bytes) = behind.seal_request(session, request()).expect("fits");
        let asked = ahead.open_request(session, &bytes).expect("the old key still opens");
        let (_, by) = behind.open_answer(&question, &ahead.seal_answer(&asked, &lease())).expect("opens");
        assert_eq!((by.algorithm, by.key_id), (Algorithm::Aes256Gcm, new.derive("km-s2c").id()));
    }

    #[test]
    fn names_have_limits_and_clocks_a_distance() {
        for bad in ["", "a b", "a\nb", &"x".repeat(65), "é"] {
            let request = LeaseRequest { credential: bad.to_owned(), ..request() };
            assert!(channel().seal_request(Session::random(), request).is_err(), "{bad:?} was taken");
        }
        let request = request();
        assert_eq!(request.skew(Micros(1_061_000_000)), Duration::from_secs(61));
        assert_eq!(request.skew(Micros(939_000_000)), Duration::from_secs(61));
    }
}

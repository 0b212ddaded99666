//! What travels: the messages as JSON, the headers, and the signature.

use crate::cloud::{CallError, Capabilities, LaunchRequest, Machine};
use crate::crypto::{Aad, hex, hmac_sha256, sha256};
use crate::model::ErrorClass;
use std::time::Duration;

/// Where calls go, by POST.
pub(super) const CALL: &str = "/call";
/// Where the cloud says what it can do, by GET and to anybody.
pub(super) const CAPABILITIES: &str = "/capabilities";

/// Public half of the credential.
pub(super) const KEY_HEADER: &str = "x-cloud-access-key";
/// When the request was signed, in milliseconds since 1970.
pub(super) const TIME_HEADER: &str = "x-cloud-signed-at";
/// What the caller believes about the cloud, see [`terms_of`].
pub(super) const TERMS_HEADER: &str = "x-cloud-terms";
/// The signature, see [`sign`].
pub(super) const SIGNATURE_HEADER: &str = "x-cloud-signature";

/// Longest body of a request: the largest user data as base64, and room for the rest.
pub(super) const LONGEST_CALL: usize = 256 * 1024;
/// Longest body of an answer: a list of some ten thousand servers.
pub(super) const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// One call.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Call {
    /// Account number.
    pub(super) account: String,
    /// Region's name.
    pub(super) region: String,
    /// How long the caller waits.
    pub(super) limit_ms: u64,
    /// What is asked for.
    pub(super) ask: Ask,
}

/// What is asked for.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Ask {
    Check,
    Launch(Box<LaunchRequest>),
    Machine(String),
    FindByTag(String),
    List(String),
    Start(String),
    Stop(String),
    Pause(String),
    Terminate(String),
}

/// What comes back.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// It is done, and there is no more to say.
    Done,
    /// The server made, or made before.
    Made(Box<Machine>),
    /// The server looked for.
    Seen(Option<Box<Machine>>),
    /// The servers looked for.
    Found(Vec<Machine>),
    /// [`CallError::Refused`].
    Refused { class: ErrorClass, code: String, text: String, retry_after: Option<Duration> },
    /// [`CallError::Unknown`].
    Unknown { text: String },
}

impl From<CallError> for Answer {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { class, code, text, retry_after } => {
                Self::Refused { class, code, text, retry_after }
            }
            CallError::Unknown { text } => Self::Unknown { text },
        }
    }
}

impl Answer {
    /// The status that fits, for people who look at the traffic; programs read the body.
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::Done | Self::Made(_) | Self::Seen(_) | Self::Found(_) => 200,
            Self::Refused { class, .. } => match class {
                ErrorClass::Throttled => 429,
                ErrorClass::Auth => 403,
                ErrorClass::NotFound => 404,
                ErrorClass::Conflict | ErrorClass::Quota => 409,
                ErrorClass::Transient => 503,
                ErrorClass::Bug => 400,
                ErrorClass::Unknown => 500,
            },
            Self::Unknown { .. } => 500,
        }
    }
}

/// The parts of a request that its signature covers.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) access_key: &'a str,
    pub(super) signed_at: &'a str,
    pub(super) terms: &'a str,
    pub(super) body: &'a [u8],
}

/// The signature of a request: HMAC-SHA256 over its parts, in hexadecimal digits.
pub(super) fn sign(secret: &[u8], parts: &Signed<'_>) -> String {
    let what = Aad::new("simulated-cloud-call")
        .with("method", parts.method)
        .with("path", parts.path)
        .with("access-key", parts.access_key)
        .with("signed-at", parts.signed_at)
        .with("terms", parts.terms)
        .with("body", sha256(parts.body));
    hex::encode(&hmac_sha256(secret, &[what.as_bytes()]))
}

/// A short name for what a cloud promises. A caller names it with every call: what it knows about repeated creates
/// and quiet times must be what the cloud does, also after the cloud was started anew with other settings.
pub(super) fn terms_of(capabilities: &Capabilities) -> String {
    let text = serde_json::to_vec(capabilities).unwrap_or_default();
    hex::encode(&sha256(text)).chars().take(16).collect()
}

//! What every cloud driver offers, and the data by which callers know what they may promise.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::crypto::Secret;
use crate::model::{CloudId, ErrorClass, Micros, ServerStatus};

/// How a provider keeps a repeated create from making two resources (`PROTOCOL.md`, section 4). It decides how an
/// attempt whose answer never came is resolved, and what can be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum TokenClass {
    /// Keeps the client's token for at least [`Capabilities::token_kept`]: send the same request again and adopt
    /// the answer. One resource, always, while the attempt is younger than that.
    K,
    /// No token, but every request carries a signed time that the provider checks, and the tag is set together
    /// with the create: wait [`Capabilities::quiet`], then look. One resource if the stated times hold.
    S,
    /// No token and no expiry of requests; the tag is set together with the create: as [`TokenClass::S`], but only
    /// a later sweep guarantees that at most one stays.
    T,
    /// Neither token nor tag at create: never sent again, an operator decides.
    N,
}

impl TokenClass {
    /// The letter pages and rows show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::K => "K",
            Self::S => "S",
            Self::T => "T",
            Self::N => "N",
        }
    }
}

impl fmt::Display for TokenClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a driver can do, as data: asked before any call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// What a repeated create does.
    pub class: TokenClass,
    /// Longest time one call may take before its outcome counts as unknown.
    pub t_call: Duration,
    /// How long a signed request stays acceptable to the provider after it was signed; zero where it never ends
    /// (class T) or does not matter (class K).
    pub t_sig: Duration,
    /// Longest time between the acceptance of a request and its effect.
    pub t_land: Duration,
    /// Longest time until an effect is visible to a look.
    pub t_vis: Duration,
    /// How long a token is remembered (`R_tok`); zero outside class K.
    pub token_kept: Duration,
    /// Whether servers can be stopped and started again.
    pub start_stop: bool,
    /// Whether servers can be frozen in memory.
    pub pause: bool,
    /// Largest accepted user data in bytes.
    pub max_user_data: usize,
    /// Longest accepted server name in characters.
    pub max_name: usize,
}

impl Capabilities {
    /// Q: after this long, an absent resource of an unanswered create stays absent (classes S and T, the latter as
    /// far as it can be said). The sum in this order: visibility counts only after old signatures have died.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        self.t_call.saturating_add(self.t_sig).saturating_add(self.t_land).saturating_add(self.t_vis)
    }
}

/// The credential of one call; borrowed, so that it lives no longer than the lease it came from.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// Public half.
    pub access_key: &'a str,
    /// Secret half.
    pub secret: &'a Secret,
}

/// For whom and where a call is made.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    /// Account number at the provider.
    pub account_number: &'a str,
    /// Region's name at the provider.
    pub region: &'a str,
    /// Who signs.
    pub credential: Credential<'a>,
    /// Longest time the call may take; afterwards the driver answers [`CallError::Unknown`].
    pub limit: Duration,
}

/// A create, complete and resolved. It is stored with the attempt before the first send; every resend uses the
/// stored one, so that the bytes are equal.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaunchRequest {
    /// The client token, made from job, step and variant.
    pub token: String,
    /// The tag that names job and step.
    pub tag: String,
    /// Name of the server.
    pub name: String,
    /// Product's name at the provider.
    pub product: String,
    /// Image's name at the provider.
    pub image: String,
    /// Data centre's name at the provider.
    pub data_center: String,
    /// User data; may hold a one-time secret.
    #[serde(with = "user_data_text")]
    pub user_data: Option<Vec<u8>>,
    /// Key pair's name at the provider.
    pub keypair: Option<String>,
}

impl fmt::Debug for LaunchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchRequest")
            .field("tag", &self.tag)
            .field("name", &self.name)
            .field("product", &self.product)
            .field("image", &self.image)
            .field("data_center", &self.data_center)
            .field("user_data_bytes", &self.user_data.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// User data as base64 text, so that a stored request stays small.
mod user_data_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(data: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        data.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| STANDARD.decode(text).map_err(D::Error::custom)).transpose()
    }
}

/// A server as a look at the cloud shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// The provider's id.
    pub id: String,
    /// State at the time of the look.
    pub state: ServerStatus,
    /// Our tag, where it carries one.
    pub tag: Option<String>,
    /// Name.
    pub name: String,
    /// Product's name at the provider.
    pub product: String,
    /// Image's name at the provider.
    pub image: String,
    /// Data centre's name at the provider.
    pub data_center: String,
    /// Address inside the cloud.
    pub private_ip: Option<String>,
    /// Address from outside.
    pub public_ip: Option<String>,
    /// When the provider made it.
    pub launched_at: Micros,
    /// The provider's own words for the state, kept as evidence; at most 4 KiB, never with user data.
    pub raw: String,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Definite: the provider said no (or was never reached) and nothing was done.
    #[error("cloud refused the call ({class}, {code}): {text}")]
    Refused {
        /// Decides whether another try is worth it.
        class: ErrorClass,
        /// The provider's code.
        code: String,
        /// The provider's text.
        text: String,
        /// How long the provider asks to wait, where it says so.
        retry_after: Option<Duration>,
    },
    /// Time-out, cut connection or a fault after the request was sent: it may have been done, or may yet be.
    #[error("outcome of the call is unknown: {text}")]
    Unknown {
        /// What was seen.
        text: String,
    },
}

impl CallError {
    /// A refusal without a time to wait.
    pub fn refused(class: ErrorClass, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Refused { class, code: code.into(), text: text.into(), retry_after: None }
    }

    /// An unknown outcome.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self::Unknown { text: text.into() }
    }

    /// The class for retry decisions.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Refused { class, .. } => *class,
            Self::Unknown { .. } => ErrorClass::Unknown,
        }
    }

    /// How long the provider asks to be left alone, where it says so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unknown { .. } => None,
        }
    }

    /// Whether it is certain that nothing was done.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// A driver. The object may be shared between threads; a future it returns stays on the thread that made it.
///
/// Errors of every method are [`CallError`]s. Dropping a future mid-call leaves the outcome unknown: the effect may
/// or may not come.
#[async_trait(?Send)]
pub trait Provider: Send + Sync {
    /// Name of the driver, for texts and metrics.
    fn name(&self) -> &str;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Asks whether the provider accepts the credential for the account; changes nothing.
    async fn check(&self, context: &CallContext<'_>) -> Result<(), CallError>;

    /// Makes a server. In class K the same token with an equal request gives the server made before; with another
    /// request it is refused as [`ErrorClass::Conflict`].
    async fn launch(&self, context: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError>;

    /// Looks at one server. `None`: the provider shows no such server, which proves nothing before
    /// [`Capabilities::t_vis`] has passed since it was made. A terminated server is shown as such for a while.
    async fn machine(&self, context: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError>;

    /// All servers with exactly this tag, terminated ones included as long as the provider shows them.
    async fn find_by_tag(&self, context: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError>;

    /// All servers whose tag begins with the prefix; an empty prefix also lists servers without a tag.
    async fn list(&self, context: &CallContext<'_>, tag_prefix: &str) -> Result<Vec<Machine>, CallError>;

    /// Starts a stopped or paused server; nothing to do where it runs.
    async fn start(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError>;

    /// Stops a server; nothing to do where it is stopped.
    async fn stop(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError>;

    /// Freezes a running server; refused where [`Capabilities::pause`] is false.
    async fn pause(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError>;

    /// Destroys a server; nothing to do where it is gone already.
    async fn terminate(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError>;
}

/// The drivers of this process, by cloud.
#[derive(Clone, Default)]
pub struct Clouds(BTreeMap<CloudId, Arc<dyn Provider>>);

impl Clouds {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the driver of a cloud.
    pub fn insert(&mut self, cloud: CloudId, provider: Arc<dyn Provider>) {
        self.0.insert(cloud, provider);
    }

    /// The driver of a cloud.
    #[must_use]
    pub fn get(&self, cloud: CloudId) -> Option<Arc<dyn Provider>> {
        self.0.get(&cloud).cloned()
    }

    /// All clouds with their drivers, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (CloudId, &Arc<dyn Provider>)> {
        self.0.iter().map(|(id, provider)| (*id, provider))
    }
}

impl fmt::Debug for Clouds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(id, provider)| (id.0, provider.name()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, LaunchRequest, TokenClass};
    use std::time::Duration;

    #[test]
    fn quiet_time_is_the_sum_of_all_four() {
        let secs = Duration::from_secs;
        let capabilities = Capabilities {
            class: TokenClass::S,
            t_call: secs(60),
            t_sig: secs(300),
            t_land: secs(7),
            t_vis: secs(60),
            token_kept: Duration::ZERO,
            start_stop: true,
            pause: false,
            max_user_data: 16_384,
            max_name: 64,
        };
        assert_eq!(capabilities.quiet(), secs(427));
    }

    #[test]
    fn a_stored_request_comes_back_byte_equal_and_debug_hides_secrets() {
        let request = LaunchRequest {
            token: "tok-123".into(),
            tag: "dispatcher-job=1.launch".into(),
            name: "web".into(),
            product: "m1.small".into(),
            image: "img".into(),
            data_center: "dc".into(),
            user_data: Some(b"hidden \xff".to_vec()),
            keypair: None,
        };
        let text = serde_json::to_string(&request).expect("plain data");
        let back: LaunchRequest = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back, request);
        assert_eq!(serde_json::to_string(&back).expect("plain data"), text);
        let shown = format!("{request:?}");
        assert!(!shown.contains("hidden") && !shown.contains("tok-123"), "{shown}");
    }
}

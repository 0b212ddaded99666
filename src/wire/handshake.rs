//! The one call a guest makes: who it is, and what it gets back.

use std::net::SocketAddr;

use crate::model::{AgentId, CustomerId, Micros, ServerId};

/// Where the handshake is posted, below the dispatcher's agent URL.
///
/// 200 carries a [`HandshakeAnswer`]; 401 is refused
/// for good; 409 means the token is bound to another key; 503 with `Retry-After` means not known yet, come again.
pub const HANDSHAKE_PATH: &str = "/agent/handshake";

/// What the guest says.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandshakeRequest {
    /// The one-time enrolment token; left out by a guest that already has a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Signing request for the guest's key, PEM. Its common name repeats `address`, so that only the holder of the key
    /// can move an agent to another address.
    pub csr_pem: String,
    /// Where the agent listens.
    pub address: SocketAddr,
    /// The guest's name at its cloud, where it knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// See [`super::AGENT_VERSION`].
    pub agent_version: i64,
    /// Operating system and processor, such as `linux/x86_64`.
    pub platform: String,
}

// The token is a secret until it is used up: it must not reach a log by way of a debug print.
impl std::fmt::Debug for HandshakeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeRequest")
            .field("token", &self.token.as_ref().map(|_| "[hidden]"))
            .field("address", &self.address)
            .field("instance_id", &self.instance_id)
            .field("agent_version", &self.agent_version)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

/// What the dispatcher answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandshakeAnswer {
    /// The agent's number.
    pub agent_id: AgentId,
    /// The tenant.
    pub customer_id: CustomerId,
    /// The server this guest is.
    pub server_id: ServerId,
    /// Its name.
    pub server_name: String,
    /// The guest's certificate, PEM.
    pub cert_pem: String,
    /// When the certificate ends, in the dispatcher's clock.
    pub expires_at: Micros,
    /// How long it is good from now, in seconds; a guest whose clock is wrong renews by this.
    pub valid_secs: u64,
}

//! The roles a process can have.

use crate::crypto::pki;
use crate::model::InvalidWord;

/// What a process of its own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Console, APIs, job actors, sessions with guests.
    Serve,
    /// Looks at clouds.
    Monitor,
    /// Decides what needs no cloud.
    Worker,
    /// Heartbeats of guests.
    Pinger,
    /// The key manager.
    Km,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Serve, Self::Monitor, Self::Worker, Self::Pinger, Self::Km];

    /// The word of its command, its folder of keys and its row.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Monitor => "monitor",
            Self::Worker => "worker",
            Self::Pinger => "pinger",
            Self::Km => "km",
        }
    }

    /// The URI its certificate names; none where it shows no certificate to anybody.
    #[must_use]
    pub const fn uri(self) -> Option<&'static str> {
        match self {
            Self::Serve => Some(pki::DISPATCHER_ROLE),
            Self::Monitor => Some(pki::MONITOR_ROLE),
            Self::Worker => None,
            Self::Pinger => Some(pki::PINGER_ROLE),
            Self::Km => Some(pki::KEY_MANAGER_ROLE),
        }
    }

    /// The symmetric keys it works with.
    #[must_use]
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Serve => &[INSTALL, SEAL, CHANNEL],
            Self::Monitor => &[CHANNEL],
            Self::Worker | Self::Pinger => &[],
            Self::Km => &[KEK, CHANNEL],
        }
    }
}

/// Makes tokens of creates, and what else must be the same on all nodes.
pub(super) const INSTALL: &str = "install.key";
/// Seals what rows hold.
pub(super) const SEAL: &str = "seal.key";
/// Seals what dispatcher and key manager say to each other.
pub(super) const CHANNEL: &str = "channel.key";
/// Seals credentials.
pub(super) const KEK: &str = "kek.key";

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| InvalidWord {
            found: text.chars().take(64).collect(),
            of: "role",
            allowed: Self::ALL.map(Self::as_str).join(", "),
        })
    }
}

//! What can be asked for: the kinds of jobs with their parameters.

use std::fmt;
use std::str::FromStr;

use super::{
    AccountId, BillingCodeId, CloudId, DataCenterId, GroupId, ImageId, JobId, JobUid, ProductId, RegionId,
    ServerId,
};

/// Kind of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobKind {
    /// Does nothing outside; for checks and measurements.
    Noop,
    /// Makes a server at a cloud.
    LaunchServer,
    /// Destroys a server.
    TerminateServer,
    /// Starts a stopped server.
    StartServer,
    /// Stops a server.
    StopServer,
    /// Freezes a server.
    PauseServer,
    /// Runs a command on a guest through its agent.
    RunCommand,
    /// Waits for other jobs that were accepted with it: its children.
    Group,
    /// Destroys a server that turned up after its job had ended; submitted by the janitor only.
    TakeBack,
}

/// Text that names no job kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a job kind; known kinds: {1}")]
pub struct InvalidKind(String, String);

impl JobKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Noop,
        Self::LaunchServer,
        Self::TerminateServer,
        Self::StartServer,
        Self::StopServer,
        Self::PauseServer,
        Self::RunCommand,
        Self::Group,
        Self::TakeBack,
    ];

    /// Whether it changes the state of an existing server, so that such jobs must follow one another.
    #[must_use]
    pub const fn moves_server(self) -> bool {
        matches!(self, Self::TerminateServer | Self::StartServer | Self::StopServer | Self::PauseServer)
    }

    /// The word rows and APIs show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::LaunchServer => "launch-server",
            Self::TerminateServer => "terminate-server",
            Self::StartServer => "start-server",
            Self::StopServer => "stop-server",
            Self::PauseServer => "pause-server",
            Self::RunCommand => "run-command",
            Self::Group => "group",
            Self::TakeBack => "take-back",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobKind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            InvalidKind(text.chars().take(64).collect(), known.join(", "))
        })
    }
}

/// Kind and parameters of a job, resolved: every id in it was checked against its tenant before it was accepted.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", content = "params")]
#[expect(
    clippy::large_enum_variant,
    reason = "one a job, moved rarely; a box would only make it harder to match"
)]
pub enum JobParams {
    /// See [`JobKind::Noop`].
    #[serde(rename = "noop")]
    Noop(NoopParams),
    /// See [`JobKind::LaunchServer`].
    #[serde(rename = "launch-server")]
    LaunchServer(LaunchParams),
    /// See [`JobKind::TerminateServer`].
    #[serde(rename = "terminate-server")]
    TerminateServer(ServerParams),
    /// See [`JobKind::StartServer`].
    #[serde(rename = "start-server")]
    StartServer(ServerParams),
    /// See [`JobKind::StopServer`].
    #[serde(rename = "stop-server")]
    StopServer(ServerParams),
    /// See [`JobKind::PauseServer`].
    #[serde(rename = "pause-server")]
    PauseServer(ServerParams),
    /// See [`JobKind::RunCommand`].
    #[serde(rename = "run-command")]
    RunCommand(CommandParams),
    /// See [`JobKind::Group`].
    #[serde(rename = "group")]
    Group(GroupParams),
    /// See [`JobKind::TakeBack`].
    #[serde(rename = "take-back")]
    TakeBack(TakeBackParams),
}

impl JobParams {
    /// The kind these parameters belong to.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Noop(_) => JobKind::Noop,
            Self::LaunchServer(_) => JobKind::LaunchServer,
            Self::TerminateServer(_) => JobKind::TerminateServer,
            Self::StartServer(_) => JobKind::StartServer,
            Self::StopServer(_) => JobKind::StopServer,
            Self::PauseServer(_) => JobKind::PauseServer,
            Self::RunCommand(_) => JobKind::RunCommand,
            Self::Group(_) => JobKind::Group,
            Self::TakeBack(_) => JobKind::TakeBack,
        }
    }

    /// The existing server the job is about, if any.
    #[must_use]
    pub const fn server(&self) -> Option<ServerId> {
        match self {
            Self::Noop(_) | Self::LaunchServer(_) | Self::Group(_) | Self::TakeBack(_) => None,
            Self::TerminateServer(p) | Self::StartServer(p) | Self::StopServer(p) | Self::PauseServer(p) => {
                Some(p.server)
            }
            Self::RunCommand(p) => Some(p.server),
        }
    }
}

/// Parameters of [`JobKind::Noop`].
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoopParams {
    /// Free text, kept with the job.
    #[serde(default)]
    pub note: String,
}

/// Parameters of [`JobKind::LaunchServer`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LaunchParams {
    /// Name of the server.
    pub name: String,
    /// Description of the server.
    pub description: String,
    /// Account that pays and whose credential is used.
    pub account: AccountId,
    /// The account's cloud.
    pub cloud: CloudId,
    /// Region of the data centre.
    pub region: RegionId,
    /// Where it is made.
    pub data_center: DataCenterId,
    /// The data centre's name at the provider.
    pub provider_data_center: String,
    /// Size.
    pub product: ProductId,
    /// The size's name at the provider.
    pub provider_product: String,
    /// Image it boots from.
    pub image: ImageId,
    /// The image's name at the provider.
    pub provider_image: String,
    /// The image's platform, such as `UBUNTU`.
    pub platform: String,
    /// The image's architecture, `I32` or `I64`.
    pub architecture: String,
    /// Billing code.
    pub budget: BillingCodeId,
    /// Colour or icon.
    pub label: Option<String>,
    /// Name of a key pair at the provider.
    pub keypair: Option<String>,
    /// The client's user data, sealed because it may hold a secret; base64. See [`LaunchParams::USER_DATA`].
    pub sealed_user_data: Option<String>,
    /// Groups that own the server.
    pub groups: Vec<GroupId>,
}

impl LaunchParams {
    /// Purpose under which user data is sealed before a job is stored.
    pub const USER_DATA: &'static str = "job.user-data";
}

/// Parameters of the kinds that act on one existing server.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerParams {
    /// The server.
    pub server: ServerId,
    /// Why, in a person's words.
    #[serde(default)]
    pub reason: String,
}

/// Parameters of [`JobKind::RunCommand`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The guest.
    pub server: ServerId,
    /// Program and arguments, handed over as they are: no shell.
    pub argv: Vec<String>,
    /// Longest run in seconds, after which the guest ends it.
    pub timeout_secs: u32,
}

/// Parameters of [`JobKind::Group`]. The children themselves are rows.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupParams {
    /// How many children it has.
    pub children: u32,
    /// How many of them may be open at the same time; none for all.
    pub together: Option<u32>,
    /// Whether no further child begins once one has not ended complete.
    pub stop_on_failure: bool,
    /// The group of which it takes up what did not end complete.
    pub retry_of: Option<JobId>,
}

/// Parameters of [`JobKind::TakeBack`]: what is destroyed has no row of its own.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeBackParams {
    /// The provider's id of the server.
    pub resource: String,
    /// Where it is.
    pub region: RegionId,
    /// The tag by which it was found.
    pub tag: String,
    /// The job that left it behind.
    pub left_by: JobUid,
}

#[cfg(test)]
mod tests {
    use super::{JobKind, JobParams, ServerParams};
    use crate::model::ServerId;

    #[test]
    fn kinds_and_parameters_keep_their_words() {
        for kind in JobKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        let params = JobParams::StopServer(ServerParams { server: ServerId(7), reason: String::new() });
        let json = serde_json::to_value(&params).expect("plain data");
        assert_eq!(json["kind"], "stop-server");
        assert_eq!(serde_json::from_value::<JobParams>(json).expect("its own text"), params);
    }
}

//! The message as it travels: one JSON object around a body, read strictly and never believed. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Nudge;
use crate::model::{AccountId, Epoch, JobUid, Micros, ServerId, Uid, Verdict, WatchKind, WatchUid};

/// The only schema that is read and written.
pub const SCHEMA: &str = "dispatcher.message/1";
/// Largest message in bytes; the raw evidence of a verdict must fit.
pub const LARGEST: usize = 256 * 1024;
/// Longest name of a verdict's source.
const LONGEST_SOURCE: usize = 48;
/// Longest sentence of a verdict.
const LONGEST_TEXT: usize = 4096;

/// A message. Unknown fields are ignored, so that the same schema may grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// [`SCHEMA`].
    pub schema: String,
    /// Random name of this message; a redelivery has the same.
    pub message_id: Uid,
    /// What it is; for hints also the routing key.
    pub kind: String,
    /// The job's uid, where there is one.
    #[serde(default)]
    pub job_id: Option<String>,
    /// The job's epoch when it was written; says how old the message is and fences nothing.
    #[serde(default)]
    pub epoch: Option<i64>,
    /// The cloud account's number.
    #[serde(default)]
    pub account_id: Option<i64>,
    /// Microseconds since 1970.
    pub issued_at: i64,
    /// W3C trace context; the trace is named by the job's uid.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// What the kind needs.
    pub body: Value,
}

/// What an envelope says besides kind and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    at: Micros,
    job: Option<JobUid>,
    epoch: Option<i64>,
    account: Option<AccountId>,
}

impl Head {
    /// Of a message about no job.
    #[must_use]
    pub const fn new(at: Micros) -> Self {
        Self { at, job: None, epoch: None, account: None }
    }

    /// Of a message about a job.
    #[must_use]
    pub const fn of_job(at: Micros, job: JobUid, epoch: i64, account: AccountId) -> Self {
        Self { at, job: Some(job), epoch: Some(epoch), account: Some(account) }
    }
}

/// Body of a message that says a watch is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchBody {
    /// Names the watch; a verdict repeats it.
    pub watch_id: WatchUid,
    /// What is looked at.
    pub target: String,
    /// What must be seen.
    pub expectation: String,
    /// No look after.
    pub deadline: Micros,
}

/// A verdict from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The watch it is about.
    pub watch: WatchUid,
    /// The job it claims to be about, if it names one.
    pub job: Option<JobUid>,
    /// Who says it, as evidence shows it; never the name of a part of this house.
    pub source: String,
    /// What was seen.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
    /// The raw answer.
    pub raw: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VerdictBody {
    watch_id: WatchUid,
    source: String,
    verdict: String,
    text: String,
    #[serde(default)]
    raw: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerBody {
    server_id: i64,
}

/// What a message means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A row waits.
    Nudge(Nudge),
    /// Somebody saw something.
    Verdict(Box<Said>),
    /// Proof that the queue has a reader.
    Canary,
}

/// Why a message is refused; it goes to the dead letters with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is larger than any message may be.
    #[error("oversized: {0} bytes, more than {LARGEST}")]
    Oversized(usize),
    /// It is no envelope.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A schema of another version.
    #[error("unknown schema {0:?}; this reads {SCHEMA}")]
    Schema(String),
    /// A kind nobody here knows.
    #[error("unknown kind {0:?}")]
    Kind(String),
    /// It does not belong to the queue it was in.
    #[error("misplaced: queue {0} carries no such messages")]
    Misplaced(&'static str),
    /// Its body is not what its kind needs.
    #[error("malformed body of {kind}: {text}")]
    Body {
        /// The kind.
        kind: String,
        /// What is wrong.
        text: String,
    },
}

/// The kind, and routing key, of a hint.
pub(super) const fn kind_of(nudge: Nudge) -> &'static str {
    match nudge {
        Nudge::Job(_) => "job.due",
        Nudge::Cancel(_) => "job.cancel",
        Nudge::Reported(_) => "work.reported",
        Nudge::Guest(_) => "guest.command",
        Nudge::Watch(WatchKind::Cloud, _) => "watch.cloud",
        Nudge::Watch(WatchKind::Guest, _) => "watch.guest",
        Nudge::Watch(WatchKind::Noop, _) => "watch.noop",
        Nudge::Watch(WatchKind::Children, _) => "watch.children",
    }
}

impl Envelope {
    /// The message of a hint about a job or a guest.
    #[must_use]
    pub fn of_nudge(head: Head, nudge: Nudge) -> Self {
        let body = match nudge {
            Nudge::Guest(server) => json!({ "serverId": server.0 }),
            Nudge::Watch(_, uid) => json!({ "watchId": uid.to_string() }),
            Nudge::Job(_) | Nudge::Cancel(_) | Nudge::Reported(_) => json!({}),
        };
        Self::new(head, kind_of(nudge), body)
    }

    /// The message that a watch is open.
    #[must_use]
    pub fn of_watch(head: Head, kind: WatchKind, body: &WatchBody) -> Self {
        let value = serde_json::to_value(body).unwrap_or_default();
        Self::new(head, kind_of(Nudge::Watch(kind, body.watch_id)), value)
    }

    /// The message that goes through a queue and back.
    #[must_use]
    pub fn canary(at: Micros) -> Self {
        Self::new(Head::new(at), "canary", json!({}))
    }

    fn new(head: Head, kind: &str, body: Value) -> Self {
        let message_id = Uid::random();
        // The trace is the job's; without one the message is its own.
        let trace = head.job.map_or(message_id, |job| job.0);
        let span: String = Uid::random().to_string().chars().take(16).collect();
        Self {
            schema: SCHEMA.to_owned(),
            message_id,
            kind: kind.to_owned(),
            job_id: head.job.map(|job| job.to_string()),
            epoch: head.epoch,
            account_id: head.account.map(|account| account.0),
            issued_at: head.at.0,
            traceparent: Some(format!("00-{trace}-{span}-01")),
            body,
        }
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> String {
        // A struct of texts and numbers cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the outer object.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > LARGEST {
            return Err(Refused::Oversized(bytes.len()));
        }
        // The schema first: a later version may look different in everything else.
        let value: Value = serde_json::from_slice(bytes).map_err(|e| Refused::Malformed(e.to_string()))?;
        match value.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => return Err(Refused::Schema(other.chars().take(64).collect())),
            None => return Err(Refused::Malformed("it names no schema".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| Refused::Malformed(e.to_string()))
    }

    fn job(&self) -> Result<JobUid, Refused> {
        let named = self.job_id.as_deref().and_then(|text| text.parse().ok());
        named.ok_or_else(|| self.bad(&"it names no job"))
    }

    fn bad(&self, text: &impl ToString) -> Refused {
        Refused::Body { kind: self.kind.clone(), text: text.to_string() }
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refused> {
        T::deserialize(&self.body).map_err(|e| self.bad(&e))
    }

    fn content(&self) -> Result<Content, Refused> {
        let watch = |kind| Ok(Nudge::Watch(kind, self.read::<WatchName>()?.watch_id));
        let nudge = match self.kind.as_str() {
            "job.due" => Nudge::Job(self.job()?),
            "job.cancel" => Nudge::Cancel(self.job()?),
            "work.reported" => Nudge::Reported(self.job()?),
            "guest.command" => Nudge::Guest(ServerId(self.read::<ServerBody>()?.server_id)),
            "watch.cloud" => watch(WatchKind::Cloud)?,
            "watch.guest" => watch(WatchKind::Guest)?,
            "watch.noop" => watch(WatchKind::Noop)?,
            "verdict" => return self.said().map(|said| Content::Verdict(Box::new(said))),
            "canary" => return Ok(Content::Canary),
            other => return Err(Refused::Kind(other.chars().take(64).collect())),
        };
        Ok(Content::Nudge(nudge))
    }

    fn said(&self) -> Result<Said, Refused> {
        let body: VerdictBody = self.read()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
        if body.source.is_empty() || body.source.len() > LONGEST_SOURCE || !body.source.chars().all(plain) {
            return Err(self.bad(&"source must be 1 to 48 letters, digits and ._-/@"));
        }
        if body.text.len() > LONGEST_TEXT {
            return Err(self.bad(&"text must have at most 4096 bytes; longer evidence belongs into raw"));
        }
        let verdict = match body.verdict.as_str() {
            "reached" => Verdict::Reached,
            "failed" => Verdict::Failed,
            "lost" => Verdict::Lost,
            "unknown" => Verdict::Unknown,
            _ => return Err(self.bad(&"verdict must be reached, failed, lost or unknown")),
        };
        let job = match &self.job_id {
            Some(_) => Some(self.job()?),
            None => None,
        };
        Ok(Said {
            watch: body.watch_id,
            job,
            // Nobody outside can speak as a monitor, an agent or a person of this house.
            source: format!("queue/{}", body.source),
            verdict,
            text: body.text,
            raw: body.raw,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchName {
    watch_id: WatchUid,
}

/// Reads a message.
///
/// # Errors
/// [`Refused`] says why it is not one.
pub fn decode(bytes: &[u8]) -> Result<Content, Refused> {
    decode_dated(bytes).map(|(content, _)| content)
}

/// Reads a message, and the epoch of its job when it was written, where it says so.
///
/// # Errors
/// [`Refused`] says why it is not one.
pub fn decode_dated(bytes: &[u8]) -> Result<(Content, Option<Epoch>), Refused> {
    let envelope = Envelope::parse(bytes)?;
    Ok((envelope.content()?, envelope.epoch.map(Epoch)))
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;

//! Rows as the native API shows them. Never the sealed request of an attempt, nor sealed user data.

use serde_json::{Map, Value, json};

use crate::jobs::timeline::{self, Entry};
use crate::model::{JobParams, Micros};
use crate::store::provisioning::agent::AgentRow;
use crate::store::provisioning::job::{Attempt, Evidence, History, Job};
use crate::store::provisioning::server::ServerRow;
use crate::supervision::{KindSnapshot, Snapshot};

fn time(at: Option<Micros>) -> Option<String> {
    at.map(Micros::rfc3339)
}

/// A job's row.
#[must_use]
pub fn job(job: &Job) -> Value {
    json!({
        "id": job.id,
        "uid": job.uid,
        "kind": job.params.kind().as_str(),
        "params": params(&job.params),
        "description": job.description,
        "state": job.state,
        "status": job.state.public(),
        "why": { "code": job.why_code, "text": job.why },
        "message": job.message,
        "server": job.server,
        "resource": job.resource,
        "parent": job.parent,
        "account": job.account,
        "person": job.person,
        "request": job.request,
        "priority": job.priority,
        "epoch": job.epoch,
        "owner": job.owner,
        "round": job.try_no,
        "cancelBy": job.cancel_by,
        "createdAt": job.created_at.rfc3339(),
        "claimedAt": time(job.claimed_at),
        "changedAt": job.changed_at.rfc3339(),
        "dueAt": time(job.due_at),
        "deadline": job.deadline.rfc3339(),
        "endedAt": time(job.ended_at),
        "version": job.version,
    })
}

/// Parameters with names in camel case; user data only as "there is some".
pub(super) fn params(params: &JobParams) -> Value {
    let stored = serde_json::to_value(params).unwrap_or_default();
    let Some(Value::Object(fields)) = stored.get("params") else { return json!({}) };
    let shown: Map<String, Value> = fields
        .iter()
        .map(|(name, value)| match name.as_str() {
            "sealed_user_data" => ("userData".to_owned(), json!(!value.is_null())),
            name => (camel(name), value.clone()),
        })
        .collect();
    Value::Object(shown)
}

fn camel(name: &str) -> String {
    let mut up = false;
    name.chars().fold(String::new(), |mut done, c| {
        if c == '_' {
            up = true;
        } else {
            done.push(if std::mem::take(&mut up) { c.to_ascii_uppercase() } else { c });
        }
        done
    })
}

/// A job with all that belongs to it.
#[must_use]
pub fn history(history: &History) -> Value {
    let mut shown = job(&history.job);
    if let Some(fields) = shown.as_object_mut() {
        let entries: Vec<Value> = timeline::timeline(history).iter().map(entry).collect();
        fields.insert("timeline".to_owned(), Value::Array(entries));
        fields.insert("attempts".to_owned(), history.attempts.iter().map(attempt).collect());
        fields.insert("evidence".to_owned(), history.evidence.iter().map(evidence).collect());
    }
    shown
}

/// A line of a timeline.
#[must_use]
pub fn entry(entry: &Entry) -> Value {
    json!({ "at": entry.at.rfc3339(), "what": entry.what, "text": entry.text, "detail": entry.detail })
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "uid": attempt.uid,
        "step": attempt.step,
        "variant": attempt.variant,
        "round": attempt.try_no,
        "n": attempt.n,
        "epoch": attempt.epoch,
        "token": attempt.token.chars().take(8).collect::<String>(),
        "lease": attempt.lease,
        "outcome": attempt.outcome,
        "class": attempt.class,
        "evidence": attempt.evidence,
        "startedAt": attempt.started_at.rfc3339(),
        "closedAt": time(attempt.closed_at),
    })
}

fn evidence(seen: &Evidence) -> Value {
    json!({
        "subject": seen.subject,
        "source": seen.source,
        "verdict": seen.verdict,
        "text": seen.text,
        "raw": seen.raw,
        "at": seen.made_at.rfc3339(),
    })
}

/// A server.
#[must_use]
pub fn server(row: &ServerRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "status": row.status,
        "resource": row.provider_id,
        "account": row.account,
        "cloud": row.cloud,
        "region": row.region,
        "dataCenter": row.data_center,
        "product": row.product,
        "image": row.image,
        "platform": row.platform,
        "architecture": row.architecture,
        "agentVersion": row.agent_version,
        "budget": row.budget,
        "label": row.label,
        "privateIp": row.private_ip,
        "publicIp": row.public_ip,
        "startedAt": Micros(row.started_at).rfc3339(),
        "stoppedAt": time(row.stopped_at.map(Micros)),
        "terminateAfter": time(row.terminate_after.map(Micros)),
        "lastContact": time(row.last_contact.map(Micros)),
        "busyBy": row.busy_by,
        "madeBy": row.job,
    })
}

/// A guest's agent; of its secrets nothing, not even their hashes.
#[must_use]
pub fn agent(row: &AgentRow) -> Value {
    json!({
        "id": row.id,
        "server": row.server,
        "state": row.state,
        "address": row.address,
        "version": row.version,
        "platform": row.platform,
        "instance": row.instance,
        "session": row.session_no,
        "enrolledAt": time(row.enrolled_at.map(Micros)),
        "expiresAt": time(row.expires_at.map(Micros)),
        "lastContact": time(row.last_contact.map(Micros)),
        "madeBy": row.job,
        "madeAt": Micros(row.made_at).rfc3339(),
    })
}

/// An actor of this process.
#[must_use]
pub fn actor(actor: &Snapshot) -> Value {
    json!({
        "kind": actor.kind,
        "key": actor.key,
        "state": actor.state,
        "mailbox": actor.mailbox,
        "oldestSince": time(actor.oldest),
        "message": actor.message.as_ref().map(|(name, since)| json!({ "name": name, "since": since.rfc3339() })),
        "restartsInWindow": actor.restarts_in_window,
        "restartBudget": actor.budget,
        "restartWindowSeconds": actor.window_secs,
        "restarts": actor.restarts,
        "lastPanic": actor.last_panic,
        "incarnation": actor.incarnation,
        "startedAt": actor.started_at.rfc3339(),
        "arbiter": actor.arbiter,
        "parent": actor.parent,
    })
}

/// All actors of one kind together.
#[must_use]
pub fn kind(kind: &KindSnapshot) -> Value {
    json!({
        "kind": kind.kind,
        "count": kind.count,
        "ill": kind.ill,
        "deepestMailbox": kind.deepest,
        "oldestSince": time(kind.oldest),
        "restarts": kind.restarts,
        "panics": kind.panics,
        "handled": kind.handled,
        "handlerP99Micros": kind.p99_us,
    })
}

#[cfg(test)]
mod tests {
    use super::{camel, history};
    use crate::jobs::timeline::samples;

    #[test]
    fn a_job_shows_its_story_and_no_secret() {
        let shown = history(&samples::launch());
        assert_eq!(shown["timeline"].as_array().expect("a list").len(), 7);
        assert_eq!(shown["attempts"][0]["outcome"], "ok");
        assert_eq!((&shown["state"], &shown["status"]), (&"awaiting".into(), &"RUNNING".into()));
        assert!(!shown.to_string().contains("secret"), "{shown}");
        assert_eq!(camel("provider_data_center"), "providerDataCenter");
    }
}

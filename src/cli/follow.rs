//! Asking for a job and following it: sent once however often the line breaks, then watched to its end.

use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::client::{Client, Error};
use super::jobs::{self, duration, text};
use crate::model::Uid;

/// Sends of one request before giving up; the idempotency key makes them one.
const SENDS: u32 = 3;

/// What may be said of any job, and how it is followed.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Follow {
    /// Makes repeats of this command one job; made up where absent
    #[arg(long, global = true, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// How long to put the job off, such as 90s, 10m, 2h
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(super) delay: Option<Duration>,
    /// How long the job may take from its start, such as 90s, 10m, 2h
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
    /// Larger runs first, -100 to 100
    #[arg(long, global = true, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-100..=100))]
    pub(super) priority: Option<i32>,
    /// Show the timeline until the job has ended
    #[arg(long, global = true)]
    pub(super) wait: bool,
    /// Longest wait, such as 90s, 10m, 2h
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, requires = "wait")]
    pub(super) timeout: Option<Duration>,
}

/// A job that was asked for.
pub(super) struct Asked {
    /// Its number.
    pub(super) id: i64,
    /// What the process ends with.
    pub(super) code: u8,
}

impl Follow {
    /// The body with what is said of the job.
    fn with(&self, body: Value) -> Value {
        let mut fields = match body {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.extend(self.deadline.map(|limit| ("deadlineSeconds".to_owned(), json!(limit.as_secs()))));
        fields.extend(self.delay.map(|delay| ("delaySeconds".to_owned(), json!(delay.as_secs()))));
        fields.extend(self.priority.map(|priority| ("priority".to_owned(), json!(priority))));
        Value::Object(fields)
    }

    /// Asks for a job at `path` and shows it, to its end where that is wished.
    pub(super) async fn ask(
        &self,
        client: &Client,
        (path, body): (&str, Value),
        as_json: bool,
        out: &mut dyn Write,
    ) -> Result<Asked, Error> {
        let key = self.idempotency_key.clone().unwrap_or_else(|| Uid::random().to_string());
        let job = once(client, path, &self.with(body), &key).await?;
        let Some(id) = job.get("id").and_then(Value::as_i64) else {
            return Err(client.broken("the job has no number".to_owned()));
        };
        if self.wait {
            let code = jobs::watch(client, (id, self.timeout), as_json, out).await?;
            return Ok(Asked { id, code });
        }
        if as_json {
            jobs::json(out, &job)?;
        } else {
            let what = text(&job, "description");
            writeln!(out, "job {id} accepted: {what}; watch it with \"dispatcher jobs watch {id}\"")?;
        }
        Ok(Asked { id, code: 0 })
    }
}

/// Sends until somebody answers: the same key makes it one.
pub(super) async fn once(client: &Client, path: &str, body: &Value, key: &str) -> Result<Value, Error> {
    let mut sent = 1;
    loop {
        match client.post(path, body, Some(key)).await {
            Err(error)
                if sent < SENDS
                    && matches!(error, Error::Broken { .. } | Error::Refused { status: 503, .. }) =>
            {
                tokio::time::sleep(Duration::from_millis(500) * sent).await;
                sent += 1;
            }
            Err(Error::Broken { url, text }) => {
                let text = format!("{text}; it may be done or not: repeat it with --idempotency-key {key}");
                return Err(Error::Broken { url, text });
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Follow;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn terms_join_the_body() {
        let follow =
            Follow { deadline: Some(Duration::from_secs(60)), priority: Some(-3), ..Follow::default() };
        assert_eq!(
            follow.with(json!({"reason": "r"})),
            json!({"reason": "r", "deadlineSeconds": 60, "priority": -3})
        );
        let follow = Follow { delay: Some(Duration::from_secs(600)), ..Follow::default() };
        assert_eq!(follow.with(json!({})), json!({"delaySeconds": 600}));
        assert_eq!(Follow::default().with(json!(null)), json!({}));
    }
}

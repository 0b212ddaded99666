//! Follows a command on a guest: what it writes comes as it comes, and the process ends as the command did.

use std::io::Write;
use std::time::Duration;

use actix_web::http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::client::{Client, Error};
use super::jobs::text;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Looks that may fail in a row before it gives up.
const CUTS: u32 = 20;
/// Bytes asked for at once.
const WINDOW: usize = 64 * 1024;
/// What the process ends with when the command did not run to an end that is known.
const NO_END: u8 = 125;
/// Added to the number of the signal that ended a command, as shells do.
const SIGNAL: u8 = 128;

/// A stream, read up to a byte.
struct Tail {
    stream: &'static str,
    from: u64,
}

impl Tail {
    /// Copies what is stored beyond what was copied before.
    async fn copy(&mut self, client: &Client, id: i64, out: &mut dyn Write) -> Result<(), Error> {
        loop {
            let (stream, from) = (self.stream, self.from);
            let path = format!("/api/v1/jobs/{id}/output?stream={stream}&from={from}&limit={WINDOW}");
            let bytes = client.bytes(Method::GET, &path, None, None).await?;
            if bytes.is_empty() {
                return Ok(out.flush()?);
            }
            out.write_all(&bytes)?;
            self.from = from.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
    }
}

/// Copies both streams of a job's command until the job has ended, and says what the process ends with.
pub(super) async fn follow(
    client: &Client,
    id: i64,
    timeout: Option<Duration>,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    let begun = Instant::now();
    let mut tails = [Tail { stream: "stdout", from: 0 }, Tail { stream: "stderr", from: 0 }];
    let (mut cuts, mut state) = (0, "open".to_owned());
    loop {
        match round(client, id, &mut tails, out).await {
            Ok((now, true)) => {
                log::debug!("job {id} is {now}");
                return end(client, id).await;
            }
            Ok((now, false)) => (state, cuts) = (now, 0),
            Err(error) if error.is_passing() && cuts < CUTS => cuts += 1,
            Err(error) => return Err(error),
        }
        if let Some(limit) = timeout.filter(|limit| begun.elapsed() >= *limit) {
            let limit = format!("{} s", limit.as_secs());
            return Err(Error::TimeOut { id: id.to_string(), state, limit });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks whether the job has ended, then copies: what was written before the end is stored before it.
async fn round(
    client: &Client,
    id: i64,
    tails: &mut [Tail; 2],
    out: &mut dyn Write,
) -> Result<(String, bool), Error> {
    let state = text(&client.get(&format!("/api/v1/jobs/{id}/why")).await?, "state");
    let [stdout, stderr] = tails;
    stdout.copy(client, id, out).await?;
    stderr.copy(client, id, &mut std::io::stderr()).await?;
    let ended = matches!(state.as_str(), "complete" | "failed" | "cancelled" | "unresolved");
    Ok((state, ended))
}

/// What the process ends with after the job of a command ended.
pub(super) async fn end(client: &Client, id: i64) -> Result<u8, Error> {
    let job = client.get(&format!("/api/v1/jobs/{id}")).await?;
    if let Some(code) = code_of(&job) {
        return Ok(code);
    }
    let text = format!(
        "dispatcher: job {id} is {}: {}; see \"dispatcher jobs show {id}\"\n",
        text(&job, "state"),
        text(&job, "message")
    );
    std::io::stderr().write_all(text.as_bytes())?;
    Ok(NO_END)
}

/// The command's own exit code, or that of its signal, as its guest told it.
fn code_of(job: &Value) -> Option<u8> {
    if job.get("state").and_then(Value::as_str) == Some("complete") {
        return Some(0);
    }
    let seen = job.get("evidence").and_then(Value::as_array)?;
    let told = seen.iter().rev().find(|seen| seen.get("source").and_then(Value::as_str) == Some("agent"))?;
    let raw: Value = serde_json::from_str(told.get("raw")?.as_str()?).ok()?;
    let outcome = raw.get("outcome")?;
    let number = |field: &str| outcome.get(field).and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok());
    number("exit_code").or_else(|| number("signal").map(|signal| SIGNAL.saturating_add(signal)))
}

#[cfg(test)]
mod tests {
    use super::code_of;
    use serde_json::{Value, json};

    fn job(outcome: &Value) -> Value {
        let raw = json!({ "outcome": outcome }).to_string();
        json!({"state": "failed", "evidence": [{"source": "worker/x", "raw": ""}, {"source": "agent", "raw": raw}]})
    }

    #[test]
    fn it_ends_as_the_command_did() {
        assert_eq!(code_of(&job(&json!({"outcome": "done", "exit_code": 7, "signal": null}))), Some(7));
        assert_eq!(code_of(&job(&json!({"outcome": "done", "exit_code": null, "signal": 9}))), Some(137));
        assert_eq!(code_of(&job(&json!({"outcome": "interrupted"}))), None);
        assert_eq!(code_of(&json!({"state": "complete"})), Some(0));
        assert_eq!(code_of(&json!({"state": "failed", "evidence": []})), None);
    }
}

//! The driver that calls a cloud in another process.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use awc::error::{ConnectError, SendRequestError};
use awc::http::Uri;
use awc::http::header::HeaderValue;
use tokio::time::{Instant, sleep, timeout};

use super::wire::{
    Answer, Ask, CALL, CAPABILITIES, Call, KEY_HEADER, LONGEST_ANSWER, LONGEST_CALL, SIGNATURE_HEADER,
    Signed, TERMS_HEADER, TIME_HEADER, sign, terms_of,
};
use crate::cloud::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider};
use crate::model::{ErrorClass, Micros};

/// Connections of one thread; further calls wait within their limits.
const CONNECTIONS: usize = 256;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept, and any: well below what the server keeps.
const IDLE: Duration = Duration::from_secs(30);
const LIFE: Duration = Duration::from_secs(90);
/// Longest wait for the cloud's capabilities, and the pause before they are asked for again.
const ASKED: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Most of a foreign text that is shown.
const SHOWN: usize = 200;

thread_local! {
    /// The client of this thread with its kept connections; it cannot move to another.
    static HTTP: awc::Client = {
        let connector = awc::Connector::new()
            .limit(CONNECTIONS)
            .timeout(CONNECT)
            .conn_keep_alive(IDLE)
            .conn_lifetime(LIFE);
        awc::Client::builder().connector(connector).disable_redirects().disable_timeout().finish()
    };
}

/// Why a cloud cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoCloud {
    /// The address is of another kind.
    #[error("\"{url}\" {text}; write http://127.0.0.1:PORT, as the ready file of the simulated cloud says")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        text: String,
    },
    /// Nobody answers there, or not as a cloud would.
    #[error("no cloud answers at {url}: {text}; start one with \"dispatcher simulated-cloud\"")]
    NoAnswer {
        /// The address.
        url: String,
        /// What came instead.
        text: String,
    },
}

/// A simulated cloud that is a process of its own.
#[derive(Debug)]
pub struct Remote {
    call: Uri,
    capabilities: Capabilities,
    terms: String,
}

impl Remote {
    /// Asks the cloud at this address, which is plain HTTP on loopback, what it can do. Waits so long for a cloud that
    /// is just starting. Needs an actix runtime, as every call does.
    ///
    /// # Errors
    /// [`NoCloud`] with the remedy.
    pub async fn connect(url: &str, patience: Duration) -> Result<Self, NoCloud> {
        let base = checked(url)?;
        let place = |path: &str| {
            format!("{base}{path}")
                .parse::<Uri>()
                .map_err(|error| NoCloud::Url { url: url.to_owned(), text: error.to_string() })
        };
        let (call, asked) = (place(CALL)?, place(CAPABILITIES)?);
        let until = Instant::now() + patience;
        loop {
            let answer = timeout(ASKED, capabilities_at(&asked)).await;
            let text = match answer.unwrap_or_else(|_late| Err("nothing came in time".to_owned())) {
                Ok(capabilities) => {
                    return Ok(Self { call, terms: terms_of(&capabilities), capabilities });
                }
                Err(text) => text,
            };
            if Instant::now() >= until {
                return Err(NoCloud::NoAnswer { url: url.to_owned(), text });
            }
            sleep(PAUSE).await;
        }
    }

    /// Makes one call within the limit of its context.
    async fn ask(&self, context: &CallContext<'_>, ask: Ask) -> Result<Answer, CallError> {
        let call = Call {
            account: context.account_number.to_owned(),
            region: context.region.to_owned(),
            limit_ms: u64::try_from(context.limit.as_millis()).unwrap_or(u64::MAX),
            ask,
        };
        let malformed = |text: String| CallError::refused(ErrorClass::Bug, "MalformedRequest", text);
        let body = serde_json::to_vec(&call).map_err(|error| malformed(error.to_string()))?;
        if body.len() > LONGEST_CALL {
            return Err(malformed(format!("the call has {} bytes, more than {LONGEST_CALL}", body.len())));
        }
        let answer = timeout(context.limit, self.exchange(context, body)).await;
        match answer.unwrap_or_else(|_late| {
            Err(CallError::unknown(format!("no answer within {:?}", context.limit)))
        })? {
            Answer::Refused { class, code, text, retry_after } => {
                Err(CallError::Refused { class, code, text, retry_after })
            }
            Answer::Unknown { text } => Err(CallError::unknown(text)),
            answer => Ok(answer),
        }
    }

    async fn exchange(&self, context: &CallContext<'_>, body: Vec<u8>) -> Result<Answer, CallError> {
        let credential = context.credential;
        let access_key = HeaderValue::from_str(credential.access_key).map_err(|_unfit| {
            let text = "the access key has characters that no cloud knows";
            CallError::refused(ErrorClass::Auth, "AuthFailure", text)
        })?;
        let signed_at = Micros::wall().millis().to_string();
        let signature = sign(
            credential.secret.expose(),
            &Signed {
                method: "POST",
                path: CALL,
                access_key: credential.access_key,
                signed_at: &signed_at,
                terms: &self.terms,
                body: &body,
            },
        );
        let request = HTTP
            .with(|http| http.post(&self.call))
            .insert_header((KEY_HEADER, access_key))
            .insert_header((TIME_HEADER, signed_at))
            .insert_header((TERMS_HEADER, self.terms.as_str()))
            .insert_header((SIGNATURE_HEADER, signature))
            .content_type("application/json");
        let mut answer = request.send_body(body).await.map_err(|error| outcome_of(&error))?;
        let body = answer
            .body()
            .limit(LONGEST_ANSWER)
            .await
            .map_err(|error| CallError::unknown(format!("the answer broke off: {error}")))?;
        serde_json::from_slice(&body).map_err(|error| {
            let status = answer.status();
            CallError::unknown(format!(
                "status {status} with an answer that is none ({error}): {}",
                shown(&body)
            ))
        })
    }

    /// A call whose answer has nothing in it.
    async fn done(&self, context: &CallContext<'_>, ask: Ask) -> Result<(), CallError> {
        match self.ask(context, ask).await? {
            Answer::Done => Ok(()),
            other => Err(odd(&other)),
        }
    }

    /// A call whose answer is a list.
    async fn found(&self, context: &CallContext<'_>, ask: Ask) -> Result<Vec<Machine>, CallError> {
        match self.ask(context, ask).await? {
            Answer::Found(machines) => Ok(machines),
            other => Err(odd(&other)),
        }
    }
}

/// The address without a slash at its end, if it is plain HTTP on loopback: what a new guest is told travels openly.
fn checked(url: &str) -> Result<&str, NoCloud> {
    let bad = |text: &str| NoCloud::Url { url: url.to_owned(), text: text.to_owned() };
    let uri: Uri = url.parse().map_err(|_invalid| bad("is no address"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_local = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    match (uri.scheme_str(), is_local, uri.path()) {
        (Some("http"), true, "" | "/") => Ok(url.trim_end_matches('/')),
        (Some("http"), true, _) => Err(bad("has a path")),
        (Some("http"), false, _) => Err(bad("is not on this machine")),
        _ => Err(bad("is not plain HTTP")),
    }
}

async fn capabilities_at(place: &Uri) -> Result<Capabilities, String> {
    let request = HTTP.with(|http| http.get(place));
    let mut answer = request.send().await.map_err(|error| error.to_string())?;
    let body = answer.body().limit(LONGEST_CALL).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| format!("{error}: {}", shown(&body)))
}

/// What is known about a request without an answer. A connection that was not made is definite. "Disconnected" is
/// not: that is a connection which ended after the request went out.
fn outcome_of(error: &SendRequestError) -> CallError {
    let text = error.to_string();
    match error {
        SendRequestError::Connect(
            ConnectError::Io(_)
            | ConnectError::Timeout
            | ConnectError::Resolver(_)
            | ConnectError::NoRecords
            | ConnectError::Unresolved,
        )
        | SendRequestError::Url(_) => CallError::refused(ErrorClass::Transient, "Unreachable", text),
        _ => CallError::unknown(format!("after the request was sent: {text}")),
    }
}

fn odd(answer: &Answer) -> CallError {
    CallError::unknown(format!("an answer to another question: {}", shown(format!("{answer:?}").as_bytes())))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[async_trait(?Send)]
impl Provider for Remote {
    fn name(&self) -> &str {
        "simulated"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, context: &CallContext<'_>) -> Result<(), CallError> {
        self.done(context, Ask::Check).await
    }

    async fn launch(&self, context: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError> {
        match self.ask(context, Ask::Launch(Box::new(request.clone()))).await? {
            Answer::Made(machine) => Ok(*machine),
            other => Err(odd(&other)),
        }
    }

    async fn machine(&self, context: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        match self.ask(context, Ask::Machine(id.to_owned())).await? {
            Answer::Seen(machine) => Ok(machine.map(|machine| *machine)),
            other => Err(odd(&other)),
        }
    }

    async fn find_by_tag(&self, context: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError> {
        self.found(context, Ask::FindByTag(tag.to_owned())).await
    }

    async fn list(&self, context: &CallContext<'_>, tag_prefix: &str) -> Result<Vec<Machine>, CallError> {
        self.found(context, Ask::List(tag_prefix.to_owned())).await
    }

    async fn start(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.done(context, Ask::Start(id.to_owned())).await
    }

    async fn stop(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.done(context, Ask::Stop(id.to_owned())).await
    }

    async fn pause(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.done(context, Ask::Pause(id.to_owned())).await
    }

    async fn terminate(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.done(context, Ask::Terminate(id.to_owned())).await
    }
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn only_plain_http_on_this_machine_is_an_address() {
        for good in ["http://127.0.0.1:80", "http://127.0.0.1:80/", "http://[::1]:9", "http://localhost:1"] {
            checked(good).expect("an address");
        }
        for (bad, why) in [
            ("http://10.0.0.1:80", "this machine"),
            ("https://127.0.0.1:80", "plain HTTP"),
            ("http://127.0.0.1:80/cloud", "path"),
            ("127.0.0.1:80", "plain HTTP"),
            ("http://", "address"),
            ("", "address"),
        ] {
            let error = checked(bad).expect_err(bad).to_string();
            assert!(error.contains(why) && error.contains("http://127.0.0.1:PORT"), "{error}");
        }
    }
}

//! Client of the native API: where the dispatcher is, with which key, signed requests, answers, streams.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, Uri};
use awc::error::SendRequestError;
use serde_json::Value;

use crate::access::signature::native;
use crate::crypto::Secret;
use crate::model::{Micros, Uid};

/// Longest answer taken.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
/// Longest wait for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong, with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// It was begun and cannot be finished.
    #[error("{0}")]
    Failed(String),
    /// A file of settings cannot be used.
    #[error("{what} {path} cannot be read; check that it exists and belongs to you")]
    File {
        /// What the file is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of settings is not what it should be.
    #[error("{what} {path} is not usable: {text}")]
    Content {
        /// What the file is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// Nobody answers.
    #[error("no answer from {url}: {text}; start one with \"dispatcher dev\", or give --url or --ready-file")]
    Connect {
        /// The address tried.
        url: String,
        /// Why.
        text: String,
    },
    /// The answer broke off.
    #[error("the answer from {url} broke off: {text}; run the same command again")]
    Broken {
        /// The address tried.
        url: String,
        /// Why.
        text: String,
    },
    /// The dispatcher said no.
    #[error("{text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said, with its remedy.
        text: String,
    },
    /// The terminal or the pipe is gone.
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
    /// `--timeout` is over; the job goes on.
    #[error(
        "job {id} is still {state} after {limit}; it goes on, watch it with \"dispatcher jobs watch {id}\""
    )]
    TimeOut {
        /// The job.
        id: String,
        /// Its state.
        state: String,
        /// The limit, for people.
        limit: String,
    },
}

impl Error {
    /// What the process ends with: 2 usage, 5 time-out, 6 not there, 7 nobody answers, 1 everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::TimeOut { .. } => 5,
            Self::Refused { status: 404, .. } => 6,
            Self::Connect { .. } | Self::Broken { .. } => 7,
            _ => 1,
        }
    }

    /// Whether the same request may pass a moment later.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Broken { .. } | Self::Refused { status: 503, .. })
    }
}

/// Where the dispatcher is and with which key. Secrets come from files or the environment, never from arguments.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// Address of the dispatcher, such as <http://127.0.0.1:3302> [env: `DISPATCHER_URL`]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Access key [env: `DISPATCHER_ACCESS_KEY`; its secret: `DISPATCHER_SECRET_KEY`]
    #[arg(long, global = true, value_name = "KEY")]
    pub access_key: Option<String>,
    /// File with the secret of the access key, which only you may read
    #[arg(long, global = true, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Ready file of "dispatcher dev", which holds all three
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["url", "access_key", "secret_key_file"])]
    pub ready_file: Option<PathBuf>,
    /// Certificates (PEM) trusted for an https address
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Found {
    url: Option<String>,
    #[serde(alias = "accessKey")]
    access_key: Option<String>,
    #[serde(alias = "secretKey")]
    secret_key: Option<String>,
    #[serde(alias = "secretKeyFile")]
    secret_key_file: Option<PathBuf>,
    #[serde(alias = "caFile")]
    ca_file: Option<PathBuf>,
}

fn read(what: &'static str, path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { what, path: path.to_owned(), source })
}

impl Found {
    fn of_ready_file(path: &Path) -> Result<Self, Error> {
        let what = "ready file";
        let text = read(what, path)?;
        serde_json::from_str(&text).map_err(|e| Error::Content {
            what,
            path: path.to_owned(),
            text: e.to_string(),
        })
    }

    fn of_client_file(path: &Path) -> Result<Self, Error> {
        let what = "client file";
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = read(what, path)?;
        toml::from_str(&text).map_err(|e| Error::Content {
            what,
            path: path.to_owned(),
            text: e.message().to_owned(),
        })
    }
}

/// `$XDG_CONFIG_HOME/dispatcher/client.toml`, or below `~/.config`.
fn client_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let base = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("dispatcher/client.toml"))
}

/// One key at one dispatcher.
pub struct Client {
    base: String,
    host: String,
    key: String,
    secret: Secret,
    http: awc::Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Target {
    /// A client for this target: a ready file alone, else arguments before environment before the client file.
    ///
    /// # Errors
    /// When something is missing or a file cannot be read; the text names the remedy.
    pub fn client(&self) -> Result<Client, Error> {
        self.resolve(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Client, Error> {
        let found = match &self.ready_file {
            Some(path) => Found::of_ready_file(path)?,
            None => {
                client_file(env).map_or_else(|| Ok(Found::default()), |path| Found::of_client_file(&path))?
            }
        };
        let env = |name: &str| if self.ready_file.is_some() { None } else { env(name) };
        let url = self.url.clone().or_else(|| env("DISPATCHER_URL")).or(found.url);
        let key = self.access_key.clone().or_else(|| env("DISPATCHER_ACCESS_KEY")).or(found.access_key);
        let missing = |what: &str| {
            Error::Usage(format!(
                "{what} is missing; give --ready-file, or --url, --access-key and --secret-key-file, or set \
                 DISPATCHER_URL, DISPATCHER_ACCESS_KEY and DISPATCHER_SECRET_KEY"
            ))
        };
        let secret = match (&self.secret_key_file, env("DISPATCHER_SECRET_KEY"), found.secret_key) {
            (Some(path), _, _) => read("secret key file", path)?.trim().to_owned(),
            (None, Some(secret), _) | (None, None, Some(secret)) => secret,
            (None, None, None) => match &found.secret_key_file {
                Some(path) => read("secret key file", path)?.trim().to_owned(),
                None => return Err(missing("the secret key")),
            },
        };
        let ca_file = self.ca_file.clone().or(found.ca_file);
        Client::new(
            &url.ok_or_else(|| missing("the address"))?,
            key.ok_or_else(|| missing("the access key"))?,
            Secret::from(secret),
            ca_file.as_deref(),
        )
    }
}

impl Client {
    /// A client of one node.
    ///
    /// # Errors
    /// When the address is none, or the certificates cannot be read.
    pub(super) fn new(url: &str, key: String, secret: Secret, ca_file: Option<&Path>) -> Result<Self, Error> {
        let bad =
            |why: &str| Error::Usage(format!("address \"{url}\" {why}; give one like http://127.0.0.1:3302"));
        let uri: Uri = url.parse().map_err(|e| bad(&format!("is no URL ({e})")))?;
        let host = uri.authority().ok_or_else(|| bad("names no host"))?.to_string();
        let connector = match (uri.scheme_str(), ca_file) {
            (Some("http"), _) => awc::Connector::new(),
            (Some("https"), Some(path)) => awc::Connector::new().rustls_0_23(trusting(path)?),
            (Some("https"), None) => return Err(bad("is https and needs --ca-file")),
            _ => return Err(bad("is neither http nor https")),
        };
        let http = awc::Client::builder().connector(connector).disable_redirects().disable_timeout().finish();
        Ok(Self { base: url.trim_end_matches('/').to_owned(), host, key, secret, http })
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As `Client::send`.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.json(Method::GET, path, None, None).await
    }

    /// Sends a write with its idempotency key.
    ///
    /// # Errors
    /// As `Client::send`.
    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Value, Error> {
        self.json(Method::POST, path, Some(body.to_string()), key).await
    }

    /// Takes a resource away.
    ///
    /// # Errors
    /// As `Client::send`.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.bytes(Method::DELETE, path, None, None).await.map(|_| ())
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Result<Value, Error> {
        let bytes = self.bytes(method, path, body, key).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.broken(format!("it is no JSON: {e}")))
    }

    /// Reads raw bytes.
    ///
    /// # Errors
    /// As `Client::send`.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        let mut answer = self.send(method, path, body, key).await?;
        let body = tokio::time::timeout(PATIENCE, answer.body().limit(LONGEST_ANSWER)).await;
        match body {
            Ok(Ok(bytes)) => Ok(bytes.to_vec()),
            Ok(Err(e)) => Err(self.broken(e.to_string())),
            Err(_) => Err(self.broken("it did not end in time".to_owned())),
        }
    }

    /// Opens a stream of events from `path`, after the event `last`.
    pub(super) async fn events(&self, path: &str, last: Option<&str>) -> Result<Answer, Error> {
        let mut request = self.request(Method::GET, path, b"")?;
        request = request.insert_header(("accept", "text/event-stream"));
        if let Some(last) = last {
            request = request.insert_header(("last-event-id", last));
        }
        self.head(request.send()).await
    }

    /// Sends one signed request.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers, [`Error::Refused`] with the dispatcher's words.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Result<Answer, Error> {
        let body = body.unwrap_or_default();
        let mut request = self.request(method, path, body.as_bytes())?;
        if let Some(key) = key {
            request = request.insert_header(("idempotency-key", key));
        }
        if !body.is_empty() {
            request = request.insert_header(("content-type", "application/json"));
        }
        self.head(request.send_body(body)).await
    }

    fn request(&self, method: Method, path: &str, body: &[u8]) -> Result<awc::ClientRequest, Error> {
        let (raw_path, query) = path.split_once('?').unwrap_or((path, ""));
        let nonce = Uid::random().to_string();
        let now = Micros::wall().millis();
        let parts = native::Parts {
            method: method.as_str(),
            path: raw_path,
            query,
            body,
            host: &self.host,
            timestamp_ms: now,
            nonce: &nonce,
            key_id: &self.key,
        };
        let signature = native::sign(self.secret.expose(), &parts);
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|e| Error::Usage(format!("\"{path}\" cannot be part of an address: {e}")))?;
        Ok(self
            .http
            .request(method, uri)
            .insert_header(("host", self.host.as_str()))
            .insert_header((native::KEY_HEADER, self.key.as_str()))
            .insert_header((native::TIMESTAMP_HEADER, now.to_string()))
            .insert_header((native::NONCE_HEADER, nonce))
            .insert_header((native::SIGNATURE_HEADER, signature)))
    }

    async fn head(&self, sending: awc::SendClientRequest) -> Result<Answer, Error> {
        let answer = match tokio::time::timeout(PATIENCE, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(SendRequestError::Connect(e))) => return Err(self.unreachable(e.to_string())),
            Ok(Err(e)) => return Err(self.broken(e.to_string())),
            // The request may have been taken.
            Err(_) => return Err(self.broken(format!("nothing in {} s", PATIENCE.as_secs()))),
        };
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        if let Some(age) = answer.headers().get("x-dispatcher-stale").and_then(|age| age.to_str().ok()) {
            // Beside the answer, which programs may read.
            eprintln!("stale: as it was {age} s ago, because the dispatcher cannot read its rows now");
        }
        Ok(answer)
    }

    fn unreachable(&self, text: String) -> Error {
        Error::Connect { url: self.base.clone(), text }
    }

    pub(super) fn broken(&self, text: String) -> Error {
        Error::Broken { url: self.base.clone(), text }
    }
}

/// An answer whose body was not read yet.
pub(super) type Answer = awc::ClientResponse;

async fn refusal(mut answer: Answer) -> Error {
    let status = answer.status();
    let body = tokio::time::timeout(PATIENCE, answer.body().limit(64 * 1024)).await;
    let said: Value = body
        .ok()
        .and_then(Result::ok)
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let said = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
    let text = said("detail").unwrap_or_else(|| hint(status).to_owned());
    let request = said("requestId").map_or_else(String::new, |id| format!(" (request {id})"));
    Error::Refused {
        status: status.as_u16(),
        text: format!("refused with {}: {text}{request}", status.as_u16()),
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "no such address; check --url, it must be that of a dispatcher",
        503 => "it is too busy; try again in a second",
        500.. => "its own fault; look into its log",
        _ => "no reason given; check --url",
    }
}

fn trusting(path: &Path) -> Result<Arc<rustls::ClientConfig>, Error> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let what = "certificate file";
    let bad = |text: String| Error::Content { what, path: path.to_owned(), text };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(read(what, path)?.as_bytes()) {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::{Error, Target};

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn arguments_win_over_environment_and_what_is_missing_is_named() {
        let all = &[
            ("DISPATCHER_URL", "http://127.0.0.1:1"),
            ("DISPATCHER_ACCESS_KEY", "K"),
            ("DISPATCHER_SECRET_KEY", "S"),
        ];
        let target = Target { url: Some("http://[::1]:2/".to_owned()), ..Target::default() };
        let client = target.resolve(&env(all)).expect("complete");
        assert_eq!(
            (client.base.as_str(), client.host.as_str(), client.key.as_str()),
            ("http://[::1]:2", "[::1]:2", "K")
        );
        assert!(!format!("{client:?}").contains("\"S\""));
        let error = Target::default().resolve(&env(&[])).expect_err("nothing given");
        assert!(matches!(&error, Error::Usage(text) if text.contains("--ready-file")), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_ready_file_is_enough_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ready");
        std::fs::write(&path, r#"{"url":"http://127.0.0.1:9","accessKey":"A","secretKey":"B","pid":1}"#)
            .expect("written");
        let target = Target { ready_file: Some(path.clone()), ..Target::default() };
        assert_eq!(target.resolve(&env(&[("DISPATCHER_URL", "http://other")])).expect("complete").key, "A");
        std::fs::write(&path, "{").expect("written");
        let error = target.resolve(&env(&[])).expect_err("not JSON");
        assert!(error.to_string().contains("ready file"), "{error}");
    }

    #[test]
    fn an_address_without_sense_says_how_one_looks() {
        for url in ["", "nonsense", "ftp://x", "https://x"] {
            let target = Target { url: Some(url.to_owned()), ..Target::default() };
            let known = env(&[("DISPATCHER_ACCESS_KEY", "K"), ("DISPATCHER_SECRET_KEY", "S")]);
            let error = target.resolve(&known).expect_err(url);
            assert!(error.to_string().contains("http://127.0.0.1:3302"), "{error}");
        }
    }

    #[actix_rt::test]
    async fn nobody_there_says_how_to_start_one() {
        let known = env(&[("DISPATCHER_ACCESS_KEY", "K"), ("DISPATCHER_SECRET_KEY", "S")]);
        let target = Target { url: Some("http://127.0.0.1:1".to_owned()), ..Target::default() };
        let error = target.resolve(&known).expect("complete").get("/api/v1/jobs").await.expect_err("port 1");
        assert!(error.to_string().contains("dispatcher dev"), "{error}");
        assert!(error.is_passing());
        assert_eq!(error.exit_code(), 7);
        let refused = |status| Error::Refused { status, text: String::new() }.exit_code();
        assert_eq!((refused(404), refused(409), refused(503)), (6, 1, 1));
    }
}

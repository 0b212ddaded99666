//! A signing client of both APIs, with the crate's own signatures.

use std::time::Duration;

use serde_json::{Value, json};

use dispatcher::access::signature::{dated, native};
use dispatcher::model::{Micros, Uid};

use super::catalogue::Catalogue;
use super::http::{Answer, Http, NoAnswer};
use super::{Ready, wait_for};

/// How long a job may take on a busy machine.
pub(crate) const JOB: Duration = Duration::from_secs(60);
/// What the dated client calls itself; its signature covers it.
const AGENT: &str = "dispatcher-it";
/// A dated version of the contract.
const VERSION: &str = "2013-12-07";

/// One key at one dispatcher, over one connection.
pub(crate) struct Client {
    http: Http,
    key: String,
    secret: String,
}

impl Client {
    pub(crate) fn new(ready: &Ready) -> Self {
        Self { http: Http::new(&ready.url), key: ready.access_key.clone(), secret: ready.secret_key.clone() }
    }

    /// A key at a node.
    pub(crate) fn at(url: &str, key: String, secret: String) -> Self {
        Self { http: Http::new(url), key, secret }
    }

    /// One signed request of the native API.
    pub(crate) fn native(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let more = idempotency_key.map(|key| ("idempotency-key", key.to_owned()));
        self.native_with(method, target, body, more)
    }

    /// The same with any one header more.
    pub(crate) fn native_with(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        more: Option<(&'static str, String)>,
    ) -> Result<Answer, NoAnswer> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (nonce, timestamp_ms) = (Uid::random().to_string(), Micros::wall().millis());
        let parts = native::Parts {
            method,
            path,
            query,
            body: &body,
            host: self.http.host(),
            timestamp_ms,
            nonce: &nonce,
            key_id: &self.key,
        };
        let mut headers = vec![
            (native::SIGNATURE_HEADER, native::sign(self.secret.as_bytes(), &parts)),
            (native::KEY_HEADER, self.key.clone()),
            (native::TIMESTAMP_HEADER, timestamp_ms.to_string()),
            (native::NONCE_HEADER, nonce.clone()),
        ];
        headers.extend(more);
        if !body.is_empty() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        self.http.send(method, target, &headers, &body)
    }

    /// One signed request of the dated API; `resource` is such as `admin/Job/10001`.
    pub(crate) fn dated(
        &mut self,
        method: &str,
        resource: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let target = format!("/api/enstratus/{VERSION}/{resource}");
        let path = target.split('?').next().unwrap_or_default();
        let timestamp = Micros::wall().millis().to_string();
        let parts =
            dated::Parts { access_key: &self.key, method, path, timestamp: &timestamp, user_agent: AGENT };
        let mut headers = vec![
            ("x-esauth-access", self.key.clone()),
            ("x-esauth-timestamp", timestamp.clone()),
            ("x-esauth-signature", dated::sign(self.secret.as_bytes(), &parts)),
            ("User-Agent", AGENT.to_owned()),
            ("Accept", "application/json".to_owned()),
        ];
        headers.extend(idempotency_key.map(|key| ("idempotency-key", key.to_owned())));
        if !body.is_empty() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        self.http.send(method, &target, &headers, &body)
    }

    /// Reads something of the native API that must be there.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Value {
        self.native("GET", target, None, None).expect("an answer").expect(200).json()
    }

    /// Reads something of the dated API that must be there.
    #[track_caller]
    pub(crate) fn get_dated(&mut self, resource: &str) -> Value {
        self.dated("GET", resource, None, None).expect("an answer").expect(200).json()
    }

    /// Submits a job that must be accepted; its number.
    #[track_caller]
    pub(crate) fn submit(&mut self, body: &Value, idempotency_key: Option<&str>) -> i64 {
        let answer = self.native("POST", "/api/v1/jobs", Some(body), idempotency_key);
        number(&answer.expect("an answer").expect(202).json(), "id")
    }

    /// A job as it is now.
    #[track_caller]
    pub(crate) fn job(&mut self, id: i64) -> Value {
        self.get(&format!("/api/v1/jobs/{id}"))
    }

    /// Waits for a job's end.
    #[track_caller]
    pub(crate) fn ended(&mut self, id: i64) -> Value {
        let mut last = Value::Null;
        let found = wait_for_or(JOB, || {
            last = self.job(id);
            is_end(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("job {id} has not ended within {JOB:?}: {last:#}"))
    }

    /// Waits for a job to complete.
    #[track_caller]
    pub(crate) fn completed(&mut self, id: i64) -> Value {
        let job = self.ended(id);
        assert_eq!(job["state"], "complete", "{job:#}");
        job
    }

    /// Launches a server and waits for it; its number.
    #[track_caller]
    pub(crate) fn server(&mut self, name: &str) -> i64 {
        let body = Catalogue::read(self).launch(name);
        let id = self.submit(&body, None);
        let job = self.completed(id);
        number(&job, "server")
    }

    /// Jobs, newest first; `filter` is such as `&state=open`.
    #[track_caller]
    pub(crate) fn jobs(&mut self, filter: &str) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/api/v1/jobs?limit=500{filter}{before}"));
            let jobs = page["jobs"].as_array().expect("a list").clone();
            all.extend(jobs);
            match page["before"].as_i64() {
                Some(id) => before = format!("&before={id}"),
                None => return all,
            }
        }
    }
}

fn wait_for_or<T>(limit: Duration, look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut look = look;
    let deadline = std::time::Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if std::time::Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number in an answer.
#[track_caller]
pub(crate) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_else(|| panic!("no {field} in {value:#}"))
}

/// Whether a job has ended.
pub(crate) fn is_end(job: &Value) -> bool {
    matches!(job["state"].as_str(), Some("complete" | "failed" | "cancelled" | "unresolved"))
}

pub(crate) fn noop(note: &str) -> Value {
    json!({ "kind": "noop", "params": { "note": note } })
}

pub(crate) fn run(server: i64, argv: &[&str]) -> Value {
    json!({ "kind": "run-command", "params": { "server": server, "argv": argv, "timeoutSecs": 30 } })
}

pub(crate) fn terminate(server: i64) -> Value {
    json!({ "kind": "terminate-server", "params": { "server": server, "reason": "test" } })
}

/// Text of a page without a signature, such as the operators' metrics.
#[track_caller]
pub(crate) fn page(url: &str, path: &str) -> Answer {
    let mut http = Http::new(url);
    wait_for(&format!("{url}{path} answers"), Duration::from_secs(10), || {
        http.send("GET", path, &[], b"").ok()
    })
}

//! The handshake: who am I, and the certificate that says so; at each start, and again at two thirds of its life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::home::{Home, Identity, UserData};
use super::{Error, Limits};
use crate::crypto::{Secret, pki};
use crate::ops::Chain;
use crate::wire::{AGENT_VERSION, HANDSHAKE_PATH, HandshakeAnswer, HandshakeRequest};

/// Longest answer read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// For one handshake, connecting included.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Shortest time between two renewals, should the dispatcher hand out certificates of almost no life.
const RENEW_AT_LEAST: Duration = Duration::from_secs(10);

/// What the handshake needs.
pub(super) struct Enrolment<'a> {
    pub(super) home: &'a Home,
    pub(super) user_data: &'a UserData,
    pub(super) key: &'a Secret,
    pub(super) address: SocketAddr,
    /// Where the listener finds who this guest is.
    pub(super) identity: watch::Sender<Option<Identity>>,
}

/// How one handshake went wrong.
enum Trouble {
    /// For good.
    Refused(Error),
    /// For now; the dispatcher may say how long.
    Later { reason: String, after: Option<Duration> },
}

impl Enrolment<'_> {
    /// Keeps this guest enrolled; ends only when it is refused for good.
    pub(super) async fn keep(&self, limits: &Limits) -> Error {
        let mut pause = limits.retry_first;
        let mut turns = Turns::new(&self.user_data.dispatcher);
        loop {
            let url = turns.url();
            match self.once(url).await {
                Ok(answer) => {
                    log::info!("enrolled as agent {} of server {}", answer.agent_id, answer.server_id);
                    pause = limits.retry_first;
                    tokio::time::sleep((Duration::from_secs(answer.valid_secs) * 2 / 3).max(RENEW_AT_LEAST))
                        .await;
                }
                Err(Trouble::Refused(e)) => return e,
                Err(Trouble::Later { reason, after }) => {
                    let round_is_over = after.is_some() || turns.next();
                    let wait = if round_is_over { after.unwrap_or(pause) } else { limits.retry_first };
                    let wait = jittered(wait.min(limits.retry_longest));
                    log::warn!("handshake with {url} failed, next in {wait:?}: {reason}");
                    tokio::time::sleep(wait).await;
                    if round_is_over {
                        pause = (pause * 2).min(limits.retry_longest);
                    }
                }
            }
        }
    }

    async fn once(&self, url: &str) -> Result<HandshakeAnswer, Trouble> {
        let answer = self.ask(url).await?;
        let identity = Identity::new(&answer.cert_pem, self.key, &self.user_data.root).map_err(local)?;
        self.home.keep_cert(&answer.cert_pem).map_err(local)?;
        self.identity.send_replace(Some(identity));
        Ok(answer)
    }

    async fn ask(&self, url: &str) -> Result<HandshakeAnswer, Trouble> {
        let request = HandshakeRequest {
            // Once enrolled the key speaks for itself.
            token: self.user_data.token.clone().filter(|_| self.identity.borrow().is_none()),
            csr_pem: pki::make_request(self.key, &self.address.to_string()).map_err(local)?,
            address: self.address,
            instance_id: self.user_data.instance_id.clone(),
            agent_version: AGENT_VERSION,
            platform: super::platform(),
        };
        let tls = pki::client_config(&self.user_data.root, None).map_err(local)?;
        let connector = awc::Connector::new().rustls_0_23(Arc::new(tls)).timeout(CALL_LIMIT);
        let client = awc::Client::builder().connector(connector).timeout(CALL_LIMIT).finish();
        let url = format!("{}{HANDSHAKE_PATH}", url.trim_end_matches('/'));
        let mut response = client.post(&url).send_json(&request).await.map_err(|e| Trouble::later(&e))?;
        let body = response.body().limit(ANSWER_LIMIT).await.map_err(|e| Trouble::later(&e))?;
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let message = || String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
        match status {
            200 => serde_json::from_slice(&body).map_err(|e| Trouble::later(&e)),
            401 | 409 => Err(Trouble::Refused(Error::Refused { status, message: message() })),
            _ => Err(Trouble::Later { reason: format!("HTTP {status}: {}", message()), after }),
        }
    }
}

/// Whose turn it is among dispatchers that may all answer.
struct Turns<'a> {
    urls: &'a [String],
    at: usize,
}

impl<'a> Turns<'a> {
    const fn new(urls: &'a [String]) -> Self {
        Self { urls, at: 0 }
    }

    fn url(&self) -> &'a str {
        self.urls.get(self.at).map_or("", String::as_str)
    }

    /// The next one's turn; whether all had theirs. One that says when to come again keeps its turn.
    const fn next(&mut self) -> bool {
        self.at += 1;
        if self.at >= self.urls.len() {
            self.at = 0;
        }
        self.at == 0
    }
}

impl Trouble {
    fn later(error: &dyn std::error::Error) -> Self {
        Self::Later { reason: Chain(error).to_string(), after: None }
    }
}

fn local(error: impl Into<Error>) -> Trouble {
    Trouble::later(&error.into())
}

/// Between half and all of a pause, so that guests that were cut off together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without randomness the pause is whole, which only costs the spread.
    let part = getrandom::fill(&mut byte).map_or(255, |()| byte[0]);
    pause / 2 + pause.mul_f64(f64::from(part) / 510.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn every_dispatcher_is_asked_before_the_pause_grows() {
        let urls = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let mut turns = super::Turns::new(&urls);
        let mut asked = Vec::new();
        let rounds: Vec<bool> = (0..6)
            .map(|_| {
                asked.push(turns.url());
                turns.next()
            })
            .collect();
        assert_eq!(asked, ["a", "b", "c", "a", "b", "c"]);
        assert_eq!(rounds, [false, false, true, false, false, true]);
        let alone = ["a".to_owned()];
        assert!(super::Turns::new(&alone).next(), "one is a round of its own");
    }

    #[test]
    fn jitter_keeps_between_half_and_all() {
        let pause = Duration::from_secs(8);
        for _ in 0..100 {
            let jittered = super::jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause + Duration::from_millis(1), "{jittered:?}");
        }
    }
}

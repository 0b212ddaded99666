//! Section `[queue]`: what carries hints between the parts.

use std::path::PathBuf;

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

use super::Error;

/// Where the queue is, and its limits.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `embedded:`, or a RabbitMQ broker: `amqps://user@host/vhost`, plain `amqp://` on loopback only. Never a password.
    pub url: String,
    /// File with the user's password, which only its owner may read. Needed for every user but `guest` on loopback.
    pub password_file: Option<PathBuf>,
    /// File with the certificate authorities, PEM, that sign the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// First word of all names on the broker; installations that share one differ in it.
    pub prefix: String,
    /// Messages each reader may hold unsettled.
    pub prefetch: u16,
    /// Longest wait to connect and to declare.
    pub connect_ms: u64,
    /// Longest wait for the broker's confirm.
    pub confirm_ms: u64,
    /// First pause before the broker is dialled again; doubles.
    pub reconnect_first_ms: u64,
    /// Longest pause.
    pub reconnect_most_ms: u64,
    /// Seconds between heartbeats; a silent broker is noticed after two.
    pub heartbeat_s: u16,
    /// Milliseconds between canaries through each queue.
    pub canary_ms: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            url: Self::EMBEDDED.to_owned(),
            password_file: None,
            ca_file: None,
            prefix: "dispatcher".to_owned(),
            prefetch: 256,
            connect_ms: 5000,
            confirm_ms: 5000,
            reconnect_first_ms: 200,
            reconnect_most_ms: 5000,
            heartbeat_s: 8,
            canary_ms: 10_000,
        }
    }
}

impl Queue {
    /// The address of the queue that is no process of its own.
    pub const EMBEDDED: &str = "embedded:";

    /// Whether rows and hints inside the process are the queue.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.url == Self::EMBEDDED
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let value = |key, value: String, remedy| Err(Error::Value { key, value, remedy });
        let broker = self.url.starts_with("amqp://") || self.url.starts_with("amqps://");
        if !self.is_embedded() && !broker {
            // The text may hold a password by mistake.
            let shown = self.url.split(':').next().unwrap_or_default().chars().take(16).collect();
            return value("queue.url", shown, "write embedded: or amqps://user@host/vhost");
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.prefix.is_empty() || self.prefix.len() > 40 || !self.prefix.chars().all(plain) {
            return value("queue.prefix", self.prefix.clone(), "write 1 to 40 small letters, digits and -");
        }
        if !(1..=9).contains(&self.heartbeat_s) {
            let remedy = "write 1 to 9: a silent broker must be noticed within 20 s";
            return value("queue.heartbeat_s", self.heartbeat_s.to_string(), remedy);
        }
        let times = [self.connect_ms, self.confirm_ms, self.reconnect_first_ms, self.canary_ms];
        if self.prefetch == 0 || times.contains(&0) || self.reconnect_most_ms < self.reconnect_first_ms {
            let remedy = "write at least 1, and reconnect_most_ms not below reconnect_first_ms";
            return value("queue.prefetch and its times", "0".to_owned(), remedy);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn what_cannot_work_is_refused_and_a_wrong_address_is_not_repeated() {
        assert!(Queue::default().check().is_ok());
        let wrong = |change: fn(&mut Queue)| {
            let mut queue = Queue::default();
            change(&mut queue);
            queue.check().expect_err("refused").to_string()
        };
        let shown = wrong(|q| q.url = "http://user:secret@host".into());
        assert!(shown.contains("queue.url") && !shown.contains("secret"), "{shown}");
        assert!(wrong(|q| q.prefix = "A b".into()).contains("queue.prefix"));
        assert!(wrong(|q| q.heartbeat_s = 60).contains("20 s"));
        assert!(wrong(|q| q.reconnect_most_ms = 1).contains("reconnect_most_ms"));
    }
}

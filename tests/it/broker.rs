//! A private RabbitMQ that a test may kill, stop and block: `tests/services/rabbitmq.sh` on a folder and port of its own.

use std::path::PathBuf;
use std::process::Command;

/// Says loudly that there is no RabbitMQ here; with `CI=true` that is a failure.
pub(crate) fn is_here(what: &str) -> bool {
    let here = std::env::var_os("DISPATCHER_TEST_RABBITMQ").is_some();
    if !here {
        eprintln!(
            "SKIPPED: {what}; needs rabbitmq-server, and DISPATCHER_TEST_RABBITMQ=amqp://127.0.0.1:PORT"
        );
        assert!(std::env::var("CI").map_or(true, |ci| ci != "true"), "with CI=true nothing may be skipped");
    }
    here
}

/// One broker.
pub(crate) struct Broker {
    folder: tempfile::TempDir,
    port: u16,
}

impl Broker {
    /// A running one.
    pub(crate) fn started() -> Self {
        let folder = tempfile::Builder::new().prefix("dispatcher-mq-").tempdir().expect("a folder");
        let broker = Self { folder, port: three_free_ports() };
        broker.start();
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// Starts it on what is on its disk.
    #[track_caller]
    pub(crate) fn start(&self) {
        assert!(self.order("start"), "RabbitMQ does not start");
    }

    /// Ends it as a power cut would.
    #[track_caller]
    pub(crate) fn kill(&self) {
        assert!(self.order("kill"), "RabbitMQ is not killed");
    }

    /// Ends it in order.
    #[track_caller]
    pub(crate) fn stop(&self) {
        assert!(self.order("stop"), "RabbitMQ does not stop");
    }

    /// Sets or lifts its memory alarm.
    #[track_caller]
    pub(crate) fn short_of_memory(&self, alarm: bool) {
        assert!(self.order(if alarm { "block" } else { "unblock" }), "RabbitMQ takes no orders");
    }

    fn order(&self, what: &str) -> bool {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services/rabbitmq.sh");
        let status =
            Command::new(script).arg(what).arg(self.folder.path()).arg(self.port.to_string()).status();
        status.expect("the script runs").success()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            eprintln!("--- RabbitMQ ---\n{log}");
        }
        let _stopped = self.order("stop");
    }
}

/// A port whose two companions are free as well, all below those that systems hand out.
fn three_free_ports() -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 2000 + u16::try_from(std::process::id() % 8000).expect("small");
    (first..12_000)
        .find(|&port| free(port) && free(port + 10_000) && free(port + 20_000))
        .expect("three free ports")
}

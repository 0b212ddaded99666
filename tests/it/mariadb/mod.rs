//! A MariaDB server instead of files: links that break, a server that is away, and the whole house on it.
//!
//! Needs a private server, named by `DISPATCHER_TEST_MARIADB` (`tests/services/mariadb.sh`). Without one each test says
//! loudly that it was skipped; with `CI=true` that is a failure.

mod house;
mod outage;
mod store;

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection as _;
use dispatcher::store::{AnyConnection, Manager};

use dispatcher::cli::verify::proxy::Link;

/// Databases of one test, dropped with it, and a link to their server.
pub(crate) struct Server {
    host: String,
    user: String,
    prefix: String,
    proxy: Link,
}

impl Server {
    /// None where no server is given.
    pub(crate) fn given() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var("DISPATCHER_TEST_MARIADB") else {
            eprintln!(
                "SKIPPED: a test on MariaDB; give a private server by DISPATCHER_TEST_MARIADB=mysql://root@host:port"
            );
            assert!(
                std::env::var("CI").map_or(true, |ci| ci != "true"),
                "with CI=true nothing may be skipped"
            );
            return None;
        };
        let place = url.trim_start_matches("mysql://").trim_end_matches('/');
        let (user, host) = place.split_once('@').expect("mysql://user@host:port");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            host: host.to_owned(),
            user: user.to_owned(),
            prefix: format!("dispatcher_it_{}_{number}", std::process::id()),
            proxy: Link::to(host).expect("a free port"),
        })
    }

    /// URL of one of the test's databases, past the link that can be cut.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("mysql://{}@{}/{}_{name}", self.user, self.host, self.prefix)
    }

    /// The same through the link that can be cut.
    pub(crate) fn through(&self, name: &str) -> String {
        format!("mysql://{}@{}/{}_{name}", self.user, self.proxy.address(), self.prefix)
    }

    /// A connection past the link that can be cut.
    pub(crate) fn open(&self, name: &str) -> AnyConnection {
        let manager = Manager::new(&self.url(name)).expect("a URL");
        manager.create().expect("the private server makes databases");
        manager.open().expect("the server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.proxy.down(true);
        let manager = Manager::new(&format!("mysql://{}@{}/information_schema", self.user, self.host));
        let Ok(Ok(mut server)) = manager.map(|manager| manager.open()) else { return };
        for name in ["p", "a", "c"] {
            let order = format!("SET lock_wait_timeout=5; DROP DATABASE IF EXISTS {}_{name}", self.prefix);
            if let Err(error) = server.batch_execute(&order) {
                eprintln!("{}_{name} was not dropped: {error}", self.prefix);
            }
        }
    }
}

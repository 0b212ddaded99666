//! A database of its own for each test: a file, and where a server is given one there, removed afterwards.

use super::Manager;

/// Where a test keeps its rows.
pub(crate) enum Bed {
    /// A file in a folder of its own.
    File(tempfile::TempDir),
    /// A database of the private server.
    #[cfg(feature = "mysql")]
    Server {
        /// URL of the server, without a database.
        prefix: String,
        /// The database.
        name: String,
    },
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        Self::File(tempfile::tempdir().expect("a folder"))
    }

    /// None, said loudly, where no server is given; a failure with `CI=true`.
    #[cfg(feature = "mysql")]
    pub(crate) fn mariadb() -> Option<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Ok(prefix) = std::env::var("DISPATCHER_TEST_MARIADB") else {
            eprintln!(
                "SKIPPED: this test on MariaDB; give a private server by DISPATCHER_TEST_MARIADB=mysql://root@host:port"
            );
            assert!(
                std::env::var("CI").map_or(true, |ci| ci != "true"),
                "with CI=true nothing may be skipped"
            );
            return None;
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dispatcher_unit_{}_{number}", std::process::id());
        let bed = Self::Server { prefix: prefix.trim_end_matches('/').to_owned(), name };
        bed.manager().create().expect("the private server makes databases");
        Some(bed)
    }

    /// Another one of the same kind.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::File(_) => Self::sqlite(),
            #[cfg(feature = "mysql")]
            Self::Server { .. } => Self::mariadb().expect("it was there for the first"),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite://{}/p.db", folder.path().display()),
            #[cfg(feature = "mysql")]
            Self::Server { prefix, name } => format!("{prefix}/{name}"),
        }
    }

    pub(crate) fn manager(&self) -> Manager {
        Manager::new(&self.url()).expect("a url")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        #[cfg(feature = "mysql")]
        if let Self::Server { prefix, name } = self {
            use diesel::connection::SimpleConnection as _;
            let server = Manager::new(&format!("{prefix}/information_schema")).expect("a url").open();
            let dropped = server.map(|mut c| {
                c.batch_execute(&format!("SET lock_wait_timeout=2; DROP DATABASE IF EXISTS {name}"))
            });
            if !matches!(dropped, Ok(Ok(()))) {
                eprintln!("database {name} was not dropped");
            }
        }
    }
}

/// Makes of `async fn name(bed: Bed)` one test on a file and one on a server.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[actix_rt::test]
            async fn $name() {
                super::$name($crate::store::testing::Bed::sqlite()).await;
            })*
        }
        #[cfg(feature = "mysql")]
        mod on_mariadb {
            $(#[actix_rt::test]
            async fn $name() {
                if let Some(bed) = $crate::store::testing::Bed::mariadb() {
                    super::$name(bed).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

//! Connections: chosen by URL scheme, with the session settings that durability and portability need.

#[cfg(feature = "mysql")]
use std::cell::Cell;
use std::path::PathBuf;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::{Connection, QueryResult};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::url::Target;
use super::{Error, InvalidUrl};
#[cfg(feature = "mysql")]
use crate::crypto::Secret;
use crate::model::Micros;
use crate::supervision::Need;

/// A connection to either kind of database.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    /// Embedded.
    Sqlite(diesel::SqliteConnection),
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    Mysql(diesel::MysqlConnection),
}

/// One of the databases, with its migrations.
#[derive(Clone, Copy)]
pub struct Database {
    /// Name in messages.
    pub name: &'static str,
    /// What the process loses when its writer stands still.
    pub(super) need: Need,
    migrations: fn() -> EmbeddedMigrations,
}

/// Jobs, resources, accounts: critical, no secrets.
pub const PROVISIONING: Database = Database {
    name: "provisioning",
    need: Need::Vital,
    migrations: || {
        const SET: EmbeddedMigrations = embed_migrations!("migrations/provisioning");
        SET
    },
};

/// Measurements: not critical.
pub const ANALYTICS: Database = Database {
    name: "analytics",
    need: Need::Spare,
    migrations: || {
        const SET: EmbeddedMigrations = embed_migrations!("migrations/analytics");
        SET
    },
};

/// Sealed credentials: opened by the key manager alone.
pub const CREDENTIALS: Database = Database {
    name: "credentials",
    need: Need::Vital,
    migrations: || {
        const SET: EmbeddedMigrations = embed_migrations!("migrations/credentials");
        SET
    },
};

impl Database {
    /// Applies what is missing.
    ///
    /// # Errors
    /// [`Error::Migration`] with the database's own words.
    pub fn migrate(&self, connection: &mut AnyConnection) -> Result<(), Error> {
        self.harness(connection, |connection, set| match connection {
            AnyConnection::Sqlite(c) => c.run_pending_migrations(set).map(|_| ()),
            #[cfg(feature = "mysql")]
            AnyConnection::Mysql(c) => c.run_pending_migrations(set).map(|_| ()),
        })
    }

    /// Takes every migration back. All data is gone afterwards.
    ///
    /// # Errors
    /// [`Error::Migration`] with the database's own words.
    pub fn revert(&self, connection: &mut AnyConnection) -> Result<(), Error> {
        self.harness(connection, |connection, set| match connection {
            AnyConnection::Sqlite(c) => c.revert_all_migrations(set).map(|_| ()),
            #[cfg(feature = "mysql")]
            AnyConnection::Mysql(c) => c.revert_all_migrations(set).map(|_| ()),
        })
    }

    pub(super) fn set(&self) -> EmbeddedMigrations {
        (self.migrations)()
    }

    fn harness(
        &self,
        connection: &mut AnyConnection,
        run: fn(&mut AnyConnection, EmbeddedMigrations) -> diesel::migration::Result<()>,
    ) -> Result<(), Error> {
        run(connection, self.set()).map_err(|e| Error::Migration { database: self.name, text: e.to_string() })
    }
}

/// Opens connections to one database. The derive of diesel would try each kind in turn and turn a typo into a
/// file, so the scheme decides here.
#[derive(Clone, Debug)]
pub struct Manager {
    target: Target,
    #[cfg_attr(not(feature = "mysql"), expect(dead_code, reason = "only a server has a password"))]
    password_file: Option<PathBuf>,
}

// Waits for a lock end before a thread that stands still is noticed: 4 s against the probe's 5 s. The log is copied into
// the file every 16 MB instead of every 4: pages that change again and again are copied once.
const SQLITE_SESSION: &str = "PRAGMA busy_timeout=4000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
     PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-8000;";
/// A process that stands still in the middle of a transaction holds its locks: MariaDB ends it after 2 s, well before the
/// other lives would be thought dead that wait for those locks. MySQL has no such setting and reads a comment there.
#[cfg(feature = "mysql")]
const MYSQL_SESSION: &str = "SET time_zone='+00:00', innodb_lock_wait_timeout=4, lock_wait_timeout=10, \
     sql_mode=CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES') /*M!100300 , idle_transaction_timeout=2 */; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;";

impl Manager {
    /// Reads a URL: `sqlite:///path/to/file` or `mysql://user:password@host:port/database`.
    ///
    /// # Errors
    /// [`InvalidUrl`] with the remedy.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        Ok(Self { target: Target::parse(url)?, password_file: None })
    }

    /// The same, with the password of a server in a file that only its owner can read. It is read at each opening,
    /// so that a changed password needs no restart.
    #[must_use]
    pub fn with_password_file(self, file: PathBuf) -> Self {
        Self { password_file: Some(file), ..self }
    }

    /// What is opened, without its password.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Whether a server keeps the database, and not this process.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.target, Target::Server { .. })
    }

    /// Opens one connection with its session settings.
    ///
    /// # Errors
    /// [`Error::Connect`] with what the database's own client reports.
    pub fn open(&self) -> Result<AnyConnection, Error> {
        match &self.target {
            Target::File(path) => {
                let mut connection = diesel::SqliteConnection::establish(path).map_err(no_connection)?;
                connection.batch_execute(SQLITE_SESSION).map_err(no_connection)?;
                Ok(AnyConnection::Sqlite(connection))
            }
            #[cfg(feature = "mysql")]
            Target::Server { .. } => self.open_server(&self.url()?),
            #[cfg(not(feature = "mysql"))]
            Target::Server { .. } => {
                Err(no_connection("this build has no MySQL; build with --features mysql"))
            }
        }
    }

    /// Makes the database where a server does not have it; text in it compares byte by byte. A file is made when it
    /// is opened.
    ///
    /// # Errors
    /// [`Error::Connect`] with what the server reports.
    pub fn create(&self) -> Result<(), Error> {
        #[cfg(feature = "mysql")]
        if let Target::Server { name, .. } = &self.target {
            // A user who may not create databases may still find that it is there.
            if self.open().is_ok() {
                return Ok(());
            }
            let url = self.target.with_database("information_schema").url(self.password()?.as_ref());
            let mut connection = self.open_server(&url)?;
            let collation = super::check::collation(&mut connection).map_err(no_connection)?;
            let order =
                format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE {collation}");
            return connection.batch_execute(&order).map_err(no_connection);
        }
        Ok(())
    }

    /// Takes the database away from its server, with everything in it. A file is its owner's to remove.
    ///
    /// # Errors
    /// [`Error::Connect`] with what the server reports.
    pub fn discard(&self) -> Result<(), Error> {
        #[cfg(feature = "mysql")]
        if let Target::Server { name, .. } = &self.target {
            let url = self.target.with_database("information_schema").url(self.password()?.as_ref());
            let order = format!("DROP DATABASE IF EXISTS `{name}`");
            return self.open_server(&url)?.batch_execute(&order).map_err(no_connection);
        }
        Ok(())
    }

    #[cfg(feature = "mysql")]
    #[expect(clippy::unused_self, reason = "the session's settings are the manager's business")]
    fn open_server(&self, url: &Secret) -> Result<AnyConnection, Error> {
        let url = String::from_utf8_lossy(url.expose());
        let mut connection = diesel::MysqlConnection::establish(&url).map_err(no_connection)?;
        connection.batch_execute(MYSQL_SESSION).map_err(no_connection)?;
        Ok(AnyConnection::Mysql(connection))
    }

    #[cfg(feature = "mysql")]
    fn url(&self) -> Result<Secret, Error> {
        Ok(self.target.url(self.password()?.as_ref()))
    }

    #[cfg(feature = "mysql")]
    fn password(&self) -> Result<Option<Secret>, Error> {
        self.password_file.as_deref().map(super::url::password).transpose()
    }
}

fn no_connection(error: impl std::fmt::Display) -> Error {
    Error::Connect(error.to_string())
}

#[cfg(feature = "mysql")]
thread_local! {
    /// The time of the transaction this thread runs, once something of it asked.
    static TIME: Cell<Time> = const { Cell::new(Time::Each) };
}

#[cfg(feature = "mysql")]
#[derive(Clone, Copy)]
enum Time {
    /// Every question goes to the database.
    Each,
    /// The next question's answer is kept for the others.
    Next,
    /// The answer.
    At(Micros),
}

/// While it lives, this thread's writes to a server share one answer to the question what time it is there. Asking
/// costs a round trip, as much as an insert.
pub(crate) struct OneTime(());

impl OneTime {
    pub(crate) fn begin() -> Self {
        #[cfg(feature = "mysql")]
        TIME.set(Time::Next);
        Self(())
    }
}

impl Drop for OneTime {
    fn drop(&mut self) {
        #[cfg(feature = "mysql")]
        TIME.set(Time::Each);
    }
}

impl AnyConnection {
    /// Begins a transaction that may write at once. A plain `BEGIN` on SQLite would fail later, when the read lock
    /// has to become a write lock, and no busy time-out cures that.
    pub(crate) fn begin(&mut self) -> QueryResult<()> {
        match self {
            Self::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
            #[cfg(feature = "mysql")]
            Self::Mysql(c) => AnsiTransactionManager::begin_transaction(c),
        }
    }

    pub(crate) fn commit(&mut self) -> QueryResult<()> {
        <Self as Connection>::TransactionManager::commit_transaction(self)
    }

    pub(crate) fn rollback(&mut self) -> QueryResult<()> {
        <Self as Connection>::TransactionManager::rollback_transaction(self)
    }

    /// Whether a server keeps the rows, and each statement is a round trip.
    pub(crate) const fn is_server(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => true,
        }
    }

    /// Whether a failed commit may have been stored all the same: a server's answer can be lost, a file's cannot.
    pub(crate) const fn commit_may_be_unknown(&self) -> bool {
        self.is_server()
    }

    /// The database's clock, in which rows are written and compared. An embedded database has this process's.
    ///
    /// # Errors
    /// What the database reports.
    pub fn now(&mut self) -> QueryResult<Micros> {
        match self {
            Self::Sqlite(_) => Ok(Micros::wall()),
            #[cfg(feature = "mysql")]
            Self::Mysql(c) => {
                if let Time::At(now) = TIME.get() {
                    return Ok(now);
                }
                let now = server_time(c)?;
                if matches!(TIME.get(), Time::Next) {
                    TIME.set(Time::At(now));
                }
                Ok(now)
            }
        }
    }
}

#[cfg(feature = "mysql")]
fn server_time(connection: &mut diesel::MysqlConnection) -> QueryResult<Micros> {
    use diesel::RunQueryDsl;
    diesel::select(ServerTime).get_result(connection).map(Micros)
}

/// The server's clock in microseconds. An expression of its own, because one made of text is prepared anew each time.
#[cfg(feature = "mysql")]
#[derive(Clone, Copy, Debug, diesel::query_builder::QueryId, diesel::expression::ValidGrouping)]
struct ServerTime;

#[cfg(feature = "mysql")]
impl diesel::Expression for ServerTime {
    type SqlType = diesel::sql_types::BigInt;
}

#[cfg(feature = "mysql")]
impl<QS> diesel::SelectableExpression<QS> for ServerTime {}

#[cfg(feature = "mysql")]
impl<QS> diesel::AppearsOnTable<QS> for ServerTime {}

#[cfg(feature = "mysql")]
impl diesel::query_builder::QueryFragment<diesel::mysql::Mysql> for ServerTime {
    fn walk_ast<'b>(
        &'b self,
        mut out: diesel::query_builder::AstPass<'_, 'b, diesel::mysql::Mysql>,
    ) -> QueryResult<()> {
        out.push_sql("CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)");
        Ok(())
    }
}

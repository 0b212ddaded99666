//! Connections: chosen by URL scheme, with the session settings that durability and portability need.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::r2d2::{ManageConnection, R2D2Connection};
use diesel::{Connection, QueryResult};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Error;
use crate::model::Micros;

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
    migrations: fn() -> EmbeddedMigrations,
}

/// Jobs, resources, accounts: critical, no secrets.
pub const PROVISIONING: Database = Database {
    name: "provisioning",
    migrations: || {
        const SET: EmbeddedMigrations = embed_migrations!("migrations/provisioning");
        SET
    },
};

/// Measurements: not critical.
pub const ANALYTICS: Database = Database {
    name: "analytics",
    migrations: || {
        const SET: EmbeddedMigrations = embed_migrations!("migrations/analytics");
        SET
    },
};

/// Sealed credentials: opened by the key manager alone.
pub const CREDENTIALS: Database = Database {
    name: "credentials",
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

    fn harness(
        &self,
        connection: &mut AnyConnection,
        run: fn(&mut AnyConnection, EmbeddedMigrations) -> diesel::migration::Result<()>,
    ) -> Result<(), Error> {
        run(connection, (self.migrations)())
            .map_err(|e| Error::Migration { database: self.name, text: e.to_string() })
    }
}

/// A database URL nobody can connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database url \"{url}\" is not understood: {remedy}")]
pub struct InvalidUrl {
    url: String,
    remedy: &'static str,
}

/// Opens connections to one database. The derive of diesel would try each kind in turn and turn a typo into a
/// file, so the scheme decides here.
#[derive(Clone, Debug)]
pub struct Manager {
    kind: Kind,
    target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    #[cfg(feature = "mysql")]
    Mysql,
}

/// A pool of connections.
pub type Pool = diesel::r2d2::Pool<Manager>;

// The log is copied into the file every 16 MB instead of every 4: pages that change again and again are copied once.
const SQLITE_SESSION: &str = "PRAGMA busy_timeout=5000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
     PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-8000;";
#[cfg(feature = "mysql")]
const MYSQL_SESSION: &str = "SET time_zone='+00:00', innodb_lock_wait_timeout=5; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;";

impl Manager {
    /// Reads a URL: `sqlite:///path/to/file` or `mysql://user:password@host:port/database`.
    ///
    /// # Errors
    /// [`InvalidUrl`] with the remedy.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        if let Some(path) = url.strip_prefix("sqlite://")
            && !path.is_empty()
        {
            return Ok(Self { kind: Kind::Sqlite, target: path.to_owned() });
        }
        #[cfg(feature = "mysql")]
        if url.starts_with("mysql://") {
            return Ok(Self { kind: Kind::Mysql, target: url.to_owned() });
        }
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let remedy = match scheme {
            "mysql" => "this build has no MySQL; build with --features mysql",
            "sqlite" => "a file path must follow sqlite://",
            _ => "write sqlite:///path/to/file or mysql://user:password@host:port/database",
        };
        Err(InvalidUrl { url: format!("{scheme}://…"), remedy })
    }

    /// Opens one connection with its session settings.
    ///
    /// # Errors
    /// What the database's own client reports.
    pub fn open(&self) -> Result<AnyConnection, diesel::r2d2::Error> {
        use diesel::r2d2::Error::{ConnectionError, QueryError};
        match self.kind {
            Kind::Sqlite => {
                let mut connection =
                    diesel::SqliteConnection::establish(&self.target).map_err(ConnectionError)?;
                connection.batch_execute(SQLITE_SESSION).map_err(QueryError)?;
                Ok(AnyConnection::Sqlite(connection))
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql => {
                let mut connection =
                    diesel::MysqlConnection::establish(&self.target).map_err(ConnectionError)?;
                connection.batch_execute(MYSQL_SESSION).map_err(QueryError)?;
                Ok(AnyConnection::Mysql(connection))
            }
        }
    }
}

impl ManageConnection for Manager {
    type Connection = AnyConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<AnyConnection, diesel::r2d2::Error> {
        self.open()
    }

    fn is_valid(&self, connection: &mut AnyConnection) -> Result<(), diesel::r2d2::Error> {
        connection.ping().map_err(diesel::r2d2::Error::QueryError)
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
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

    /// Whether a failed commit may have been stored all the same: a server's answer can be lost, a file's cannot.
    pub(crate) const fn commit_may_be_unknown(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => true,
        }
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
                use diesel::RunQueryDsl;
                #[derive(diesel::QueryableByName)]
                struct Now {
                    #[diesel(sql_type = diesel::sql_types::BigInt)]
                    at: i64,
                }
                diesel::sql_query("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) AS at")
                    .get_result::<Now>(c)
                    .map(|row| Micros(row.at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Manager;

    #[test]
    fn the_scheme_decides_and_a_typo_makes_no_file() {
        assert!(Manager::new("sqlite:///tmp/x.db").is_ok());
        for bad in ["mysqll:typo", "sqlite://", "/tmp/x.db", "postgres://u:p@h/d"] {
            let error = Manager::new(bad).expect_err(bad);
            assert!(!error.to_string().contains("u:p"), "a password must not be shown: {error}");
        }
    }
}

//! Whether a database is as this program needs it: migrations applied, tables as they make them, and settings that
//! keep what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;

use super::{AnyConnection, Database, Error, Manager};
#[cfg(feature = "mysql")]
use crate::model::Micros;

/// The table in which applied migrations are noted.
const BOOK: &str = "__diesel_schema_migrations";
#[cfg(feature = "mysql")]
/// A database's clock this far from ours is worth a word.
const APART: i64 = 60_000_000;

/// Migrations of one database.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Versions noted in the database.
    pub applied: Vec<String>,
    /// Versions this program has and the database has not.
    pub pending: Vec<String>,
    /// Versions the database has and this program does not know: a newer program was here.
    pub unknown: Vec<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warning,
    /// Do not work with it.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
}

impl Finding {
    fn new(what: &'static str, level: Level, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = if level == Level::Ok { String::new() } else { remedy.to_owned() };
        Self { what, level, found: found.into(), remedy }
    }

    fn must(what: &'static str, holds: bool, found: impl Into<String>, remedy: &str) -> Self {
        Self::new(what, if holds { Level::Ok } else { Level::Error }, found, remedy)
    }

    #[cfg(feature = "mysql")]
    fn should(what: &'static str, holds: bool, found: impl Into<String>, remedy: &str) -> Self {
        Self::new(what, if holds { Level::Ok } else { Level::Warning }, found, remedy)
    }
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

fn words(connection: &mut AnyConnection, sql: &str) -> QueryResult<Vec<String>> {
    Ok(diesel::sql_query(sql).load::<Word>(connection)?.into_iter().map(|row| row.word).collect())
}

fn word(connection: &mut AnyConnection, sql: &str) -> QueryResult<String> {
    Ok(words(connection, sql)?.into_iter().next().unwrap_or_default())
}

#[cfg(feature = "mysql")]
/// The collation a new database gets: text compares byte by byte and trailing blanks count, as in SQLite.
pub(super) fn collation(connection: &mut AnyConnection) -> QueryResult<String> {
    const WANTED: &str = "SELECT collation_name AS word FROM information_schema.collations \
         WHERE collation_name IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')";
    let found = word(connection, WANTED)?;
    Ok(if found.is_empty() { "utf8mb4_bin".to_owned() } else { found })
}

impl AnyConnection {
    /// Takes the database for as long as this connection lives; false when another connection has it and keeps it for
    /// ten seconds. A file needs no such lock: its folder has one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be asked.
    pub fn hold(&mut self) -> Result<bool, Error> {
        match self {
            Self::Sqlite(_) => Ok(true),
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => {
                use diesel::connection::SimpleConnection as _;
                // The connection is idle from now on, and the server ends idle ones after eight hours.
                self.batch_execute("SET SESSION wait_timeout = 31536000").map_err(Error::of)?;
                let lock = "SELECT CAST(COALESCE(GET_LOCK(CONCAT('dispatcher.', DATABASE()), 10), 0) AS CHAR) \
                     AS word";
                Ok(word(self, lock).map_err(Error::of)? == "1")
            }
        }
    }

    /// Whether nobody holds the database for itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be asked.
    pub fn is_free(&mut self) -> Result<bool, Error> {
        match self {
            Self::Sqlite(_) => Ok(true),
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => {
                let lock = "SELECT CAST(COALESCE(IS_FREE_LOCK(CONCAT('dispatcher.', DATABASE())), 0) AS CHAR) AS word";
                Ok(word(self, lock).map_err(Error::of)? == "1")
            }
        }
    }
}

impl Database {
    /// Which migrations the database has.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn status(&self, connection: &mut AnyConnection) -> Result<Status, Error> {
        let known = self.versions()?;
        let applied = if tables(connection).map_err(Error::of)?.iter().any(|table| table == BOOK) {
            let sql = format!("SELECT version AS word FROM {BOOK} ORDER BY version");
            words(connection, &sql).map_err(Error::of)?
        } else {
            Vec::new()
        };
        let pending = known.iter().filter(|v| !applied.contains(v)).cloned().collect();
        let unknown = applied.iter().filter(|v| !known.contains(v)).cloned().collect();
        Ok(Status { applied, pending, unknown })
    }

    fn versions(&self) -> Result<Vec<String>, Error> {
        let set = self.set();
        let all = MigrationSource::<Sqlite>::migrations(&set)
            .map_err(|e| Error::Migration { database: self.name, text: e.to_string() })?;
        let mut versions: Vec<String> = all.iter().map(|m| m.name().version().to_string()).collect();
        versions.sort();
        Ok(versions)
    }

    /// Looks at everything this program needs of the database.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn check(&self, connection: &mut AnyConnection) -> Result<Vec<Finding>, Error> {
        let mut findings = vec![migrations(&self.status(connection)?)];
        if findings.iter().all(|finding| finding.level != Level::Error) {
            let difference = difference(&self.reference()?, &shape(connection).map_err(Error::of)?);
            findings.push(Finding::must(
                "tables",
                difference.is_empty(),
                if difference.is_empty() { "as the migrations make them".to_owned() } else { difference },
                "somebody changed the tables by hand; take the change back, or restore a backup",
            ));
        }
        let settings = match connection {
            AnyConnection::Sqlite(_) => of_file(connection),
            #[cfg(feature = "mysql")]
            AnyConnection::Mysql(_) => of_server(connection),
        };
        findings.extend(settings.map_err(Error::of)?);
        Ok(findings)
    }

    /// The tables as the migrations make them, in memory.
    fn reference(&self) -> Result<Shape, Error> {
        let mut fresh = Manager::new("sqlite://:memory:")
            .map_err(|e| Error::Connect(e.to_string()))
            .and_then(|manager| manager.open())?;
        self.migrate(&mut fresh)?;
        shape(&mut fresh).map_err(Error::of)
    }
}

fn migrations(status: &Status) -> Finding {
    const WHAT: &str = "migrations";
    if !status.unknown.is_empty() {
        let found = format!("unknown: {}", status.unknown.join(", "));
        return Finding::new(WHAT, Level::Error, found, "a newer dispatcher was here; run that one");
    }
    let pending = format!("missing: {}", status.pending.join(", "));
    let all = format!("{} applied", status.applied.len());
    let done = status.pending.is_empty();
    Finding::must(WHAT, done, if done { all } else { pending }, "run dispatcher db migrate")
}

/// Tables with their columns (family of the type, whether it may be null) and the names of indexes.
#[derive(Default, PartialEq, Eq)]
struct Shape {
    columns: BTreeMap<String, String>,
    indexes: BTreeSet<String>,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    place: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    required: String,
}

fn tables(connection: &mut AnyConnection) -> QueryResult<Vec<String>> {
    let sql = match connection {
        AnyConnection::Sqlite(_) => {
            "SELECT name AS word FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        }
        #[cfg(feature = "mysql")]
        AnyConnection::Mysql(_) => {
            "SELECT table_name AS word FROM information_schema.tables WHERE table_schema = DATABASE()"
        }
    };
    words(connection, sql)
}

fn shape(connection: &mut AnyConnection) -> QueryResult<Shape> {
    let (columns, indexes) = match connection {
        AnyConnection::Sqlite(_) => (
            "SELECT m.name || '.' || p.name AS place, p.type AS kind, \
             CASE WHEN p.\"notnull\" = 1 OR p.pk > 0 THEN 'yes' ELSE 'no' END AS required \
             FROM sqlite_master m JOIN pragma_table_info(m.name) p \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
            "SELECT tbl_name || '.' || name AS word FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        ),
        #[cfg(feature = "mysql")]
        AnyConnection::Mysql(_) => (
            "SELECT CONCAT(table_name, '.', column_name) AS place, data_type AS kind, \
             IF(is_nullable = 'NO', 'yes', 'no') AS required \
             FROM information_schema.columns WHERE table_schema = DATABASE()",
            "SELECT DISTINCT CONCAT(table_name, '.', index_name) AS word FROM information_schema.statistics \
             WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY'",
        ),
    };
    let ours = |place: &str| !place.starts_with(BOOK);
    let columns = diesel::sql_query(columns).load::<Column>(connection)?;
    let columns = columns.into_iter().filter(|c| ours(&c.place)).map(|c| {
        let null = if c.required == "yes" { "" } else { " or null" };
        (c.place, format!("{}{null}", family(&c.kind)))
    });
    Ok(Shape {
        columns: columns.collect(),
        indexes: words(connection, indexes)?.into_iter().filter(|index| ours(index)).collect(),
    })
}

/// Types that hold the same values on both kinds of database.
fn family(kind: &str) -> String {
    let word = kind.to_ascii_lowercase();
    match word.split('(').next().unwrap_or_default() {
        "int" | "integer" => "integer",
        "tinyint" | "boolean" => "boolean",
        "varchar" | "text" | "mediumtext" | "longtext" => "text",
        "blob" | "longblob" | "varbinary" => "binary",
        other => other,
    }
    .to_owned()
}

/// What differs, in words; empty where nothing does. Tables beside ours are nobody's business.
fn difference(wanted: &Shape, found: &Shape) -> String {
    let mut said = Vec::new();
    for (column, kind) in &wanted.columns {
        match found.columns.get(column) {
            None => said.push(format!("{column} is missing")),
            Some(other) if other != kind => said.push(format!("{column} is {other}, not {kind}")),
            Some(_) => {}
        }
    }
    let ours: BTreeSet<&str> = wanted.columns.keys().filter_map(|c| Some(c.split_once('.')?.0)).collect();
    let extra = found.columns.keys().filter(|column| {
        !wanted.columns.contains_key(*column) && column.split_once('.').is_some_and(|c| ours.contains(c.0))
    });
    said.extend(extra.map(|column| format!("{column} is not ours")));
    said.extend(wanted.indexes.difference(&found.indexes).map(|index| format!("index {index} is missing")));
    said.join("; ")
}

fn of_file(connection: &mut AnyConnection) -> QueryResult<Vec<Finding>> {
    let journal = word(connection, "SELECT journal_mode AS word FROM pragma_journal_mode")?;
    let synchronous = word(connection, "SELECT CAST(synchronous AS TEXT) AS word FROM pragma_synchronous")?;
    let encoding = word(connection, "SELECT encoding AS word FROM pragma_encoding")?;
    Ok(vec![
        Finding::must(
            "journal",
            journal == "wal",
            journal,
            "put the folder on a local disk: the file system must support shared memory for the write-ahead log",
        ),
        Finding::must(
            "synchronous",
            synchronous == "2",
            if synchronous == "2" { "FULL".to_owned() } else { synchronous },
            "this build of SQLite does not wait for the disk; use the one that comes with the program",
        ),
        Finding::must("character set", encoding == "UTF-8", encoding, "make the database anew"),
    ])
}

#[cfg(feature = "mysql")]
fn of_server(connection: &mut AnyConnection) -> QueryResult<Vec<Finding>> {
    let mut findings = kept(connection)?;
    findings.extend(compared(connection)?);
    let isolation = word(
        connection,
        "SELECT variable_value AS word FROM information_schema.session_variables \
         WHERE variable_name IN ('tx_isolation', 'transaction_isolation') LIMIT 1",
    );
    let isolation = match isolation {
        Ok(found) => found,
        // MySQL keeps them elsewhere.
        Err(_) => word(connection, "SELECT @@transaction_isolation AS word")?,
    };
    findings.push(Finding::must(
        "isolation of our sessions",
        isolation == "READ-COMMITTED",
        isolation,
        "the server overrules the isolation that sessions ask for; remove that from its settings",
    ));
    let ours = Micros::wall();
    let apart = connection.now()?.0.saturating_sub(ours.0);
    findings.push(Finding::should(
        "clock",
        apart.abs() < APART,
        format!(
            "{:.1} s from this machine's",
            std::time::Duration::from_micros(apart.unsigned_abs()).as_secs_f64()
        ),
        "let both machines take their time from the same source; jobs go by the database's clock",
    ));
    Ok(findings)
}

/// Whether what was committed stays.
#[cfg(feature = "mysql")]
fn kept(connection: &mut AnyConnection) -> QueryResult<Vec<Finding>> {
    let mut variable = |name: &str| word(connection, &format!("SELECT CAST(@@{name} AS CHAR) AS word"));
    let (flush, read_only) =
        (variable("global.innodb_flush_log_at_trx_commit")?, variable("global.read_only")?);
    let (binlog, sync) = (variable("log_bin")?, variable("global.sync_binlog")?);
    let double = variable("innodb_doublewrite")?;
    let engines = words(
        connection,
        "SELECT CONCAT(table_name, ' is ', engine) AS word FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND engine <> 'InnoDB'",
    )?;
    Ok(vec![
        Finding::must(
            "innodb_flush_log_at_trx_commit",
            flush == "1",
            flush,
            "set innodb_flush_log_at_trx_commit = 1 in the server's settings: without it a power cut loses accepted jobs",
        ),
        Finding::should(
            "sync_binlog",
            off(&binlog) || sync == "1",
            if off(&binlog) { "no binary log".to_owned() } else { sync },
            "set sync_binlog = 1 where replicas or restores rely on the binary log",
        ),
        Finding::should(
            "innodb_doublewrite",
            !off(&double),
            double,
            "set innodb_doublewrite = ON, unless the disk writes 16 KiB whole or not at all",
        ),
        Finding::must(
            "read_only",
            off(&read_only),
            read_only,
            "this server takes no writes; name the primary in [database]",
        ),
        Finding::must(
            "engine",
            engines.is_empty(),
            if engines.is_empty() { "InnoDB".to_owned() } else { engines.join(", ") },
            "run ALTER TABLE … ENGINE=InnoDB for these tables",
        ),
    ])
}

/// How servers of different ages call a switch that is off.
#[cfg(feature = "mysql")]
fn off(value: &str) -> bool {
    ["0", "OFF"].contains(&value)
}

/// Whether text compares as this program takes it to.
#[cfg(feature = "mysql")]
fn compared(connection: &mut AnyConnection) -> QueryResult<Vec<Finding>> {
    let wanted = collation(connection)?;
    let sql = format!(
        "SELECT DISTINCT collation_name AS word FROM information_schema.columns WHERE table_schema = DATABASE() \
         AND collation_name IS NOT NULL AND table_name <> '{BOOK}' \
         UNION SELECT @@collation_database AS word"
    );
    let found = words(connection, &sql)?;
    let level = match found.iter().find(|name| **name != wanted) {
        None => Level::Ok,
        // Bytes, but without trailing blanks.
        Some(_) if found.iter().all(|name| *name == wanted || name == "utf8mb4_bin") => Level::Warning,
        Some(_) => Level::Error,
    };
    let remedy = format!(
        "names and keys that differ in case or trailing blanks count as the same; while nothing runs: \
         ALTER DATABASE … COLLATE {wanted}, and ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4 COLLATE {wanted} \
         for each table"
    );
    Ok(vec![Finding::new("collation", level, found.join(", "), &remedy)])
}

#[cfg(test)]
mod tests {
    use diesel::connection::SimpleConnection as _;

    use super::Level;
    use crate::store::testing::{Bed, on_both};
    use crate::store::{AnyConnection, PROVISIONING};

    on_both!(a_database_is_checked_before_and_after_its_migrations_and_after_a_change_by_hand);

    fn of(connection: &mut AnyConnection, what: &str) -> (Level, String) {
        let findings = PROVISIONING.check(connection).expect("asked");
        let wrong: Vec<_> =
            findings.iter().filter(|f| f.level == Level::Error && f.remedy.is_empty()).collect();
        assert!(wrong.is_empty(), "each error has its remedy: {wrong:?}");
        let found = findings.into_iter().find(|f| f.what == what).expect("it was looked at");
        (found.level, found.found)
    }

    async fn a_database_is_checked_before_and_after_its_migrations_and_after_a_change_by_hand(bed: Bed) {
        let mut c = bed.manager().open().expect("a connection");
        let status = PROVISIONING.status(&mut c).expect("asked");
        assert_eq!((status.applied.len(), status.pending.is_empty()), (0, false));
        assert_eq!(of(&mut c, "migrations").0, Level::Error);
        PROVISIONING.migrate(&mut c).expect("migrated");
        let findings = PROVISIONING.check(&mut c).expect("asked");
        assert!(findings.iter().all(|f| f.level == Level::Ok), "{findings:?}");
        assert!(PROVISIONING.status(&mut c).expect("asked").pending.is_empty());
        c.batch_execute("ALTER TABLE setting ADD COLUMN extra INT").expect("changed");
        let (level, found) = of(&mut c, "tables");
        assert!(level == Level::Error && found.contains("setting.extra is not ours"), "{found}");
        c.batch_execute("DROP TABLE setting").expect("changed");
        assert!(of(&mut c, "tables").1.contains("setting.name is missing"));
        c.batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999999999')")
            .expect("noted");
        assert!(of(&mut c, "migrations").1.contains("99999999999999"));
    }
}

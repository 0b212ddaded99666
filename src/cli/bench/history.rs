//! Fills a database with jobs that have ended: rows of every table that a finished job leaves behind, with names in no
//! order, as those of real jobs are.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::house::database;
use crate::cli::client::Error;
use crate::model::{JobParams, Micros, NoopParams};
use crate::store::{AnyConnection, Manager};

/// Number of the first of them, which is the first a new database hands out.
pub(super) const FIRST: u32 = 10_001;
/// They were asked for within so long, up to now: nothing of them is old enough to be forgotten.
const WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Pages in memory that a server at rest may still have to write: 16 KiB each.
const FEW_PAGES: u64 = 1024;
/// Tables that are filled.
const TABLES: &str = "'job', 'attempt', 'watch', 'evidence', 'idem'";

/// How a kind of database says what the others say differently.
struct Dialect {
    /// 32 hexadecimal digits, others for each row.
    random: &'static str,
    /// Before the rows, and after them.
    before: &'static str,
    after: &'static str,
}

const SQLITE: Dialect = Dialect {
    random: "lower(hex(randomblob(16)))",
    before: "PRAGMA journal_mode=DELETE; PRAGMA synchronous=OFF; PRAGMA cache_size=-400000;",
    after: "PRAGMA journal_mode=WAL;",
};

/// A server sorts what comes into an empty table with these settings, indexes included.
const SERVER: Dialect = Dialect {
    random: "MD5(UUID())",
    before: "SET unique_checks=0, foreign_key_checks=0;",
    after: "SET unique_checks=1, foreign_key_checks=1; ANALYZE TABLE job, attempt, watch, evidence, idem;",
};

/// Fills a database that was set up and has no job yet; nobody else may use it meanwhile. How long it took.
pub(super) fn fill(manager: &Manager, jobs: u32) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut connection = manager.open().map_err(|e| database(&e))?;
    let dialect = if manager.is_server() { &SERVER } else { &SQLITE };
    let mut order = |text: &str| connection.batch_execute(text).map_err(|e| database(&e));
    order(dialect.before)?;
    if !manager.is_server() {
        // Built at the end in one go, which takes a fraction of the time.
        let indexes = indexes(&mut connection).map_err(|e| database(&e))?;
        let mut order = |text: &str| connection.batch_execute(text).map_err(|e| database(&e));
        indexes.iter().try_for_each(|index| order(&format!("DROP INDEX {}", index.name)))?;
        rows(dialect, jobs).iter().try_for_each(|text| order(text))?;
        indexes.iter().try_for_each(|index| order(&index.sql))?;
        order(dialect.after)?;
        return Ok(began.elapsed());
    }
    rows(dialect, jobs).iter().try_for_each(|text| order(text))?;
    order(dialect.after)?;
    Ok(began.elapsed())
}

/// Takes away what is open, so that the next measurement finds finished jobs only. Nobody else may use the database.
pub(super) fn clear_open(manager: &Manager) -> Result<(), Error> {
    let mut connection = manager.open().map_err(|e| database(&e))?;
    for table in ["attempt", "watch"] {
        // A server would go through the whole table and ask about each of its rows.
        let order = if manager.is_server() {
            format!(
                "DELETE {table} FROM job JOIN {table} ON {table}.job = job.uid WHERE job.ended_at IS NULL"
            )
        } else {
            format!("DELETE FROM {table} WHERE job IN (SELECT uid FROM job WHERE ended_at IS NULL)")
        };
        connection.batch_execute(&order).map_err(|e| database(&e))?;
    }
    connection
        .batch_execute("DELETE FROM job WHERE ended_at IS NULL; DELETE FROM outbox")
        .map_err(|e| database(&e))
}

/// Waits until a server has written most of what it holds in memory, as far as it says so: what is measured next is the
/// work, not the filling before it.
pub(super) async fn settle(manager: &Manager, limit: Duration) -> Result<(), Error> {
    let mut connection = manager.open().map_err(|e| database(&e))?;
    let until = Instant::now() + limit;
    while Instant::now() < until && dirty(&mut connection).map_err(|e| database(&e))? > FEW_PAGES {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct Figure {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Pages that are not on the disk yet; none where the server does not say.
fn dirty(connection: &mut AnyConnection) -> QueryResult<u64> {
    let asked = "SELECT CAST(variable_value AS CHAR) AS value FROM information_schema.global_status \
                 WHERE variable_name = 'Innodb_buffer_pool_pages_dirty'";
    let found: Option<Figure> = diesel::sql_query(asked).get_result(connection).optional()?;
    Ok(found.and_then(|figure| figure.value.parse().ok()).unwrap_or(0))
}

#[derive(diesel::QueryableByName)]
struct Index {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    sql: String,
}

/// The indexes of a file that are no keys.
fn indexes(connection: &mut AnyConnection) -> QueryResult<Vec<Index>> {
    let asked = format!(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({TABLES})"
    );
    diesel::sql_query(asked).load(connection)
}

/// Numbers from 0 to below `count`, in order, as a table: every digit is a table of ten rows.
fn numbers(count: u32) -> String {
    let digits = count.saturating_sub(1).max(1).ilog10() + 1;
    let ten = (0..10).map(|d| format!("SELECT {d} AS d")).collect::<Vec<_>>().join(" UNION ALL ");
    let tables = (0..digits).rev().map(|at| format!("({ten}) t{at}")).collect::<Vec<_>>();
    let sum = (0..digits).map(|at| format!("{} * t{at}.d", 10_u64.pow(at))).collect::<Vec<_>>();
    format!("(SELECT {} AS n FROM {}) numbers", sum.join(" + "), tables.join(" CROSS JOIN "))
}

/// The statements that insert the rows.
fn rows(dialect: &Dialect, jobs: u32) -> Vec<String> {
    let Dialect { random, .. } = dialect;
    let within = WITHIN.as_micros();
    let first = Micros::wall().0 - i64::try_from(within).unwrap_or(0);
    let step = within / u128::from(jobs.max(1));
    let params = serde_json::to_string(&JobParams::Noop(NoopParams::default())).unwrap_or_default();
    let job = format!(
        "INSERT INTO job SELECT {random}, {FIRST} + n, customer, account, person, access_key, {random}, 'noop', \
         '{params}', 'Do nothing', CASE WHEN n % 50 = 1 THEN 'failed' WHEN n % 50 = 2 THEN 'cancelled' \
         ELSE 'complete' END, 2, NULL, 1, 0, 0, NULL, NULL, '', '', NULL, NULL, 'nothing was to be done', 0, \
         {first} + n * {step}, {first} + n * {step} + 1000, {first} + n * {step} + 5000, \
         {first} + n * {step} + 60000000, {first} + n * {step} + 5000, 6, NULL, FALSE \
         FROM {} CROSS JOIN (SELECT customer, account, person, access_key FROM api_key LIMIT 1) asked \
         WHERE n < {jobs}",
        numbers(jobs)
    );
    let ids = i64::from(FIRST) + i64::from(jobs);
    vec![
        "DELETE FROM sequencer WHERE name = 'job'".to_owned(),
        format!("INSERT INTO sequencer VALUES ('job', {ids})"),
        job,
        format!(
            "INSERT INTO attempt SELECT {random}, uid, customer, 'noop', 0, 1, 1, 1, '', '', '', \
             CASE state WHEN 'failed' THEN 'refused' ELSE 'ok' END, CASE state WHEN 'failed' THEN 'quota' END, \
             'nothing to do', '', claimed_at, claimed_at + 1000, NULL, 2 FROM job"
        ),
        format!(
            "INSERT INTO watch SELECT {random}, uid, customer, 'noop', 1, 'noop', '', 'nothing', NULL, \
             claimed_at + 1000, deadline, 0, claimed_at + 1000, ended_at FROM job"
        ),
        format!(
            "INSERT INTO evidence SELECT uid, CONCAT('worker/', job), job, customer, 'reached', \
             'nothing was to be done', '', made_at + 2000 FROM watch"
        ),
        format!(
            "INSERT INTO idem SELECT customer, access_key, {random}, CONCAT({random}, {random}), uid, 202, NULL, \
             created_at FROM job"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{clear_open, fill, numbers};
    use crate::store::provisioning::schema::{attempt, evidence, idem, job, watch};
    use crate::store::{Manager, PROVISIONING};
    use diesel::connection::SimpleConnection as _;
    use diesel::prelude::*;

    #[test]
    fn a_filled_database_holds_whole_finished_jobs_and_its_indexes() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}/history.db", folder.path().display());
        let manager = Manager::new(&url).expect("a URL");
        let mut connection = manager.open().expect("a file");
        PROVISIONING.migrate(&mut connection).expect("migrations");
        let key = "INSERT INTO api_key VALUES ('K', 1, 2, 3, '', '', x'00', 'ACTIVE', 0, NULL)";
        connection.batch_execute(key).expect("a key");
        let before = super::indexes(&mut connection).expect("indexes").len();
        drop(connection);
        fill(&manager, 1234).expect("filled");
        let mut connection = manager.open().expect("a file");
        let jobs: i64 =
            job::table.filter(job::ended_at.is_not_null()).count().get_result(&mut connection).expect("jobs");
        let whole: i64 = job::table
            .inner_join(attempt::table.on(attempt::job.eq(job::uid)))
            .inner_join(watch::table.on(watch::job.eq(job::uid)))
            .inner_join(evidence::table.on(evidence::job.eq(job::uid).and(evidence::subject.eq(watch::uid))))
            .count()
            .get_result(&mut connection)
            .expect("joined");
        let keys: i64 =
            idem::table.filter(idem::job.is_not_null()).count().get_result(&mut connection).expect("keys");
        assert_eq!((jobs, whole, keys), (1234, 1234, 1234));
        let last: Option<i64> =
            job::table.select(diesel::dsl::max(job::id)).first(&mut connection).expect("ids");
        assert_eq!(last, Some(11_234));
        assert_eq!(super::indexes(&mut connection).expect("indexes").len(), before);
        assert!(before > 0);
        clear_open(&manager).expect("nothing is open");
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        assert_eq!(numbers(10).matches("CROSS JOIN").count(), 0);
        assert_eq!(numbers(11).matches("CROSS JOIN").count(), 1);
        assert_eq!(numbers(1_000_000).matches("CROSS JOIN").count(), 5);
    }
}

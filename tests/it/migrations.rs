//! One migration set for each database and both kinds of server: up, down, up, and the tables the code believes in
//! compared with the tables that stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diesel::prelude::*;
use dispatcher::store::{ANALYTICS, AnyConnection, CREDENTIALS, Database, Manager, PROVISIONING};

/// Each database with the source of the tables its code believes in.
const SETS: &[(Database, &str)] = &[
    (PROVISIONING, "src/store/provisioning/schema.rs"),
    (ANALYTICS, "src/store/analytics/schema.rs"),
    (CREDENTIALS, "src/km/server/schema.rs"),
];

/// What migrations leave when all are taken back.
const BOOK: &str = "__diesel_schema_migrations";

/// Kind of a column, as the code reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    kind: String,
    nullable: bool,
}

/// Tables with their columns and primary keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    tables: BTreeMap<String, (BTreeMap<String, Column>, Vec<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
struct Name {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
}

fn names(connection: &mut AnyConnection, sql: &str) -> Vec<String> {
    let rows: Vec<Name> = diesel::sql_query(sql).load(connection).expect(sql);
    rows.into_iter().map(|row| row.name).collect()
}

/// Reads the `diesel::table!` declarations of a source.
fn declared(source: &str) -> Shape {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).expect(source);
    let mut shape = Shape::default();
    for block in text.split("diesel::table! {").skip(1) {
        let lines: Vec<&str> = block.lines().map(str::trim).filter(|l| !l.starts_with("//")).collect();
        let head = lines.iter().find(|line| line.contains('(')).expect("a table's head");
        let (table, rest) = head.split_once('(').expect("a primary key");
        let key = rest.split(')').next().unwrap_or_default();
        let key = key.split(',').map(|word| word.trim().to_owned()).collect();
        let columns = lines.iter().filter_map(|line| line.strip_suffix(',')?.split_once(" -> "));
        let columns = columns.map(|(name, kind)| {
            let inner = kind.strip_prefix("Nullable<").and_then(|k| k.strip_suffix('>'));
            (name.to_owned(), Column { kind: inner.unwrap_or(kind).to_owned(), nullable: inner.is_some() })
        });
        shape.tables.insert(table.trim().to_owned(), (columns.collect(), key));
    }
    assert!(!shape.tables.is_empty(), "{source} declares no table");
    shape
}

/// The kind under which the code reads a column of this declared type.
fn kind_of(declared: &str) -> String {
    let word = declared.to_ascii_lowercase();
    let kind = match word.split('(').next().unwrap_or_default() {
        "bigint" => "BigInt",
        "int" | "integer" => "Integer",
        "tinyint" | "boolean" => "Bool",
        "double" => "Double",
        "varchar" | "text" | "mediumtext" | "longtext" => "Text",
        "longblob" | "blob" | "varbinary" => "Binary",
        other => panic!("the portable set holds no type {other}"),
    };
    kind.to_owned()
}

#[derive(Debug, QueryableByName)]
struct Info {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
    #[diesel(sql_type = diesel::sql_types::Text)]
    kind: String,
    #[diesel(sql_type = diesel::sql_types::Integer)]
    required: i32,
    #[diesel(sql_type = diesel::sql_types::Integer)]
    place_in_key: i32,
}

/// Reads the tables that stand in the database.
fn real(connection: &mut AnyConnection) -> Shape {
    let mut shape = Shape::default();
    for table in tables(connection).into_iter().filter(|table| table != BOOK) {
        let columns = columns(connection, &table);
        let mut key: Vec<&Info> = columns.iter().filter(|c| c.place_in_key > 0).collect();
        key.sort_by_key(|column| column.place_in_key);
        let key = key.iter().map(|column| column.name.clone()).collect();
        let columns = columns.iter().map(|column| {
            let (kind, nullable) = (kind_of(&column.kind), column.required == 0);
            (column.name.clone(), Column { kind, nullable })
        });
        shape.tables.insert(table, (columns.collect(), key));
    }
    shape
}

fn tables(connection: &mut AnyConnection) -> BTreeSet<String> {
    let sql = match connection {
        AnyConnection::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        }
        #[cfg(feature = "mysql")]
        AnyConnection::Mysql(_) => {
            "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()"
        }
    };
    names(connection, sql).into_iter().collect()
}

fn columns(connection: &mut AnyConnection, table: &str) -> Vec<Info> {
    let sql = match connection {
        AnyConnection::Sqlite(_) => format!(
            "SELECT name, type AS kind, \"notnull\" AS required, pk AS place_in_key FROM pragma_table_info('{table}')"
        ),
        #[cfg(feature = "mysql")]
        AnyConnection::Mysql(_) => format!(
            "SELECT c.column_name AS name, c.data_type AS kind, CAST(c.is_nullable = 'NO' AS INTEGER) AS required, \
             CAST(COALESCE(k.ordinal_position, 0) AS INTEGER) AS place_in_key FROM information_schema.columns c \
             LEFT JOIN information_schema.key_column_usage k ON k.table_schema = c.table_schema AND \
             k.table_name = c.table_name AND k.column_name = c.column_name AND k.constraint_name = 'PRIMARY' \
             WHERE c.table_schema = DATABASE() AND c.table_name = '{table}'"
        ),
    };
    diesel::sql_query(&sql).load(connection).expect(&sql)
}

/// Names of indexes made by the migrations, with their tables.
fn indexes(connection: &mut AnyConnection) -> BTreeSet<String> {
    let sql = match connection {
        AnyConnection::Sqlite(_) => {
            "SELECT tbl_name || '.' || name AS name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        }
        #[cfg(feature = "mysql")]
        AnyConnection::Mysql(_) => {
            "SELECT DISTINCT CONCAT(table_name, '.', index_name) AS name FROM information_schema.statistics \
             WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY'"
        }
    };
    names(connection, sql).into_iter().collect()
}

/// Up, compare, down, nothing left, up, the same again.
fn up_down_up(database: Database, source: &str, connection: &mut AnyConnection) -> BTreeSet<String> {
    let believed = declared(source);
    database.migrate(connection).expect("up");
    let first = (real(connection), indexes(connection));
    assert_same(database, &believed, &first.0);
    database.migrate(connection).expect("up again changes nothing");
    assert_eq!((real(connection), indexes(connection)), first, "{}", database.name);
    database.revert(connection).expect("down");
    let left = tables(connection);
    assert!(left.iter().all(|table| table == BOOK), "{}: down left {left:?}", database.name);
    assert_eq!(indexes(connection), BTreeSet::new(), "{}", database.name);
    database.migrate(connection).expect("up after down");
    assert_eq!((real(connection), indexes(connection)), first, "{}", database.name);
    first.1
}

#[track_caller]
fn assert_same(database: Database, believed: &Shape, real: &Shape) {
    let tables: BTreeSet<&String> = believed.tables.keys().chain(real.tables.keys()).collect();
    for table in tables {
        let (code, there) = (believed.tables.get(table), real.tables.get(table));
        assert_eq!(code, there, "{}: table {table} as the code believes it, and as it is", database.name);
    }
}

#[test]
fn each_set_goes_up_down_and_up_on_sqlite_and_the_code_knows_its_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    for (database, source) in SETS {
        let url = format!("sqlite://{}/{}.db", folder.path().display(), database.name);
        let mut connection = Manager::new(&url).expect("a URL").open().expect("a new file");
        let indexes = up_down_up(*database, source, &mut connection);
        assert!(!indexes.is_empty(), "{} has indexes", database.name);
    }
}

#[test]
fn a_wrong_belief_is_seen() {
    let mut believed = declared("src/store/analytics/schema.rs");
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/a.db", folder.path().display());
    let mut connection = Manager::new(&url).expect("a URL").open().expect("a new file");
    ANALYTICS.migrate(&mut connection).expect("up");
    assert_eq!(believed, real(&mut connection));
    let (columns, _) = believed.tables.get_mut("guest_point").expect("its only table");
    columns.get_mut("cpu_load").expect("a column").nullable = true;
    assert_ne!(believed, real(&mut connection));
}

#[cfg(feature = "mysql")]
#[test]
fn each_set_goes_up_down_and_up_on_mariadb_with_the_same_tables() {
    let Ok(prefix) = std::env::var("DISPATCHER_TEST_MARIADB") else {
        eprintln!(
            "SKIPPED: migrations on MariaDB; give a private server by DISPATCHER_TEST_MARIADB=mysql://root@host:port"
        );
        assert!(std::env::var("CI").map_or(true, |ci| ci != "true"), "with CI=true nothing may be skipped");
        return;
    };
    let prefix = prefix.trim_end_matches('/');
    let open = |name: &str| Manager::new(&format!("{prefix}/{name}")).expect("a URL").open();
    let mut server = open("information_schema").expect("the server answers");
    let folder = tempfile::tempdir().expect("a folder");
    for (database, source) in SETS {
        let name = format!("dispatcher_it_{}", database.name);
        let mut order = |sql: String| diesel::sql_query(&sql).execute(&mut server).expect(&sql);
        order(format!("DROP DATABASE IF EXISTS {name}"));
        order(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"));
        let mut connection = open(&name).expect("the new database");
        let indexes = up_down_up(*database, source, &mut connection);
        let url = format!("sqlite://{}/{name}.db", folder.path().display());
        let mut sqlite = Manager::new(&url).expect("a URL").open().expect("a new file");
        assert_eq!(indexes, up_down_up(*database, source, &mut sqlite), "{} on both", database.name);
        let loose = names(
            &mut connection,
            "SELECT CONCAT(table_name, '.', column_name) AS name FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND collation_name <> 'utf8mb4_bin' \
             AND table_name <> '__diesel_schema_migrations'",
        );
        assert_eq!(loose, Vec::<String>::new(), "columns that compare without case");
        diesel::sql_query(format!("DROP DATABASE {name}")).execute(&mut server).expect("gone");
    }
}

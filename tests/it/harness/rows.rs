//! The dispatcher's own rows, read from its database file and never written: tests compare them with the ledgers.

use std::path::Path;

use diesel::prelude::*;
use dispatcher::store::provisioning::schema::job;
use dispatcher::store::{AnyConnection, Manager};

/// A job as stored, as far as tests read it.
#[derive(Clone, Debug, diesel::Queryable)]
pub(crate) struct JobRow {
    pub(crate) uid: String,
    pub(crate) id: i64,
    pub(crate) state: String,
}

/// Opens the provisioning database of a data folder.
pub(crate) fn open(data: &Path) -> AnyConnection {
    let file = data.join("provisioning.db");
    assert!(file.exists(), "no database at {}", file.display());
    let manager = Manager::new(&format!("sqlite://{}", file.display())).expect("a file's URL");
    manager.open().expect("an existing database")
}

/// All jobs by number.
pub(crate) fn jobs(connection: &mut AnyConnection) -> Vec<JobRow> {
    let columns = (job::uid, job::id, job::state);
    job::table.order(job::id).select(columns).load(connection).expect("rows")
}

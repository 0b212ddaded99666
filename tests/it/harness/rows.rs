//! The dispatcher's own rows, read from its database file and never written: tests compare them with the ledgers.

use std::path::Path;

use diesel::prelude::*;
use dispatcher::store::provisioning::schema::{idem, job};
use dispatcher::store::{AnyConnection, Manager};

/// A job as stored.
#[derive(Clone, Debug, diesel::Queryable)]
pub(crate) struct JobRow {
    pub(crate) uid: String,
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) server: Option<i64>,
    pub(crate) resource: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) why: String,
    pub(crate) ended_at: Option<i64>,
    pub(crate) params: String,
}

impl JobRow {
    /// The job in one line.
    pub(crate) fn told(&self) -> String {
        let (message, resource) =
            (self.message.as_deref().unwrap_or("-"), self.resource.as_deref().unwrap_or("-"));
        format!(
            "job {} ({}, {}) is {}: {message}; waits for \"{}\"; made {resource}; asked for {}",
            self.id, self.kind, self.uid, self.state, self.why, self.params
        )
    }
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
    job::table
        .order(job::id)
        .select((
            job::uid,
            job::id,
            job::kind,
            job::state,
            job::server,
            job::resource,
            job::message,
            job::why,
            job::ended_at,
            job::params,
        ))
        .load(connection)
        .expect("rows")
}

/// Idempotency keys with the uids of their jobs.
pub(crate) fn keys(connection: &mut AnyConnection) -> Vec<(String, Option<String>)> {
    idem::table.select((idem::idem_key, idem::job)).load(connection).expect("rows")
}

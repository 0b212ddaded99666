//! The columns that the rules look at.

use diesel::prelude::*;
use diesel::sql_types::Binary;

use crate::store::AnyConnection;
use crate::store::provisioning::node::Node;
use crate::store::provisioning::schema::{
    attempt, evidence, guest_command, idem, job, node, obligation, output, server, watch,
};

diesel::define_sql_function! {
    /// Bytes of a value.
    fn length(value: Binary) -> BigInt;
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = job)]
pub(super) struct JobRow {
    pub(super) uid: String,
    pub(super) id: i64,
    pub(super) request: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) epoch: i64,
    pub(super) owner: Option<String>,
    pub(super) try_no: i32,
    pub(super) undo_begun: bool,
    pub(super) cancel_by: Option<String>,
    pub(super) due_at: Option<i64>,
    pub(super) why_code: String,
    pub(super) resource: Option<String>,
    pub(super) message: Option<String>,
    pub(super) deadline: i64,
    pub(super) ended_at: Option<i64>,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = attempt)]
pub(super) struct AttemptRow {
    pub(super) uid: String,
    pub(super) job: String,
    pub(super) step: String,
    pub(super) variant: i32,
    pub(super) try_no: i32,
    pub(super) n: i32,
    pub(super) epoch: i64,
    pub(super) token: String,
    pub(super) request: Vec<u8>,
    pub(super) outcome: String,
    pub(super) started_at: i64,
    pub(super) closed_at: Option<i64>,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = watch)]
pub(super) struct WatchRow {
    pub(super) uid: String,
    pub(super) job: String,
    pub(super) step: String,
    pub(super) try_no: i32,
    pub(super) done_at: Option<i64>,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = evidence)]
pub(super) struct EvidenceRow {
    pub(super) subject: String,
    pub(super) source: String,
    pub(super) job: String,
    pub(super) verdict: String,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = guest_command)]
pub(super) struct CommandRow {
    pub(super) id: String,
    pub(super) job: String,
    pub(super) attempt: String,
    pub(super) epoch: i64,
    pub(super) state: String,
    pub(super) done_at: Option<i64>,
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = server)]
pub(super) struct ServerRow {
    pub(super) id: i64,
    pub(super) job: String,
    pub(super) status: String,
    pub(super) busy_by: Option<String>,
}

/// A piece of output: command, stream, where it begins, bytes.
pub(super) type Piece = (String, String, i64, i64);

/// Everything the rules look at.
pub(super) struct Rows {
    pub(super) nodes: Vec<Node>,
    pub(super) jobs: Vec<JobRow>,
    /// Oldest first.
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) watches: Vec<WatchRow>,
    pub(super) evidence: Vec<EvidenceRow>,
    pub(super) commands: Vec<CommandRow>,
    pub(super) servers: Vec<ServerRow>,
    /// Jobs for whose leftovers somebody looks.
    pub(super) obligations: Vec<String>,
    /// Idempotency keys with their jobs.
    pub(super) keys: Vec<(String, Option<String>)>,
    /// In the order of their streams.
    pub(super) output: Vec<Piece>,
}

pub(super) fn read(c: &mut AnyConnection) -> QueryResult<Rows> {
    Ok(Rows {
        nodes: node::table.select(Node::as_select()).load(c)?,
        jobs: job::table.order(job::id.asc()).select(JobRow::as_select()).load(c)?,
        attempts: attempt::table
            .order((attempt::started_at.asc(), attempt::n.asc()))
            .select(AttemptRow::as_select())
            .load(c)?,
        watches: watch::table.select(WatchRow::as_select()).load(c)?,
        evidence: evidence::table.select(EvidenceRow::as_select()).load(c)?,
        commands: guest_command::table.select(CommandRow::as_select()).load(c)?,
        servers: server::table.select(ServerRow::as_select()).load(c)?,
        obligations: obligation::table.select(obligation::job).load(c)?,
        keys: idem::table.select((idem::idem_key, idem::job)).load(c)?,
        output: output::table
            .order((output::command.asc(), output::stream.asc(), output::start.asc()))
            .select((output::command, output::stream, output::start, length(output::data)))
            .load(c)?,
    })
}

//! Enrolled agents, the commands that wait for them, and what they answered.

use diesel::prelude::*;

use super::insert_new;
use super::job::{Evidence, EvidenceRow};
use super::schema::{agent, evidence, guest_command, node, output, server};
use crate::model::{AgentId, AttemptUid, CustomerId, Epoch, JobUid, Micros, ServerId};
use crate::store::{AnyConnection, Prepared};

/// Words of `agent.state`.
pub mod state {
    /// A server was asked for; its agent may enrol with the token.
    pub const PENDING: &str = "pending";
    /// Enrolled.
    pub const ACCEPTED: &str = "accepted";
    /// Its server is gone or a person said no: refused for good.
    pub const REVOKED: &str = "revoked";
}

/// Words of `guest_command.state`.
pub mod command {
    /// Not sent yet.
    pub const WAITING: &str = "waiting";
    /// Sent at least once; the guest may be running it.
    pub const SENT: &str = "sent";
    /// Its result is stored as evidence.
    pub const DONE: &str = "done";
    /// Never sent and not wanted any more.
    pub const EXPIRED: &str = "expired";
}

/// A row of `agent`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = agent, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column")]
pub struct AgentRow {
    pub id: i64,
    pub customer: i64,
    pub job: String,
    pub server: Option<i64>,
    pub token_hash: String,
    pub token_expires: i64,
    pub token_used_at: Option<i64>,
    pub key_hash: Option<String>,
    pub serial: Option<String>,
    pub state: String,
    pub address: Option<String>,
    pub version: i64,
    pub platform: String,
    pub instance: Option<String>,
    pub session_boot: Option<String>,
    pub session_no: i64,
    pub enrolled_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub last_contact: Option<i64>,
    pub made_at: i64,
}

/// An agent that may enrol once its server exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAgent {
    /// Its number.
    pub id: AgentId,
    /// The tenant.
    pub customer: CustomerId,
    /// The job that makes its server.
    pub job: JobUid,
    /// SHA-256 of the one-time token, in hexadecimal digits.
    pub token_hash: String,
    /// When the token dies.
    pub token_expires: Micros,
}

/// Stores an agent that may enrol; a repeat of the same job changes nothing.
///
/// # Errors
/// What the database reports.
pub fn insert(connection: &mut AnyConnection, new: &NewAgent) -> QueryResult<bool> {
    let row = AgentRow {
        id: new.id.0,
        customer: new.customer.0,
        job: new.job.to_string(),
        server: None,
        token_hash: new.token_hash.clone(),
        token_expires: new.token_expires.0,
        token_used_at: None,
        key_hash: None,
        serial: None,
        state: state::PENDING.to_owned(),
        address: None,
        version: 0,
        platform: String::new(),
        instance: None,
        session_boot: None,
        session_no: 0,
        enrolled_at: None,
        expires_at: None,
        last_contact: None,
        made_at: connection.now()?.0,
    };
    insert_new(diesel::insert_into(agent::table).values(&row).execute(connection))
}

fn one(
    connection: &mut AnyConnection,
    condition: agent::BoxedQuery<'static, <AnyConnection as Connection>::Backend>,
) -> QueryResult<Option<AgentRow>> {
    condition.select(AgentRow::as_select()).first(connection).optional()
}

/// The agent a token was made for.
///
/// # Errors
/// What the database reports.
pub fn by_token(connection: &mut AnyConnection, token_hash: &str) -> QueryResult<Option<AgentRow>> {
    one(connection, agent::table.into_boxed().filter(agent::token_hash.eq(token_hash.to_owned())))
}

/// The agent whose key this is.
///
/// # Errors
/// What the database reports.
pub fn by_key(connection: &mut AnyConnection, key_hash: &str) -> QueryResult<Option<AgentRow>> {
    one(connection, agent::table.into_boxed().filter(agent::key_hash.eq(Some(key_hash.to_owned()))))
}

/// The agent of a server.
///
/// # Errors
/// What the database reports.
pub fn by_server(connection: &mut AnyConnection, id: ServerId) -> QueryResult<Option<AgentRow>> {
    one(connection, agent::table.into_boxed().filter(agent::server.eq(Some(id.0))))
}

/// A tenant's agent.
///
/// # Errors
/// What the database reports.
pub fn by_id(connection: &mut AnyConnection, customer: CustomerId, id: i64) -> QueryResult<Option<AgentRow>> {
    one(connection, agent::table.into_boxed().filter(agent::id.eq(id).and(agent::customer.eq(customer.0))))
}

/// Every accepted agent: those that are dialled.
///
/// # Errors
/// What the database reports.
pub fn accepted(connection: &mut AnyConnection) -> QueryResult<Vec<AgentRow>> {
    agent::table
        .filter(agent::state.eq(state::ACCEPTED))
        .order(agent::id.asc())
        .select(AgentRow::as_select())
        .load(connection)
}

/// A tenant's agents.
///
/// # Errors
/// What the database reports.
pub fn list(connection: &mut AnyConnection, customer: CustomerId, limit: i64) -> QueryResult<Vec<AgentRow>> {
    agent::table
        .filter(agent::customer.eq(customer.0))
        .order(agent::id.desc())
        .limit(limit)
        .select(AgentRow::as_select())
        .load(connection)
}

/// Uses up a token for a key: one conditional update decides which of many wins. The winner's key may come again.
///
/// # Errors
/// What the database reports.
pub fn use_token(connection: &mut AnyConnection, token_hash: &str, key_hash: &str) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let fresh = agent::table
        .filter(agent::token_hash.eq(token_hash))
        .filter(agent::state.ne(state::REVOKED))
        .filter(agent::key_hash.is_null().and(agent::token_expires.gt(now)));
    let rows = diesel::update(fresh)
        .set((agent::key_hash.eq(Some(key_hash)), agent::token_used_at.eq(Some(now))))
        .execute(connection)?;
    Ok(rows == 1)
}

/// What a handshake tells and gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The agent.
    pub id: AgentId,
    /// Its server.
    pub server: ServerId,
    /// Where it is dialled.
    pub address: String,
    /// Its version.
    pub version: i64,
    /// Its platform.
    pub platform: String,
    /// The instance it says it runs on.
    pub instance: Option<String>,
    /// Serial of its certificate.
    pub serial: String,
    /// When the certificate ends.
    pub expires_at: Micros,
}

/// Accepts an agent: from now on it is dialled, and its server shows its version.
///
/// # Errors
/// What the database reports.
pub fn enrol(connection: &mut AnyConnection, enrolled: &Enrolled) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let row = agent::table.filter(agent::id.eq(enrolled.id.0).and(agent::state.ne(state::REVOKED)));
    let rows = diesel::update(row)
        .set((
            agent::server.eq(Some(enrolled.server.0)),
            agent::state.eq(state::ACCEPTED),
            agent::address.eq(Some(&enrolled.address)),
            agent::version.eq(enrolled.version),
            agent::platform.eq(&enrolled.platform),
            agent::instance.eq(enrolled.instance.as_ref()),
            agent::serial.eq(Some(&enrolled.serial)),
            agent::expires_at.eq(Some(enrolled.expires_at.0)),
            agent::enrolled_at.eq(Some(now)),
            agent::last_contact.eq(Some(now)),
        ))
        .execute(connection)?;
    if rows == 1 {
        diesel::update(server::table.find(enrolled.server.0))
            .set((
                server::agent_version.eq(enrolled.version),
                server::last_contact.eq(Some(now)),
                server::changed_at.eq(now),
                server::version.eq(server::version + 1),
            ))
            .execute(connection)?;
    }
    Ok(rows == 1)
}

/// Refuses an agent for good: its server is gone, or a person said so.
///
/// # Errors
/// What the database reports.
pub fn revoke(connection: &mut AnyConnection, id: ServerId) -> QueryResult<bool> {
    let row = agent::table.filter(agent::server.eq(Some(id.0)).and(agent::state.ne(state::REVOKED)));
    Ok(diesel::update(row).set(agent::state.eq(state::REVOKED)).execute(connection)? > 0)
}

/// Refuses for good whoever would enrol for the server of this job.
///
/// # Errors
/// What the database reports.
pub fn revoke_of_job(connection: &mut AnyConnection, job: JobUid) -> QueryResult<bool> {
    let row = agent::table.filter(agent::job.eq(job.to_string()).and(agent::state.ne(state::REVOKED)));
    Ok(diesel::update(row).set(agent::state.eq(state::REVOKED)).execute(connection)? > 0)
}

/// The number of the next session with an agent, taken by this life; nothing while another life that holds the session
/// is alive.
///
/// # Errors
/// What the database reports.
pub fn next_session(connection: &mut AnyConnection, id: AgentId, boot: &str) -> QueryResult<Option<i64>> {
    let seen: Option<(i64, Option<String>)> = agent::table
        .find(id.0)
        .select((agent::session_no, agent::session_boot))
        .first(connection)
        .optional()?;
    let Some((seen, holder)) = seen else { return Ok(None) };
    if let Some(holder) = holder.filter(|holder| holder != boot) {
        let lives = node::table.filter(node::boot.eq(holder).and(node::state.eq(super::node::ALIVE)));
        if diesel::select(diesel::dsl::exists(lives)).get_result(connection)? {
            return Ok(None);
        }
    }
    let row = agent::table.filter(agent::id.eq(id.0).and(agent::session_no.eq(seen)));
    let rows = diesel::update(row)
        .set((agent::session_no.eq(seen + 1), agent::session_boot.eq(Some(boot))))
        .execute(connection)?;
    Ok((rows == 1).then_some(seen + 1))
}

/// Writes when agents were heard last.
///
/// # Errors
/// What the database reports.
pub fn heard(connection: &mut AnyConnection, servers: &[i64], at: Micros) -> QueryResult<usize> {
    let those: Vec<Option<i64>> = servers.iter().copied().map(Some).collect();
    diesel::update(agent::table.filter(agent::server.eq_any(those)))
        .set(agent::last_contact.eq(Some(at.0)))
        .execute(connection)
}

/// A row of `guest_command`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = guest_command, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column")]
pub struct CommandRow {
    pub id: String,
    pub seq: i64,
    pub job: String,
    pub attempt: String,
    pub customer: i64,
    pub server: i64,
    pub epoch: i64,
    pub operation: String,
    pub user_name: String,
    pub state: String,
    pub made_at: i64,
    pub expires_at: i64,
    pub sent_at: Option<i64>,
    pub done_at: Option<i64>,
    pub result: Option<String>,
    pub cancel_epoch: Option<i64>,
}

/// A command for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCommand {
    /// Its id: uid, step, try and target; never the epoch.
    pub id: String,
    /// Its place in the guest's queue.
    pub seq: i64,
    /// The job.
    pub job: JobUid,
    /// The attempt its result is evidence for.
    pub attempt: AttemptUid,
    /// The tenant.
    pub customer: CustomerId,
    /// The guest's server.
    pub server: ServerId,
    /// The fence.
    pub epoch: Epoch,
    /// The operation, as the wire writes it.
    pub operation: String,
    /// Who asked.
    pub user: String,
    /// Not sent after this.
    pub expires_at: Micros,
}

/// Stores a command; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn insert_command(connection: &mut AnyConnection, new: &NewCommand) -> QueryResult<bool> {
    let row = CommandRow {
        id: new.id.clone(),
        seq: new.seq,
        job: new.job.to_string(),
        attempt: new.attempt.to_string(),
        customer: new.customer.0,
        server: new.server.0,
        epoch: new.epoch.0,
        operation: new.operation.clone(),
        user_name: new.user.clone(),
        state: command::WAITING.to_owned(),
        made_at: connection.now()?.0,
        expires_at: new.expires_at.0,
        sent_at: None,
        done_at: None,
        result: None,
        cancel_epoch: None,
    };
    insert_new(Prepared(diesel::insert_into(guest_command::table).values(&row)).execute(connection))
}

/// Asks for the end of a command that was sent, by a fact in its row.
///
/// Whoever holds the session with its guest carries it out. The epoch is that of the job's owner; a later owner's wish
/// replaces an earlier one's.
///
/// # Errors
/// What the database reports.
pub fn call_off(connection: &mut AnyConnection, id: &str, epoch: Epoch) -> QueryResult<bool> {
    let older =
        guest_command::cancel_epoch.is_null().or(guest_command::cancel_epoch.assume_not_null().lt(epoch.0));
    let sent = guest_command::id.eq(id).and(guest_command::state.eq(command::SENT));
    let rows = diesel::update(guest_command::table.filter(sent.and(older)))
        .set(guest_command::cancel_epoch.eq(Some(epoch.0)))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Commands of a server whose end was asked for and which have not been answered.
///
/// # Errors
/// What the database reports.
pub fn called_off(connection: &mut AnyConnection, id: ServerId) -> QueryResult<Vec<CommandRow>> {
    guest_command::table
        .filter(guest_command::server.eq(id.0).and(guest_command::state.eq(command::SENT)))
        .filter(guest_command::cancel_epoch.is_not_null())
        .order(guest_command::seq.asc())
        .select(CommandRow::as_select())
        .load(connection)
}

/// Commands of a server that are to be sent, in the order they were given.
///
/// Those waiting to be sent first time, and those sent before whose answer never came (the guest's journal answers a
/// repeat). Those whose end was asked for are not sent any more.
///
/// # Errors
/// What the database reports.
pub fn open_commands(
    connection: &mut AnyConnection,
    id: ServerId,
    limit: i64,
) -> QueryResult<Vec<CommandRow>> {
    guest_command::table
        .filter(guest_command::server.eq(id.0))
        .filter(guest_command::state.eq_any([command::WAITING, command::SENT]))
        .filter(guest_command::cancel_epoch.is_null())
        .order(guest_command::seq.asc())
        .limit(limit)
        .select(CommandRow::as_select())
        .load(connection)
}

/// How many of these servers have a command that was given before this time and not sent yet.
///
/// # Errors
/// What the database reports.
pub fn kept_waiting(connection: &mut AnyConnection, servers: &[i64], before: Micros) -> QueryResult<i64> {
    guest_command::table
        .filter(guest_command::server.eq_any(servers))
        .filter(guest_command::state.eq(command::WAITING))
        .filter(guest_command::made_at.lt(before.0))
        .select(guest_command::server)
        .distinct()
        .load::<i64>(connection)
        .map(|found| i64::try_from(found.len()).unwrap_or(i64::MAX))
}

/// One command.
///
/// # Errors
/// What the database reports.
pub fn command_by_id(connection: &mut AnyConnection, id: &str) -> QueryResult<Option<CommandRow>> {
    guest_command::table.find(id).select(CommandRow::as_select()).first(connection).optional()
}

/// The commands of a job.
///
/// # Errors
/// What the database reports.
pub fn commands_of(connection: &mut AnyConnection, job: JobUid) -> QueryResult<Vec<CommandRow>> {
    guest_command::table
        .filter(guest_command::job.eq(job.to_string()))
        .order(guest_command::seq.asc())
        .select(CommandRow::as_select())
        .load(connection)
}

/// Marks a command as sent, before it is: false when it expired, has its result or was called off, and must not be sent.
///
/// # Errors
/// What the database reports.
pub fn mark_sent(connection: &mut AnyConnection, id: &str) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let first = guest_command::table.filter(
        guest_command::id
            .eq(id)
            .and(guest_command::state.eq(command::WAITING))
            .and(guest_command::expires_at.gt(now)),
    );
    let rows = diesel::update(first)
        .set((guest_command::state.eq(command::SENT), guest_command::sent_at.eq(Some(now))))
        .execute(connection)?;
    if rows == 1 {
        return Ok(true);
    }
    let again = guest_command::table
        .filter(guest_command::id.eq(id).and(guest_command::state.eq(command::SENT)))
        .filter(guest_command::cancel_epoch.is_null());
    diesel::select(diesel::dsl::exists(again)).get_result(connection)
}

/// Takes a command back that was never sent; false when it was.
///
/// # Errors
/// What the database reports.
pub fn expire(connection: &mut AnyConnection, id: &str) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let waiting =
        guest_command::table.filter(guest_command::id.eq(id).and(guest_command::state.eq(command::WAITING)));
    let rows = diesel::update(waiting)
        .set((guest_command::state.eq(command::EXPIRED), guest_command::done_at.eq(Some(now))))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Stores what a guest answered to a command, before the guest is told that it was heard.
///
/// # Errors
/// What the database reports.
pub fn finish(connection: &mut AnyConnection, id: &str, result: &str, seen: &Evidence) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let new = EvidenceRow { made_at: now, ..EvidenceRow::from(seen) };
    let first = insert_new(Prepared(diesel::insert_into(evidence::table).values(&new)).execute(connection))?;
    let open =
        guest_command::table.filter(guest_command::id.eq(id).and(guest_command::state.ne(command::DONE)));
    diesel::update(open)
        .set((
            guest_command::state.eq(command::DONE),
            guest_command::done_at.eq(Some(now)),
            guest_command::result.eq(Some(result)),
        ))
        .execute(connection)?;
    Ok(first)
}

/// Stores a word of a guest that ends nothing, such as that a command has begun; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn note(connection: &mut AnyConnection, seen: &Evidence) -> QueryResult<bool> {
    let new = EvidenceRow { made_at: connection.now()?.0, ..EvidenceRow::from(seen) };
    insert_new(Prepared(diesel::insert_into(evidence::table).values(&new)).execute(connection))
}

/// Stores a piece of output at its offset; a repeat of the same offset changes nothing.
///
/// # Errors
/// What the database reports.
pub fn append_output(
    connection: &mut AnyConnection,
    id: &str,
    stream: &str,
    start: i64,
    data: &[u8],
) -> QueryResult<bool> {
    let row =
        (output::command.eq(id), output::stream.eq(stream), output::start.eq(start), output::data.eq(data));
    insert_new(Prepared(diesel::insert_into(output::table).values(row)).execute(connection))
}

/// Pieces of output that reach beyond an offset, in order, at most `limit` pieces.
///
/// # Errors
/// What the database reports.
pub fn read_output(
    connection: &mut AnyConnection,
    id: &str,
    stream: &str,
    limit: i64,
) -> QueryResult<Vec<(i64, Vec<u8>)>> {
    output::table
        .filter(output::command.eq(id).and(output::stream.eq(stream)))
        .order(output::start.asc())
        .limit(limit)
        .select((output::start, output::data))
        .load(connection)
}

/// Up to which byte a stream is stored.
///
/// # Errors
/// What the database reports.
pub fn output_end(connection: &mut AnyConnection, id: &str, stream: &str) -> QueryResult<i64> {
    let last: Option<(i64, Vec<u8>)> = output::table
        .filter(output::command.eq(id).and(output::stream.eq(stream)))
        .order(output::start.desc())
        .select((output::start, output::data))
        .first(connection)
        .optional()?;
    Ok(last.map_or(0, |(start, data)| start.saturating_add(i64::try_from(data.len()).unwrap_or(0))))
}

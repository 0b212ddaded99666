//! Jobs, attempts and evidence as rows and as typed values.

use std::collections::HashMap;

use diesel::prelude::*;

use super::schema::{attempt, evidence, job};
use crate::model::{
    AccountId, AttemptOutcome, AttemptUid, Boot, CustomerId, Epoch, ErrorClass, JobId, JobParams, JobState,
    JobUid, Micros, ServerId, UserId, Verdict,
};
use crate::store::{AnyConnection, Error, Later, Prepared};

/// A row of `job`, as the database holds it.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = job, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; the columns are explained by the protocol page")]
pub struct JobRow {
    pub uid: String,
    pub id: i64,
    pub customer: i64,
    pub account: i64,
    pub person: i64,
    pub access_key: String,
    pub request: String,
    pub kind: String,
    pub params: String,
    pub description: String,
    pub state: String,
    pub epoch: i64,
    pub owner: Option<String>,
    pub try_no: i32,
    pub crashes: i32,
    pub undo_begun: bool,
    pub cancel_by: Option<String>,
    pub due_at: Option<i64>,
    pub why_code: String,
    pub why: String,
    pub server: Option<i64>,
    pub resource: Option<String>,
    pub message: Option<String>,
    pub priority: i32,
    pub created_at: i64,
    pub claimed_at: Option<i64>,
    pub changed_at: i64,
    pub deadline: i64,
    pub ended_at: Option<i64>,
    pub version: i64,
    pub parent: Option<i64>,
    pub limited: bool,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Job {
    /// Its name for ever.
    pub uid: JobUid,
    /// Its public number.
    pub id: JobId,
    /// Its tenant.
    pub customer: CustomerId,
    /// The cloud account it uses.
    pub account: AccountId,
    /// Who asked.
    pub person: UserId,
    /// The API key it was asked with; empty when asked on the console.
    pub access_key: String,
    /// Id of the request that submitted it.
    pub request: String,
    /// What is to be done.
    pub params: JobParams,
    /// The same in words for people.
    pub description: String,
    /// Where it is.
    pub state: JobState,
    /// The fence.
    pub epoch: Epoch,
    /// The process that runs it.
    pub owner: Option<Boot>,
    /// Which round of do and verdict.
    pub try_no: i32,
    /// Takeovers in a row without progress.
    pub crashes: i32,
    /// Whether taking back has begun.
    pub undo_begun: bool,
    /// Who asked to cancel it.
    pub cancel_by: Option<String>,
    /// When somebody must look at it again.
    pub due_at: Option<Micros>,
    /// Machine code of what it waits for.
    pub why_code: String,
    /// The same as a sentence.
    pub why: String,
    /// The server it is about or made.
    pub server: Option<ServerId>,
    /// The provider's id of what it made.
    pub resource: Option<String>,
    /// What clients read when it has ended.
    pub message: Option<String>,
    /// Larger runs first.
    pub priority: i32,
    /// When it was accepted.
    pub created_at: Micros,
    /// When it was claimed first.
    pub claimed_at: Option<Micros>,
    /// When the row changed last.
    pub changed_at: Micros,
    /// When it must have ended.
    pub deadline: Micros,
    /// When it ended; written once.
    pub ended_at: Option<Micros>,
    /// Counts the changes of the row.
    pub version: i64,
    /// The group it is a child of.
    pub parent: Option<JobId>,
    /// Whether a limit of its account counts it.
    pub limited: bool,
}

fn parse<T: std::str::FromStr>(column: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_other| Error::Corrupt { column, text: text.chars().take(80).collect() })
}

impl TryFrom<JobRow> for Job {
    type Error = Error;

    fn try_from(row: JobRow) -> Result<Self, Error> {
        let params = serde_json::from_str(&row.params)
            .map_err(|e| Error::Corrupt { column: "job.params", text: e.to_string() })?;
        Ok(Self {
            uid: parse("job.uid", &row.uid)?,
            id: JobId(row.id),
            customer: CustomerId(row.customer),
            account: AccountId(row.account),
            person: UserId(row.person),
            access_key: row.access_key,
            request: row.request,
            params,
            description: row.description,
            state: parse("job.state", &row.state)?,
            epoch: Epoch(row.epoch),
            owner: row.owner.map(|text| parse("job.owner", &text)).transpose()?,
            try_no: row.try_no,
            crashes: row.crashes,
            undo_begun: row.undo_begun,
            cancel_by: row.cancel_by,
            due_at: row.due_at.map(Micros),
            why_code: row.why_code,
            why: row.why,
            server: row.server.map(ServerId),
            resource: row.resource,
            message: row.message,
            priority: row.priority,
            created_at: Micros(row.created_at),
            claimed_at: row.claimed_at.map(Micros),
            changed_at: Micros(row.changed_at),
            deadline: Micros(row.deadline),
            ended_at: row.ended_at.map(Micros),
            version: row.version,
            parent: row.parent.map(JobId),
            limited: row.limited,
        })
    }
}

#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = attempt, treat_none_as_default_value = false)]
pub(super) struct AttemptRow {
    pub(super) uid: String,
    pub(super) job: String,
    pub(super) customer: i64,
    pub(super) step: String,
    pub(super) variant: i32,
    pub(super) try_no: i32,
    pub(super) n: i32,
    pub(super) epoch: i64,
    pub(super) token: String,
    pub(super) request: Vec<u8>,
    pub(super) lease: String,
    pub(super) outcome: String,
    pub(super) class: Option<String>,
    pub(super) evidence: String,
    pub(super) output: String,
    pub(super) started_at: i64,
    pub(super) closed_at: Option<i64>,
    pub(super) quiet_until: Option<i64>,
    pub(super) version: i64,
}

/// Attempts whose guards came before, written with those of other items.
#[derive(Default)]
pub(super) struct NewAttempts(pub(super) Vec<AttemptRow>);

impl Later for NewAttempts {
    const ORDER: u8 = 1;

    fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        if super::insert_together!(connection, attempt::table, &self.0)? {
            return Ok(());
        }
        self.0.iter().try_for_each(|row| {
            let new = Prepared(diesel::insert_into(attempt::table).values(row));
            super::insert_new(new.execute(connection)).map(drop)
        })
    }
}

/// One call sent, written before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Attempt {
    /// Its name.
    pub uid: AttemptUid,
    /// Its job.
    pub job: JobUid,
    /// The job's tenant.
    pub customer: CustomerId,
    /// The step it belongs to.
    pub step: String,
    /// Which form of the step (other zone, other size).
    pub variant: u32,
    /// Which round of do and verdict.
    pub try_no: i32,
    /// Which call of the step in this round, from 1.
    pub n: i32,
    /// The fence of its writer.
    pub epoch: Epoch,
    /// The token or tag; the same for every resend.
    pub token: String,
    /// The complete request, sealed where it holds a secret; a resend is byte-equal.
    pub request: Vec<u8>,
    /// Which lease it used, without the secret; empty where it needed none.
    pub lease: String,
    /// What became of it.
    pub outcome: AttemptOutcome,
    /// Why it was refused.
    pub class: Option<ErrorClass>,
    /// What was seen: call, answer.
    pub evidence: String,
    /// What the step gave, for later steps.
    pub output: String,
    /// When it was written.
    pub started_at: Micros,
    /// When its outcome was written.
    pub closed_at: Option<Micros>,
    /// Until when an unanswered call may still land; written once, when nobody can send it any more. Of a throttled call:
    /// before this the provider wants no other.
    pub quiet_until: Option<Micros>,
    /// Counts the changes of the row.
    pub version: i64,
}

impl From<&Attempt> for AttemptRow {
    fn from(a: &Attempt) -> Self {
        Self {
            uid: a.uid.to_string(),
            job: a.job.to_string(),
            customer: a.customer.0,
            step: a.step.clone(),
            variant: i32::try_from(a.variant).unwrap_or(i32::MAX),
            try_no: a.try_no,
            n: a.n,
            epoch: a.epoch.0,
            token: a.token.clone(),
            request: a.request.clone(),
            lease: a.lease.clone(),
            outcome: a.outcome.to_string(),
            class: a.class.map(|c| c.to_string()),
            evidence: a.evidence.clone(),
            output: a.output.clone(),
            started_at: a.started_at.0,
            closed_at: a.closed_at.map(|at| at.0),
            quiet_until: a.quiet_until.map(|at| at.0),
            version: a.version,
        }
    }
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Error;

    fn try_from(row: AttemptRow) -> Result<Self, Error> {
        Ok(Self {
            uid: parse("attempt.uid", &row.uid)?,
            job: parse("attempt.job", &row.job)?,
            customer: CustomerId(row.customer),
            step: row.step,
            variant: u32::try_from(row.variant).unwrap_or(0),
            try_no: row.try_no,
            n: row.n,
            epoch: Epoch(row.epoch),
            token: row.token,
            request: row.request,
            lease: row.lease,
            outcome: parse("attempt.outcome", &row.outcome)?,
            class: row.class.map(|text| parse("attempt.class", &text)).transpose()?,
            evidence: row.evidence,
            output: row.output,
            started_at: Micros(row.started_at),
            closed_at: row.closed_at.map(Micros),
            quiet_until: row.quiet_until.map(Micros),
            version: row.version,
        })
    }
}

#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = evidence)]
pub(super) struct EvidenceRow {
    pub(super) subject: String,
    pub(super) source: String,
    pub(super) job: String,
    pub(super) customer: i64,
    pub(super) verdict: String,
    pub(super) text: String,
    pub(super) raw: String,
    pub(super) made_at: i64,
}

/// What somebody saw. Insert only, accepted from anyone, never tested against an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Evidence {
    /// The attempt or watch it is about.
    pub subject: String,
    /// Who says it; one row a subject and source.
    pub source: String,
    /// The job.
    pub job: JobUid,
    /// The job's tenant.
    pub customer: CustomerId,
    /// What it means.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
    /// The raw answer.
    pub raw: String,
    /// When it was written.
    pub made_at: Micros,
}

impl From<&Evidence> for EvidenceRow {
    fn from(e: &Evidence) -> Self {
        Self {
            subject: e.subject.clone(),
            source: e.source.clone(),
            job: e.job.to_string(),
            customer: e.customer.0,
            verdict: e.verdict.to_string(),
            text: e.text.clone(),
            raw: e.raw.clone(),
            made_at: e.made_at.0,
        }
    }
}

impl TryFrom<EvidenceRow> for Evidence {
    type Error = Error;

    fn try_from(row: EvidenceRow) -> Result<Self, Error> {
        Ok(Self {
            job: parse("evidence.job", &row.job)?,
            verdict: parse("evidence.verdict", &row.verdict)?,
            subject: row.subject,
            source: row.source,
            customer: CustomerId(row.customer),
            text: row.text,
            raw: row.raw,
            made_at: Micros(row.made_at),
        })
    }
}

/// Everything about one job that a decision may need.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct History {
    /// The job.
    pub job: Job,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What was seen, oldest first.
    pub evidence: Vec<Evidence>,
    /// Its watches, oldest first.
    pub watches: Vec<super::watch::Watch>,
}

impl History {
    /// A job of which nothing but its row exists.
    ///
    /// # Errors
    /// When a column does not parse.
    pub fn of_new(row: JobRow) -> Result<Self, Error> {
        typed(row, Vec::new(), Vec::new(), Vec::new())
    }
}

/// The row of one job.
///
/// # Errors
/// What the database reports.
pub fn by_uid(connection: &mut AnyConnection, uid: JobUid) -> QueryResult<Option<JobRow>> {
    job::table.find(uid.to_string()).select(JobRow::as_select()).first(connection).optional()
}

/// The row of a tenant's job with this number.
///
/// # Errors
/// What the database reports.
pub fn by_id(connection: &mut AnyConnection, customer: CustomerId, id: JobId) -> QueryResult<Option<JobRow>> {
    job::table
        .filter(job::id.eq(id.0).and(job::customer.eq(customer.0)))
        .select(JobRow::as_select())
        .first(connection)
        .optional()
}

/// Which jobs a list shows that nobody searches; [`super::search`] is for those somebody does.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only jobs about this server.
    pub server: Option<ServerId>,
    /// At most so many.
    pub limit: i64,
}

/// A tenant's jobs, newest first.
///
/// # Errors
/// What the database reports.
pub fn list(
    connection: &mut AnyConnection,
    customer: CustomerId,
    filter: &Filter,
) -> QueryResult<Vec<JobRow>> {
    let mut query = job::table.filter(job::customer.eq(customer.0)).select(JobRow::as_select()).into_boxed();
    if let Some(server) = filter.server {
        query = query.filter(job::server.eq(server.0));
    }
    query.order(job::id.desc()).limit(filter.limit).load(connection)
}

/// Jobs of a tenant whose rows changed at or after a point, oldest change first.
///
/// # Errors
/// What the database reports.
pub fn changed_since(
    connection: &mut AnyConnection,
    customer: CustomerId,
    since: Micros,
    limit: i64,
) -> QueryResult<Vec<JobRow>> {
    job::table
        .filter(job::customer.eq(customer.0).and(job::changed_at.ge(since.0)))
        .order((job::changed_at.asc(), job::id.asc()))
        .limit(limit)
        .select(JobRow::as_select())
        .load(connection)
}

/// The job with all that belongs to it.
///
/// # Errors
/// What the database reports; a row that does not parse becomes a deserialization error.
pub fn history(connection: &mut AnyConnection, uid: JobUid) -> QueryResult<Option<History>> {
    let Some(row) = by_uid(connection, uid)? else { return Ok(None) };
    let name = uid.to_string();
    let attempts: Vec<AttemptRow> = attempt::table
        .filter(attempt::job.eq(&name))
        .order((attempt::started_at.asc(), attempt::n.asc()))
        .select(AttemptRow::as_select())
        .load(connection)?;
    let evidence: Vec<EvidenceRow> = evidence::table
        .filter(evidence::job.eq(&name))
        .order(evidence::made_at.asc())
        .select(EvidenceRow::as_select())
        .load(connection)?;
    let watches = super::watch::of_job(connection, uid)?;
    typed(row, attempts, evidence, watches).map(Some).map_err(super::corrupt)
}

/// The histories of several jobs, in any order; those that are gone are left out. As many statements as for one.
///
/// # Errors
/// What the database reports.
pub fn histories(connection: &mut AnyConnection, uids: &[JobUid]) -> QueryResult<Vec<History>> {
    let names: Vec<String> = uids.iter().map(ToString::to_string).collect();
    let rows: Vec<JobRow> =
        job::table.filter(job::uid.eq_any(&names)).select(JobRow::as_select()).load(connection)?;
    let mut attempts: HashMap<String, Vec<AttemptRow>> = HashMap::new();
    let found = attempt::table.filter(attempt::job.eq_any(&names));
    let found = found.order((attempt::started_at.asc(), attempt::n.asc()));
    for row in found.select(AttemptRow::as_select()).load(connection)? {
        attempts.entry(row.job.clone()).or_default().push(row);
    }
    let mut seen: HashMap<String, Vec<EvidenceRow>> = HashMap::new();
    let found = evidence::table.filter(evidence::job.eq_any(&names)).order(evidence::made_at.asc());
    for row in found.select(EvidenceRow::as_select()).load(connection)? {
        seen.entry(row.job.clone()).or_default().push(row);
    }
    let mut watches: HashMap<JobUid, Vec<super::watch::Watch>> = HashMap::new();
    for watch in super::watch::of_jobs(connection, &names)? {
        watches.entry(watch.job).or_default().push(watch);
    }
    let whole = |row: JobRow| {
        let (attempts, seen) = (attempts.remove(&row.uid), seen.remove(&row.uid));
        let watches = row.uid.parse().ok().and_then(|uid: JobUid| watches.remove(&uid));
        typed(row, attempts.unwrap_or_default(), seen.unwrap_or_default(), watches.unwrap_or_default())
    };
    rows.into_iter().map(whole).collect::<Result<_, _>>().map_err(super::corrupt)
}

fn typed(
    row: JobRow,
    attempts: Vec<AttemptRow>,
    evidence: Vec<EvidenceRow>,
    watches: Vec<super::watch::Watch>,
) -> Result<History, Error> {
    Ok(History {
        job: row.try_into()?,
        attempts: attempts.into_iter().map(Attempt::try_from).collect::<Result<_, _>>()?,
        evidence: evidence.into_iter().map(Evidence::try_from).collect::<Result<_, _>>()?,
        watches,
    })
}

/// Jobs by open state, and when the oldest queued one was made.
pub type OpenCounts = (Vec<(String, i64)>, Option<i64>);

/// How many jobs are in each open state, and when the oldest queued one was made.
///
/// # Errors
/// What the database reports.
pub fn open_counts(connection: &mut AnyConnection) -> QueryResult<OpenCounts> {
    let counts = job::table
        .filter(job::ended_at.is_null())
        .group_by(job::state)
        .select((job::state, diesel::dsl::count_star()))
        .load(connection)?;
    let oldest = job::table
        .filter(job::ended_at.is_null().and(job::state.eq(JobState::Queued.as_str())))
        .select(diesel::dsl::min(job::created_at))
        .first(connection)?;
    Ok((counts, oldest))
}

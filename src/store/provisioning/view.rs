//! Reads that only pages and lists need.

use diesel::prelude::*;

use super::job::JobRow;
use super::schema::{guest_command, job, output};
use super::search::{self, Search};
use crate::model::{CustomerId, JobState, JobUid, Micros};
use crate::store::AnyConnection;

/// How many jobs a tenant has in each state: exact up to [`search::COUNTED`], one more where there are more.
///
/// # Errors
/// What the database reports.
pub fn counts(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<(String, i64)>> {
    Ok(search::counts(connection, &Search::all(customer))?.states)
}

/// States in which nobody works on a job.
pub(super) const WAITING: [JobState; 3] = [JobState::Queued, JobState::Awaiting, JobState::Quarantined];

/// The waiting job of a tenant that was asked for first: one look into an index for each such state, because other
/// jobs would stand in the way of a walk from the oldest.
///
/// # Errors
/// What the database reports.
pub fn oldest_waiting(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Option<JobRow>> {
    let mut oldest: Option<JobRow> = None;
    for state in WAITING {
        let found: Option<JobRow> = job::table
            .filter(job::customer.eq(customer.0).and(job::state.eq(state.as_str())))
            .order(job::id.asc())
            .select(JobRow::as_select())
            .first(connection)
            .optional()?;
        oldest = match (oldest, found) {
            (Some(one), Some(other)) if other.id < one.id => Some(other),
            (one, other) => one.or(other),
        };
    }
    Ok(oldest)
}

/// The database's clock.
///
/// # Errors
/// What the database reports.
pub fn now(connection: &mut AnyConnection) -> QueryResult<Micros> {
    connection.now()
}

/// Pieces read at once; a piece is as long as the guest sent it.
const PIECES: i64 = 64;

/// What a job's latest command wrote to a stream from a byte on: at most `longest` bytes, without a gap. Empty when
/// nothing is stored there, or not yet.
///
/// # Errors
/// What the database reports.
pub fn output(
    connection: &mut AnyConnection,
    uid: JobUid,
    stream: &str,
    from: i64,
    longest: usize,
) -> QueryResult<Vec<u8>> {
    let latest: Option<String> = guest_command::table
        .filter(guest_command::job.eq(uid.to_string()))
        .order(guest_command::seq.desc())
        .select(guest_command::id)
        .first(connection)
        .optional()?;
    let Some(command) = latest else { return Ok(Vec::new()) };
    // The piece that holds the first byte may begin before it.
    let first: Option<i64> = output::table
        .filter(output::command.eq(&command).and(output::stream.eq(stream)).and(output::start.le(from)))
        .select(diesel::dsl::max(output::start))
        .first(connection)?;
    let Some(first) = first else { return Ok(Vec::new()) };
    let pieces: Vec<(i64, Vec<u8>)> = output::table
        .filter(output::command.eq(&command).and(output::stream.eq(stream)).and(output::start.ge(first)))
        .order(output::start.asc())
        .limit(PIECES)
        .select((output::start, output::data))
        .load(connection)?;
    Ok(joined(&pieces, from, longest))
}

fn joined(pieces: &[(i64, Vec<u8>)], from: i64, longest: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from;
    for (start, data) in pieces {
        let Ok(skip) = usize::try_from(at - start) else { break };
        let rest = data.get(skip..).unwrap_or_default();
        bytes.extend_from_slice(rest);
        at = at.saturating_add(i64::try_from(rest.len()).unwrap_or(0));
        if bytes.len() >= longest {
            break;
        }
    }
    bytes.truncate(longest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn output_is_cut_by_bytes_and_never_jumps_over_a_gap() {
        let pieces = vec![(0, b"abc".to_vec()), (3, b"def".to_vec()), (9, b"xyz".to_vec())];
        assert_eq!(joined(&pieces, 0, 100), b"abcdef");
        assert_eq!(joined(&pieces, 2, 3), b"cde");
        assert_eq!(joined(&pieces, 6, 100), b"");
        assert_eq!(joined(&pieces[2..], 10, 100), b"yz");
        // A piece that was sent again with more in it.
        assert_eq!(joined(&[(0, b"ab".to_vec()), (1, b"bcd".to_vec())], 0, 100), b"abcd");
        assert_eq!(joined(&[], 0, 100), b"");
    }
}

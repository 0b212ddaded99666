//! What must hold of the rows whatever happened: every breach of the protocol's invariants that rows can show.
//!
//! Meant for a database that has come to rest: no open job can go on any more, or none is left. It only reads. The
//! invariants are those of `docs/PROTOCOL.md`, "Invariants"; those that only code can see are assertions where the move
//! is made.

mod rows;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use diesel::QueryResult;

use crate::model::Micros;
use crate::store::AnyConnection;

/// An invariant, by its number in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`rule` says each in a sentence")]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
    I13,
    I14,
}

impl Invariant {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
    ];

    /// The rule.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::I1 => "an end is written once, with the state of an end",
            Self::I2 => "the epoch rises only in a claim",
            Self::I3 => "nobody writes to a job under an epoch that is over",
            Self::I4 => "a call has an attempt that was written before",
            Self::I5 => "the same step and variant has the same token and the same bytes",
            Self::I6 => "a job that failed or was cancelled has left nothing open",
            Self::I7 => "a complete job has evidence of its round, and nobody wanted it undone",
            Self::I8 => "what a job made has an owner, or somebody looks for it",
            Self::I9 => "a command has its effect on a guest at most once, and none when it was taken back",
            Self::I10 => "an open job has a living owner, a due time or an open watch",
            Self::I11 => "each request has one job, and each key names it",
            Self::I12 => "an owner is a life that is known",
            Self::I13 => "every job ends by its deadline, Q and a minute",
            Self::I14 => "nothing outside is named by two jobs",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A breach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Of what.
    pub invariant: Invariant,
    /// The job's number, where one is concerned.
    pub job: Option<i64>,
    /// What the rows show.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(job) = self.job {
            write!(f, " job {job}")?;
        }
        write!(f, ": {} ({})", self.text, self.invariant.rule())
    }
}

/// The time at which rows are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Now, in the database's clock.
    pub now: Micros,
    /// The longest Q of any provider, and what the run itself may have cost a job: outages, and the time until a killed
    /// process was there again.
    pub quiet: Duration,
}

/// Every breach that the rows show, by invariant and job.
///
/// # Errors
/// What the database reports.
pub fn violations(connection: &mut AnyConnection, moment: Moment) -> QueryResult<Vec<Violation>> {
    let rows = rows::read(connection)?;
    let mut found = rules::breaches(&rows, moment);
    found.sort();
    found.dedup();
    Ok(found)
}

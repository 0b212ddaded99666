//! A lane on a server, piece by piece.
//!
//! Asked for whole rows, MariaDB may take an index by the tenant alone and go through all of its numbers from the newest
//! on, however far down a page begins. Asked for what the index of the lane holds, it begins where it is told to; the
//! rows are then read by their names.

use diesel::prelude::*;

use super::{Lane, Search, Span};
use crate::store::AnyConnection;
use crate::store::provisioning::schema::job;

/// See the module.
pub(super) struct Pieces<'a> {
    lane: &'a Lane,
    span: Span,
    /// Rows of the next piece; none when the lane has ended.
    size: i64,
}

/// Most rows of a piece.
pub(super) const PIECE: i64 = 1000;

impl<'a> Pieces<'a> {
    /// A lane within bounds, whose first piece has so many rows.
    pub(super) const fn of(lane: &'a Lane, span: Span, size: i64) -> Self {
        Self { lane, span, size }
    }

    /// Names of the next rows, the newest first; nothing at the end.
    pub(super) fn next(
        &mut self,
        search: &Search,
        connection: &mut AnyConnection,
    ) -> QueryResult<Option<Vec<String>>> {
        if self.size == 0 {
            return Ok(None);
        }
        let rows = search.lane(self.lane, self.span).order(job::id.desc()).limit(self.size);
        let found: Vec<(String, i64)> = rows.select((job::uid, job::id)).load(connection)?;
        let Some((_, last)) = found.last() else { return Ok(None) };
        self.span = self.span.under(*last);
        let whole = i64::try_from(found.len()).is_ok_and(|count| count == self.size);
        // What nearly all fit is found at once; what few fit, in few pieces.
        self.size = if whole { (self.size * 4).min(PIECE) } else { 0 };
        Ok(Some(found.into_iter().map(|(name, _)| name).collect()))
    }
}

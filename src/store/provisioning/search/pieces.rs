//! A lane on a server, piece by piece.
//!
//! Asked for whole rows, MariaDB may take an index by the tenant alone and go through all of its numbers from the newest
//! on, however far down a page begins. Asked for what the index of the lane holds it mostly begins where it is told to,
//! and sometimes not: with a limit it may hope to meet enough rows soon on any index that is in order. So numbers are
//! bounded on both sides, by windows that grow; the rows are then read by their names.

use diesel::prelude::*;

use super::{Lane, Search, Span};
use crate::store::AnyConnection;
use crate::store::provisioning::schema::job;

/// See the module.
pub(super) struct Pieces<'a> {
    lane: &'a Lane,
    windows: Windows,
    /// The window that is read now; none when the lane has ended.
    window: Option<Span>,
    /// Rows of the next piece.
    size: i64,
}

/// Most rows of a piece.
pub(super) const PIECE: i64 = 1000;

impl<'a> Pieces<'a> {
    /// A lane within bounds, whose first piece has so many rows.
    pub(super) fn of(lane: &'a Lane, span: Span, size: i64) -> Self {
        let mut windows = Windows::of(span);
        let window = windows.next();
        Self { lane, windows, window, size }
    }

    /// Names of the next rows, the newest first; nothing at the end.
    pub(super) fn next(
        &mut self,
        search: &Search,
        connection: &mut AnyConnection,
    ) -> QueryResult<Option<Vec<String>>> {
        while let Some(window) = self.window {
            let rows = search.lane(self.lane, window).order(job::id.desc()).limit(self.size);
            let found: Vec<(String, i64)> = rows.select((job::uid, job::id)).load(connection)?;
            let whole = i64::try_from(found.len()).is_ok_and(|count| count == self.size);
            self.window = match found.last() {
                Some((_, last)) if whole => Some(window.under(*last)),
                _ => self.windows.next(),
            };
            if !found.is_empty() {
                // What nearly all fit is found at once; what few fit, in few pieces.
                self.size = (self.size * 4).min(PIECE);
                return Ok(Some(found.into_iter().map(|(name, _)| name).collect()));
            }
        }
        Ok(None)
    }
}

/// Bounds that follow each other downwards and together are those of a span. One that is open above is a window of its
/// own: it begins at the newest, where every index begins.
pub(super) struct Windows {
    left: Option<Span>,
    numbers: i64,
}

/// Numbers in the first window, and how much more the next has.
const FIRST: i64 = 4096;
const GROWTH: i64 = 16;

impl Windows {
    pub(super) const fn of(span: Span) -> Self {
        Self { left: Some(span), numbers: FIRST }
    }
}

impl Iterator for Windows {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let span = self.left?;
        let lowest = span.above.unwrap_or(0);
        let cut = span.below.map(|below| below.saturating_sub(self.numbers)).filter(|cut| *cut > lowest);
        let Some(cut) = cut else {
            self.left = None;
            return Some(span);
        };
        self.numbers = self.numbers.saturating_mul(GROWTH);
        self.left = Some(span.under(cut + 1));
        Some(span.over(cut))
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Span, Windows};

    #[test]
    fn windows_follow_each_other_without_a_gap_and_end_where_the_span_ends() {
        for (above, below) in [(None, 10_000_000), (Some(17), 1_000_000), (Some(5), 6), (None, 1)] {
            let span = Span { above, below: Some(below) };
            let mut next = below;
            let mut count = 0;
            for window in Windows::of(span) {
                assert_eq!(window.below, Some(next), "{window:?}");
                next = window.above.map_or(0, |above| above + 1);
                count += 1;
            }
            assert_eq!(next, above.map_or(0, |above| above + 1), "{span:?}");
            assert!(count <= 6, "{count}");
        }
        let open = Span { above: Some(3), below: None };
        assert_eq!(Windows::of(open).map(|w| (w.above, w.below)).collect::<Vec<_>>(), [(Some(3), None)]);
        let first = Windows::of(Span { above: None, below: Some(1_000_000) }).next().expect("one");
        assert_eq!(first.above, Some(1_000_000 - FIRST));
    }
}

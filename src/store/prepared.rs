//! Changes whose statement is prepared once a connection.
//!
//! Diesel prepares an `UPDATE` anew at each use, because its text may depend on which fields are set, and on a server an
//! `INSERT` too, because a field may be left to its default. On SQLite that costs more than running it, on a server a
//! round trip. The moves of a job set the same columns each time, so their texts are few.

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};

/// A statement kept by its text. Only for statements with a handful of different texts: each stays in memory as long
/// as its connection.
pub(crate) struct Prepared<Q>(pub(crate) Q);

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();
    // The text is the key: two statements of one type may have different texts.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q, Conn> diesel::RunQueryDsl<Conn> for Prepared<Q> {}

//! Public integer ids, handed out in blocks so that a submit costs no extra commit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use diesel::prelude::*;
use tokio::sync::Mutex;

use super::schema::sequencer;
use crate::store::{AnyConnection, Error, Store};

/// What ids are handed out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sequence {
    /// Jobs.
    Job,
    /// Servers, agents, billing codes: everything else with a number.
    Resource,
    /// Commands for guests: their order per target.
    Command,
    /// Audit records.
    Audit,
}

impl Sequence {
    const fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Resource => "resource",
            Self::Command => "command",
            Self::Audit => "audit",
        }
    }

    /// First id handed out; small numbers are left to seeds.
    const FIRST: i64 = 10_001;
}

/// Takes the next block; the guard is the compare-and-set on the value read.
fn take(connection: &mut AnyConnection, name: &str, block: i64) -> QueryResult<Option<i64>> {
    let next: Option<i64> =
        sequencer::table.find(name).select(sequencer::next_key).first(connection).optional()?;
    match next {
        None => {
            let row = (sequencer::name.eq(name), sequencer::next_key.eq(Sequence::FIRST + block));
            let new =
                super::insert_new(diesel::insert_into(sequencer::table).values(row).execute(connection))?;
            Ok(new.then_some(Sequence::FIRST))
        }
        Some(first) => {
            let row = sequencer::table.filter(sequencer::name.eq(name).and(sequencer::next_key.eq(first)));
            let taken = diesel::update(row).set(sequencer::next_key.eq(first + block)).execute(connection)?;
            Ok((taken == 1).then_some(first))
        }
    }
}

/// Hands out ids. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Sequencer {
    store: Store,
    blocks: Arc<Mutex<HashMap<Sequence, Range<i64>>>>,
}

impl Sequencer {
    const BLOCK: i64 = 256;

    /// A sequencer over this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, blocks: Arc::default() }
    }

    /// The next id. An id is never handed out twice; some are skipped at a restart.
    ///
    /// # Errors
    /// When a new block is needed and the database does not give it.
    pub async fn next(&self, sequence: Sequence) -> Result<i64, Error> {
        let mut blocks = self.blocks.lock().await;
        let block = blocks.entry(sequence).or_insert(0..0);
        loop {
            if let Some(id) = block.next() {
                return Ok(id);
            }
            let name = sequence.name();
            if let Some(first) = self.store.write(move |c| take(c, name, Self::BLOCK)).await? {
                *block = first..first + Self::BLOCK;
            }
        }
    }
}

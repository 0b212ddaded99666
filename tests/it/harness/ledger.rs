//! What really happened, as cloud and guests wrote it down: read by the product's own reader of ledgers.

use std::path::Path;

pub(crate) use dispatcher::cli::verify::ledger::Ledger;

/// The ledgers of a data folder.
#[track_caller]
pub(crate) fn read(data: &Path) -> Ledger {
    Ledger::read(data).expect("ledgers that can be read")
}

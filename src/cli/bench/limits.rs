//! What the machine itself gives: the figures to compare with.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::percentile;
use crate::cli::client::Error;
use crate::model::{AccountId, CustomerId, JobId, JobParams, JobUid, NoopParams, Uid, UserId};
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::{Manager, PROVISIONING, Settings, Store};

/// Overwrites 4 KiB and waits for the disk, again and again: how often a second, and the median in milliseconds.
pub(super) fn fdatasync(folder: &Path, span: Duration) -> Result<(f64, f64), Error> {
    let path = folder.join("fdatasync");
    let mut file = std::fs::File::create(&path)?;
    let block = [7_u8; 4096];
    file.write_all(&block)?;
    file.sync_all()?;
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < span {
        let one = Instant::now();
        std::os::unix::fs::FileExt::write_all_at(&file, &block, 0)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok((rate(took.len(), began.elapsed()), percentile(&mut took, 50)))
}

/// One job row a write, with its indexes, through the group-committing writer alone: rows a second.
pub(super) async fn group_commit(folder: &Path, senders: usize, span: Duration) -> Result<f64, Error> {
    let url = format!("sqlite://{}/limit-{senders}.db", folder.display());
    let manager = Manager::new(&url).map_err(|e| Error::Usage(e.to_string()))?;
    let store = Store::open(PROVISIONING, &Settings::new(manager), Arc::new(|_, _| {}))
        .map_err(|e| Error::Usage(format!("the database of the limit does not open: {e}")))?;
    let began = Instant::now();
    let tasks: Vec<_> =
        (0..senders).map(|sender| actix_rt::spawn(insert(store.clone(), sender, span))).collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap_or(0);
    }
    Ok(rate(rows, began.elapsed()))
}

async fn insert(store: Store, sender: usize, span: Duration) -> usize {
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < span {
        let submit = job(sender, rows);
        if store.write(move |c| accept::accept(c, &submit)).await.is_err() {
            break;
        }
        rows += 1;
    }
    rows
}

/// A job that nobody will run: no dispatcher works on this database.
fn job(sender: usize, n: usize) -> Submit {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Submit {
        entry: Entry {
            customer: CustomerId(1),
            access_key: "bench".to_owned(),
            request: Uid::random(),
            replay: None,
            idem: None,
            repeat_by_key: false,
        },
        uid: JobUid::random(),
        id: JobId(number(sender) * 100_000_000 + number(n)),
        account: AccountId(1),
        person: UserId(1),
        params: JobParams::Noop(NoopParams::default()),
        description: "Do nothing".to_owned(),
        priority: 0,
        delay: Duration::ZERO,
        limit: Duration::from_secs(60),
        server: None,
    }
}

/// So many in so long, a second.
pub(super) fn rate(count: usize, span: Duration) -> f64 {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    count / span.as_secs_f64().max(1e-9)
}

//! What the machine itself gives: the figures to compare with.

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::percentile;
use crate::cli::client::Error;
use crate::model::{AccountId, CustomerId, JobId, JobParams, JobUid, NoopParams, Uid, UserId};
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::provisioning::schema::job;
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

/// A new file for the limit of an embedded database.
pub(super) fn file(folder: &Path) -> Result<Manager, Error> {
    let url = format!("sqlite://{}/limit-{}.db", folder.display(), Uid::random());
    Manager::new(&url).map_err(|e| Error::Usage(e.to_string()))
}

/// The database with the jobs of a process on embedded parts.
pub(super) fn of_place(folder: &Path) -> Result<Manager, Error> {
    let url = format!("sqlite://{}/data/provisioning.db", folder.display());
    Manager::new(&url).map_err(|e| Error::Usage(e.to_string()))
}

/// One job row a write, with its indexes, through the group-committing writer alone: rows a second.
pub(super) async fn group_commit(manager: Manager, senders: usize, span: Duration) -> Result<f64, Error> {
    let store = Store::open(PROVISIONING, &Settings::new(manager), Arc::new(|_, _| {}))
        .map_err(|e| Error::Usage(format!("the database of the limit does not open: {e}")))?;
    let numbers = Rc::new(Cell::new(first_free(&store).await?));
    let began = Instant::now();
    let tasks: Vec<_> =
        (0..senders).map(|_| actix_rt::spawn(insert(store.clone(), Rc::clone(&numbers), span))).collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap_or(0);
    }
    Ok(rate(rows, began.elapsed()))
}

async fn insert(store: Store, numbers: Rc<Cell<i64>>, span: Duration) -> usize {
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < span {
        // In the order of time, as the dispatcher hands them out.
        let submit = job_numbered(numbers.replace(numbers.get() + 1));
        if store.write(move |c| accept::accept(c, &submit)).await.is_err() {
            break;
        }
        rows += 1;
    }
    rows
}

/// A number no job of this database has: it may have been measured before.
async fn first_free(store: &Store) -> Result<i64, Error> {
    use diesel::prelude::*;
    let last = store.read(|c| job::table.select(diesel::dsl::max(job::id)).first::<Option<i64>>(c)).await;
    let last = last.map_err(|e| Error::Usage(format!("the database of the limit cannot be read: {e}")))?;
    Ok(last.unwrap_or_default() + 1)
}

/// A job that nobody will run: no dispatcher works on this database.
fn job_numbered(number: i64) -> Submit {
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
        id: JobId(number),
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

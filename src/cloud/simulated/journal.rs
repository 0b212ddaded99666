//! The cloud's truth on disk: one line of JSON for each effect, appended, made durable before it is answered.
//!
//! One thread writes. While it waits for the disk the next lines collect, so many launches share one fdatasync. The
//! file is also the effects ledger by which tests count what really happened; no user data is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use tokio::sync::watch;

use super::error::Error;
use super::machine::{Effect, World};

/// Most bytes written with one fdatasync.
const BATCH_BYTES: usize = 1 << 20;

/// How far the file is durable.
#[derive(Clone, Debug, Default)]
struct Progress {
    durable: u64,
    failed: Option<String>,
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    lines: mpsc::Sender<(u64, Vec<u8>)>,
    last: u64,
    progress: watch::Receiver<Progress>,
}

/// A place in the journal that can be waited for.
#[derive(Debug)]
pub(super) struct Mark {
    seq: u64,
    progress: watch::Receiver<Progress>,
}

impl Mark {
    /// Waits until everything up to here is durable. Dropping the future changes nothing.
    ///
    /// The error is the text of the fault that stopped the journal: what was appended may be durable or not.
    pub(super) async fn durable(mut self) -> Result<(), String> {
        match self.progress.wait_for(|p| p.durable >= self.seq || p.failed.is_some()).await {
            Ok(progress) if progress.durable >= self.seq => Ok(()),
            Ok(progress) => Err(progress.failed.clone().unwrap_or_default()),
            Err(_closed) => Err("the journal's thread has ended".to_owned()),
        }
    }
}

impl Journal {
    /// Reads the journal, cuts a torn tail off and opens it for appending. Blocks on the disk.
    pub(super) fn open(path: &Path) -> Result<(Self, World), Error> {
        let text = read(path)?;
        let (world, whole) = replay(&text, path)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::file("open", path))?;
        let length = u64::try_from(whole).unwrap_or(u64::MAX);
        file.set_len(length).and_then(|()| file.sync_all()).map_err(Error::file("repair", path))?;
        sync_folder_of(path)?;
        Ok((Self::start(file)?, world))
    }

    /// Opens the journal again after a failed write: the whole lines go to a fresh file that takes the old one's
    /// place, because nothing tells which pages of the old one reached the disk. Blocks on the disk.
    pub(super) fn reopen(path: &Path) -> Result<(Self, World), Error> {
        let text = read(path)?;
        let (world, whole) = replay(&text, path)?;
        let fresh = PathBuf::from(format!("{}.new", path.display()));
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&fresh).map_err(Error::file("create", &fresh))?;
        file.write_all(text.get(..whole).unwrap_or_default()).map_err(Error::file("write", &fresh))?;
        file.sync_all().map_err(Error::file("sync", &fresh))?;
        std::fs::rename(&fresh, path).map_err(Error::file("rename into place", &fresh))?;
        sync_folder_of(path)?;
        Ok((Self::start(file)?, world))
    }

    /// Starts the writer at the end of an open file.
    pub(super) fn start(file: File) -> Result<Self, Error> {
        let (lines, from) = mpsc::channel();
        let (news, progress) = watch::channel(Progress::default());
        thread::Builder::new()
            .name("cloud-journal".to_owned())
            .spawn(move || write_lines(file, &from, &news))
            .map_err(|source| Error::Thread { purpose: "the cloud's journal", source })?;
        Ok(Self { lines, last: 0, progress })
    }

    /// Hands a line to the writer. Called under the lock that guards the world, so that lines stand in the order in
    /// which effects were taken over.
    pub(super) fn append(&mut self, effect: &Effect) -> Mark {
        self.last += 1;
        let mut line = serde_json::to_vec(effect).unwrap_or_default();
        line.push(b'\n');
        // A writer that has ended is seen by whoever waits for the mark.
        let _ended = self.lines.send((self.last, line));
        self.mark()
    }

    /// The place after the last line appended.
    pub(super) fn mark(&self) -> Mark {
        Mark { seq: self.last, progress: self.progress.clone() }
    }

    /// Whether the writer has stopped for a fault.
    pub(super) fn has_failed(&self) -> bool {
        self.progress.borrow().failed.is_some()
    }
}

/// Replays the text; answers the world and how many bytes of the text are whole lines.
pub(super) fn replay(text: &[u8], path: &Path) -> Result<(World, usize), Error> {
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        log::warn!("cut a torn last line of {} bytes off {}", text.len() - whole, path.display());
    }
    let mut world = World::default();
    let lines = text.get(..whole).unwrap_or_default().split_inclusive(|b| *b == b'\n');
    for (at, line) in lines.enumerate() {
        let number = at + 1;
        let effect: Effect = serde_json::from_slice(line).map_err(|source| Error::Garbled {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        world.apply(&effect).map_err(|source| Error::Contradicted {
            path: path.to_owned(),
            line: number,
            source,
        })?;
    }
    Ok((world, whole))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    match std::fs::read(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::file("read", path)(e)),
    }
}

fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::file("sync", folder))
}

fn write_lines(mut file: File, from: &mpsc::Receiver<(u64, Vec<u8>)>, news: &watch::Sender<Progress>) {
    while let Ok((mut durable, mut batch)) = from.recv() {
        while batch.len() < BATCH_BYTES {
            let Ok((seq, line)) = from.try_recv() else { break };
            durable = seq;
            batch.extend_from_slice(&line);
        }
        if let Err(error) = file.write_all(&batch).and_then(|()| file.sync_data()) {
            log::error!("cannot write the simulated cloud's journal: {error}");
            news.send_modify(|p| p.failed = Some(error.to_string()));
            return;
        }
        news.send_modify(|p| p.durable = durable);
    }
}

//! The journal on disk: what makes "once" survive the agent's own death.
//!
//! One line a record, `<first 8 hexadecimal digits of the record's SHA-256> <record as JSON>`. A torn last line is what
//! a crash leaves and is cut off; a broken line before the last is damage, and the agent refuses to start on it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::machine::{Book, Record};
use super::{Error, files};
use crate::model::Micros;

/// The open journal. Its methods block until the disk has answered.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Records written since the file was last made anew.
    written: u32,
    /// Bytes that are known to be on the disk.
    whole: u64,
    /// The last write failed: nobody can tell what of it, or of the file's pages, reached the disk.
    doubtful: bool,
}

/// Records after which a running agent makes its journal anew: at some 200 bytes each, a file of 10 MB.
const COMPACT_AFTER: u32 = 50_000;

impl Journal {
    /// Reads the journal, forgets what is older than `keep`, and opens it for appending.
    pub(super) fn open(path: &Path, now: Micros, keep: Duration) -> Result<(Self, Book), Error> {
        let content = files::read(path)?.unwrap_or_default();
        let mut book = Book::default();
        for record in parse(&content).map_err(|offset| Error::Journal { path: path.to_owned(), offset })? {
            book.apply(record);
        }
        book.forget_before(now.minus(keep));
        let (file, whole) = rewrite(path, &book)?;
        Ok((Self { path: path.to_owned(), file, written: 0, whole, doubtful: false }, book))
    }

    /// Whether enough was written that [`Journal::compact`] is worth its time.
    pub(super) const fn is_long(&self) -> bool {
        self.written >= COMPACT_AFTER
    }

    /// Makes the file anew from a book that holds all its records.
    pub(super) fn compact(&mut self, book: &Book) -> Result<(), Error> {
        (self.file, self.whole) = rewrite(&self.path, book)?;
        (self.written, self.doubtful) = (0, false);
        Ok(())
    }

    /// Writes a record; when this returns it survives a power cut. A record that could not be written is not in the
    /// journal: after a failure the file is not trusted again, the next record goes to a fresh one.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), Error> {
        if self.doubtful {
            self.renew()?;
        }
        let line = line(record);
        let stored = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = stored {
            self.doubtful = true;
            return Err(Error::file("write", &self.path)(error));
        }
        self.whole = self.whole.saturating_add(line.len() as u64);
        self.written = self.written.saturating_add(1);
        Ok(())
    }

    /// Puts a fresh file with what is known to be on the disk in the place of the doubtful one.
    fn renew(&mut self) -> Result<(), Error> {
        let mut content = files::read(&self.path)?.unwrap_or_default();
        content.truncate(usize::try_from(self.whole).unwrap_or(usize::MAX));
        files::replace(&self.path, &content)?;
        self.file = files::append(&self.path)?;
        self.doubtful = false;
        log::warn!("the journal was made anew after a write of it had failed");
        Ok(())
    }
}

/// The fresh file, open for appending, and how long it is.
fn rewrite(path: &Path, book: &Book) -> Result<(File, u64), Error> {
    let mut content = Vec::new();
    for record in book.records() {
        content.extend(line(&record));
    }
    files::replace(path, &content)?;
    Ok((files::append(path)?, content.len() as u64))
}

fn line(record: &Record) -> Vec<u8> {
    // Records hold only strings, numbers and enums, which always have a text; an empty one would be found broken.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{} {json}\n", checksum(json.as_bytes())).into_bytes()
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The records of a journal, without a torn tail; or the offset of a broken line that is not the last.
fn parse(content: &[u8]) -> Result<Vec<Record>, u64> {
    let mut records = Vec::new();
    let mut offset = 0;
    let mut lines = content.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(text) = lines.next() {
        match parse_line(text) {
            Some(record) => records.push(record),
            None if lines.peek().is_none() => break,
            None => return Err(offset),
        }
        offset += text.len() as u64;
    }
    Ok(records)
}

fn parse_line(text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
    let (sum, json) = text.split_once(' ')?;
    if sum != checksum(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, JobUid, ServerId};
    use crate::wire::{CommandId, CommandResult, Offsets, Outcome};

    const KEEP: Duration = Duration::from_secs(3600);

    fn records() -> Vec<Record> {
        let command = CommandId::new(JobUid::random(), "run", 1, ServerId(7)).expect("valid");
        let result =
            CommandResult { outcome: Outcome::Cancelled, output: Offsets::default(), at: Micros::wall() };
        vec![
            Record::Floor { job: JobUid::random(), epoch: Epoch(3), at: Micros::wall() },
            Record::Started { command: command.clone(), epoch: Epoch(1), at: Micros::wall() },
            Record::Done { command, result },
        ]
    }

    #[test]
    fn after_a_write_that_failed_the_next_goes_to_a_fresh_file_without_the_failed_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let records = records();
        let (mut journal, _) = Journal::open(&path, Micros::wall(), KEEP).expect("opened");
        journal.write(&records[0]).expect("written");
        // Half a line reached the file, and nothing can be written to it any more.
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&line(&records[1])[..20]))
            .expect("torn");
        journal.file = File::open(&path).expect("for reading only");
        journal.write(&records[1]).expect_err("it cannot be written");
        journal.write(&records[2]).expect("written to a fresh file");
        drop(journal);
        let (_, book) = Journal::open(&path, Micros::wall(), KEEP).expect("nothing is broken in it");
        assert_eq!(book, book_of(&[records[0].clone(), records[2].clone()]));
    }

    fn book_of(records: &[Record]) -> Book {
        let mut book = Book::default();
        records.iter().cloned().for_each(|record| book.apply(record));
        book
    }

    #[test]
    fn a_torn_tail_at_any_byte_costs_the_last_record_only() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal");
        let records = records();
        let whole: Vec<u8> = records.iter().flat_map(line).collect();
        let last = whole.len() - line(&records[2]).len();
        for cut in last..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let (mut journal, book) = Journal::open(&path, Micros::wall(), KEEP).expect("opens");
            assert_eq!(book, book_of(&records[..2]), "cut at {cut}");
            journal.write(&records[2]).expect("written");
            let (_, again) = Journal::open(&path, Micros::wall(), KEEP).expect("opens");
            assert_eq!(again, book_of(&records), "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_last_line_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal");
        let records = records();
        let mut whole: Vec<u8> = records.iter().flat_map(line).collect();
        let second = line(&records[0]).len();
        whole[second + 20] ^= 1;
        std::fs::write(&path, &whole).expect("written");
        let error = Journal::open(&path, Micros::wall(), KEEP).expect_err("damaged");
        assert!(matches!(error, Error::Journal { offset, .. } if offset == second as u64), "{error}");
    }
}

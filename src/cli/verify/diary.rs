//! What clients write down, apart from everything that is killed: durable before a request leaves and after it is answered.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Error;

/// One line of a client's log.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line {
    /// About to send this body. The mark stands in it too, so that a job tells which request made it.
    Invoke {
        /// The mark; the idempotency key where one is sent.
        mark: String,
        /// Whether the mark is sent as the key.
        keyed: bool,
        /// What is sent.
        body: Value,
    },
    /// 202 with this job.
    Ok {
        /// Of which request.
        mark: String,
        /// The job's number.
        job: i64,
    },
    /// No answer: it may have been taken or not.
    Indefinite {
        /// Of which request.
        mark: String,
    },
    /// Nobody was there, or it was refused for now: it was not taken.
    NotTaken {
        /// Of which request.
        mark: String,
    },
    /// A cancel of this job was accepted.
    Cancelled {
        /// The job's number.
        job: i64,
    },
    /// An answer that should not come.
    Odd {
        /// Of which request.
        mark: String,
        /// What came.
        text: String,
    },
}

/// A client's log.
pub(super) struct Diary {
    path: PathBuf,
    file: Option<File>,
}

impl Diary {
    /// A fresh one.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let file = File::options().create_new(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    /// Writes a line; when this returns it survives a power cut.
    pub(super) async fn write(&mut self, line: &Line) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        let Some(mut file) = self.file.take() else {
            return Err(Error::Failed(format!("{} is closed", self.path.display())));
        };
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&text)?;
            file.sync_data()?;
            Ok::<_, std::io::Error>(file)
        });
        self.file = Some(written.await.map_err(std::io::Error::other)??);
        Ok(())
    }

    /// Reads all lines of a log.
    pub(super) fn read(path: &Path) -> Result<Vec<Line>, Error> {
        let text = std::fs::read_to_string(path)?;
        let line = |line: &str| {
            serde_json::from_str(line)
                .map_err(|e| Error::Failed(format!("{} holds a line of others: {e}", path.display())))
        };
        text.lines().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Diary, Line};
    use serde_json::json;

    #[actix_rt::test]
    async fn what_was_written_is_read_back_and_no_log_is_written_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("client-0.log");
        let lines = [
            Line::Invoke { mark: "m".into(), keyed: true, body: json!({"kind": "noop"}) },
            Line::Ok { mark: "m".into(), job: 7 },
            Line::Cancelled { job: 7 },
        ];
        let mut diary = Diary::new(&path).expect("fresh");
        for line in &lines {
            diary.write(line).await.expect("room");
        }
        assert_eq!(Diary::read(&path).expect("ours"), lines);
        assert!(Diary::new(&path).is_err());
    }
}

//! What really happened, as cloud and guests wrote it down apart from the dispatcher.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::cloud::simulated::machine::Effect;

/// A launch the cloud carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The server at the cloud.
    pub instance: String,
    /// The client's token.
    pub token: String,
    /// Uid of the job in its tag; empty without a tag.
    pub job: String,
}

/// All effects outside.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Servers made, in order.
    pub launches: Vec<Launch>,
    /// Servers destroyed by their owner.
    pub terminated: Vec<String>,
    /// Servers the cloud lost.
    pub lost: Vec<String>,
    /// Starts and stops: server, the kind of job that asks for it, when by the cloud's clock.
    pub moves: Vec<(String, &'static str, i64)>,
    /// The highest floor that a guest keeps for each job, by the job's uid.
    pub floors: BTreeMap<String, i64>,
    /// Runs of each command id.
    pub commands: BTreeMap<String, u32>,
}

/// A ledger that cannot be read, which proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read.
    #[error("ledger {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line says nothing that can be counted.
    #[error("ledger {path} holds a line that is no effect: {text}")]
    Line {
        /// The file.
        path: String,
        /// Why.
        text: String,
    },
}

impl Ledger {
    /// Reads the ledgers below a cloud's data folder. A torn last line was never answered and is left out.
    ///
    /// # Errors
    /// [`Error`] names the file.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let mut ledger = Self::default();
        let journal = data.join("cloud").join("journal.jsonl");
        for line in lines(&journal)? {
            let effect: Effect = serde_json::from_str(&line).map_err(|e| Error::Line {
                path: journal.display().to_string(),
                text: format!("{e}: {line}"),
            })?;
            ledger.cloud(&effect);
        }
        let guests = std::fs::read_dir(data.join("guests")).into_iter().flatten().flatten();
        for guest in guests {
            let effects = guest.path().join("effects.jsonl");
            if effects.exists() {
                ledger.guest(&effects)?;
            }
            ledger.floors_of(&guest.path().join("journal"))?;
        }
        Ok(ledger)
    }

    /// Reads the floors of a guest's own journal: a checksum, a blank and a record a line.
    fn floors_of(&mut self, path: &Path) -> Result<(), Error> {
        for line in lines(path)? {
            let record = line.split_once(' ').and_then(|(_, json)| serde_json::from_str::<Value>(json).ok());
            let is_floor = |record: &Value| record.get("record").and_then(Value::as_str) == Some("floor");
            let Some(record) = record.filter(is_floor) else { continue };
            let (job, epoch) =
                (record.get("job").and_then(Value::as_str), record.get("epoch").and_then(Value::as_i64));
            let (Some(job), Some(epoch)) = (job, epoch) else { continue };
            let known = self.floors.entry(job.to_owned()).or_default();
            *known = epoch.max(*known);
        }
        Ok(())
    }

    fn guest(&mut self, path: &Path) -> Result<(), Error> {
        for line in lines(path)? {
            let command = serde_json::from_str::<Value>(&line).ok();
            let command = command.as_ref().and_then(|line| line.get("command")?.as_str());
            let command = command
                .ok_or_else(|| Error::Line { path: path.display().to_string(), text: line.clone() })?;
            *self.commands.entry(command.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn cloud(&mut self, effect: &Effect) {
        match effect {
            Effect::Launch(launched) => {
                let tag = launched.tag.as_deref().unwrap_or_default();
                let job = tag.strip_prefix("dispatcher-job=").and_then(|rest| rest.split('.').next());
                self.launches.push(Launch {
                    instance: launched.instance.clone(),
                    token: launched.token.clone(),
                    job: job.unwrap_or_default().to_owned(),
                });
            }
            Effect::Terminate(changed) => self.terminated.push(changed.instance.clone()),
            Effect::Lose(changed) => self.lost.push(changed.instance.clone()),
            Effect::Start(changed) => {
                self.moves.push((changed.instance.clone(), "start-server", changed.at.0));
            }
            Effect::Stop(changed) => self.moves.push((changed.instance.clone(), "stop-server", changed.at.0)),
            Effect::Pause(changed) => {
                self.moves.push((changed.instance.clone(), "pause-server", changed.at.0));
            }
        }
    }

    /// Servers a job launched.
    pub fn of_job<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Launch> {
        self.launches.iter().filter(move |launch| launch.job == uid)
    }

    /// Whether a server is gone.
    #[must_use]
    pub fn is_gone(&self, instance: &str) -> bool {
        self.terminated.iter().chain(&self.lost).any(|gone| gone == instance)
    }

    /// How often commands of a job ran.
    #[must_use]
    pub fn runs_of(&self, uid: &str) -> u32 {
        let prefix = format!("{uid}.");
        self.commands.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, runs)| runs).sum()
    }
}

/// The whole lines of a file; none of one that is not there yet.
fn lines(path: &Path) -> Result<Vec<String>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::Read { path: path.display().to_string(), source }),
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
    Ok(whole.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn effects_are_counted_and_a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            std::fs::write(path, text).expect("room");
        };
        write(
            "cloud/journal.jsonl",
            concat!(
                r#"{"effect":"launch","instance":"i-1","account":"a","region":"r","token":"t","#,
                r#""tag":"dispatcher-job=ab.launch","requestHash":"h","name":"n","product":"p","image":"i","#,
                r#""dataCenter":"d","address":"127.1.0.1","guest":true,"at":1,"readyAt":2,"visibleAt":1}"#,
                "\n",
                r#"{"effect":"terminate","instance":"i-1","tag":null,"at":3,"until":3}"#,
                "\n{\"effect\":\"laun"
            ),
        );
        write("guests/i-1/effects.jsonl", "{\"command\":\"ab.run.1.7\"}\n{\"command\":\"ab.run.1.7\"}\n");
        write("guests/i-1/journal", "00000000 {\"record\":\"floor\",\"job\":\"ab\",\"epoch\":3,\"at\":1}\n");
        let ledger = Ledger::read(folder.path()).expect("readable");
        assert_eq!(ledger.floors.get("ab"), Some(&3));
        assert_eq!((ledger.launches.len(), ledger.of_job("ab").count()), (1, 1));
        assert!(ledger.is_gone("i-1") && !ledger.is_gone("i-2"));
        assert_eq!((ledger.runs_of("ab"), ledger.runs_of("a")), (2, 0));
        write("guests/i-1/effects.jsonl", "{}\n");
        assert!(Ledger::read(folder.path()).expect_err("no effect").to_string().contains("effects.jsonl"));
    }
}

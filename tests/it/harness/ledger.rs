//! What really happened, as cloud and guests wrote it down apart from the dispatcher.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A launch the cloud carried out.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) instance: String,
    pub(crate) token: String,
    /// Uid of the job in its tag.
    pub(crate) job: String,
}

/// All effects outside.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) launches: Vec<Launch>,
    /// Servers destroyed by their owner.
    pub(crate) terminated: Vec<String>,
    /// Servers the cloud lost.
    pub(crate) lost: Vec<String>,
    /// Runs of each command id.
    pub(crate) commands: BTreeMap<String, u32>,
}

impl Ledger {
    /// Reads the ledgers of a data folder. A torn last line was never answered and is left out.
    pub(crate) fn read(data: &Path) -> Self {
        let mut ledger = Self::default();
        for line in lines(&data.join("cloud").join("journal.jsonl")) {
            ledger.cloud(&line);
        }
        let guests = std::fs::read_dir(data.join("guests")).into_iter().flatten().flatten();
        for guest in guests {
            for line in lines(&guest.path().join("effects.jsonl")) {
                let command = line["command"].as_str().expect("a command id").to_owned();
                *ledger.commands.entry(command).or_default() += 1;
            }
        }
        ledger
    }

    fn cloud(&mut self, line: &Value) {
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        match line["effect"].as_str() {
            Some("launch") => {
                let tag = word("tag");
                let job = tag.strip_prefix("dispatcher-job=").and_then(|rest| rest.split('.').next());
                self.launches.push(Launch {
                    instance: word("instance"),
                    token: word("token"),
                    job: job.unwrap_or_default().to_owned(),
                });
            }
            Some("terminate") => self.terminated.push(word("instance")),
            Some("lose") => self.lost.push(word("instance")),
            Some("start" | "stop" | "pause") => {}
            other => panic!("the journal holds an effect {other:?}"),
        }
    }

    /// Servers a job launched.
    pub(crate) fn of_job<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Launch> {
        self.launches.iter().filter(move |launch| launch.job == uid)
    }

    /// Whether a server is gone.
    pub(crate) fn is_gone(&self, instance: &str) -> bool {
        self.terminated.iter().chain(&self.lost).any(|gone| gone == instance)
    }

    /// How often commands of a job ran.
    pub(crate) fn runs_of(&self, uid: &str) -> u32 {
        let prefix = format!("{uid}.");
        self.commands.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(_, runs)| runs).sum()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
    whole.lines().map(parse).collect()
}

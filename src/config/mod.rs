//! Settings: one struct a section, with defaults that work, unknown keys refused. Secrets are never settings.

mod load;
mod place;
mod queue;
mod reference;

pub use load::{Found, Origin};
pub use place::{Keys, Listen, Process};
pub use queue::Queue;
pub use reference::reference;

use std::path::Path;
use std::time::Duration;

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// All sections. Every key has a default; a file names only what differs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where this process keeps its files, and as whom it runs.
    pub process: Process,
    /// Where it listens.
    pub listen: Listen,
    /// The installation's keys and certificates.
    pub keys: Keys,
    /// Where the rows are.
    pub database: Database,
    /// The life of this process in the database.
    pub node: Node,
    /// Jobs.
    pub jobs: Jobs,
    /// Looks at clouds.
    pub monitor: Watching,
    /// Looks for what turns up after jobs ended.
    pub janitor: Janitor,
    /// Looks at what guests reported.
    pub worker: Watching,
    /// Heartbeats of guests.
    pub pinger: Pinger,
    /// The embedded cloud.
    pub simulated: Simulated,
    /// The key manager.
    pub km: Km,
    /// The queue between the parts.
    pub queue: Queue,
}

/// Section `[database]`: files of the data folder, or databases of a MariaDB or MySQL server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// URL of jobs, resources and accounts; empty means a file of the data folder.
    pub provisioning: String,
    /// URL of measurements.
    pub analytics: String,
    /// URL of sealed credentials.
    pub credentials: String,
    /// File whose first line is the password at the servers; only its owner may be able to read it.
    pub password_file: String,
}

impl Database {
    /// The URLs with the keys they stand under.
    #[must_use]
    pub const fn urls(&self) -> [(&'static str, &String); 3] {
        [
            ("database.provisioning", &self.provisioning),
            ("database.analytics", &self.analytics),
            ("database.credentials", &self.credentials),
        ]
    }

    fn check(&self) -> Result<(), Error> {
        let mut servers: Vec<&str> = Vec::new();
        for (key, url) in self.urls() {
            let refuse = |value: &str, remedy| Err(Error::Value { key, value: value.to_owned(), remedy });
            let Some(rest) = url.strip_prefix("mysql://") else {
                if url.is_empty() || url.starts_with("sqlite://") {
                    continue;
                }
                return refuse("no database URL", "write mysql://user@host:port/name, or nothing for a file");
            };
            if rest.rsplit_once('@').is_some_and(|(who, _)| who.contains(':')) {
                return refuse(
                    "a URL with a password",
                    "write the password into a file that only you can read, and name it by database.password_file",
                );
            }
            if servers.contains(&rest) {
                return refuse(url, "write another name: each database is one of its own");
            }
            servers.push(rest);
        }
        Ok(())
    }
}

/// Section `[node]`. `R + commit < S`, and S with the longest effect on a guest (1 s) below L.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// R: milliseconds between beats.
    pub beat_ms: u64,
    /// S: no effect on a guest starts later than this after the last beat.
    pub fresh_ms: u64,
    /// P: milliseconds between looks at the beats of other lives.
    pub look_ms: u64,
    /// L: a life whose beat stands still so long is declared dead, and its jobs are taken over.
    pub still_ms: u64,
}

impl Default for Node {
    fn default() -> Self {
        Self { beat_ms: 1000, fresh_ms: 3000, look_ms: 1000, still_ms: 6000 }
    }
}

/// Section `[jobs]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// Job actors at the same time.
    pub most: usize,
    /// Milliseconds between reconciliations of rows with what runs.
    pub sweep_ms: u64,
    /// First pause after a refusal worth another try; doubles.
    pub retry_first_ms: u64,
    /// Longest pause between tries.
    pub retry_most_ms: u64,
    /// Calls of one step.
    pub calls: i32,
    /// Longest wait for the answer to one cloud call.
    pub call_ms: u64,
    /// How long beyond its deadline, and Q, a job may look for an unknown outcome.
    pub grace_ms: u64,
    /// How long a command may wait for its guest.
    pub command_wait_ms: u64,
    /// How long a guest may enrol with its one-time token.
    pub enrol_ms: u64,
    /// How long jobs at work get when the process stops.
    pub drain_ms: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            most: 2048,
            sweep_ms: 5000,
            retry_first_ms: 500,
            retry_most_ms: 30_000,
            calls: 8,
            call_ms: 60_000,
            grace_ms: 30_000,
            command_wait_ms: 600_000,
            enrol_ms: 900_000,
            drain_ms: 5000,
        }
    }
}

/// Sections `[monitor]` and `[worker]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Watching {
    /// Pause after the first look; doubles.
    pub first_ms: u64,
    /// Longest pause between looks.
    pub most_ms: u64,
    /// Milliseconds between sweeps of the rows.
    pub sweep_ms: u64,
    /// Watches looked at together.
    pub together: usize,
}

impl Default for Watching {
    fn default() -> Self {
        Self { first_ms: 50, most_ms: 5000, sweep_ms: 5000, together: 1024 }
    }
}

/// Section `[janitor]`: looks for what turns up at a cloud after its job ended, and for what carries a tag of this
/// installation and has no owner.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Janitor {
    /// Milliseconds between sweeps of the rows.
    pub sweep_ms: u64,
    /// Looks at the same time.
    pub together: usize,
    /// When it looks after the end, besides Q/2 and Q of the driver and `keep_ms`.
    pub later_ms: u64,
    /// How long after a job's end what may still turn up of it is looked for.
    pub keep_ms: u64,
    /// Milliseconds until it looks again at what is being taken back, and until a look that failed is repeated; doubles.
    pub again_ms: u64,
    /// Milliseconds between looks at everything that carries a tag, and at what needs a person.
    pub daily_ms: u64,
    /// How long a job that takes something back may take.
    pub take_back_ms: u64,
}

impl Default for Janitor {
    fn default() -> Self {
        Self {
            sweep_ms: 5000,
            together: 8,
            later_ms: 3_600_000,
            keep_ms: 86_400_000,
            again_ms: 10_000,
            daily_ms: 86_400_000,
            take_back_ms: 3_600_000,
        }
    }
}

/// Section `[pinger]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Pinger {
    /// Milliseconds between heartbeats of one guest.
    pub every_ms: u64,
    /// Longest wait for one answer.
    pub limit_ms: u64,
    /// Points kept in memory while the analytics database is away; the oldest of more are lost and counted.
    pub spill: usize,
}

impl Default for Pinger {
    fn default() -> Self {
        Self { every_ms: 5000, limit_ms: 2000, spill: 100_000 }
    }
}

/// Section `[simulated]`: the embedded cloud, and what it does wrong on demand.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Simulated {
    /// Where a simulated cloud that is a process of its own answers, as `http://127.0.0.1:PORT`; empty: `dispatcher dev` has one
    /// inside, other roles have none.
    pub url: String,
    /// How it tells a repeated create: `K`, `S`, `T` or `N`.
    pub class: String,
    /// Executable run as `agent` for each guest; empty means this one.
    pub guest_program: String,
    /// Milliseconds until a new server runs.
    pub boot_ms: u64,
    /// Milliseconds each call takes.
    pub latency_ms: u64,
    /// Loses the first so many servers as soon as they exist.
    pub lose_launched: u32,
    /// Does the first so many creates and loses the answer.
    pub lose_answers: u32,
    /// Q of the classes that must wait, in milliseconds, instead of the driver's own.
    pub quiet_ms: Option<u64>,
    /// Loses the answer to the first create and carries it out so many milliseconds later.
    pub land_late_ms: Option<u64>,
    /// Where the chance of the faults below begins.
    pub fault_seed: u64,
    /// Of a hundred calls that change something, so many are done and their answer is lost.
    pub lose_percent: u8,
    /// So many are not done, and the caller does not learn it.
    pub fail_percent: u8,
    /// So many lose their answer at once and are done `late_ms` later.
    pub late_percent: u8,
    /// How much later, in milliseconds.
    pub late_ms: u64,
    /// Of a hundred launches, so many are not shown by looks for `hide_ms`.
    pub hide_percent: u8,
    /// For how long, in milliseconds.
    pub hide_ms: u64,
    /// Of a hundred starts, stops and pauses, so many are accepted and never done.
    pub forget_percent: u8,
}

impl Default for Simulated {
    fn default() -> Self {
        Self {
            url: String::new(),
            class: "K".to_owned(),
            guest_program: String::new(),
            boot_ms: 150,
            latency_ms: 0,
            lose_launched: 0,
            lose_answers: 0,
            quiet_ms: None,
            land_late_ms: None,
            fault_seed: 0,
            lose_percent: 0,
            fail_percent: 0,
            late_percent: 0,
            late_ms: 1000,
            hide_percent: 0,
            hide_ms: 1000,
            forget_percent: 0,
        }
    }
}

/// Section `[km]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Km {
    /// Where the key manager answers, as `host:port`.
    pub address: String,
    /// Leases a second one process may take.
    pub per_node: u32,
    /// Leases a second one tenant may take.
    pub per_tenant: u32,
}

impl Default for Km {
    fn default() -> Self {
        Self { address: "127.0.0.1:2013".to_owned(), per_node: 2000, per_tenant: 1000 }
    }
}

/// Why a settings file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("settings file {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not say what it should.
    #[error("settings file {path}: {text}")]
    Parse {
        /// The file.
        path: String,
        /// Where and what, with the keys that are known.
        text: String,
    },
    /// A key or section nobody knows.
    #[error("settings: {origin}: unknown {what}; {hint}")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What it is.
        what: String,
        /// What was probably meant.
        hint: String,
    },
    /// A value outside a section.
    #[error("settings: {origin}: {name} stands outside a section; write it below [section]")]
    NoSection {
        /// Where it stands.
        origin: Origin,
        /// Its name.
        name: String,
    },
    /// A value of another type.
    #[error("settings: {origin}: {key}: {text}")]
    Type {
        /// Where it stands.
        origin: Origin,
        /// Section and key.
        key: String,
        /// What was found and what is expected.
        text: String,
    },
    /// A value that cannot work.
    #[error("settings: {key} is {value}; {remedy}")]
    Value {
        /// Section and key.
        key: &'static str,
        /// What was found.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl Config {
    /// Reads a TOML file, or a folder of them, and the environment, and checks what was found.
    ///
    /// # Errors
    /// The first [`Error`], which names where, the key and the remedy.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_or_default(Some(path))
    }

    /// The same where no file need be named.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_default(path: Option<&Path>) -> Result<Self, Error> {
        let mut found = Found::read(path, std::env::vars());
        if found.problems.is_empty() { Ok(found.config) } else { Err(found.problems.swap_remove(0)) }
    }

    fn deserialize(table: &toml::Table) -> Result<Self, toml::de::Error> {
        table.clone().try_into()
    }

    /// What cannot work, of every section.
    fn problems(&self) -> Vec<Error> {
        let checks = [self.listen.check(), self.database.check(), self.check_own(), self.queue.check()];
        checks.into_iter().filter_map(Result::err).collect()
    }

    /// Refuses values that cannot work together.
    fn check_own(&self) -> Result<(), Error> {
        let value = |key, value: String, remedy| Err(Error::Value { key, value, remedy });
        if self.node.beat_ms == 0 || self.node.beat_ms * 2 > self.node.fresh_ms {
            return value(
                "node.beat_ms",
                self.node.beat_ms.to_string(),
                "write at most half of node.fresh_ms, and not 0",
            );
        }
        // S·(1+ρ) + C < L·(1−ρ), with C = 1 s and clocks that differ by 1 %.
        if self.node.fresh_ms.saturating_mul(101) + 100_000 >= self.node.still_ms.saturating_mul(99) {
            return value(
                "node.fresh_ms",
                self.node.fresh_ms.to_string(),
                "write less, or more for node.still_ms: with 1 s for the last effect it must be over before others take over",
            );
        }
        if self.node.look_ms == 0 || self.node.look_ms * 3 > self.node.still_ms {
            return value(
                "node.look_ms",
                self.node.look_ms.to_string(),
                "write at most a third of node.still_ms, and not 0",
            );
        }
        if !["K", "S", "T", "N"].contains(&self.simulated.class.as_str()) {
            return value("simulated.class", self.simulated.class.clone(), "write K, S, T or N");
        }
        if self.janitor.together == 0 || self.janitor.sweep_ms == 0 || self.janitor.again_ms == 0 {
            let key = "janitor.together, janitor.sweep_ms, janitor.again_ms";
            return value(key, "0".to_owned(), "write at least 1");
        }
        if self.jobs.most == 0 || self.jobs.sweep_ms == 0 {
            return value("jobs.most, jobs.sweep_ms", "0".to_owned(), "write at least 1");
        }
        Ok(())
    }
}

/// Milliseconds of a setting as a duration.
#[must_use]
pub const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn load(text: &str) -> Result<Config, super::Error> {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), text).expect("written");
        Config::load(file.path())
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_shipped_one_too() {
        assert_eq!(load("").expect("empty"), Config::default());
        let shipped = load(include_str!("../../config/dispatcher.toml")).expect("shipped file");
        assert_eq!(shipped, Config::default(), "config/dispatcher.toml shows the defaults");
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_remedy() {
        let error = load("[jobs]\nmots = 3").expect_err("unknown key").to_string();
        assert!(error.contains("mots") && error.contains("most"), "{error}");
        let error = load("[simulated]\nclass = \"Q\"").expect_err("bad value").to_string();
        assert!(error.contains("simulated.class") && error.contains("K, S, T or N"), "{error}");
        for bad in ["beat_ms = 3000", "fresh_ms = 5000", "still_ms = 4000", "look_ms = 0", "look_ms = 3000"] {
            assert!(load(&format!("[node]\n{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_no_setting_and_two_databases_are_two() {
        let error =
            load("[database]\nprovisioning = \"mysql://u:s3cret@h/p\"").expect_err("refused").to_string();
        assert!(error.contains("password_file") && !error.contains("s3cret"), "{error}");
        let error =
            load("[database]\nanalytics = \"postgres://u:s3cret@h/p\"").expect_err("refused").to_string();
        assert!(error.contains("database.analytics") && !error.contains("s3cret"), "{error}");
        let both = "provisioning = \"mysql://u@h/p\"\nanalytics = \"mysql://u@h/";
        assert!(load(&format!("[database]\n{both}p\"")).is_err());
        let config = load(&format!("[database]\n{both}a\"\npassword_file = \"/run/pw\"")).expect("good");
        assert_eq!(config.database.password_file, "/run/pw");
    }
}

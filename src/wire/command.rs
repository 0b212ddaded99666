//! Name of one command on one guest.

use std::fmt;
use std::str::FromStr;

use crate::model::{JobUid, ServerId};

/// Longest step word.
const STEP_LIMIT: usize = 40;

/// Names one command: job, step, try and guest, written `<uid>.<step>.<try>.<server>`. It holds no epoch and no node,
/// so that whoever takes a job over names the same command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId {
    job: JobUid,
    step: String,
    r#try: u32,
    server: ServerId,
}

/// Text that is no [`CommandId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a command id of the form <uid>.<step>.<try>.<server>")]
pub struct InvalidCommandId(String);

impl CommandId {
    /// The command of this step and try of a job on a guest.
    ///
    /// # Errors
    /// When `step` is not 1 to 40 letters, digits, dashes or underscores.
    pub fn new(job: JobUid, step: &str, r#try: u32, server: ServerId) -> Result<Self, InvalidCommandId> {
        let good = (1..=STEP_LIMIT).contains(&step.len())
            && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if good && server.0 >= 0 {
            Ok(Self { job, step: step.to_owned(), r#try, server })
        } else {
            Err(InvalidCommandId(step.chars().take(64).collect()))
        }
    }

    /// The job.
    #[must_use]
    pub const fn job(&self) -> JobUid {
        self.job
    }

    /// The guest.
    #[must_use]
    pub const fn server(&self) -> ServerId {
        self.server
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.job, self.step, self.r#try, self.server)
    }
}

impl FromStr for CommandId {
    type Err = InvalidCommandId;

    fn from_str(text: &str) -> Result<Self, InvalidCommandId> {
        let invalid = || InvalidCommandId(text.chars().take(120).collect());
        let mut parts = text.split('.');
        let (Some(job), Some(step), Some(r#try), Some(server), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let (Ok(job), Ok(number), Ok(guest)) = (job.parse(), r#try.parse(), server.parse()) else {
            return Err(invalid());
        };
        let id = Self::new(job, step, number, ServerId(guest))?;
        // One command, one spelling: "+1" and "01" would otherwise be other names for the same directory.
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

impl serde::Serialize for CommandId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CommandId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::CommandId;
    use crate::model::{JobUid, ServerId};

    #[test]
    fn a_command_id_has_one_spelling_and_is_safe_as_a_file_name() {
        let id = CommandId::new(JobUid::random(), "run-command", 2, ServerId(7)).expect("valid");
        let text = id.to_string();
        assert_eq!(text.parse::<CommandId>(), Ok(id));
        let uid = "0123456789abcdef0123456789abcdef";
        for bad in [
            format!("{uid}.run.+1.7"),
            format!("{uid}.run.01.7"),
            format!("{uid}.run.1.-7"),
            format!("{uid}.run.1.7."),
            format!("{uid}...7"),
            format!("{uid}.../../etc.1.7"),
            format!("{uid}.a/b.1.7"),
            format!("{uid}.a\0b.1.7"),
            format!("{uid}.{}.1.7", "a".repeat(41)),
            String::new(),
        ] {
            assert!(bad.parse::<CommandId>().is_err(), "{bad:?} parsed");
        }
    }
}

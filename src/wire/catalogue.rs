//! The operations of a guest as data: what each is for and which arguments it takes. Forms and help are made from it.

use super::Operation;

/// What may be typed for an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentType {
    /// Program and arguments on one line; quotes hold one argument together.
    CommandLine,
    /// A whole number within bounds.
    Whole {
        /// Smallest.
        least: u32,
        /// Largest.
        most: u32,
        /// Taken where none is given.
        usual: u32,
    },
}

impl ArgumentType {
    /// The type in words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::CommandLine => "program and arguments".to_owned(),
            Self::Whole { least, most, .. } => format!("whole number, {least} to {most}"),
        }
    }
}

/// An argument of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name in the API.
    pub name: &'static str,
    /// The same for people.
    pub title: &'static str,
    /// What it takes.
    pub kind: ArgumentType,
    /// What to know before it is typed.
    pub hint: &'static str,
    /// Whether it must be given.
    pub needed: bool,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its word on the wire.
    pub word: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Its arguments.
    pub arguments: &'static [Argument],
    /// Whether a person asks for it as a job. The others are asked by the dispatcher itself.
    pub is_job: bool,
}

/// Every operation.
pub const CATALOGUE: &[Described] = &[
    Described {
        word: "run-command",
        what: "Runs a program on the guest, without a shell, and keeps what it writes.",
        arguments: &[
            Argument {
                name: "argv",
                title: "Command",
                kind: ArgumentType::CommandLine,
                hint: "An absolute path is safest. Nothing is expanded: no shell reads it. It is kept and shown; never \
                       put a secret here.",
                needed: true,
            },
            Argument {
                name: "timeoutSecs",
                title: "Longest run, in seconds",
                kind: ArgumentType::Whole { least: 1, most: 86_400, usual: 300 },
                hint: "After it the guest ends the program, and the job fails.",
                needed: false,
            },
        ],
        is_job: true,
    },
    Described {
        word: "get-agent-data",
        what: "Reads load, memory and processes. It is asked with each heartbeat; the figures stand on this page.",
        arguments: &[],
        is_job: false,
    },
];

impl Operation {
    /// Its entry in the catalogue.
    #[must_use]
    pub fn described(&self) -> Option<&'static Described> {
        CATALOGUE.iter().find(|described| described.word == self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::{ArgumentType, CATALOGUE};
    use crate::wire::Operation;

    #[test]
    fn every_operation_is_described_once() {
        let words: Vec<&str> = CATALOGUE.iter().map(|described| described.word).collect();
        assert_eq!(words, Operation::WORDS);
        let data = Operation::GetAgentData.described().expect("there");
        assert!(data.arguments.is_empty() && !data.is_job);
        for argument in CATALOGUE.iter().flat_map(|described| described.arguments) {
            assert!(!argument.hint.is_empty() && !argument.kind.words().is_empty(), "{}", argument.name);
            if let ArgumentType::Whole { least, most, usual } = argument.kind {
                assert!((least..=most).contains(&usual), "{}", argument.name);
            }
        }
    }
}

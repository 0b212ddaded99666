//! The fields of the language, each with what its values mean.

use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime};

use super::parse::Refused;
use super::{Compare, Pattern, Test};
use crate::model::{ErrorClass, JobKind, JobState, Micros, nearest};

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $hint:literal;)+) => {
        /// A field that can be searched by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field { $($(#[doc = $doc])+ $variant,)+ }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word before the colon.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What may stand behind the colon, for people.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)+ }
            }
        }
    };
}

fields! {
    /// State of the job.
    State = "state", "queued, running, awaiting, undoing, quarantined, complete, failed, cancelled, unresolved; open for all before an end";
    /// Who must act.
    Needs = "needs", "me: nobody but a person can say what became of it";
    /// Kind of the job.
    Kind = "kind", "noop, launch-server, run-command and others; launch* for all that begin so";
    /// Why a call was refused.
    Class = "class", "throttled, quota, auth, not-found, conflict, transient, unknown, bug";
    /// What an open job waits for.
    Waits = "waits", "queue, schedule, pause, limit, group, children, lock, key-manager, agent, verdict, look, retry, undo, person, crash";
    /// Account it uses.
    Account = "account", "number of an account";
    /// Group it is a child of.
    Parent = "parent", "number of a group; none for jobs that are nobody's child";
    /// Server it is about.
    Server = "server", "number of a server";
    /// Name of the server it is about.
    Target = "target", "name of a server; web-* for all that begin so";
    /// Who asked.
    By = "by", "login of a person, or me; dep* for all that begin so";
    /// Process that runs it.
    Node = "node", "boot of a process; 4f2a* for all that begin so";
    /// Submitted longer ago.
    Older = "older", "30s, 5m, 1h, 2d";
    /// Submitted within.
    Newer = "newer", "30s, 5m, 1h, 2d";
    /// Submitted at or after.
    From = "from", "2026-11-22 or 2026-11-22T13:00, in UTC";
    /// Submitted before.
    To = "to", "2026-11-22 or 2026-11-22T13:00, in UTC";
    /// How long it took or takes.
    Took = "took", ">5m or <10s";
    /// Calls made for it.
    Attempts = "attempts", ">2, <5 or 3";
    /// What is known of its calls.
    Outcome = "outcome", "unknown: a call was made and nobody knows what became of it";
    /// Number of the job.
    Id = "id", "number of a job; the bare number does the same";
}

/// What an open job may wait for, with the codes its row then has.
const WAITS: &[(&str, &[&str])] = &[
    ("queue", &["dispatch"]),
    ("schedule", &["scheduled"]),
    ("pause", &["pause"]),
    ("lock", &["server-busy"]),
    ("limit", &["limit", "rate", "throttled", "quota"]),
    ("group", &["group"]),
    ("children", &["verdict-children", "group-over"]),
    ("key-manager", &["key-manager"]),
    ("agent", &["verdict-guest"]),
    ("verdict", &["verdict", "verdict-cloud", "verdict-guest", "verdict-noop", "cancel-sent"]),
    ("look", &["look", "no-look", "late-create", "resend", "unknown"]),
    ("retry", &["transient", "conflict", "not-found", "auth", "bug"]),
    ("undo", &["undo", "undo-refused"]),
    ("person", &["ask-operator"]),
    ("crash", &["crashes"]),
];

/// States that only a person can end, or whose outcome nobody knows.
const NEEDY: [JobState; 2] = [JobState::Quarantined, JobState::Unresolved];

impl Field {
    /// The field of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == name)
    }

    /// Words that its values are taken from; empty where they are names, numbers or times.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        match self {
            Self::State => std::iter::once("open").chain(JobState::ALL.iter().map(|s| s.as_str())).collect(),
            Self::Needs => vec!["me"],
            Self::Kind => JobKind::ALL.iter().map(|kind| kind.as_str()).collect(),
            Self::Class => ErrorClass::ALL.iter().map(|class| class.as_str()).collect(),
            Self::Waits => WAITS.iter().map(|(word, _)| *word).collect(),
            Self::Outcome => vec!["unknown"],
            Self::By => vec!["me"],
            Self::Parent => vec!["none"],
            Self::Older | Self::Newer => vec!["5m", "1h", "1d"],
            Self::Took => vec![">1m", ">10m"],
            Self::Attempts => vec![">1", ">2"],
            Self::Account | Self::Server | Self::Target | Self::Node | Self::From | Self::To | Self::Id => {
                Vec::new()
            }
        }
    }

    /// What values mean; at least one value is given.
    pub(super) fn test(self, values: &[String]) -> Result<Test, Refused> {
        Ok(match self {
            Self::State => Test::States(all(values, |text| self.states(text))?),
            Self::Needs => {
                all(values, |text| self.word(text, &["me"]).map(|word| vec![word]))?;
                Test::States(NEEDY.to_vec())
            }
            Self::Kind => Test::Kinds(all(values, |text| self.kinds(text))?),
            Self::Class => Test::Classes(all(values, |text| {
                text.parse().map(|class| vec![class]).map_err(|_unknown| self.unknown(text))
            })?),
            Self::Waits => Test::Waits(all(values, |text| {
                let known = WAITS.iter().find(|(word, _)| *word == text);
                known.map(|(_, codes)| codes.to_vec()).ok_or_else(|| self.unknown(text))
            })?),
            Self::Account => Test::Accounts(self.numbers(values)?),
            Self::Parent if values == ["none"] => Test::NoParent,
            Self::Parent => Test::Parents(self.numbers(values)?),
            Self::Server => Test::Servers(self.numbers(values)?),
            Self::Id => Test::Ids(self.numbers(values)?),
            Self::Target => Test::Targets(self.patterns(values)?),
            Self::By => Test::By(self.patterns(values)?),
            Self::Node => Test::Nodes(self.patterns(values)?),
            Self::Older => Test::Older(self.span(self.only(values)?)?),
            Self::Newer => Test::Newer(self.span(self.only(values)?)?),
            Self::From => Test::From(self.time(self.only(values)?)?),
            Self::To => Test::To(self.time(self.only(values)?)?),
            Self::Took => {
                let text = self.only(values)?;
                let (compare, rest) = compared(text);
                if compare == Compare::Same {
                    return Err(self.bad(text));
                }
                Test::Took(compare, self.span(rest)?)
            }
            Self::Attempts => {
                let text = self.only(values)?;
                let (compare, rest) = compared(text);
                Test::Attempts(compare, digits(rest).ok_or_else(|| self.bad(text))?)
            }
            Self::Outcome => {
                all(values, |text| self.word(text, &["unknown"]).map(|word| vec![word]))?;
                Test::OutcomeUnknown
            }
        })
    }

    fn word<'a>(self, text: &str, known: &[&'a str]) -> Result<&'a str, Refused> {
        known.iter().copied().find(|word| *word == text).ok_or_else(|| self.unknown(text))
    }

    fn states(self, text: &str) -> Result<Vec<JobState>, Refused> {
        if text == "open" {
            return Ok(JobState::ALL.iter().copied().filter(|state| !state.is_end()).collect());
        }
        text.parse().map(|state| vec![state]).map_err(|_unknown| self.unknown(text))
    }

    fn kinds(self, text: &str) -> Result<Vec<JobKind>, Refused> {
        let fits = |kind: &&JobKind| match text.strip_suffix('*') {
            Some(start) => kind.as_str().starts_with(start),
            None => kind.as_str() == text,
        };
        let found: Vec<JobKind> = JobKind::ALL.iter().filter(fits).copied().collect();
        if found.is_empty() { Err(self.unknown(text)) } else { Ok(found) }
    }

    fn numbers(self, values: &[String]) -> Result<Vec<i64>, Refused> {
        all(values, |text| digits(text).filter(|n| *n > 0).map(|n| vec![n]).ok_or_else(|| self.bad(text)))
    }

    fn patterns(self, values: &[String]) -> Result<Vec<Pattern>, Refused> {
        all(values, |text| {
            let (start, open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
            if start.contains('*') {
                let remedy = "a star may stand at the end only; take the others away";
                return Err(Refused::value(self, text, remedy));
            }
            Ok(vec![Pattern { text: start.to_owned(), open }])
        })
    }

    fn only(self, values: &[String]) -> Result<&str, Refused> {
        match values {
            [one] => Ok(one),
            _ => Err(Refused::value(
                self,
                &values.join(","),
                "give one value; for a range use the field twice",
            )),
        }
    }

    fn span(self, text: &str) -> Result<Duration, Refused> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text.strip_prefix(number) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 3600,
            Some("d") => 86_400,
            _ => return Err(self.bad(text)),
        };
        let seconds = digits(number).and_then(|n| u64::try_from(n).ok()).and_then(|n| n.checked_mul(factor));
        // Ten years: beyond, nothing is kept.
        let seconds = seconds.filter(|seconds| *seconds <= 3650 * 86_400);
        seconds.map(Duration::from_secs).ok_or_else(|| self.bad(text))
    }

    fn time(self, text: &str) -> Result<Micros, Refused> {
        let bare = text.strip_suffix('Z').unwrap_or(text);
        let day = || NaiveDate::parse_from_str(bare, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
        let found = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(bare, form).ok())
            .or_else(day);
        let at = found.map(|at| at.and_utc().timestamp_micros());
        at.filter(|at| *at >= 0).map(Micros).ok_or_else(|| self.bad(text))
    }

    /// A value that is none of the field's words.
    fn unknown(self, text: &str) -> Refused {
        let words = self.words();
        match nearest(text.trim_end_matches('*'), &words) {
            Some(meant) => Refused::value(self, text, &format!("did you mean {}:{meant}?", self.as_str())),
            None => self.bad(text),
        }
    }

    fn bad(self, text: &str) -> Refused {
        Refused::value(self, text, &format!("write {}", self.hint()))
    }
}

/// The meanings of all values, each once.
fn all<T: PartialEq>(
    values: &[String],
    read: impl Fn(&str) -> Result<Vec<T>, Refused>,
) -> Result<Vec<T>, Refused> {
    let mut found: Vec<T> = Vec::new();
    for value in values {
        for one in read(value)? {
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    Ok(found)
}

fn compared(text: &str) -> (Compare, &str) {
    match (text.strip_prefix('>'), text.strip_prefix('<')) {
        (Some(rest), _) => (Compare::More, rest),
        (_, Some(rest)) => (Compare::Less, rest),
        (None, None) => (Compare::Same, text),
    }
}

/// A whole number without a sign.
fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// How a text may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The whole text with its last term completed.
    pub text: String,
    /// The part that completes it.
    pub shown: String,
    /// What it is, for people.
    pub hint: &'static str,
}

/// How a text may go on: fields while a word is typed, words behind a colon or a comma.
#[must_use]
pub fn suggest(text: &str) -> Vec<Suggestion> {
    let begun = text.rsplit(' ').next().unwrap_or_default();
    let before = text.strip_suffix(begun).unwrap_or_default();
    let bare = begun.strip_prefix('-').unwrap_or(begun);
    let minus = if bare.len() < begun.len() { "-" } else { "" };
    let Some((name, values)) = bare.split_once(':') else {
        let fits = Field::ALL.iter().filter(|field| field.as_str().starts_with(bare));
        return fits
            .map(|field| Suggestion {
                text: format!("{before}{minus}{}:", field.as_str()),
                shown: format!("{}:", field.as_str()),
                hint: field.hint(),
            })
            .collect();
    };
    let Some(field) = Field::named(name) else { return Vec::new() };
    let last = values.rsplit(',').next().unwrap_or_default();
    let done = values.strip_suffix(last).unwrap_or_default();
    let given: Vec<&str> = done.split(',').collect();
    let fits = field
        .words()
        .into_iter()
        .filter(|word| word.starts_with(last) && *word != last && !given.contains(word));
    fits.map(|word| Suggestion {
        text: format!("{before}{minus}{name}:{done}{word}"),
        shown: word.to_owned(),
        hint: "",
    })
    .collect()
}

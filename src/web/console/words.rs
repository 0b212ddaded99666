//! Words, shapes and times as the console shows them.

use std::time::Duration;

use crate::model::{JobState, Micros};
use crate::store::provisioning::search::COUNTED;

/// How a state looks: shape first, word second, hue last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Symbol in the sprite.
    pub(super) icon: &'static str,
    /// Class of the hue.
    pub(super) hue: &'static str,
    /// Word.
    pub(super) word: &'static str,
}

pub(super) const fn look(state: JobState) -> Look {
    let (icon, hue, word) = match state {
        JobState::Queued => ("queued", "c-idle", "queued"),
        JobState::Running => ("running", "c-busy", "running"),
        JobState::Awaiting => ("looking", "c-busy", "awaiting verdict"),
        JobState::Undoing => ("running", "c-busy", "undoing"),
        JobState::Quarantined => ("held", "c-held", "quarantined"),
        JobState::Complete => ("ok", "c-ok", "complete"),
        JobState::Failed => ("failed", "c-bad", "failed"),
        JobState::Cancelled => ("cancelled", "c-idle", "cancelled"),
        JobState::Unresolved => ("unknown", "c-doubt", "unresolved"),
    };
    Look { icon, hue, word }
}

/// How a line of a timeline looks.
pub(super) fn look_of_entry(what: &str, text: &str) -> Look {
    let (icon, hue) = match what {
        "ok" => ("ok", "c-ok"),
        "refused" => ("failed", "c-bad"),
        "void" | "evidence" => ("looking", "c-idle"),
        "watch" => ("looking", "c-busy"),
        "verdict" if text.starts_with("verdict reached") => ("ok", "c-ok"),
        "verdict" if text.starts_with("verdict pending") => ("looking", "c-busy"),
        "verdict" if text.starts_with("verdict unknown") => ("unknown", "c-doubt"),
        "verdict" => ("failed", "c-bad"),
        "cancel" => ("cancelled", "c-idle"),
        "why" => ("running", "c-busy"),
        "ended" if text.starts_with("complete") => ("ok", "c-ok"),
        "ended" if text.starts_with("cancelled") => ("cancelled", "c-idle"),
        "ended" if text.starts_with("unresolved") => ("unknown", "c-doubt"),
        "ended" => ("failed", "c-bad"),
        _ => ("info", "c-idle"),
    };
    Look { icon, hue, word: "" }
}

/// A duration in at most two units.
pub(super) fn took(duration: Duration) -> String {
    let micros = duration.as_micros();
    let secs = duration.as_secs();
    match secs {
        0 if micros < 1000 => format!("{micros} µs"),
        0 => format!("{} ms", micros / 1000),
        1..10 => format!("{}.{} s", secs, duration.subsec_millis() / 100),
        10..60 => format!("{secs} s"),
        60..3600 => two(secs, (60, "m"), (1, "s")),
        3600..86_400 => two(secs, (3600, "h"), (60, "m")),
        _ => format!("{} d", secs / 86_400),
    }
}

fn two(secs: u64, (large, l): (u64, &str), (small, s): (u64, &str)) -> String {
    match (secs % large) / small {
        0 => format!("{} {l}", secs / large),
        rest => format!("{} {l} {rest} {s}", secs / large),
    }
}

/// Time of day, to the second.
pub(super) fn clock(at: Micros) -> String {
    at.rfc3339().chars().skip(11).take(8).collect()
}

/// Time of day for today, with the day for any other.
pub(super) fn moment(at: Micros) -> String {
    let (text, today) = (at.rfc3339(), Micros::wall().rfc3339());
    let day = |text: &str| text.chars().take(10).collect::<String>();
    if day(&text) == day(&today) { clock(at) } else { format!("{} {}", day(&text), clock(at)) }
}

/// Time of day, to the millisecond.
pub(super) fn clock_ms(at: Micros) -> String {
    at.rfc3339().chars().skip(11).take(12).collect()
}

/// The same with a large first letter.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Hostile text made visible: control and direction characters as marks, and cut when it is very long. Escaping for
/// HTML is the templates' business.
pub(super) fn plain(text: &str) -> String {
    const LONGEST: usize = 2000;
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            shown.push('…');
            break;
        }
        match c {
            '\n' | '\t' => shown.push(c),
            '\u{1b}' => shown.push('␛'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                shown.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
            }
            c if c.is_control() => shown.push('�'),
            c => shown.push(c),
        }
    }
    shown
}

/// A word as a shell reads it back.
pub(super) fn shell(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Thousands apart, for counts.
pub(super) fn count(n: i64) -> String {
    let digits = n.to_string();
    let len = digits.len();
    digits.chars().enumerate().fold(String::new(), |mut done, (i, digit)| {
        if i > 0 && (len - i).is_multiple_of(3) && !done.ends_with('-') {
            done.push(',');
        }
        done.push(digit);
        done
    })
}

/// A count that is exact up to a bound.
pub(super) fn about(n: i64) -> String {
    if n > COUNTED { format!("over {}", count(COUNTED)) } else { count(n) }
}

/// Text as a value in an address.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b',' | b'*' => {
                done.push(char::from(byte));
            }
            b' ' => done.push('+'),
            _ => done.push_str(&format!("%{byte:02X}")),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::{about, clock, clock_ms, count, escaped, look, plain, shell, took};
    use crate::model::{JobState, Micros};
    use std::time::Duration;

    #[test]
    fn durations_have_at_most_two_units() {
        for (micros, text) in [
            (41, "41 µs"),
            (6_000, "6 ms"),
            (2_100_000, "2.1 s"),
            (41_000_000, "41 s"),
            (192_000_000, "3 m 12 s"),
            (180_000_000, "3 m"),
            (8_040_000_000, "2 h 14 m"),
            (1_641_600_000_000, "19 d"),
        ] {
            assert_eq!(took(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn counts_and_clocks_read_well() {
        assert_eq!([0, 999, 1000, 1_204_377].map(count), ["0", "999", "1,000", "1,204,377"]);
        assert_eq!([10_000, 10_001].map(about), ["10,000", "over 10,000"]);
        assert_eq!(escaped("state:a,b -\"ü\"&*"), "state:a,b+-%22%C3%BC%22%26*");
        let at = Micros(1_357_680_562_733_000);
        assert_eq!((clock(at).as_str(), clock_ms(at).as_str()), ("21:29:22", "21:29:22.733"));
    }

    #[test]
    fn every_state_has_its_own_shape_and_word() {
        let looks: std::collections::HashSet<_> =
            JobState::ALL.iter().map(|state| (look(*state).icon, look(*state).word)).collect();
        assert_eq!(looks.len(), JobState::ALL.len());
    }

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        assert_eq!(
            ["/bin/ls", "a b", "it's", "", "$(x)"].map(shell),
            ["/bin/ls", "'a b'", "'it'\\''s'", "''", "'$(x)'"]
        );
    }

    #[test]
    fn hostile_characters_are_shown_not_obeyed() {
        assert_eq!(plain("a\u{1b}[2J\u{202e}b\u{0}"), "a␛[2J⟨U+202E⟩b�");
        assert_eq!(plain(&"x".repeat(3000)).chars().count(), 2001);
    }
}

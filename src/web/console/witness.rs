//! What is known of an agent: facts of its row, and who has seen it. A witness that was not asked says so. Pure.

use super::show::Fact;
use super::words;
use crate::agents::AgentView;
use crate::model::{Micros, ServerStatus};
use crate::store::provisioning::agent::{AgentRow, state};
use crate::store::provisioning::server::ServerRow;
use crate::wire::GuestStats;

/// A guest that was heard this recently answers.
const FRESH: std::time::Duration = std::time::Duration::from_secs(60);

/// One who may have seen the guest.
pub(super) struct Witness {
    pub(super) name: &'static str,
    pub(super) icon: &'static str,
    pub(super) hue: &'static str,
    pub(super) word: &'static str,
    pub(super) text: String,
}

fn witness(name: &'static str, word: &'static str, text: String) -> Witness {
    let (icon, hue) = match word {
        "yes" => ("ok", "c-ok"),
        "no" => ("failed", "c-bad"),
        "silent" => ("silent", "c-doubt"),
        "unknown" => ("unknown", "c-doubt"),
        _ => ("off", "c-idle"),
    };
    Witness { name, icon, hue, word, text }
}

/// All witnesses. `session` is nothing where this process holds no sessions at all.
pub(super) fn of(
    row: &AgentRow,
    session: Option<Option<&AgentView>>,
    (server, cloud): (Option<&ServerRow>, Option<&(String, String, i64)>),
    now: Micros,
) -> Vec<Witness> {
    vec![
        by_session(row, session),
        by_ping(row, session.flatten(), now),
        by_cloud(server, cloud, now),
        witness(
            "Neighbours",
            "not asked",
            "Guests are not asked about each other in this version.".to_owned(),
        ),
    ]
}

fn by_session(row: &AgentRow, session: Option<Option<&AgentView>>) -> Witness {
    let say = |word, text: String| witness("Session", word, text);
    if row.state == state::REVOKED {
        return say("not asked", "It is refused, so nobody dials it.".to_owned());
    }
    match session {
        None => {
            say("not asked", "Another process holds the sessions; this one does not see them.".to_owned())
        }
        Some(None) if row.state == state::PENDING => say("not asked", "It has not joined yet.".to_owned()),
        Some(None) => say("no", "Nobody dials it yet; the next sweep does.".to_owned()),
        Some(Some(view)) if view.connected => {
            let busy = match view.in_flight {
                0 => "no command in flight".to_owned(),
                1 => "1 command in flight".to_owned(),
                n => format!("{n} commands in flight"),
            };
            say("yes", format!("Session {} is open, {busy}.", view.session))
        }
        Some(Some(view)) => {
            let why = view.trouble.as_deref().map(words::plain).unwrap_or_default();
            say(
                "no",
                if why.is_empty() {
                    "It is being dialled.".to_owned()
                } else {
                    format!("No session: {why}.")
                },
            )
        }
    }
}

fn by_ping(row: &AgentRow, view: Option<&AgentView>, now: Micros) -> Witness {
    let say = |word, text: String| witness("Ping", word, text);
    // The row is written every few seconds; the session knows sooner.
    let heard = view.and_then(|view| view.heard).into_iter().chain(row.last_contact.map(Micros)).max();
    match heard {
        _ if row.state == state::REVOKED => say("not asked", "A refused agent is not asked.".to_owned()),
        None => say("not asked", "It was never heard.".to_owned()),
        Some(at) if now.since(at) < FRESH => say("yes", format!("Heard {} ago.", words::took(now.since(at)))),
        Some(at) => say(
            "silent",
            format!("Not heard for {}, since {}.", words::took(now.since(at)), words::clock(at)),
        ),
    }
}

fn by_cloud(server: Option<&ServerRow>, cloud: Option<&(String, String, i64)>, now: Micros) -> Witness {
    let say = |word, text: String| witness("Cloud", word, text);
    let Some(server) = server else {
        return say("not asked", "No server belongs to it yet.".to_owned());
    };
    let Some((source, text, at)) = cloud else {
        return say("not asked", "No monitor has looked at its server.".to_owned());
    };
    let (text, at) = (words::plain(text), Micros(*at));
    let text = format!(
        "{text}; seen {} ago by {}. A monitor looks when a job waits for it, not in between.",
        words::took(now.since(at)),
        short(source)
    );
    match server.status.parse() {
        Ok(ServerStatus::Running) => say("yes", text),
        Ok(ServerStatus::Stopped | ServerStatus::Terminated | ServerStatus::Paused) => say("no", text),
        _ => say("unknown", text),
    }
}

/// A monitor by its role and the first digits of its node.
fn short(source: &str) -> String {
    let (role, node) = source.split_once('/').unwrap_or((source, ""));
    words::plain(&format!("{role} {}", node.chars().take(8).collect::<String>()))
}

/// Figures of the last heartbeat in words.
pub(super) fn figures(stats: &GuestStats) -> String {
    let mb = |bytes: u64| words::count(i64::try_from(bytes / 1_000_000).unwrap_or(i64::MAX));
    format!(
        "load {:.2} on {} CPU, {} of {} MB in use, {} processes",
        stats.cpu_load,
        stats.cpu_count,
        mb(stats.memory_used),
        mb(stats.memory_total),
        stats.processes
    )
}

/// The agent's own facts: key, certificate, sessions.
pub(super) fn facts(row: &AgentRow, made_by: Option<i64>, now: Micros) -> Vec<Fact> {
    let fact = |name, value: String| Fact { name, value: words::plain(&value), mono: false };
    let mono = |name, value: String| Fact { name, value: words::plain(&value), mono: true };
    let at = |time: Option<i64>| time.map(Micros).map(words::moment);
    let key = row.key_hash.as_deref().map(|hash| {
        let (head, tail) = (hash.chars().take(8), hash.chars().skip(hash.chars().count().saturating_sub(8)));
        format!("SHA256:{}…{}", head.collect::<String>(), tail.collect::<String>())
    });
    let token = match (row.token_used_at, now < Micros(row.token_expires)) {
        (Some(used), _) => format!("used {}", words::moment(Micros(used))),
        (None, true) => format!("not used, good for {}", words::took(Micros(row.token_expires).since(now))),
        (None, false) => "never used, expired".to_owned(),
    };
    let since = match row.state.as_str() {
        state::ACCEPTED => at(row.enrolled_at),
        state::PENDING => at(Some(row.made_at)),
        // The row keeps no time of it.
        _ => None,
    };
    let expires = row.expires_at.map(Micros).map(|end| match now < end {
        true => format!("until {}, {} left", words::moment(end), words::took(end.since(now))),
        false => format!("expired {}", words::moment(end)),
    });
    let unknown = || "not known".to_owned();
    vec![
        fact("State since", since.unwrap_or_else(unknown)),
        fact("Last written as heard", at(row.last_contact).unwrap_or_else(|| "never".to_owned())),
        mono("Listens at", row.address.clone().unwrap_or_else(unknown)),
        fact("Platform", if row.platform.is_empty() { unknown() } else { row.platform.clone() }),
        mono("Key", key.unwrap_or_else(|| "none yet".to_owned())),
        mono("Certificate", row.serial.clone().unwrap_or_else(|| "none yet".to_owned())),
        fact("Certificate valid", expires.unwrap_or_else(|| "–".to_owned())),
        fact("One-time token", token),
        mono("Instance it names", row.instance.clone().unwrap_or_else(unknown)),
        fact(
            "Session",
            match row.session_no {
                0 => "none yet".to_owned(),
                n => format!(
                    "{n}, held by node {}",
                    row.session_boot.as_deref().unwrap_or("?").chars().take(8).collect::<String>()
                ),
            },
        ),
        fact("Version", if row.version > 0 { row.version.to_string() } else { unknown() }),
        fact("Made by job", made_by.map_or_else(unknown, |id| id.to_string())),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::{by_ping, facts, of};
    use crate::agents::AgentView;
    use crate::model::{AgentId, CustomerId, Micros, ServerId};
    use crate::store::provisioning::agent::AgentRow;

    pub(in super::super) fn row() -> AgentRow {
        AgentRow {
            id: 9,
            customer: 1,
            job: "j".to_owned(),
            server: Some(7),
            token_hash: "secret-hash".to_owned(),
            token_expires: 10,
            token_used_at: Some(5),
            key_hash: Some("0123456789abcdef0123456789abcdef".to_owned()),
            serial: Some("77".to_owned()),
            state: "accepted".to_owned(),
            address: Some("127.1.0.1:2003".to_owned()),
            version: 1,
            platform: "linux".to_owned(),
            instance: None,
            session_boot: None,
            session_no: 0,
            enrolled_at: Some(6),
            expires_at: Some(90_000_000),
            last_contact: Some(7),
            made_at: 1,
        }
    }

    fn view(connected: bool) -> AgentView {
        AgentView {
            agent: AgentId(9),
            server: ServerId(7),
            customer: CustomerId(1),
            address: "127.0.0.1:1".parse().expect("an address"),
            connected,
            session: 3,
            version: 1,
            heard: Some(Micros(1_000_000)),
            in_flight: 2,
            stats: None,
            trouble: Some("connection refused".to_owned()),
        }
    }

    #[test]
    fn a_witness_that_was_not_asked_says_so() {
        let words = |session| -> Vec<&str> {
            of(&row(), session, (None, None), Micros(2_000_000)).iter().map(|w| w.word).collect()
        };
        assert_eq!(words(None), ["not asked", "yes", "not asked", "not asked"]);
        let (up, down) = (view(true), view(false));
        assert_eq!(words(Some(Some(&up)))[0], "yes");
        assert_eq!(words(Some(Some(&down)))[0], "no");
        let mut refused = row();
        refused.state = "revoked".to_owned();
        let words: Vec<&str> =
            of(&refused, Some(Some(&up)), (None, None), Micros(3)).iter().map(|w| w.word).collect();
        assert_eq!(words[..2], ["not asked", "not asked"]);
        assert_eq!(by_ping(&row(), None, Micros(400_000_000)).word, "silent");
    }

    #[test]
    fn facts_show_a_key_but_never_a_token() {
        let shown: Vec<String> =
            facts(&row(), Some(3), Micros(8)).into_iter().map(|fact| fact.value).collect();
        let shown = shown.join("|");
        assert!(shown.contains("SHA256:01234567…89abcdef") && shown.contains("left"), "{shown}");
        assert!(!shown.contains("secret-hash"));
    }
}

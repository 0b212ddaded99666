//! The actors of this process, worst first.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::frame::{Me, with};
use super::{page, words};
use crate::access::{Action, Resource, Verb};
use crate::model::Micros;
use crate::supervision::{ArbiterSnapshot, Snapshot};
use crate::web::{Fault, State};

/// Actors on the page; the rest is counted.
const MOST: usize = 200;

struct Actor {
    key: String,
    kind: &'static str,
    name: String,
    icon: &'static str,
    hue: &'static str,
    state: &'static str,
    mailbox: usize,
    message: String,
    since_ms: String,
    since: String,
    restarts: u64,
    window: u32,
    panic: String,
}

#[derive(Template)]
#[template(path = "actors.html")]
struct Actors {
    me: Me,
    lead: String,
    actors: Vec<Actor>,
    more: usize,
    arbiters: Vec<ArbiterSnapshot>,
}

/// The page.
pub(super) async fn actors(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Customer))?;
        let now = Micros::wall();
        let mut found = state.supervisor.snapshots();
        let arbiters = state.supervisor.arbiters();
        found.sort_by(|a, b| {
            let rank = |s: &Snapshot| std::cmp::Reverse((badness(s.state), s.last_panic.is_some()));
            (rank(a), a.kind, &a.key).cmp(&(rank(b), b.kind, &b.key))
        });
        let shown = Actors {
            lead: lead(&found, &arbiters),
            more: found.len().saturating_sub(MOST),
            actors: found.iter().take(MOST).map(|actor| of(actor, now)).collect(),
            me: Me::of(&visitor, now, "actors"),
            arbiters,
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

fn badness(state: &str) -> u8 {
    match state {
        "given-up" => 2,
        "backing-off" => 1,
        _ => 0,
    }
}

fn lead(actors: &[Snapshot], arbiters: &[ArbiterSnapshot]) -> String {
    let many = |n: usize, one: &str, many: &str| match n {
        0 => format!("none {many}"),
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let ill = actors.iter().filter(|actor| badness(actor.state) > 0).count();
    let panicked = actors.iter().filter(|actor| actor.last_panic.is_some()).count();
    let red = arbiters.iter().filter(|arbiter| arbiter.red).count();
    let ok = if ill + red == 0 { "All actors run." } else { "Some actors do not run as they should." };
    format!(
        "{ok} Of {} actors {}, {}; of {} arbiters {}.",
        actors.len(),
        many(ill, "is down", "are down"),
        many(panicked, "panicked", "panicked"),
        arbiters.len(),
        many(red, "lags", "lag"),
    )
}

fn of(actor: &Snapshot, now: Micros) -> Actor {
    let (icon, hue) = match actor.state {
        "running" => ("ok", "c-ok"),
        "starting" => ("queued", "c-idle"),
        "backing-off" => ("unknown", "c-doubt"),
        "given-up" => ("failed", "c-bad"),
        _ => ("cancelled", "c-idle"),
    };
    let (message, since) = actor.message.as_ref().map_or((String::new(), None), |(name, at)| {
        (words::plain(name.rsplit("::").next().unwrap_or(name)), Some(*at))
    });
    Actor {
        key: words::plain(&format!("{}/{}", actor.kind, actor.key)),
        kind: actor.kind,
        name: words::plain(&actor.key),
        icon,
        hue,
        state: actor.state,
        mailbox: actor.mailbox,
        message,
        since_ms: since.map_or_else(String::new, |at| at.millis().to_string()),
        since: since.map_or_else(|| "–".to_owned(), |at| words::took(now.since(at))),
        restarts: actor.restarts,
        window: actor.restarts_in_window,
        panic: actor.last_panic.as_deref().map(words::plain).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{lead, of};
    use crate::model::Micros;
    use crate::supervision::Snapshot;

    fn actor(state: &'static str) -> Snapshot {
        Snapshot {
            kind: "job",
            key: "<b>".to_owned(),
            state,
            mailbox: 0,
            message: Some(("a::b::Submit".to_owned(), Micros(1_000_000))),
            restarts_in_window: 0,
            restarts: 0,
            last_panic: None,
            incarnation: 1,
            started_at: Micros(0),
        }
    }

    #[test]
    fn the_sentence_counts_what_is_ill() {
        assert_eq!(
            lead(&[actor("running")], &[]),
            "All actors run. Of 1 actors none are down, none panicked; of 0 arbiters none lag."
        );
        assert!(lead(&[actor("given-up")], &[]).contains("1 is down"));
    }

    #[test]
    fn a_message_is_named_without_its_path() {
        let shown = of(&actor("backing-off"), Micros(3_000_000));
        assert_eq!(
            (shown.message.as_str(), shown.since.as_str(), shown.icon),
            ("Submit", "2.0 s", "unknown")
        );
    }
}

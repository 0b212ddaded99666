//! The actors of this process: by kind, worst first; one in full.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::fleet::Ago;
use super::frame::{Me, with};
use super::{page, words};
use crate::access::{Action, Resource, Verb};
use crate::model::Micros;
use crate::supervision::{ArbiterSnapshot, KindSnapshot, Snapshot};
use crate::web::rest::{Problem, jobs as api, lists};
use crate::web::{Fault, State};

/// Actors on the page; the rest is counted.
const MOST: usize = 200;
/// A lag that fills the whole bar: longer is a fault.
const FULL_MS: u64 = 5000;

struct Kind {
    kind: &'static str,
    on: bool,
    icon: &'static str,
    hue: &'static str,
    word: String,
    count: String,
    deepest: usize,
    oldest: Ago,
    restarts: u64,
    panics: u64,
    p99: String,
    handled: String,
}

struct Actor {
    href: String,
    key: String,
    kind: &'static str,
    name: String,
    icon: &'static str,
    hue: &'static str,
    state: &'static str,
    mailbox: usize,
    oldest: Ago,
    message: String,
    since: Ago,
    restarts: u64,
    window: u32,
    budget: u32,
    panic: String,
}

/// An arbiter with its lag as a bar of 100.
struct Bar {
    name: String,
    red: bool,
    lag: String,
    width: u64,
}

#[derive(Template)]
#[template(path = "actors.html")]
struct Actors {
    me: Me,
    lead: String,
    node: String,
    said: Option<String>,
    kind: Option<String>,
    kinds: Vec<Kind>,
    actors: Vec<Actor>,
    more: usize,
    arbiters: Vec<Bar>,
    path: String,
}

/// What is asked of the page: a kind, and the process.
fn asked(request: &HttpRequest) -> Result<(Option<String>, Option<String>), Problem> {
    let pairs = api::query(request, &["kind", "node"])?;
    let of = |wanted: &str| {
        let found = pairs.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    Ok((of("kind"), of("node")))
}

/// The page.
pub(super) async fn actors(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Customer))?;
        let (kind, asked_node) = asked(&request)?;
        lists::known_kind(&state, kind.as_deref())?;
        let now = Micros::wall();
        let (mut found, arbiters) = (state.supervisor.snapshots(), state.supervisor.arbiters());
        let lead = lead(&found, &arbiters);
        let node = found.iter().find(|actor| actor.kind == "registry").map(|actor| actor.key.clone());
        let node = node.unwrap_or_default();
        let other = asked_node.filter(|wanted| !node.starts_with(wanted.as_str()));
        found.retain(|actor| other.is_none() && kind.as_deref().is_none_or(|kind| actor.kind == kind));
        found.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| (a.kind, &a.key).cmp(&(b.kind, &b.key))));
        let kinds = state.supervisor.kinds();
        let shown = Actors {
            lead,
            said: other.map(|wanted| {
                let wanted = words::plain(&wanted.chars().take(40).collect::<String>());
                format!("There is no process {wanted}; this one is {node} and answers for itself only.")
            }),
            node: node.chars().take(8).collect(),
            path: kind.as_ref().map_or_else(String::new, |kind| format!(" --kind {kind}")),
            kinds: kinds.iter().map(|of| Kind::of(of, kind.as_deref(), now)).collect(),
            kind,
            more: found.len().saturating_sub(MOST),
            actors: found.iter().take(MOST).map(|actor| Actor::of(actor, now)).collect(),
            me: Me::of(&visitor, now, "actors"),
            arbiters: arbiters.iter().map(Bar::of).collect(),
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

/// What is worse is larger.
fn rank(actor: &Snapshot) -> (u8, bool, usize, u32) {
    (badness(actor.state), actor.last_panic.is_some(), actor.mailbox, actor.restarts_in_window)
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

const fn look(state: &str) -> (&'static str, &'static str) {
    match state.as_bytes() {
        b"running" => ("ok", "c-ok"),
        b"starting" => ("queued", "c-idle"),
        b"backing-off" => ("unknown", "c-doubt"),
        b"given-up" => ("failed", "c-bad"),
        _ => ("cancelled", "c-idle"),
    }
}

impl Kind {
    fn of(kind: &KindSnapshot, chosen: Option<&str>, now: Micros) -> Self {
        let ((icon, hue), word) = match kind.ill {
            0 if kind.count == 0 => (("cancelled", "c-idle"), "none now".to_owned()),
            0 => (look("running"), "well".to_owned()),
            n => (look("given-up"), format!("{n} down")),
        };
        Self {
            kind: kind.kind,
            on: chosen == Some(kind.kind),
            icon,
            hue,
            word,
            count: words::count(i64::try_from(kind.count).unwrap_or(i64::MAX)),
            deepest: kind.deepest,
            oldest: Ago::of(kind.oldest.map(|at| at.0), now),
            restarts: kind.restarts,
            panics: kind.panics,
            p99: kind.p99_us.map_or_else(
                || "–".to_owned(),
                |us| format!("< {}", words::took(std::time::Duration::from_micros(us))),
            ),
            handled: words::count(i64::try_from(kind.handled).unwrap_or(i64::MAX)),
        }
    }
}

/// The address of an actor's page; slashes of its key stay.
fn href(kind: &str, key: &str) -> String {
    let parts: Vec<String> = key.split('/').map(|part| words::escaped(part).replace('+', "%20")).collect();
    format!("/actors/{kind}/{}", parts.join("/"))
}

impl Actor {
    fn of(actor: &Snapshot, now: Micros) -> Self {
        let (icon, hue) = look(actor.state);
        let (message, since) = actor.message.as_ref().map_or((String::new(), None), |(name, at)| {
            (words::plain(name.rsplit("::").next().unwrap_or(name)), Some(at.0))
        });
        Self {
            href: href(actor.kind, &actor.key),
            key: words::plain(&format!("{}/{}", actor.kind, actor.key)),
            kind: actor.kind,
            name: words::plain(&actor.key),
            icon,
            hue,
            state: actor.state,
            mailbox: actor.mailbox,
            oldest: Ago::of(actor.oldest.map(|at| at.0), now),
            message,
            since: Ago::of(since, now),
            restarts: actor.restarts,
            window: actor.restarts_in_window,
            budget: actor.budget,
            panic: actor.last_panic.as_deref().map(words::plain).unwrap_or_default(),
        }
    }
}

impl Bar {
    fn of(arbiter: &ArbiterSnapshot) -> Self {
        Self {
            name: arbiter.name.clone(),
            red: arbiter.red,
            lag: words::took(std::time::Duration::from_millis(arbiter.lag_ms)),
            width: (arbiter.lag_ms * 100 / FULL_MS).clamp(1, 100),
        }
    }
}

/// An actor by its address, for a link.
struct Link {
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "actor.html")]
struct One {
    me: Me,
    actor: Actor,
    arbiter: &'static str,
    window_secs: u64,
    incarnation: u64,
    began: Ago,
    parent: Option<Link>,
    children: Vec<Link>,
    more: usize,
    job: Option<i64>,
    epoch: i64,
    server: Option<i64>,
}

/// One actor in full.
pub(super) async fn one(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Customer))?;
        let (found, works) = lists::actor_of(&request, &state, visitor.principal.customer).await?;
        let (now, all) = (Micros::wall(), state.supervisor.snapshots());
        let own = format!("{}/{}", found.kind, found.key);
        let children: Vec<&Snapshot> =
            all.iter().filter(|actor| actor.parent.as_deref() == Some(own.as_str())).collect();
        let link = |actor: &&Snapshot| Link {
            href: href(actor.kind, &actor.key),
            name: words::plain(&format!("{}/{}", actor.kind, actor.key)),
        };
        let parent = found.parent.as_deref().and_then(|name| name.split_once('/'));
        let shown = One {
            me: Me::of(&visitor, now, "actors"),
            actor: Actor::of(&found, now),
            arbiter: found.arbiter,
            window_secs: found.window_secs,
            incarnation: found.incarnation,
            began: Ago::of(Some(found.started_at.0), now),
            parent: parent.map(|(kind, key)| Link {
                href: href(kind, key),
                name: words::plain(&format!("{kind}/{key}")),
            }),
            more: children.len().saturating_sub(MOST),
            children: children.iter().take(MOST).map(link).collect(),
            job: works.job.map(|(id, _)| id),
            epoch: works.job.map_or(0, |(_, epoch)| epoch),
            server: works.server,
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{Actor, href, lead, rank};
    use crate::model::Micros;
    use crate::supervision::Snapshot;

    fn actor(state: &'static str) -> Snapshot {
        Snapshot {
            kind: "job",
            key: "<b>".to_owned(),
            state,
            mailbox: 0,
            oldest: None,
            message: Some(("a::b::Submit".to_owned(), Micros(1_000_000))),
            restarts_in_window: 0,
            budget: 5,
            window_secs: 60,
            restarts: 0,
            last_panic: None,
            incarnation: 1,
            started_at: Micros(0),
            arbiter: "jobs",
            parent: Some("registry/x".to_owned()),
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
    fn what_is_down_comes_before_what_waits() {
        let full = Snapshot { mailbox: 100, ..actor("running") };
        let panicked = Snapshot { last_panic: Some("boom".to_owned()), ..actor("running") };
        assert!(rank(&actor("given-up")) > rank(&actor("backing-off")));
        assert!(rank(&actor("backing-off")) > rank(&panicked) && rank(&panicked) > rank(&full));
        assert!(rank(&full) > rank(&actor("running")));
    }

    #[test]
    fn a_message_is_named_without_its_path_and_a_key_stays_one_part_of_the_address() {
        let shown = Actor::of(&actor("backing-off"), Micros(3_000_000));
        assert_eq!(
            (shown.message.as_str(), shown.since.text.as_str(), shown.icon),
            ("Submit", "2.0 s", "unknown")
        );
        assert_eq!(shown.href, "/actors/job/%3Cb%3E");
        assert_eq!(href("agent", "7#1 ?"), "/actors/agent/7%231%20%3F");
        assert_eq!(href("monitor", "monitor/ab"), "/actors/monitor/monitor/ab");
    }
}

//! The overview: what is wrong, what waits longest, how long a job takes, what was recovered. Every figure is read from
//! rows or counted by this process; what cannot be known says so with its reason.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::figures::{self, Class, DAY, Found, Recovered, Split, Wait};
use super::frame::{Me, with};
use super::show::Row;
use super::{page, words};
use crate::access::{Action, Resource, Verb};
use crate::model::{CustomerId, JobState, Micros};
use crate::ops::mode::{self, Mode};
use crate::ops::{PartState, Recovery, State as PartWord};
use crate::store::provisioning::figures::{Holder, Timed};
use crate::store::provisioning::job::{Job, JobRow};
use crate::store::provisioning::limit::Learned;
use crate::store::provisioning::obligation::ObligationRow;
use crate::web::rest::Problem;
use crate::web::rest::limits::{Used, used};
use crate::web::stale::unreadable;
use crate::web::{Fault, State};

/// Something that needs a person.
struct Need {
    icon: &'static str,
    hue: &'static str,
    kind: &'static str,
    text: String,
    href: String,
    link: String,
    since: String,
    since_ms: String,
}

struct Part {
    name: &'static str,
    icon: &'static str,
    hue: &'static str,
    word: &'static str,
    since: String,
    note: String,
}

/// A part that is down, with what that means.
struct Down {
    name: String,
    hue: &'static str,
    icon: &'static str,
    bad: bool,
    since: String,
    since_ms: String,
    note: String,
    sees: &'static str,
    works: String,
    waits: String,
}

/// A limit with its use.
struct Bound {
    whose: String,
    query: String,
    use_of: String,
    /// Of a thousand.
    wide: i64,
    pace: String,
    waiting: String,
    by: String,
}

struct Life {
    name: String,
    role: String,
    alive: bool,
    jobs: String,
    up: String,
    up_ms: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    me: Me,
    lead: String,
    may_launch: bool,
    oldest: Option<Row>,
    waits: Vec<Wait>,
    split: Option<Split>,
    recovery: Recovered,
    needs: Vec<Need>,
    failures: Vec<Class>,
    healed: Vec<Class>,
    sample: String,
    parts: Vec<Part>,
    /// The mode in one line.
    mode: String,
    down: Vec<Down>,
    /// When the rows were read, where they cannot be read now.
    stale: Option<String>,
    lives: Vec<Life>,
    limits: Vec<Bound>,
    rows: Vec<Row>,
    newest: i64,
}

/// The page.
pub(super) async fn overview(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let customer = visitor.principal.customer;
        let (found, stale) = figures(&state, customer).await?;
        let (_, parts) = state.health.ready();
        let me = Me::of(&visitor, if stale { Micros::wall() } else { found.now }, "overview");
        let may_launch = visitor.principal.can(Action::new(Verb::Create, Resource::Server));
        let limits = match used(&state, customer).await {
            // What cannot be read now is not remembered: it would be old at once.
            Err(_) if stale || unreadable(&state) => Vec::new(),
            read => read?,
        };
        let mut shown = told(&found, (me, may_launch), &parts, state.metrics.last_recovery());
        shown.limits = limits.iter().map(bound).collect();
        shown.stale = stale.then(|| words::clock(found.now));
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// What the rows say; what they said last, marked by true, while they cannot be read.
async fn figures(state: &State, customer: CustomerId) -> Result<(Arc<Found>, bool), Problem> {
    match state.store.read(move |c| figures::read(c, customer)).await {
        Ok(found) => {
            let found = Arc::new(found);
            state.desk.remembered.keep_figures(customer, &found);
            Ok((found, false))
        }
        Err(error) => match state.desk.remembered.last_figures(customer).filter(|_| unreadable(state)) {
            Some(found) => Ok((found, true)),
            None => Err(error.into()),
        },
    }
}

fn told(
    found: &Found,
    (me, may_launch): (Me, bool),
    parts: &[PartState],
    last: Option<Recovery>,
) -> Overview {
    let now = found.now;
    let row = |row: &JobRow| Job::try_from(row.clone()).ok().map(|job| Row::of(&job, now));
    let (failures, healed) = figures::classes(found);
    let needs = needs(found, now);
    let wall = Micros::wall();
    let shown: Vec<Part> = parts.iter().map(|part| part_of(part, wall)).collect();
    let modes = mode::modes(parts);
    Overview {
        lead: lead(needs.len(), &modes, &found.waiting),
        may_launch,
        oldest: found.oldest.as_ref().and_then(row),
        waits: figures::waits(&found.waiting, now),
        split: figures::split(found, now),
        recovery: figures::recovered(found, last),
        sample: words::count(i64::try_from(found.newest.len()).unwrap_or(i64::MAX)),
        lives: found.holders.iter().map(|holder| life(holder, now)).collect(),
        rows: found.jobs.iter().filter_map(row).collect(),
        limits: Vec::new(),
        newest: found.jobs.first().map_or(0, |job| job.id),
        parts: shown,
        mode: words::capital(&mode::name(&modes)),
        down: modes.iter().map(|mode| down_of(mode, wall)).collect(),
        stale: None,
        needs,
        failures,
        healed,
        me,
    }
}

fn lead(needs: usize, modes: &[Mode], waiting: &[(String, i64, Option<i64>)]) -> String {
    let waiting: i64 = waiting.iter().map(|(_, n, _)| n).sum();
    let needs = match needs {
        0 => "Nothing waits for a person.".to_owned(),
        1 => "1 matter needs you.".to_owned(),
        n => format!("{n} matters need you."),
    };
    let parts = match modes.len() {
        0 => "All parts are up.".to_owned(),
        1 => format!("1 part is not well: {}.", mode::name(modes)),
        n => format!("{n} parts are not well: {}.", mode::name(modes)),
    };
    let waiting = match waiting {
        0 => "No job waits.".to_owned(),
        1 => "1 job waits.".to_owned(),
        n => format!("{} jobs wait.", words::count(n)),
    };
    format!("{needs} {parts} {waiting}")
}

fn needs(found: &Found, now: Micros) -> Vec<Need> {
    let mut needs: Vec<Need> = found
        .needed
        .iter()
        .filter_map(|row| Job::try_from(row.clone()).ok())
        .map(|job| {
            let row = Row::of(&job, now);
            let at = job.ended_at.unwrap_or(job.changed_at);
            Need {
                icon: row.look.icon,
                hue: row.look.hue,
                kind: row.look.word,
                text: row.why,
                href: format!("/jobs/{}", row.id),
                link: format!("{} {}", row.kind, row.id),
                since: words::took(now.since(at)),
                since_ms: at.millis().to_string(),
            }
        })
        .collect();
    needs.extend(found.left.iter().map(|left| left_behind(left, now)));
    let day = now.minus(DAY);
    let failed: Vec<&Timed> = found
        .newest
        .iter()
        .filter(|job| job.state == JobState::Failed.as_str() && job.created_at >= day.0)
        .collect();
    if let Some(oldest) = failed.last() {
        let at = Micros(oldest.created_at);
        needs.push(Need {
            icon: "failed",
            hue: "c-bad",
            kind: "failed",
            text: "of the last day; what they were refused for stands beside this".to_owned(),
            href: "/jobs?q=state:failed".to_owned(),
            link: match failed.len() {
                1 => "1 job".to_owned(),
                n => format!("{} jobs", words::count(i64::try_from(n).unwrap_or(i64::MAX))),
            },
            since: words::took(now.since(at)),
            since_ms: at.millis().to_string(),
        });
    }
    needs
}

/// Something at a cloud that nobody owns and that is not taken back by itself.
fn left_behind(left: &ObligationRow, now: Micros) -> Need {
    let found: Vec<serde_json::Value> = serde_json::from_str(&left.found).unwrap_or_default();
    let word = |one: &serde_json::Value, field: &str| {
        one.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let first = found.iter().find(|one| word(one, "fate") == "needs-you");
    let text = first.map_or_else(
        || "what may have been left behind cannot be looked for".to_owned(),
        |one| format!("{} {}: {}", word(one, "resource"), word(one, "state"), word(one, "text")),
    );
    let since = Micros(left.looked_at.unwrap_or(left.made_at));
    Need {
        icon: "warn",
        hue: "c-doubt",
        kind: "left behind",
        text: words::plain(&text),
        href: "/api/v1/obligations?state=needs-you".to_owned(),
        link: format!("account {}", left.account),
        since: words::took(now.since(since)),
        since_ms: since.millis().to_string(),
    }
}

fn part_of(part: &PartState, now: Micros) -> Part {
    let (icon, hue, word) = match part.state {
        PartWord::Ok => ("ok", "c-ok", "up"),
        PartWord::Degraded => ("warn", "c-doubt", "degraded"),
        PartWord::Red => ("failed", "c-bad", "down"),
    };
    Part {
        name: part.part,
        icon,
        hue,
        word,
        since: words::took(now.since(part.since)),
        note: words::plain(&part.reason),
    }
}

fn down_of(mode: &Mode, now: Micros) -> Down {
    let bad = mode.state == PartWord::Red;
    Down {
        name: words::capital(mode.name),
        hue: if bad { "c-bad" } else { "c-doubt" },
        icon: if bad { "failed" } else { "warn" },
        bad,
        since: words::took(now.since(mode.since)),
        since_ms: mode.since.millis().to_string(),
        note: words::plain(&mode.reason),
        sees: mode.sees,
        works: mode.works().join(", "),
        waits: mode.waits.join("; "),
    }
}

fn bound(used: &Used) -> Bound {
    let row = &used.row;
    let of = if row.kind.is_empty() { String::new() } else { format!(", {}", row.kind) };
    let kind = if row.kind.is_empty() { String::new() } else { format!(" kind:{}", row.kind) };
    let set = row.starts.map(|starts| format!("{starts} starts in {} s", row.per_secs.unwrap_or(1)));
    let learned = row.learned_now(used.now).map(|rate| format!("{} for now: throttled", Learned::told(rate)));
    let pace: Vec<String> = [set, learned].into_iter().flatten().collect();
    Bound {
        whose: words::plain(&format!("account {}{of}", row.account)),
        query: words::escaped(&format!("account:{} waits:limit{kind}", row.account)),
        use_of: match row.together {
            Some(most) => format!("{} of {} at work", words::count(used.at_work), words::count(most.into())),
            None => format!("{} at work", words::count(used.at_work)),
        },
        wide: row.together.map_or(0, |most| (used.at_work * 1000 / i64::from(most.max(1))).clamp(0, 1000)),
        pace: if pace.is_empty() { "–".to_owned() } else { words::plain(&pace.join("; ")) },
        waiting: words::count(used.waiting),
        by: if row.made_by.is_empty() { "learned".to_owned() } else { words::plain(&row.made_by) },
    }
}

fn life((node, jobs): &Holder, now: Micros) -> Life {
    let started = Micros(node.started_at);
    Life {
        name: node.boot.chars().take(8).collect(),
        role: words::plain(&node.role),
        alive: node.state == "alive",
        jobs: words::count(*jobs),
        up: words::took(now.since(started)),
        up_ms: started.millis().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bound, down_of, lead, life, part_of};
    use crate::model::{AccountId, CustomerId, Micros};
    use crate::ops::mode::modes;
    use crate::ops::{PartState, State};
    use crate::store::provisioning::limit::LimitRow;
    use crate::store::provisioning::node::Node;
    use crate::web::rest::limits::Used;

    #[test]
    fn the_sentence_counts_what_is_wrong_first() {
        assert_eq!(lead(0, &[], &[]), "Nothing waits for a person. All parts are up. No job waits.");
        let waiting = [("server-busy".to_owned(), 1200, Some(1)), ("dispatch".to_owned(), 1, None)];
        let down = modes(&[part("queue", State::Degraded)]);
        assert_eq!(
            lead(2, &down, &waiting),
            "2 matters need you. 1 part is not well: queue away. 1,201 jobs wait."
        );
    }

    fn part(part: &'static str, state: State) -> PartState {
        PartState { part, state, reason: "gone".to_owned(), since: Micros(0) }
    }

    #[test]
    fn a_limit_shows_its_use() {
        let mut row = LimitRow::empty(CustomerId(1), AccountId(300), "noop".to_owned(), Micros(0));
        (row.together, row.starts, row.per_secs, row.made_by) =
            (Some(4), Some(9), Some(60), "<ann>".to_owned());
        let shown = bound(&Used { row, at_work: 3, waiting: 1200, now: Micros(0) });
        assert_eq!((shown.whose.as_str(), shown.use_of.as_str()), ("account 300, noop", "3 of 4 at work"));
        assert_eq!(
            (shown.wide, shown.waiting.as_str(), shown.pace.as_str()),
            (750, "1,200", "9 starts in 60 s")
        );
    }

    #[test]
    fn a_part_that_is_down_says_what_still_works_and_a_dead_life_is_dead() {
        let state = part("key manager", State::Degraded);
        let shown = part_of(&state, Micros(61_000_000));
        assert_eq!((shown.word, shown.icon, shown.since.as_str()), ("degraded", "warn", "1 m 1 s"));
        let down = down_of(&modes(&[state])[0], Micros(61_000_000));
        assert_eq!(
            (down.name.as_str(), down.since.as_str(), down.bad),
            ("Key manager away", "1 m 1 s", false)
        );
        assert!(
            down.works.contains("submits") && down.works.contains("commands on guests"),
            "{}",
            down.works
        );
        assert!(!down.works.contains("calls to clouds") && down.waits.contains("why says so"));
        let node = Node {
            boot: "0123456789abcdef".to_owned(),
            role: "dev".to_owned(),
            beat: 3,
            state: "dead".to_owned(),
            started_at: 0,
        };
        let life = life(&(node, 7), Micros(1));
        assert!(!life.alive && life.jobs == "7" && life.name == "01234567");
    }
}

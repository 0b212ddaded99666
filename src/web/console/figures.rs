//! The figures of the overview: what waits, how long a job takes from submit to verdict, what failed and what was got
//! over, what was recovered. Read from rows in one go; the rest is pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::words;
use crate::model::{CustomerId, JobState, Micros, ObligationState};
use crate::ops::Recovery;
use crate::store::AnyConnection;
use crate::store::provisioning::figures::{self, Holder, Timed};
use crate::store::provisioning::job::{self, Filter, JobRow};
use crate::store::provisioning::obligation::{self, ObligationRow};
use crate::store::provisioning::view;

/// Jobs the figures are made of: the newest ones.
const SAMPLE: i64 = 1000;
/// The time the split is about.
const HOUR: Duration = Duration::from_secs(3600);
/// How long an unresolved or failed job is news.
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// Jobs of a kind that need a person, at most.
const NEEDED: usize = 6;
/// Newest jobs on the page.
const NEWEST: i64 = 8;

/// Everything the rows say.
pub(super) struct Found {
    pub(super) waiting: Vec<(String, i64, Option<i64>)>,
    pub(super) oldest: Option<JobRow>,
    pub(super) newest: Vec<Timed>,
    pub(super) calls: HashMap<String, i64>,
    pub(super) verdicts: HashMap<String, i64>,
    pub(super) refusals: Vec<(String, Option<String>)>,
    pub(super) needed: Vec<JobRow>,
    pub(super) lost: i64,
    /// What the janitor found and does not take back by itself.
    pub(super) left: Vec<ObligationRow>,
    pub(super) holders: Vec<Holder>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) now: Micros,
}

/// A wait: what for, how many, since when.
pub(super) struct Wait {
    pub(super) code: String,
    pub(super) count: String,
    pub(super) oldest: String,
}

/// A leg of the way from submit to verdict.
pub(super) struct Leg {
    pub(super) name: &'static str,
    pub(super) p50: String,
    pub(super) p95: String,
    pub(super) x: u64,
    pub(super) wide: u64,
    pub(super) class: &'static str,
}

pub(super) struct Split {
    pub(super) legs: Vec<Leg>,
    pub(super) jobs: String,
    pub(super) figure: String,
    pub(super) p95: String,
}

/// A class of failures as a bar.
pub(super) struct Class {
    pub(super) name: String,
    pub(super) count: String,
    pub(super) wide: u64,
}

pub(super) struct Recovered {
    pub(super) figure: String,
    pub(super) took: String,
    pub(super) text: String,
    pub(super) taken: String,
    pub(super) lost: String,
}

pub(super) fn read(c: &mut AnyConnection, customer: CustomerId) -> diesel::QueryResult<Found> {
    let now = view::now(c)?;
    let newest = figures::newest(c, customer, SAMPLE)?;
    let from = newest.last().map_or(i64::MAX, |job| job.id);
    let known = |pairs: Vec<(String, Option<i64>)>| {
        pairs.into_iter().filter_map(|(uid, at)| Some((uid, at?))).collect()
    };
    let filter = Filter { limit: NEWEST, ..Filter::default() };
    let left = obligation::Filter {
        state: Some(ObligationState::NeedsYou),
        limit: i64::try_from(NEEDED).unwrap_or(i64::MAX),
        ..obligation::Filter::default()
    };
    let day = now.minus(DAY).0;
    let unresolved =
        newest.iter().filter(|job| job.state == JobState::Unresolved.as_str() && job.created_at >= day);
    let unresolved: Vec<String> = unresolved.take(NEEDED).map(|job| job.uid.clone()).collect();
    let mut needed = figures::set_aside(c, customer, i64::try_from(NEEDED).unwrap_or(i64::MAX))?;
    needed.extend(figures::named(c, &unresolved)?);
    Ok(Found {
        waiting: figures::waiting(c, customer)?,
        oldest: view::oldest_waiting(c, customer)?,
        calls: known(figures::first_calls(c, customer, from)?),
        verdicts: known(figures::verdicts(c, customer, from)?),
        refusals: figures::refusals(c, customer, from)?,
        needed,
        lost: figures::lost(c, customer)?,
        left: obligation::list(c, customer, &left)?,
        holders: figures::holders(c)?,
        jobs: job::list(c, customer, &filter)?,
        newest,
        now,
    })
}

pub(super) fn waits(waiting: &[(String, i64, Option<i64>)], now: Micros) -> Vec<Wait> {
    let mut sorted: Vec<&(String, i64, Option<i64>)> = waiting.iter().collect();
    sorted.sort_by_key(|(_, _, oldest)| *oldest);
    let wait = |(code, count, oldest): &(String, i64, Option<i64>)| Wait {
        code: if code.is_empty() { "no reason given".to_owned() } else { words::plain(code) },
        count: words::count(*count),
        oldest: oldest.map_or_else(|| "–".to_owned(), |at| words::took(now.since(Micros(at)))),
    };
    sorted.into_iter().take(5).map(wait).collect()
}

/// The part below which this share of sorted times lies.
fn part(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Times from submit to verdict of the jobs of the last hour; nothing when none was submitted.
pub(super) fn split(found: &Found, now: Micros) -> Option<Split> {
    let since = now.minus(HOUR);
    let recent: Vec<&Timed> = found.newest.iter().filter(|job| job.created_at >= since.0).collect();
    if recent.is_empty() {
        return None;
    }
    let at = |map: &HashMap<String, i64>, job: &Timed| map.get(&job.uid).copied().map(Micros);
    let started = |job: &Timed| at(&found.calls, job);
    let leg =
        |from: &dyn Fn(&Timed) -> Option<Micros>, to: &dyn Fn(&Timed) -> Option<Micros>| -> Vec<Duration> {
            let mut times: Vec<Duration> =
                recent.iter().filter_map(|job| Some(to(job)?.since(from(job)?))).collect();
            times.sort_unstable();
            times
        };
    let created = |job: &Timed| Some(Micros(job.created_at));
    let claimed = |job: &Timed| job.claimed_at.map(Micros);
    let seen = |job: &Timed| at(&found.verdicts, job);
    let to_start = leg(&created, &started);
    let times = [
        ("Submit to claimed", "k1", leg(&created, &claimed)),
        ("Claimed to started", "k3", leg(&claimed, &started)),
        ("Started to verdict", "", leg(&started, &seen)),
    ];
    let known = |times: &[Duration], percent| {
        if times.is_empty() { "not known yet".to_owned() } else { words::took(part(times, percent)) }
    };
    let whole =
        times.iter().filter(|(_, class, _)| !class.is_empty()).map(|(_, _, t)| part(t, 50)).sum::<Duration>();
    let mut x = 0;
    let legs = times.iter().map(|(name, class, times)| {
        let share = part(times, 50).as_micros() * 1000 / whole.as_micros().max(1);
        let wide = if class.is_empty() { 0 } else { u64::try_from(share).unwrap_or(1000).min(1000) };
        x += wide;
        Leg { name, class, p50: known(times, 50), p95: known(times, 95), x: x - wide, wide }
    });
    Some(Split {
        legs: legs.collect(),
        jobs: match recent.len() {
            1 => "1 job".to_owned(),
            n => format!("{} jobs", words::count(i64::try_from(n).unwrap_or(i64::MAX))),
        },
        figure: known(&to_start, 50),
        p95: known(&to_start, 95),
    })
}

pub(super) fn recovered(found: &Found, last: Option<Recovery>) -> Recovered {
    let lost = words::count(found.lost);
    match last {
        Some(last) => Recovered {
            figure: format!("{} ago", words::took(found.now.since(last.at))),
            took: format!("took {}", words::took(last.took)),
            text: format!(
                "This process found jobs of dead lives at {} and took them over.",
                words::moment(last.at)
            ),
            taken: words::count(i64::try_from(last.jobs).unwrap_or(i64::MAX)),
            lost,
        },
        None => Recovered {
            figure: "None".to_owned(),
            took: "in this life of the process".to_owned(),
            text: "It found no job that a dead life left behind.".to_owned(),
            taken: "0".to_owned(),
            lost,
        },
    }
}

/// Failures by class, and refusals that jobs got over, of the newest jobs.
pub(super) fn classes(found: &Found) -> (Vec<Class>, Vec<Class>) {
    let class: HashMap<&str, &str> = found
        .refusals
        .iter()
        .map(|(uid, class)| (uid.as_str(), class.as_deref().unwrap_or("refused")))
        .collect();
    let mut failed: BTreeMap<String, i64> = BTreeMap::new();
    for job in found.newest.iter().filter(|job| job.state == JobState::Failed.as_str()) {
        let name = class.get(job.uid.as_str()).copied().unwrap_or(job.why_code.as_str());
        let name = if name.is_empty() { "no class" } else { name };
        *failed.entry(name.to_owned()).or_default() += 1;
    }
    let ended_badly =
        |uid: &str| found.newest.iter().any(|job| job.uid == uid && job.state == JobState::Failed.as_str());
    let mut healed: BTreeMap<String, i64> = BTreeMap::new();
    for (uid, class) in &found.refusals {
        if !ended_badly(uid) {
            *healed.entry(class.clone().unwrap_or_else(|| "refused".to_owned())).or_default() += 1;
        }
    }
    (bars(failed), bars(healed))
}

fn bars(counts: BTreeMap<String, i64>) -> Vec<Class> {
    let most = counts.values().copied().max().unwrap_or(1).max(1);
    let mut bars: Vec<(String, i64)> = counts.into_iter().collect();
    bars.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let class = |(name, n): (String, i64)| Class {
        name: words::plain(&name),
        count: words::count(n),
        wide: u64::try_from(n * 1000 / most).unwrap_or(1000).max(4),
    };
    bars.into_iter().take(8).map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::{Found, classes, part, recovered, split};
    use crate::model::Micros;
    use crate::ops::Recovery;
    use crate::store::provisioning::figures::Timed;
    use std::collections::HashMap;
    use std::time::Duration;

    fn timed(id: i64, state: &str, times: (i64, Option<i64>)) -> Timed {
        Timed {
            uid: format!("u{id}"),
            id,
            state: state.to_owned(),
            why_code: "deadline".to_owned(),
            created_at: times.0,
            claimed_at: times.1,
        }
    }

    fn found(newest: Vec<Timed>) -> Found {
        Found {
            waiting: Vec::new(),
            oldest: None,
            newest,
            calls: HashMap::from([("u1".to_owned(), 1_500)]),
            verdicts: HashMap::new(),
            refusals: Vec::new(),
            needed: Vec::new(),
            left: Vec::new(),
            lost: 0,
            holders: Vec::new(),
            jobs: Vec::new(),
            now: Micros(4_000_000_000),
        }
    }

    #[test]
    fn parts_of_a_hundred_are_those_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((part(&times, 50).as_millis(), part(&times, 95).as_millis()), (50, 95));
        assert_eq!(part(&times[..1], 95).as_millis(), 1);
        assert!(part(&[], 50).is_zero());
    }

    #[test]
    fn the_split_is_of_the_last_hour_and_says_what_it_does_not_know() {
        let now = Micros(4_000_000_000);
        assert!(split(&found(vec![timed(1, "complete", (1_000, Some(1_200)))]), now).is_none());
        let mut recent = found(vec![timed(1, "running", (3_999_000_000, Some(3_999_200_000)))]);
        recent.calls = HashMap::from([("u1".to_owned(), 3_999_500_000)]);
        let split = split(&recent, now).expect("one job");
        let p50: Vec<&str> = split.legs.iter().map(|leg| leg.p50.as_str()).collect();
        assert_eq!(p50, ["200 ms", "300 ms", "not known yet"]);
        assert_eq!((split.legs[0].wide, split.legs[1].x), (400, 400));
        assert_eq!(split.figure, "500 ms");
    }

    #[test]
    fn a_refusal_that_was_got_over_is_no_failure() {
        let mut rows = found(vec![
            timed(1, "complete", (1, None)),
            timed(2, "failed", (1, None)),
            timed(3, "failed", (1, None)),
        ]);
        let refused = |uid: &str, class: &str| (uid.to_owned(), Some(class.to_owned()));
        rows.refusals = vec![refused("u1", "throttled"), refused("u2", "throttled"), refused("u2", "auth")];
        let (failed, healed) = classes(&rows);
        let of = |classes: &[super::Class]| -> Vec<String> {
            classes.iter().map(|class| format!("{} {}", class.name, class.count)).collect()
        };
        assert_eq!(
            (of(&failed), of(&healed)),
            (vec!["auth 1".to_owned(), "deadline 1".to_owned()], vec!["throttled 1".to_owned()])
        );
    }

    #[test]
    fn a_recovery_is_told_from_what_was_counted() {
        let none = recovered(&found(Vec::new()), None);
        assert_eq!((none.figure.as_str(), none.taken.as_str()), ("None", "0"));
        let last = Recovery { at: Micros(3_000_000_000), took: Duration::from_millis(7), jobs: 41 };
        let told = recovered(&found(Vec::new()), Some(last));
        assert_eq!(
            (told.figure.as_str(), told.taken.as_str(), told.took.as_str()),
            ("16 m 40 s ago", "41", "took 7 ms")
        );
    }
}

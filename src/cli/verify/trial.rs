//! One trial from the first request to the verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Error;
use super::caller::{Answer, Caller};
use super::house::House;
use super::judge::{Class, Sources, Verdict, compare};
use super::ledger::Ledger;
use super::load::{Load, unanswered};
use super::nemesis::{Broker, Nemesis};
use super::plan::{Kind, Plan, Progress};
use super::recovery::Eye;
use super::report::{Line, Run};
use super::rng::Rng;
use super::scenario::Only;
use crate::agents::ABSENT;
use crate::store::AnyConnection;
use crate::store::provisioning::invariants::{Moment, Violation, violations};
use crate::store::provisioning::whole;

/// How long a node may take to notice that it was declared dead while it stood still: it ends by itself then, which is
/// no end it was asked for.
const NOTICE: Duration = Duration::from_secs(4);
/// How long an unanswered request may be asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// Runs it. The house is left standing still, with all its processes ended in order.
pub(super) async fn run(house: &mut House, plan: &Plan, broker: Broker) -> Result<Run, Error> {
    let began = Instant::now();
    let mut line = Line::new(plan.kills);
    let mut rng = Rng::new(plan.seed);
    let eye = Eye::new(house.jobs.clone());
    let load = Load::start(house, plan, &mut rng)?;
    let mut nemesis = Nemesis { house, plan, rng, broker, progress: Progress::default() };
    nemesis.run(&load, |progress| line.tell("striking", progress)).await?;
    let mut progress = std::mem::take(&mut nemesis.progress);
    progress.kills += house.heal().await?;
    let healed = Instant::now();
    progress.jobs = load.accepted();
    let lines = load.stop().await?;
    let mut sources = Sources { lines, ..Sources::default() };
    ask_again(house, &mut sources).await?;
    quiet(house, &eye, plan, || line.tell("healed, waiting for quiet", &progress)).await?;
    let quiet = healed.elapsed();
    house.pass(NOTICE).await?;
    let measured = house.recovery.end().await;
    let bad_ends = house.stop().await;
    line.end();
    sources.jobs = eye.read(whole::jobs).await?;
    sources.attempts = eye.read(whole::attempts).await?;
    sources.called_off = eye.read(|c| whole::called_off(c, ABSENT)).await?;
    let keys = eye.read(whole::keys).await?;
    sources.keys = keys.into_iter().filter_map(|(key, job)| Some((key, job?))).collect::<BTreeMap<_, _>>();
    sources.ledger = Ledger::read(&house.cloud_data()).map_err(|e| Error::Failed(e.to_string()))?;
    let mut verdict = compare(&sources);
    add_ends(&mut verdict, house, (plan, bad_ends));
    if measured.never > 0 {
        let text =
            format!("{} jobs of killed processes had nobody who went on with them in time", measured.never);
        verdict.add(Class::Lost, text, &[]);
    }
    let rows = Duration::from_millis(plan.scenario.quiet_ms) + began.elapsed();
    for breach in eye.read(move |c| breaches(c, rows)).await? {
        verdict.add(Class::Invariant, breach.to_string(), breach.job.as_slice());
    }
    proves_enough(&mut verdict, plan, (&progress, &sources.ledger));
    let nodes = || house.members.iter().filter(|member| matches!(member.kind, Kind::Dev | Kind::Serve));
    let ledger = &sources.ledger;
    Ok(Run {
        plan: plan.clone(),
        verdict,
        measured,
        starts: nodes().flat_map(|member| member.starts.iter().skip(1).copied()).collect(),
        own_ends: house.members.iter().map(|member| member.own_ends).sum(),
        quiet,
        took: began.elapsed(),
        replay: String::new(),
        effects: [
            ("launches", ledger.launches.len()),
            ("terminates", ledger.terminated.len()),
            ("commands", ledger.commands.len()),
        ],
        left: Vec::new(),
        expected: if house.faults.names.is_empty() { Vec::new() } else { plan.scenario.expected.to_vec() },
        progress,
    })
}

/// How processes ended that were asked to, and lives that were declared dead while they beat.
fn add_ends(verdict: &mut Verdict, house: &mut House, (plan, bad_ends): (&Plan, Vec<String>)) {
    for text in bad_ends {
        verdict.add(Class::BadEnd, text, &[]);
    }
    // A machine that is short of processors may hold a process up for longer than a life may stand still; only where
    // nothing else is done does such a death mean something.
    if plan.scenario.only == Some(Only::CutDatabase) {
        for text in std::mem::take(&mut house.false_deaths) {
            verdict.add(Class::FalseDeath, text, &[]);
        }
    }
}

/// Every breach of an invariant that the rows show.
fn breaches(connection: &mut AnyConnection, quiet: Duration) -> diesel::QueryResult<Vec<Violation>> {
    let now = connection.now()?;
    violations(connection, Moment { now, quiet })
}

/// Sends again every keyed request that was sent and never answered. Each must be accepted now.
async fn ask_again(house: &mut House, sources: &mut Sources) -> Result<(), Error> {
    let mut caller = Caller::new(house, 0);
    for (mark, body) in unanswered(&sources.lines) {
        let until = Instant::now() + AGAIN;
        loop {
            house.tend()?;
            let why = match caller.submit(&body, Some(&mark)).await {
                Answer::Ok(said) => {
                    let job = said.get("id").and_then(Value::as_i64).unwrap_or_default();
                    sources.asked_again.push((mark, job));
                    break;
                }
                Answer::Odd(text) => text,
                Answer::NotTaken | Answer::Indefinite if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Answer::NotTaken | Answer::Indefinite => format!("no node took it within {AGAIN:?}"),
            };
            sources.not_again.push((mark, why));
            break;
        }
    }
    Ok(())
}

/// Waits until no job is open. What is still open when the time is over is lost, as the comparison says.
async fn quiet(house: &mut House, eye: &Eye, plan: &Plan, mut tell: impl FnMut()) -> Result<(), Error> {
    let scenario = &plan.scenario;
    let until =
        Instant::now() + Duration::from_secs(scenario.patience_s) + Duration::from_millis(scenario.quiet_ms);
    while Instant::now() < until {
        if eye.read(whole::open).await? == 0 {
            return Ok(());
        }
        tell();
        house.pass(Duration::from_millis(100)).await?;
    }
    Ok(())
}

/// A run in which too little happened proves nothing, and says so.
fn proves_enough(verdict: &mut Verdict, plan: &Plan, (progress, ledger): (&Progress, &Ledger)) {
    let mut wrong: Vec<String> = Vec::new();
    if plan.scenario.only.is_some() {
        // It looks for one thing, and says whether it was found.
        return;
    }
    for (place, deaths) in plan.missing(progress) {
        wrong.push(format!(
            "{place} was a place of death {deaths} times, and {} are asked for",
            plan.each_place
        ));
    }
    for strike in plan.never(progress) {
        wrong.push(format!("never done: {strike}"));
    }
    let least = |what: &str, found: usize, least: usize| {
        (found < least).then(|| format!("{found} {what}, and {least} are asked for"))
    };
    wrong.extend(least("kills", progress.kills, plan.kills));
    wrong.extend(least("jobs accepted", progress.jobs, plan.jobs));
    wrong.extend(least("launches at the cloud", ledger.launches.len(), plan.jobs / 100));
    wrong.extend(least("terminates at the cloud", ledger.terminated.len(), plan.jobs / 200));
    wrong.extend(least("commands on guests", ledger.commands.len(), plan.jobs / 100));
    wrong.extend(least("requests without an answer", verdict.unanswered, usize::from(plan.kills > 10)));
    for text in wrong {
        verdict.add(Class::ProvesTooLittle, text, &[]);
    }
}

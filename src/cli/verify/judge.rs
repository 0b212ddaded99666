//! Compares what clients were told, what the dispatcher wrote down, and what really happened: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::diary::Line;
use super::ledger::Ledger;
use super::load::field_of;
use crate::store::provisioning::whole::Whole;

/// What can be wrong, sorted as a queue's torture test sorts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Class {
    /// Accepted and never ended, or gone.
    Lost,
    /// More than one effect of one token, job or command, or more than one job of one request.
    Duplicated,
    /// Effects without a job, servers nobody owns.
    Unexpected,
    /// Complete without an effect, or in spite of a cancel that was accepted.
    FalseSuccess,
    /// Not complete although the effect is there.
    FalseFailure,
    /// Ended with an unknown outcome.
    Unresolved,
    /// Unanswered requests that their key does not find.
    NotFoundAgain,
    /// Answers no client should get.
    OddAnswer,
    /// Rows that break an invariant.
    Invariant,
    /// Lives that beat and were declared dead.
    FalseDeath,
    /// Processes that did not end as they were asked to.
    BadEnd,
    /// Too little happened for the run to mean something.
    ProvesTooLittle,
}

impl Class {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 12] = [
        Self::Lost,
        Self::Duplicated,
        Self::Unexpected,
        Self::FalseSuccess,
        Self::FalseFailure,
        Self::Unresolved,
        Self::NotFoundAgain,
        Self::OddAnswer,
        Self::Invariant,
        Self::FalseDeath,
        Self::BadEnd,
        Self::ProvesTooLittle,
    ];

    /// The words on the table.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "doubled effects",
            Self::Unexpected => "unexpected effects",
            Self::FalseSuccess => "false success",
            Self::FalseFailure => "false failure",
            Self::Unresolved => "unresolved",
            Self::NotFoundAgain => "not found by key",
            Self::OddAnswer => "odd answers",
            Self::Invariant => "broken invariants",
            Self::FalseDeath => "false deaths",
            Self::BadEnd => "bad ends",
            Self::ProvesTooLittle => "proves too little",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    /// What and where.
    pub(super) text: String,
    /// Numbers of the jobs it is about.
    pub(super) jobs: Vec<i64>,
}

/// The three sources, and what asking again gave.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// What clients wrote.
    pub(super) lines: Vec<Line>,
    /// Unanswered requests asked again under their keys, with the job's number.
    pub(super) asked_again: Vec<(String, i64)>,
    /// Those that no node took, and why.
    pub(super) not_again: Vec<(String, String)>,
    /// The dispatcher's jobs.
    pub(super) jobs: Vec<Whole>,
    /// Its idempotency keys with the uids of their jobs.
    pub(super) keys: BTreeMap<String, String>,
    /// What was written down before each call: uid of its job, step, token.
    pub(super) attempts: Vec<(String, String, String)>,
    /// Commands that a look called off: uid of the job, the epoch of the look.
    pub(super) called_off: Vec<(String, i64)>,
    /// What cloud and guests did.
    pub(super) ledger: Ledger,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) classes: BTreeMap<Class, Vec<Finding>>,
    /// Jobs by kind and state.
    pub(super) counts: BTreeMap<(String, String), usize>,
    pub(super) acknowledged: usize,
    pub(super) unanswered: usize,
    pub(super) found_again: usize,
}

impl Verdict {
    /// Writes down what is wrong.
    pub(super) fn add(&mut self, class: Class, text: impl Into<String>, jobs: &[i64]) {
        let finding = Finding { text: text.into(), jobs: jobs.to_vec() };
        self.classes.entry(class).or_default().push(finding);
    }

    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.classes.is_empty()
    }

    /// How much is wrong of a class.
    pub(super) fn count(&self, class: Class) -> usize {
        self.classes.get(&class).map_or(0, Vec::len)
    }
}

/// Compares everything of a finished run.
pub(super) fn compare(sources: &Sources) -> Verdict {
    let mut verdict = Verdict::default();
    for job in &sources.jobs {
        *verdict.counts.entry((job.kind.clone(), job.state.clone())).or_default() += 1;
    }
    clients_were_told_the_truth(&mut verdict, sources);
    nothing_happened_twice(&mut verdict, sources);
    effects_have_owners(&mut verdict, sources);
    effects_were_written_down(&mut verdict, sources);
    looks_were_kept(&mut verdict, sources);
    jobs_say_what_happened(&mut verdict, sources);
    verdict
}

/// The job in one line.
fn told(job: &Whole) -> String {
    let (message, resource) = (job.message.as_deref().unwrap_or("-"), job.resource.as_deref().unwrap_or("-"));
    let waits = if job.ended_at.is_none() { format!(", waits for \"{}\"", job.why) } else { String::new() };
    format!("job {} ({}, {}) is {}: {message}{waits}; made {resource}", job.id, job.kind, job.uid, job.state)
}

/// What a job's parameters hold under a name.
fn param(job: &Whole, name: &str) -> Option<Value> {
    let params: Value = serde_json::from_str(&job.params).ok()?;
    params.get("params").unwrap_or(&params).get(name).cloned()
}

/// The mark that a job's parameters carry.
fn mark_of(job: &Whole) -> Option<String> {
    let value = param(job, field_of(&job.kind))?;
    let word = value.get(1).unwrap_or(&value).as_str()?.to_owned();
    word.starts_with("client").then_some(word)
}

fn clients_were_told_the_truth(verdict: &mut Verdict, sources: &Sources) {
    let by_id: BTreeMap<i64, &Whole> = sources.jobs.iter().map(|job| (job.id, job)).collect();
    let mut acknowledged: BTreeMap<&str, i64> = BTreeMap::new();
    let (mut unanswered, mut keyed) = (BTreeSet::new(), BTreeSet::new());
    for line in &sources.lines {
        match line {
            Line::Invoke { mark, keyed: true, .. } => drop(keyed.insert(mark.as_str())),
            Line::Ok { mark, job } => {
                let first = acknowledged.insert(mark, *job).unwrap_or(*job);
                if first != *job {
                    verdict.add(
                        Class::Duplicated,
                        format!("{mark} was answered with two jobs"),
                        &[first, *job],
                    );
                }
            }
            Line::Indefinite { mark } => drop(unanswered.insert(mark.as_str())),
            Line::Odd { mark, text } => verdict.add(Class::OddAnswer, format!("{mark}: {text}"), &[]),
            Line::Cancelled { job } => cancel_was_heard(verdict, by_id.get(job).copied(), *job),
            Line::Invoke { .. } | Line::NotTaken { .. } => {}
        }
    }
    acknowledged.extend(sources.asked_again.iter().map(|(mark, job)| (mark.as_str(), *job)));
    for (mark, id) in &acknowledged {
        let Some(job) = by_id.get(id) else {
            verdict.add(
                Class::Lost,
                format!("{mark}: accepted as job {id}, and there is no such job"),
                &[*id],
            );
            continue;
        };
        if job.ended_at.is_none() {
            verdict.add(Class::Lost, format!("{mark}: {}", told(job)), &[*id]);
        } else if keyed.contains(mark) && sources.keys.get(*mark) != Some(&job.uid) {
            verdict.add(Class::Lost, format!("{mark}: its key does not name job {id}"), &[*id]);
        }
    }
    // Nobody was told of these; they must end all the same.
    let told_of: BTreeSet<i64> = acknowledged.values().copied().collect();
    for job in sources.jobs.iter().filter(|job| job.ended_at.is_none() && !told_of.contains(&job.id)) {
        verdict.add(Class::Lost, told(job), &[job.id]);
    }
    unanswered.retain(|mark| keyed.contains(mark));
    (verdict.acknowledged, verdict.unanswered) = (acknowledged.len(), unanswered.len());
    verdict.found_again = unanswered.iter().filter(|mark| acknowledged.contains_key(*mark)).count();
    for (mark, why) in &sources.not_again {
        verdict.add(Class::NotFoundAgain, format!("{mark}: {why}"), &[]);
    }
}

/// A cancel that was accepted is a fact: what it can still stop does not complete.
fn cancel_was_heard(verdict: &mut Verdict, job: Option<&Whole>, id: i64) {
    match job {
        None => verdict.add(Class::Lost, format!("job {id} was cancelled, and there is no such job"), &[id]),
        Some(job) if job.cancel_by.is_none() => {
            verdict.add(
                Class::Lost,
                format!("the cancel of job {id} was accepted and is not in its row"),
                &[id],
            );
        }
        Some(job) if job.state == "complete" && !says_too_late(job) => {
            verdict.add(Class::FalseSuccess, format!("its cancel was accepted: {}", told(job)), &[id]);
        }
        Some(_) => {}
    }
}

fn nothing_happened_twice(verdict: &mut Verdict, sources: &Sources) {
    let ledger = &sources.ledger;
    let mut of_mark: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for job in &sources.jobs {
        if let Some(mark) = mark_of(job) {
            of_mark.entry(mark).or_default().push(job.id);
        }
    }
    for (mark, jobs) in of_mark.into_iter().filter(|(_, jobs)| jobs.len() > 1) {
        verdict.add(Class::Duplicated, format!("request {mark} has {} jobs", jobs.len()), &jobs);
    }
    let number = |uid: &str| sources.jobs.iter().find(|job| job.uid == uid).map(|job| job.id);
    let (mut tokens, mut launched) = (BTreeMap::new(), BTreeMap::new());
    for launch in &ledger.launches {
        *tokens.entry(launch.token.as_str()).or_insert(0) += 1;
        *launched.entry(launch.job.as_str()).or_insert(0) += 1;
    }
    for (token, n) in tokens.into_iter().filter(|(_, n)| *n > 1) {
        verdict.add(Class::Duplicated, format!("token {token} launched {n} servers"), &[]);
    }
    for (uid, n) in launched.into_iter().filter(|(_, n)| *n > 1) {
        let jobs: Vec<i64> = number(uid).into_iter().collect();
        verdict.add(Class::Duplicated, format!("job {uid} launched {n} servers"), &jobs);
    }
    for (command, n) in ledger.commands.iter().filter(|(_, n)| **n > 1) {
        let jobs: Vec<i64> = number(uid_of(command)).into_iter().collect();
        verdict.add(Class::Duplicated, format!("command {command} ran {n} times"), &jobs);
    }
    let mut ended = BTreeSet::new();
    for server in ledger.terminated.iter().filter(|server| !ended.insert(server.as_str())) {
        verdict.add(Class::Duplicated, format!("server {server} was terminated twice"), &[]);
    }
}

/// The job in a command's id.
fn uid_of(command: &str) -> &str {
    command.split('.').next().unwrap_or_default()
}

fn effects_have_owners(verdict: &mut Verdict, sources: &Sources) {
    let by_uid: BTreeMap<&str, &Whole> = sources.jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
    let ledger = &sources.ledger;
    for launch in &ledger.launches {
        let what = format!("server {} with token {}", launch.instance, launch.token);
        let Some(job) = by_uid.get(launch.job.as_str()) else {
            verdict.add(Class::Unexpected, format!("{what} has no job"), &[]);
            continue;
        };
        let lives = !ledger.is_gone(&launch.instance);
        let owned = job.resource.as_ref() == Some(&launch.instance) && job.state == "complete";
        if lives && !owned && job.ended_at.is_some() {
            verdict.add(
                Class::Unexpected,
                format!("{what} lives and nobody owns it: {}", told(job)),
                &[job.id],
            );
        }
    }
    for command in ledger.commands.keys().filter(|command| !by_uid.contains_key(uid_of(command))) {
        verdict.add(Class::Unexpected, format!("command {command} has no job"), &[]);
    }
}

/// Servers at the cloud by the dispatcher's number.
fn instances(jobs: &[Whole]) -> BTreeMap<i64, &String> {
    let launches = jobs.iter().filter(|job| job.kind == "launch-server");
    launches.filter_map(|job| Some((job.server?, job.resource.as_ref()?))).collect()
}

/// The server at the cloud that a job is about.
fn target<'a>(job: &Whole, instances: &BTreeMap<i64, &'a String>) -> Option<&'a String> {
    let server = param(job, "server")?.as_i64()?;
    instances.get(&server).copied()
}

/// A look that calls a command off is a write: its guest keeps the floor, or an older frame could still run it.
fn looks_were_kept(verdict: &mut Verdict, sources: &Sources) {
    for (uid, epoch) in &sources.called_off {
        if sources.ledger.floors.get(uid).is_none_or(|floor| floor < epoch) {
            let jobs: Vec<i64> =
                sources.jobs.iter().filter(|job| job.uid == *uid).map(|job| job.id).collect();
            let text = format!(
                "its guest keeps no floor of the look with epoch {epoch} that called its command off"
            );
            verdict.add(Class::Invariant, text, &jobs);
        }
    }
}

/// Whether a command says that its cancel came when it had begun, or was over.
fn says_too_late(job: &Whole) -> bool {
    const WORDS: [&str; 3] = ["; by then: ", "came too late", "cancelled on the guest"];
    let text = job.message.as_deref().unwrap_or_default();
    job.kind == "run-command" && job.cancel_by.is_some() && WORDS.iter().any(|word| text.contains(word))
}

/// No call goes out before its attempt is stored.
fn effects_were_written_down(verdict: &mut Verdict, sources: &Sources) {
    let instances = instances(&sources.jobs);
    let tokens: BTreeSet<&str> = sources.attempts.iter().map(|(_, _, token)| token.as_str()).collect();
    let called: BTreeSet<(&str, bool)> =
        sources.attempts.iter().map(|(job, step, _)| (job.as_str(), step == "undo")).collect();
    let by_uid: BTreeMap<&str, &Whole> = sources.jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
    for launch in sources.ledger.launches.iter().filter(|launch| !tokens.contains(launch.token.as_str())) {
        let jobs: Vec<i64> = by_uid.get(launch.job.as_str()).iter().map(|job| job.id).collect();
        let text = format!("server {} was made by a call that no attempt names", launch.instance);
        verdict.add(Class::Unexpected, text, &jobs);
    }
    let terminating: BTreeSet<&String> = sources
        .jobs
        .iter()
        .filter(|job| job.kind == "terminate-server" && called.contains(&(job.uid.as_str(), false)))
        .filter_map(|job| target(job, &instances))
        .collect();
    for server in &sources.ledger.terminated {
        let maker = sources.ledger.launches.iter().find(|launch| launch.instance == *server);
        let undone = maker.is_some_and(|launch| called.contains(&(launch.job.as_str(), true)));
        if !undone && !terminating.contains(server) {
            let jobs: Vec<i64> =
                maker.and_then(|launch| by_uid.get(launch.job.as_str())).iter().map(|job| job.id).collect();
            verdict.add(
                Class::Unexpected,
                format!("server {server} was ended by a call that no attempt names"),
                &jobs,
            );
        }
    }
}

fn jobs_say_what_happened(verdict: &mut Verdict, sources: &Sources) {
    let (jobs, ledger) = (&sources.jobs, &sources.ledger);
    let instances = instances(jobs);
    for job in jobs {
        let (happened, undone) = match job.kind.as_str() {
            "launch-server" => {
                let all_gone = ledger.of_job(&job.uid).all(|launch| ledger.is_gone(&launch.instance));
                (ledger.of_job(&job.uid).count() > 0, all_gone)
            }
            // A cancel that came too late says what the command had done by then.
            "run-command" => (ledger.runs_of(&job.uid) > 0, says_too_late(job)),
            "terminate-server" => {
                (target(job, &instances).is_some_and(|instance| ledger.is_gone(instance)), false)
            }
            "start-server" | "stop-server" => {
                let about = target(job, &instances);
                let during = |at: i64| job.created_at <= at && job.ended_at.is_none_or(|end| at <= end);
                let moved = |(server, kind, at): &(String, &str, i64)| {
                    Some(server) == about && *kind == job.kind && during(*at)
                };
                (ledger.moves.iter().any(moved), false)
            }
            _ => (job.state == "complete", false),
        };
        match job.state.as_str() {
            "complete" if !happened => verdict.add(Class::FalseSuccess, told(job), &[job.id]),
            "failed" | "cancelled" if happened && !undone => {
                verdict.add(Class::FalseFailure, told(job), &[job.id]);
            }
            "unresolved" => verdict.add(Class::Unresolved, told(job), &[job.id]),
            _ => {}
        }
    }
}

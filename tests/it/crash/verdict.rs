//! Compares what clients were told, what the dispatcher wrote down, and what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::clients::Line;
use crate::harness::ledger::Ledger;
use crate::harness::rows::{self, JobRow};

/// What was found, sorted as a queue's torture test sorts it.
#[derive(Debug, Default)]
pub(super) struct Found {
    counts: BTreeMap<String, usize>,
    effects: (usize, usize, usize),
    acknowledged: usize,
    indefinite: usize,
    recovered: usize,
    /// Accepted and never ended, or gone.
    lost: Vec<String>,
    /// More than one effect of one token, job or command, or more than one job of one key.
    duplicated: Vec<String>,
    /// Effects without a job, servers nobody owns.
    unexpected: Vec<String>,
    /// Complete without an effect.
    false_success: Vec<String>,
    /// Not complete although the effect is there.
    false_failure: Vec<String>,
    /// Ended with an unknown outcome.
    unresolved: Vec<String>,
    /// Unanswered requests that their key does not find.
    not_found_again: Vec<String>,
    /// Answers no client should get.
    odd: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "jobs: {:?}", self.counts)?;
        let (launches, terminates, commands) = self.effects;
        writeln!(f, "effects: {launches} launches, {terminates} terminates, {commands} commands")?;
        writeln!(
            f,
            "acknowledged {}, without an answer {} (found again by key: {}), unresolved {}",
            self.acknowledged,
            self.indefinite,
            self.recovered,
            self.unresolved.len()
        )?;
        write!(
            f,
            "lost {}, duplicated {}, unexpected {}, false success {}, false failure {}",
            self.lost.len(),
            self.duplicated.len(),
            self.unexpected.len(),
            self.false_success.len(),
            self.false_failure.len()
        )
    }
}

impl Found {
    /// Every class must be empty, and enough must have happened for that to mean something.
    #[track_caller]
    pub(super) fn check(&self) {
        let classes = [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("unexpected", &self.unexpected),
            ("false success", &self.false_success),
            ("false failure", &self.false_failure),
            ("unresolved", &self.unresolved),
            ("not found again", &self.not_found_again),
            ("odd answers", &self.odd),
        ];
        let bad: Vec<String> = classes
            .iter()
            .filter(|(_, found)| !found.is_empty())
            .map(|(class, found)| format!("{class} {}: {:#?}", found.len(), &found[..found.len().min(5)]))
            .collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        let (launches, terminates, commands) = self.effects;
        let enough = self.acknowledged >= 500 && launches >= 10 && terminates >= 5 && commands >= 10;
        assert!(enough, "too little happened for the run to prove anything: {self}");
        assert!(self.indefinite > 0, "no client ever was without an answer, so nothing was interrupted");
    }
}

/// Compares everything of a finished run.
pub(super) fn compare(data: &Path, logs: &[Line], asked_again: &[(String, i64)]) -> Found {
    let mut connection = rows::open(data);
    let jobs = rows::jobs(&mut connection);
    let keys: BTreeMap<String, String> =
        rows::keys(&mut connection).into_iter().filter_map(|(key, job)| Some((key, job?))).collect();
    let ledger = Ledger::read(data);
    let mut found = Found {
        effects: (ledger.launches.len(), ledger.terminated.len(), ledger.commands.len()),
        ..Found::default()
    };
    for job in &jobs {
        *found.counts.entry(format!("{} {}", job.kind, job.state)).or_default() += 1;
    }
    clients_were_told_the_truth(&mut found, logs, asked_again, (&jobs, &keys));
    nothing_happened_twice(&mut found, &jobs, &ledger);
    effects_have_owners(&mut found, &jobs, &ledger);
    jobs_say_what_happened(&mut found, &jobs, &ledger);
    found
}

/// The key that a job's parameters carry.
fn key_of(job: &JobRow) -> Option<String> {
    let params: Value = serde_json::from_str(&job.params).ok()?;
    let params = params.get("params").unwrap_or(&params);
    let field = match job.kind.as_str() {
        "noop" => &params["note"],
        "launch-server" => &params["name"],
        "run-command" => &params["argv"][1],
        _ => &params["reason"],
    };
    field.as_str().filter(|key| key.starts_with("client")).map(str::to_owned)
}

fn clients_were_told_the_truth(
    found: &mut Found,
    logs: &[Line],
    asked_again: &[(String, i64)],
    (jobs, keys): (&[JobRow], &BTreeMap<String, String>),
) {
    let by_id: BTreeMap<i64, &JobRow> = jobs.iter().map(|job| (job.id, job)).collect();
    let mut acknowledged: BTreeMap<&str, i64> = BTreeMap::new();
    let mut unanswered: BTreeSet<&str> = BTreeSet::new();
    for line in logs {
        match line {
            Line::Ok { key, job } => {
                if acknowledged.insert(key, *job).is_some_and(|first| first != *job) {
                    found.duplicated.push(format!("key {key} was answered with two jobs"));
                }
            }
            Line::Indefinite { key } => {
                unanswered.insert(key);
            }
            Line::Odd { key, status, text } => found.odd.push(format!("{key}: {status} {text}")),
            Line::Invoke { .. } | Line::Unsent { .. } | Line::Later { .. } => {}
        }
    }
    acknowledged.extend(asked_again.iter().map(|(key, job)| (key.as_str(), *job)));
    found.acknowledged = acknowledged.len();
    found.indefinite = unanswered.len();
    for (key, id) in &acknowledged {
        match by_id.get(id) {
            None => found.lost.push(format!("{key}: job {id} is gone")),
            Some(job) if job.ended_at.is_none() => found.lost.push(format!("{key}: {}", job.told())),
            Some(job) if keys.get(*key) != Some(&job.uid) => {
                found.lost.push(format!("{key}: its key does not name job {id}"));
            }
            Some(_) => {}
        }
    }
    for key in unanswered {
        if acknowledged.contains_key(key) {
            found.recovered += 1;
        } else if !found.odd.iter().any(|odd| odd.starts_with(&format!("{key}:"))) {
            found.not_found_again.push(key.to_owned());
        }
    }
}

fn nothing_happened_twice(found: &mut Found, jobs: &[JobRow], ledger: &Ledger) {
    let mut of_key: BTreeMap<String, usize> = BTreeMap::new();
    for key in jobs.iter().filter_map(key_of) {
        *of_key.entry(key).or_default() += 1;
    }
    let twice = of_key.into_iter().filter(|(_, jobs)| *jobs > 1);
    found.duplicated.extend(twice.map(|(key, jobs)| format!("key {key} has {jobs} jobs")));
    let (mut tokens, mut launched) = (BTreeMap::new(), BTreeMap::new());
    for launch in &ledger.launches {
        *tokens.entry(&launch.token).or_insert(0) += 1;
        *launched.entry(&launch.job).or_insert(0) += 1;
    }
    let twice = tokens.into_iter().filter(|(_, n)| *n > 1);
    found.duplicated.extend(twice.map(|(token, n)| format!("token {token} launched {n} servers")));
    let twice = launched.into_iter().filter(|(_, n)| *n > 1);
    found.duplicated.extend(twice.map(|(job, n)| format!("job {job} launched {n} servers")));
    let twice = ledger.commands.iter().filter(|(_, n)| **n > 1);
    found.duplicated.extend(twice.map(|(command, n)| format!("command {command} ran {n} times")));
    let ended: BTreeSet<&String> = ledger.terminated.iter().collect();
    if ended.len() != ledger.terminated.len() {
        found.duplicated.push("a server was terminated twice".to_owned());
    }
}

fn effects_have_owners(found: &mut Found, jobs: &[JobRow], ledger: &Ledger) {
    let by_uid: BTreeMap<&str, &JobRow> = jobs.iter().map(|job| (job.uid.as_str(), job)).collect();
    for launch in &ledger.launches {
        match by_uid.get(launch.job.as_str()) {
            None => found.unexpected.push(format!("{launch:?} has no job")),
            Some(job)
                if !ledger.is_gone(&launch.instance) && job.resource.as_ref() != Some(&launch.instance) =>
            {
                found.unexpected.push(format!("{launch:?} lives and belongs to nobody: {}", job.told()));
            }
            Some(_) => {}
        }
    }
    for command in ledger.commands.keys() {
        let uid = command.split('.').next().unwrap_or_default();
        if !by_uid.contains_key(uid) {
            found.unexpected.push(format!("command {command} has no job"));
        }
    }
}

fn jobs_say_what_happened(found: &mut Found, jobs: &[JobRow], ledger: &Ledger) {
    let instance_of: BTreeMap<i64, &String> =
        jobs.iter().filter_map(|job| Some((job.server?, job.resource.as_ref()?))).collect();
    for job in jobs {
        let (happened, undone) = match job.kind.as_str() {
            "launch-server" => {
                let all_gone = ledger.of_job(&job.uid).all(|launch| ledger.is_gone(&launch.instance));
                (ledger.of_job(&job.uid).count() > 0, all_gone)
            }
            "run-command" => (ledger.runs_of(&job.uid) > 0, false),
            "terminate-server" => {
                let instance = target(job).and_then(|server| instance_of.get(&server));
                (instance.is_some_and(|instance| ledger.is_gone(instance)), false)
            }
            _ => (job.state == "complete", false),
        };
        match job.state.as_str() {
            "complete" if !happened => found.false_success.push(job.told()),
            "failed" | "cancelled" if happened && !undone => found.false_failure.push(job.told()),
            "unresolved" => found.unresolved.push(job.told()),
            _ => {}
        }
    }
}

/// The server a job is about.
fn target(job: &JobRow) -> Option<i64> {
    let params: Value = serde_json::from_str(&job.params).ok()?;
    params.get("params").unwrap_or(&params)["server"].as_i64()
}

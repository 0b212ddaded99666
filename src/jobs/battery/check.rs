//! The invariants of the protocol over the rows of an ended job and the truth of the cloud.

use super::world::World;
use crate::cloud::{Provider as _, TokenClass};
use crate::jobs::machine;
use crate::jobs::request;
use crate::jobs::steps::{Effect, UNDO, step_of};
use crate::model::{AttemptOutcome, JobKind, JobParams, JobState, Rollup, ServerStatus, Verdict};
use crate::store::provisioning::agent;
use crate::store::provisioning::job::{self, History};
use crate::store::provisioning::schema::obligation;
use crate::store::provisioning::server;
use diesel::prelude::*;

pub(super) async fn check(world: &World, ended: &History, label: &str) {
    let job = &ended.job;
    let class = world.cloud.capabilities().class;
    assert!(job.state.is_end() && job.ended_at.is_some() && job.owner.is_none(), "{label}: {job:?}");
    assert!(ended.attempts.iter().all(|a| a.epoch <= job.epoch), "{label}: an epoch went back");
    let open = ended.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open);
    match job.state {
        JobState::Failed | JobState::Cancelled => assert!(!open, "{label}: ended with an open attempt"),
        JobState::Complete => complete(ended, label),
        _ => assert_eq!(class, TokenClass::N, "{label}: unresolved: {:?} {:#?}", job.message, ended.attempts),
    }
    same_bytes(ended, label);
    effects(world, ended, label);
    leftovers(world, ended, label).await;
    if job.params.kind() == JobKind::Group {
        group(world, ended, label).await;
    }
    if let Some(id) = job.params.server() {
        resource(world, ended, (id, label)).await;
    }
}

/// A group ends after its children, and never better than the worst of them.
async fn group(world: &World, ended: &History, label: &str) {
    let mut rollup = Rollup::default();
    for uid in world.family(ended.job.uid).await.into_iter().filter(|uid| *uid != ended.job.uid) {
        let row = world.store.read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("a child");
        let state: JobState = row.state.parse().expect("a state");
        assert!(
            row.ended_at.is_some_and(|at| Some(at) <= ended.job.ended_at.map(|at| at.0)),
            "{label}: {row:?}"
        );
        rollup.add(state, 1);
    }
    let worst = rollup.worst();
    assert_eq!(Rollup::worse(worst, ended.job.state), ended.job.state, "{label}: greener than {rollup}");
    let said = ended.job.message.as_deref().unwrap_or_default();
    assert!(said.ends_with(&rollup.to_string()), "{label}: {said} of {rollup}");
}

fn complete(ended: &History, label: &str) {
    let job = &ended.job;
    let unwanted = job.cancel_by.is_some() && job.params.kind() != JobKind::RunCommand;
    assert!(!unwanted && !job.undo_begun, "{label}: complete although unwanted");
    let verdict = machine::verdict_of_this_try(ended).map(|e| e.verdict);
    assert_eq!(verdict, Some(Verdict::Reached), "{label}: complete without evidence");
}

fn same_bytes(ended: &History, label: &str) {
    for step in ["create", UNDO] {
        let mut calls = ended.attempts.iter().filter(|a| a.step == step);
        if let Some(first) = calls.next() {
            assert!(
                calls.all(|a| a.token == first.token && a.request == first.request),
                "{label}: another token or other bytes for {step}"
            );
        }
    }
}

fn effects(world: &World, ended: &History, label: &str) {
    let job = &ended.job;
    let truth = world.cloud.truth.lock().expect("no panic");
    let mine: Vec<_> = match step_of(job.params.kind()).effect {
        Effect::Create => {
            let token = ended.attempts.iter().find(|a| a.step == "create").map(|a| a.token.clone());
            truth.effects.iter().filter(|(_, of)| Some(of) == token.as_ref()).collect()
        }
        Effect::Move(_) => {
            let of = match &job.params {
                JobParams::TakeBack(params) => Some(params.resource.clone()),
                params => params.server().map(|id| format!("i-{id}")),
            };
            truth.effects.iter().filter(|(_, on)| Some(on) == of.as_ref()).collect()
        }
        Effect::Command => {
            let id = ended.attempts.iter().map(|a| a.token.clone()).next();
            truth.effects.iter().filter(|(_, of)| Some(of) == id.as_ref()).collect()
        }
        Effect::Nothing | Effect::Children => Vec::new(),
    };
    // Each round whose effect was taken back had one of its own.
    let on = job.params.server().map(|id| format!("i-{id}"));
    let taken_back = truth.taken_back.iter().filter(|id| Some(*id) == on.as_ref()).count();
    assert!(mine.len() <= 1 + taken_back, "{label}: more than one effect: {mine:?}");
    if job.state == JobState::Complete && !matches!(job.params.kind(), JobKind::Noop | JobKind::Group) {
        assert_eq!(mine.len(), 1 + taken_back, "{label}: complete without its effect");
    }
    if job.state == JobState::Failed && step_of(job.params.kind()).effect != Effect::Create {
        assert!(
            mine.len() == taken_back || job.why_code == "deadline",
            "{label}: failed, and its effect is there: {mine:?} {:?}",
            job.message
        );
    }
}

/// What a launch made and did not keep is gone, or somebody has to look for it.
async fn leftovers(world: &World, ended: &History, label: &str) {
    if step_of(ended.job.params.kind()).effect != Effect::Create {
        return;
    }
    let tag = request::tag(ended.job.uid, "create");
    let alive = world.cloud.alive_with_tag(&tag);
    let owed: i64 = world
        .store
        .read(move |c| obligation::table.filter(obligation::tag.eq(tag)).count().get_result(c))
        .await
        .expect("a count");
    match ended.job.state {
        JobState::Complete => assert!(alive.len() <= 1, "{label}: {alive:?}"),
        JobState::Unresolved => assert_eq!(owed, 1, "{label}: nobody looks for what may turn up"),
        _ => assert!(alive.is_empty(), "{label}: left behind: {alive:?} {:#?}", ended.attempts),
    }
    if world.cloud.capabilities().class != TokenClass::K && ended.attempts.iter().any(|a| a.step == "create")
    {
        assert_eq!(owed, 1, "{label}: an obligation is owed");
    }
}

async fn resource(world: &World, ended: &History, (id, label): (crate::model::ServerId, &str)) {
    let customer = ended.job.customer;
    let (row, agent) = world
        .store
        .read(move |c| Ok((server::by_id(c, customer, id)?, agent::by_server(c, id)?)))
        .await
        .expect("rows");
    let (row, agent) = (row.expect("the server"), agent.expect("its agent"));
    assert_eq!(row.busy_by, None, "{label}: the server is not given back");
    let shown = row.status == ServerStatus::Terminated.as_str();
    let gone = world.cloud.state_of(&row.provider_id) == Some(ServerStatus::Terminated);
    let proved = ended.job.params.kind() == JobKind::TerminateServer && ended.job.state == JobState::Complete;
    assert!(gone || !shown, "{label}: shown as gone, and it is there");
    assert!(shown || !proved, "{label}: gone, and shown as {}", row.status);
    assert_eq!(agent.state == agent::state::REVOKED, shown, "{label}: its agent is {}", agent.state);
}

//! One battery for every kind of job: happy, every call of every port failing, panicking or killing the process, a
//! cancel or the end of its time at every call. A new kind gets all of it by being in the list of kinds.

mod check;
mod cloud;
mod script;
mod world;

pub(crate) use self::cloud::machine;
pub(crate) use self::world::{REGION, alone, params_of, server_row};

use std::time::Duration;

use tokio::sync::Notify;

use self::check::check;
use self::script::Fault;
use self::world::World;
use super::actor::{JobActor, Spec};
use super::drive::drive;
use super::machine;
use super::ports::Ports;
use crate::cloud::TokenClass;
use crate::model::{
    AttemptOutcome, ErrorClass, JobKind, JobState, JobUid, Micros, ServerStatus, Verdict, WatchKind,
};
use crate::ops::Health;
use crate::store::provisioning::invariants::{Moment, violations};
use crate::store::provisioning::job::{self, Evidence, History};
use crate::store::provisioning::watch::Watch;
use crate::store::provisioning::{agent, transition};
use crate::store::testing::{Bed, on_both};
use crate::supervision::{Limits, Options, Supervisor};
use crate::wire::{CommandResult, Offsets, Outcome};

/// Rounds after which a job that has not ended never will.
const ROUNDS: usize = 200;

async fn history(world: &World, uid: JobUid) -> History {
    world.store.read(move |c| job::history(c, uid)).await.expect("a read").expect("the job")
}

/// Runs the job to its end, as the registry, the monitor, the guest and time would.
async fn settle(world: &World, uid: JobUid, fault: Option<(u32, Fault)>) -> History {
    let by_actor = matches!(fault, Some((_, Fault::Panic)));
    let mut ports = world.life().await;
    world.script.begin(fault);
    let jobs = world.family(uid).await;
    for _ in 0..ROUNDS {
        let killed = tokio::select! {
            () = run_all(&ports, &jobs, by_actor) => false,
            () = world.script.dead.notified() => true,
            () = cancels(world, uid) => false,
        };
        if killed {
            ports = world.life().await;
        }
        let now = history(world, uid).await;
        if now.job.ended_at.is_some() {
            return now;
        }
        let (mut news, mut due) = (false, None);
        for job in &jobs {
            let now = history(world, *job).await;
            if now.job.ended_at.is_none() {
                news |= look(world, &now).await;
                due = [due, now.job.due_at].into_iter().flatten().min();
            }
        }
        if let Some(due) = due.filter(|_| !news) {
            world.script.advance_to(due);
        }
    }
    panic!("it never ends: {:#?}", history(world, uid).await);
}

/// A group's children, then the group; of any other job the job.
async fn run_all(ports: &Ports, jobs: &[JobUid], by_actor: bool) {
    for job in jobs {
        run(ports, *job, by_actor).await;
    }
}

async fn run(ports: &Ports, uid: JobUid, by_actor: bool) {
    if !by_actor {
        // A failed life is followed by another one, as the supervisor sees to it.
        drop(drive(ports, (uid, None), &Notify::new()).await);
        return;
    }
    let house = Supervisor::new(Health::new());
    let limits = Limits { backoff_first: Duration::from_millis(1), ..Limits::default() };
    let spec = Spec::new(uid, ports.clone(), None);
    let options = Options { limits, ..Options::transient(None) };
    let mailbox = house.spawn::<JobActor>(&house.here(), spec, options);
    while !mailbox.is_closed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes the cancels that the script asks for.
async fn cancels(world: &World, uid: JobUid) {
    loop {
        world.script.cancel.notified().await;
        world.store.write(move |c| transition::cancel_asked(c, uid, "a person")).await.expect("asked");
        world.script.cancelled.notify_one();
    }
}

/// Looks at the truth as a monitor, a guest and a worker would; true when there is a new verdict.
async fn look(world: &World, now: &History) -> bool {
    let Some(watch) = machine::watch_of_this_try(now).filter(|w| w.done_at.is_none()).cloned() else {
        return false;
    };
    let (verdict, raw) = match watch.kind {
        WatchKind::Noop => (Verdict::Reached, String::new()),
        // Its children's ends say it, nobody else.
        WatchKind::Children => return false,
        WatchKind::Guest => match guest(world, &watch).await {
            Some(answer) => answer,
            None => return false,
        },
        WatchKind::Cloud => {
            let expected: ServerStatus = watch.expectation.parse().expect("a status");
            match world.cloud.state_of(&watch.target) {
                Some(state) if state == expected => match world.cloud.taken_back(&watch.target, state) {
                    Some(left) => (Verdict::Lost, shown(&watch, left)),
                    None => (Verdict::Reached, shown(&watch, state)),
                },
                None | Some(ServerStatus::Terminated) => (Verdict::Lost, String::new()),
                Some(_) => return false,
            }
        }
    };
    write_verdict(world, &watch, verdict, raw).await;
    true
}

fn shown(watch: &Watch, state: ServerStatus) -> String {
    serde_json::to_string(&machine(&watch.target, state, None)).expect("plain data")
}

async fn write_verdict(world: &World, watch: &Watch, verdict: Verdict, raw: String) {
    let seen = Evidence {
        subject: watch.uid.to_string(),
        source: "monitor/test".into(),
        job: watch.job,
        customer: watch.customer,
        verdict,
        text: format!("seen: {verdict}"),
        raw,
        made_at: Micros(0),
    };
    let uid = watch.uid;
    world.store.write(move |c| transition::verdict(c, &seen, Some(uid))).await.expect("a verdict");
}

/// The guest runs the command once and answers from its journal afterwards: what the answer means and says. Nothing when
/// the command was not sent, or runs on.
async fn guest(world: &World, watch: &Watch) -> Option<(Verdict, String)> {
    let (id, long) = (watch.target.clone(), world.cloud.truth.lock().expect("no panic").commands_last);
    let answered = world.store.write(move |c| {
        let row = agent::command_by_id(c, &id)?.expect("it was handed over");
        let (outcome, verdict) = if row.cancel_epoch.is_some() {
            (Outcome::Cancelled, Verdict::Failed)
        } else if agent::mark_sent(c, &id)? {
            (Outcome::Done { exit_code: Some(0), signal: None }, Verdict::Reached)
        } else {
            return Ok(None);
        };
        if long && verdict == Verdict::Reached {
            return Ok(Some(None));
        }
        let result = CommandResult { outcome, output: Offsets::default(), at: Micros(1) };
        let raw = serde_json::to_string(&result).expect("plain data");
        let seen = Evidence {
            subject: row.attempt,
            source: "agent".into(),
            job: row.job.parse().expect("a uid"),
            customer: crate::model::CustomerId(row.customer),
            verdict,
            text: format!("seen: {verdict}"),
            raw: raw.clone(),
            made_at: Micros(0),
        };
        agent::finish(c, &id, &raw, &seen)?;
        Ok(Some(Some((verdict, raw))))
    });
    let answered = answered.await.expect("sent and answered")?;
    let mut truth = world.cloud.truth.lock().expect("no panic");
    if !truth.effects.iter().any(|(what, id)| *what == "run" && *id == watch.target) {
        truth.effects.push(("run", watch.target.clone()));
    }
    answered
}

fn faults() -> Vec<Fault> {
    use ErrorClass::{Auth, Conflict, NotFound, Quota, Throttled, Transient};
    let refusals = [Throttled, Transient, Quota, Auth, NotFound, Conflict].map(Fault::Refuse);
    let mut all = vec![
        Fault::Unknown,
        Fault::Answer,
        Fault::Stall,
        Fault::Hang,
        Fault::Late,
        Fault::Panic,
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::Cancel,
        Fault::CancelKill,
        Fault::TooLate,
    ];
    all.extend(refusals);
    all
}

async fn battery(bed: Bed, kind: JobKind, class: TokenClass) {
    let world = World::new(bed, class).await;
    let uid = world.submit(kind).await;
    let done = settle(&world, uid, None).await;
    assert_eq!(done.job.state, JobState::Complete, "{kind} {class} without a fault: {:?}", done.job);
    check(&world, &done, &format!("{kind} {class} happy")).await;
    let calls = world.script.calls();
    assert!(calls > 2, "{kind} calls its ports");
    for fault in faults() {
        for call in 1..=calls + 2 {
            let uid = world.submit(kind).await;
            let ended = settle(&world, uid, Some((call, fault.clone()))).await;
            check(&world, &ended, &format!("{kind} {class} {fault:?} at call {call}")).await;
        }
    }
    rows_hold(&world).await;
}

/// What the rows of all these jobs add up to. Servers that were there before have no job.
async fn rows_hold(world: &World) {
    let moment = Moment { now: Micros::wall(), quiet: Duration::from_secs(3600) };
    let mut breaches = world.store.read(move |c| violations(c, moment)).await.expect("read");
    breaches.retain(|breach| breach.job.is_some());
    assert_eq!(breaches, Vec::new());
}

on_both!(
    noop,
    launch_with_tokens,
    launch_with_tags_only,
    launch_with_neither,
    every_other_kind,
    a_call_past_its_limit_is_dropped_its_outcome_stays_unknown_and_a_look_finds_it,
    a_lease_past_its_limit_is_dropped_and_the_job_says_that_it_waits_for_the_key_manager,
    a_cancelled_command_is_taken_back_only_where_it_was_never_sent,
    a_cancel_that_comes_after_a_commands_end_changes_nothing_but_its_words,
    a_cancel_of_a_command_at_work_survives_every_fault,
    jobs_on_one_server_follow_one_another_in_the_order_of_their_acceptance,
    a_job_that_kills_its_process_is_set_aside_claimed_again_and_ends,
    what_the_cloud_does_not_show_yet_is_not_taken_for_gone,
    a_move_that_does_not_last_gets_another_round_and_no_more_than_three,
    a_move_in_its_second_and_third_round_survives_every_fault,
);

async fn a_move_that_does_not_last_gets_another_round_and_no_more_than_three(bed: Bed) {
    for kind in [JobKind::StartServer, JobKind::StopServer, JobKind::PauseServer] {
        let world = World::new(bed.another(), TokenClass::K).await;
        for times in 0..=3 {
            let uid = world.submit(kind).await;
            world.cloud.truth.lock().expect("no panic").take_back = times;
            let ended = settle(&world, uid, None).await;
            let wanted = if times < 3 { JobState::Complete } else { JobState::Failed };
            assert_eq!(ended.job.state, wanted, "{kind} taken back {times} times: {:?}", ended.job);
            assert_eq!(ended.watches.len(), usize::try_from(times + 1).expect("small").min(3), "{kind}");
            assert_eq!(ended.job.try_no, i32::try_from(times + 1).expect("small").min(3), "{kind}");
            if times == 3 {
                let message = ended.job.message.clone().unwrap_or_default();
                assert!(message.contains("did not last in 3 rounds"), "{message}");
            }
            check(&world, &ended, &format!("{kind} taken back {times} times")).await;
        }
        rows_hold(&world).await;
    }
}

async fn a_move_in_its_second_and_third_round_survives_every_fault(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    let (uid, kind) = (world.submit(JobKind::StopServer).await, JobKind::StopServer);
    world.cloud.truth.lock().expect("no panic").take_back = 2;
    settle(&world, uid, None).await;
    let calls = world.script.calls();
    for fault in faults() {
        for call in 1..=calls + 2 {
            let uid = world.submit(kind).await;
            world.cloud.truth.lock().expect("no panic").take_back = 2;
            let ended = settle(&world, uid, Some((call, fault.clone()))).await;
            check(&world, &ended, &format!("{kind} in rounds, {fault:?} at call {call}")).await;
        }
    }
    rows_hold(&world).await;
}

async fn noop(bed: Bed) {
    battery(bed, JobKind::Noop, TokenClass::K).await;
}

async fn launch_with_tokens(bed: Bed) {
    battery(bed, JobKind::LaunchServer, TokenClass::K).await;
}

async fn launch_with_tags_only(bed: Bed) {
    battery(bed.another(), JobKind::LaunchServer, TokenClass::S).await;
    battery(bed.another(), JobKind::LaunchServer, TokenClass::T).await;
}

async fn launch_with_neither(bed: Bed) {
    battery(bed, JobKind::LaunchServer, TokenClass::N).await;
}

async fn every_other_kind(bed: Bed) {
    for kind in JobKind::ALL.iter().filter(|k| !matches!(k, JobKind::Noop | JobKind::LaunchServer)) {
        battery(bed.another(), *kind, TokenClass::K).await;
    }
}

async fn a_call_past_its_limit_is_dropped_its_outcome_stays_unknown_and_a_look_finds_it(bed: Bed) {
    let table = [
        (JobKind::LaunchServer, "launch", "find_by_tag", "found by its tag:"),
        (JobKind::StopServer, "stop", "machine", "accepted for"),
        (JobKind::TerminateServer, "terminate", "machine", "accepted for"),
    ];
    for (kind, call, look, found) in table {
        let world = World::new(bed.another(), TokenClass::K).await;
        let uid = world.submit(kind).await;
        let ports = world.life().await;
        world.script.begin(None);
        world.script.hang(call);
        // Whoever looks dies, so that what was written before the look can be seen.
        world.script.deadly(look);
        let wake = Notify::new();
        tokio::select! {
            ended = drive(&ports, (uid, None), &wake) => panic!("{kind}: it did not look: {ended:?}"),
            () = world.script.dead.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{kind}: the call is never dropped"),
        }
        let open = history(&world, uid).await;
        assert_eq!(open.attempts.len(), 1, "{kind}");
        assert_eq!(open.attempts[0].outcome, AttemptOutcome::Open, "{kind}: unknown is not failed");
        assert_eq!((open.job.state, open.job.why_code.as_str()), (JobState::Running, "unknown"), "{kind}");
        assert!(open.job.why.contains("not finished after 30ms"), "{kind}: {}", open.job.why);
        world.script.harmless();
        let ended = settle(&world, uid, None).await;
        assert_eq!(ended.job.state, JobState::Complete, "{kind}");
        assert_eq!(ended.attempts.len(), 1, "{kind}: it was found, not sent again");
        assert!(ended.attempts[0].evidence.starts_with(found), "{kind}: {}", ended.attempts[0].evidence);
        check(&world, &ended, &format!("{kind} hangs")).await;
    }
}

async fn a_lease_past_its_limit_is_dropped_and_the_job_says_that_it_waits_for_the_key_manager(bed: Bed) {
    let world = World::new(bed.another(), TokenClass::K).await;
    let uid = world.submit(JobKind::LaunchServer).await;
    let ports = world.life().await;
    world.script.begin(None);
    world.script.hang("lease");
    // Whoever asks again dies, so that what was written before can be seen.
    world.script.deadly("lease");
    let wake = Notify::new();
    let began = std::time::Instant::now();
    tokio::select! {
        ended = drive(&ports, (uid, None), &wake) => panic!("it did not go on: {ended:?}"),
        () = world.script.dead.notified() => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the lease is never dropped"),
    }
    assert!(began.elapsed() >= Duration::from_millis(30));
    let waits = history(&world, uid).await;
    assert_eq!(waits.job.why_code, "key-manager");
    assert!(waits.job.why.contains("not finished after 30ms"), "{}", waits.job.why);
    world.script.harmless();
    let ended = settle(&world, uid, None).await;
    assert_eq!(ended.job.state, JobState::Complete);
    check(&world, &ended, "the lease hangs").await;
}

async fn a_cancelled_command_is_taken_back_only_where_it_was_never_sent(bed: Bed) {
    for sent in [false, true] {
        let world = World::new(bed.another(), TokenClass::K).await;
        let uid = world.submit(JobKind::RunCommand).await;
        let ports = world.life().await;
        world.script.begin(None);
        drive(&ports, (uid, None), &Notify::new()).await.expect("handed over");
        let waits = history(&world, uid).await;
        let watch = machine::watch_of_this_try(&waits).expect("a watch").clone();
        if sent {
            world.cloud.truth.lock().expect("no panic").commands_last = true;
            assert_eq!(guest(&world, &watch).await, None, "it runs on");
        }
        world.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
        drive(&ports, (uid, None), &Notify::new()).await.expect("driven");
        let after = history(&world, uid).await;
        if !sent {
            assert_eq!(after.job.state, JobState::Cancelled);
            assert_eq!(guest(&world, &watch).await, None, "it is not sent afterwards");
            let ran = world.cloud.truth.lock().expect("no panic").effects.iter().any(|e| e.1 == watch.target);
            assert!(!ran, "it never ran");
            continue;
        }
        assert_eq!(
            (after.job.state, after.job.why_code.as_str()),
            (JobState::Awaiting, machine::CANCEL_SENT)
        );
        assert_eq!(after.job.owner, None);
        assert!(after.job.why.contains("is asked to end it"), "{}", after.job.why);
        let id = watch.target.clone();
        let row = world.store.read(move |c| agent::command_by_id(c, &id)).await.expect("read").expect("it");
        assert_eq!(row.cancel_epoch, Some(after.job.epoch.0), "the row tells whoever holds the session");
        assert!(look(&world, &after).await, "the guest ended it");
        drive(&ports, (uid, None), &Notify::new()).await.expect("driven");
        let ended = history(&world, uid).await;
        assert_eq!(ended.job.state, JobState::Cancelled);
        assert_eq!(ended.job.message.as_deref(), Some("cancelled by ann; seen: failed"));
        rows_hold(&world).await;
    }
}

async fn a_cancel_that_comes_after_a_commands_end_changes_nothing_but_its_words(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    let uid = world.submit(JobKind::RunCommand).await;
    let ports = world.life().await;
    world.script.begin(None);
    drive(&ports, (uid, None), &Notify::new()).await.expect("handed over");
    let waits = history(&world, uid).await;
    let watch = machine::watch_of_this_try(&waits).expect("a watch").clone();
    assert!(guest(&world, &watch).await.is_some(), "it ran and answered");
    world.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
    drive(&ports, (uid, None), &Notify::new()).await.expect("driven");
    write_verdict(&world, &watch, Verdict::Reached, String::new()).await;
    drive(&ports, (uid, None), &Notify::new()).await.expect("driven");
    let ended = history(&world, uid).await;
    assert_eq!(ended.job.state, JobState::Complete);
    let message = ended.job.message.clone().unwrap_or_default();
    assert_eq!(message, "seen: reached; its cancel came too late (cancelled by ann)");
    rows_hold(&world).await;
}

async fn a_cancel_of_a_command_at_work_survives_every_fault(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    world.cloud.truth.lock().expect("no panic").commands_last = true;
    let at_work = async || {
        let uid = world.submit(JobKind::RunCommand).await;
        let ports = world.life().await;
        world.script.begin(None);
        drive(&ports, (uid, None), &Notify::new()).await.expect("handed over");
        assert!(!look(&world, &history(&world, uid).await).await, "it is sent and runs on");
        world.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
        uid
    };
    let ended = settle(&world, at_work().await, None).await;
    assert_eq!(ended.job.state, JobState::Cancelled, "{:?}", ended.job);
    let calls = world.script.calls();
    assert!(calls > 2, "its cancel calls ports");
    for fault in faults() {
        for call in 1..=calls + 2 {
            let ended = settle(&world, at_work().await, Some((call, fault.clone()))).await;
            // Only when its whole time passes in one step, its guest has no chance to answer.
            let late = fault == Fault::TooLate && ended.job.state == JobState::Unresolved;
            assert!(
                late || ended.job.state == JobState::Cancelled,
                "{fault:?} at call {call}: {:?}",
                ended.job
            );
        }
    }
    rows_hold(&world).await;
}

async fn jobs_on_one_server_follow_one_another_in_the_order_of_their_acceptance(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    let first = world.submit(JobKind::StopServer).await;
    let row = history(&world, first).await.job;
    let second = world.submit_on(JobKind::StartServer, row.server.expect("a server")).await;
    let ports = world.life().await;
    world.script.begin(None);
    let early =
        tokio::time::timeout(Duration::from_millis(100), drive(&ports, (second, None), &Notify::new())).await;
    assert!(early.is_err(), "it waits for its turn");
    assert_eq!(history(&world, second).await.job.why_code, "server-busy");
    settle(&world, first, None).await;
    let ended = settle(&world, second, None).await;
    assert_eq!(ended.job.state, JobState::Complete);
    let effects: Vec<_> = world.cloud.truth.lock().expect("no panic").effects.iter().map(|e| e.0).collect();
    assert_eq!(effects, ["stop", "start"]);
}

async fn what_the_cloud_does_not_show_yet_is_not_taken_for_gone(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    let uid = world.submit(JobKind::LaunchServer).await;
    let ports = world.life().await;
    world.script.begin(None);
    drive(&ports, (uid, None), &Notify::new()).await.expect("made");
    let made = history(&world, uid).await.job;
    let resource = made.resource.expect("its server");
    // Of the three seconds that this cloud may take to show what it made.
    let hidden_until = world.script.now().plus(Duration::from_secs(2));
    world.cloud.truth.lock().expect("no panic").hidden_until = hidden_until;
    world.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
    drive(&ports, (uid, None), &Notify::new()).await.expect("taken back");
    let ended = history(&world, uid).await;
    assert_eq!(ended.job.state, JobState::Cancelled);
    assert_eq!(world.cloud.state_of(&resource), Some(ServerStatus::Terminated), "{:#?}", ended.attempts);
    check(&world, &ended, "hidden at first").await;
}

async fn a_job_that_kills_its_process_is_set_aside_claimed_again_and_ends(bed: Bed) {
    let world = World::new(bed, TokenClass::K).await;
    let uid = world.submit(JobKind::LaunchServer).await;
    let mut set_aside = 0;
    world.script.begin(None);
    world.script.deadly("lease");
    for _ in 0..500 {
        let ports = world.life().await;
        let wake = Notify::new();
        tokio::select! {
            _ = drive(&ports, (uid, None), &wake) => {}
            () = world.script.dead.notified() => {}
        }
        let job = history(&world, uid).await.job;
        if job.ended_at.is_some() {
            // It never got as far as a call: its end is certain.
            assert_eq!((job.state, job.why_code.as_str()), (JobState::Failed, "deadline"), "{job:?}");
            assert!(set_aside > 1, "it got another chance");
            return;
        }
        if job.state == JobState::Quarantined {
            assert_eq!((job.why_code.as_str(), job.owner), (machine::CRASHES, None));
            set_aside += 1;
            world.script.advance_to(job.due_at.expect("bounded"));
        }
    }
    panic!("it loops for ever: {:?}", history(&world, uid).await.job);
}

#[test]
fn the_request_of_a_job_has_one_token_whoever_makes_it() {
    let install = crate::crypto::Key::random();
    let uid = JobUid::random();
    assert_eq!(
        crate::crypto::token(&install, uid, "create", 0),
        crate::crypto::token(&install, uid, "create", 0)
    );
    assert_ne!(
        crate::crypto::token(&install, uid, "create", 0),
        crate::crypto::token(&install, uid, "create", 1)
    );
    assert_eq!(AttemptOutcome::Open.as_str(), "open");
}

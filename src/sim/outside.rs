//! Clients that submit and cancel, and the trouble of the world.

use std::time::Duration;

use super::rows::Accepted;
use super::wire::{Answer, Site, call, sleep};
use super::world::{News, Order, Role, SECOND, Sim, World};
use crate::jobs::battery::{machine, params_of, server_row};
use crate::model::{
    AgentId, Boot, JobId, JobKind, JobUid, Micros, ServerId, ServerStatus, Uid, Verdict, WatchUid,
};
use crate::mq::Nudge;
use crate::store::provisioning::accept::{Entry, IdemKey, Submit};
use crate::store::provisioning::agent::NewAgent;
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::seed;
use crate::store::provisioning::server::ServerRow;

/// Servers that are there from the beginning, each with a guest.
const SERVERS: i64 = 3;
/// How long clients submit, in seconds.
const BUSY: u64 = 40;

/// Puts servers and guests there.
pub(super) fn furnish(w: &mut World) {
    for id in 1..=SERVERS {
        let provider_id = format!("i-place-{id}");
        let now = w.now;
        w.cloud.place(&provider_id, ServerStatus::Running, now);
        let row = ServerRow {
            provider_id: provider_id.clone(),
            ..server_row(id, &machine(&provider_id, ServerStatus::Running, None))
        };
        let agent = NewAgent {
            id: AgentId(id),
            customer: seed::CUSTOMER,
            job: JobUid::random(),
            token_hash: format!("{id}"),
            token_expires: Micros(0),
        };
        w.rows.insert_server(&row);
        w.rows.insert_agent(&agent);
        w.guests.insert(id, super::guest::Guest::new());
    }
}

/// One client: submits a job with its own key until it is answered, and may cancel it later.
pub(super) async fn client(sim: Sim, number: u64) {
    let wait = sim.with(|w| w.chance.below(BUSY * 1_000_000));
    sleep(&sim, Duration::from_micros(wait)).await;
    let mut submit = sim.with(|w| submit_of(w, number));
    let key = format!("key-{number}");
    let uid = loop {
        if let Some(uid) = ask(&sim, &submit).await {
            break uid;
        }
        sleep(&sim, Duration::from_millis(700)).await;
        // The client knows nothing: another request under the same key.
        (submit.uid, submit.entry.request) = (JobUid::random(), Uid::random());
        submit.id = JobId(sim.with(World::new_number));
    };
    sim.with(|w| {
        if let Some(first) = w.checks.accepted.insert(key.clone(), uid)
            && first != uid
        {
            w.violated(format!("accept: key {key} made two jobs, {first} and {uid}"));
        }
    });
    let (cancels, after) = sim.with(|w| (w.chance.one_in(4), w.chance.below(30_000_000)));
    if cancels {
        sleep(&sim, Duration::from_micros(after)).await;
        let asked =
            call(&sim, Site::Write, move |w| w.write(None, |rows| rows.cancel_asked(uid, "ann"))).await;
        if matches!(asked, Answer::Value(true)) {
            sim.with(|w| {
                w.figures.cancels += 1;
                w.publish(Nudge::Cancel(uid));
            });
        }
    }
}

/// Asks one of the dispatchers; none while nobody answers.
async fn ask(sim: &Sim, submit: &Submit) -> Option<JobUid> {
    let there = sim.with(|w| w.alive(Role::Dispatcher));
    let life = sim.with(|w| (!there.is_empty()).then(|| *w.chance.pick(&there)))?;
    let item = submit.clone();
    let accepted = call(sim, Site::Write, move |w| w.write(None, |rows| rows.accept(&item))).await;
    match accepted {
        Answer::Value(Accepted::Stored(row)) => {
            let uid = row.uid;
            sim.with(|w| w.tell(life, News::Stored(row)));
            Some(uid)
        }
        Answer::Value(Accepted::Same(answer)) => answer.job,
        Answer::Value(other) => {
            sim.with(|w| w.violated(format!("accept: a repeat under its own key was answered {other:?}")));
            None
        }
        Answer::Refused | Answer::Lost => None,
    }
}

fn submit_of(w: &mut World, number: u64) -> Submit {
    let kinds = [
        JobKind::LaunchServer,
        JobKind::LaunchServer,
        JobKind::LaunchServer,
        JobKind::RunCommand,
        JobKind::RunCommand,
        JobKind::StopServer,
        JobKind::StartServer,
        JobKind::PauseServer,
        JobKind::Noop,
    ];
    let last = w.chance.one_in(60);
    let kind = if last { JobKind::TerminateServer } else { *w.chance.pick(&kinds) };
    let params = params_of(kind, ServerId(w.chance.range(1, SERVERS)));
    let id = w.new_number();
    Submit {
        entry: Entry {
            customer: seed::CUSTOMER,
            access_key: "AK".into(),
            request: Uid::random(),
            replay: None,
            idem: Some(IdemKey { key: format!("key-{number}"), body_hash: "hash".into() }),
            repeat_by_key: false,
        },
        uid: JobUid::random(),
        id: JobId(id),
        account: seed::ACCOUNT,
        person: seed::ADMIN,
        server: params.server(),
        params,
        description: kind.to_string(),
        priority: i32::from(w.chance.one_in(5)),
        delay: Duration::from_secs(if w.chance.one_in(8) { w.chance.below(8) } else { 0 }),
        limit: Duration::from_secs(*w.chance.pick(&[25, 60, 90, 120])),
    }
}

/// Trouble, until it is healed.
pub(super) async fn trouble(sim: Sim, until: Micros) {
    loop {
        let pause = sim.with(|w| w.chance.range(SECOND / 2, 6 * SECOND));
        sleep(&sim, Duration::from_micros(pause.unsigned_abs())).await;
        let over = sim.with(|w| {
            if w.now < until {
                strike(w);
            }
            w.now >= until
        });
        if over {
            return sim.with(heal);
        }
    }
}

fn strike(w: &mut World) {
    if !w.faults.strikes(&mut w.chance, 900) {
        return;
    }
    let processes: Vec<usize> =
        (0..w.lives.len()).filter(|i| w.lives[*i].alive && w.lives[*i].role != Role::Outside).collect();
    match w.chance.below(10) {
        0..=2 if !processes.is_empty() => {
            let one = *w.chance.pick(&processes);
            w.orders.push(Order::Kill(one));
        }
        3 | 4 if !processes.is_empty() => {
            let (one, long) = (*w.chance.pick(&processes), w.chance.range(SECOND, 30 * SECOND));
            stand_still(w, one, long);
        }
        5 | 6 => {
            let (guest, all) = (w.chance.range(1, SERVERS), w.chance.one_in(2));
            w.guest_dies(guest, all);
        }
        7 => {
            w.figures.outages += 1;
            w.faults.outage = Micros(w.now.0 + w.chance.range(SECOND, 8 * SECOND));
        }
        8 => {
            let made: Vec<String> =
                w.cloud.servers.keys().filter(|id| !id.contains("place")).cloned().collect();
            if !made.is_empty() && w.chance.one_in(2) {
                let id = w.chance.pick(&made).clone();
                w.lose(&id);
            }
        }
        _ => stray_verdict(w),
    }
}

/// As SIGSTOP, and later SIGCONT.
fn stand_still(w: &mut World, life: usize, long: i64) {
    if w.lives[life].paused {
        return;
    }
    w.figures.pauses += 1;
    w.note("stands still", life as u64, long.unsigned_abs());
    w.lives[life].paused = true;
    w.after(long, move |w| w.lives[life].paused = false);
}

/// Somebody says something about another try of a job: evidence, and no decision.
fn stray_verdict(w: &mut World) {
    let open: Vec<JobUid> = w
        .rows
        .jobs
        .iter()
        .map(super::rows::Entry::job)
        .filter(|job| job.ended_at.is_none())
        .map(|job| job.uid)
        .collect();
    if open.is_empty() {
        return;
    }
    let job = *w.chance.pick(&open);
    let evidence = Evidence {
        subject: WatchUid::random().to_string(),
        source: format!("other-try/{}", Boot::random()),
        job,
        customer: seed::CUSTOMER,
        verdict: Verdict::Reached,
        text: "another try was seen".to_owned(),
        raw: String::new(),
        made_at: w.now,
    };
    w.write(None, |rows| rows.insert_evidence(&evidence));
}

/// From now on nothing goes wrong any more: who stood still wakes, who is dead begins anew.
fn heal(w: &mut World) {
    w.note("healed", 0, 0);
    w.faults.heal();
    w.lives.iter_mut().for_each(|life| life.paused = false);
}

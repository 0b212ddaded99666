//! A dispatcher's session with one guest: commands are marked, sent, answered and stored, by the real machine of
//! `agents`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::house::House;
use super::wire::{Answer, sleep};
use super::world::Sim;
use crate::agents::machine::{Act, Machine, meaning};
use crate::model::{AgentId, CustomerId, Epoch, Micros, ServerId, Verdict};
use crate::mq::Nudge;
use crate::store::provisioning::agent::{CommandRow, command};
use crate::store::provisioning::job::Evidence;
use crate::wire::{
    AgentFrame, CommandId, CommandResult, DispatcherFrame, LookAnswer, LookState, Offsets, Operation,
    Outcome, Reference, Run,
};

/// Pause between two tries to hold a guest's session, and between looks at its queue.
const PAUSE: Duration = Duration::from_secs(2);

/// Commands whose end was asked for, and under which epoch the guest was asked about them.
type CalledOff = BTreeMap<CommandId, Epoch>;

/// Holds the session with a guest whenever it may.
pub(super) async fn hold(house: Rc<House>, server: i64) {
    let boot = house.port.boot;
    loop {
        let number = house.port.write(move |rows| rows.next_session(AgentId(server), boot)).await;
        if let Answer::Value(Some(number)) = number {
            sleep(&house.port.sim, Duration::from_millis(20)).await;
            if house.port.sim.with(|w| w.open_session(server, number, house.port.life)) {
                talk(&house, server, number).await;
                house.port.sim.with(|w| w.break_session(server, number));
            }
        }
        sleep(&house.port.sim, PAUSE).await;
    }
}

fn is_up(sim: &Sim, of: (i64, i64)) -> bool {
    sim.with(|w| w.sessions.get(&of).is_some_and(|session| session.up))
}

/// One session, until it breaks.
async fn talk(house: &House, server: i64, number: i64) {
    let sim = &house.port.sim;
    let mut machine = Machine::new(1 << 20);
    let mut first = sim.with(|w| w.chance.one_in(2));
    let mut called_off = BTreeMap::new();
    while is_up(sim, (server, number)) {
        call_off(house, &mut machine, (server, number), &mut called_off).await;
        if let Answer::Value(rows) = house.port.read(move |rows| rows.open_commands(ServerId(server))).await {
            if std::mem::take(&mut first) {
                look_first(sim, (server, number), &rows);
            }
            for row in rows {
                if !send(house, &mut machine, (server, number), row).await {
                    return;
                }
            }
        }
        if !hear(house, &mut machine, (server, number), &called_off).await {
            return;
        }
    }
}

/// Somebody asks, at the epoch the job has now, what became of the commands that were sent before.
fn look_first(sim: &Sim, (server, number): (i64, i64), rows: &[CommandRow]) {
    for row in rows.iter().filter(|row| row.state == command::SENT) {
        let Ok(command) = row.id.parse::<CommandId>() else { continue };
        let job = command.job();
        sim.with(|w| {
            let epoch = w.rows.history(job).map_or(Epoch(row.epoch), |h| h.job.epoch);
            let reference = Reference { command, job, epoch, output_from: Offsets::default() };
            w.send_to_guest(server, number, DispatcherFrame::Look(reference));
        });
    }
}

async fn send(house: &House, machine: &mut Machine, (server, number): (i64, i64), row: CommandRow) -> bool {
    let Ok(command) = row.id.parse::<CommandId>() else { return true };
    if machine.holds(&command) {
        return true;
    }
    let id = row.id.clone();
    match house.port.write(move |rows| rows.mark_sent(&id)).await {
        Answer::Value(true) => {}
        Answer::Value(false) => return true,
        Answer::Refused | Answer::Lost => return false,
    }
    let operation: Operation = serde_json::from_str(&row.operation).expect("an operation");
    let run = Run {
        job: command.job(),
        command: command.clone(),
        epoch: Epoch(row.epoch),
        operation,
        user: String::new(),
        expires_at: Micros(row.expires_at),
        output_from: Offsets::default(),
    };
    machine.sending(command, row, Offsets::default());
    house.port.sim.with(|w| w.send_to_guest(server, number, DispatcherFrame::Run(run)));
    true
}

/// Waits for a frame, a hint or a while; false when the session cannot go on.
async fn hear(house: &House, machine: &mut Machine, of: (i64, i64), called_off: &CalledOff) -> bool {
    tokio::select! {
        biased;
        frame = super::tasks::frame(&house.port.sim, of) => {
            let Some(frame) = frame else { return false };
            act(house, machine, (of, frame), called_off).await
        }
        () = house.guests.notified() => true,
        () = sleep(&house.port.sim, PAUSE) => true,
    }
}

async fn act(
    house: &House,
    machine: &mut Machine,
    (of, frame): ((i64, i64), AgentFrame),
    called_off: &CalledOff,
) -> bool {
    match machine.hear(frame) {
        Ok(Act::Finished { row, result, .. }) => store(house, &row, (&result, meaning(&result))).await,
        Ok(Act::Looked(answer)) => looked(house, machine, (of, answer), called_off).await,
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Asks the guest's journal about each command whose end was asked for, once an epoch and session.
async fn call_off(
    house: &House,
    machine: &mut Machine,
    (server, number): (i64, i64),
    called_off: &mut CalledOff,
) {
    let Answer::Value(rows) = house.port.read(move |rows| rows.called_off(ServerId(server))).await else {
        return;
    };
    for row in rows {
        let (Ok(command), Some(epoch)) = (row.id.parse::<CommandId>(), row.cancel_epoch.map(Epoch)) else {
            continue;
        };
        if called_off.get(&command) == Some(&epoch) {
            continue;
        }
        if !machine.holds(&command) {
            machine.sending(command.clone(), row, Offsets::default());
        }
        called_off.insert(command.clone(), epoch);
        let reference = Reference { job: command.job(), command, epoch, output_from: Offsets::default() };
        house.port.sim.with(|w| w.send_to_guest(server, number, DispatcherFrame::Look(reference)));
    }
}

/// What the journal of the guest says about a command that is to end.
async fn looked(
    house: &House,
    machine: &mut Machine,
    ((server, number), answer): ((i64, i64), LookAnswer),
    called_off: &CalledOff,
) -> bool {
    let command = answer.command.clone();
    let Some(epoch) = called_off.get(&command).copied() else { return true };
    match answer.state {
        LookState::Absent => {
            let Some((row, output)) = machine.take(&command) else { return true };
            let result = CommandResult { outcome: Outcome::Cancelled, output, at: house.now() };
            let text = "its guest had not got the command and takes it no more; it never ran".to_owned();
            store(house, &row, (&result, (Verdict::Lost, text))).await
        }
        LookState::Running | LookState::Done { .. } | LookState::Interrupted => {
            let reference = Reference { job: command.job(), command, epoch, output_from: Offsets::default() };
            house.port.sim.with(|w| w.send_to_guest(server, number, DispatcherFrame::Cancel(reference)));
            true
        }
        LookState::Refused => true,
    }
}

/// Stores a result before the guest is told that it was heard.
async fn store(
    house: &House,
    row: &CommandRow,
    (result, (verdict, text)): (&CommandResult, (Verdict, String)),
) -> bool {
    let raw = serde_json::to_string(result).expect("plain data");
    let seen = Evidence {
        subject: row.attempt.clone(),
        source: "agent".to_owned(),
        job: row.job.parse().expect("a job"),
        customer: CustomerId(row.customer),
        verdict,
        text,
        raw: raw.clone(),
        made_at: house.now(),
    };
    let (id, job) = (row.id.clone(), seen.job);
    if !matches!(house.port.write(move |rows| rows.finish(&id, &raw, &seen)).await, Answer::Value(_)) {
        return false;
    }
    house.port.sim.with(|w| w.publish(Nudge::Reported(job)));
    true
}

//! A dispatcher's session with one guest: commands are marked, sent, answered and stored, by the real machine of
//! `agents`.

use std::rc::Rc;
use std::time::Duration;

use super::house::House;
use super::wire::{Answer, sleep};
use super::world::Sim;
use crate::agents::machine::{Act, Machine, meaning};
use crate::model::{AgentId, CustomerId, Epoch, Micros, ServerId};
use crate::mq::Nudge;
use crate::store::provisioning::agent::{CommandRow, command};
use crate::store::provisioning::job::Evidence;
use crate::wire::{
    AgentFrame, CommandId, CommandResult, DispatcherFrame, Offsets, Operation, Reference, Run,
};

/// Pause between two tries to hold a guest's session, and between looks at its queue.
const PAUSE: Duration = Duration::from_secs(2);

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
    while is_up(sim, (server, number)) {
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
        if !hear(house, &mut machine, (server, number)).await {
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
            let reference = Reference { command, job, epoch };
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
async fn hear(house: &House, machine: &mut Machine, of: (i64, i64)) -> bool {
    tokio::select! {
        biased;
        frame = super::tasks::frame(&house.port.sim, of) => {
            let Some(frame) = frame else { return false };
            act(house, machine, frame).await
        }
        () = house.guests.notified() => true,
        () = sleep(&house.port.sim, PAUSE) => true,
    }
}

async fn act(house: &House, machine: &mut Machine, frame: AgentFrame) -> bool {
    match machine.hear(frame) {
        Ok(Act::Finished { row, result, .. }) => store(house, &row, &result).await,
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Stores a result before the guest is told that it was heard.
async fn store(house: &House, row: &CommandRow, result: &CommandResult) -> bool {
    let raw = serde_json::to_string(result).expect("plain data");
    let (verdict, text) = meaning(result);
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

//! The guest agent as a real process on a loopback address, against a stub of the dispatcher's handshake.

mod harness;
mod house;

use std::time::Duration;

use dispatcher::crypto::pki;
use dispatcher::model::{Epoch, Micros};
use dispatcher::wire::{
    AgentFrame, DispatcherFrame, LookState, Offsets, Operation, Outcome, Reference, agent_host_name,
};
use harness::{SERVER, Stubbed, command, run_of, wait_until};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn exited(code: i32) -> Outcome {
    Outcome::Done { exit_code: Some(code), signal: None }
}

#[actix_rt::test]
async fn a_guest_enrols_once_keeps_trying_and_runs_alone() {
    let mut guest = Stubbed::unstarted();
    guest.stub.answer_first_with(&[503, 500]);
    guest.start_enrolled().await;
    let mut session = guest.session(1).await;
    session.send(DispatcherFrame::Ping { n: 4 }).await;
    let AgentFrame::Pong(pong) = session.next().await else { panic!("no pong") };
    assert!(pong.n == 4 && pong.stats.memory_total > 0);
    assert_eq!(
        guest.stub.tokens(),
        [Some("t0k3n".to_owned()), Some("t0k3n".to_owned()), Some("t0k3n".to_owned())]
    );

    let second = harness::end_of(guest.spawn_process()).await;
    assert_eq!(second.code(), Some(4), "a second agent must see the first");

    let key = guest.file("key.pem");
    guest.kill();
    guest.start_enrolled().await;
    guest.session(2).await;
    assert_eq!(guest.file("key.pem"), key, "the key is kept");
    wait_until("the announcement", || guest.stub.tokens().len() == 4).await;
    assert_eq!(guest.stub.tokens().last(), Some(&None), "a known key needs no token");
}

#[actix_rt::test]
async fn a_guest_that_is_refused_stops() {
    let guest = Stubbed::unstarted();
    guest.stub.answer_first_with(&[401]);
    let status = harness::end_of(guest.spawn_process()).await;
    assert_eq!(status.code(), Some(3));
}

#[actix_rt::test]
async fn only_the_dispatchers_role_of_the_services_root_is_let_in() {
    let guest = Stubbed::start_new().await;
    let host = [agent_host_name(SERVER)];
    let other_root = guest.agents.issue_role(pki::DISPATCHER_ROLE, &host, DAY).expect("issued");
    let other_agent = guest.agents.issue_role("urn:dispatcher:agent:1:8", &host, DAY).expect("issued");
    let other_role = guest.services.issue_role(pki::KEY_MANAGER_ROLE, &host, DAY).expect("issued");
    for wrong in [Some(&other_root), Some(&other_agent), Some(&other_role), None] {
        assert!(guest.dial(wrong, 1).await.is_err(), "a wrong client was let in");
    }
    let mut session = guest.session(1).await;
    session.send(DispatcherFrame::Ping { n: 1 }).await;
    assert!(matches!(session.next().await, AgentFrame::Pong(_)));
}

#[actix_rt::test]
async fn output_is_exact_by_offset_and_a_repeat_is_answered_from_the_journal() {
    let guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    // Larger than a frame, every byte value, and nothing a shell would leave alone.
    let script = "import sys\nfor i in range(1200): sys.stdout.buffer.write(bytes(range(256)))\n\
                  sys.stderr.write(sys.argv[1])\nsys.exit(3)";
    let hostile = "$(touch /tmp/x); `id` | \"' \n * ~";
    let run = run_of(&command("run", 1), 2, &["python3", "-c", script, hostile]);
    session.send(DispatcherFrame::Run(run.clone())).await;
    let end = session.end_of(&run.command).await;
    let expected: Vec<u8> = (0..1200).flat_map(|_| 0..=255_u8).collect();
    assert_eq!(end.result.outcome, exited(3));
    assert!(end.stdout == expected, "{} bytes instead of {}", end.stdout.len(), expected.len());
    assert_eq!(String::from_utf8_lossy(&end.stderr), hostile);
    assert_eq!(end.result.output, Offsets { stdout: 307_200, stderr: hostile.len() as u64 });
    assert!(end.started);

    for (epoch, from) in [(2, 0), (9, 300_001)] {
        let mut again = run.clone();
        again.epoch = Epoch(epoch);
        again.output_from = Offsets { stdout: from, stderr: hostile.len() as u64 };
        session.send(DispatcherFrame::Run(again)).await;
        let repeated = session.end_from(&run.command, from).await;
        assert_eq!(repeated.result, end.result);
        assert!(repeated.stdout == expected[usize::try_from(from).expect("small")..]);
        assert!(!repeated.started && repeated.stderr.is_empty());
    }
    let mut older = run.clone();
    older.epoch = Epoch(8);
    session.send(DispatcherFrame::Run(older)).await;
    assert_eq!(session.end_of(&run.command).await.result.outcome, Outcome::Refused { floor: Epoch(9) });
    assert_eq!(guest.effects(), [run.command.to_string()]);

    session.send(DispatcherFrame::Ack { command: run.command.clone() }).await;
    let folder = guest.data().join("commands").join(run.command.to_string());
    wait_until("the command's files to go", || !folder.exists()).await;
    session
        .send(DispatcherFrame::Look(Reference {
            command: run.command.clone(),
            job: run.job,
            epoch: Epoch(9),
            output_from: Offsets::default(),
        }))
        .await;
    let AgentFrame::LookAnswer(answer) = session.next().await else { panic!("no answer") };
    assert_eq!(answer.state, LookState::Done { result: end.result });
}

#[actix_rt::test]
async fn a_look_raises_the_floor_for_good() {
    let mut guest = Stubbed::start_new().await;
    let run = run_of(&command("run", 1), 4, &["true"]);
    let look = |epoch| {
        DispatcherFrame::Look(Reference {
            command: run.command.clone(),
            job: run.job,
            epoch: Epoch(epoch),
            output_from: Offsets::default(),
        })
    };
    let mut session = guest.session(1).await;
    session.send(look(5)).await;
    let AgentFrame::LookAnswer(answer) = session.next().await else { panic!("no answer") };
    assert_eq!((answer.state, answer.floor), (LookState::Absent, Epoch(5)));
    session.send(look(4)).await;
    let AgentFrame::LookAnswer(answer) = session.next().await else { panic!("no answer") };
    assert_eq!((answer.state, answer.floor), (LookState::Refused, Epoch(5)));

    guest.kill();
    guest.start_enrolled().await;
    let mut session = guest.session(2).await;
    session.send(DispatcherFrame::Run(run.clone())).await;
    assert_eq!(session.end_of(&run.command).await.result.outcome, Outcome::Refused { floor: Epoch(5) });
    assert!(guest.effects().is_empty(), "the old node's frame ran");
}

#[actix_rt::test]
async fn what_is_late_foreign_or_malformed_never_runs() {
    let guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    let mut late = run_of(&command("run", 1), 1, &["true"]);
    late.expires_at = Micros::wall().minus(Duration::from_secs(1));
    session.send(DispatcherFrame::Run(late.clone())).await;
    assert_eq!(session.end_of(&late.command).await.result.outcome, Outcome::Expired);
    late.expires_at = Micros::wall().plus(Duration::from_secs(60));
    session.send(DispatcherFrame::Run(late.clone())).await;
    assert_eq!(session.end_of(&late.command).await.result.outcome, Outcome::Expired, "an end stays");

    let mut far = run_of(&command("run", 1), 1, &["true"]);
    far.expires_at = Micros::wall().plus(DAY * 2);
    let empty = run_of(&command("run", 1), 1, &[]);
    let zero = run_of(&command("run", 1), 1, &["true", "a\0b"]);
    let mut endless = run_of(&command("run", 1), 1, &["true"]);
    endless.operation = Operation::RunCommand { argv: vec!["true".into()], timeout_secs: 0 };
    let foreign = run_of(&harness::command_on(8, "run", 1), 1, &["true"]);
    for run in [far, empty, zero, endless, foreign] {
        session.send(DispatcherFrame::Run(run.clone())).await;
        let outcome = session.end_of(&run.command).await.result.outcome;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{run:?}: {outcome:?}");
    }
    assert!(guest.effects().is_empty());
    let absent = run_of(&command("run", 1), 1, &["/no/such/program"]);
    session.send(DispatcherFrame::Run(absent.clone())).await;
    let outcome = session.end_of(&absent.command).await.result.outcome;
    assert!(
        matches!(&outcome, Outcome::Failed { reason } if reason.contains("/no/such/program")),
        "{outcome:?}"
    );
}

#[actix_rt::test]
async fn an_agent_killed_in_mid_command_finds_the_result() {
    let mut guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    let gate = guest.data().join("gate");
    let script = format!(
        "import os,sys,time\nprint('one',flush=True)\nwhile not os.path.exists({:?}): time.sleep(0.01)\nprint('two')",
        gate.display().to_string()
    );
    let run = run_of(&command("run", 1), 1, &["python3", "-c", &script]);
    session.send(DispatcherFrame::Run(run.clone())).await;
    session.output_of(&run.command, b"one\n").await;
    guest.kill();
    guest.start_enrolled().await;
    let mut session = guest.session(2).await;
    let mut again = run.clone();
    again.epoch = Epoch(2);
    again.output_from.stdout = 4;
    session.send(DispatcherFrame::Run(again)).await;
    // Alive: it must be attached to, not called interrupted.
    std::fs::write(&gate, "").expect("written");
    let end = session.end_from(&run.command, 4).await;
    assert_eq!((end.result.outcome, end.stdout.as_slice()), (exited(0), b"two\n".as_slice()));
    assert_eq!(guest.effects().len(), 1);

    // And once more with the end of the command while no agent lives.
    let run = run_of(&command("run", 1), 1, &["python3", "-c", &script.replace("'two'", "'three'")]);
    std::fs::remove_file(&gate).expect("removed");
    session.send(DispatcherFrame::Run(run.clone())).await;
    session.output_of(&run.command, b"one\n").await;
    guest.kill();
    std::fs::write(&gate, "").expect("written");
    let status = guest.data().join("commands").join(run.command.to_string()).join("status.json");
    wait_until("the shim to finish alone", || status.exists()).await;
    guest.start_enrolled().await;
    let mut session = guest.session(3).await;
    session.send(DispatcherFrame::Run(run.clone())).await;
    let end = session.end_of(&run.command).await;
    assert_eq!((end.result.outcome, end.stdout.as_slice()), (exited(0), b"one\nthree\n".as_slice()));
    assert_eq!(guest.effects().len(), 2);
}

#[actix_rt::test]
async fn a_command_whose_shim_died_too_is_interrupted_and_never_runs_again() {
    let mut guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    let run = run_of(&command("run", 1), 1, &["sh", "-c", "echo $$; exec sleep 600"]);
    session.send(DispatcherFrame::Run(run.clone())).await;
    let printed = session.output_line(&run.command).await;
    guest.kill();
    guest.kill_shim(&run.command);
    guest.start_enrolled().await;
    let mut session = guest.session(2).await;
    for epoch in [1, 2] {
        let mut again = run.clone();
        again.epoch = Epoch(epoch);
        session.send(DispatcherFrame::Run(again)).await;
        assert_eq!(session.end_of(&run.command).await.result.outcome, Outcome::Interrupted);
    }
    session
        .send(DispatcherFrame::Look(Reference {
            command: run.command.clone(),
            job: run.job,
            epoch: Epoch(2),
            output_from: Offsets::default(),
        }))
        .await;
    let AgentFrame::LookAnswer(answer) = session.next().await else { panic!("no answer") };
    assert_eq!(answer.state, LookState::Interrupted);
    assert_eq!(guest.effects().len(), 1);
    wait_until("the orphan to be gone", || !harness::runs(&printed, "sleep")).await;
}

#[actix_rt::test]
async fn time_limits_and_cancels_end_a_command_and_what_it_started() {
    let guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    let mut run = run_of(&command("run", 1), 1, &["sh", "-c", "sleep 600 & echo $!; wait"]);
    run.operation = match run.operation {
        Operation::RunCommand { argv, .. } => Operation::RunCommand { argv, timeout_secs: 1 },
        Operation::GetAgentData => panic!("a command was made"),
    };
    session.send(DispatcherFrame::Run(run.clone())).await;
    let end = session.end_of(&run.command).await;
    assert_eq!(end.result.outcome, Outcome::TimedOut { after_secs: 1 });
    let grandchild = String::from_utf8(end.stdout).expect("a number").trim().to_owned();
    wait_until("the grandchild to be gone", || !harness::runs(&grandchild, "sleep")).await;

    let run = run_of(&command("run", 1), 1, &["sleep", "600"]);
    let cancel = |run: &dispatcher::wire::Run| {
        DispatcherFrame::Cancel(Reference {
            command: run.command.clone(),
            job: run.job,
            epoch: run.epoch,
            output_from: Offsets::default(),
        })
    };
    session.send(DispatcherFrame::Run(run.clone())).await;
    session.send(cancel(&run)).await;
    assert_eq!(session.end_of(&run.command).await.result.outcome, Outcome::Cancelled);

    let never = run_of(&command("run", 1), 1, &["true"]);
    session.send(cancel(&never)).await;
    assert_eq!(session.end_of(&never.command).await.result.outcome, Outcome::Cancelled);
    session.send(DispatcherFrame::Run(never.clone())).await;
    assert_eq!(
        session.end_of(&never.command).await.result.outcome,
        Outcome::Cancelled,
        "a late frame stays cancelled"
    );
    assert!(!guest.effects().contains(&never.command.to_string()));

    // One that ended before its cancel says how, also to a session that did not send it.
    let run = run_of(&command("run", 1), 1, &["false"]);
    session.send(DispatcherFrame::Run(run.clone())).await;
    assert_eq!(session.end_of(&run.command).await.result.outcome, exited(1));
    let mut another = guest.session(2).await;
    another.send(cancel(&run)).await;
    assert_eq!(another.end_of(&run.command).await.result.outcome, exited(1));
}

#[actix_rt::test]
async fn a_newer_session_replaces_an_older_one_and_an_older_one_is_refused() {
    let guest = Stubbed::start_new().await;
    let mut old = guest.session(5).await;
    let mut new = guest.session(6).await;
    assert!(old.ends().await, "the older session was kept");
    assert!(
        guest.dial(Some(&guest.role), 5).await.expect("connects").ends().await,
        "an older session was let in"
    );
    new.send(DispatcherFrame::Ping { n: 1 }).await;
    assert!(matches!(new.next().await, AgentFrame::Pong(_)));
    drop(new);
    let mut run = run_of(&command("data", 1), 1, &[]);
    run.operation = Operation::GetAgentData;
    let mut session = guest.session(7).await;
    session.send(DispatcherFrame::Run(run.clone())).await;
    let Outcome::Data { data } = session.end_of(&run.command).await.result.outcome else { panic!("no data") };
    assert!(data.cpu_count > 0);
}

#[actix_rt::test]
async fn commands_beyond_the_places_wait_in_order() {
    let guest = Stubbed::start_new().await;
    let mut session = guest.session(1).await;
    let gate = guest.data().join("gate");
    let script = format!(
        "import os,time\nwhile not os.path.exists({:?}): time.sleep(0.02)",
        gate.display().to_string()
    );
    let holding: Vec<_> =
        (0..16).map(|_| run_of(&command("hold", 1), 1, &["python3", "-c", &script])).collect();
    let waiting: Vec<_> = (0..4).map(|_| run_of(&command("wait", 1), 1, &["true"])).collect();
    for run in holding.iter().chain(&waiting) {
        session.send(DispatcherFrame::Run(run.clone())).await;
    }
    let (mut started, mut accepted) = (Vec::new(), Vec::new());
    while accepted.len() < waiting.len() {
        match session.next().await {
            AgentFrame::Started { command, .. } => started.push(command),
            AgentFrame::Accepted { command } => accepted.push(command),
            frame => panic!("{frame:?}"),
        }
    }
    let names =
        |runs: &[dispatcher::wire::Run]| runs.iter().map(|run| run.command.clone()).collect::<Vec<_>>();
    assert_eq!((started, accepted), (names(&holding), names(&waiting)));
    std::fs::write(&gate, "").expect("written");
    let (mut order, mut ends) = (Vec::new(), 0);
    while ends < 20 {
        match session.next().await {
            AgentFrame::Started { command, .. } => order.push(command),
            AgentFrame::Result { result, .. } => {
                assert_eq!(result.outcome, exited(0));
                ends += 1;
            }
            frame => panic!("{frame:?}"),
        }
    }
    assert_eq!(order, names(&waiting));
}

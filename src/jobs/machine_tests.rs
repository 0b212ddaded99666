//! The plan over arbitrary histories.

use std::time::Duration;

use proptest::option;
use proptest::prelude::*;

use super::machine::{Facts, Limits, Plan, Promise, plan, verdict_of_this_try};
use super::steps::{UNDO, step_of};
use super::timeline::samples;
use crate::cloud::TokenClass;
use crate::model::{
    AttemptOutcome, Boot, CommandParams, ErrorClass, GroupParams, JobKind, JobParams, JobState, JobUid,
    Micros, NoopParams, RegionId, ServerId, ServerParams, TakeBackParams, Verdict, WatchKind,
};
use crate::store::provisioning::job::{Evidence, History};

const NOW: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Owner {
    Nobody,
    Me,
    Other,
}

#[derive(Clone, Debug)]
struct Call {
    outcome: AttemptOutcome,
    undo: bool,
    n: i32,
    class: Option<ErrorClass>,
    quiet: Option<i64>,
}

fn params(kind: JobKind) -> JobParams {
    let moved = ServerParams { server: ServerId(7), reason: String::new() };
    match kind {
        JobKind::Noop => JobParams::Noop(NoopParams::default()),
        JobKind::Group => JobParams::Group(GroupParams {
            children: 3,
            together: None,
            stop_on_failure: false,
            retry_of: None,
        }),
        JobKind::TerminateServer => JobParams::TerminateServer(moved),
        JobKind::StartServer => JobParams::StartServer(moved),
        JobKind::StopServer => JobParams::StopServer(moved),
        JobKind::PauseServer => JobParams::PauseServer(moved),
        JobKind::RunCommand => {
            JobParams::RunCommand(CommandParams { server: ServerId(7), argv: Vec::new(), timeout_secs: 1 })
        }
        JobKind::TakeBack => JobParams::TakeBack(TakeBackParams {
            resource: "i-1".into(),
            region: RegionId(1),
            tag: "t".into(),
            left_by: JobUid::random(),
        }),
        JobKind::LaunchServer => serde_json::from_value(serde_json::json!({"kind": "launch-server", "params": {
            "name": "web", "description": "", "account": 1, "cloud": 1, "region": 1, "data_center": 1,
            "provider_data_center": "d", "product": 1, "provider_product": "p", "image": 1, "provider_image": "m",
            "platform": "UBUNTU", "architecture": "I64", "budget": 1, "label": null, "keypair": null,
            "sealed_user_data": null, "groups": []}}))
        .expect("a launch"),
    }
}

fn call() -> impl Strategy<Value = Call> {
    let outcome = prop::sample::select(AttemptOutcome::ALL);
    let class = option::of(prop::sample::select(ErrorClass::ALL));
    (outcome, any::<bool>(), 1..10_i32, class, option::of(-100..100_i64))
        .prop_map(|(outcome, undo, n, class, quiet)| Call { outcome, undo, n, class, quiet })
}

type Watched = Option<(Option<Verdict>, i64)>;

fn watched() -> impl Strategy<Value = Watched> {
    option::of((option::of(prop::sample::select(Verdict::ALL)), -100..100_i64))
}

prop_compose! {
    fn history(me: Boot)(
        kind in prop::sample::select(JobKind::ALL),
        state in prop::sample::select(JobState::ALL),
        owner in prop::sample::select(vec![Owner::Nobody, Owner::Me, Owner::Other]),
        (cancel, undo_begun, made) in any::<(bool, bool, bool)>(),
        (deadline, due) in (-100..100_i64, option::of(-100..100_i64)),
        (crashes, try_no) in (0..8_i32, 1..3_i32),
        calls in prop::collection::vec(call(), 0..4),
        watched in watched(),
    ) -> History {
        let uid = JobUid::random();
        let second = |at: i64| Micros(NOW + at * 1_000_000);
        let mut history = samples::launch();
        let mut watch = history.watches.remove(0);
        let job = &mut history.job;
        *job = samples::job(uid);
        job.params = params(kind);
        job.state = state;
        job.owner = match owner { Owner::Nobody => None, Owner::Me => Some(me), Owner::Other => Some(Boot::random()) };
        job.cancel_by = cancel.then(|| "a person".to_owned());
        job.undo_begun = state == JobState::Undoing || state == JobState::Quarantined && undo_begun;
        job.resource = made.then(|| "i-1".to_owned());
        job.deadline = second(deadline);
        job.due_at = due.map(second);
        job.ended_at = state.is_end().then_some(Micros(NOW));
        (job.crashes, job.try_no) = (crashes, try_no);
        history.attempts = calls.into_iter().map(|call| {
            let mut attempt = samples::attempt(uid, call.n, 1, (NOW - 5_000_000, None));
            attempt.step = if call.undo { UNDO.to_owned() } else { step_of(kind).name.to_owned() };
            (attempt.outcome, attempt.class, attempt.try_no) = (call.outcome, call.class, try_no);
            attempt.quiet_until = call.quiet.map(second);
            attempt
        }).collect();
        history.watches.clear();
        if let Some((verdict, ends)) = watched {
            (watch.job, watch.try_no, watch.deadline) = (uid, 1, second(ends));
            watch.kind = WatchKind::Cloud;
            watch.done_at = verdict.map(|_| Micros(NOW));
            history.evidence = verdict.into_iter().map(|verdict| Evidence {
                subject: watch.uid.to_string(),
                source: "m".into(),
                job: uid,
                customer: watch.customer,
                verdict,
                text: "seen".into(),
                raw: String::new(),
                made_at: Micros(NOW),
            }).collect();
            history.watches.push(watch);
        }
        history
    }
}

fn class() -> impl Strategy<Value = TokenClass> {
    prop::sample::select(vec![TokenClass::K, TokenClass::S, TokenClass::T, TokenClass::N])
}

fn planned(history: &History, me: Boot, class: TokenClass) -> Plan {
    let quiet = Duration::from_secs(20);
    plan(&Facts {
        history,
        now: Micros(NOW),
        boot: me,
        promise: Some(Promise { class, quiet, token_kept: Duration::from_secs(60) }),
        limits: &Limits::default(),
        since: Micros(NOW - 60_000_000),
    })
}

fn me() -> Boot {
    "000102030405060708090a0b0c0d0e0f".parse().expect("a boot")
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn what_has_ended_or_is_anothers_is_left_alone(history in history(me()), class in class()) {
        let job = &history.job;
        let anothers = job.owner.is_some_and(|owner| owner != me());
        let left = planned(&history, me(), class) == Plan::Leave;
        prop_assert_eq!(left, job.ended_at.is_some() || anothers);
    }

    #[test]
    fn nothing_is_sent_or_ended_for_sure_while_a_call_is_open(history in history(me()), class in class()) {
        prop_assume!(history.attempts.iter().any(|a| a.outcome == AttemptOutcome::Open));
        match planned(&history, me(), class) {
            Plan::Send { .. } | Plan::Undo { .. } | Plan::BeginUndo { .. } | Plan::Withdraw { .. } => {
                prop_assert!(false, "moved on past an open call");
            }
            Plan::End(ending) => prop_assert_eq!(ending.state, JobState::Unresolved),
            _ => {}
        }
    }

    #[test]
    fn complete_needs_the_evidence_of_this_try_and_nobodys_cancel(history in history(me()), class in class()) {
        if let Plan::End(ending) = planned(&history, me(), class)
            && ending.state == JobState::Complete
        {
            prop_assert_eq!(history.job.state, JobState::Awaiting);
            // A command that had run when its cancel reached the guest has run.
            let command = history.job.params.kind() == JobKind::RunCommand;
            prop_assert!((history.job.cancel_by.is_none() || command) && !history.job.undo_begun);
            let verdict = verdict_of_this_try(&history);
            prop_assert_eq!(verdict.map(|e| e.verdict), Some(Verdict::Reached));
            prop_assert_eq!(history.watches[0].try_no, history.job.try_no);
        }
    }

    #[test]
    fn whoever_owns_a_job_has_something_to_do_with_it(mut history in history(me()), class in class()) {
        prop_assume!(!history.job.state.is_end());
        history.job.owner = Some(me());
        let plan = planned(&history, me(), class);
        prop_assert!(!matches!(plan, Plan::Leave | Plan::Rest | Plan::Claim(_)), "{plan:?}");
    }

    #[test]
    fn a_job_that_rests_has_a_time_or_a_watch_to_wake_it(mut history in history(me()), class in class()) {
        let job = &mut history.job;
        prop_assume!(!job.state.is_end());
        job.owner = None;
        // Every move that gives up the owner writes the time.
        job.due_at.get_or_insert(Micros(NOW));
        if planned(&history, me(), class) == Plan::Rest {
            let ahead = history.job.due_at.is_some_and(|at| at > Micros(NOW));
            let watched = history.watches.iter().any(|w| w.deadline > Micros(NOW));
            prop_assert!(ahead || watched || history.job.deadline > Micros(NOW), "{:?}", history.job);
        }
    }

    #[test]
    fn a_job_long_out_of_time_is_not_set_aside_again(mut history in history(me()), class in class()) {
        prop_assume!(!history.job.state.is_end());
        history.job.owner = Some(me());
        history.job.deadline = Micros(NOW - 120_000_000);
        for attempt in &mut history.attempts {
            attempt.quiet_until = None;
        }
        let plan = planned(&history, me(), class);
        prop_assert!(!matches!(plan, Plan::Quarantine { .. } | Plan::Send { .. } | Plan::Undo { .. }), "{plan:?}");
    }
}

//! Each fate and each next look, as a table.

use std::time::Duration;

use super::plan::{Fate, Limits, Sight, after_failure, recorded, taking};
use crate::cloud::{Machine, TokenClass};
use crate::model::{AccountId, JobId, JobState, JobUid, Micros, ObligationState, ServerId, ServerStatus};
use crate::store::provisioning::obligation::{Facts, ObligationRow, OfJob, OfServer, OfTaking};

const HOUR: Duration = Duration::from_secs(3600);
const LIMITS: Limits = Limits {
    later: HOUR,
    keep: Duration::from_secs(24 * 3600),
    again: Duration::from_secs(10),
    daily: Duration::from_secs(24 * 3600),
    take_back: HOUR,
    call: Duration::from_secs(60),
};
const QUIET: Duration = Duration::from_secs(120);
const END: Micros = Micros(1_000_000_000_000_000);

fn row(uid: JobUid) -> ObligationRow {
    ObligationRow {
        tag: format!("dispatcher-job={uid}.create"),
        job: uid.to_string(),
        customer: 1,
        account: 3,
        region: 4,
        state: "watched".to_owned(),
        owner: None,
        look_at: END.0,
        look_until: END.plus(LIMITS.keep).0,
        looks: 0,
        failures: 0,
        found: "[]".to_owned(),
        record: "[]".to_owned(),
        made_at: END.0,
        looked_at: None,
        closed_at: None,
        version: 1,
    }
}

fn machine(state: ServerStatus) -> Machine {
    Machine {
        id: "i-1".into(),
        state,
        tag: None,
        name: "web".into(),
        product: "p".into(),
        image: "m".into(),
        data_center: "d".into(),
        private_ip: None,
        public_ip: None,
        launched_at: END.plus(QUIET),
        raw: String::new(),
    }
}

fn job(state: JobState) -> OfJob {
    OfJob {
        id: JobId(17),
        account: AccountId(3),
        state,
        resource: None,
        name: "web".into(),
        person: 1,
        created_at: END.minus(HOUR),
        ended_at: state.is_end().then_some(END),
    }
}

fn fate(row: &ObligationRow, facts: &Facts, seen: &Machine, class: TokenClass) -> Fate {
    let now = END.plus(HOUR);
    Sight { row, facts, promise: (class, QUIET), limits: &LIMITS, now }.fate(seen)
}

#[test]
fn only_what_an_ended_job_left_and_nobody_owns_is_taken_back() {
    let uid = JobUid::random();
    let (row, running) = (row(uid), machine(ServerStatus::Running));
    let take = Fate::Take(taking(&row.tag, "i-1"));
    for state in JobState::ALL {
        let facts = Facts { job: Some(job(*state)), ..Facts::default() };
        let found = fate(&row, &facts, &running, TokenClass::T);
        match state {
            JobState::Failed | JobState::Cancelled | JobState::Unresolved => {
                assert_eq!(found, take, "{state}");
            }
            JobState::Complete => assert!(matches!(found, Fate::Report(_)), "{found:?}"),
            _ => assert_eq!(found, Fate::Open(JobId(17)), "{state}: an open job adopts by itself"),
        }
        assert_eq!(fate(&row, &facts, &machine(ServerStatus::Terminated), TokenClass::T), Fate::Gone);
        let owned = OfServer { id: ServerId(5), resource: "i-1".into(), gone: false };
        let facts = Facts { servers: vec![owned], ..facts };
        assert_eq!(fate(&row, &facts, &running, TokenClass::T), Fate::Owned(ServerId(5)), "{state}");
    }
    let second = OfJob { resource: Some("i-0".into()), ..job(JobState::Complete) };
    let facts = Facts { job: Some(second), ..Facts::default() };
    assert_eq!(fate(&row, &facts, &running, TokenClass::T), take, "a second one of a complete job");
}

#[test]
fn what_cannot_be_judged_is_reported() {
    let row = row(JobUid::random());
    let running = machine(ServerStatus::Running);
    let ended = || Facts { job: Some(job(JobState::Cancelled)), ..Facts::default() };
    let reported = |facts: &Facts, seen: &Machine, class, said: &str| match fate(&row, facts, seen, class) {
        Fate::Report(why) => assert!(why.contains(said), "{why}"),
        other => panic!("{said}: {other:?}"),
    };
    reported(&Facts::default(), &running, TokenClass::K, "restored");
    reported(&ended(), &running, TokenClass::N, "no tags");
    let copied = Machine { launched_at: END.plus(LIMITS.keep * 3), ..running.clone() };
    reported(&ended(), &copied, TokenClass::T, "copied");
    let older = Machine { launched_at: Micros(0), ..running.clone() };
    reported(&ended(), &older, TokenClass::T, "copied");
    let elsewhere = OfJob { account: AccountId(9), ..job(JobState::Failed) };
    reported(&Facts { job: Some(elsewhere), ..Facts::default() }, &running, TokenClass::T, "account 9");
    let kept = OfJob { resource: Some("i-1".into()), ..job(JobState::Unresolved) };
    reported(&Facts { job: Some(kept), ..Facts::default() }, &running, TokenClass::T, "kept it");
    let gone = OfServer { id: ServerId(5), resource: "i-1".into(), gone: true };
    reported(&Facts { servers: vec![gone], ..ended() }, &running, TokenClass::T, "server 5 was seen gone");
    let volume = ObligationRow { tag: row.tag.replace("create", "volume"), ..row.clone() };
    assert!(
        matches!(fate(&volume, &ended(), &running, TokenClass::T), Fate::Report(_)),
        "data is not taken back"
    );
}

#[test]
fn a_job_that_takes_back_is_waited_for_and_reported_when_it_could_not() {
    let row = row(JobUid::random());
    let running = machine(ServerStatus::Running);
    let of = |state: JobState, ended_at| Facts {
        job: Some(job(JobState::Failed)),
        takings: vec![OfTaking { uid: taking(&row.tag, "i-1"), id: JobId(20), state, ended_at }],
        ..Facts::default()
    };
    let late = END.plus(HOUR);
    let found = |facts: &Facts| fate(&row, facts, &running, TokenClass::S);
    assert_eq!(found(&of(JobState::Running, None)), Fate::Taking(JobId(20)));
    assert_eq!(found(&of(JobState::Complete, Some(late.minus(QUIET / 2)))), Fate::Taking(JobId(20)));
    assert!(matches!(found(&of(JobState::Complete, Some(END))), Fate::Report(_)));
    for state in [JobState::Failed, JobState::Cancelled, JobState::Unresolved] {
        assert!(matches!(found(&of(state, Some(late))), Fate::Report(_)), "{state}: no second try by itself");
    }
}

#[test]
fn it_looks_at_half_of_q_at_q_later_and_last_and_closes_only_then() {
    let (row, facts) = (row(JobUid::random()), Facts::default());
    let at = |now| Sight { row: &row, facts: &facts, promise: (TokenClass::S, QUIET), limits: &LIMITS, now };
    let mut looks = Vec::new();
    let mut now = END;
    while let (ObligationState::Watched, next) = at(now).next(&[]) {
        looks.push(next.since(END));
        now = next;
    }
    assert_eq!(looks, [QUIET / 2, QUIET, HOUR, LIMITS.keep]);
    let owned = [Fate::Owned(ServerId(1)), Fate::Gone];
    assert_eq!(at(now).next(&owned).0, ObligationState::Closed);
    let (state, next) = at(now).next(&[Fate::Taking(JobId(1)), Fate::Report(String::new())]);
    assert_eq!((state, next), (ObligationState::TakingBack, now.plus(LIMITS.again)), "until it is seen gone");
    let (state, next) = at(now).next(&[Fate::Report(String::new())]);
    assert_eq!((state, next), (ObligationState::NeedsYou, now.plus(LIMITS.daily)));
    assert_eq!(
        at(now).next(&[Fate::Open(JobId(1))]).0,
        ObligationState::Watched,
        "never closed for an open job"
    );
}

#[test]
fn a_look_that_fails_decides_nothing_is_repeated_and_in_the_end_reported() {
    let mut row = row(JobUid::random());
    let first = after_failure(&row, &LIMITS, END, "no route");
    assert_eq!((first.state, first.look_at), (ObligationState::Watched, END.plus(LIMITS.again)));
    row.failures = 30;
    let late = after_failure(&row, &LIMITS, END, "no route");
    assert_eq!((late.state, late.look_at), (ObligationState::Watched, END.plus(LIMITS.later)));
    let over = Micros(row.look_until);
    assert_eq!(after_failure(&row, &LIMITS, over, "no route").state, ObligationState::NeedsYou);
    assert!(!first.answered && first.found.is_none() && first.record.contains("no route"));
}

#[test]
fn a_record_keeps_its_ends() {
    let mut record = String::from("[]");
    for n in 0..100 {
        record = recorded(&record, Micros(n), ("absent", true));
        record = recorded(&record, Micros(n), ("cannot look", false));
        record = recorded(&record, Micros(n), ("cannot look", false));
    }
    let entries: Vec<serde_json::Value> = serde_json::from_str(&record).expect("a list");
    assert_eq!(entries.len(), 32);
    assert_eq!((&entries[0]["at"], &entries[31]["at"]), (&0.into(), &99.into()));
}

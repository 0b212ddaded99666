//! Limits of accounts: places and paces under claims of two nodes, their lines, and what a crash leaves.

use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use futures_util::future::join_all;

use super::provisioning::accept::{self, Entry, Submit};
use super::provisioning::job::{self, JobRow};
use super::provisioning::limit::{self, Wish};
use super::provisioning::node;
use super::provisioning::schema::{job as jobs, job_limit, turn};
use super::provisioning::transition::{self, Claim, End, Fence, Kin, Waiting};
use super::testing::{Bed, on_both};
use super::{PROVISIONING, Settings, Store};
use crate::model::{
    AccountId, Boot, CommandParams, CustomerId, Epoch, Generation, JobId, JobParams, JobState, JobUid,
    Micros, NoopParams, ServerId, Uid, UserId,
};

pub(super) const ACCOUNT: AccountId = AccountId(7);
pub(super) const CUSTOMER: CustomerId = CustomerId(1);

/// Two nodes on one database.
pub(super) struct House {
    pub(super) nodes: [(Store, Boot); 2],
    _bed: Bed,
}

impl House {
    pub(super) async fn new(bed: Bed) -> Self {
        let open = || {
            let settings = Settings::new(bed.manager());
            Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database")
        };
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let (store, boot) = (open(), Boot::random());
            store.write(move |c| node::register(c, boot, "test")).await.expect("alive");
            nodes.push((store, boot));
        }
        let nodes: [(Store, Boot); 2] = nodes.try_into().ok().expect("two");
        Self { nodes, _bed: bed }
    }

    pub(super) fn store(&self) -> &Store {
        &self.nodes[0].0
    }

    async fn queued(&self, id: i64, priority: i32) -> JobUid {
        let submit = Submit { priority, ..wish(id, JobParams::Noop(NoopParams::default())) };
        self.accepted(submit).await
    }

    pub(super) async fn accepted(&self, submit: Submit) -> JobUid {
        let uid = submit.uid;
        self.store().write(move |c| accept::accept(c, &submit)).await.expect("accepted");
        uid
    }

    pub(super) async fn row(&self, uid: JobUid) -> JobRow {
        self.store().read(move |c| job::by_uid(c, uid)).await.expect("a read").expect("the job")
    }

    /// Claims a job as it is now, as one node; whether it has it, and who was called.
    pub(super) async fn claim(&self, node: usize, uid: JobUid) -> (bool, Vec<String>) {
        let row = self.row(uid).await;
        let from: JobState = row.state.parse().expect("a state");
        let seen = Fence { job: uid, epoch: Epoch(row.epoch) };
        let (store, boot) = &self.nodes[node];
        let claim =
            Claim { seen, next: Epoch(row.epoch + 1), from, to: JobState::Running, boot: *boot, crashes: 0 };
        store
            .write(move |c| {
                let mut called = Vec::new();
                Ok((transition::claim_calling(c, &claim, &mut called)?, called))
            })
            .await
            .expect("a claim")
    }

    /// Ends a job in this state, with or without what follows from it.
    pub(super) async fn end(
        &self,
        node: usize,
        uid: JobUid,
        (state, follows): (JobState, bool),
    ) -> Vec<String> {
        let row = self.row(uid).await;
        let end = End {
            fence: Fence { job: uid, epoch: Epoch(row.epoch) },
            state,
            try_no: 1,
            message: "m".into(),
            code: "c".into(),
            server: None,
            seen: None,
            obligation: None,
            kin: Kin { limited: row.limited, parent: row.parent.map(JobId) },
            cancel_known: false,
        };
        let done = self.nodes[node].0.write(move |c| {
            if state == JobState::Complete {
                let awaits = (jobs::state.eq("awaiting"), jobs::owner.eq(None::<String>));
                diesel::update(jobs::table.find(uid.to_string())).set(awaits).execute(c)?;
            }
            assert!(transition::end(c, &end)?, "it ends");
            if follows { transition::follow(c, &end) } else { Ok(Vec::new()) }
        });
        done.await.expect("an end")
    }

    async fn limit(&self, kind: &'static str, together: Option<i32>, pace: Option<(i32, i32, i32)>) {
        let wish = Wish { together, pace, made_by: "ann".into(), reason: String::new() };
        let set = self.store().write(move |c| {
            let row = limit::set(c, (CUSTOMER, ACCOUNT, kind), &wish)?;
            transition::limit_set(c, &row)
        });
        set.await.expect("set");
    }

    async fn at_work(&self) -> i64 {
        let states: Vec<&str> = limit::AT_WORK.iter().map(|state| state.as_str()).collect();
        self.store()
            .read(move |c| jobs::table.filter(jobs::state.eq_any(states.clone())).count().get_result(c))
            .await
            .expect("a count")
    }

    async fn look_over(&self) -> Vec<String> {
        self.store().write(|c| transition::look_over(c, ACCOUNT.0)).await.expect("looked over")
    }

    async fn turns(&self) -> i64 {
        self.store().read(|c| turn::table.count().get_result(c)).await.expect("a count")
    }
}

pub(super) fn wish(id: i64, params: JobParams) -> Submit {
    Submit {
        entry: Entry {
            customer: CUSTOMER,
            access_key: "AK".into(),
            request: Uid::random(),
            replay: None,
            idem: None,
            repeat_by_key: false,
        },
        uid: JobUid::random(),
        id: JobId(id),
        account: ACCOUNT,
        person: UserId(1),
        params,
        description: "a job".into(),
        priority: 0,
        delay: Duration::ZERO,
        limit: Duration::from_secs(60),
        server: None,
    }
}

on_both!(
    claims_of_two_nodes_never_pass_the_limit_and_everybody_has_a_turn,
    the_most_urgent_is_called_first_and_nobody_overtakes_who_was_called,
    who_is_set_aside_gives_the_place_up_and_a_cancel_always_passes,
    a_full_kind_holds_no_other_kind_up,
    a_pace_calls_the_first_in_line_for_the_time_of_the_next_start,
    throttling_is_learned_told_shared_and_forgotten,
    a_limit_counts_what_was_at_work_before_it_and_lets_go_when_it_is_cleared,
    what_a_crash_left_is_put_in_order_by_the_sweep,
    a_job_that_a_pause_takes_out_of_the_line_is_no_hindrance,
    without_a_limit_nothing_is_written,
);

async fn claims_of_two_nodes_never_pass_the_limit_and_everybody_has_a_turn(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(3), None).await;
    let mut all = Vec::new();
    for id in 0..24 {
        all.push(house.queued(100 + id, 0).await);
    }
    let mut order = Vec::new();
    for _ in 0..60 {
        // Both nodes want every job at the same moment.
        let wants = all.iter().flat_map(|uid| [house.claim(0, *uid), house.claim(1, *uid)]);
        let got = join_all(wants).await.into_iter().filter(|(got, _)| *got).count();
        let at_work = house.at_work().await;
        assert!(at_work <= 3, "{at_work} at work");
        let mut open = Vec::new();
        for uid in &all {
            let row = house.row(*uid).await;
            match row.state.as_str() {
                "running" => open.push((*uid, row.id)),
                _ => assert!(row.due_at.is_none() || row.ended_at.is_none(), "{row:?}"),
            }
        }
        assert!(got > 0 && at_work == 3.min(i64::try_from(all.len()).expect("few")), "no place stays empty");
        order.extend(open.iter().map(|(_, id)| *id));
        let ends =
            open.iter().enumerate().map(|(n, (uid, _))| house.end(n % 2, *uid, (JobState::Failed, true)));
        join_all(ends).await;
        all.retain(|uid| !open.iter().any(|(ended, _)| ended == uid));
        if all.is_empty() {
            break;
        }
    }
    assert!(all.is_empty(), "all had their turn");
    assert_eq!(order.len(), 24);
    assert_eq!(house.turns().await, 0, "nothing is left behind");
}

async fn the_most_urgent_is_called_first_and_nobody_overtakes_who_was_called(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(1), None).await;
    let first = house.queued(1, 0).await;
    let (old, young) = (house.queued(2, 0).await, house.queued(3, 0).await);
    let urgent = house.queued(4, 5).await;
    assert!(house.claim(0, first).await.0);
    for uid in [young, old, urgent] {
        assert!(!house.claim(1, uid).await.0);
    }
    let row = house.row(young).await;
    assert_eq!((row.due_at, row.why_code.as_str(), row.state.as_str()), (None, "limit", "queued"));
    assert_eq!(
        row.why, "account 7 has 1 of 1 jobs at work; this one is next",
        "as it was when it was put there"
    );
    let told = house.store().read(move |c| transition::why_now(c, &young.to_string())).await.expect("a read");
    assert_eq!(told.expect("it waits").1, "account 7 has 1 of 1 jobs at work; 2 before this one");
    let waited = house.row(urgent).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(house.end(0, first, (JobState::Complete, true)).await, [urgent.to_string()]);
    let row = house.row(urgent).await;
    assert!(row.due_at.is_some() && row.why_code == "dispatch");
    assert!(row.deadline >= waited.deadline + 20_000, "what it waited in line does not count");
    // One that comes now finds the place free and yet taken.
    let newcomer = house.queued(5, 0).await;
    assert!(!house.claim(1, newcomer).await.0 && !house.claim(0, old).await.0);
    assert!(house.claim(0, urgent).await.0);
    assert_eq!(house.end(0, urgent, (JobState::Complete, true)).await, [old.to_string()]);
    // A more urgent one may still go first; who was called goes back in line and is called again.
    let more_urgent = house.queued(6, 9).await;
    assert!(house.claim(1, more_urgent).await.0);
    assert!(!house.claim(0, old).await.0);
    assert_eq!(house.end(1, more_urgent, (JobState::Failed, true)).await, [old.to_string()]);
}

async fn who_is_set_aside_gives_the_place_up_and_a_cancel_always_passes(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(1), None).await;
    let (first, second, third) =
        (house.queued(1, 0).await, house.queued(2, 0).await, house.queued(3, 0).await);
    assert!(house.claim(0, first).await.0);
    assert!(!house.claim(0, second).await.0 && !house.claim(0, third).await.0);
    let fence = Fence { job: first, epoch: Epoch(1) };
    let waiting = Waiting { until: Micros::wall(), code: "late-create".into(), why: "w".into() };
    let called = house.store().write(move |c| {
        assert!(transition::quarantine(c, fence, &waiting, None)?);
        transition::follow_aside(c, first)
    });
    assert_eq!(called.await.expect("set aside"), [second.to_string()]);
    assert!(house.claim(1, second).await.0);
    assert!(house.claim(0, first).await.0, "what may have made something comes back whatever is at work");
    assert_eq!(house.at_work().await, 2);
    // The limit counts it again: nobody begins until both are over.
    assert!(house.end(0, first, (JobState::Failed, true)).await.is_empty());
    let asked = house.store().write(move |c| transition::cancel_asked(c, third, "bob")).await;
    assert!(asked.expect("asked"));
    assert!(house.claim(1, third).await.0, "a cancelled job passes, to end");
    house.end(1, third, (JobState::Cancelled, true)).await;
    house.end(1, second, (JobState::Complete, true)).await;
    assert_eq!(house.turns().await, 0);
}

async fn a_full_kind_holds_no_other_kind_up(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(3), None).await;
    house.limit("run-command", Some(1), None).await;
    let run = |id| {
        let params = CommandParams { server: ServerId(1), argv: vec!["x".into()], timeout_secs: 1 };
        house.accepted(wish(id, JobParams::RunCommand(params)))
    };
    let (one, two, three) = (run(1).await, run(2).await, run(3).await);
    assert!(house.claim(0, one).await.0 && !house.claim(1, two).await.0 && !house.claim(1, three).await.0);
    assert_eq!(house.row(two).await.why, "account 7 has 1 of 1 run-command jobs at work; this one is next");
    let (other, another, last) =
        (house.queued(4, 0).await, house.queued(5, 0).await, house.queued(6, 0).await);
    assert!(house.claim(0, other).await.0 && house.claim(1, another).await.0);
    assert!(!house.claim(1, last).await.0, "now the account is full");
    assert_eq!(
        house.end(0, other, (JobState::Complete, true)).await,
        [last.to_string()],
        "not the full kind"
    );
    assert_eq!(house.end(0, one, (JobState::Complete, true)).await, [two.to_string()]);
}

async fn a_pace_calls_the_first_in_line_for_the_time_of_the_next_start(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", None, Some((1, 60, 2))).await;
    let mut uids = Vec::new();
    for id in 1..=4 {
        uids.push(house.queued(id, 0).await);
    }
    assert!(house.claim(0, uids[0]).await.0 && house.claim(1, uids[1]).await.0);
    assert!(!house.claim(0, uids[2]).await.0 && !house.claim(1, uids[3]).await.0);
    let (next, after) = (house.row(uids[2]).await, house.row(uids[3]).await);
    assert_eq!((next.why_code.as_str(), after.why_code.as_str()), ("rate", "rate"));
    assert_eq!(next.why, "account 7 starts 1 jobs in 60 s; this one is next");
    assert_eq!(after.why, "account 7 starts 1 jobs in 60 s; 1 before this one");
    let due = next.due_at.expect("it is called ahead of time");
    let wait = due - next.changed_at;
    assert!((55_000_000..=60_000_000).contains(&wait), "{wait}");
    assert_eq!(after.due_at, None, "nobody is woken in vain");
    // Time passes: the bucket fills.
    let past = house
        .store()
        .write(|c| diesel::update(job_limit::table).set(job_limit::spent_until.eq(0)).execute(c));
    past.await.expect("written");
    let (begun, called) = house.claim(0, uids[2]).await;
    assert!(begun);
    assert_eq!(called, [uids[3].to_string()], "who begins calls the next");
    assert!(house.row(uids[3]).await.due_at.is_some());
}

async fn throttling_is_learned_told_shared_and_forgotten(bed: Bed) {
    let house = House::new(bed).await;
    let teach = |node: usize, wait| {
        let store = house.nodes[node].0.clone();
        async move { store.write(move |c| limit::throttled(c, (CUSTOMER, ACCOUNT), wait)).await.expect("learned") }
    };
    teach(0, None).await;
    // A crowd of answers is one lesson, whichever node hears them.
    teach(1, None).await;
    let row = house.store().read(|c| limit::of_account(c, ACCOUNT.0)).await.expect("a read").remove(0);
    assert_eq!((row.learned_rate, row.is_set()), (Some(8000), false));
    let (one, two) = (house.queued(1, 0).await, house.queued(2, 0).await);
    assert!(house.claim(0, one).await.0);
    // However slow this test is, the next start is not free yet.
    let spent = house
        .store()
        .write(|c| diesel::update(job_limit::table).set(job_limit::spent_until.eq(i64::MAX / 4)).execute(c));
    spent.await.expect("written");
    assert!(!house.claim(1, two).await.0);
    let why = house.row(two).await.why;
    assert!(why.starts_with("the provider throttled account 7 at 20"), "{why}");
    assert!(why.ends_with("; 8 calls a second for now; this one is next"), "{why}");
    teach(0, Some(Duration::from_secs(90))).await;
    let three = house.queued(3, 0).await;
    assert!(!house.claim(0, three).await.0);
    let why = house.row(three).await.why;
    assert!(why.contains("and wants no call before 20") && why.ends_with("; 1 before this one"), "{why}");
    // Later.
    let past = house.store().write(|c| {
        let long_ago = (job_limit::learned_at.eq(Some(0)), job_limit::retry_at.eq(None::<i64>));
        diesel::update(job_limit::table).set(long_ago).execute(c)
    });
    past.await.expect("written");
    let called = house.look_over().await;
    assert!(called.contains(&three.to_string()), "{called:?}");
    assert!(house.store().read(|c| limit::of_account(c, ACCOUNT.0)).await.expect("a read").is_empty());
    assert!(house.claim(0, two).await.0 && house.claim(1, three).await.0);
    for uid in [one, two, three] {
        house.end(0, uid, (JobState::Complete, true)).await;
    }
    house.look_over().await;
    assert_eq!(house.turns().await, 0);
}

async fn a_limit_counts_what_was_at_work_before_it_and_lets_go_when_it_is_cleared(bed: Bed) {
    let house = House::new(bed).await;
    let (one, two) = (house.queued(1, 0).await, house.queued(2, 0).await);
    assert!(house.claim(0, one).await.0 && house.claim(1, two).await.0);
    house.limit("", Some(2), None).await;
    let (three, four) = (house.queued(3, 0).await, house.queued(4, 0).await);
    assert!(!house.claim(0, three).await.0 && !house.claim(0, four).await.0);
    assert_eq!(house.end(1, one, (JobState::Complete, true)).await, [three.to_string()], "it was counted");
    house.limit("", Some(3), None).await;
    assert!(house.row(four).await.due_at.is_some(), "a wider limit calls at once");
    house.limit("", Some(1), None).await;
    assert!(!house.claim(0, three).await.0, "a narrower one holds who has not begun");
    let cleared = house.store().write(|c| {
        assert!(!limit::remove(c, (CustomerId(2), ACCOUNT, ""))?, "another tenant's");
        assert!(limit::remove(c, (CUSTOMER, ACCOUNT, ""))?);
        transition::limit_gone(c, ACCOUNT.0)
    });
    assert!(cleared.await.expect("cleared").contains(&three.to_string()));
    assert!(house.claim(0, three).await.0 && house.claim(0, four).await.0);
}

async fn what_a_crash_left_is_put_in_order_by_the_sweep(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(1), None).await;
    let (one, two, three) = (house.queued(1, 0).await, house.queued(2, 0).await, house.queued(3, 0).await);
    assert!(house.claim(0, one).await.0 && !house.claim(0, two).await.0 && !house.claim(0, three).await.0);
    // An end of which nobody was told.
    assert!(house.end(0, one, (JobState::Complete, false)).await.is_empty());
    let accounts = house.store().read(transition::limited_accounts).await.expect("a read");
    assert_eq!(accounts, [ACCOUNT.0]);
    assert_eq!(house.look_over().await, [two.to_string()]);
    assert!(house.look_over().await.is_empty(), "who was called is not called again");
    assert!(house.claim(1, two).await.0);
    // Its life is declared dead: whoever takes over holds the place, and it is one.
    let dead = house.nodes[1].1;
    let me = house.nodes[0].1;
    let taken = house.store().write(move |c| {
        diesel::sql_query(format!("UPDATE node SET state = 'dead' WHERE boot = '{dead}'")).execute(c)?;
        transition::take_over(c, me, Generation::default(), 10)
    });
    assert_eq!(taken.await.expect("taken over"), [two.to_string()]);
    assert!(!house.claim(0, three).await.0);
    assert_eq!(house.end(0, two, (JobState::Unresolved, true)).await, [three.to_string()]);
    // A row of the line without its job's wish: the job began on the way past the limit.
    let lost = house.store().write(|c| diesel::delete(turn::table).execute(c));
    lost.await.expect("lost");
    assert!(house.claim(0, three).await.0, "a queued job asks for itself");
}

async fn a_job_that_a_pause_takes_out_of_the_line_is_no_hindrance(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("", Some(1), None).await;
    let first = house.queued(1, 0).await;
    let params = CommandParams { server: ServerId(1), argv: vec!["x".into()], timeout_secs: 1 };
    let run = house.accepted(wish(2, JobParams::RunCommand(params))).await;
    let last = house.queued(3, 0).await;
    assert!(house.claim(0, first).await.0 && !house.claim(0, run).await.0 && !house.claim(0, last).await.0);
    assert_eq!(house.end(0, first, (JobState::Complete, true)).await, [run.to_string()]);
    let paused = house.store().write(|c| {
        let row = super::provisioning::pause::PauseRow {
            id: 1,
            customer: CUSTOMER.0,
            kind: Some("run-command".into()),
            account: None,
            made_by: "ann".into(),
            reason: String::new(),
            made_at: 0,
        };
        super::provisioning::pause::insert(c, &row)
    });
    paused.await.expect("paused");
    let (begun, called) = house.claim(1, run).await;
    assert!(!begun);
    assert_eq!(called, [last.to_string()], "its turn goes to the next");
    assert_eq!(house.row(run).await.why_code, "pause");
    assert!(house.claim(1, last).await.0);
}

async fn without_a_limit_nothing_is_written(bed: Bed) {
    let house = House::new(bed).await;
    house.limit("run-command", Some(1), None).await;
    let uid = house.queued(1, 0).await;
    assert_eq!(house.claim(0, uid).await, (true, Vec::new()), "another kind's limit is none");
    assert!(!house.row(uid).await.limited);
    assert!(house.end(0, uid, (JobState::Complete, true)).await.is_empty());
    assert_eq!(house.turns().await, 0);
}

//! Groups: accepted as a whole, in step with their children's ends on two nodes, and mended after a crash.

use diesel::prelude::*;

use super::limit_tests::{House, wish};
use super::provisioning::accept::{Accepted, IdemKey, Submit};
use super::provisioning::group;
use super::provisioning::job::History;
use super::provisioning::schema::{child, evidence, job as jobs};
use super::provisioning::transition::{self, Fence};
use super::provisioning::{job, watch};
use super::testing::{Bed, on_both};
use crate::model::{Epoch, GroupParams, JobParams, JobState, JobUid, NoopParams, Verdict, WatchUid};

/// A group with its children, not accepted yet.
struct Family {
    group: Submit,
    children: Vec<Submit>,
    watch: WatchUid,
}

impl Family {
    fn of(children: u32, together: Option<u32>, stop_on_failure: bool) -> Self {
        let params = GroupParams { children, together, stop_on_failure, retry_of: None };
        let noop = |n: u32| wish(i64::from(101 + n), JobParams::Noop(NoopParams::default()));
        Self {
            group: wish(100, JobParams::Group(params)),
            children: (0..children).map(noop).collect(),
            watch: WatchUid::random(),
        }
    }

    fn uid(&self, n: usize) -> JobUid {
        self.children[n].uid
    }

    async fn accepted(&self, house: &House) -> Result<Accepted, super::Error> {
        let (group, children, watch) = (self.group.clone(), self.children.clone(), self.watch);
        house.store().write(move |c| group::accept(c, &group, &children, watch)).await
    }

    async fn history(&self, house: &House) -> History {
        let uid = self.group.uid;
        house.store().read(move |c| job::history(c, uid)).await.expect("a read").expect("the group")
    }

    async fn end(&self, house: &House, n: usize, state: JobState) -> Vec<String> {
        assert!(house.claim(n % 2, self.uid(n)).await.0, "child {n} begins");
        house.end(n % 2, self.uid(n), (state, true)).await
    }
}

on_both!(
    a_group_is_accepted_as_a_whole_or_not_at_all_and_once,
    the_last_child_to_end_writes_the_verdict_on_whichever_node,
    children_follow_one_another_where_only_some_may_be_open,
    a_failed_child_stops_those_that_have_not_begun,
    a_cancel_of_the_group_is_one_of_its_open_children,
    ends_of_which_a_crash_told_nobody_are_found_by_the_sweep,
);

async fn a_group_is_accepted_as_a_whole_or_not_at_all_and_once(bed: Bed) {
    let house = House::new(bed).await;
    let taken = house.accepted(wish(103, JobParams::Noop(NoopParams::default()))).await;
    let mut family = Family::of(4, None, false);
    family.group.entry.idem = Some(IdemKey { key: "k".into(), body_hash: "h".into() });
    assert!(family.accepted(&house).await.is_err(), "one of its numbers is another's");
    let rows: (i64, i64) = house
        .store()
        .read(|c| Ok((jobs::table.count().get_result(c)?, child::table.count().get_result(c)?)))
        .await
        .expect("counts");
    assert_eq!(rows, (1, 0), "nothing of it stays");
    house.claim(0, taken).await;
    family.children[2].id = crate::model::JobId(200);
    assert!(matches!(family.accepted(&house).await, Ok(Accepted::Stored(_))));
    assert!(matches!(family.accepted(&house).await, Ok(Accepted::Stored(_))), "its commit was unknown");
    let mut again = Family::of(4, None, false);
    again.group.entry.idem.clone_from(&family.group.entry.idem);
    let Ok(Accepted::Same(first)) = again.accepted(&house).await else { panic!("made twice") };
    assert_eq!(first.job, Some(family.group.uid));
    let found = house.store().read(|c| group::children(c, 100, group::Which::All, 10)).await.expect("a read");
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [101, 102, 104, 200]);
    assert!(found.iter().all(|row| row.parent == Some(100) && row.due_at.is_some()));
    let history = family.history(&house).await;
    assert_eq!((history.job.state, history.watches.len()), (JobState::Awaiting, 1));
    assert_eq!(history.job.why, "0 of 4 children have ended");
}

async fn the_last_child_to_end_writes_the_verdict_on_whichever_node(bed: Bed) {
    let house = House::new(bed).await;
    for round in 0..5 {
        let mut family = Family::of(4, None, false);
        let number = |n: i64| crate::model::JobId(1000 * (round + 1) + n);
        family.group.id = number(0);
        for (n, child) in (1..).zip(&mut family.children) {
            child.id = number(n);
        }
        assert!(matches!(family.accepted(&house).await, Ok(Accepted::Stored(_))));
        assert!(family.end(&house, 0, JobState::Complete).await.is_empty());
        assert_eq!(family.history(&house).await.job.why, "1 of 4 children have ended");
        for n in [1, 2, 3] {
            assert!(house.claim(n % 2, family.uid(n)).await.0);
        }
        let ends = [(1, JobState::Failed), (2, JobState::Complete), (3, JobState::Unresolved)];
        let told = futures_util::future::join_all(
            ends.iter().map(|(n, state)| house.end(n % 2, family.uid(*n), (*state, true))),
        );
        let told: Vec<String> = told.await.into_iter().flatten().collect();
        assert_eq!(told, [family.group.uid.to_string()], "the last one, and only that, calls the group");
        let history = family.history(&house).await;
        let seen: Vec<_> = history.evidence.iter().map(|e| (e.verdict, e.text.as_str())).collect();
        assert_eq!(seen, [(Verdict::Unknown, "2 complete, 1 failed, 1 outcome unknown")]);
        let raw: serde_json::Value = serde_json::from_str(&history.evidence[0].raw).expect("JSON");
        assert_eq!(raw["notComplete"].as_array().map(Vec::len), Some(2), "{raw}");
        assert_eq!(
            (&raw["notComplete"][0]["id"], &raw["notComplete"][0]["state"]),
            (&number(2).0.into(), &"failed".into())
        );
        assert!(history.watches[0].done_at.is_some());
        let needs = house.store().read(|c| transition::needing_an_actor(c, 100)).await.expect("a read");
        assert!(needs.contains(&family.group.uid.to_string()), "the sweep finds it without a nudge");
    }
}

async fn children_follow_one_another_where_only_some_may_be_open(bed: Bed) {
    let house = House::new(bed).await;
    let mut family = Family::of(5, Some(2), false);
    family.children[4].priority = 9;
    family.accepted(&house).await.expect("accepted");
    let waits = |n: usize| {
        let (house, uid) = (&house, family.uid(n));
        async move {
            let row = house.row(uid).await;
            row.due_at.is_none() && row.why_code == group::WAITS_TURN
        }
    };
    let mut waiting = Vec::new();
    for n in 0..5 {
        waiting.push(waits(n).await);
    }
    assert_eq!(waiting, [false, true, true, true, false], "the most urgent and the first begin");
    assert_eq!(family.end(&house, 4, JobState::Complete).await, [family.uid(1).to_string()]);
    assert!(!waits(1).await && waits(2).await);
    assert_eq!(family.end(&house, 0, JobState::Failed).await, [family.uid(2).to_string()]);
    assert_eq!(family.end(&house, 1, JobState::Complete).await, [family.uid(3).to_string()]);
    assert!(family.end(&house, 2, JobState::Complete).await.is_empty());
    assert_eq!(family.end(&house, 3, JobState::Complete).await, [family.group.uid.to_string()]);
}

async fn a_failed_child_stops_those_that_have_not_begun(bed: Bed) {
    let house = House::new(bed).await;
    let family = Family::of(4, None, true);
    family.accepted(&house).await.expect("accepted");
    assert!(house.claim(1, family.uid(1)).await.0);
    let called = family.end(&house, 0, JobState::Failed).await;
    assert_eq!(called, [family.uid(2).to_string(), family.uid(3).to_string()]);
    assert_eq!(house.row(family.uid(1)).await.cancel_by, None, "what began is left to end");
    assert_eq!(house.row(family.uid(2)).await.cancel_by.as_deref(), Some("group 100: child 101 is failed"));
    house.end(1, family.uid(1), (JobState::Complete, true)).await;
    family.end(&house, 2, JobState::Cancelled).await;
    assert_eq!(family.end(&house, 3, JobState::Cancelled).await, [family.group.uid.to_string()]);
    let seen = family.history(&house).await.evidence.remove(0);
    assert_eq!((seen.verdict, seen.text.as_str()), (Verdict::Failed, "1 complete, 1 failed, 2 cancelled"));
}

async fn a_cancel_of_the_group_is_one_of_its_open_children(bed: Bed) {
    let house = House::new(bed).await;
    let family = Family::of(3, Some(1), false);
    family.accepted(&house).await.expect("accepted");
    family.end(&house, 0, JobState::Complete).await;
    let uid = family.group.uid;
    let asked = house.store().write(move |c| {
        assert!(transition::cancel_asked(c, uid, "ann")?);
        transition::cancel_children(c, uid, "ann, with group 100")
    });
    assert_eq!(asked.await.expect("asked"), [family.uid(1).to_string(), family.uid(2).to_string()]);
    let row = house.row(family.uid(2)).await;
    assert_eq!(row.cancel_by.as_deref(), Some("ann, with group 100"));
    assert!(row.due_at.is_some(), "one that waited for its turn ends at once");
    assert_eq!(house.row(family.uid(0)).await.cancel_by, None, "an ended one is left alone");
    // What the group's own actor does; it may come twice, and late.
    let (_, boot) = house.nodes[0];
    let fence = Fence { job: uid, epoch: Epoch(1) };
    let claimed = house.store().write(move |c| {
        let seen = Fence { job: uid, epoch: Epoch(0) };
        let claim = transition::Claim {
            seen,
            next: Epoch(1),
            from: JobState::Awaiting,
            to: JobState::Awaiting,
            boot,
            crashes: 0,
        };
        assert!(transition::claim(c, &claim)?);
        transition::call_off(c, (fence, boot), "ann", ("cancel-sent", "w"))
    });
    assert_eq!(claimed.await.expect("called off"), Some(Vec::new()), "its children know already");
    let row = house.row(uid).await;
    assert_eq!((row.owner, row.due_at, row.state.as_str()), (None, None, "awaiting"));
    family.end(&house, 1, JobState::Cancelled).await;
    assert_eq!(family.end(&house, 2, JobState::Cancelled).await, [uid.to_string()]);
}

async fn ends_of_which_a_crash_told_nobody_are_found_by_the_sweep(bed: Bed) {
    let house = House::new(bed).await;
    let family = Family::of(3, Some(1), false);
    family.accepted(&house).await.expect("accepted");
    let unfinished =
        || async { house.store().read(|c| transition::unfinished_groups(c, 10)).await.expect("a read") };
    let mend = || async {
        let mended = house.store().write(|c| {
            let mut called = Vec::new();
            transition::mend(c, 100, &mut called)?;
            Ok(called)
        });
        mended.await.expect("mended")
    };
    assert!(unfinished().await.is_empty());
    for n in 0..3 {
        assert!(house.claim(0, family.uid(n)).await.0, "child {n}");
        house.end(0, family.uid(n), (JobState::Complete, false)).await;
        assert_eq!(unfinished().await, [100]);
        let next = if n < 2 { family.uid(n + 1) } else { family.group.uid };
        assert_eq!(mend().await, [next.to_string()]);
        mend().await;
    }
    assert!(unfinished().await.is_empty(), "it has its verdict");
    let rows: i64 = house.store().read(|c| evidence::table.count().get_result(c)).await.expect("a count");
    assert_eq!(rows, 1, "however often it was mended");
    let open = house.store().read(|c| watch::open(c, crate::model::WatchKind::Children, 10)).await;
    assert!(open.expect("a read").is_empty());
}

//! Limits and groups with everything that runs in a process: who is refused is called, and a group ends by its children.

use std::time::{Duration, Instant};

use super::tests::{House, house};
use super::{ClearLimit, SetLimit, SubmitGroup};
use crate::model::{
    AccountId, CustomerId, GroupParams, JobId, JobParams, JobUid, Micros, NoopParams, Uid, UserId, Verdict,
};
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::job::{Evidence, JobRow};
use crate::store::provisioning::limit::Wish;
use crate::store::provisioning::{job, transition, watch};
use crate::store::testing::{Bed, on_both};

on_both!(
    who_gets_no_place_is_called_when_one_is_free_and_a_cleared_limit_holds_nobody,
    a_group_ends_complete_when_its_children_have_one_after_the_other,
    a_cancelled_group_ends_cancelled_when_nothing_of_it_is_open,
    a_group_whose_time_is_over_asks_its_children_to_end_and_has_failed,
);

fn entry() -> Entry {
    Entry {
        customer: CustomerId(1),
        access_key: "AK".into(),
        request: Uid::random(),
        replay: None,
        idem: None,
        repeat_by_key: false,
    }
}

fn wish(id: i64, params: JobParams) -> Submit {
    Submit {
        entry: entry(),
        uid: JobUid::random(),
        id: JobId(id),
        account: AccountId(1),
        person: UserId(1),
        params,
        description: "a job".into(),
        priority: 0,
        delay: Duration::ZERO,
        limit: Duration::from_secs(600),
        server: None,
    }
}

fn noop(id: i64) -> Submit {
    wish(id, JobParams::Noop(NoopParams::default()))
}

/// Says of a job that waits for its verdict that its effect was seen.
async fn see(house: &House, uid: JobUid) {
    let written = house.store.write(move |c| {
        let open = watch::of_job(c, uid)?.into_iter().find(|watch| watch.done_at.is_none()).expect("a watch");
        let seen = Evidence {
            subject: open.uid.to_string(),
            source: "worker/test".into(),
            job: uid,
            customer: CustomerId(1),
            verdict: Verdict::Reached,
            text: "seen".into(),
            raw: String::new(),
            made_at: Micros(0),
        };
        transition::verdict(c, &seen, Some(open.uid))
    });
    assert!(written.await.expect("written"));
}

async fn group(
    house: &House,
    (children, together): (i64, Option<u32>),
    limit: Duration,
) -> (JobUid, Vec<JobUid>) {
    let many = u32::try_from(children).expect("few");
    let params = GroupParams { children: many, together, stop_on_failure: false, retry_of: None };
    let group = Submit { limit, ..wish(100, JobParams::Group(params)) };
    let jobs: Vec<Submit> = (101..=100 + children).map(noop).collect();
    let uids = jobs.iter().map(|job| job.uid).collect();
    let uid = group.uid;
    let made = house.registry.submit_group(SubmitGroup { group: Box::new(group), children: jobs }).await;
    assert!(made.expect("accepted").fresh);
    (uid, uids)
}

async fn ends(house: &House, uid: JobUid) -> JobRow {
    house.until(uid, "it ends", |row| row.ended_at.is_some()).await
}

async fn who_gets_no_place_is_called_when_one_is_free_and_a_cleared_limit_holds_nobody(bed: Bed) {
    let house = house(bed, false).await;
    let wish = Wish { together: Some(1), pace: None, made_by: "ann".into(), reason: String::new() };
    let set = SetLimit { entry: entry(), account: AccountId(1), kind: String::new(), wish, audit: 1 };
    house.registry.set_limit(set.clone()).await.expect("set");
    let mut uids = Vec::new();
    for id in 100..104 {
        uids.push(house.registry.submit(noop(id)).await.expect("accepted").row.uid.parse().expect("a uid"));
    }
    house.effect_known(uids[0]).await;
    for uid in &uids[1..] {
        house.until(*uid, "it is put in line", |row| row.why_code == "limit").await;
    }
    see(&house, uids[0]).await;
    house.effect_known(uids[1]).await;
    assert_eq!(ends(&house, uids[0]).await.state, "complete");
    assert_eq!(house.row(uids[2]).await.why_code, "limit", "one place, one job");
    let clear = ClearLimit {
        entry: entry(),
        account: AccountId(1),
        kind: String::new(),
        who: "ann".into(),
        audit: 2,
    };
    house.registry.clear_limit(clear.clone()).await.expect("cleared");
    house.effect_known(uids[2]).await;
    house.effect_known(uids[3]).await;
    let gone = house.registry.clear_limit(ClearLimit { entry: entry(), ..clear }).await;
    assert!(matches!(gone, Err(super::Error::NoSuchLimit(AccountId(1), _))));
}

async fn a_group_ends_complete_when_its_children_have_one_after_the_other(bed: Bed) {
    let house = house(bed, false).await;
    let (uid, children) = group(&house, (3, Some(1)), Duration::from_secs(600)).await;
    for (n, child) in children.iter().enumerate() {
        house.effect_known(*child).await;
        let told = house.row(uid).await.why;
        assert_eq!(told, format!("{n} of 3 children have ended"));
        see(&house, *child).await;
    }
    let ended = ends(&house, uid).await;
    assert_eq!((ended.state.as_str(), ended.message.as_deref()), ("complete", Some("3 complete")));
    assert_eq!((ended.epoch, ended.claimed_at), (0, None), "nobody had to claim it");
}

async fn a_cancelled_group_ends_cancelled_when_nothing_of_it_is_open(bed: Bed) {
    let house = house(bed, false).await;
    let (uid, children) = group(&house, (3, Some(1)), Duration::from_secs(600)).await;
    house.effect_known(children[0]).await;
    see(&house, children[0]).await;
    house.effect_known(children[1]).await;
    house.registry.cancel(CustomerId(1), JobId(100), "ann".into()).await.expect("a cancel");
    let ended = ends(&house, uid).await;
    let said = ended.message.unwrap_or_default();
    assert_eq!(
        (ended.state.as_str(), said.as_str()),
        ("cancelled", "cancelled by ann; by then: 1 complete, 2 cancelled")
    );
    for child in &children {
        assert!(house.row(*child).await.ended_at <= ended.ended_at);
    }
    assert_eq!(house.row(children[2]).await.cancel_by.as_deref(), Some("ann, with group 100"));
}

async fn a_group_whose_time_is_over_asks_its_children_to_end_and_has_failed(bed: Bed) {
    let house = house(bed, false).await;
    let began = Instant::now();
    let (uid, children) = group(&house, (2, None), Duration::from_millis(800)).await;
    house.effect_known(children[0]).await;
    let ended = ends(&house, uid).await;
    assert!(began.elapsed() >= Duration::from_millis(800));
    assert_eq!((ended.state.as_str(), ended.why_code.as_str()), ("failed", "deadline"));
    let said = ended.message.unwrap_or_default();
    assert_eq!(said, "not finished within its time limit: 2 cancelled");
    let row = house.store.read(move |c| job::by_uid(c, children[1])).await.expect("a read").expect("a child");
    assert_eq!(row.cancel_by.as_deref(), Some("group 100: its time limit has passed"));
}

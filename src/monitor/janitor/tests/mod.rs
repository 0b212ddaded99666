//! The janitor over real rows and a simulated cloud: late creates, several janitors, deaths between their steps.

mod house;

use self::house::{House, wait_until};
use crate::cloud::TokenClass;
use crate::cloud::simulated::{Fault, Operation};
use crate::jobs::launch_tag;
use crate::model::{ErrorClass, JobState, JobUid};
use crate::store::provisioning::{node, tag_sweep, transition};
use crate::store::testing::{Bed, on_both};

on_both!(
    what_lands_late_is_taken_back_by_one_job_however_many_janitors_look,
    a_janitor_that_dies_between_two_steps_holds_nothing_and_writes_nothing_afterwards,
    what_belongs_to_an_open_job_or_to_a_server_is_never_touched,
    what_no_row_knows_is_reported_and_left_alone_until_it_is_gone,
    what_cannot_be_taken_back_needs_a_person,
    without_tags_there_are_candidates_and_nothing_is_taken_back,
    what_never_turns_up_is_closed_with_the_record_of_its_looks,
);

async fn what_lands_late_is_taken_back_by_one_job_however_many_janitors_look(bed: Bed) {
    for class in [TokenClass::S, TokenClass::T] {
        let house = House::new(bed.another(), class).await;
        let ports = house.ports(house.life().await);
        house.monitor(house.life().await);
        let left_by = house.late(&ports).await;
        let janitors = [house.janitor(house.life().await), house.janitor(house.life().await)];
        house.settle(&janitors, &ports).await;
        assert_eq!(house.alive(), [], "{class}: it is gone");
        let takings = house.takings().await;
        assert_eq!(takings.len(), 1, "{class}: {takings:?}");
        let taken = house.history(takings[0].0).await;
        assert_eq!(taken.job.state, JobState::Complete, "{class}");
        assert!(
            taken.attempts.iter().all(|call| call.step == "take-back"),
            "{class}: every call has its row"
        );
        let story = house.history(left_by).await;
        assert_eq!(story.job.state, JobState::Cancelled, "{class}: an end stands");
        let seen: Vec<&str> = story.evidence.iter().map(|seen| seen.source.as_str()).collect();
        assert_eq!(seen, ["janitor/taking-back"], "{class}: {:?}", story.evidence);
        assert_eq!(house.audited().await, ["obligation.take-back"], "{class}");
    }
}

async fn a_janitor_that_dies_between_two_steps_holds_nothing_and_writes_nothing_afterwards(bed: Bed) {
    for looked in [false, true] {
        let house = House::new(bed.another(), TokenClass::T).await;
        let ports = house.ports(house.life().await);
        house.monitor(house.life().await);
        house.late(&ports).await;
        let (doomed, next) = (house.janitor(house.life().await), house.janitor(house.life().await));
        let row = house.owed().await.remove(0);
        let held = doomed.claim(row.clone()).await.expect("a claim").expect("free");
        assert!(next.claim(row).await.expect("a claim").is_none(), "one at a time");
        let seen = doomed.look(&held).await.expect("seen");
        next.round().await.expect("a round");
        assert_eq!(house.takings().await, [], "the living one has it");
        let boot = doomed.boot;
        house.store.write(move |c| node::ended(c, boot)).await.expect("dead");
        house.settle(std::slice::from_ref(&next), &ports).await;
        if looked {
            doomed.write(held, seen).await.expect("refused, not failed");
        }
        assert_eq!(house.takings().await.len(), 1, "looked={looked}");
        assert_eq!(house.audited().await.len(), 1, "looked={looked}: the dead one wrote nothing");
        let again = house.owed().await.remove(0);
        assert!(doomed.claim(again).await.expect("a claim").is_none(), "the dead claim nothing");
    }
}

async fn what_belongs_to_an_open_job_or_to_a_server_is_never_touched(bed: Bed) {
    let house = House::new(bed.another(), TokenClass::T).await;
    let ports = house.ports(house.life().await);
    house.monitor(house.life().await);
    let owner = house.accept_launch().await;
    let kept = house.work_to_the_end(&ports, owner).await;
    assert_eq!(kept.job.state, JobState::Complete);
    let open = house.accept_launch().await;
    house.plant(&launch_tag(open)).await;
    let janitor = house.janitor(house.life().await);
    wait_until("what a complete job owes is closed, and all tags were swept twice", async || {
        janitor.round().await.expect("a round");
        let swept = house.store.read(|c| tag_sweep::due(c, 10)).await.expect("rows");
        let twice = swept.iter().any(|row| row.looked_at.is_some() && row.version > 4);
        twice && house.owed().await.iter().all(|row| row.closed_at.is_some())
    })
    .await;
    assert_eq!(house.alive().len(), 2);
    assert_eq!(house.takings().await, []);
    let owed = house.owed().await;
    assert!(owed.len() == 1 && owed[0].job == owner.to_string(), "{owed:?}");
    assert!(owed[0].found.contains("owned"), "{}", owed[0].found);
    let adopted = house.work_to_the_end(&ports, open).await;
    assert_eq!(adopted.job.state, JobState::Complete, "the open job goes on");
}

async fn what_no_row_knows_is_reported_and_left_alone_until_it_is_gone(bed: Bed) {
    let house = House::new(bed.another(), TokenClass::K).await;
    let lost = house.plant(&launch_tag(JobUid::random())).await;
    let janitor = house.janitor(house.life().await);
    let mut needs = 0;
    wait_until("it is reported", async || {
        needs = janitor.round().await.expect("a round");
        needs > 0
    })
    .await;
    for _ in 0..5 {
        janitor.round().await.expect("a round");
    }
    assert_eq!((needs, house.alive().len()), (1, 1), "reported, not destroyed");
    assert_eq!(house.audited().await, ["obligation.report"], "once");
    assert!(house.owed().await[0].found.contains("restored"));
    assert_eq!(house.takings().await, []);
    assert!(house.cloud.lose(&lost).await.expect("gone"));
    wait_until("it is closed", async || janitor.round().await.expect("a round") == 0).await;
    assert!(house.owed().await[0].closed_at.is_some());
}

async fn what_cannot_be_taken_back_needs_a_person(bed: Bed) {
    let house = House::new(bed.another(), TokenClass::T).await;
    let ports = house.ports(house.life().await);
    house.monitor(house.life().await);
    house.late(&ports).await;
    house.cloud.faults().next(Operation::Terminate, 1, Fault::Refuse(ErrorClass::Auth));
    let janitor = house.janitor(house.life().await);
    wait_until("a person is asked", async || {
        let needs = janitor.round().await.expect("a round");
        for (uid, _) in house.takings().await {
            house.work(&ports, uid).await;
        }
        needs == 1
    })
    .await;
    let takings = house.takings().await;
    assert_eq!(takings.len(), 1, "it is not tried again by itself");
    assert_eq!(takings[0].1, JobState::Failed);
    assert_eq!(house.audited().await, ["obligation.take-back", "obligation.report"]);
    house.nothing_is_forgotten().await;
}

async fn without_tags_there_are_candidates_and_nothing_is_taken_back(bed: Bed) {
    let house = House::new(bed.another(), TokenClass::N).await;
    let ports = house.ports(house.life().await);
    house.cloud.faults().next(Operation::Launch, 1, Fault::LoseAnswer);
    let uid = house.accept_launch().await;
    house.work(&ports, uid).await;
    house.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
    let ended = house.work_to_the_end(&ports, uid).await;
    assert_eq!(ended.job.state, JobState::Unresolved);
    let janitor = house.janitor(house.life().await);
    wait_until("the candidate is shown", async || janitor.round().await.expect("a round") == 1).await;
    assert_eq!((house.alive().len(), house.takings().await), (1, Vec::new()));
    assert!(house.owed().await[0].found.contains("only its name says so"));
}

async fn what_never_turns_up_is_closed_with_the_record_of_its_looks(bed: Bed) {
    let house = House::new(bed.another(), TokenClass::S).await;
    let ports = house.ports(house.life().await);
    house.cloud.faults().next(Operation::Launch, 1, Fault::FailBefore);
    let uid = house.accept_launch().await;
    house.work(&ports, uid).await;
    house.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
    let ended = house.work_to_the_end(&ports, uid).await;
    assert_eq!(ended.job.state, JobState::Cancelled);
    house.cloud.faults().next(Operation::FindByTag, 1, Fault::FailBefore);
    house.settle(&[house.janitor(house.life().await)], &ports).await;
    let closed = house.owed().await.remove(0);
    assert_eq!((closed.state.as_str(), house.takings().await), ("closed", Vec::new()));
    assert!(closed.looks >= 2 && closed.record.contains("absent"), "{closed:?}");
    assert!(closed.closed_at >= Some(closed.look_until), "not before its time");
}

//! Schedules on one database with several nodes, and times that were missed.

use std::time::{Duration, Instant};

use diesel::prelude::*;

use super::tests::{House, house, house_beside};
use crate::model::{JobParams, Micros, NoopParams};
use crate::store::provisioning::schedule::{self, ScheduleRow};
use crate::store::provisioning::schema::{job, schedule as table};
use crate::store::testing::{Bed, on_both};

fn row(id: i64, misfire: &str, next: Micros) -> ScheduleRow {
    let params = JobParams::Noop(NoopParams::default());
    ScheduleRow {
        id,
        customer: 1,
        account: 1,
        person: 1,
        name: format!("s{id}"),
        // Far away, so that only the times set here come.
        cron: "0 0 29 2 *".into(),
        params: serde_json::to_string(&params).expect("JSON"),
        description: "Do nothing".into(),
        priority: 2,
        time_limit: 600_000_000,
        misfire: misfire.into(),
        enabled: true,
        next_at: Some(next.0),
        last_at: None,
        last_job: None,
        made_at: next.0,
        version: 1,
    }
}

impl House {
    async fn put(&self, row: ScheduleRow) {
        assert!(self.store.write(move |c| schedule::insert(c, &row)).await.expect("stored"));
    }

    async fn due(&self, id: i64, at: Micros) {
        let again = move |c: &mut crate::store::AnyConnection| {
            let set = (
                table::next_at.eq(Some(at.0)),
                table::enabled.eq(true),
                table::version.eq(table::version + 1),
            );
            diesel::update(table::table.find(id)).set(set).execute(c)
        };
        assert_eq!(self.store.write(again).await.expect("set"), 1);
    }

    /// Waits until the schedule's next time is far away.
    async fn moved(&self, id: i64) -> ScheduleRow {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let rows =
                self.store.read(|c| schedule::list(c, crate::model::CustomerId(1))).await.expect("read");
            let row = rows.into_iter().find(|row| row.id == id).expect("the schedule");
            if row.next_at.is_none_or(|at| at > Micros::wall().0) {
                return row;
            }
            assert!(Instant::now() < limit, "not within 30 s: {row:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn jobs_of(&self, id: i64) -> Vec<(i64, String, i32)> {
        let key = format!("schedule/{id}");
        let jobs = move |c: &mut crate::store::AnyConnection| {
            let mine = job::table.filter(job::access_key.eq(&key)).order(job::id.asc());
            mine.select((job::id, job::description, job::priority)).load(c)
        };
        self.store.read(jobs).await.expect("read")
    }
}

on_both!(
    several_nodes_fire_each_time_once,
    who_comes_second_with_the_same_time_makes_no_job,
    a_time_that_was_missed_is_skipped_or_made_up_for_once,
);

async fn several_nodes_fire_each_time_once(bed: Bed) {
    let one = house(bed, false).await;
    let _other = house_beside(&one).await;
    one.put(row(1, "skip", Micros::wall())).await;
    for n in 1..=10 {
        let moved = one.moved(1).await;
        let jobs = one.jobs_of(1).await;
        assert_eq!(jobs.len(), n, "{jobs:?}");
        let job = jobs.iter().find(|(id, ..)| Some(*id) == moved.last_job).expect("the job it names");
        assert_eq!((job.1.as_str(), job.2), ("Do nothing (schedule s1)", 2));
        if n < 10 {
            one.due(1, Micros::wall()).await;
        }
    }
}

async fn who_comes_second_with_the_same_time_makes_no_job(bed: Bed) {
    let house = house(bed, true).await;
    let far = Micros::wall().plus(Duration::from_secs(86_400));
    house.put(row(1, "skip", far)).await;
    let seen = house.moved(1).await;
    let submit = |id| super::schedules::submit(&seen, far, (id, JobParams::Noop(NoopParams::default())));
    for (n, fires) in [(700, true), (701, false)] {
        let (seen, submit) = (seen.clone(), submit(crate::model::JobId(n)));
        let fired = house.store.write(move |c| schedule::fire(c, &seen, None, Some(&submit))).await;
        assert_eq!(fired.expect("written").is_some(), fires, "{n}");
    }
    assert_eq!(house.jobs_of(1).await.len(), 1);
    let row = house.moved(1).await;
    assert_eq!((row.enabled, row.next_at, row.last_at, row.last_job), (false, None, Some(far.0), Some(700)));
}

async fn a_time_that_was_missed_is_skipped_or_made_up_for_once(bed: Bed) {
    let house = house(bed, false).await;
    let missed = Micros::wall().minus(Duration::from_secs(7200));
    house.put(row(1, "skip", missed)).await;
    house.put(row(2, "once", missed)).await;
    let (skipped, made_up) = (house.moved(1).await, house.moved(2).await);
    assert_eq!((skipped.last_at, skipped.last_job, skipped.enabled), (None, None, true));
    assert_eq!((made_up.last_at, made_up.enabled), (Some(missed.0), true));
    assert_eq!((house.jobs_of(1).await.len(), house.jobs_of(2).await.len()), (0, 1));
}

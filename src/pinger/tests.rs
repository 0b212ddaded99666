//! The pinger under panics, errors and stops of itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Guests, Heartbeat, Pinger, Spec, Spill};
use crate::model::{Boot, CustomerId, ServerId};
use crate::ops::{Health, Metrics};
use crate::store::{ANALYTICS, Database, Manager, PROVISIONING, Settings, Store, analytics};
use crate::supervision::{Limits, Options, Supervisor, TRIPS};

const GUEST: ServerId = ServerId(7);

/// One guest that always answers, and one that never does.
struct Pair;

#[async_trait(?Send)]
impl Guests for Pair {
    fn connected(&self) -> Vec<(ServerId, CustomerId)> {
        vec![(GUEST, CustomerId(1)), (ServerId(8), CustomerId(1))]
    }

    async fn ping(&self, server: ServerId, _: Duration) -> Result<Heartbeat, String> {
        if server != GUEST {
            return Err("it is silent".to_owned());
        }
        Ok(Heartbeat {
            round_trip: Duration::from_millis(1),
            cpu_load: 0.5,
            memory_used: 1,
            memory_total: 2,
            processes: 3,
        })
    }
}

fn database(folder: &std::path::Path, which: Database) -> Store {
    let url = format!("sqlite://{}/{}.db", folder.display(), which.name);
    let settings = Settings { readers: 1, ..Settings::new(Manager::new(&url).expect("a url")) };
    Store::open(which, &settings, Arc::new(|_, _| {})).expect("a database")
}

#[actix_rt::test]
async fn panic_error_and_stop_of_the_pinger_are_survived_and_heartbeats_are_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let points = database(folder.path(), ANALYTICS);
    let spec = Spec {
        guests: Arc::new(Pair),
        provisioning: database(folder.path(), PROVISIONING),
        analytics: points.clone(),
        spill: Spill::new(1000),
        health: Health::new(),
        metrics: Metrics::new(),
        boot: Boot::random(),
        every: Duration::from_millis(20),
        limit: Duration::from_secs(1),
    };
    let house = Supervisor::new(Health::new());
    let limits = Limits { backoff_first: Duration::from_millis(1), ..Limits::default() };
    let options = Options { limits, ..Options::permanent() };
    let mailbox = house.spawn::<Pinger>(&house.here(), spec, options);
    let newest = async || {
        let found = points.read(|c| analytics::newest(c, GUEST.0, 1)).await.expect("a read");
        found.first().map_or(0, |point| point.at)
    };
    for how in TRIPS {
        house.survives("pinger", how).await;
        let (before, deadline) = (newest().await, Instant::now() + Duration::from_secs(30));
        while newest().await <= before {
            assert!(Instant::now() < deadline, "no heartbeat after {how:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    mailbox.stop();
}

//! The operators' listener: metrics, health, actors. No secrets and nothing of tenants but counts; it listens on an
//! address of its own.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};

use super::rest::lists::{actors_of, health_of};
use crate::model::{JobState, Micros};
use crate::ops::{Health, Metrics, PartState};
use crate::store::Store;
use crate::store::provisioning::{job, view};
use crate::supervision::Supervisor;

/// What the operators' listener of any role shows. Cheap to clone.
#[derive(Clone)]
pub struct Ops {
    /// The provisioning database, for counts of jobs; a role that has none shows none.
    pub store: Option<Store>,
    /// How this process is.
    pub health: Health,
    /// Figures.
    pub metrics: Metrics,
    /// Actors.
    pub supervisor: Supervisor,
}

/// Counts of jobs are read at most this often, however often the page is.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for those counts: the page comes without new ones when the database is slow.
const PATIENCE: Duration = Duration::from_millis(500);

/// When counts were read last.
#[derive(Default)]
struct Gauges {
    read: Mutex<Option<Instant>>,
}

/// Adds the routes.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .app_data(web::Data::new(Gauges::default()))
        .route("/metrics", web::get().to(metrics))
        .route("/health/live", web::get().to(live))
        .route("/health/ready", web::get().to(ready))
        .route("/actors", web::get().to(actors));
}

impl Gauges {
    /// Whether it is this caller's turn to read the counts again.
    fn due(&self) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let due = read.is_none_or(|at| at.elapsed() >= FRESH);
        if due {
            *read = Some(Instant::now());
        }
        due
    }
}

async fn metrics(ops: web::Data<Ops>, gauges: web::Data<Gauges>) -> HttpResponse {
    if let Some(store) = ops.store.as_ref().filter(|_| gauges.due()) {
        match tokio::time::timeout(PATIENCE, refresh(store, &ops.metrics)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("the counts of jobs for the metrics could not be read: {error}"),
            Err(_) => log::warn!("the counts of jobs for the metrics were not there in time"),
        }
    }
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(ops.metrics.encode())
}

async fn refresh(store: &Store, metrics: &Metrics) -> Result<(), crate::store::Error> {
    let read = store.read(|c| Ok((job::open_counts(c)?, view::now(c)?)));
    let ((counts, oldest), now) = read.await?;
    for open in JobState::ALL.iter().filter(|open| !open.is_end()) {
        let count = counts.iter().find(|(word, _)| word == open.as_str()).map_or(0, |(_, count)| *count);
        metrics.open_jobs(open.as_str(), usize::try_from(count).unwrap_or(0));
    }
    let waited = oldest.map_or(Duration::ZERO, |at| now.since(Micros(at)));
    metrics.oldest_waiting(waited);
    metrics.store_queue_depth(usize::try_from(store.waiting()).unwrap_or(0));
    Ok(())
}

async fn live(ops: web::Data<Ops>) -> HttpResponse {
    answer(ops.health.live())
}

async fn ready(ops: web::Data<Ops>) -> HttpResponse {
    answer(ops.health.ready())
}

fn answer((well, parts): (bool, Vec<PartState>)) -> HttpResponse {
    let mut answer = if well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((CACHE_CONTROL, "no-store")).json(health_of(well, &parts))
}

async fn actors(ops: web::Data<Ops>) -> HttpResponse {
    HttpResponse::Ok().json(actors_of(&ops.supervisor, None))
}

#[cfg(test)]
mod tests {
    use super::{Gauges, answer};
    use crate::ops::{Health, State};

    #[test]
    fn counts_are_read_once_a_second() {
        let gauges = Gauges::default();
        assert!(gauges.due() && !gauges.due());
    }

    #[test]
    fn readiness_is_a_status_with_reasons() {
        let health = Health::new();
        assert_eq!(answer(health.ready()).status(), 200);
        health.set("store", State::Red, "gone");
        assert_eq!(answer(health.ready()).status(), 503);
        let shown = super::health_of(false, &health.ready().1);
        assert_eq!((&shown["parts"][0]["reason"], &shown["ok"]), (&"gone".into(), &false.into()));
    }
}

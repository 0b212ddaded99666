//! Load over HTTP: jobs that do nothing, so that only the engine is measured.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::limits::rate;
use crate::cli::client::{Client, Error};
use crate::cloud::simulated::CATALOGUE;

/// Longest wait until every job has ended.
const DRAIN: Duration = Duration::from_secs(300);

/// A client under load.
#[derive(Clone)]
pub(super) struct Load {
    client: Rc<Client>,
}

/// A launch of the first of everything that the embedded cloud offers.
pub(in crate::cli) fn launch(name: &str) -> Value {
    let center = CATALOGUE.regions.first().and_then(|region| region.data_centers.first());
    json!({ "kind": "launch-server", "params": {
        "name": name,
        "dataCenter": center.map(|center| center.id),
        "product": CATALOGUE.products.first().map(|product| product.id),
        "image": CATALOGUE.images.first().map(|image| image.id),
    }})
}

/// When a job may start.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// As soon as it is accepted.
    Now,
    /// Not while it is measured: nobody works at it.
    Tomorrow,
}

/// How fast answers came.
pub(super) struct Speed {
    pub(super) per_second: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// A percentile in milliseconds. Sorts what it is given.
pub(super) fn percentile(took: &mut [Duration], percent: usize) -> f64 {
    took.sort_unstable();
    let at = took.len().saturating_sub(1) * percent / 100;
    took.get(at).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

impl Load {
    pub(super) fn of(client: Client) -> Self {
        Self { client: Rc::new(client) }
    }

    /// Load from a client that others use too.
    pub(super) fn sharing(client: &Rc<Client>) -> Self {
        Self { client: Rc::clone(client) }
    }

    async fn noop(&self, when: When) -> Result<Value, Error> {
        let delay = match when {
            When::Now => 0,
            When::Tomorrow => 24 * 3600,
        };
        let body = json!({ "kind": "noop", "params": {}, "delaySeconds": delay });
        self.client.post("/api/v1/jobs", &body, None).await
    }

    /// One client, one submit after the other.
    pub(super) async fn one_client(&self, span: Duration) -> Result<Speed, Error> {
        self.submit(1, span, When::Tomorrow).await
    }

    /// Jobs that nobody works at yet, so many.
    pub(super) async fn pile(&self, clients: usize, jobs: usize) -> Result<(), Error> {
        let left = Rc::new(std::cell::Cell::new(jobs));
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let (load, left) = (self.clone(), Rc::clone(&left));
                actix_rt::spawn(async move {
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        load.noop(When::Tomorrow).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await.map_err(|e| Error::Usage(format!("a client ended badly: {e}")))??;
        }
        Ok(())
    }

    /// So many clients submit without pause.
    pub(super) async fn submit(&self, clients: usize, span: Duration, when: When) -> Result<Speed, Error> {
        let began = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let load = self.clone();
                actix_rt::spawn(async move {
                    let mut took = Vec::new();
                    while began.elapsed() < span {
                        let one = Instant::now();
                        load.noop(when).await?;
                        took.push(one.elapsed());
                    }
                    Ok::<_, Error>(took)
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.map_err(|e| Error::Usage(format!("a client ended badly: {e}")))??);
        }
        let per_second = rate(took.len(), began.elapsed());
        Ok(Speed { per_second, p50: percentile(&mut took, 50), p99: percentile(&mut took, 99) })
    }

    /// Waits until no job is open.
    pub(super) async fn drained(&self) -> Result<(), Error> {
        let began = Instant::now();
        while began.elapsed() < DRAIN {
            let open = self.client.get("/api/v1/jobs?state=open&limit=1").await?;
            if open.get("jobs").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::Usage(format!("jobs are still open after {} s", DRAIN.as_secs())))
    }

    /// Submits for a while and waits until all of it is complete: jobs a second over the whole time, and how many.
    pub(super) async fn end_to_end(&self, clients: usize, span: Duration) -> Result<(f64, f64), Error> {
        let began = Instant::now();
        let submitted = self.submit(clients, span, When::Now).await?;
        let count = submitted.per_second * began.elapsed().as_secs_f64();
        self.drained().await?;
        Ok((count / began.elapsed().as_secs_f64(), count))
    }

    /// Submits at a pace and reads from the rows how long each job took from accepted to ended: median and 99th
    /// percentile in milliseconds.
    pub(super) async fn paced(&self, per_second: u32, span: Duration) -> Result<(f64, f64), Error> {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
        let began = Instant::now();
        let mut ids = Vec::new();
        while began.elapsed() < span {
            tick.tick().await;
            ids.push(self.noop(When::Now).await?.get("id").and_then(Value::as_i64).unwrap_or_default());
        }
        self.drained().await?;
        let mut took = Vec::new();
        for id in ids {
            let job = self.client.get(&format!("/api/v1/jobs/{id}")).await?;
            took.extend(span_of(&job));
        }
        Ok((percentile(&mut took, 50), percentile(&mut took, 99)))
    }
}

/// From accepted to ended.
fn span_of(job: &Value) -> Option<Duration> {
    let at = |field: &str| {
        let text = job.get(field)?.as_str()?;
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_micros())
    };
    let micros = at("endedAt")?.checked_sub(at("createdAt")?)?;
    Some(Duration::from_micros(u64::try_from(micros).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{percentile, span_of};
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn percentiles_and_spans_are_read_right() {
        let mut took: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert!((percentile(&mut took, 50) - 50.0).abs() < 1.5);
        assert!((percentile(&mut took, 99) - 99.0).abs() < 1.5);
        assert!(percentile(&mut [], 50).abs() < f64::EPSILON);
        let job =
            json!({ "createdAt": "2026-01-01T00:00:00.000000Z", "endedAt": "2026-01-01T00:00:00.002500Z" });
        assert_eq!(span_of(&job), Some(Duration::from_micros(2500)));
        assert_eq!(span_of(&json!({ "createdAt": "2026-01-01T00:00:00Z" })), None);
    }
}

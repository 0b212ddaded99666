//! Jobs that are open: submits alone, what each costs in memory, and how long a start over many of them takes.

use std::time::Duration;

use serde_json::json;

use super::Args;
use super::load::{Load, Speed, When};
use super::place::Place;
use crate::cli::client::Error;

/// Jobs with an actor at work whose memory is measured; below the most that work at the same time.
const WORKING: u32 = 1500;
/// Jobs before them, which warm everything up.
const WARM: u32 = 200;

/// Submits of jobs that nobody works at yet, and what many open jobs cost.
pub(super) struct Waiting {
    pub(super) one_client_p50_ms: f64,
    pub(super) submits: Speed,
    pub(super) bytes: f64,
    pub(super) restart_ms: f64,
}

/// Submits alone, of jobs that nobody works at yet, as the limit beside it; then what many open jobs cost.
pub(super) async fn measure(args: &Args, span: Duration) -> Result<Waiting, Error> {
    let clients = usize::from(args.clients);
    let mut place = Place::make(args.folder.as_deref())?;
    place.start().await?;
    let load = Load::of(place.client()?);
    let one_client_p50_ms = load.one_client(span.min(Duration::from_secs(2))).await?.p50;
    let submits = load.submit(clients, span, When::Tomorrow).await?;
    let before = place.memory_kib();
    load.pile(clients, usize::try_from(args.open_jobs).unwrap_or(usize::MAX)).await?;
    let bytes = (place.memory_kib() - before) * 1024.0 / f64::from(args.open_jobs);
    place.stop().await?;
    let restart_ms = place.start().await?;
    place.stop().await?;
    Ok(Waiting { one_client_p50_ms, submits, bytes, restart_ms })
}

/// Bytes of a job with an actor at work: launches that wait for a key manager that is not there.
pub(super) async fn working(args: &Args) -> Result<f64, Error> {
    let mut place = Place::make(args.folder.as_deref())?;
    place.start_with(&["--without", "km"]).await?;
    let client = place.client()?;
    let body = json!({ "kind": "launch-server", "params": { "name": "bench" } });
    for _ in 0..WARM {
        client.post("/api/v1/jobs", &body, None).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = place.memory_kib();
    for _ in 0..WORKING {
        client.post("/api/v1/jobs", &body, None).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bytes = (place.memory_kib() - before) * 1024.0 / f64::from(WORKING);
    place.stop().await?;
    Ok(bytes)
}

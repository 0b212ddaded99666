//! Jobs that are open: submits alone, what each costs in memory, and how long a start over many of them takes.

use std::time::Duration;

use super::figures::Figures;
use super::load::{self, Load};
use super::place::{Place, Site};
use super::{Args, Part};
use crate::cli::client::Error;

/// Jobs with an actor at work whose memory is measured; below the most that work at the same time.
const WORKING: u32 = 1500;
/// Jobs before them, which warm everything up.
const WARM: u32 = 200;

/// Submits alone, of jobs that nobody works at yet, as the limit beside it; then what many open jobs cost.
pub(super) async fn embedded(args: &Args, figures: &mut Figures) -> Result<(), Error> {
    let mut place = Place::make(args.folder.as_deref())?;
    place.start().await?;
    let load = Load::of(place.client()?);
    if args.wants(Part::Rates) {
        super::accepted(args, &load, figures).await?;
    }
    if args.wants(Part::Memory) {
        piled(args, &load, &place, figures).await?;
        place.stop().await?;
        figures.restart_open_ms = Some(place.start().await?);
        figures.working_job_bytes = Some(working(args).await?);
    }
    place.stop().await
}

/// Memory of jobs that wait.
pub(super) async fn piled(
    args: &Args,
    load: &Load,
    site: &impl Site,
    figures: &mut Figures,
) -> Result<(), Error> {
    let before = site.memory_kib();
    load.pile(usize::from(args.clients), usize::try_from(args.open_jobs).unwrap_or(usize::MAX)).await?;
    let bytes = (site.memory_kib() - before) * 1024.0 / f64::from(args.open_jobs);
    figures.open_jobs = Some(f64::from(args.open_jobs));
    figures.open_job_bytes = Some(bytes);
    Ok(())
}

/// Bytes of a job with an actor at work: launches that wait for a key manager that is not there.
async fn working(args: &Args) -> Result<f64, Error> {
    let mut place = Place::make(args.folder.as_deref())?.with(&["--without", "km"]);
    place.start().await?;
    let client = place.client()?;
    let body = load::launch("bench");
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

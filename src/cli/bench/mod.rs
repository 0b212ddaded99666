//! `dispatcher bench`: figures of this machine, each beside the limit it is to be compared with, measured in one run.
//!
//! The program measured is this executable, started as `dev` on a folder of its own; the load comes from this process
//! over HTTP, signed. Durability is never traded: the settings are those of production.

mod limits;
mod load;
mod place;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::client::Error;
use super::table;
use load::Load;
use place::Place;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Clients that submit at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: u16,
    /// Open jobs on the folder when the start with open jobs is measured
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    open_jobs: u32,
    /// Runs; the medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    runs: u16,
    /// Folder for data, on the disk to be measured; removed at the end
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Figures of one run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    fdatasync_per_second: f64,
    fdatasync_p50_ms: f64,
    group_commit_rows_per_second: f64,
    start_ms: f64,
    idle_memory_kib: f64,
    submits_per_second: f64,
    submit_p50_ms: f64,
    submit_p99_ms: f64,
    one_commit_ms: f64,
    one_client_p50_ms: f64,
    end_to_end_per_second: f64,
    paced_p50_ms: f64,
    paced_p99_ms: f64,
    restart_ms: f64,
    open_jobs: f64,
    open_job_bytes: f64,
    restart_open_ms: f64,
}

/// Measures and shows.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let mut all = Vec::new();
    for n in 1..=args.runs {
        writeln!(std::io::stderr(), "run {n} of {}", args.runs)?;
        all.push(one(args).await?);
    }
    let median = medians(&all);
    if args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "median": median, "runs": all }));
        writeln!(out, "{}", text.unwrap_or_default())?;
        return Ok(0);
    }
    show(out, &median)?;
    Ok(0)
}

async fn one(args: &Args) -> Result<Figures, Error> {
    let span = Duration::from_secs(args.seconds);
    let mut place = Place::make(args.folder.as_deref())?;
    let (fdatasync_per_second, fdatasync_p50_ms) = limits::fdatasync(place.folder(), Duration::from_secs(1))?;
    let rows =
        limits::group_commit(place.folder(), usize::from(args.clients), span.min(Duration::from_secs(3)));
    let group_commit_rows_per_second = rows.await?;
    let alone = limits::group_commit(place.folder(), 1, Duration::from_secs(1)).await?;
    let start_ms = place.start().await?;
    let idle_memory_kib = place.memory_kib();
    let load = Load::of(place.client()?);
    let (paced_p50_ms, paced_p99_ms) = load.paced(50, span).await?;
    let end_to_end_per_second = load.end_to_end(usize::from(args.clients), span).await?;
    place.stop().await?;
    let restart_ms = place.start().await?;
    place.stop().await?;
    let waiting = waiting_jobs(args, span).await?;
    let submits = &waiting.submits;
    Ok(Figures {
        fdatasync_per_second,
        fdatasync_p50_ms,
        group_commit_rows_per_second,
        start_ms,
        idle_memory_kib,
        submits_per_second: submits.per_second,
        submit_p50_ms: submits.p50,
        submit_p99_ms: submits.p99,
        one_commit_ms: 1000.0 / alone.max(1.0),
        one_client_p50_ms: waiting.one_client_p50_ms,
        end_to_end_per_second,
        paced_p50_ms,
        paced_p99_ms,
        restart_ms,
        open_jobs: f64::from(args.open_jobs),
        open_job_bytes: waiting.bytes,
        restart_open_ms: waiting.restart_ms,
    })
}

/// Submits of jobs that nobody works at yet, and what many open jobs cost.
struct Waiting {
    one_client_p50_ms: f64,
    submits: load::Speed,
    bytes: f64,
    restart_ms: f64,
}

/// Submits alone, of jobs that nobody works at yet, as the limit beside it; then what many open jobs cost.
async fn waiting_jobs(args: &Args, span: Duration) -> Result<Waiting, Error> {
    let clients = usize::from(args.clients);
    let mut place = Place::make(args.folder.as_deref())?;
    place.start().await?;
    let load = Load::of(place.client()?);
    let one_client_p50_ms = load.one_client(span.min(Duration::from_secs(2))).await?.p50;
    let submits = load.submit(clients, span, load::When::Tomorrow).await?;
    let before = place.memory_kib();
    load.pile(clients, usize::try_from(args.open_jobs).unwrap_or(usize::MAX)).await?;
    let bytes = (place.memory_kib() - before) * 1024.0 / f64::from(args.open_jobs);
    place.stop().await?;
    let restart_ms = place.start().await?;
    place.stop().await?;
    Ok(Waiting { one_client_p50_ms, submits, bytes, restart_ms })
}

/// The median of each figure.
fn medians(all: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = all.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Figures {
        fdatasync_per_second: of(|f| f.fdatasync_per_second),
        fdatasync_p50_ms: of(|f| f.fdatasync_p50_ms),
        group_commit_rows_per_second: of(|f| f.group_commit_rows_per_second),
        start_ms: of(|f| f.start_ms),
        idle_memory_kib: of(|f| f.idle_memory_kib),
        submits_per_second: of(|f| f.submits_per_second),
        submit_p50_ms: of(|f| f.submit_p50_ms),
        submit_p99_ms: of(|f| f.submit_p99_ms),
        one_commit_ms: of(|f| f.one_commit_ms),
        one_client_p50_ms: of(|f| f.one_client_p50_ms),
        end_to_end_per_second: of(|f| f.end_to_end_per_second),
        paced_p50_ms: of(|f| f.paced_p50_ms),
        paced_p99_ms: of(|f| f.paced_p99_ms),
        restart_ms: of(|f| f.restart_ms),
        open_jobs: of(|f| f.open_jobs),
        open_job_bytes: of(|f| f.open_job_bytes),
        restart_open_ms: of(|f| f.restart_open_ms),
    }
}

fn show(out: &mut dyn Write, f: &Figures) -> Result<(), Error> {
    let row = |what: &str, figure: String, beside: String| vec![what.to_owned(), figure, beside];
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let rows = vec![
        row(
            "4 KiB write + fdatasync",
            format!("{:.0}/s", f.fdatasync_per_second),
            format!("p50 {:.2} ms", f.fdatasync_p50_ms),
        ),
        row(
            "raw group commit, one job row",
            format!("{:.0}/s", f.group_commit_rows_per_second),
            String::new(),
        ),
        row(
            "P1 durable signed submit",
            format!("{:.0}/s", f.submits_per_second),
            format!(
                "{:.2} x raw group commit; p50 {:.1} ms, p99 {:.1} ms",
                share(f.submits_per_second, f.group_commit_rows_per_second),
                f.submit_p50_ms,
                f.submit_p99_ms
            ),
        ),
        row("one commit of one job row, alone", format!("{:.2} ms", f.one_commit_ms), String::new()),
        row(
            "P3 one client, submit to 202",
            format!("p50 {:.2} ms", f.one_client_p50_ms),
            format!(
                "{:.1} x fdatasync, {:.1} x one commit",
                share(f.one_client_p50_ms, f.fdatasync_p50_ms),
                share(f.one_client_p50_ms, f.one_commit_ms)
            ),
        ),
        row("P5 end to end, embedded", format!("{:.0} jobs/s", f.end_to_end_per_second), String::new()),
        row(
            "P6 submit to complete at 50/s",
            format!("p50 {:.1} ms", f.paced_p50_ms),
            format!("p99 {:.1} ms", f.paced_p99_ms),
        ),
        row("P7 idle memory", format!("{:.1} MB", f.idle_memory_kib / 1024.0), String::new()),
        row("P7 memory of a waiting job", format!("{:.0} bytes", f.open_job_bytes), String::new()),
        row("P8 start, new folder", format!("{:.0} ms", f.start_ms), String::new()),
        row("P8 start, existing folder", format!("{:.0} ms", f.restart_ms), String::new()),
        row(
            "P8 start, with open jobs",
            format!("{:.0} ms", f.restart_open_ms),
            format!("{:.0} jobs and those of P1", f.open_jobs),
        ),
    ];
    table::write(out, &["FIGURE", "MEASURED", "BESIDE"], &rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Figures, medians};

    #[test]
    fn a_median_is_the_middle_of_the_runs() {
        let run = |n: f64| Figures { submits_per_second: n, ..Figures::default() };
        let median = medians(&[run(9.0), run(1.0), run(5.0)]);
        assert!((median.submits_per_second - 5.0).abs() < f64::EPSILON);
    }
}

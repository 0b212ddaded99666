//! `dispatcher bench`: figures of this machine, each beside the limit it is to be compared with, measured in one run.
//!
//! The program measured is this executable, started as `dev` on a folder of its own; the load comes from this process
//! over HTTP, signed. Durability is never traded: the settings are those of production.

mod guests;
mod limits;
mod load;
mod place;
mod waiting;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::client::Error;
use super::table;
use load::Load;
pub(super) use load::launch;
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
    /// Guests that are connected when their memory is measured; 0 leaves it out
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=200))]
    guests: u32,
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
    working_job_bytes: f64,
    restart_open_ms: f64,
    guests: f64,
    guest_bytes: f64,
    agent_kib: f64,
    program_mb: f64,
    agent_program_mb: f64,
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
    let waiting = waiting::measure(args, span).await?;
    let submits = &waiting.submits;
    let cost = match args.guests {
        0 => guests::Cost::default(),
        guests => guests::cost(args.folder.as_deref(), guests).await?,
    };
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
        working_job_bytes: waiting::working(args).await?,
        restart_open_ms: waiting.restart_ms,
        guests: f64::from(args.guests),
        guest_bytes: cost.dispatcher_bytes,
        agent_kib: cost.agent_kib,
        program_mb: megabytes(std::env::current_exe().ok()),
        agent_program_mb: megabytes(guests::agent_program()),
    })
}

/// Size of an executable; 0 where there is none.
fn megabytes(path: Option<PathBuf>) -> f64 {
    let bytes = path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
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
        working_job_bytes: of(|f| f.working_job_bytes),
        restart_open_ms: of(|f| f.restart_open_ms),
        guests: of(|f| f.guests),
        guest_bytes: of(|f| f.guest_bytes),
        agent_kib: of(|f| f.agent_kib),
        program_mb: of(|f| f.program_mb),
        agent_program_mb: of(|f| f.agent_program_mb),
    }
}

fn show(out: &mut dyn Write, f: &Figures) -> Result<(), Error> {
    let rows = [speeds(f), sizes(f)].concat();
    table::write(out, &["FIGURE", "MEASURED", "BESIDE"], &rows)?;
    Ok(())
}

fn row(what: &str, figure: String, beside: String) -> Vec<String> {
    vec![what.to_owned(), figure, beside]
}

/// How fast it is, each figure beside its limit.
fn speeds(f: &Figures) -> Vec<Vec<String>> {
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    vec![
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
    ]
}

/// What starts and memory take.
fn sizes(f: &Figures) -> Vec<Vec<String>> {
    vec![
        row(
            "P7 memory of an open job",
            format!("{:.0} bytes", f.open_job_bytes),
            format!("{:.0} bytes with an actor at work", f.working_job_bytes),
        ),
        row(
            "P7 memory of a connected guest",
            format!("{:.0} bytes", f.guest_bytes),
            format!("{:.0} guests", f.guests),
        ),
        row("P15 memory of a guest's agent", format!("{:.1} MB", f.agent_kib / 1024.0), String::new()),
        row(
            "P15 executable, and the guest's",
            format!("{:.1} MB", f.program_mb),
            format!("{:.1} MB", f.agent_program_mb),
        ),
        row("P8 start, new folder", format!("{:.0} ms", f.start_ms), String::new()),
        row("P8 start, existing folder", format!("{:.0} ms", f.restart_ms), String::new()),
        row(
            "P8 start, with open jobs",
            format!("{:.0} ms", f.restart_open_ms),
            format!("{:.0} jobs and those of P1", f.open_jobs),
        ),
    ]
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

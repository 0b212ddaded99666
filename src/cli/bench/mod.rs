//! `dispatcher bench`: figures of this machine, each beside the limit it is to be compared with, measured in one run.
//!
//! The program measured is this executable, started as `dev` on a folder of its own and, where a MariaDB and a RabbitMQ
//! are named, as an installation of roles that are processes of their own; the load comes from this process over HTTP,
//! signed. Durability is never traded: the settings are those of production.

mod broker;
mod cancel;
mod figures;
mod guests;
mod history;
mod house;
mod limits;
mod load;
mod pages;
mod place;
mod process;
mod show;
mod takeover;
mod waiting;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::client::Error;
use figures::{Figures, Machine, Run, medians};
use house::{House, Schema, Services};
pub(super) use load::launch;
use load::{Load, When};
use place::{Place, Site};

/// How long a server may take to write out what was put into it.
const SETTLE: Duration = Duration::from_secs(120);

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
    /// Runs; the medians are shown. Kills, cancels, pages and guests are measured in the first alone
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    runs: u16,
    /// Folder for data, on the disk to be measured; removed at the end
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// A MariaDB or MySQL server, as <mysql://user@host:port>: measures roles as processes too, on databases of their
    /// own that are dropped at the end
    #[arg(long, value_name = "URL", requires = "queue")]
    database: Option<String>,
    /// File with the user's password there, which only you may read
    #[arg(long, value_name = "FILE", requires = "database")]
    password_file: Option<PathBuf>,
    /// A RabbitMQ broker, as <amqp://127.0.0.1:port>, for those roles; names of their own, deleted at the end
    #[arg(long, value_name = "URL", requires = "database")]
    queue: Option<String>,
    /// File with the user's password there, which only you may read
    #[arg(long, value_name = "FILE", requires = "queue")]
    queue_password_file: Option<PathBuf>,
    /// Measure again over so many finished jobs
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    history: u32,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Leave out what runs on embedded parts
    #[arg(long, requires = "database")]
    without_embedded: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A part of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Submits, jobs end to end, and how long one takes (P1 to P6)
    Rates,
    /// Memory of jobs and guests, and starts (P7, P8, P15)
    Memory,
    /// Lists and searches (P13)
    Pages,
    /// Jobs of a killed node (P11)
    Takeover,
    /// Cancels that reach commands (P12)
    Cancel,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn services(&self) -> Option<Services> {
        Some(Services {
            database: self.database.clone()?,
            password_file: self.password_file.clone(),
            queue: self.queue.clone()?,
            queue_password_file: self.queue_password_file.clone(),
        })
    }
}

/// Measures and shows. A signal ends it, and with it all that it started and made.
pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut ended, mut broken) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopped = || Err(Error::Usage("stopped by a signal; nothing was measured to its end".to_owned()));
    tokio::select! {
        done = measured(args, out) => done,
        _ = ended.recv() => stopped(),
        _ = broken.recv() => stopped(),
    }
}

async fn measured(args: &Args, out: &mut dyn Write) -> Result<u8, Error> {
    let mut all = Vec::new();
    for n in 1..=args.runs {
        say(&format!("run {n} of {}", args.runs))?;
        all.push(one(args, n == 1).await?);
    }
    // What was measured before is shown even when this fails.
    let full = if args.history > 0 { over_history(args, &mut all).await } else { Ok(()) };
    let median = medians(&all)?;
    if args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "median": median, "runs": all }));
        writeln!(out, "{}", text.unwrap_or_default())?;
    } else {
        show::write(out, &median)?;
    }
    full.map(|()| 0)
}

/// Says on standard error what is done now.
fn say(text: &str) -> Result<(), Error> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

/// One run over empty databases. What is measured many times within a run belongs to the first alone.
async fn one(args: &Args, first: bool) -> Result<Run, Error> {
    let mut run = Run { machine: machine(args)?, ..Run::default() };
    if !args.without_embedded {
        run.embedded = embedded(args, first).await?;
    }
    if let Some(services) = args.services() {
        let house = House::started(&services, args.folder.as_deref(), 1).await?;
        let broker = broker::rates(&house.schema.queue(), Duration::from_secs(1)).await?;
        run.machine.broker_one_per_second = Some(broker.one);
        run.machine.broker_many_per_second = Some(broker.many);
        run.servers = servers(args, house, first).await?;
        if first && (args.wants(Part::Takeover) || args.wants(Part::Cancel)) {
            say("nodes are killed, and commands cancelled")?;
            two_nodes(args, &services, &mut run.servers).await?;
        }
    }
    Ok(run)
}

fn machine(args: &Args) -> Result<Machine, Error> {
    let folder = process::Folder::make(args.folder.as_deref())?;
    let (rate, p50) = limits::fdatasync(folder.path(), Duration::from_secs(1))?;
    Ok(Machine {
        fdatasync_per_second: Some(rate),
        fdatasync_p50_ms: Some(p50),
        program_mb: megabytes(std::env::current_exe().ok()),
        agent_program_mb: megabytes(guests::agent_program()),
        ..Machine::default()
    })
}

/// Size of an executable.
fn megabytes(path: Option<PathBuf>) -> Option<f64> {
    let bytes = std::fs::metadata(path?).ok()?.len();
    Some(f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0)
}

async fn embedded(args: &Args, first: bool) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let mut place = Place::make(args.folder.as_deref())?;
    let file = || limits::file(place.folder());
    if args.wants(Part::Rates) {
        commits(args, &file, &mut figures).await?;
    }
    figures.start_ms = Some(place.start().await?);
    figures.idle_memory_kib = Some(place.memory_kib());
    let load = Load::of(place.client()?);
    if args.wants(Part::Rates) {
        carried_out(args, &load, None, &mut figures).await?;
    }
    if first && args.wants(Part::Pages) {
        pages(args, &place, &mut figures).await?;
    }
    place.stop().await?;
    figures.restart_ms = Some(place.start().await?);
    place.stop().await?;
    if args.wants(Part::Rates) || args.wants(Part::Memory) {
        waiting::embedded(args, &mut figures).await?;
    }
    if first && args.guests > 0 && args.wants(Part::Memory) {
        let mut place = guests::place(args.folder.as_deref(), args.guests)?;
        connected(args, &mut place, &mut figures).await?;
        place.stop().await?;
    }
    Ok(figures)
}

/// The database's own limits.
async fn commits(
    args: &Args,
    database: &dyn Fn() -> Result<crate::store::Manager, Error>,
    figures: &mut Figures,
) -> Result<(), Error> {
    let span = args.span().min(Duration::from_secs(3));
    let many = limits::group_commit(database()?, usize::from(args.clients), span).await?;
    let alone = limits::group_commit(database()?, 1, Duration::from_secs(1)).await?;
    figures.group_commit_rows_per_second = Some(many);
    figures.one_commit_ms = Some(1000.0 / alone.max(1.0));
    Ok(())
}

/// Jobs that are carried out: at a pace, and as many as go. A server says what it was asked for meanwhile.
async fn carried_out(
    args: &Args,
    load: &Load,
    server: Option<&Schema>,
    figures: &mut Figures,
) -> Result<(), Error> {
    let (p50, p99) = load.paced(50, args.span()).await?;
    (figures.paced_p50_ms, figures.paced_p99_ms) = (Some(p50), Some(p99));
    let before = server.map(Schema::asked).transpose()?;
    let (rate, jobs) = load.end_to_end(usize::from(args.clients), args.span()).await?;
    let after = server.map(Schema::asked).transpose()?;
    figures.end_to_end_per_second = Some(rate);
    figures.statements_per_job = before.zip(after).map(|(before, after)| (after - before) / jobs.max(1.0));
    Ok(())
}

/// Jobs that are only accepted: nobody works at them yet, as it is with the limit beside them.
async fn accepted(args: &Args, load: &Load, figures: &mut Figures) -> Result<(), Error> {
    figures.one_client_p50_ms = Some(load.one_client(args.span().min(Duration::from_secs(2))).await?.p50);
    let speed = load.submit(usize::from(args.clients), args.span(), When::Tomorrow).await?;
    figures.submits_per_second = Some(speed.per_second);
    (figures.submit_p50_ms, figures.submit_p99_ms) = (Some(speed.p50), Some(speed.p99));
    Ok(())
}

async fn pages(args: &Args, site: &impl Site, figures: &mut Figures) -> Result<(), Error> {
    let pages = pages::measure(site.client()?, usize::from(args.clients)).await?;
    (figures.page_p50_ms, figures.page_p99_ms) = (Some(pages.p50), Some(pages.p99));
    figures.pages = pages.each;
    Ok(())
}

async fn connected(args: &Args, site: &mut impl Site, figures: &mut Figures) -> Result<(), Error> {
    site.start().await?;
    let cost = guests::cost(site, args.guests).await?;
    figures.guests = Some(f64::from(args.guests));
    figures.guest_bytes = Some(cost.dispatcher_bytes);
    figures.agent_kib = Some(cost.agent_kib);
    Ok(())
}

/// The same work on an installation of several processes; it is ended.
async fn servers(args: &Args, mut house: House, first: bool) -> Result<Figures, Error> {
    let outcome = on_servers(args, &mut house, first).await;
    house.end().await?;
    outcome
}

async fn on_servers(args: &Args, house: &mut House, first: bool) -> Result<Figures, Error> {
    let mut figures = Figures { idle_memory_kib: Some(house.memory_kib()), ..Figures::default() };
    if first && args.guests > 0 && args.wants(Part::Memory) {
        house.crash().await?;
        connected(args, house, &mut figures).await?;
    }
    if args.wants(Part::Rates) {
        commits(args, &|| house.schema.limit(), &mut figures).await?;
        carried_out(args, &Load::of(house.client()?), Some(&house.schema), &mut figures).await?;
    }
    if first && args.wants(Part::Pages) {
        pages(args, house, &mut figures).await?;
    }
    let load = Load::of(house.client()?);
    if args.wants(Part::Rates) {
        accepted(args, &load, &mut figures).await?;
    }
    if args.wants(Part::Memory) {
        waiting::piled(args, &load, house, &mut figures).await?;
        house.crash().await?;
        figures.restart_open_ms = Some(house.start().await?);
    }
    Ok(figures)
}

/// Kills and cancels, which need a second node.
async fn two_nodes(args: &Args, services: &Services, figures: &mut Figures) -> Result<(), Error> {
    let mut house = House::started(services, args.folder.as_deref(), 2).await?;
    let outcome = on_two_nodes(args, &mut house, figures).await;
    house.end().await?;
    outcome
}

async fn on_two_nodes(args: &Args, house: &mut House, figures: &mut Figures) -> Result<(), Error> {
    if args.wants(Part::Cancel) {
        let found = cancel::measure(house).await?;
        (figures.cancel_p50_ms, figures.cancel_p95_ms) = found.percentiles.unzip();
        figures.cancels = Some(count(found.asked));
        figures.cancels_not_reached = Some(count(found.unreached));
    }
    if args.wants(Part::Takeover) {
        let found = takeover::measure(house).await?;
        (figures.takeover_p50_ms, figures.takeover_p99_ms) = (Some(found.p50), Some(found.p99));
        figures.takeover_ended_p99_ms = Some(found.ended_p99);
        figures.takeover_jobs = Some(count(found.jobs));
    }
    Ok(())
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// The runs again over many finished jobs, which are put into the databases once.
async fn over_history(args: &Args, all: &mut [Run]) -> Result<(), Error> {
    if !args.without_embedded {
        say(&format!("{} finished jobs in a file", args.history))?;
        let mut place = Place::make(args.folder.as_deref())?;
        place.start().await?;
        place.stop().await?;
        let database = limits::of_place(place.folder())?;
        let seconds = history::fill(&database, args.history)?.as_secs_f64();
        say(&format!("they took {seconds:.0} s"))?;
        for (n, run) in all.iter_mut().enumerate() {
            place.start().await?;
            let figures = &mut run.embedded_with_history;
            again(args, &place, (n == 0, seconds), figures).await?;
            place.stop().await?;
            history::clear_open(&database)?;
        }
    }
    if let Some(services) = args.services() {
        say(&format!("{} finished jobs on the server", args.history))?;
        let mut house = House::made(&services, args.folder.as_deref()).await?;
        let outcome = on_full_servers(args, &mut house, all).await;
        house.end().await?;
        outcome?;
    }
    Ok(())
}

async fn on_full_servers(args: &Args, house: &mut House, all: &mut [Run]) -> Result<(), Error> {
    let database = house.schema.manager("p")?;
    let seconds = history::fill(&database, args.history)?.as_secs_f64();
    say(&format!("they took {seconds:.0} s"))?;
    history::settle(&database, SETTLE).await?;
    house.open(1).await?;
    for (n, run) in all.iter_mut().enumerate() {
        house.crash().await?;
        history::clear_open(&database)?;
        history::settle(&database, SETTLE).await?;
        house.start().await?;
        again(args, house, (n == 0, seconds), &mut run.servers_with_history).await?;
    }
    Ok(())
}

/// What history must not change.
async fn again(
    args: &Args,
    site: &impl Site,
    (first, seconds): (bool, f64),
    figures: &mut Figures,
) -> Result<(), Error> {
    figures.history = Some(f64::from(args.history));
    figures.history_seconds = Some(seconds);
    let load = Load::of(site.client()?);
    if args.wants(Part::Rates) {
        carried_out(args, &load, None, figures).await?;
    }
    if first && args.wants(Part::Pages) {
        pages(args, site, figures).await?;
    }
    if args.wants(Part::Rates) {
        accepted(args, &load, figures).await?;
    }
    Ok(())
}

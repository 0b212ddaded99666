//! What connected guests cost: memory of the dispatcher for each, and of each guest's agent.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{self, Load};
use super::place::{Place, Site};
use super::process::resident_kib;
use crate::cli::client::{Client, Error};
use crate::model::Micros;

/// Longest wait for all guests.
const PATIENCE: Duration = Duration::from_secs(120);
/// After everybody was heard: what a start needs for a moment is given back.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory for each connected guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Bytes of the dispatcher.
    pub(super) dispatcher_bytes: f64,
    /// Resident kibibytes of one agent; the median.
    pub(super) agent_kib: f64,
}

/// The guest's own executable beside this one, if it was built.
pub(super) fn agent_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("dispatcher-agent");
    beside.exists().then_some(beside)
}

/// One process whose cloud starts the guests' own executable.
pub(super) fn place(folder: Option<&Path>, guests: u32) -> Result<Place, Error> {
    let place = Place::make(folder)?;
    let program = agent_program().map_or_else(String::new, |path| path.display().to_string());
    let settings = place.folder().join("bench.toml");
    std::fs::write(&settings, format!("[simulated]\nguest_program = {}\n", toml::Value::String(program)))?;
    let (limit, settings) = (guests.to_string(), settings.display().to_string());
    Ok(place.with(&["--guest-processes", &limit, "--config", &settings]))
}

/// Connects guests in two halves. After each half the dispatcher is killed and started anew over the guests that live
/// on, so that only what connected guests need is in its memory; what the second half adds is their cost.
pub(super) async fn cost(site: &mut impl Site, guests: u32) -> Result<Cost, Error> {
    let half = guests / 2;
    let mut memory = Vec::new();
    for more in [half, guests - half] {
        launch(&Rc::new(site.client()?), more).await?;
        site.crash().await?;
        let since = Micros::wall().rfc3339();
        site.start().await?;
        let wanted = if memory.is_empty() { half } else { guests };
        all_heard(&site.client()?, wanted, &since).await?;
        tokio::time::sleep(SETTLE).await;
        memory.push(site.memory_kib());
    }
    let mut agents = site.guests().iter().map(|pid| resident_kib(*pid)).collect::<Vec<f64>>();
    agents.sort_by(f64::total_cmp);
    let added = memory.last().copied().unwrap_or_default() - memory.first().copied().unwrap_or_default();
    Ok(Cost {
        dispatcher_bytes: added * 1024.0 / f64::from(guests - half),
        agent_kib: agents.get(agents.len() / 2).copied().unwrap_or_default(),
    })
}

/// Makes so many servers and waits until the guest of each was heard.
pub(super) async fn launch(client: &Rc<Client>, servers: u32) -> Result<(), Error> {
    let known = heard(client, "").await?;
    for n in 0..servers {
        client.post("/api/v1/jobs", &load::launch(&format!("bench-{known}-{n}")), None).await?;
    }
    all_heard(client, known + servers, "").await?;
    Load::sharing(client).drained().await
}

/// Waits until so many guests were heard after a point in time.
async fn all_heard(client: &Client, wanted: u32, since: &str) -> Result<(), Error> {
    let began = Instant::now();
    while heard(client, since).await? < wanted {
        if began.elapsed() > PATIENCE {
            let text = format!("not all of {wanted} guests are heard within {} s", PATIENCE.as_secs());
            return Err(Error::Usage(text));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Guests that were heard after a point in time.
async fn heard(client: &Client, since: &str) -> Result<u32, Error> {
    let listed = client.get("/api/v1/agents").await?;
    let agents = listed.get("agents").and_then(Value::as_array).cloned().unwrap_or_default();
    let last = |agent: &Value| agent.get("lastContact").and_then(Value::as_str).map(str::to_owned);
    let count = agents.iter().filter(|agent| last(agent).is_some_and(|at| at.as_str() > since)).count();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

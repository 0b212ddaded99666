//! What connected guests cost: memory of the dispatcher for each, and of each guest's agent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Load;
use super::place::{Place, resident_kib};
use crate::cli::client::{Client, Error};

/// Longest wait for all guests.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// Connects guests in two halves; what the second half adds is their cost, because the first warms everything up.
pub(super) async fn cost(folder: Option<&Path>, guests: u32) -> Result<Cost, Error> {
    let mut place = Place::make(folder)?;
    let program = agent_program().map_or_else(String::new, |path| path.display().to_string());
    let settings = place.folder().join("bench.toml");
    std::fs::write(&settings, format!("[simulated]\nguest_program = {}\n", toml::Value::String(program)))?;
    place
        .start_with(&["--guest-processes", &guests.to_string(), "--config", &settings.display().to_string()])
        .await?;
    let client = place.client()?;
    let half = guests / 2;
    launch(&client, half).await?;
    Load::of(place.client()?).drained().await?;
    let before = place.memory_kib();
    launch(&client, guests - half).await?;
    Load::of(client).drained().await?;
    let added = place.memory_kib() - before;
    let mut agents = place.guests()?.iter().map(|pid| resident_kib(*pid)).collect::<Vec<f64>>();
    agents.sort_by(f64::total_cmp);
    let cost = Cost {
        dispatcher_bytes: added * 1024.0 / f64::from(guests - half),
        agent_kib: agents.get(agents.len() / 2).copied().unwrap_or_default(),
    };
    place.stop().await?;
    Ok(cost)
}

/// Makes so many servers and waits until the guest of each was heard.
async fn launch(client: &Client, servers: u32) -> Result<(), Error> {
    let known = heard(client).await?;
    for n in 0..servers {
        let params = json!({ "name": format!("bench-{known}-{n}") });
        client.post("/api/v1/jobs", &json!({ "kind": "launch-server", "params": params }), None).await?;
    }
    let wanted = known + usize::try_from(servers).unwrap_or(usize::MAX);
    let began = Instant::now();
    while heard(client).await? < wanted {
        if began.elapsed() > PATIENCE {
            let text = format!("not all of {servers} guests connect within {} s", PATIENCE.as_secs());
            return Err(Error::Usage(text));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Guests that were heard.
async fn heard(client: &Client) -> Result<usize, Error> {
    let listed = client.get("/api/v1/agents?limit=200").await?;
    let agents = listed.get("agents").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(agents.iter().filter(|agent| agent.get("lastContact").is_some_and(Value::is_string)).count())
}

//! The demonstration: launches a server, runs a command on it, and tells the story as it happens.

use std::io::Write as _;
use std::time::Duration;

use super::Error;
use super::dev::House;
use crate::jobs::timeline::timeline;
use crate::model::{
    CommandParams, DataCenterId, ImageId, JobId, JobParams, JobState, JobUid, LaunchParams, ProductId,
    RegionId, ServerId, Uid,
};
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::job::{self, History};
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::{agent, catalog, seed};
use crate::store::{self, analytics};

/// Longest wait for each part of the story.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between looks at the rows.
const LOOK: Duration = Duration::from_millis(20);

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reading is no reason to stop.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn fault(error: store::Error) -> Error {
    Error::Demo(crate::ops::Chain(&error).to_string())
}

/// Tells the story once.
pub(super) async fn show(house: &House) -> Result<(), Error> {
    say("\n1. Launch a server\n");
    let launched = submit(house, launch(house).await?, "Launch server demo").await?;
    let server = launched.job.server.ok_or_else(|| Error::Demo("the launch made no server".to_owned()))?;
    say(&format!("   server {server} runs as {}\n", launched.job.resource.as_deref().unwrap_or("?")));
    handshake(house, server).await?;
    say("\n3. Run a command on its agent\n");
    let argv = ["/bin/sh", "-c", "echo hello from $(uname -s); date -u +%FT%TZ"];
    let params = CommandParams { server, argv: argv.map(str::to_owned).to_vec(), timeout_secs: 30 };
    let ran = submit(house, JobParams::RunCommand(params), "Run a command on the demo server").await?;
    output(house, ran.job.uid).await?;
    heartbeat(house, server).await
}

pub(super) async fn launch(house: &House) -> Result<JobParams, Error> {
    let rows = house
        .base
        .store
        .read(|c| {
            let region = catalog::regions(c, seed::CUSTOMER)?.into_iter().next();
            let Some(region) = region else { return Ok(None) };
            let id = RegionId(region.id);
            let center = catalog::data_centers(c, seed::CUSTOMER, Some(id))?.into_iter().next();
            let product = catalog::products(c, seed::CUSTOMER, Some(id))?.into_iter().next();
            let image = catalog::images(c, seed::CUSTOMER, Some(id))?.into_iter().next();
            Ok(center.zip(product).zip(image).map(|((center, product), image)| (center, product, image)))
        })
        .await
        .map_err(fault)?;
    let (center, product, image) = rows.ok_or_else(|| Error::Demo("the catalogue is empty".to_owned()))?;
    Ok(JobParams::LaunchServer(LaunchParams {
        name: "demo".to_owned(),
        description: "Made by the demonstration".to_owned(),
        account: seed::ACCOUNT,
        cloud: seed::CLOUD,
        region: RegionId(center.region),
        data_center: DataCenterId(center.id),
        provider_data_center: center.provider_id,
        product: ProductId(product.id),
        provider_product: product.provider_id,
        image: ImageId(image.id),
        provider_image: image.provider_id,
        platform: image.platform,
        architecture: image.architecture,
        budget: seed::BUDGET,
        label: None,
        keypair: None,
        sealed_user_data: None,
        groups: Vec::new(),
    }))
}

/// Submits a job and tells its timeline until it ends.
async fn submit(house: &House, params: JobParams, description: &str) -> Result<History, Error> {
    let id = house.base.sequencer.next(Sequence::Job).await.map_err(fault)?;
    let submit = Submit {
        entry: Entry {
            customer: seed::CUSTOMER,
            access_key: "demo".to_owned(),
            request: Uid::random(),
            replay: None,
            idem: None,
            repeat_by_key: false,
        },
        uid: JobUid::random(),
        id: JobId(id),
        account: seed::ACCOUNT,
        person: seed::ADMIN,
        server: params.server(),
        params,
        description: description.to_owned(),
        priority: 0,
        delay: Duration::ZERO,
        limit: LIMIT,
    };
    let uid = submit.uid;
    house.registry.submit(submit).await.map_err(|e| Error::Demo(e.to_string()))?;
    follow(house, uid).await
}

async fn follow(house: &House, uid: JobUid) -> Result<History, Error> {
    let mut told = std::collections::HashSet::new();
    let deadline = tokio::time::Instant::now() + LIMIT * 2;
    while tokio::time::Instant::now() < deadline {
        let history = house.base.store.read(move |c| job::history(c, uid)).await.map_err(fault)?;
        let history = history.ok_or_else(|| Error::Demo("the job is gone".to_owned()))?;
        let ended = history.job.ended_at.is_some();
        for entry in timeline(&history) {
            // What an open job waits for now is told by the verdict that ends the wait.
            if entry.what == "why" || !told.insert((entry.at, entry.what, entry.detail.clone())) {
                continue;
            }
            let since = entry.at.since(history.job.created_at);
            let detail: String = entry.detail.as_deref().unwrap_or_default().chars().take(120).collect();
            let detail = if detail.is_empty() { detail } else { format!("  [{detail}]") };
            say(&format!("   {:>6} ms  {}{detail}\n", since.as_millis(), entry.text));
        }
        match (ended, history.job.state) {
            (false, _) => tokio::time::sleep(LOOK).await,
            (true, JobState::Complete) => return Ok(history),
            (true, state) => {
                let message = history.job.message.clone().unwrap_or_default();
                return Err(Error::Demo(format!("job {} ended {state}: {message}", history.job.id)));
            }
        }
    }
    Err(Error::Demo(format!("the job did not end within {} s", (LIMIT * 2).as_secs())))
}

/// Looks at rows until something is there.
async fn until<T, F>(what: &str, mut look: F) -> Result<T, Error>
where
    F: AsyncFnMut() -> Result<Option<T>, store::Error>,
{
    let deadline = tokio::time::Instant::now() + LIMIT;
    while tokio::time::Instant::now() < deadline {
        if let Some(found) = look().await.map_err(fault)? {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Error::Demo(format!("{what} did not come within {} s", LIMIT.as_secs())))
}

async fn handshake(house: &House, server: ServerId) -> Result<(), Error> {
    say("\n2. Its agent shakes hands\n");
    if house.options.guest_processes == 0 {
        return Err(Error::Demo("no real guests are allowed (--guest-processes 0)".to_owned()));
    }
    let row = until("the agent's handshake", async || {
        let row = house.base.store.read(move |c| agent::by_server(c, server)).await?;
        Ok(row.filter(|row| row.state == agent::state::ACCEPTED))
    })
    .await?;
    let ends = row.expires_at.map_or_else(String::new, |at| crate::model::Micros(at).rfc3339());
    say(&format!(
        "   agent {} version {} at {}, certificate until {ends}\n",
        row.id,
        row.version,
        row.address.as_deref().unwrap_or("?"),
    ));
    Ok(())
}

async fn output(house: &House, job: JobUid) -> Result<(), Error> {
    let rows = house
        .base
        .store
        .read(move |c| {
            let Some(command) = agent::commands_of(c, job)?.into_iter().next() else { return Ok(Vec::new()) };
            agent::read_output(c, &command.id, "stdout", 100)
        })
        .await
        .map_err(fault)?;
    let bytes: Vec<u8> = rows.into_iter().flat_map(|(_, data)| data).collect();
    for line in String::from_utf8_lossy(&bytes).lines() {
        say(&format!("   | {line}\n"));
    }
    Ok(())
}

async fn heartbeat(house: &House, server: ServerId) -> Result<(), Error> {
    say("\n4. Its heartbeat\n");
    let point = until("a heartbeat", async || {
        let points = house.analytics.read(move |c| analytics::newest(c, server.0, 1)).await?;
        Ok(points.into_iter().next())
    })
    .await?;
    say(&format!(
        "   heard after {} µs: load {:.2}, {} of {} MiB in use, {} processes\n",
        point.round_trip_micros, point.cpu_load, point.ram_used_mb, point.ram_total_mb, point.processes
    ));
    Ok(())
}

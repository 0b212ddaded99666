//! The simulated cloud as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::cloud::{self, Inside};
use super::credentials::CloudCredential;
use super::doors::url;
use super::folder::{Folder, write_whole};
use super::running::{Signals, say};
use crate::cloud::Provider as _;
use crate::cloud::remote;
use crate::config::Config;
use crate::crypto::Key;
use crate::km::keyfile;

/// What `dispatcher simulated-cloud` was asked for.
#[derive(Clone, Debug)]
pub struct SimulatedCloud {
    /// Where it listens; loopback only.
    pub listen: SocketAddr,
    /// The data folder, with journal and guests.
    pub data: PathBuf,
    /// Folder of the installation's key; without one that of the settings, else `keys` in the data folder.
    pub keys: Option<PathBuf>,
    /// Where the ready file goes.
    pub ready_file: Option<PathBuf>,
    /// Real guests at most.
    pub guest_processes: usize,
    /// Settings.
    pub config: Config,
}

/// What the ready file says.
#[derive(serde::Serialize)]
struct Ready {
    /// Plain HTTP on loopback.
    url: String,
    /// This process.
    pid: u32,
}

/// Runs the simulated cloud until a signal; then its guests are ended. Guests of a process that was killed live on, and
/// the next one on the same folder adopts them.
///
/// # Errors
/// [`Error`] says which part does not start and what to do.
pub async fn simulated_cloud(options: SimulatedCloud) -> Result<(), Error> {
    let started = Instant::now();
    if !options.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(options.listen));
    }
    // Before anything is ready: who is told so may signal at once.
    let mut signals = Signals::catch()?;
    let folder = Folder::take(&options.data)?;
    let credential = CloudCredential::of(&install_key(&options, &folder)?);
    let inside =
        Inside { data: &folder.path, credential: &credential, guest_processes: options.guest_processes };
    let cloud = cloud::here(&options.config.simulated, inside).await?;
    let listener = folder.listener("cloud", options.listen)?;
    let ready = Ready { url: url("http", std::slice::from_ref(&listener))?, pid: std::process::id() };
    let server =
        remote::serve(Arc::clone(&cloud), listener).map_err(|e| Error::part("listener of the cloud", &e))?;
    let handle = server.handle();
    actix_rt::spawn(server);
    cloud.start_guests();
    if let Some(file) = &options.ready_file {
        write_whole(file, &serde_json::to_vec_pretty(&ready).unwrap_or_default())?;
    }
    let (took, class) = (started.elapsed().as_millis(), cloud.capabilities().class);
    log::info!("simulated cloud of class {class} ready after {took} ms at {}", ready.url);
    say(&format!("simulated cloud of class {class} ready after {took} ms\nurl  {}\n", ready.url));
    signals.next().await;
    say("stopping; a second signal stops at once\n");
    let orderly = async {
        handle.stop(true).await;
        cloud.shutdown().await;
    };
    tokio::select! {
        () = orderly => say("stopped\n"),
        () = signals.next() => say("stopped at once\n"),
    }
    Ok(())
}

/// The installation's key, from which the seeded account's credential is made: the same for every process that is given
/// the same folder, whichever starts first.
fn install_key(options: &SimulatedCloud, folder: &Folder) -> Result<Key, Error> {
    let named = options.config.keys.folder.as_path();
    let keys = match &options.keys {
        Some(keys) => keys.as_path(),
        None if named.as_os_str().is_empty() => return Ok(folder.key("install.key")?),
        None => named,
    };
    Folder::make_keys(keys)?;
    let key = keyfile::load_or_make(&keys.join("install.key"));
    Ok(key.map_err(super::folder::Error::from)?)
}

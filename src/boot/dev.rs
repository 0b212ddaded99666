//! Every role in one process, on embedded parts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::base::{ALONE, Base, Company};
use super::cloud::{Cloud, Inside};
use super::credentials::{self, Line};
use super::doors::{self, Doors};
use super::folder::Folder;
use super::parts::{self, Keys, LOGIN};
use super::ready::Ready;
use super::role::{CHANNEL, INSTALL, KEK, SEAL};
use super::running::{self, Signals, say};
use super::safe::KM_NAME;
use super::wiring::{self, Tools};
use super::{Error, Part, demo};
use crate::access::Access;
use crate::agents::Agents;
use crate::config::{Config, ms};
use crate::crypto::pki::{self, Identity};
use crate::jobs::ports::Enrolment;
use crate::registry::Registry;
use crate::store::{CREDENTIALS, Store};
use crate::web;

/// Life of the certificates of the parts; they are made anew at each start.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What `dispatcher dev` was asked for.
#[derive(Clone, Debug)]
pub struct Dev {
    /// Where the API and the console listen; loopback only.
    pub listen: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// Where the ready file goes.
    pub ready_file: Option<PathBuf>,
    /// Parts left out.
    pub without: BTreeSet<Part>,
    /// Real guests at most.
    pub guest_processes: usize,
    /// Settings.
    pub config: Config,
    /// Whether to launch a server, run a command on it and tell the story.
    pub demo: bool,
}

/// Runs `dispatcher dev` until a signal, or until a part it cannot do without gives up.
///
/// # Errors
/// [`Error`] says which part does not start and what to do.
pub async fn dev(options: Dev) -> Result<(), Error> {
    let started = Instant::now();
    if !options.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(options.listen));
    }
    // Before anything is ready: who is told so may signal at once.
    let signals = Signals::catch()?;
    let house = House::build(options).await?;
    let (doors, ready) = house.open_doors()?;
    if let Some(file) = &house.options.ready_file {
        ready.write(file)?;
    }
    let memory = crate::ops::memory_kib().unwrap_or(0);
    log::info!("ready after {} ms, {memory} KiB", started.elapsed().as_millis());
    say(&format!(
        "ready after {} ms, memory {memory} KiB\nconsole  {}  (login {}, password {})\napi      {}\n",
        started.elapsed().as_millis(),
        ready.console_url,
        ready.console_user,
        ready.console_password,
        ready.url,
    ));
    let story = async {
        if house.options.demo {
            demo::show(&house).await?;
            say(&format!("\nstays up; open {} or press Ctrl-C\n", ready.console_url));
        }
        std::future::pending::<Result<(), Error>>().await
    };
    running::run((&house.base.ops, doors, signals), story, async |doors: &Doors| house.close(doors).await)
        .await
}

/// Everything that runs.
pub(super) struct House {
    pub(super) options: Dev,
    pub(super) base: Base,
    pub(super) analytics: Store,
    pub(super) registry: Registry,
    pub(super) agents: Agents,
    pub(super) cloud: Cloud,
    keys: Keys,
    listener: Identity,
    agent_listener: std::net::TcpListener,
    stop: watch::Sender<bool>,
}

impl House {
    pub(super) async fn build(options: Dev) -> Result<Self, Error> {
        let base = Base::begin(options.config.clone(), options.data.clone(), ALONE, Company::Alone).await?;
        let folder = &base.folder;
        let keys = Keys::of(folder.key(INSTALL)?, &folder.key(SEAL)?);
        parts::plant(&base.store, &keys).await?;
        let analytics = base.analytics()?;
        let services = folder.authority("services")?;
        let issue = |uri: &str, name: &str| {
            services.issue_role(uri, &[name.to_owned()], LIFE).map_err(|e| Error::part("certificates", &e))
        };
        let line = |role| -> Result<Line, Error> {
            Ok(Line { services: services.cert_pem().to_owned(), role, channel: folder.key(CHANNEL)? })
        };
        let (stop, stopped) = watch::channel(false);
        if !options.without.contains(&Part::Km) {
            let own = line(issue(pki::KEY_MANAGER_ROLE, KM_NAME)?)?;
            key_manager(&base, &keys, (&own, &stopped)).await?;
        }
        let dispatcher = line(issue(pki::DISPATCHER_ROLE, "dispatcher")?)?;
        let km = credentials::client(&base, &dispatcher, km_address(folder))?;
        let inside =
            Inside { data: &folder.path, credential: &keys.cloud, guest_processes: options.guest_processes };
        let cloud = Cloud::open(&options.config.simulated, inside).await?;
        let provider = cloud.provider();
        base.live();
        let queue = wiring::queue(&base)?;
        if !options.without.contains(&Part::Monitor) {
            wiring::monitor(&base, &queue, (km.clone(), &provider));
            wiring::janitor(&base, &queue, (km.clone(), &provider));
        }
        if !options.without.contains(&Part::Worker) {
            wiring::worker(&base, &queue);
        }
        let agents = wiring::agents(&base, &queue, (folder.authority("agents")?, dispatcher.role))?;
        if !options.without.contains(&Part::Pinger) {
            wiring::pinger(&base, &analytics, wiring::sessions(&agents));
        }
        let agent_listener = folder.listener("agents", SocketAddr::new(options.listen.ip(), 0))?;
        let at = doors::url("https", std::slice::from_ref(&agent_listener))?;
        let enrolment = Enrolment {
            urls: vec![at],
            root: services.cert_pem().to_owned(),
            token_life: ms(options.config.jobs.enrol_ms),
        };
        let (install, ring) = (Arc::clone(&keys.install), Arc::clone(&keys.ring));
        let registry =
            wiring::registry(&base, &queue, Tools { install, ring, km, cloud: provider, enrolment });
        cloud.start_guests();
        let names = [options.listen.ip().to_string(), "dispatcher".to_owned(), "localhost".to_owned()];
        let listener = services.issue_server(&names, LIFE).map_err(|e| Error::part("agent listener", &e))?;
        Ok(Self { options, base, analytics, registry, agents, cloud, keys, listener, agent_listener, stop })
    }

    fn open_doors(&self) -> Result<(Doors, Ready), Error> {
        let fault = |part: &'static str| move |e: std::io::Error| Error::part(part, &e);
        let (base, folder) = (&self.base, &self.base.folder);
        let state = api_state(base, (&self.registry, &self.agents), &self.keys);
        let api = vec![folder.listener("api", self.options.listen)?];
        let agents = vec![self.agent_listener.try_clone().map_err(fault("agent listener"))?];
        let (url, agent_url) = (doors::url("http", &api)?, doors::url("https", &agents)?);
        let tls = doors::shown_to_guests(&self.listener)?;
        let routes = web::agent_socket::routes(self.agents.clone());
        let mut open = Doors::default();
        open.open(web::api_server(state.clone(), api, None).map_err(fault("api listener"))?);
        open.open(web::agent_server(state, agents, &tls, routes).map_err(fault("agent listener"))?);
        let local = SocketAddr::new(self.options.listen.ip(), 0);
        let ops_url = open.open_ops((&base.ops, Some(&base.store)), (folder, &[local]))?;
        let ready = Ready {
            console_url: format!("{url}/"),
            url,
            agent_url,
            access_key: self.keys.access_key.clone(),
            secret_key: self.keys.secret_key.clone(),
            console_user: LOGIN.to_owned(),
            console_password: self.keys.password.clone(),
            ops_url,
            pid: std::process::id(),
        };
        Ok((open, ready))
    }

    /// Lets what runs come to a stop, then ends the guests.
    async fn close(&self, doors: &Doors) {
        doors.close().await;
        running::drain(&self.base, &self.registry).await;
        self.cloud.shutdown().await;
        let _ = self.stop.send(true);
        self.base.farewell().await;
    }
}

/// What every handler of the APIs gets.
pub(super) fn api_state(base: &Base, (registry, agents): (&Registry, &Agents), keys: &Keys) -> web::State {
    let parts = web::Parts {
        store: base.store.clone(),
        sequencer: base.sequencer.clone(),
        registry: registry.clone(),
        agents: Some(agents.clone()),
        access: Access::new(base.store.clone(), Arc::clone(&keys.ring)),
        user_data: Arc::clone(&keys.ring),
        health: base.ops.health.clone(),
        metrics: base.ops.metrics.clone(),
        supervisor: base.ops.supervisor.clone(),
    };
    web::State::new(parts, web::Limits::default())
}

/// The key manager of an embedded installation, with the first credential in it.
async fn key_manager(
    base: &Base,
    keys: &Keys,
    (line, stopped): (&Line, &watch::Receiver<bool>),
) -> Result<(), Error> {
    let manager = base.databases().manager(CREDENTIALS)?;
    let store = credentials::open(manager, &base.folder.key(KEK)?, &base.ops).await?;
    credentials::enter(&store, &keys.cloud).await?;
    let listener = base.folder.listener("km", SocketAddr::from(([127, 0, 0, 1], 0)))?;
    credentials::serve(&store, line, (&base.config.km, vec![listener]), stopped)
}

/// Where this folder's key manager listens, or listened last.
fn km_address(folder: &Folder) -> String {
    let port = std::fs::read_to_string(folder.path.join("port.km")).unwrap_or_default();
    format!("127.0.0.1:{}", if port.is_empty() { "1" } else { port.trim() })
}

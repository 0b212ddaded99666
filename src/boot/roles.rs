//! One role as a process of its own: `serve`, `monitor`, `worker`, `pinger`, `km`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::Error;
use super::base::{Base, Company, Ops};
use super::cloud;
use super::credentials::{self, Line};
use super::databases::Databases;
use super::dev::api_state;
use super::doors::{self, Doors};
use super::folder::Folder;
use super::parts::Keys;
use super::ready::RoleReady;
use super::role::{CHANNEL, INSTALL, KEK, Role, SEAL};
use super::running::{self, Signals, say};
use super::safe::Safe;
use super::wiring::{self, Tools};
use crate::agents::Agents;
use crate::config::{Config, ms};
use crate::crypto::Secret;
use crate::crypto::pki::{self, Identity};
use crate::jobs::ports::Enrolment;
use crate::ops::privileges::Runner;
use crate::registry::Registry;
use crate::store::CREDENTIALS;
use crate::store::provisioning::seed;
use crate::web;

/// What a role was asked for.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which.
    pub role: Role,
    /// Settings.
    pub config: Config,
    /// Where the ready file goes.
    pub ready_file: Option<PathBuf>,
}

/// Runs a role until a signal, or until a part it cannot do without gives up.
///
/// # Errors
/// [`Error`] says which part does not start and what to do.
pub async fn start(options: Start) -> Result<(), Error> {
    // Before anything is ready: who is told so may signal at once.
    let process = &options.config.process;
    let runner = Runner::find(&process.user, &process.group).map_err(|e| Error::part("process", &e))?;
    let asked = Asked { since: Instant::now(), signals: Signals::catch()?, options, runner };
    match asked.options.role {
        Role::Serve => serve(asked).await,
        Role::Monitor => monitor(asked).await,
        Role::Worker => worker(asked).await,
        Role::Pinger => pinger(asked).await,
        Role::Km => km(asked).await,
    }
}

/// What a role would miss when it started with these settings: keys, certificates, files, a cloud that is named. Nothing is
/// opened or dialled.
#[must_use]
pub fn examine(role: Role, config: &Config) -> Vec<Error> {
    let safe = safe_of(config);
    let mut problems: Vec<Error> = Vec::new();
    let mut look = |outcome: Result<(), Error>| problems.extend(outcome.err());
    for key in role.keys() {
        look(safe.key(key).map(drop).map_err(Error::from));
    }
    if role.uri().is_some() {
        look(safe.services().map(drop).map_err(Error::from));
        look(safe.role().map(drop).map_err(Error::from));
    }
    if role == Role::Serve {
        look(safe.agents().map(drop).map_err(Error::from));
        look(safe.listener().map(drop).map_err(Error::from));
        look(api_tls(Path::new(&config.listen.certificate), Path::new(&config.listen.key)).map(drop));
    }
    if matches!(role, Role::Serve | Role::Monitor) && config.simulated.url.is_empty() {
        look(Err(cloud::unnamed()));
    }
    if role != Role::Km && config.database.provisioning.is_empty() {
        look(Err(Error::NoServer));
    }
    problems
}

fn safe_of(config: &Config) -> Safe {
    let (named, data) = (&config.keys.folder, &config.process.data);
    if named.as_os_str().is_empty() { Safe::new(&data.join("keys")) } else { Safe::new(named) }
}

struct Asked {
    since: Instant,
    signals: Signals,
    options: Start,
    /// Who the process runs as, where it is not who started it.
    runner: Option<Runner>,
}

impl Asked {
    /// Opens files as the user from now on. Keys are read before: they may be root's.
    fn step_down(&self) -> Result<(), Error> {
        self.runner.as_ref().map_or(Ok(()), Runner::step_down).map_err(|e| Error::part("process", &e))
    }

    fn safe(&self) -> Safe {
        safe_of(&self.options.config)
    }

    async fn base(&self) -> Result<Base, Error> {
        self.step_down()?;
        let config = self.options.config.clone();
        let data = config.process.data.clone();
        let base = Base::begin(config, data, self.options.role.as_str(), Company::Others).await?;
        let fault = |source| Error::Database { name: "provisioning", source };
        match base.store.read(seed::is_seeded).await.map_err(fault)? {
            true => Ok(base),
            false => Err(Error::NotSetUp),
        }
    }

    /// Says on the terminal, in the log and in the ready file that the role runs.
    fn ready(&self, ready: &RoleReady) -> Result<(), Error> {
        self.runner.as_ref().map_or(Ok(()), Runner::stay_down).map_err(|e| Error::part("process", &e))?;
        if let Some(file) = &self.options.ready_file {
            ready.write(file)?;
        }
        let (role, took) = (self.options.role, self.since.elapsed().as_millis());
        let memory = crate::ops::memory_kib().unwrap_or(0);
        log::info!("{role} is ready after {took} ms, {memory} KiB");
        say(&format!("{role} is ready after {took} ms, memory {memory} KiB\n"));
        for (what, url) in ready.urls() {
            say(&format!("{what:<8} {url}\n"));
        }
        Ok(())
    }
}

/// A role without a story of its own only waits.
async fn waiting() -> Result<(), Error> {
    std::future::pending().await
}

fn line(safe: &Safe) -> Result<Line, Error> {
    Ok(Line { services: safe.services()?, role: safe.role()?, channel: safe.key(CHANNEL)? })
}

async fn serve(asked: Asked) -> Result<(), Error> {
    let safe = asked.safe();
    let keys = Keys::of(safe.key(INSTALL)?, &safe.key(SEAL)?);
    let line = line(&safe)?;
    let (authority, shown) = (safe.agents()?, doors::shown_to_guests(&safe.listener()?)?);
    let listen = &asked.options.config.listen;
    let tls = api_tls(Path::new(&listen.certificate), Path::new(&listen.key))?;
    let base = asked.base().await?;
    let km = credentials::client(&base, &line, base.config.km.address.clone())?;
    let cloud = cloud::driver(&base.config.simulated).await?;
    base.live();
    let queue = wiring::queue(&base)?;
    let agents = wiring::agents(&base, &queue, (authority, line.role))?;
    let listeners = doors::bind(&base.folder, "agents", &base.config.listen.agents)?;
    let at = doors::url("https", &listeners)?;
    let said = base.config.listen.agent_urls.clone();
    let urls = if said.is_empty() { vec![at.clone()] } else { said };
    let enrolment = Enrolment { urls, root: line.services, token_life: ms(base.config.jobs.enrol_ms) };
    let (install, ring) = (Arc::clone(&keys.install), Arc::clone(&keys.ring));
    let registry = wiring::registry(&base, &queue, Tools { install, ring, km, cloud, enrolment });
    let open = Open { base: &base, registry: &registry, agents: &agents, keys: &keys };
    let (doors, mut ready) = open.doors((listeners, &shown), tls.as_ref())?;
    ready.agent_url = Some(at);
    asked.ready(&ready)?;
    let close = async |doors: &Doors| {
        doors.close().await;
        running::drain(&base, &registry).await;
        agents.stop();
        base.farewell().await;
    };
    running::run((&base.ops, doors, asked.signals), waiting(), close).await
}

/// What `serve` opens its doors with.
struct Open<'a> {
    base: &'a Base,
    registry: &'a Registry,
    agents: &'a Agents,
    keys: &'a Keys,
}

impl Open<'_> {
    fn doors(
        &self,
        (for_agents, shown): (Vec<std::net::TcpListener>, &rustls::ServerConfig),
        tls: Option<&rustls::ServerConfig>,
    ) -> Result<(Doors, RoleReady), Error> {
        let fault = |part: &'static str| move |e: std::io::Error| Error::part(part, &e);
        let (base, listen) = (self.base, &self.base.config.listen);
        let state = api_state(base, (self.registry, self.agents), self.keys);
        let api = doors::bind(&base.folder, "api", &listen.api)?;
        let url = doors::url(if tls.is_some() { "https" } else { "http" }, &api)?;
        let mut open = Doors::default();
        let routes = web::agent_socket::routes(self.agents.clone());
        open.open(web::api_server(state.clone(), api, tls).map_err(fault("api listener"))?);
        open.open(web::agent_server(state, for_agents, shown, routes).map_err(fault("agent listener"))?);
        let ops_url = open.open_ops((&base.ops, Some(&base.store)), (&base.folder, &listen.ops))?;
        Ok((open, RoleReady { url: Some(url), ..RoleReady::new(Role::Serve, ops_url) }))
    }
}

/// What the API's listeners show; nothing where no certificate is named.
fn api_tls(certificate: &Path, key: &Path) -> Result<Option<rustls::ServerConfig>, Error> {
    if certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| Error::Part {
            part: "api listener",
            text: format!("{} cannot be read: {e}", path.display()),
        })
    };
    let identity = Identity { cert_pem: read(certificate)?, key_pem: Secret::from(read(key)?) };
    pki::server_config(&identity, None, false).map(Some).map_err(|e| Error::part("api listener", &e))
}

async fn monitor(asked: Asked) -> Result<(), Error> {
    let line = line(&asked.safe())?;
    let base = asked.base().await?;
    let km = credentials::client(&base, &line, base.config.km.address.clone())?;
    let cloud = cloud::driver(&base.config.simulated).await?;
    base.live();
    let queue = wiring::queue(&base)?;
    wiring::monitor(&base, &queue, (km.clone(), &cloud));
    wiring::janitor(&base, &queue, (km, &cloud));
    alone(asked, base).await
}

async fn worker(asked: Asked) -> Result<(), Error> {
    let base = asked.base().await?;
    base.live();
    let queue = wiring::queue(&base)?;
    wiring::worker(&base, &queue);
    alone(asked, base).await
}

async fn pinger(asked: Asked) -> Result<(), Error> {
    let safe = asked.safe();
    let identities = (safe.agents_root()?, safe.role()?);
    let base = asked.base().await?;
    let analytics = base.analytics()?;
    base.live();
    let guests = wiring::dialled(&base, identities)?;
    wiring::pinger(&base, &analytics, guests);
    alone(asked, base).await
}

/// Runs a role that nobody but operators speaks to.
async fn alone(asked: Asked, base: Base) -> Result<(), Error> {
    let mut doors = Doors::default();
    let ops_url = doors.open_ops((&base.ops, Some(&base.store)), (&base.folder, &base.config.listen.ops))?;
    asked.ready(&RoleReady::new(asked.options.role, ops_url))?;
    let close = async |_: &Doors| base.farewell().await;
    running::run((&base.ops, doors, asked.signals), waiting(), close).await
}

/// The key manager has no life in the database of jobs: it reads the credentials and nothing else.
async fn km(asked: Asked) -> Result<(), Error> {
    let (safe, config) = (asked.safe(), &asked.options.config);
    let (line, kek) = (line(&safe)?, safe.key(KEK)?);
    asked.step_down()?;
    let folder = Folder::take(&config.process.data)?;
    let ops = Ops::new();
    let manager = Databases::new(&config.database, &folder.path).manager(CREDENTIALS)?;
    let store = credentials::open(manager, &kek, &ops).await?;
    let listeners = doors::bind(&folder, "km", &config.listen.km)?;
    let address = doors::url("tls", &listeners)?;
    let (stop, stopped) = watch::channel(false);
    credentials::serve(&store, &line, (&config.km, listeners), &stopped)?;
    let mut doors = Doors::default();
    let ops_url = doors.open_ops((&ops, None), (&folder, &config.listen.ops))?;
    let ready = RoleReady { km: Some(address), ..RoleReady::new(Role::Km, ops_url) };
    asked.ready(&ready)?;
    let close = async |_: &Doors| {
        let _ = stop.send(true);
    };
    running::run((&ops, doors, asked.signals), waiting(), close).await
}

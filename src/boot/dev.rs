//! Every role in one process, on embedded parts.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::cloud::{Cloud, Inside};
use super::credentials::{self, Client};
use super::databases::Databases;
use super::folder::Folder;
use super::parts::{self, Keys, LOGIN, Rows};
use super::ready::Ready;
use super::wiring::Wiring;
use super::{Dev, Error, Part, demo, last_resort};
use crate::access::Access;
use crate::agents::Agents;
use crate::config::ms;
use crate::crypto::pki;
use crate::jobs::ports::Enrolment;
use crate::ops::{Health, Metrics};
use crate::registry::Registry;
use crate::store::provisioning::sequence::Sequencer;
use crate::store::{AnyConnection, CREDENTIALS, Store};
use crate::supervision::{Supervisor, limited};
use crate::web;

/// How long health can still be read after the process was found unable to go on.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longest wait for one request to the registry.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
/// Life of the TLS listener's certificate; it is made anew at each start.
const LISTENER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

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
    let mut signals = Signals::catch()?;
    let house = House::build(options).await?;
    let doors = house.open_doors()?;
    let ready = doors.ready.clone();
    if let Some(file) = &house.options.ready_file {
        ready.write(file)?;
    }
    log::info!(
        "ready after {} ms, {} KiB",
        started.elapsed().as_millis(),
        crate::ops::memory_kib().unwrap_or(0)
    );
    say(&format!(
        "ready after {} ms, memory {} KiB\nconsole  {}  (login {}, password {})\napi      {}\n",
        started.elapsed().as_millis(),
        crate::ops::memory_kib().unwrap_or(0),
        ready.console_url,
        ready.console_user,
        ready.console_password,
        ready.url,
    ));
    let outcome = house.run(&doors, &mut signals).await;
    if matches!(outcome, Err(Error::Fatal(_))) {
        house.abandon(doors).await;
    } else {
        house.close(doors, &mut signals).await;
    }
    outcome
}

pub(super) fn say(text: &str) {
    // Nobody reading is no reason to stop.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// The signals that end the process in order.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, Error> {
        let caught = |kind| signal(kind).map_err(|e| Error::part("signals", &e));
        Ok(Self { interrupt: caught(SignalKind::interrupt())?, terminate: caught(SignalKind::terminate())? })
    }

    /// Until the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}

/// Everything that runs.
pub(super) struct House {
    pub(super) options: Dev,
    pub(super) store: Store,
    pub(super) analytics: Store,
    pub(super) sequencer: Sequencer,
    pub(super) registry: Registry,
    pub(super) agents: Agents,
    keys: Keys,
    pub(super) cloud: Cloud,
    pub(super) supervisor: Supervisor,
    services: pki::Authority,
    health: Health,
    metrics: Metrics,
    agent_listener: TcpListener,
    folder: Folder,
    stop: watch::Sender<bool>,
    _hold: Option<AnyConnection>,
}

/// Open listeners.
struct Doors {
    ready: Ready,
    handles: Vec<ServerHandle>,
}

impl House {
    pub(super) async fn build(options: Dev) -> Result<Self, Error> {
        let folder = Folder::take(&options.data)?;
        let keys = Keys::of(&folder)?;
        let databases = Databases::new(&options.config.database, &folder.path);
        let (health, metrics) = (Health::new(), Metrics::new());
        let supervisor = Supervisor::with_metrics(health.clone(), metrics.clone());
        let Rows { store, analytics, boot, clock, hold } =
            parts::rows(&databases, &keys, (&supervisor, &metrics)).await?;
        let services = folder.authority("services")?;
        let (stop, stopped) = watch::channel(false);
        if !options.without.contains(&Part::Km) {
            let parts = (&keys.cloud, databases.manager(CREDENTIALS)?);
            let settings = (&options.config.km, stopped);
            credentials::serve(&folder, &services, parts, (settings, &supervisor)).await?;
        }
        let told = (health.clone(), metrics.clone());
        let km = credentials::client(&folder, &services, Client::new(&supervisor, boot, told))?;
        let inside =
            Inside { data: &folder.path, credential: &keys.cloud, guest_processes: options.guest_processes };
        let cloud = Cloud::open(&options.config.simulated, inside).await?;
        let agent_listener = folder.listener("agents", SocketAddr::new(options.listen.ip(), 0))?;
        let sequencer = Sequencer::new(store.clone());
        let wiring = Wiring {
            config: &options.config,
            without: &options.without,
            store: &store,
            analytics: &analytics,
            sequencer: &sequencer,
            supervisor: &supervisor,
            metrics: &metrics,
            health: &health,
            boot,
            clock,
        };
        let enrolment = enrolment(&agent_listener, &services, options.config.jobs.enrol_ms)?;
        let ports = wiring.ports(&keys, km, cloud.provider(), enrolment)?;
        let changes = ports.1.clone();
        let (registry, agents) = wiring.start(ports, &folder, &services)?;
        let registry = Registry::new(registry, changes, REGISTRY_LIMIT);
        cloud.start_guests();
        Ok(Self {
            options,
            store,
            analytics,
            sequencer,
            registry,
            agents,
            keys,
            cloud,
            supervisor,
            services,
            health,
            metrics,
            agent_listener,
            folder,
            stop,
            _hold: hold,
        })
    }

    fn open_doors(&self) -> Result<Doors, Error> {
        let fault = |part: &'static str| move |e: std::io::Error| Error::part(part, &e);
        let parts = web::Parts {
            store: self.store.clone(),
            sequencer: self.sequencer.clone(),
            registry: self.registry.clone(),
            agents: Some(self.agents.clone()),
            access: Access::new(self.store.clone(), Arc::clone(&self.keys.ring)),
            user_data: Arc::clone(&self.keys.ring),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            supervisor: self.supervisor.clone(),
        };
        let state = web::State::new(parts, web::Limits::default());
        let api = self.folder.listener("api", self.options.listen)?;
        let ops = self.folder.listener("ops", SocketAddr::new(self.options.listen.ip(), 0))?;
        let (api_url, ops_url) = (url("http", &api)?, url("http", &ops)?);
        let names = [self.options.listen.ip().to_string(), "dispatcher".to_owned(), "localhost".to_owned()];
        let identity = self
            .services
            .issue_server(&names, LISTENER_LIFE)
            .map_err(|e| Error::part("agent listener", &e))?;
        let tls =
            pki::server_config(&identity, None, false).map_err(|e| Error::part("agent listener", &e))?;
        let for_agents = self.agent_listener.try_clone().map_err(fault("agent listener"))?;
        let servers = [
            web::api_server(state.clone(), api).map_err(fault("api listener"))?,
            web::agent_server(state.clone(), for_agents, tls, web::agent_socket::routes(self.agents.clone()))
                .map_err(fault("agent listener"))?,
            web::ops_server(state, ops).map_err(fault("ops listener"))?,
        ];
        let handles = servers.iter().map(actix_web::dev::Server::handle).collect();
        for server in servers {
            actix_rt::spawn(server);
        }
        let ready = Ready {
            console_url: format!("{api_url}/"),
            url: api_url,
            agent_url: url("https", &self.agent_listener)?,
            access_key: self.keys.access_key.clone(),
            secret_key: self.keys.secret_key.clone(),
            console_user: LOGIN.to_owned(),
            console_password: self.keys.password.clone(),
            ops_url,
            pid: std::process::id(),
        };
        Ok(Doors { ready, handles })
    }

    /// Until a signal, or until the process must end.
    async fn run(&self, doors: &Doors, signals: &mut Signals) -> Result<(), Error> {
        self.supervisor.watch_here("main");
        last_resort::guard(&self.supervisor)?;
        let showing = async {
            if self.options.demo {
                demo::show(self).await?;
                say(&format!("\nstays up; open {} or press Ctrl-C\n", doors.ready.console_url));
            }
            std::future::pending::<Result<(), Error>>().await
        };
        tokio::select! {
            () = signals.next() => Ok(()),
            cause = self.supervisor.fatal() => Err(Error::Fatal(cause)),
            stopped = showing => stopped,
        }
    }

    /// Ends what cannot go on. Nothing is waited for that may never come: jobs are taken up again by the next life,
    /// guests live on and are adopted by it. Health can be read for a moment, so that whoever asks every second or so
    /// hears why.
    async fn abandon(self, doors: Doors) {
        let said = tokio::time::Instant::now();
        let Some((ops, others)) = doors.handles.split_last() else { return };
        for handle in others {
            // Sent at once; whether the last request got its answer is not waited for.
            drop(handle.stop(false));
        }
        tokio::time::sleep_until(said + LAST_WORDS).await;
        let _late = limited(LAST_WORDS, ops.stop(false)).await;
    }

    /// Lets what runs come to a stop, then ends the guests. A second signal ends at once.
    async fn close(self, doors: Doors, signals: &mut Signals) {
        say("stopping; a second Ctrl-C stops at once\n");
        let orderly = async {
            for handle in &doors.handles {
                handle.stop(true).await;
            }
            let left = self.registry.drain(ms(self.options.config.jobs.drain_ms)).await;
            say(&format!("jobs still at work, taken up again at the next start: {left}\n"));
            self.cloud.shutdown().await;
            let _ = self.stop.send(true);
        };
        tokio::select! {
            () = orderly => say("stopped\n"),
            () = signals.next() => say("stopped at once\n"),
        }
    }
}

/// What new guests are told.
fn enrolment(listener: &TcpListener, services: &pki::Authority, life: u64) -> Result<Enrolment, Error> {
    Ok(Enrolment { url: url("https", listener)?, root: services.cert_pem().to_owned(), token_life: ms(life) })
}

/// URL of a listener.
pub(super) fn url(scheme: &str, listener: &TcpListener) -> Result<String, Error> {
    let address = listener.local_addr().map_err(|e| Error::part("listener", &e))?;
    Ok(format!("{scheme}://{address}"))
}

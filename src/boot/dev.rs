//! Every role in one process, on embedded parts.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::adapters::{KmKeys, Sessions};
use super::credentials::{self, Client};
use super::folder::Folder;
use super::parts::{self, Keys, LOGIN};
use super::ready::Ready;
use super::{Dev, Error, Part, demo};
use crate::access::Access;
use crate::agents::{self, Agents};
use crate::cloud::Clouds;
use crate::cloud::simulated::Simulated;
use crate::config::{Config, ms};
use crate::crypto::pki;
use crate::jobs::machine::Limits;
use crate::jobs::ports::{Enrolment, Ports};
use crate::jobs::{self, Changes, SqlStore, SystemClock};
use crate::model::Boot;
use crate::monitor::{CloudLook, Monitor};
use crate::mq::{Embedded, Queue};
use crate::ops::{Health, Metrics};
use crate::pinger::{self, Pinger};
use crate::registry::{self, Beat, NodeActor, NodeSpec, Registry, RegistryActor, Running};
use crate::store::provisioning::seed;
use crate::store::provisioning::sequence::Sequencer;
use crate::store::{ANALYTICS, PROVISIONING, Store};
use crate::supervision::{self, Options, Supervisor};
use crate::web;
use crate::worker::{ReportLook, Worker};

/// Longest wait for one request to the registry.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
/// Life of the TLS listener's certificate; it is made anew at each start.
const LISTENER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long idempotency keys are kept.
const KEEP_KEYS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs `dispatcher dev` until a signal, or until a part it cannot do without gives up.
///
/// # Errors
/// [`Error`] says which part does not start and what to do.
pub async fn dev(options: Dev) -> Result<(), Error> {
    let started = Instant::now();
    if !options.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(options.listen));
    }
    let house = House::build(options).await?;
    let doors = house.open_doors()?;
    let ready = doors.ready.clone();
    if let Some(file) = &house.options.ready_file {
        ready.write(file)?;
    }
    log::info!("ready after {} ms, {} KiB", started.elapsed().as_millis(), crate::ops::memory_kib().unwrap_or(0));
    say(&format!(
        "ready after {} ms, memory {} KiB\nconsole  {}  (login {}, password {})\napi      {}\n",
        started.elapsed().as_millis(),
        crate::ops::memory_kib().unwrap_or(0),
        ready.console_url,
        ready.console_user,
        ready.console_password,
        ready.url,
    ));
    let outcome = house.run(&doors).await;
    house.close(doors).await;
    outcome
}

fn say(text: &str) {
    // Nobody reading is no reason to stop.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
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
    cloud: Arc<Simulated>,
    supervisor: Supervisor,
    services: pki::Authority,
    health: Health,
    metrics: Metrics,
    agent_listener: TcpListener,
    folder: Folder,
    stop: watch::Sender<bool>,
}

/// Open listeners.
struct Doors {
    ready: Ready,
    handles: Vec<ServerHandle>,
}

impl House {
    async fn build(options: Dev) -> Result<Self, Error> {
        let folder = Folder::take(&options.data)?;
        let keys = Keys::of(&folder)?;
        let (health, metrics) = (Health::new(), Metrics::new());
        let supervisor = Supervisor::with_metrics(health.clone(), metrics.clone());
        let store = parts::database(&folder, PROVISIONING, &metrics)?;
        let analytics = parts::database(&folder, ANALYTICS, &metrics)?;
        let boot = Boot::random();
        parts::begin_life(&store, boot).await?;
        parts::plant(&store, &keys).await?;
        let services = folder.authority("services")?;
        let (stop, stopped) = watch::channel(false);
        if !options.without.contains(&Part::Km) {
            credentials::serve(&folder, &services, &keys.cloud, (&options.config.km, stopped)).await?;
        }
        let km = credentials::client(
            &folder,
            &services,
            Client {
                supervisor: &supervisor,
                arbiter: &supervisor.arbiter("plumbing"),
                boot,
                health: health.clone(),
                metrics: metrics.clone(),
            },
        )?;
        let cloud = parts::cloud(&folder, &keys, &options.config.simulated, options.guest_processes).await?;
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
            boot,
        };
        let enrolment = Enrolment {
            url: url("https", &agent_listener)?,
            root: services.cert_pem().to_owned(),
            token_life: ms(options.config.jobs.enrol_ms),
        };
        let ports = wiring.ports(&keys, km, &cloud, enrolment);
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
        })
    }

    fn open_doors(&self) -> Result<Doors, Error> {
        let fault = |part: &'static str| move |e: std::io::Error| Error::part(part, &e);
        let parts = web::Parts {
            store: self.store.clone(),
            registry: self.registry.clone(),
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
        let identity =
            self.services.issue_server(&names, LISTENER_LIFE).map_err(|e| Error::part("agent listener", &e))?;
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
    async fn run(&self, doors: &Doors) -> Result<(), Error> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Error::part("signals", &e))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| Error::part("signals", &e))?;
        let showing = async {
            if self.options.demo {
                demo::show(self).await?;
                say(&format!("\nstays up; open {} or press Ctrl-C\n", doors.ready.console_url));
            }
            std::future::pending::<Result<(), Error>>().await
        };
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            cause = self.supervisor.fatal() => Err(Error::Fatal(cause)),
            stopped = showing => stopped,
        }
    }

    /// Lets what runs come to a stop, then ends the guests. A second signal ends at once.
    async fn close(self, doors: Doors) {
        say("stopping; a second Ctrl-C stops at once\n");
        let again = async {
            match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
                (Ok(mut interrupt), Ok(mut terminate)) => {
                    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                }
                _ => std::future::pending().await,
            }
        };
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
            () = again => say("stopped at once\n"),
        }
    }
}

/// What the actors are wired with.
struct Wiring<'a> {
    config: &'a Config,
    without: &'a std::collections::BTreeSet<Part>,
    store: &'a Store,
    analytics: &'a Store,
    sequencer: &'a Sequencer,
    supervisor: &'a Supervisor,
    metrics: &'a Metrics,
    boot: Boot,
}

impl Wiring<'_> {
    fn ports(
        &self,
        keys: &Keys,
        km: crate::km::Km,
        cloud: &Arc<Simulated>,
        enrolment: Enrolment,
    ) -> (Ports, Changes, Beat) {
        let changes = Changes::new();
        let beat = Beat::new(ms(self.config.node.fresh_ms));
        let mut clouds = Clouds::new();
        clouds.insert(seed::CLOUD, Arc::clone(cloud) as Arc<dyn crate::cloud::Provider>);
        let limits = &self.config.jobs;
        let rows = SqlStore::new(
            self.store.clone(),
            self.sequencer.clone(),
            self.boot,
            changes.clone(),
            self.metrics.clone(),
        );
        let ports = Ports {
            clock: Arc::new(SystemClock),
            store: Arc::new(rows),
            queue: Arc::new(Embedded::new()),
            keys: Arc::new(KmKeys(km)),
            clouds,
            liveness: Arc::new(beat.clone()),
            boot: self.boot,
            install: Arc::clone(&keys.install),
            ring: Arc::clone(&keys.ring),
            limits: Limits {
                retry_first: ms(limits.retry_first_ms),
                retry_most: ms(limits.retry_most_ms),
                calls: limits.calls,
                grace: ms(limits.grace_ms),
                ..Limits::default()
            },
            call_limit: ms(limits.call_ms),
            command_wait: ms(limits.command_wait_ms),
            enrolment: Some(Arc::new(enrolment)),
        };
        (ports, changes, beat)
    }

    fn start(
        &self,
        (ports, changes, beat): (Ports, Changes, Beat),
        folder: &Folder,
        services: &pki::Authority,
    ) -> Result<(supervision::Mailbox<RegistryActor>, Agents), Error> {
        let plumbing = self.supervisor.arbiter("plumbing");
        let node = NodeSpec {
            store: self.store.clone(),
            boot: self.boot,
            beat,
            every: ms(self.config.node.beat_ms),
        };
        // A life once declared dead stays dead: no restart cures it.
        let once = Options {
            limits: supervision::Limits { budget: 0, ..supervision::Limits::default() },
            ..Options::permanent()
        };
        let _node = self.supervisor.spawn::<NodeActor>(&plumbing, node, once);
        let queue: Arc<dyn Queue> = Arc::clone(&ports.queue);
        self.watchers(&ports, &changes);
        let agents = self.agents(&queue, folder, services)?;
        let spec = registry::Spec {
            store: self.store.clone(),
            queue,
            changes,
            metrics: self.metrics.clone(),
            supervisor: self.supervisor.clone(),
            jobs: self.supervisor.arbiter("jobs"),
            ports,
            sweep: ms(self.config.jobs.sweep_ms),
            running: Running::new(self.config.jobs.most),
            set_aside: Duration::from_secs(60),
            keep_keys: KEEP_KEYS,
            keep_replays: crate::access::KEPT,
        };
        let options = Options {
            limits: supervision::Limits { mailbox: 16_384, ..supervision::Limits::default() },
            ..Options::permanent()
        };
        Ok((self.supervisor.spawn::<RegistryActor>(&plumbing, spec, options), agents))
    }

    /// Monitor and worker, unless they are left out.
    fn watchers(&self, ports: &Ports, changes: &Changes) {
        let arbiter = self.supervisor.arbiter("watchers");
        if !self.without.contains(&Part::Monitor) {
            let settings = &self.config.monitor;
            let look = CloudLook {
                store: Arc::clone(&ports.store),
                keys: Arc::clone(&ports.keys),
                clouds: ports.clouds.clone(),
                clock: Arc::clone(&ports.clock),
                first: ms(settings.first_ms),
                most: ms(settings.most_ms),
                call_limit: ports.call_limit,
            };
            let spec = self.watching(look, ports, changes, settings);
            let _monitor = self.supervisor.spawn::<Monitor>(&arbiter, spec, Options::permanent());
        }
        if !self.without.contains(&Part::Worker) {
            let settings = &self.config.worker;
            let look = ReportLook {
                store: self.store.clone(),
                clock: Arc::clone(&ports.clock),
                pause: ms(settings.most_ms.min(1000)),
            };
            let spec = self.watching(look, ports, changes, settings);
            let _worker = self.supervisor.spawn::<Worker>(&arbiter, spec, Options::permanent());
        }
    }

    fn watching<L: jobs::watching::Look>(
        &self,
        look: L,
        ports: &Ports,
        changes: &Changes,
        settings: &crate::config::Watching,
    ) -> jobs::watching::Spec<L> {
        jobs::watching::Spec {
            look: Arc::new(look),
            store: self.store.clone(),
            queue: Arc::clone(&ports.queue),
            changes: changes.clone(),
            metrics: self.metrics.clone(),
            source: format!("{}/{}", L::ROLE, self.boot),
            sweep: ms(settings.sweep_ms),
            together: settings.together,
        }
    }

    /// Sessions with guests, and the pinger unless it is left out.
    fn agents(
        &self,
        queue: &Arc<dyn Queue>,
        folder: &Folder,
        services: &pki::Authority,
    ) -> Result<Agents, Error> {
        let fault = |error: &(dyn std::error::Error + 'static)| Error::part("agents", error);
        let names = ["dispatcher".to_owned()];
        let role = services
            .issue_role("urn:dispatcher:role:dispatcher", &names, LISTENER_LIFE)
            .map_err(|e| fault(&e))?;
        let parts = agents::Parts {
            store: self.store.clone(),
            queue: Arc::clone(queue),
            boot: self.boot,
            authority: folder.authority("agents")?,
            role,
            metrics: self.metrics.clone(),
            limits: agents::Limits::default(),
        };
        let agents = Agents::start(self.supervisor, &self.supervisor.arbiter("agents"), parts)
            .map_err(|e| fault(&e))?;
        if !self.without.contains(&Part::Pinger) {
            let spec = pinger::Spec {
                guests: Arc::new(Sessions(agents.clone())),
                provisioning: self.store.clone(),
                analytics: self.analytics.clone(),
                metrics: self.metrics.clone(),
                boot: self.boot,
                every: ms(self.config.pinger.every_ms),
                limit: ms(self.config.pinger.limit_ms),
            };
            let arbiter = self.supervisor.arbiter("watchers");
            let _pinger = self.supervisor.spawn::<Pinger>(&arbiter, spec, Options::permanent());
        }
        Ok(agents)
    }
}

/// URL of a listener.
fn url(scheme: &str, listener: &TcpListener) -> Result<String, Error> {
    let address = listener.local_addr().map_err(|e| Error::part("listener", &e))?;
    Ok(format!("{scheme}://{address}"))
}

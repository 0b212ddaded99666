//! An installation whose roles are processes of their own, on one MariaDB and one RabbitMQ. It has databases and names on
//! the broker of its own, which are gone at its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use diesel::RunQueryDsl as _;
use diesel::connection::SimpleConnection as _;
use serde_json::Value;
use tokio::process::Command;

use super::place::Site;
use super::process::{Folder, Process};
use crate::cli::client::{Client, Error, Target};
use crate::config::{self, Config};
use crate::model::Uid;
use crate::ops::Chain;
use crate::store::{AnyConnection, Manager};

/// Guests with a process of their own, at most.
const MOST_GUESTS: &str = "200";

/// Where MariaDB and RabbitMQ are.
#[derive(Clone, Debug)]
pub(super) struct Services {
    /// `mysql://user@host:port`, without a database.
    pub(super) database: String,
    pub(super) password_file: Option<PathBuf>,
    /// `amqp://…`.
    pub(super) queue: String,
    pub(super) queue_password_file: Option<PathBuf>,
}

/// Databases of one measurement, dropped with it.
pub(super) struct Schema {
    services: Services,
    prefix: String,
}

/// The databases of a schema, by the ends of their names: jobs, measurements, credentials, and the limit's.
const DATABASES: [&str; 4] = ["p", "a", "c", "limit"];

impl Schema {
    pub(super) fn new(services: &Services) -> Self {
        let random = Uid::random().to_string();
        let short = random.get(..12).unwrap_or(&random);
        Self { services: services.clone(), prefix: format!("dispatcher_bench_{short}") }
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("{}/{}_{name}", self.services.database.trim_end_matches('/'), self.prefix)
    }

    pub(super) fn manager(&self, name: &str) -> Result<Manager, Error> {
        self.manager_of(&self.url(name))
    }

    fn manager_of(&self, url: &str) -> Result<Manager, Error> {
        let manager = Manager::new(url).map_err(|e| Error::Usage(format!("--database: {e}")))?;
        Ok(match &self.services.password_file {
            Some(file) => manager.with_password_file(file.clone()),
            None => manager,
        })
    }

    /// A new database for the limit, whose rows nobody works at.
    pub(super) fn limit(&self) -> Result<Manager, Error> {
        let manager = self.manager("limit")?;
        manager.create().map_err(|e| database(&e))?;
        Ok(manager)
    }

    /// A connection to the database with the jobs.
    pub(super) fn open(&self) -> Result<AnyConnection, Error> {
        self.manager("p")?.open().map_err(|e| database(&e))
    }

    /// Statements that the server has carried out or prepared since its start, for whomever.
    pub(super) fn asked(&self) -> Result<f64, Error> {
        let order = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_stmt_prepare')";
        let counted: Vec<Counted> =
            diesel::sql_query(order).load(&mut self.open()?).map_err(|e| database(&e))?;
        Ok(counted.iter().filter_map(|count| count.value.parse::<f64>().ok()).sum())
    }

    fn drop_all(&self) -> Result<(), Error> {
        let url = format!("{}/information_schema", self.services.database.trim_end_matches('/'));
        let mut server = self.manager_of(&url)?.open().map_err(|e| database(&e))?;
        for name in DATABASES {
            let order = format!("DROP DATABASE IF EXISTS `{}_{name}`", self.prefix);
            server.batch_execute(&order).map_err(|e| database(&e))?;
        }
        Ok(())
    }

    /// First word of the names on the broker.
    fn words(&self) -> String {
        self.prefix.replace('_', "-")
    }

    /// Settings of the queue, as every role has them.
    pub(super) fn queue(&self) -> config::Queue {
        config::Queue {
            url: self.services.queue.clone(),
            password_file: self.services.queue_password_file.clone(),
            prefix: self.words(),
            ..config::Queue::default()
        }
    }
}

#[derive(diesel::QueryableByName)]
struct Counted {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "Value")]
    value: String,
}

impl Drop for Schema {
    fn drop(&mut self) {
        if let Err(error) = self.drop_all() {
            log::warn!("the databases {}_* stay on the server: {}", self.prefix, Chain(&error));
        }
    }
}

/// A database that does not do what is needed.
pub(super) fn database(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::Usage(format!("the database of the measurement: {}", Chain(error)))
}

/// The installation. Its processes end before its folder and its databases go.
pub(super) struct House {
    pub(super) nodes: Vec<Process>,
    others: Vec<Process>,
    entrance: Value,
    folder: Folder,
    pub(super) schema: Schema,
}

/// Addresses that some processes have and others must know.
#[derive(Default)]
struct Known {
    cloud: String,
    km: String,
}

impl House {
    /// Makes keys, databases and the first tenant.
    pub(super) async fn made(services: &Services, below: Option<&Path>) -> Result<Self, Error> {
        let (folder, schema) = (Folder::make(below)?, Schema::new(services));
        let (nodes, others) = (Vec::new(), Vec::new());
        let mut house = Self { nodes, others, entrance: Value::Null, folder, schema };
        house.set_up().await?;
        Ok(house)
    }

    /// The same, with every role running.
    pub(super) async fn started(services: &Services, below: Option<&Path>, nodes: u8) -> Result<Self, Error> {
        let mut house = Self::made(services, below).await?;
        house.open(nodes).await?;
        Ok(house)
    }

    /// Starts every role; so many of `serve`.
    pub(super) async fn open(&mut self, nodes: u8) -> Result<(), Error> {
        let mut known = Known::default();
        self.add("simulated-cloud", "cloud", &known).await?;
        known.cloud = self.last_said("url")?;
        self.add("km", "km", &known).await?;
        self.last_said("km")?.trim_start_matches("tls://").clone_into(&mut known.km);
        for role in ["monitor", "worker"] {
            self.add(role, role, &known).await?;
        }
        for node in 0..nodes {
            self.add("serve", &format!("serve-{node}"), &known).await?;
        }
        Ok(())
    }

    async fn set_up(&mut self) -> Result<(), Error> {
        let config = self.settings("setup", &Known::default())?;
        self.run(&["keys", "make", "--folder", "keys"]).await?;
        let said = self.run(&["setup", "--config", &config, "--keys", "keys", "--json"]).await?;
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        self.entrance = said.get("entrance").cloned().unwrap_or_default();
        Ok(())
    }

    async fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let folder = self.folder.path();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
        let done = command.output().await?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(Error::Usage(format!("dispatcher {}: {said}", arguments.join(" "))))
    }

    /// Starts one more process.
    async fn add(&mut self, role: &str, name: &str, known: &Known) -> Result<(), Error> {
        let folder = self.folder.path().join(name);
        let data = folder.join("data").display().to_string();
        let config = self.settings(name, known)?;
        let own = if role == "simulated-cloud" { "" } else { role };
        let keys = self.folder.path().join("keys").join(own).display().to_string();
        let arguments = [role, "--config", &config, "--keys", &keys, "--data", &data];
        let mut process = Process::new(name, &folder, &arguments)?;
        process.start(if own.is_empty() { &["--guest-processes", MOST_GUESTS] } else { &[] }).await?;
        if role == "serve" { &mut self.nodes } else { &mut self.others }.push(process);
        Ok(())
    }

    fn last_said(&self, field: &str) -> Result<String, Error> {
        let last = self.others.last().ok_or_else(|| Error::Usage("nothing was started".to_owned()))?;
        last.said(field)
    }

    /// Writes the settings of a process; the path of their file.
    fn settings(&self, name: &str, known: &Known) -> Result<String, Error> {
        let (services, text) = (&self.schema.services, |path: &Path| path.display().to_string());
        let any = || vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let mut config = Config {
            database: config::Database {
                provisioning: self.schema.url("p"),
                analytics: self.schema.url("a"),
                credentials: self.schema.url("c"),
                password_file: services.password_file.as_deref().map(text).unwrap_or_default(),
            },
            queue: self.schema.queue(),
            listen: config::Listen { api: any(), agents: any(), km: any(), ..config::Listen::default() },
            ..Config::default()
        };
        config.simulated.url.clone_from(&known.cloud);
        config.simulated.guest_program =
            super::guests::agent_program().as_deref().map(text).unwrap_or_default();
        if !known.km.is_empty() {
            config.km.address.clone_from(&known.km);
        }
        let path = self.folder.path().join(format!("{name}.toml"));
        let written =
            toml::to_string(&config).map_err(|e| Error::Usage(format!("settings of {name}: {e}")))?;
        std::fs::write(&path, written)?;
        Ok(text(&path))
    }

    /// A client of one node.
    pub(super) fn client_of(&self, node: usize) -> Result<Client, Error> {
        let mut target = self.entrance.clone();
        if let Some(fields) = target.as_object_mut() {
            fields.insert("url".to_owned(), self.node(node)?.said("url")?.into());
        }
        let file = self.folder.path().join(format!("client-{node}.json"));
        std::fs::write(&file, target.to_string())?;
        Target { ready_file: Some(file), ..Target::default() }.client()
    }

    pub(super) fn node(&self, node: usize) -> Result<&Process, Error> {
        self.nodes.get(node).ok_or_else(|| Error::Usage(format!("there is no node {node}")))
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The life of a node in the database.
    pub(super) fn life(&self, node: usize) -> Result<String, Error> {
        let file = self.folder.path().join(format!("serve-{node}")).join("data").join("boot");
        Ok(std::fs::read_to_string(file)?.trim().to_owned())
    }

    /// Ends every process in order and takes the names on the broker back.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        for process in self.nodes.iter_mut().chain(self.others.iter_mut().rev()) {
            process.stop().await?;
        }
        let forgotten = crate::mq::forget(&self.schema.queue()).await;
        forgotten.map_err(|e| Error::Usage(Chain(&e).to_string()))
    }
}

impl Site for House {
    async fn start(&mut self) -> Result<f64, Error> {
        match self.nodes.first_mut() {
            Some(node) => node.start(&[]).await,
            None => Ok(0.0),
        }
    }

    async fn crash(&mut self) -> Result<(), Error> {
        match self.nodes.first_mut() {
            Some(node) => node.crash().await,
            None => Ok(()),
        }
    }

    fn client(&self) -> Result<Client, Error> {
        self.client_of(0)
    }

    fn memory_kib(&self) -> f64 {
        self.nodes.first().map_or(0.0, Process::memory_kib)
    }

    fn guests(&self) -> Vec<u32> {
        self.folder.guests("cloud/data")
    }
}

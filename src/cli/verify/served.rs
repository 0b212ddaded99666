//! A house on the operator's servers: schemas and queues of its own, every role a process, links that can be cut.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Error;
use super::house::{Entrance, Faults, House, cloud, port_offset, written};
use super::plan::{Kind, Links};
use super::processes::{Member, Order, free_ports, run};
use super::proxy::Link;
use crate::config;
use crate::crypto::Secret;
use crate::model::Uid;
use crate::store::{Manager, Target};

/// The operator's servers, as they were named.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    pub(super) database: String,
    pub(super) password_file: Option<PathBuf>,
    pub(super) queue: config::Queue,
}

/// What was made on them.
pub(super) struct Borrowed {
    schemas: Vec<Manager>,
    queue: config::Queue,
}

impl Borrowed {
    /// Takes it away again; what stays is said.
    pub(super) async fn give_back(self) -> Vec<String> {
        let mut left = Vec::new();
        for schema in self.schemas {
            let shown = schema.target().to_string();
            let dropped = tokio::task::spawn_blocking(move || schema.discard()).await;
            if let Ok(Err(error)) = dropped {
                left.push(format!("{shown}: {}", crate::ops::Chain(&error)));
            }
        }
        if let Err(error) = crate::mq::forget(&self.queue).await {
            left.push(format!("queues that begin with {}: {}", self.queue.prefix, crate::ops::Chain(&error)));
        }
        left
    }
}

/// Where the three databases are: a word for each.
const SCHEMAS: [(&str, &str); 3] = [("provisioning", "p"), ("analytics", "a"), ("credentials", "c")];

/// The parts of the database server's URL.
struct Place {
    user: String,
    host: String,
    options: String,
    name: String,
}

impl Place {
    /// Reads `mysql://user@host:port`, with or without a database, whose name is not used.
    fn of(url: &str) -> Result<Self, Error> {
        let (plain, options) = url.split_once('?').map_or((url, None), |(plain, more)| (plain, Some(more)));
        let bare = plain.trim_end_matches('/');
        let has_name = bare.strip_prefix("mysql://").is_some_and(|rest| rest.contains('/'));
        let whole = if has_name { bare.to_owned() } else { format!("{bare}/x") };
        let target = Target::parse(&whole).map_err(|e| Error::Usage(format!("--database: {e}")))?;
        let Target::Server { user, password, host, .. } = target else {
            return Err(Error::Usage(
                "--database names a file; leave it and --queue out for embedded parts, or write mysql://user@host:port"
                    .to_owned(),
            ));
        };
        if password.is_some() {
            return Err(Error::Usage(
                "--database holds a password; write it into a file that only you can read, and name it by --password-file"
                    .to_owned(),
            ));
        }
        let options = options.map_or_else(String::new, |options| format!("?{options}"));
        let name = format!("dispatcher_verify_{}", Uid::random().to_string().split_at(8).0);
        Ok(Self { user, host, options, name })
    }

    fn url(&self, host: &str, schema: &str) -> String {
        format!("mysql://{}@{host}/{}_{schema}{}", self.user, self.name, self.options)
    }

    /// Whether its bytes may pass a link of ours: one with TLS would show the wrong name.
    fn can_be_linked(&self) -> bool {
        !self.options.contains("ssl")
    }

    /// Host and port.
    fn socket(&self) -> String {
        if self.host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            self.host.clone()
        } else {
            format!("{}:3306", self.host)
        }
    }
}

/// `host:port` of a broker without TLS.
fn broker_socket(url: &str) -> Option<String> {
    let rest = url.strip_prefix("amqp://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { host.to_owned() } else { format!("{host}:5672") })
}

/// The broker's URL with another host.
fn through(url: &str, socket: &str, link: &str) -> String {
    if url.contains(socket) {
        return url.replacen(socket, link, 1);
    }
    let host = socket.trim_end_matches(":5672");
    url.replacen(host, link, 1)
}

/// What can be cut.
pub(super) fn links(servers: &Servers, stop_broker: bool) -> Result<Links, Error> {
    Ok(Links {
        broker: broker_socket(&servers.queue.url).is_some(),
        database: Place::of(&servers.database)?.can_be_linked(),
        stop_broker,
    })
}

/// Everything its members are made with.
struct Site<'a> {
    folder: &'a Path,
    servers: Servers,
    place: Place,
    cloud: String,
    km: u16,
    agents: Vec<u16>,
}

impl Site<'_> {
    /// Settings of one process, whose servers are reached through these links.
    fn settings(&self, (broker, database): (Option<&Link>, Option<&Link>), agents: u16) -> String {
        let host = database.map_or_else(|| self.place.host.clone(), |link| link.address().to_string());
        let mut text = "[database]\n".to_owned();
        for (key, schema) in SCHEMAS {
            text += &format!("{key} = \"{}\"\n", self.place.url(&host, schema));
        }
        let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
        if let Some(file) = &self.servers.password_file {
            text += &format!("password_file = {}\n", quoted(file));
        }
        let queue = &self.servers.queue;
        let url = match (broker, broker_socket(&queue.url)) {
            (Some(link), Some(socket)) => through(&queue.url, &socket, &link.address().to_string()),
            _ => queue.url.clone(),
        };
        text += &format!("[queue]\nurl = \"{url}\"\nprefix = \"{}\"\ncanary_ms = 1000\n", queue.prefix);
        let files = [("password_file", &queue.password_file), ("ca_file", &queue.ca_file)];
        for (key, file) in files {
            if let Some(file) = file {
                text += &format!("{key} = {}\n", quoted(file));
            }
        }
        let urls: Vec<String> =
            self.agents.iter().map(|port| format!("\"https://127.0.0.1:{port}\"")).collect();
        text + &format!(
            "[km]\naddress = \"127.0.0.1:{km}\"\n[jobs]\ncommand_wait_ms = 60000\n[listen]\napi = [\"127.0.0.1:0\"]\n\
             km = [\"127.0.0.1:{km}\"]\nagents = [\"127.0.0.1:{agents}\"]\nagent_urls = [{}]\n[simulated]\nurl = \"{}\"\n",
            urls.join(", "),
            self.cloud,
            km = self.km,
        )
    }

    /// A process of a role with links of its own, not started.
    fn role(&self, kind: Kind, number: usize) -> Result<Member, Error> {
        let name = format!("{}-{number}", kind.as_str());
        let link = |socket: Option<String>| socket.map(|socket| Link::to(&socket)).transpose();
        // The key manager has no queue, and nothing it does is undone by a lost commit.
        let broker = link(broker_socket(&self.servers.queue.url).filter(|_| kind != Kind::Km))?;
        let database = link(Some(self.place.socket()).filter(|_| self.place.can_be_linked()))?;
        let agents = self.agents.get(number).copied().filter(|_| kind == Kind::Serve).unwrap_or_default();
        let text = self.settings((broker.as_ref(), database.as_ref()), agents);
        let config = written(self.folder, &name, &text)?;
        let keys = self.folder.join("keys").join(kind.as_str()).display().to_string();
        let arguments = [kind.as_str(), "--config", &config, "--keys", &keys].map(str::to_owned);
        let mut member = Member::new((kind, &name), self.folder, arguments.to_vec())?;
        (member.broker, member.database) = (broker, database);
        Ok(member)
    }
}

/// Makes schemas and keys, starts every role, and answers the house when all are ready. What was begun on the servers when
/// it fails is taken back.
pub(super) async fn house(
    folder: &Path,
    servers: Servers,
    (nodes, monitors): (usize, usize),
    (cloud_settings, faults): (&str, &Faults),
) -> Result<House, Error> {
    let place = Place::of(&servers.database)?;
    let schema = |(_, word): (&str, &str)| -> Result<Manager, Error> {
        let manager = Manager::new(&place.url(&place.host, word)).map_err(|e| Error::Usage(e.to_string()))?;
        Ok(match &servers.password_file {
            Some(file) => manager.with_password_file(file.clone()),
            None => manager,
        })
    };
    let schemas = SCHEMAS.map(schema).into_iter().collect::<Result<Vec<_>, _>>()?;
    let jobs = schemas.first().cloned().ok_or_else(|| Error::Failed("no schema".to_owned()))?;
    for schema in &schemas {
        schema.create().map_err(|e| no_right(schema, &e))?;
    }
    let borrowed = Borrowed { schemas, queue: servers.queue.clone() };
    let ports = free_ports(nodes + 2, 20_000 + port_offset())?;
    let [km, at, agents @ ..] = ports.as_slice() else {
        return Err(Error::Failed("no free ports".to_owned()));
    };
    let address = format!("127.0.0.1:{at}");
    let site =
        Site { folder, servers, place, cloud: format!("http://{address}"), km: *km, agents: agents.to_vec() };
    let made = begin(&site, (nodes, monitors), (&address, cloud_settings), faults).await;
    match made {
        Ok((members, entrance)) => {
            let mut house = House::of(folder, (members, entrance, jobs), faults);
            house.borrowed = Some(borrowed);
            Ok(house)
        }
        Err(error) => {
            for left in borrowed.give_back().await {
                log::warn!("left behind: {left}");
            }
            Err(error)
        }
    }
}

async fn begin(
    site: &Site<'_>,
    (nodes, monitors): (usize, usize),
    (address, cloud_settings): (&str, &str),
    faults: &Faults,
) -> Result<(Vec<Member>, Entrance), Error> {
    run(site.folder, &["keys", "make", "--folder", "keys"])?;
    let config = written(site.folder, "setup", &site.settings((None, None), 0))?;
    let said = run(site.folder, &["setup", "--config", &config, "--keys", "keys", "--json"])?;
    let said: Value = serde_json::from_str(&said).map_err(|e| Error::Failed(format!("setup: {e}")))?;
    let word = |field: &str| {
        let found = said.get("entrance").and_then(|entrance| entrance.get(field)?.as_str());
        found.map(str::to_owned).ok_or_else(|| Error::Failed(format!("setup says no {field}")))
    };
    let entrance = Entrance { access_key: word("accessKey")?, secret_key: Secret::from(word("secretKey")?) };
    let keys = site.folder.join("keys").display().to_string();
    let mut cloud = cloud(site.folder, (address, &keys), cloud_settings)?;
    cloud.start(&Order::default()).await?;
    let order = faults.order();
    let kinds = std::iter::repeat_n(Kind::Serve, nodes).enumerate();
    let kinds = kinds.chain(std::iter::repeat_n(Kind::Monitor, monitors).enumerate());
    let mut members = Vec::new();
    for (number, kind) in kinds.chain([(0, Kind::Worker), (0, Kind::Km)]) {
        members.push(site.role(kind, number)?);
    }
    // The key manager first: nodes take leases.
    for member in members.iter_mut().rev() {
        member.spawn(&order)?;
    }
    for member in &mut members {
        if let super::processes::Started::Ended(status) = member.awaited().await? {
            return Err(member.fault(&format!("ended before it was ready ({status})")));
        }
    }
    members.push(cloud);
    Ok((members, entrance))
}

fn no_right(schema: &Manager, error: &crate::store::Error) -> Error {
    Error::Failed(format!(
        "{} cannot be made: {}; the user needs the right to make and drop databases whose name begins with \
         dispatcher_verify_ (grant all on `dispatcher\\_verify\\_%`.* to user), and it is used for nothing else",
        schema.target(),
        crate::ops::Chain(error)
    ))
}

#[cfg(test)]
mod tests {
    use super::{Place, broker_socket, through};

    #[test]
    fn servers_are_named_with_and_without_ports_databases_and_vhosts() {
        let place = Place::of("mysql://root@127.0.0.1:34306").expect("a server");
        assert_eq!((place.user.as_str(), place.socket().as_str()), ("root", "127.0.0.1:34306"));
        assert!(place.url("127.0.0.1:1", "p").starts_with("mysql://root@127.0.0.1:1/dispatcher_verify_"));
        assert_eq!(Place::of("mysql://u@db/x?ssl_ca=/f").expect("one").socket(), "db:3306");
        assert!(!Place::of("mysql://u@db/?ssl_mode=required").expect("one").can_be_linked());
        assert!(
            Place::of("mysql://u:secret@db").err().expect("refused").to_string().contains("--password-file")
        );
        assert_eq!(broker_socket("amqp://guest@127.0.0.1/%2f").as_deref(), Some("127.0.0.1:5672"));
        assert_eq!(broker_socket("amqps://guest@broker"), None);
        let linked = |url: &str| through(url, &broker_socket(url).expect("plain"), "127.0.0.1:9");
        assert_eq!(linked("amqp://127.0.0.1:7673"), "amqp://127.0.0.1:9");
        assert_eq!(linked("amqp://guest@localhost/jobs"), "amqp://guest@127.0.0.1:9/jobs");
    }
}

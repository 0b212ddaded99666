//! The house that is tried: its processes, its folder, its databases, how it is made and how it is taken away.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::plan::Kind;
use super::processes::{LOOK, Member, Order, Started};
use super::recovery::{Eye, Recovery};
use super::{Error, guests, served};
use crate::crypto::Secret;
use crate::store::Manager;
use crate::store::provisioning::{node, whole};

/// Ends by itself after which a process is not started again: something else is wrong with it.
const OWN_ENDS: u32 = 100;
/// Pause before a process that ended by itself is started again.
const RESUME: Duration = Duration::from_millis(500);
/// So long after a process was touched its death may be a consequence.
const TOUCHED: Duration = Duration::from_secs(60);
/// How long guests may take to end with their cloud.
const GUESTS: Duration = Duration::from_secs(30);
/// Real guests at most.
const GUEST_PROCESSES: &str = "40";

/// Where nodes answer, by their number, as far as they were ready: read by clients at each request.
pub(super) type Doors = Rc<RefCell<Vec<Option<String>>>>;

/// Deliberate faults of every process but the cloud.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Their names.
    pub(super) names: Vec<String>,
    /// Every so many-th answer to a commit is lost; 0: none.
    pub(super) lose_every: u32,
}

impl Faults {
    /// The order of a process that is to live.
    pub(super) fn order(&self) -> Order {
        Order { sabotage: self.names.clone(), lose_every: self.lose_every, ..Order::default() }
    }
}

/// How clients get in.
pub(super) struct Entrance {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
}

impl Entrance {
    /// The secret, for a client that keeps its own.
    pub(super) fn secret(&self) -> Secret {
        Secret::from(String::from_utf8_lossy(self.secret_key.expose()).into_owned())
    }
}

/// The house.
pub(super) struct House {
    pub(super) folder: PathBuf,
    pub(super) members: Vec<Member>,
    pub(super) entrance: Rc<Entrance>,
    /// Opens the database of jobs, past every link.
    pub(super) jobs: Manager,
    pub(super) doors: Doors,
    /// Deliberate faults of every process.
    pub(super) faults: Faults,
    /// Lives that were declared dead although nobody had touched them.
    pub(super) false_deaths: Vec<String>,
    /// Places at which processes of a kind are to die whenever they are started.
    pub(super) orders: BTreeMap<Kind, Vec<(String, u32)>>,
    /// Processes that died where they were told to, beside those a strike waited for.
    pub(super) deaths: usize,
    /// Follows what killed processes held.
    pub(super) recovery: Recovery,
    /// What is to be taken away from the operator's servers.
    pub(super) borrowed: Option<served::Borrowed>,
}

impl House {
    /// `dispatcher dev` and a simulated cloud, on a folder of their own.
    pub(super) async fn embedded(folder: &Path, settings: &str, faults: &Faults) -> Result<Self, Error> {
        let port = super::processes::free_ports(1, 20_000 + port_offset())?;
        let address = format!("127.0.0.1:{}", port.first().copied().unwrap_or_default());
        let keys = folder.join("dev").join("data").join("keys").display().to_string();
        std::fs::create_dir_all(folder.join("dev").join("data"))?;
        let mut cloud = cloud(folder, (&address, &keys), settings)?;
        cloud.start(&Order::default()).await?;
        let text = format!("[jobs]\ncommand_wait_ms = 60000\n[simulated]\nurl = \"http://{address}\"\n");
        let config = written(folder, "dev", &text)?;
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--config", &config].map(str::to_owned);
        let mut dev = Member::new((Kind::Dev, "dev"), folder, arguments.to_vec())?;
        dev.start(&faults.order()).await?;
        let word = |field: &str| dev.said(field).unwrap_or_default().to_owned();
        let entrance =
            Entrance { access_key: word("accessKey"), secret_key: Secret::from(word("secretKey")) };
        let file = dev.data().join("provisioning.db");
        let jobs = Manager::new(&format!("sqlite://{}", file.display()))
            .map_err(|e| Error::Failed(e.to_string()))?;
        Ok(Self::of(folder, (vec![dev, cloud], entrance, jobs), faults))
    }

    /// Puts the pieces together.
    pub(super) fn of(
        folder: &Path,
        (members, entrance, jobs): (Vec<Member>, Entrance, Manager),
        faults: &Faults,
    ) -> Self {
        let house = Self {
            folder: folder.to_owned(),
            members,
            entrance: Rc::new(entrance),
            doors: Doors::default(),
            orders: BTreeMap::new(),
            deaths: 0,
            recovery: Recovery::new(Eye::new(jobs.clone())),
            faults: faults.clone(),
            false_deaths: Vec::new(),
            borrowed: None,
            jobs,
        };
        house.publish();
        house
    }

    /// The order of a process of a kind that is started now, with these places more. The cloud has no faults and no
    /// places.
    pub(super) fn order(&self, kind: Kind, more: Vec<(String, u32)>) -> Order {
        if kind == Kind::Cloud {
            return Order::default();
        }
        let rare = self.orders.get(&kind).cloned().unwrap_or_default();
        let also = if more.is_empty() { rare } else { more };
        Order { also, log: Some(self.crashes()), ..self.faults.order() }
    }

    /// Where dying processes note the place.
    pub(super) fn crashes(&self) -> PathBuf {
        self.folder.join("crashes")
    }

    /// The cloud's data folder, with the ledgers.
    pub(super) fn cloud_data(&self) -> PathBuf {
        let data = self.folder.join("cloud").join("data");
        data.canonicalize().unwrap_or(data)
    }

    /// Tells clients where the nodes answer.
    pub(super) fn publish(&self) {
        let nodes = self.members.iter().filter(|member| matches!(member.kind, Kind::Dev | Kind::Serve));
        let mut doors = self.doors.borrow_mut();
        for (at, node) in nodes.enumerate() {
            if doors.len() <= at {
                doors.push(None);
            }
            if let (Some(door), Some(url)) = (doors.get_mut(at), node.said("url")) {
                *door = Some(url.to_owned());
            }
        }
    }

    /// Starts again what ended, as an init system would, and takes note of who is ready.
    pub(super) fn tend(&mut self) -> Result<(), Error> {
        let mut news = false;
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at).filter(|member| member.tended && member.runs())
            else {
                continue;
            };
            let boot = member.boot();
            match member.look()? {
                None => continue,
                Some(Started::Ready) => {}
                Some(Started::Ended(status)) => self.ended(at, (boot, status))?,
            }
            news = true;
        }
        if news {
            self.publish();
        }
        for at in 0..self.members.len() {
            let due = |member: &Member| member.tended && !member.runs() && Instant::now() >= member.resume_at;
            if self.members.get(at).is_some_and(due) {
                self.start(at)?;
            }
        }
        Ok(())
    }

    /// A process ended without a strike that waits for it: where it was told to, or by itself.
    fn ended(&mut self, at: usize, (boot, status): (Option<String>, ExitStatus)) -> Result<(), Error> {
        let Some(member) = self.members.get_mut(at) else { return Ok(()) };
        let told = member.armed && status.signal() == Some(Signal::SIGKILL as i32);
        if told {
            self.deaths += 1;
            // It died there; with the same order again it might never come further.
            self.orders.remove(&member.kind);
            self.recovery.follow(boot);
        } else {
            // As an init system waits before it starts a service again.
            member.resume_at = Instant::now() + RESUME;
            log::info!("{} ended by itself: {status}", member.name);
            member.own_ends += 1;
            if member.own_ends > OWN_ENDS {
                return Err(member.fault("ends again and again"));
            }
            if declared_dead(&self.jobs, member) {
                self.false_deaths.push(format!("{} beat and was declared dead", member.name));
            }
        }
        Ok(())
    }

    /// Starts a process without waiting, with the order its kind has.
    pub(super) fn start(&mut self, at: usize) -> Result<(), Error> {
        let Some(kind) = self.members.get(at).map(|member| member.kind) else { return Ok(()) };
        let order = self.order(kind, Vec::new());
        let Some(member) = self.members.get_mut(at) else { return Ok(()) };
        member.tended = true;
        member.spawn(&order)
    }

    /// Takes note that a process is stopped for a while, or loses its links alone.
    pub(super) fn touch(&mut self, at: usize) {
        if let Some(member) = self.members.get_mut(at) {
            member.touched = Some(Instant::now());
        }
    }

    /// Lets time pass and keeps the house up meanwhile.
    pub(super) async fn pass(&mut self, span: Duration) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + span;
        while tokio::time::Instant::now() < until {
            self.tend()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Starts what is down, and waits until all are ready; `but` stays as it is.
    pub(super) async fn revive(&mut self, but: Option<usize>) -> Result<(), Error> {
        for at in 0..self.members.len() {
            if Some(at) != but && self.members.get(at).is_some_and(|member| !member.runs()) {
                self.start(at)?;
            }
        }
        self.all_ready(but).await
    }

    async fn all_ready(&mut self, but: Option<usize>) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + super::processes::READY;
        loop {
            self.tend()?;
            let late = self.members.iter().enumerate().find(|(at, member)| {
                Some(*at) != but && member.tended && member.said("opsUrl").or(member.said("url")).is_none()
            });
            let Some((_, late)) = late else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                return Err(late.fault("is not ready in time"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets everything pass and run again. Who still has an order to die is started anew without one; how many there
    /// were.
    pub(super) async fn heal(&mut self) -> Result<usize, Error> {
        self.orders.clear();
        for member in &self.members {
            member.signal(Signal::SIGCONT);
            for link in member.broker.iter().chain(&member.database) {
                link.heal();
            }
        }
        let armed = (0..self.members.len()).filter(|at| self.members.get(*at).is_some_and(|m| m.armed));
        let armed: Vec<usize> = armed.collect();
        for at in &armed {
            self.kill(*at);
        }
        self.revive(None).await?;
        Ok(armed.len())
    }

    /// Kills a process now, and has what it held followed; whether it ran.
    pub(super) fn kill(&mut self, at: usize) -> bool {
        let Some(member) = self.members.get_mut(at).filter(|member| member.runs()) else { return false };
        let boot = member.boot().filter(|_| matches!(member.kind, Kind::Dev | Kind::Serve));
        member.kill();
        self.recovery.follow(boot);
        true
    }

    /// Ends every process in order, the cloud last; what was not in order.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for member in &mut self.members {
            wrong.extend(member.stop().await.err().map(|error| error.to_string()));
        }
        let data = self.cloud_data();
        let until = tokio::time::Instant::now() + GUESTS;
        while !guests::agents(&data).is_empty() {
            if tokio::time::Instant::now() > until {
                wrong.push("guests live on after their cloud ended in order".to_owned());
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        wrong
    }

    /// Ends what still lives, and takes away folder, schemas and queues unless they are to be kept. What could not be taken
    /// away is said.
    pub(super) async fn clear(mut self, keep: bool) -> Vec<String> {
        for member in &mut self.members {
            member.tended = false;
            member.kill();
        }
        guests::end_all(&self.cloud_data(), GUESTS).await;
        if keep {
            return Vec::new();
        }
        let mut left = Vec::new();
        if let Some(borrowed) = self.borrowed.take() {
            left.extend(borrowed.give_back().await);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            left.push(format!("folder {}: {error}", self.folder.display()));
        }
        left
    }
}

/// Whether a life that just ended by itself had been declared dead by others, and nobody had touched its process.
fn declared_dead(jobs: &Manager, member: &Member) -> bool {
    let touched = member.touched.is_some_and(|at| at.elapsed() < TOUCHED);
    let Some(boot) = member.boot().filter(|_| !touched) else { return false };
    let state = jobs.open().ok().and_then(|mut c| whole::life(&mut c, &boot).ok().flatten());
    state.as_deref() == Some(node::DEAD)
}

/// A start for the search of free ports that differs between commands that run at once.
pub(super) fn port_offset() -> u16 {
    u16::try_from(std::process::id() % 10_000).unwrap_or(0)
}

/// Writes a settings file; its path.
pub(super) fn written(folder: &Path, name: &str, text: &str) -> Result<String, Error> {
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// The simulated cloud's process, not started.
pub(super) fn cloud(folder: &Path, (address, keys): (&str, &str), settings: &str) -> Result<Member, Error> {
    let config = written(folder, "cloud", &format!("[simulated]\n{settings}"))?;
    let arguments = ["simulated-cloud", "--listen", address, "--keys", keys, "--config", &config];
    let more = ["--guest-processes", GUEST_PROCESSES];
    let arguments = arguments.iter().chain(&more).map(|&word| word.to_owned()).collect();
    Ok(Member::new((Kind::Cloud, "cloud"), folder, arguments)?)
}

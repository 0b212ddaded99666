//! Carries strikes out, one after the other, and counts them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::house::House;
use super::load::Load;
use super::plan::{ANSWER, Kind, Plan, Progress, Server, Strike};
use super::processes::{LOOK, Order, Started};
use super::proxy::Link;
use super::rng::Rng;
use super::scenario::Only;
use super::{Error, guests};
use crate::ops::failpoint::PLACES;

/// How long a process with an order to die is waited for.
const REACH: Duration = Duration::from_secs(6);
/// The killing ends after so long, and so many seconds a kill: the work has come to a standstill then, and the comparison
/// says why.
const LIMIT: Duration = Duration::from_secs(420);
const EACH_KILL: u64 = 6;
/// How long a thread is held at a place, in milliseconds: until its process stands still as a whole.
const HELD: u64 = 1500;
/// How long the operator's own command for the broker may take.
const COMMAND: Duration = Duration::from_secs(120);

/// The operator's own commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Broker {
    pub(super) stop: Option<String>,
    pub(super) start: Option<String>,
}

/// What strikes.
pub(super) struct Nemesis<'a> {
    pub(super) house: &'a mut House,
    pub(super) plan: &'a Plan,
    pub(super) rng: Rng,
    pub(super) broker: Broker,
    pub(super) progress: Progress,
}

impl Nemesis<'_> {
    /// Strikes until enough was done; `tell` hears of each strike.
    pub(super) async fn run(&mut self, load: &Load, mut tell: impl FnMut(&Progress)) -> Result<(), Error> {
        let seconds = u64::try_from(self.plan.kills).unwrap_or(u64::MAX).saturating_mul(EACH_KILL);
        let until = Instant::now() + LIMIT + Duration::from_secs(seconds);
        while Instant::now() < until {
            self.progress.jobs = load.accepted();
            self.count_places();
            self.progress.kills += std::mem::take(&mut self.house.deaths);
            if self.plan.is_done(&self.progress) || load.has_failed() {
                break;
            }
            for kind in [Kind::Dev, Kind::Serve] {
                let rare = self.plan.order((kind, true), &self.progress, &mut self.rng);
                self.house.orders.insert(kind, rare);
            }
            let strike = self.plan.next(&self.progress, &mut self.rng);
            log::debug!("{strike:?}");
            let kills = self.progress.kills;
            if self.carry_out(strike).await? {
                self.progress.idle +=
                    usize::from(self.plan.scenario.only.is_some() && kills == self.progress.kills);
                *self.progress.strikes.entry(strike.name()).or_default() += 1;
            }
            tell(&self.progress);
        }
        self.count_places();
        Ok(())
    }

    fn count_places(&mut self) {
        let text = std::fs::read_to_string(self.house.crashes()).unwrap_or_default();
        self.progress.places.clear();
        for line in text.lines() {
            let known = PLACES.iter().find(|place| **place == line);
            if let Some(place) = known {
                *self.progress.places.entry(place).or_default() += 1;
            }
        }
    }

    /// Whether it was done.
    async fn carry_out(&mut self, strike: Strike) -> Result<bool, Error> {
        match strike {
            Strike::Arm(kind) => {
                let places = self.plan.order((kind, false), &self.progress, &mut self.rng);
                self.arm(kind, places).await
            }
            Strike::Answer(hits) => self.arm(Kind::Km, vec![(ANSWER.to_owned(), hits)]).await,
            Strike::Kill(kind, after) => self.kill(kind, after).await,
            Strike::KillAgent => self.kill_agent().await,
            Strike::StandStill(span) => self.stand_still(span).await,
            Strike::StandAt(place, hits, span) => self.stand_at((place, hits), span).await,
            Strike::Cut(server, span) => self.links(server, span, Touch::Cut).await,
            Strike::Hold(server, span) => self.links(server, span, Touch::Hold).await,
            Strike::LoseCommits { count, done } => self.lose_commits(count, done).await,
            Strike::StopBroker(span) => self.stop_broker(span).await,
            Strike::Nothing(span) => {
                self.house.revive(None).await?;
                self.house.pass(span).await?;
                Ok(true)
            }
        }
    }

    /// One of a kind.
    fn victim(&mut self, kinds: &[Kind]) -> Option<usize> {
        let found = self.house.members.iter().enumerate().filter(|(_, member)| kinds.contains(&member.kind));
        let found: Vec<usize> = found.map(|(at, _)| at).collect();
        self.rng.choose(&found).copied()
    }

    /// Kills a process now, and has what it held followed.
    fn end(&mut self, at: usize) {
        self.progress.kills += usize::from(self.house.kill(at));
    }

    /// Starts a process anew with an order to die, and waits for its death as long as that is likely. Later it still dies
    /// when it passes a place.
    async fn arm(&mut self, kind: Kind, places: Vec<(String, u32)>) -> Result<bool, Error> {
        // One that is down waits to be started.
        let down = self.house.members.iter().position(|member| member.kind == kind && !member.runs());
        let Some(at) = down.or_else(|| self.victim(&[kind])) else { return Ok(false) };
        self.end(at);
        // Nobody else may start it meanwhile: two processes on one folder are none.
        if let Some(member) = self.house.members.get_mut(at) {
            member.tended = false;
        }
        self.house.revive(Some(at)).await?;
        let order = self.house.order(kind, places);
        let Some(member) = self.house.members.get_mut(at) else { return Ok(false) };
        member.tended = false;
        member.spawn(&order)?;
        let died = self.dies(at).await?;
        if let Some(member) = self.house.members.get_mut(at) {
            member.tended = !died;
        }
        self.progress.kills += usize::from(died);
        self.progress.missed = !died;
        Ok(died)
    }

    /// Waits for a process to die where it was told to.
    async fn dies(&mut self, at: usize) -> Result<bool, Error> {
        let mut deadline = Instant::now() + super::processes::READY;
        while Instant::now() < deadline {
            self.house.tend()?;
            let Some(member) = self.house.members.get_mut(at) else { return Ok(false) };
            let boot = member.boot();
            match member.look()? {
                Some(Started::Ready) => {
                    deadline = Instant::now() + REACH;
                    self.house.publish();
                }
                Some(Started::Ended(status)) if status.signal() == Some(Signal::SIGKILL as i32) => {
                    self.house.recovery.follow(boot);
                    return Ok(true);
                }
                // It ended by itself; its supervisor starts it again, without orders.
                Some(Started::Ended(_)) => {
                    member.own_ends += 1;
                    return Ok(false);
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
        Ok(false)
    }

    async fn kill(&mut self, kind: Kind, after: Duration) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let Some(at) = self.victim(&[kind]) else { return Ok(false) };
        // The moment of death is the random input of the strike; nothing waits for it.
        self.house.pass(after).await?;
        self.end(at);
        self.house.start(at)?;
        Ok(true)
    }

    async fn kill_agent(&mut self) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let data = self.house.cloud_data();
        let Some(pid) = self.rng.choose(&guests::agents(&data)).copied() else {
            self.house.pass(Duration::from_millis(200)).await?;
            return Ok(false);
        };
        let done = guests::end(pid, &data);
        self.progress.kills += usize::from(done);
        self.house.pass(Duration::from_millis(500)).await?;
        Ok(done)
    }

    async fn stand_still(&mut self, span: Duration) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let Some(at) = self.victim(&[Kind::Dev, Kind::Serve]) else { return Ok(false) };
        self.house.touch(at);
        self.signal(at, Signal::SIGSTOP);
        self.house.pass(span).await?;
        self.signal(at, Signal::SIGCONT);
        // Long enough for what it still had in hand to be sent.
        self.house.pass(Duration::from_secs(1)).await?;
        Ok(true)
    }

    /// A node comes to a place of its work, stands still there until it is thought dead, and goes on right there.
    async fn stand_at(&mut self, place: (&'static str, u32), span: Duration) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let Some(at) = self.victim(&[Kind::Serve]) else { return Ok(false) };
        self.end(at);
        self.house.touch(at);
        let seen = self.house.folder.join("stood");
        let _absent = std::fs::remove_file(&seen);
        let order = Order {
            also: vec![(place.0.to_owned(), place.1)],
            // The thread is held until the signal holds the process.
            block_ms: Some(HELD),
            log: Some(seen.clone()),
            ..self.house.faults.order()
        };
        let Some(member) = self.house.members.get_mut(at) else { return Ok(false) };
        member.spawn(&order)?;
        let until = Instant::now() + super::processes::READY;
        while !seen.exists() && Instant::now() < until {
            self.house.pass(Duration::from_millis(1)).await?;
        }
        let stood = seen.exists();
        self.signal(at, Signal::SIGSTOP);
        self.house.pass(span).await?;
        self.signal(at, Signal::SIGCONT);
        self.house.pass(Duration::from_secs(2)).await?;
        Ok(stood)
    }

    fn signal(&self, at: usize, signal: Signal) {
        if let Some(member) = self.house.members.get(at) {
            member.signal(signal);
        }
    }

    /// Touches the links of one process, or of all.
    async fn links(&mut self, server: Server, span: Duration, touch: Touch) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let kinds = [Kind::Serve, Kind::Monitor, Kind::Worker];
        let all = self.rng.below(3) == 0 || self.plan.scenario.only == Some(Only::CutDatabase);
        let one = if all { None } else { self.victim(&kinds) };
        if let Some(one) = one {
            self.house.touch(one);
        }
        let set = |house: &House, on: bool| {
            for (at, member) in house.members.iter().enumerate() {
                let link = match server {
                    Server::Broker => &member.broker,
                    Server::Database => &member.database,
                };
                let Some(link) = link.as_ref().filter(|_| one.is_none_or(|one| one == at)) else { continue };
                match touch {
                    Touch::Cut => link.down(on),
                    Touch::Hold => link.frozen(on),
                }
            }
        };
        set(self.house, true);
        self.house.pass(span).await?;
        set(self.house, false);
        self.house.pass(Duration::from_millis(300)).await?;
        Ok(true)
    }

    async fn lose_commits(&mut self, count: u32, done: bool) -> Result<bool, Error> {
        self.house.revive(None).await?;
        let Some(at) = self.victim(&[Kind::Serve]) else { return Ok(false) };
        let before = self.cut(at);
        if let Some(link) = self.house.members.get(at).and_then(|member| member.database.as_ref()) {
            if done { link.lose_answers(count) } else { link.lose_commits(count) }
        }
        let until = Instant::now() + Duration::from_secs(3);
        while self.cut(at) < before + count && Instant::now() < until {
            self.house.pass(LOOK).await?;
        }
        let lost = self.cut(at) > before;
        if let Some(link) = self.house.members.get(at).and_then(|member| member.database.as_ref()) {
            link.heal();
        }
        Ok(lost)
    }

    fn cut(&self, at: usize) -> u32 {
        self.house.members.get(at).and_then(|member| member.database.as_ref()).map_or(0, Link::cut)
    }

    async fn stop_broker(&mut self, span: Duration) -> Result<bool, Error> {
        let (Some(stop), Some(start)) = (self.broker.stop.clone(), self.broker.start.clone()) else {
            return Ok(false);
        };
        self.house.revive(None).await?;
        self.shell(&stop).await?;
        self.house.pass(span).await?;
        self.shell(&start).await?;
        Ok(true)
    }

    /// Runs a command of the operator while the house is tended.
    async fn shell(&mut self, command: &str) -> Result<(), Error> {
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", command])
            .current_dir(Path::new("/"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let until = Instant::now() + COMMAND;
        loop {
            if let Some(status) = child.try_wait()? {
                let text = format!("\"{command}\" ended with {status}");
                return if status.success() { Ok(()) } else { Err(Error::Failed(text)) };
            }
            if Instant::now() > until {
                return Err(Error::Failed(format!("\"{command}\" still runs after {COMMAND:?}")));
            }
            self.house.pass(LOOK).await?;
        }
    }
}

/// What is done to a link.
#[derive(Clone, Copy)]
enum Touch {
    Cut,
    Hold,
}

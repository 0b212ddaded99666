//! A cloud of one class: what it promises it keeps, and what it does not promise it breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{SECOND, World};
use crate::cloud::{CallError, Capabilities, LaunchRequest, Machine, TokenClass};
use crate::jobs::battery::machine;
use crate::model::{ErrorClass, JobUid, Micros, ServerStatus};

/// A server as it is, not as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) machine: Machine,
    /// The job whose launch made it; none for those that were there.
    pub(super) made_by: Option<JobUid>,
    visible_at: Micros,
    runs_at: Micros,
    fails: bool,
    /// Every state it was in, with when it began.
    pub(super) states: Vec<(Micros, ServerStatus)>,
}

/// See the module.
pub(super) struct Cloud {
    pub(super) capabilities: Capabilities,
    pub(super) servers: BTreeMap<String, Truth>,
    tokens: BTreeMap<String, (String, String)>,
    /// Servers made, by job.
    pub(super) launches: BTreeMap<JobUid, u32>,
    /// Creates sent, by job.
    pub(super) sent: BTreeMap<JobUid, u32>,
    made: u32,
}

impl Cloud {
    pub(super) fn new(class: TokenClass) -> Self {
        let secs = Duration::from_secs;
        let capabilities = Capabilities {
            class,
            t_call: secs(2),
            t_sig: if class == TokenClass::S { secs(4) } else { Duration::ZERO },
            t_land: secs(3),
            t_vis: secs(3),
            token_kept: if class == TokenClass::K { secs(86_400) } else { Duration::ZERO },
            start_stop: true,
            pause: true,
            max_user_data: 65_536,
            max_name: 255,
        };
        Self {
            capabilities,
            servers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            launches: BTreeMap::new(),
            sent: BTreeMap::new(),
            made: 0,
        }
    }

    /// Puts a server there that no job made.
    pub(super) fn place(&mut self, id: &str, state: ServerStatus, now: Micros) {
        let shown = machine(id, state, None);
        let truth = Truth {
            machine: shown,
            made_by: None,
            visible_at: now,
            runs_at: now,
            fails: false,
            states: vec![(now, state)],
        };
        self.servers.insert(id.to_owned(), truth);
    }

    pub(super) fn state_of(&self, id: &str, now: Micros) -> Option<ServerStatus> {
        self.servers.get(id).map(|truth| truth.state(now))
    }

    /// Servers of a job's launches that are there and not terminated.
    pub(super) fn left_of(&self, job: JobUid, now: Micros) -> Vec<String> {
        let mine = self.servers.iter().filter(|(_, truth)| truth.made_by == Some(job));
        mine.filter(|(_, t)| t.state(now) != ServerStatus::Terminated).map(|(id, _)| id.clone()).collect()
    }
}

impl Truth {
    fn state(&self, now: Micros) -> ServerStatus {
        match self.machine.state {
            ServerStatus::Pending if now >= self.runs_at && self.fails => ServerStatus::Error,
            ServerStatus::Pending if now >= self.runs_at => ServerStatus::Running,
            other => other,
        }
    }

    fn shown(&self, now: Micros) -> Option<Machine> {
        (self.visible_at <= now).then(|| Machine { state: self.state(now), ..self.machine.clone() })
    }

    fn set(&mut self, state: ServerStatus, now: Micros) {
        self.machine.state = state;
        self.states.push((now, state));
    }

    /// Whether it was ever in this state at or after a point.
    pub(super) fn was(&self, state: ServerStatus, since: Micros, now: Micros) -> bool {
        let until = self.states.iter().skip(1).map(|(at, _)| *at).chain([Micros(i64::MAX)]);
        let mut spans = self.states.iter().zip(until);
        self.state(now) == state
            || state == ServerStatus::Running && self.made_by.is_some() && now >= self.runs_at
            || spans.any(|((_, s), until)| *s == state && until >= since)
    }
}

impl World {
    /// A create arrives. `signed` is when its sender signed it.
    pub(super) fn launch(
        &mut self,
        job: JobUid,
        request: &LaunchRequest,
        signed: Micros,
    ) -> Result<Machine, CallError> {
        let caps = &self.cloud.capabilities;
        let (class, now) = (caps.class, self.now);
        if class == TokenClass::S && now.since(signed) > caps.t_sig {
            return Err(CallError::refused(ErrorClass::Auth, "RequestExpired", "signed too long ago"));
        }
        let text = serde_json::to_string(request).expect("plain data");
        if class == TokenClass::K
            && let Some((first, id)) = self.cloud.tokens.get(&request.token)
        {
            if *first != text {
                let id = id.clone();
                self.violated(format!("I5: a create of job {job} was sent again with other bytes for {id}"));
                return Err(CallError::refused(ErrorClass::Conflict, "Mismatch", "other parameters"));
            }
            return Ok(Machine {
                state: self.cloud.servers[id].state(now),
                ..self.cloud.servers[id].machine.clone()
            });
        }
        self.cloud.made += 1;
        let id = format!("i-{}", self.cloud.made);
        *self.cloud.launches.entry(job).or_default() += 1;
        let (j, made) = (self.job_number(job), u64::from(self.cloud.made));
        self.note("launched for job, server", j, made);
        let tag = (class != TokenClass::N).then(|| request.tag.clone());
        let shown = machine(&id, ServerStatus::Pending, tag);
        let truth = Truth {
            machine: shown.clone(),
            made_by: Some(job),
            visible_at: Micros(now.0 + self.chance.range(0, 3 * SECOND)),
            runs_at: Micros(now.0 + self.chance.range(0, 4 * SECOND)),
            fails: self.faults.strikes(&mut self.chance, 30),
            states: vec![(now, ServerStatus::Pending)],
        };
        self.cloud.tokens.insert(request.token.clone(), (text, id.clone()));
        self.cloud.servers.insert(id, truth);
        Ok(shown)
    }

    /// What a look at one server shows.
    pub(super) fn shown(&self, id: &str) -> Option<Machine> {
        self.cloud.servers.get(id).and_then(|truth| truth.shown(self.now))
    }

    /// What a look by tag shows.
    pub(super) fn tagged(&self, tag: &str) -> Vec<Machine> {
        let all = self.cloud.servers.values().filter_map(|truth| truth.shown(self.now));
        all.filter(|machine| machine.tag.as_deref() == Some(tag)).collect()
    }

    /// A call on an existing server arrives.
    pub(super) fn moved(&mut self, job: JobUid, id: &str, to: ServerStatus) -> Result<(), CallError> {
        let (now, number) = (self.now, self.job_number(job));
        self.note("moved by job, to", number, to as u64);
        let Some(truth) = self.cloud.servers.get_mut(id) else {
            return Err(CallError::refused(ErrorClass::NotFound, "NotFound", id));
        };
        match truth.state(now) {
            ServerStatus::Terminated if to != ServerStatus::Terminated => {
                Err(CallError::refused(ErrorClass::NotFound, "Terminated", id))
            }
            there => {
                if there != to {
                    truth.set(to, now);
                }
                Ok(())
            }
        }
    }

    /// The cloud loses a server.
    pub(super) fn lose(&mut self, id: &str) {
        let now = self.now;
        if let Some(truth) = self.cloud.servers.get_mut(id) {
            truth.set(ServerStatus::Terminated, now);
        }
        self.figures.lost_servers += 1;
        self.checks.lost.insert(id.to_owned());
    }
}

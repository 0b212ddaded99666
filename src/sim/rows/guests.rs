//! Servers, agents and the commands that wait for them.

use super::Rows;
use crate::model::{AgentId, Boot, Epoch, JobUid, ServerId, ServerStatus};
use crate::store::provisioning::agent::{AgentRow, CommandRow, NewAgent, NewCommand, command, state};
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::server::{Seen, ServerRow};

impl Rows {
    pub(crate) fn insert_server(&mut self, row: &ServerRow) {
        let known = self.servers.values().any(|s| s.id == row.id || s.job == row.job);
        if !known {
            self.servers.insert(row.id, row.clone());
        }
    }

    pub(super) fn saw(&mut self, seen: &Seen) {
        let now = self.now.0;
        let Some(row) = self.servers.get_mut(&seen.server.0) else { return };
        let stopped = matches!(seen.status, ServerStatus::Stopped | ServerStatus::Terminated);
        seen.status.as_str().clone_into(&mut row.status);
        row.stopped_at = stopped.then_some(now);
        row.changed_at = now;
        row.version += 1;
        if let Some(ip) = &seen.private_ip {
            row.private_ip = Some(ip.clone());
        }
        if let Some(ip) = &seen.public_ip {
            row.public_ip = Some(ip.clone());
        }
    }

    /// Whether it is this job's turn to work on a server.
    pub(super) fn turn_of(&self, id: ServerId, uid: JobUid) -> bool {
        let name = uid.to_string();
        let Some(row) = self.servers.get(&id.0) else { return false };
        if row.busy_by.as_ref().is_some_and(|by| *by != name) {
            return false;
        }
        let Some(own) = self.history(uid).map(|h| h.job.id) else { return false };
        let earlier = self.jobs.iter().filter(|e| e.kind.moves_server()).map(super::Entry::job);
        !earlier.into_iter().any(|job| job.server == Some(id) && job.id.0 < own.0 && job.ended_at.is_none())
    }

    pub(crate) fn insert_agent(&mut self, new: &NewAgent) -> bool {
        let name = new.job.to_string();
        let known =
            self.agents.values().any(|a| a.id == new.id.0 || a.job == name || a.token_hash == new.token_hash);
        if !known {
            self.agents.insert(new.id.0, pending(new, self.now.0));
        }
        !known
    }

    pub(super) fn revoke(&mut self, which: impl Fn(&AgentRow) -> bool) {
        for agent in self.agents.values_mut().filter(|agent| which(agent)) {
            state::REVOKED.clone_into(&mut agent.state);
        }
    }

    pub(crate) fn next_session(&mut self, id: AgentId, boot: Boot) -> Option<i64> {
        let holder = self.agents.get(&id.0)?.session_boot.clone();
        let own = boot.to_string();
        if holder.is_some_and(|h| h != own && self.nodes.iter().any(|n| n.boot == h && n.is_alive())) {
            return None;
        }
        let agent = self.agents.get_mut(&id.0)?;
        agent.session_no += 1;
        agent.session_boot = Some(own);
        Some(agent.session_no)
    }

    pub(super) fn insert_command(&mut self, new: &NewCommand) {
        if self.commands.iter().any(|row| row.id == new.id) {
            return;
        }
        self.commands.push(CommandRow {
            id: new.id.clone(),
            seq: new.seq,
            job: new.job.to_string(),
            attempt: new.attempt.to_string(),
            customer: new.customer.0,
            server: new.server.0,
            epoch: new.epoch.0,
            operation: new.operation.clone(),
            user_name: new.user.clone(),
            state: command::WAITING.to_owned(),
            made_at: self.now.0,
            expires_at: new.expires_at.0,
            sent_at: None,
            done_at: None,
            result: None,
            cancel_epoch: None,
        });
    }

    pub(crate) fn command(&self, id: &str) -> Option<&CommandRow> {
        self.commands.iter().find(|row| row.id == id)
    }

    fn command_mut(&mut self, id: &str) -> Option<&mut CommandRow> {
        self.commands.iter_mut().find(|row| row.id == id)
    }

    /// Commands of a server without a result, in the order they were given.
    pub(crate) fn open_commands(&self, id: ServerId) -> Vec<CommandRow> {
        let open = |row: &&CommandRow| row.state == command::WAITING || row.state == command::SENT;
        let mut found: Vec<CommandRow> = self
            .commands
            .iter()
            .filter(|row| row.server == id.0 && row.cancel_epoch.is_none())
            .filter(open)
            .cloned()
            .collect();
        found.sort_by_key(|row| row.seq);
        found
    }

    pub(crate) fn mark_sent(&mut self, id: &str) -> bool {
        let now = self.now.0;
        let Some(row) = self.command_mut(id) else { return false };
        if row.state == command::WAITING && row.expires_at > now {
            command::SENT.clone_into(&mut row.state);
            row.sent_at = Some(now);
        }
        row.state == command::SENT && row.cancel_epoch.is_none()
    }

    /// Asks for the end of a command that was sent.
    pub(super) fn call_off(&mut self, id: &str, epoch: Epoch) {
        let Some(row) = self.command_mut(id).filter(|row| row.state == command::SENT) else { return };
        if row.cancel_epoch.is_none_or(|older| older < epoch.0) {
            row.cancel_epoch = Some(epoch.0);
        }
    }

    /// Commands of a server whose end was asked for and which have not been answered.
    pub(crate) fn called_off(&self, id: ServerId) -> Vec<CommandRow> {
        let asked = |row: &&CommandRow| row.state == command::SENT && row.cancel_epoch.is_some();
        let mut found: Vec<CommandRow> =
            self.commands.iter().filter(|row| row.server == id.0).filter(asked).cloned().collect();
        found.sort_by_key(|row| row.seq);
        found
    }

    pub(crate) fn expire(&mut self, id: &str) -> bool {
        let now = self.now.0;
        let Some(row) = self.command_mut(id).filter(|row| row.state == command::WAITING) else {
            return false;
        };
        command::EXPIRED.clone_into(&mut row.state);
        row.done_at = Some(now);
        true
    }

    pub(crate) fn finish(&mut self, id: &str, result: &str, seen: &Evidence) -> bool {
        let (first, now) = (self.insert_evidence(seen), self.now.0);
        if let Some(row) = self.command_mut(id).filter(|row| row.state != command::DONE) {
            command::DONE.clone_into(&mut row.state);
            row.done_at = Some(now);
            row.result = Some(result.to_owned());
        }
        first
    }
}

fn pending(new: &NewAgent, made_at: i64) -> AgentRow {
    AgentRow {
        id: new.id.0,
        customer: new.customer.0,
        job: new.job.to_string(),
        server: None,
        token_hash: new.token_hash.clone(),
        token_expires: new.token_expires.0,
        token_used_at: None,
        key_hash: None,
        serial: None,
        state: state::PENDING.to_owned(),
        address: None,
        version: 0,
        platform: String::new(),
        instance: None,
        session_boot: None,
        session_no: 0,
        enrolled_at: None,
        expires_at: None,
        last_contact: None,
        made_at,
    }
}

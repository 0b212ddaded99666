//! What must be the same afterwards.

use diesel::prelude::*;

use crate::model::{JobUid, ServerId, WatchKind};
use crate::store::provisioning::agent;
use crate::store::provisioning::job;
use crate::store::provisioning::schema::{guest_command, obligation, server as servers};
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::transition;
use crate::store::provisioning::watch;
use crate::store::provisioning::{node, seed};

use super::Both;

impl Both {
    /// All rows that a move can reach, and all sweeps.
    pub(super) fn compare(&mut self, uid: JobUid) {
        let found = self.sql(|c| job::history(c, uid));
        assert_eq!(self.rows.history(uid), found.as_ref(), "rows of a job");
        let found: Vec<ServerRow> =
            self.sql(|c| servers::table.order(servers::id).select(ServerRow::as_select()).load(c));
        assert!(self.rows.servers.values().eq(&found), "servers: {:?} {found:?}", self.rows.servers);
        let found: Vec<agent::CommandRow> = self.sql(|c| {
            guest_command::table.order(guest_command::seq).select(agent::CommandRow::as_select()).load(c)
        });
        assert_eq!(self.rows.commands, found, "commands");
        let found: Vec<(String, String)> = self.sql(|c| {
            obligation::table.order(obligation::tag).select((obligation::tag, obligation::job)).load(c)
        });
        let owed = self.rows.owed.iter().map(|(tag, (job, _))| (tag.clone(), job.to_string()));
        assert!(owed.eq(found), "obligations");
        let mut found = self.sql(|c| agent::list(c, seed::CUSTOMER, 1000));
        found.reverse();
        assert!(self.rows.agents.values().eq(&found), "agents: {:?} {found:?}", self.rows.agents);
        self.compare_sweeps();
    }

    pub(super) fn compare_sweeps(&mut self) {
        let (boot, now) = (self.boot(), self.rows.now);
        let mut wanted: Vec<(String, bool)> =
            self.rows.owned_by(boot).iter().map(|(uid, cancel)| (uid.to_string(), *cancel)).collect();
        let mut found = self.sql(|c| transition::owned_by(c, boot, 1000));
        wanted.sort();
        found.sort();
        assert_eq!(wanted, found, "owned by");
        let mut wanted: Vec<String> = self.rows.needing_an_actor().iter().map(JobUid::to_string).collect();
        let mut found = self.sql(|c| transition::needing_an_actor(c, 1000));
        wanted.sort();
        found.sort();
        assert_eq!(wanted, found, "needing an actor");
        assert_eq!(self.rows.next_due(), self.sql(|c| transition::next_due(c, now)), "next due");
        for kind in [WatchKind::Cloud, WatchKind::Guest] {
            let mut wanted = self.rows.open_watches(&[kind]);
            let mut found = self.sql(|c| watch::open(c, kind, 1000));
            wanted.sort_by_key(|w| w.uid);
            found.sort_by_key(|w| w.uid);
            assert_eq!(wanted, found, "open watches");
        }
        let found = self.sql(|c| agent::open_commands(c, ServerId(1), 1000));
        assert_eq!(self.rows.open_commands(ServerId(1)), found, "open commands");
        let found = self.sql(|c| agent::called_off(c, ServerId(1)));
        assert_eq!(self.rows.called_off(ServerId(1)), found, "commands called off");
        let found = self.sql(node::all);
        assert_eq!(self.rows.nodes.len(), found.len(), "lives");
        assert!(found.iter().all(|life| self.rows.nodes.contains(life)), "lives");
    }
}

//! The rows in memory against the real ones: the same random changes go through both, and every answer, every row and
//! every sweep must be the same.

use std::time::Duration;

use diesel::prelude::*;

use super::chance::Chance;
use super::rows::{Accepted, Rows};
use crate::jobs::battery::{REGION, machine, params_of, server_row};
use crate::jobs::ports::{Applied, Change};
use crate::model::{
    AgentId, AttemptOutcome, AttemptUid, Boot, Epoch, ErrorClass, JobId, JobKind, JobState, JobUid, Micros,
    ServerId, ServerStatus, Uid, Verdict, WatchKind, WatchUid, dice,
};
use crate::store::provisioning::accept::{self, Entry, IdemKey, Submit};
use crate::store::provisioning::agent::{self, NewAgent, NewCommand};
use crate::store::provisioning::job::{self, Attempt, Evidence, Job};
use crate::store::provisioning::schema::{guest_command, obligation, server as servers};
use crate::store::provisioning::server::{self, Seen, ServerRow};
use crate::store::provisioning::transition::{
    self, Claim, Close, End, Fence, Obligation, Quiet, Sent, Then, Waiting,
};
use crate::store::provisioning::watch::{self, Watch};
use crate::store::provisioning::{node, seed};
use crate::store::testing::Bed;
use crate::store::{AnyConnection, PROVISIONING};

/// Both kinds of rows, and the names that the changes choose from.
struct Both {
    sql: AnyConnection,
    rows: Rows,
    chance: Chance,
    boots: Vec<Boot>,
    jobs: Vec<JobUid>,
    submits: Vec<Submit>,
    number: i64,
    done: std::collections::BTreeMap<&'static str, (u32, u32)>,
    _bed: Bed,
}

impl Both {
    fn new(seed: u64) -> Self {
        dice::settle(Some(seed));
        let bed = Bed::sqlite();
        let mut sql = bed.manager().open().expect("a database");
        PROVISIONING.migrate(&mut sql).expect("migrated");
        let mut both = Self {
            sql,
            rows: Rows::default(),
            chance: Chance::new(seed),
            boots: Vec::new(),
            jobs: Vec::new(),
            submits: Vec::new(),
            number: 100,
            done: std::collections::BTreeMap::new(),
            _bed: bed,
        };
        both.tick();
        for _ in 0..3 {
            both.new_life();
        }
        for id in 1..=2 {
            both.new_server(id);
        }
        both
    }

    /// Lets a little time pass for both.
    fn tick(&mut self) {
        self.rows.now =
            Micros(self.rows.now.0 + 1 + i64::try_from(self.chance.below(3_000_000)).expect("small"));
        dice::stand_still(Some(self.rows.now));
    }

    fn sql<T>(&mut self, item: impl FnOnce(&mut AnyConnection) -> QueryResult<T>) -> T {
        self.sql.transaction(item).expect("a statement that is well formed")
    }

    fn next(&mut self) -> i64 {
        self.number += 1;
        self.number
    }

    fn new_life(&mut self) {
        let boot = Boot::random();
        self.boots.push(boot);
        self.rows.register(boot, "test");
        self.sql(|c| node::register(c, boot, "test"));
    }

    fn new_server(&mut self, id: i64) {
        let row = server_row(id, &machine(&format!("i-{id}"), ServerStatus::Running, None));
        let new = self.agent_of(JobUid::random(), id);
        self.rows.insert_server(&row);
        self.rows.insert_agent(&new);
        self.sql(|c| {
            server::insert(c, &row)?;
            agent::insert(c, &new)
        });
    }

    fn agent_of(&mut self, job: JobUid, id: i64) -> NewAgent {
        NewAgent {
            id: AgentId(id),
            customer: seed::CUSTOMER,
            job,
            token_hash: format!("hash-{id}"),
            token_expires: Micros(9),
        }
    }

    fn boot(&mut self) -> Boot {
        let at = self.chance.index(self.boots.len());
        self.boots[at]
    }

    /// A job, with its rows as they are.
    fn job(&mut self) -> Option<Job> {
        if self.jobs.is_empty() {
            return None;
        }
        let recent = self.jobs.len().saturating_sub(6);
        let mut at = recent + self.chance.index(self.jobs.len() - recent);
        // Mostly one that has not ended.
        for _ in 0..4 {
            if self.rows.history(self.jobs[at]).is_some_and(|history| history.job.ended_at.is_none()) {
                break;
            }
            at = recent + self.chance.index(self.jobs.len() - recent);
        }
        self.rows.history(self.jobs[at]).map(|history| history.job.clone())
    }

    /// Mostly the current epoch, sometimes another.
    fn fence(&mut self, job: &Job) -> Fence {
        let off = if self.chance.one_in(8) { self.chance.range(-1, 1) } else { 0 };
        Fence { job: job.uid, epoch: Epoch(job.epoch.0 + off) }
    }

    /// Mostly the owner, sometimes anybody.
    fn writer(&mut self, job: &Job) -> Boot {
        match job.owner {
            Some(owner) if !self.chance.one_in(6) => owner,
            _ => self.boot(),
        }
    }

    fn attempt(&mut self, job: &Job, epoch: Epoch) -> Attempt {
        let known = self.rows.history(job.uid).map(|h| h.attempts.clone()).unwrap_or_default();
        let again = !known.is_empty() && self.chance.one_in(10);
        let step = if job.state == JobState::Undoing { "undo" } else { "create" };
        Attempt {
            uid: if again { known[0].uid } else { AttemptUid::random() },
            job: job.uid,
            customer: job.customer,
            step: step.to_owned(),
            variant: 0,
            try_no: job.try_no,
            n: i32::try_from(known.len()).expect("few") + 1,
            epoch,
            token: "t".to_owned(),
            request: vec![1, 2, 3],
            lease: String::new(),
            outcome: AttemptOutcome::Open,
            class: None,
            evidence: String::new(),
            output: String::new(),
            started_at: self.rows.now,
            closed_at: None,
            quiet_until: None,
            version: 1,
        }
    }

    fn watch_of(&mut self, job: &Job, kind: WatchKind, target: &str) -> Watch {
        let delay = Duration::from_secs(self.chance.below(20));
        Watch {
            uid: WatchUid::random(),
            job: job.uid,
            customer: job.customer,
            step: "create".to_owned(),
            try_no: job.try_no,
            kind,
            target: target.to_owned(),
            expectation: "running".to_owned(),
            due_at: self.rows.now,
            deadline: self.rows.now.plus(delay),
            made_at: self.rows.now,
            done_at: None,
        }
    }

    fn waiting(&mut self) -> Waiting {
        let until = self.rows.now.plus(Duration::from_secs(self.chance.below(10)));
        Waiting { until, code: "why".to_owned(), why: "because".to_owned() }
    }

    fn end_of(&mut self, job: &Job, fence: Fence) -> End {
        const ENDS: [JobState; 4] =
            [JobState::Complete, JobState::Failed, JobState::Cancelled, JobState::Unresolved];
        let server = job.server.or_else(|| job.params.server());
        let status =
            *self.chance.pick(&[ServerStatus::Terminated, ServerStatus::Running, ServerStatus::Stopped]);
        let seen = server.filter(|_| self.chance.one_in(2)).map(|server| Seen {
            server,
            status,
            private_ip: Some("10.0.0.9".to_owned()),
            public_ip: None,
        });
        let obligation = self.chance.one_in(3).then(|| Obligation {
            tag: format!("tag-{}", job.uid),
            customer: job.customer,
            account: job.account,
            region: REGION,
            look_at: self.rows.now,
            look_until: self.rows.now,
        });
        End {
            fence,
            state: *self.chance.pick(&ENDS),
            try_no: job.try_no + i32::from(self.chance.one_in(10)),
            message: "over".to_owned(),
            code: "code".to_owned(),
            server,
            seen,
            obligation,
        }
    }

    fn change(&mut self, what: &'static str, boot: Boot, change: &Change) {
        let wanted = self.rows.apply(boot, change);
        let found = self.sql(|c| crate::jobs::apply(c, boot, change));
        assert_eq!(wanted, found, "{what}: {change:?}");
        let counts = self.done.entry(what).or_default();
        if found == Applied::Done { counts.0 += 1 } else { counts.1 += 1 }
    }

    fn note(&mut self, what: &'static str, done: bool) {
        let counts = self.done.entry(what).or_default();
        if done { counts.0 += 1 } else { counts.1 += 1 }
    }
}

impl Both {
    fn accept(&mut self) {
        let number = self.next();
        let again = !self.submits.is_empty() && self.chance.one_in(4);
        let submit = if again {
            let at = self.chance.index(self.submits.len());
            let mut submit = self.submits[at].clone();
            // The same item again, or the client again, or somebody with the same signature.
            match self.chance.below(4) {
                0 => {}
                1 => (submit.uid, submit.entry.request) = (JobUid::random(), Uid::random()),
                2 => {
                    (submit.uid, submit.entry.request) = (JobUid::random(), Uid::random());
                    submit.entry.replay = None;
                }
                _ => {
                    (submit.uid, submit.entry.request) = (JobUid::random(), Uid::random());
                    submit.entry.replay = None;
                    if let Some(key) = &mut submit.entry.idem {
                        "other".clone_into(&mut key.body_hash);
                    }
                }
            }
            if self.rows.history(submit.uid).is_none() {
                submit.id = JobId(number);
            }
            submit
        } else {
            self.fresh_submit(number)
        };
        let wanted = self.rows.accept(&submit);
        let found = self.sql(|c| accept::accept(c, &submit));
        let found = match found {
            accept::Accepted::Stored(row) => Accepted::Stored(Box::new(Job::try_from(*row).expect("a row"))),
            accept::Accepted::Same(answer) => Accepted::Same(answer),
            accept::Accepted::Conflict => Accepted::Conflict,
            accept::Accepted::Replayed => Accepted::Replayed,
        };
        assert_eq!(wanted, found, "accept: {submit:?}");
        let stored = matches!(found, Accepted::Stored(_));
        self.note("accept", stored);
        if stored && !self.jobs.contains(&submit.uid) {
            self.jobs.push(submit.uid);
            self.submits.push(submit);
        }
    }

    fn fresh_submit(&mut self, number: i64) -> Submit {
        let kind = *self.chance.pick(JobKind::ALL);
        let server = ServerId(1 + i64::from(self.chance.one_in(2)));
        let params = params_of(kind, server);
        let key = format!("key-{number}");
        let delay = Duration::from_secs(if self.chance.one_in(5) { 4 } else { 0 });
        Submit {
            entry: Entry {
                customer: seed::CUSTOMER,
                access_key: "AK".into(),
                request: Uid::random(),
                replay: self.chance.one_in(2).then(|| format!("replay-{number}")),
                idem: (!self.chance.one_in(3)).then(|| IdemKey { key, body_hash: "hash".into() }),
                repeat_by_key: self.chance.one_in(2),
            },
            uid: JobUid::random(),
            id: JobId(number),
            account: seed::ACCOUNT,
            person: seed::ADMIN,
            server: params.server(),
            params,
            description: kind.to_string(),
            priority: i32::from(self.chance.one_in(4)),
            delay,
            limit: Duration::from_secs(60),
        }
    }

    fn claim(&mut self, job: &Job) {
        let seen = self.fence(job);
        let any = *self.chance.pick(JobState::ALL);
        let from = if self.chance.one_in(8) { any } else { job.state };
        let to = match from {
            JobState::Queued | JobState::Quarantined => JobState::Running,
            other => other,
        };
        let claim = Claim { seen, from, to, boot: self.boot(), crashes: job.crashes };
        let epoch = Epoch(seen.epoch.0 + 1);
        let open = self.chance.one_in(3).then(|| Box::new(self.attempt(job, epoch)));
        self.change("claim", claim.boot, &Change::Claim { claim, open: open.clone() });
        if self.chance.one_in(6) {
            // The commit of this very claim was unknown.
            self.change("claim again", claim.boot, &Change::Claim { claim, open });
        }
    }

    fn open(&mut self, job: &Job) {
        let (fence, boot) = (self.fence(job), self.writer(job));
        let attempt = Box::new(self.attempt(job, fence.epoch));
        let state = if self.chance.one_in(6) { JobState::Undoing } else { job.state };
        let number = self.next();
        let agent = self.chance.one_in(3).then(|| Box::new(self.agent_of(job.uid, number)));
        let server = job.params.server();
        self.change("open", boot, &Change::Open { attempt, state, server, agent });
    }

    fn command(&mut self, job: &Job) {
        let (fence, boot, number) = (self.fence(job), self.writer(job), self.next());
        let attempt = Box::new(self.attempt(job, fence.epoch));
        let id = format!("{}.run", job.uid);
        let command = Box::new(NewCommand {
            id: id.clone(),
            seq: number,
            job: job.uid,
            attempt: attempt.uid,
            customer: job.customer,
            server: ServerId(1),
            epoch: fence.epoch,
            operation: "{}".to_owned(),
            user: "AK".to_owned(),
            expires_at: self.rows.now.plus(Duration::from_secs(self.chance.below(20))),
        });
        let watch = Box::new(self.watch_of(job, WatchKind::Guest, &id));
        self.change("command", boot, &Change::Command { attempt, command, watch });
    }

    fn close(&mut self, job: &Job) {
        let (fence, boot, number) = (self.fence(job), self.writer(job), self.next());
        let known = self.rows.history(job.uid).map(|h| h.attempts.clone()).unwrap_or_default();
        let Some(last) = known.last() else { return };
        let awaits = self.chance.one_in(2);
        let watch = self.watch_of(job, WatchKind::Cloud, "i-1");
        let made = (awaits && self.chance.one_in(2)).then(|| {
            let row = server_row(number, &machine(&format!("i-{number}"), ServerStatus::Pending, None));
            Box::new(ServerRow { job: job.uid.to_string(), ..row })
        });
        let seen = self.chance.one_in(3).then(|| Seen {
            server: ServerId(1),
            status: ServerStatus::Stopped,
            private_ip: None,
            public_ip: Some("1.2.3.4".to_owned()),
        });
        let outcomes = [AttemptOutcome::Ok, AttemptOutcome::Refused, AttemptOutcome::Void];
        let close = Close {
            fence,
            attempt: last.uid,
            outcome: *self.chance.pick(&outcomes),
            class: self.chance.one_in(2).then_some(ErrorClass::Throttled),
            evidence: "seen".to_owned(),
            output: "out".to_owned(),
            made,
            seen,
            then: if awaits { Then::Await(watch) } else { Then::Go },
        };
        self.change("close", boot, &Change::Close(Box::new(close)));
    }

    fn quarantine(&mut self, job: &Job) {
        let (fence, boot, waiting) = (self.fence(job), self.writer(job), self.waiting());
        let known = self.rows.history(job.uid).map(|h| h.attempts.clone()).unwrap_or_default();
        let quiet = known.last().map(|a| Quiet { attempt: a.uid, until: waiting.until });
        self.change("quarantine", boot, &Change::Quarantine { fence, waiting, quiet });
    }

    fn withdraw(&mut self, job: &Job) {
        let (fence, boot) = (self.fence(job), self.writer(job));
        let unsent = Box::new(End { state: JobState::Cancelled, ..self.end_of(job, fence) });
        let sent = Box::new(if self.chance.one_in(2) {
            Sent::Park(self.waiting())
        } else {
            Sent::End(Box::new(End { state: JobState::Unresolved, ..self.end_of(job, fence) }))
        });
        let command = format!("{}.run", job.uid);
        self.change("withdraw", boot, &Change::Withdraw { command, unsent, sent });
    }

    fn verdict(&mut self, job: &Job) {
        let watches = self.rows.history(job.uid).map(|h| h.watches.clone()).unwrap_or_default();
        let watch = watches.last().map_or_else(WatchUid::random, |w| w.uid);
        let source = *self.chance.pick(&["monitor/1", "monitor/2"]);
        let seen = self.evidence(job, &watch.to_string(), source);
        let decides = (!self.chance.one_in(4)).then_some(watch);
        let wanted = self.rows.verdict(&seen, decides);
        let found = self.sql(|c| transition::verdict(c, &seen, decides));
        assert_eq!(wanted, found, "verdict");
        self.note("verdict", found);
    }

    fn evidence(&mut self, job: &Job, subject: &str, source: &str) -> Evidence {
        Evidence {
            subject: subject.to_owned(),
            source: source.to_owned(),
            job: job.uid,
            customer: job.customer,
            verdict: *self.chance.pick(&[Verdict::Reached, Verdict::Lost, Verdict::Pending]),
            text: "seen".to_owned(),
            raw: String::new(),
            made_at: Micros(0),
        }
    }

    fn life(&mut self) {
        if self.chance.one_in(4) {
            self.new_life();
        }
        let (boot, count) = (self.boot(), self.rows.now.0);
        if self.chance.one_in(3) {
            let seen = self.rows.nodes.iter().find(|n| n.boot == boot.to_string()).map_or(0, |n| n.beat);
            let seen = seen + i64::from(self.chance.one_in(3));
            let name = boot.to_string();
            let wanted = self.rows.declare_dead(&name, seen);
            assert_eq!(wanted, self.sql(|c| node::declare_dead(c, &name, seen)), "declared dead");
            self.note("declared dead", wanted);
        } else {
            let wanted = self.rows.beat(boot, count);
            assert_eq!(wanted, self.sql(|c| node::beat(c, boot, count)), "beat");
            self.note("beat", wanted);
        }
    }

    fn take_over(&mut self) {
        let boot = self.boot();
        let mut wanted: Vec<String> = self.rows.take_over(boot).iter().map(JobUid::to_string).collect();
        let mut found = self.sql(|c| transition::take_over(c, boot, 500));
        wanted.sort();
        found.sort();
        assert_eq!(wanted, found, "take over");
        self.note("take over", !found.is_empty());
    }

    fn guest(&mut self, job: &Job) {
        let id = format!("{}.run", job.uid);
        let (wanted, found) = match self.chance.below(4) {
            0 => (self.rows.mark_sent(&id), self.sql(|c| agent::mark_sent(c, &id))),
            1 => (self.rows.expire(&id), self.sql(|c| agent::expire(c, &id))),
            2 => {
                let subject = self.rows.command(&id).map_or_else(|| id.clone(), |row| row.attempt.clone());
                let seen = self.evidence(job, &subject, "agent");
                (self.rows.finish(&id, "{}", &seen), self.sql(|c| agent::finish(c, &id, "{}", &seen)))
            }
            _ => {
                let boot = self.boot();
                let wanted = self.rows.next_session(AgentId(1), boot);
                let name = boot.to_string();
                assert_eq!(wanted, self.sql(|c| agent::next_session(c, AgentId(1), &name)), "session");
                (wanted.is_some(), wanted.is_some())
            }
        };
        assert_eq!(wanted, found, "guest's row");
        self.note("guest", found);
    }

    fn step(&mut self) {
        self.tick();
        let Some(job) = self.job() else { return self.accept() };
        if job.state == JobState::Awaiting && job.owner.is_some() && self.chance.one_in(4) {
            let (fence, boot, waiting) = (self.fence(&job), self.writer(&job), self.waiting());
            self.change("park", boot, &Change::Park { fence, waiting });
        } else if job.state == JobState::Awaiting && job.owner.is_some() && self.chance.one_in(4) {
            self.withdraw(&job);
        }
        match self.chance.below(20) {
            0 | 1 => self.accept(),
            2..=4 => self.claim(&job),
            5 | 6 => self.open(&job),
            7 => self.command(&job),
            8 | 9 => self.close(&job),
            10 => {
                let (fence, boot, waiting) = (self.fence(&job), self.writer(&job), self.waiting());
                if job.state != JobState::Awaiting || self.chance.one_in(4) {
                    self.change("wait", boot, &Change::Wait { fence, waiting });
                } else {
                    self.change("park", boot, &Change::Park { fence, waiting });
                }
            }
            11 => self.quarantine(&job),
            12 => self.withdraw(&job),
            13 => {
                let (fence, boot) = (self.fence(&job), self.writer(&job));
                self.change("begin undo", boot, &Change::BeginUndo { fence, why: "why".to_owned() });
            }
            14 => {
                let (fence, boot) = (self.fence(&job), self.writer(&job));
                let end = Box::new(self.end_of(&job, fence));
                self.change("end", boot, &Change::End(end));
            }
            15 => {
                let wanted = self.rows.cancel_asked(job.uid, "ann");
                assert_eq!(wanted, self.sql(|c| transition::cancel_asked(c, job.uid, "ann")), "cancel");
                self.note("cancel", wanted);
            }
            16 => self.verdict(&job),
            17 => self.life(),
            18 => self.take_over(),
            _ => self.guest(&job),
        }
        self.compare(job.uid);
    }

    /// All rows that a move can reach, and all sweeps.
    fn compare(&mut self, uid: JobUid) {
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

    fn compare_sweeps(&mut self) {
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
        let found = self.sql(node::all);
        assert_eq!(self.rows.nodes.len(), found.len(), "lives");
        assert!(found.iter().all(|life| self.rows.nodes.contains(life)), "lives");
    }
}

#[test]
fn rows_in_memory_answer_as_sql_does() {
    let mut all = std::collections::BTreeMap::new();
    for seed in 1..=12 {
        let mut both = Both::new(seed);
        for _ in 0..400 {
            both.step();
        }
        for (what, (done, refused)) in &both.done {
            let counts: &mut (u32, u32) = all.entry(*what).or_default();
            *counts = (counts.0 + done, counts.1 + refused);
        }
    }
    dice::stand_still(None);
    dice::settle(None);
    // Every move was taken and was refused, or the comparison would say little.
    for (what, (done, refused)) in &all {
        assert!(*done > 0, "{what} was never done: {all:?}");
        assert!(*refused > 0 || *what == "beat", "{what} was never refused: {all:?}");
    }
}

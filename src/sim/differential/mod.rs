//! The rows in memory against the real ones: the same random changes go through both, and every answer, every row and
//! every sweep must be the same.

mod compare;
mod moves;

use std::time::Duration;

use diesel::{Connection as _, QueryResult};

use super::chance::Chance;
use super::rows::Rows;
use crate::jobs::battery::{REGION, machine, server_row};
use crate::jobs::ports::{Applied, Change};
use crate::model::{
    AgentId, AttemptOutcome, AttemptUid, Boot, Epoch, JobState, JobUid, Micros, ServerStatus, WatchKind,
    WatchUid, dice,
};
use crate::store::provisioning::accept::Submit;
use crate::store::provisioning::agent::{self, NewAgent};
use crate::store::provisioning::job::{Attempt, Job};
use crate::store::provisioning::server::{self, Seen};
use crate::store::provisioning::transition::{self, End, Fence, Obligation, Waiting};
use crate::store::provisioning::watch::Watch;
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
        let new = Self::agent_of(JobUid::random(), id);
        self.rows.insert_server(&row);
        self.rows.insert_agent(&new);
        self.sql(|c| {
            server::insert(c, &row)?;
            agent::insert(c, &new)
        });
    }

    fn agent_of(job: JobUid, id: i64) -> NewAgent {
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
            cancel_known: self.chance.one_in(4),
            kin: job.into(),
        }
    }

    fn change(&mut self, what: &'static str, boot: Boot, change: &Change) {
        let wanted = self.rows.apply(boot, change);
        let found = self.sql(|c| crate::jobs::apply(c, boot, change, &mut Vec::new()));
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
    fn step(&mut self) {
        self.tick();
        let Some(job) = self.job() else { return self.accept() };
        if job.state == JobState::Awaiting && job.owner.is_some() && self.chance.one_in(4) {
            let (fence, boot, waiting) = (self.fence(&job), self.writer(&job), self.waiting());
            self.change("park", boot, &Change::Park { fence, waiting });
        } else if job.state == JobState::Awaiting && job.owner.is_some() && self.chance.one_in(4) {
            self.withdraw(&job);
        } else if job.state == JobState::Awaiting && job.owner.is_some() && self.chance.one_in(6) {
            let (fence, boot) = (self.fence(&job), self.writer(&job));
            let change = Change::CallOff { fence, who: "ann".to_owned(), code: "why", why: "because" };
            self.change("call off", boot, &change);
        } else if job.state == JobState::Awaiting && self.chance.one_in(4) {
            let (fence, boot) = (self.fence(&job), self.writer(&job));
            let from = job.try_no - i32::from(self.chance.one_in(4));
            self.change("next try", boot, &Change::NextTry { fence, from, why: "why".to_owned() });
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

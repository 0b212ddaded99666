//! The moves that go through both.

use std::time::Duration;

use diesel::RunQueryDsl as _;

use super::super::rows::Accepted;
use crate::jobs::battery::{machine, params_of, server_row};
use crate::jobs::ports::Change;
use crate::model::{
    AgentId, AttemptOutcome, ErrorClass, Generation, JobId, JobKind, JobState, JobUid, Micros, ServerId,
    ServerStatus, Uid, Verdict, WatchKind, WatchUid,
};
use crate::store::provisioning::accept::{self, Entry, IdemKey, Submit};
use crate::store::provisioning::agent::{self, NewCommand};
use crate::store::provisioning::job::{Evidence, Job};
use crate::store::provisioning::schema::job_limit;
use crate::store::provisioning::server::{Seen, ServerRow};
use crate::store::provisioning::transition::{self, Claim, Close, End, Quiet, Sent, Then};
use crate::store::provisioning::{node, seed};

use super::Both;

impl Both {
    pub(super) fn accept(&mut self) {
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

    pub(super) fn fresh_submit(&mut self, number: i64) -> Submit {
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

    pub(super) fn claim(&mut self, job: &Job) {
        let seen = self.fence(job);
        let any = *self.chance.pick(JobState::ALL);
        let from = if self.chance.one_in(8) { any } else { job.state };
        let to = match from {
            JobState::Awaiting | JobState::Undoing => from,
            _ => JobState::Running,
        };
        let epoch = seen.epoch.after(Generation::default());
        let claim = Claim { seen, next: epoch, from, to, boot: self.boot(), crashes: job.crashes };
        let open = self.chance.one_in(3).then(|| Box::new(self.attempt(job, epoch)));
        self.change("claim", claim.boot, &Change::Claim { claim, open: open.clone() });
        if self.chance.one_in(6) {
            // The commit of this very claim was unknown.
            self.change("claim again", claim.boot, &Change::Claim { claim, open });
        }
    }

    pub(super) fn open(&mut self, job: &Job) {
        let (fence, boot) = (self.fence(job), self.writer(job));
        if fence.epoch.0 <= 0 {
            return;
        }
        let attempt = Box::new(self.attempt(job, fence.epoch));
        let state = if self.chance.one_in(6) { JobState::Undoing } else { job.state };
        let number = self.next();
        let agent = self.chance.one_in(3).then(|| Box::new(Self::agent_of(job.uid, number)));
        let server = job.params.server();
        self.change("open", boot, &Change::Open { attempt, state, server, agent });
    }

    pub(super) fn command(&mut self, job: &Job) {
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

    pub(super) fn close(&mut self, job: &Job) {
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
            retry_after: self.chance.one_in(2).then(|| Duration::from_secs(self.chance.below(10))),
            evidence: "seen".to_owned(),
            output: "out".to_owned(),
            made,
            seen,
            then: if awaits { Then::Await(watch) } else { Then::Go },
        };
        self.change("close", boot, &Change::Close(Box::new(close)));
        // What a throttling answer teaches of the account is no row of a job, and would hold later claims.
        self.sql(|c| diesel::delete(job_limit::table).execute(c));
    }

    pub(super) fn quarantine(&mut self, job: &Job) {
        let (fence, boot, waiting) = (self.fence(job), self.writer(job), self.waiting());
        let known = self.rows.history(job.uid).map(|h| h.attempts.clone()).unwrap_or_default();
        let quiet = known.last().map(|a| Quiet { attempt: a.uid, until: waiting.until });
        self.change("quarantine", boot, &Change::Quarantine { fence, waiting, quiet });
    }

    pub(super) fn withdraw(&mut self, job: &Job) {
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

    pub(super) fn verdict(&mut self, job: &Job) {
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

    pub(super) fn evidence(&mut self, job: &Job, subject: &str, source: &str) -> Evidence {
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

    pub(super) fn life(&mut self) {
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

    pub(super) fn take_over(&mut self) {
        let boot = self.boot();
        let mut wanted: Vec<String> = self.rows.take_over(boot).iter().map(JobUid::to_string).collect();
        let mut found = self.sql(|c| transition::take_over(c, boot, Generation::default(), 500));
        wanted.sort();
        found.sort();
        assert_eq!(wanted, found, "take over");
        self.note("take over", !found.is_empty());
    }

    pub(super) fn guest(&mut self, job: &Job) {
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
}

//! Accepting a write once: `accept::accept` and `accept::enter`.

use super::{Entry, Rows};
use crate::model::{Epoch, JobState, Micros};
use crate::store::provisioning::accept::{Answer, Entered, Entry as Asked, Submit};
use crate::store::provisioning::job::{History, Job};

/// What became of a submit; [`crate::store::provisioning::accept::Accepted`] with the typed row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Accepted {
    Stored(Box<Job>),
    Same(Answer),
    Conflict,
    Replayed,
}

impl Rows {
    pub(crate) fn accept(&mut self, submit: &Submit) -> Accepted {
        let answer = Answer { job: Some(submit.uid), status: 202, created: None };
        match self.enter(&submit.entry, &answer) {
            Entered::Fresh => Accepted::Stored(Box::new(self.store(submit))),
            Entered::Same(first) => Accepted::Same(first),
            Entered::Conflict => Accepted::Conflict,
            Entered::Replayed => Accepted::Replayed,
        }
    }

    fn enter(&mut self, entry: &Asked, answer: &Answer) -> Entered {
        if let Some(value) = &entry.replay {
            let key = (entry.access_key.clone(), value.clone());
            let own = entry.request.to_string();
            let first = self.replay.entry(key).or_insert_with(|| own.clone());
            if *first != own {
                return match &entry.idem {
                    Some(_) if entry.repeat_by_key => self.earlier(entry).unwrap_or(Entered::Replayed),
                    _ => Entered::Replayed,
                };
            }
        }
        let Some(key) = &entry.idem else { return Entered::Fresh };
        match self.earlier(entry) {
            None => {
                let name = (entry.customer.0, entry.access_key.clone(), key.key.clone());
                self.idem.insert(name, (key.body_hash.clone(), answer.clone()));
                Entered::Fresh
            }
            Some(Entered::Same(first)) if first == *answer && answer.job.is_some() => Entered::Fresh,
            Some(earlier) => earlier,
        }
    }

    fn earlier(&self, entry: &Asked) -> Option<Entered> {
        let key = entry.idem.as_ref()?;
        let name = (entry.customer.0, entry.access_key.clone(), key.key.clone());
        let (hash, answer) = self.idem.get(&name)?;
        Some(if *hash == key.body_hash { Entered::Same(answer.clone()) } else { Entered::Conflict })
    }

    fn store(&mut self, submit: &Submit) -> Job {
        if let Some(stored) = self.history(submit.uid) {
            return stored.job.clone();
        }
        let job = row_of(submit, self.now);
        let (i, history) = (self.jobs.len(), alone(job.clone()));
        self.jobs.push(Entry { kind: submit.params.kind(), history, watched_in: 0 });
        self.by_uid.insert(submit.uid, i);
        self.touched.push(i);
        job
    }
}

fn alone(job: Job) -> History {
    History { job, attempts: Vec::new(), evidence: Vec::new(), watches: Vec::new() }
}

fn row_of(submit: &Submit, now: Micros) -> Job {
    let starts = now.plus(submit.delay);
    let (why_code, why) = if starts > now {
        ("scheduled", format!("starts at {}", starts.rfc3339()))
    } else {
        ("dispatch", "accepted; waiting for a dispatcher to claim it".to_owned())
    };
    Job {
        uid: submit.uid,
        id: submit.id,
        customer: submit.entry.customer,
        account: submit.account,
        person: submit.person,
        access_key: submit.entry.access_key.clone(),
        request: submit.entry.request.to_string(),
        params: submit.params.clone(),
        description: submit.description.clone(),
        state: JobState::Queued,
        epoch: Epoch(0),
        owner: None,
        try_no: 1,
        crashes: 0,
        undo_begun: false,
        cancel_by: None,
        due_at: Some(starts),
        why_code: why_code.to_owned(),
        why,
        server: submit.server,
        resource: None,
        message: None,
        priority: submit.priority,
        created_at: now,
        claimed_at: None,
        changed_at: now,
        deadline: starts.plus(submit.limit),
        ended_at: None,
        parent: None,
        limited: false,
        version: 1,
    }
}

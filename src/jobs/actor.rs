//! The actor of one job: runs its driver, and ends when the job needs nobody.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use tokio::sync::Notify;

use super::Error;
use super::drive::drive;
use super::ports::Ports;
use crate::model::JobUid;
use crate::ops::Chain;
use crate::store::provisioning::job::{History, JobRow};
use crate::supervision::{Life, Supervised};

/// Identity and links of a job's actor.
#[derive(Clone)]
pub struct Spec {
    job: JobUid,
    ports: Ports,
    /// Its row as it was stored a moment ago; taken by the first life, so that a restart reads what is true by then.
    stored: Arc<Mutex<Option<Box<JobRow>>>>,
}

impl Spec {
    /// A job's actor; `stored` saves the first read where the row was written by this process a moment ago. Being
    /// too old does no harm: the claim names the epoch and the state it holds.
    #[must_use]
    pub fn new(job: JobUid, ports: Ports, stored: Option<Box<JobRow>>) -> Self {
        Self { job, ports, stored: Arc::new(Mutex::new(stored)) }
    }

    fn known(&self) -> Option<History> {
        let row = self.stored.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        History::of_new(*row).ok()
    }
}

/// There may be news in the job's rows.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

/// See the module. A restart loads the rows anew: nothing is kept from the life that failed.
pub struct JobActor {
    spec: Spec,
    life: Life,
    wake: Rc<Notify>,
}

impl Supervised for JobActor {
    type Spec = Spec;
    const KIND: &'static str = "job";

    fn key(spec: &Spec) -> String {
        spec.job.to_string()
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life, wake: Rc::new(Notify::new()) }
    }
}

impl Actor for JobActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (spec, wake) = (self.spec.clone(), Rc::clone(&self.wake));
        let running = async move { drive(&spec.ports, (spec.job, spec.known()), &wake).await };
        ctx.spawn(running.into_actor(self).map(|outcome: Result<(), Error>, actor, ctx| {
            match outcome {
                Ok(()) => actor.life.done(),
                Err(error) => actor.life.fail(Chain(&error).to_string()),
            }
            ctx.stop();
        }));
    }
}

impl Handler<Wake> for JobActor {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        let _busy = self.life.enter("Wake");
        self.wake.notify_one();
    }
}

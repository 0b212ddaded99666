//! Takes open watches, has each looked at until it is decided, and writes the verdict.
//!
//! Shared by the monitor and the worker, which differ in how they look. Nudges start a look at once; a sweep of the
//! rows finds what a nudge missed. A look runs in a task of its own, so that one that panics takes no other with it.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::sql::Changes;
use crate::model::{Micros, Verdict, WatchKind, WatchUid};
use crate::mq::{Nudge, Queue, Topic};
use crate::ops::Metrics;
use crate::ops::failpoint::{Fault, hit, sabotaged};
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::watch::{self, Watch};
use crate::store::provisioning::{outbox, transition};
use crate::store::{self, AnyConnection, Store};
use crate::supervision::{Life, Supervised};

/// What a look saw that decides a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What it means.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
    /// The raw answer.
    pub raw: String,
}

/// A way of looking.
#[async_trait(?Send)]
pub trait Look: Send + Sync + 'static {
    /// Name of the role, as actors and evidence show it.
    const ROLE: &'static str;
    /// Kinds of watches it decides.
    const KINDS: &'static [WatchKind];
    /// Where its nudges come from.
    const TOPIC: Topic;

    /// Looks until the watch is decided; `None` when its deadline passed undecided. `news` hints that a look now may
    /// see more. May be dropped at any point.
    async fn follow(&self, watch: &Watch, news: &Notify) -> Option<Sight>;
}

/// Links of a watcher.
pub struct Spec<L> {
    /// How it looks.
    pub look: Arc<L>,
    /// Rows.
    pub store: Store,
    /// Nudges.
    pub queue: Arc<dyn Queue>,
    /// News for readers of jobs.
    pub changes: Changes,
    /// Counts verdicts.
    pub metrics: Metrics,
    /// Who looks: role and life.
    pub source: String,
    /// How often the rows are swept.
    pub sweep: Duration,
    /// Watches looked at together.
    pub together: usize,
}

impl<L> Clone for Spec<L> {
    fn clone(&self) -> Self {
        Self {
            look: Arc::clone(&self.look),
            store: self.store.clone(),
            queue: Arc::clone(&self.queue),
            changes: self.changes.clone(),
            metrics: self.metrics.clone(),
            source: self.source.clone(),
            sweep: self.sweep,
            together: self.together,
        }
    }
}

/// The actor. See the module.
pub struct Watcher<L: Look> {
    spec: Spec<L>,
    life: Life,
    look: PhantomData<L>,
}

impl<L: Look> Unpin for Watcher<L> {}

impl<L: Look> Supervised for Watcher<L> {
    type Spec = Spec<L>;
    const KIND: &'static str = L::ROLE;

    fn key(spec: &Spec<L>) -> String {
        spec.source.clone()
    }

    fn fresh(spec: Spec<L>, life: Life) -> Self {
        Self { spec, life, look: PhantomData }
    }
}

impl<L: Look> Actor for Watcher<L> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let watching = Watching::new(self.spec.clone()).run();
        ctx.spawn(watching.into_actor(self).map(|(), actor, _| actor.life.fail("the watcher's loop ended")));
    }
}

/// Hints whose rows are read at once.
const TOGETHER: usize = 256;

struct Watching<L: Look> {
    spec: Spec<L>,
    inbox: mpsc::Receiver<Nudge>,
    ended: (mpsc::UnboundedSender<WatchUid>, mpsc::UnboundedReceiver<WatchUid>),
    following: HashMap<WatchUid, (Rc<Notify>, tokio::task::AbortHandle)>,
}

impl<L: Look> Drop for Watching<L> {
    fn drop(&mut self) {
        // Looks of a life that ended must not go on beside those of the next one.
        self.following.values().for_each(|(_, task)| task.abort());
    }
}

impl<L: Look> Watching<L> {
    fn new(spec: Spec<L>) -> Self {
        let inbox = spec.queue.subscribe(L::TOPIC);
        Self { spec, inbox, ended: mpsc::unbounded_channel(), following: HashMap::new() }
    }

    async fn run(mut self) {
        let mut sweep = tokio::time::interval(self.spec.sweep);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut nudges = Vec::new();
        loop {
            tokio::select! {
                count = self.inbox.recv_many(&mut nudges, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    self.nudged(std::mem::take(&mut nudges)).await;
                }
                Some(uid) = self.ended.1.recv() => {
                    self.following.remove(&uid);
                }
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn nudged(&mut self, nudges: Vec<Nudge>) {
        let (mut open, mut watches) = (Vec::new(), Vec::new());
        for nudge in nudges {
            self.spec.metrics.nudge(L::TOPIC.as_str());
            match nudge {
                Nudge::Watch(_, uid) => match self.following.get(&uid) {
                    Some((news, _)) => {
                        news.notify_one();
                        self.spec.queue.settle(nudge);
                    }
                    None => {
                        open.push(nudge);
                        watches.push(uid);
                    }
                },
                Nudge::Reported(job) => {
                    let read = self.spec.store.read(move |c| watch::of_job(c, job)).await;
                    self.read(&[nudge], read);
                }
                Nudge::Job(_) | Nudge::Cancel(_) | Nudge::Guest(_) => {}
            }
        }
        let read = match *watches.as_slice() {
            [] => return,
            [uid] => self.spec.store.read(move |c| watch::by_uid(c, uid).map(Vec::from_iter)).await,
            _ => self.spec.store.read(move |c| watch::by_uids(c, &watches)).await,
        };
        self.read(&open, read);
    }

    /// Takes what hints led to. A watch is a row and a sweep finds it; an error leaves the message to whoever can read.
    fn read(&mut self, nudges: &[Nudge], read: Result<Vec<Watch>, store::Error>) {
        if read.is_ok() {
            nudges.iter().for_each(|nudge| self.spec.queue.settle(*nudge));
        }
        self.take(read);
    }

    async fn sweep(&mut self) {
        let limit = i64::try_from(self.spec.together).unwrap_or(i64::MAX);
        for kind in L::KINDS {
            let found = self.spec.store.read(move |c| open_watches(c, *kind, limit)).await;
            self.take(found);
        }
    }

    fn take(&mut self, found: Result<Vec<Watch>, store::Error>) {
        match found {
            Ok(watches) => {
                for watch in watches {
                    self.follow(watch);
                }
            }
            Err(error) => log::warn!("open watches cannot be read, the next sweep tries again: {error}"),
        }
    }

    fn follow(&mut self, watch: Watch) {
        if watch.done_at.is_some() || !L::KINDS.contains(&watch.kind) {
            return;
        }
        if let Some((news, _)) = self.following.get(&watch.uid) {
            news.notify_one();
            return;
        }
        if self.following.len() >= self.spec.together {
            return;
        }
        let uid = watch.uid;
        let news = Rc::new(Notify::new());
        let farewell = Farewell { uid, to: self.ended.0.clone() };
        let looking = look_and_tell(self.spec.clone(), watch, Rc::clone(&news));
        let task = actix_rt::spawn(async move {
            let _farewell = farewell;
            looking.await;
        });
        self.following.insert(uid, (news, task.abort_handle()));
    }
}

/// The open watches that a sweep takes up: by their state, whatever became of their announcement.
fn open_watches(c: &mut AnyConnection, kind: WatchKind, limit: i64) -> diesel::QueryResult<Vec<Watch>> {
    let mut open = watch::open(c, kind, limit)?;
    if sabotaged(Fault::SweepByConfirm) {
        let unconfirmed = outbox::page(c, i64::MIN, limit)?;
        open.retain(|watch| unconfirmed.iter().any(|row| row.body.contains(&watch.uid.to_string())));
    }
    Ok(open)
}

/// Says that a look ended, however it did.
struct Farewell {
    uid: WatchUid,
    to: mpsc::UnboundedSender<WatchUid>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.to.send(self.uid);
    }
}

async fn look_and_tell<L: Look>(spec: Spec<L>, watch: Watch, news: Rc<Notify>) {
    let Some(sight) = spec.look.follow(&watch, &news).await else { return };
    let evidence = Evidence {
        subject: watch.uid.to_string(),
        source: spec.source.clone(),
        job: watch.job,
        customer: watch.customer,
        verdict: sight.verdict,
        text: sight.text,
        raw: sight.raw,
        made_at: Micros(0),
    };
    hit("verdict.before");
    let announce = spec.queue.announce();
    let item = move |c: &mut AnyConnection| {
        let first = transition::verdict(c, &evidence, Some(watch.uid))?;
        announce.note(c, Nudge::Job(watch.job))?;
        Ok(first)
    };
    let stored = spec.store.write(item).await;
    hit("verdict.after");
    match stored {
        Ok(_) => {
            spec.metrics.verdict(sight.verdict.as_str());
            spec.changes.tell(watch.job);
            spec.queue.publish(Nudge::Job(watch.job));
        }
        Err(error) => {
            log::warn!("verdict not stored, the next sweep looks again: {error}; job={}", watch.job);
        }
    }
}

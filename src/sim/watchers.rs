//! Monitors and workers: they take open watches, look until each is decided, and write the verdict.
//!
//! A monitor looks by the real [`CloudLook`]; a worker judges by the real words of `worker`. The loop around them is
//! that of `jobs::watching`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::house::SWEEP;
use super::ports::{CALL, Port};
use super::tasks::Spawner;
use super::wire::{Answer, sleep};
use super::world::{News, Role, Sim};
use super::wrong::Wrong;
use crate::jobs::watching::{Look, Sight};
use crate::model::{ServerStatus, Verdict, WatchKind, WatchUid};
use crate::monitor::CloudLook;
use crate::mq::Nudge;
use crate::store::provisioning::job::Evidence;
use crate::store::provisioning::watch::Watch;
use crate::worker::{Silence, reported, silence, unknown};

const CLOUD: &[WatchKind] = &[WatchKind::Cloud];
const OTHERS: &[WatchKind] = &[WatchKind::Guest, WatchKind::Noop];

/// See the module.
pub(super) struct Watcher {
    port: Arc<Port>,
    spawner: Spawner,
    look: CloudLook,
    kinds: &'static [WatchKind],
    source: String,
    following: RefCell<BTreeMap<WatchUid, Rc<Notify>>>,
}

impl Watcher {
    pub(super) fn start(sim: &Sim, life: usize, role: Role, spawner: &Spawner) {
        let port = Port::new(sim, life);
        let (kinds, word) = if role == Role::Monitor { (CLOUD, "monitor") } else { (OTHERS, "worker") };
        let look = CloudLook {
            store: Arc::clone(&port) as _,
            keys: Arc::clone(&port) as _,
            clouds: port.clouds(),
            clock: Arc::clone(&port) as _,
            first: Duration::from_millis(250),
            most: Duration::from_secs(2),
            call_limit: CALL,
        };
        let source = format!("{word}/{}", port.boot);
        let following = RefCell::default();
        let watcher = Rc::new(Self { port, spawner: spawner.clone(), look, kinds, source, following });
        spawner.spawn(life, Box::pin(Rc::clone(&watcher).listen()));
        spawner.spawn(life, Box::pin(watcher.sweep()));
    }

    async fn sweep(self: Rc<Self>) {
        let kinds = self.kinds;
        loop {
            if let Answer::Value(found) = self.port.read(move |rows| rows.open_watches(kinds)).await {
                let taken: Vec<Watch> = found.into_iter().filter(|watch| !self.skips(watch.uid)).collect();
                taken.into_iter().for_each(|watch| self.follow(watch));
            }
            sleep(&self.port.sim, SWEEP).await;
        }
    }

    /// Whether a deliberate fault has the sweep leave this watch out.
    fn skips(&self, uid: WatchUid) -> bool {
        self.port.sim.with(|w| w.wrong == Some(Wrong::SweepByConfirm) && w.announced.contains(&uid))
    }

    async fn listen(self: Rc<Self>) {
        loop {
            let News::Nudge(nudge) = super::tasks::news(&self.port.sim, self.port.life).await else {
                continue;
            };
            let found = match nudge {
                Nudge::Watch(_, uid) => {
                    if let Some(news) = self.following.borrow().get(&uid) {
                        news.notify_one();
                        continue;
                    }
                    self.port.read(move |rows| Vec::from_iter(rows.watch(uid).cloned())).await
                }
                Nudge::Reported(job) => {
                    let watches = move |rows: &super::rows::Rows| {
                        rows.history(job).map(|h| h.watches.clone()).unwrap_or_default()
                    };
                    self.port.read(watches).await
                }
                _ => continue,
            };
            if let Answer::Value(found) = found {
                found.into_iter().for_each(|watch| self.follow(watch));
            }
        }
    }

    fn follow(self: &Rc<Self>, watch: Watch) {
        if watch.done_at.is_some() || !self.kinds.contains(&watch.kind) {
            return;
        }
        let mut following = self.following.borrow_mut();
        if let Some(news) = following.get(&watch.uid) {
            news.notify_one();
            return;
        }
        let news = Rc::new(Notify::new());
        following.insert(watch.uid, Rc::clone(&news));
        self.spawner.spawn(self.port.life, Box::pin(Rc::clone(self).look_and_tell(watch, news)));
    }

    async fn look_and_tell(self: Rc<Self>, watch: Watch, news: Rc<Notify>) {
        let sight = match watch.kind {
            WatchKind::Cloud => self.look.follow(&watch, &news).await,
            WatchKind::Noop => Some(Sight {
                verdict: Verdict::Reached,
                text: "nothing was to be done".to_owned(),
                raw: String::new(),
            }),
            WatchKind::Guest => Some(self.report(&watch, &news).await),
            // Nobody looks: the end of the last child decides. There are no groups here.
            WatchKind::Children => None,
        };
        if let Some(sight) = sight {
            self.tell(&watch, sight).await;
        }
        self.following.borrow_mut().remove(&watch.uid);
    }

    async fn tell(&self, watch: &Watch, sight: Sight) {
        let evidence = Evidence {
            subject: watch.uid.to_string(),
            source: self.source.clone(),
            job: watch.job,
            customer: watch.customer,
            verdict: sight.verdict,
            text: sight.text,
            raw: sight.raw,
            made_at: watch.made_at,
        };
        let uid = watch.uid;
        let stored = self.port.write(move |rows| rows.verdict(&evidence, Some(uid))).await;
        if matches!(stored, Answer::Value(_)) {
            self.port.sim.with(|w| w.publish(Nudge::Job(watch.job)));
        }
    }

    /// What a guest reported, or what its silence means.
    async fn report(&self, watch: &Watch, news: &Notify) -> Sight {
        loop {
            if let Some(sight) = self.look_at_report(watch).await {
                return sight;
            }
            tokio::select! {
                biased;
                () = news.notified() => {}
                () = sleep(&self.port.sim, Duration::from_secs(2)) => {}
            }
        }
    }

    async fn look_at_report(&self, watch: &Watch) -> Option<Sight> {
        let (uid, id) = (watch.job, watch.target.clone());
        let found = self.port.read(move |rows| {
            let row = rows.command(&id)?.clone();
            let server = rows.servers.get(&row.server);
            let gone = server.is_none_or(|s| s.status == ServerStatus::Terminated.as_str());
            rows.history(uid).map(|history| (history.clone(), row, gone))
        });
        let Answer::Value(found) = found.await else { return None };
        let Some((history, row, gone)) = found else {
            return Some(unknown("its command is not in the database"));
        };
        if let Some(sight) = reported(&history, &row) {
            return Some(sight);
        }
        let now = self.port.sim.with(|w| w.now);
        match silence(&row, gone, now, watch.deadline) {
            Silence::Wait => None,
            Silence::Unanswered => Some(unknown("the command was sent and the guest never answered")),
            Silence::Unsent => {
                let id = row.id.clone();
                let never_sent = self.port.write(move |rows| rows.expire(&id)).await;
                matches!(never_sent, Answer::Value(true)).then(|| Sight {
                    verdict: Verdict::Lost,
                    text: "the guest's agent did not come before the command expired".to_owned(),
                    raw: String::new(),
                })
            }
        }
    }
}

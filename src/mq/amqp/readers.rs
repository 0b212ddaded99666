//! Who reads in this process, and which deliveries wait until what they ask for is committed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Acker;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::model::{Epoch, JobUid};
use crate::mq::{Line, Nudge, Topic};

/// Hints that may wait for one reader. The prefetch bounds those of the broker far below it.
const WAITING: usize = 65_536;

/// The readers of this process: one a topic, the newest.
pub(super) struct Readers {
    by_topic: Mutex<HashMap<Topic, Reader>>,
    /// Counts changes, for those who wait for a reader.
    changed: watch::Sender<u64>,
}

struct Reader {
    inbox: mpsc::Sender<Nudge>,
    number: u64,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { by_topic: Mutex::default(), changed: watch::Sender::new(0) }
    }

    pub(super) fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.changed.send_modify(|count| {
            *count += 1;
            self.lock().insert(topic, Reader { inbox: sender, number: *count });
        });
        receiver
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether anybody reads one of these topics.
    pub(super) fn any(&self, topics: &[Topic]) -> bool {
        let readers = self.lock();
        topics.iter().any(|topic| readers.get(topic).is_some_and(|reader| !reader.inbox.is_closed()))
    }

    /// Names the present readers of these topics: what another one was given, these never saw.
    pub(super) fn who(&self, topics: &[Topic]) -> Vec<u64> {
        let readers = self.lock();
        topics.iter().filter_map(|topic| readers.get(topic)).map(|reader| reader.number).collect()
    }

    /// Hands a hint to its reader; false when there is none, or none with room.
    pub(super) fn tell(&self, nudge: Nudge) -> bool {
        self.lock().get(&nudge.topic()).is_some_and(|reader| reader.inbox.try_send(nudge).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Reader>> {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deliveries that wait to be settled, by queue. What is held for a connection that went is forgotten with it: the
/// broker delivers it again.
#[derive(Default)]
pub(super) struct Pending {
    lines: Mutex<HashMap<Line, Slot>>,
    claims: Mutex<Claims>,
}

/// Claims of this process that are remembered: a hint is on its way for moments, and one that is forgotten costs a look.
const CLAIMS: usize = 16_384;

/// Jobs claimed here lately, with the epoch each claim saw.
#[derive(Default)]
struct Claims {
    seen: HashMap<JobUid, Epoch>,
    /// The oldest first.
    order: VecDeque<JobUid>,
}

impl Claims {
    fn remember(&mut self, job: JobUid, epoch: Epoch) {
        match self.seen.get_mut(&job) {
            Some(seen) => *seen = epoch.max(*seen),
            None => {
                self.seen.insert(job, epoch);
                self.order.push_back(job);
            }
        }
        if self.order.len() > CLAIMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

struct Slot {
    held: HashMap<Nudge, Vec<(Acker, Instant)>>,
    settled: mpsc::UnboundedSender<Acker>,
}

impl Pending {
    /// Begins anew for a queue; settled deliveries come out of the receiver.
    pub(super) fn open(&self, line: Line) -> mpsc::UnboundedReceiver<Acker> {
        let (settled, receiver) = mpsc::unbounded_channel();
        self.lock().insert(line, Slot { held: HashMap::new(), settled });
        receiver
    }

    pub(super) fn hold(&self, line: Line, nudge: Nudge, acker: Acker) {
        if let Some(slot) = self.lock().get_mut(&line) {
            slot.held.entry(nudge).or_default().push((acker, Instant::now()));
        }
    }

    /// Notes a committed claim, and settles the hints that led to it.
    pub(super) fn claimed(&self, job: JobUid, epoch: Epoch) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remember(job, epoch);
        self.settle(Nudge::Job(job));
    }

    /// Whether a hint about a job, written at this epoch, led to a claim that is committed already.
    pub(super) fn is_overtaken(&self, nudge: Nudge, written: Option<Epoch>) -> bool {
        let (Nudge::Job(job), Some(written)) = (nudge, written) else { return false };
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.seen.get(&job).is_some_and(|seen| written <= *seen)
    }

    pub(super) fn settle(&self, nudge: Nudge) {
        let mut lines = self.lock();
        let Some(slot) = lines.get_mut(&Line::of(nudge)) else { return };
        for (acker, _) in slot.held.remove(&nudge).into_iter().flatten() {
            // A session that just ended leaves its messages to the broker.
            let _ = slot.settled.send(acker);
        }
    }

    /// Takes out what has waited longer than this.
    pub(super) fn overdue(&self, line: Line, limit: Duration) -> Vec<Acker> {
        let mut lines = self.lock();
        let Some(slot) = lines.get_mut(&line) else { return Vec::new() };
        let mut late = Vec::new();
        slot.held.retain(|_, waiting| {
            waiting.retain(|(acker, since)| {
                let over = since.elapsed() > limit;
                if over {
                    late.push(acker.clone());
                }
                !over
            });
            !waiting.is_empty()
        });
        late
    }

    /// How many are held for a queue.
    pub(super) fn held(&self, line: Line) -> usize {
        self.lock().get(&line).map_or(0, |slot| slot.held.values().map(Vec::len).sum())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Line, Slot>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{CLAIMS, Pending};
    use crate::model::{Epoch, JobUid};
    use crate::mq::Nudge;

    #[test]
    fn a_hint_is_overtaken_by_a_claim_that_saw_its_epoch_or_a_later_one() {
        let (pending, job) = (Pending::default(), JobUid::random());
        let hint = Nudge::Job(job);
        assert!(!pending.is_overtaken(hint, Some(Epoch(0))), "nothing was claimed");
        pending.claimed(job, Epoch(0));
        assert!(pending.is_overtaken(hint, Some(Epoch(0))));
        assert!(!pending.is_overtaken(hint, Some(Epoch(1))), "written after the claim: a verdict");
        assert!(!pending.is_overtaken(hint, None), "nobody knows when it was written");
        assert!(
            !pending.is_overtaken(Nudge::Cancel(job), Some(Epoch(0))),
            "a cancel asks for something else"
        );
        pending.claimed(job, Epoch(3));
        pending.claimed(job, Epoch(2));
        assert!(pending.is_overtaken(hint, Some(Epoch(3))));
        (0..CLAIMS).for_each(|_| pending.claimed(JobUid::random(), Epoch(0)));
        assert!(!pending.is_overtaken(hint, Some(Epoch(0))), "the oldest is forgotten");
    }
}

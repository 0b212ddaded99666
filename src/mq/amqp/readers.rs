//! Who reads in this process, and which deliveries wait until what they ask for is committed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Acker;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

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
pub(super) struct Pending(Mutex<HashMap<Line, Slot>>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

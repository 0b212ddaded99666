//! The queue of a single process: rows are the messages, a bounded channel a topic is the nudge.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::{Nudge, Queue, Topic};

/// See the module.
pub struct Embedded {
    readers: Mutex<HashMap<Topic, mpsc::Sender<Nudge>>>,
    waiting: usize,
}

impl Embedded {
    /// Hints that may wait for one reader; more are dropped, and the sweep finds their rows.
    const WAITING: usize = 65_536;

    /// A queue without readers yet.
    #[must_use]
    pub fn new() -> Self {
        Self { readers: Mutex::default(), waiting: Self::WAITING }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue for Embedded {
    fn publish(&self, nudge: Nudge) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(&nudge.topic())
            && reader.try_send(nudge).is_err()
        {
            log::debug!("nudge dropped, the sweep will find it; topic={}", nudge.topic().as_str());
        }
    }

    fn subscribe(&self, topic: Topic) -> mpsc::Receiver<Nudge> {
        let (sender, receiver) = mpsc::channel(self.waiting);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(topic, sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::Embedded;
    use crate::model::{JobUid, ServerId};
    use crate::mq::{Nudge, Queue, Topic};

    #[test]
    fn a_nudge_reaches_the_newest_reader_of_its_topic_and_none_is_needed() {
        let queue = Embedded::new();
        queue.publish(Nudge::Guest(ServerId(1)));
        let mut old = queue.subscribe(Topic::Jobs);
        let mut new = queue.subscribe(Topic::Jobs);
        let nudge = Nudge::Job(JobUid::random());
        queue.publish(nudge);
        queue.publish(Nudge::Guest(ServerId(2)));
        assert_eq!(new.try_recv(), Ok(nudge));
        assert!(new.try_recv().is_err());
        assert!(old.try_recv().is_err());
    }
}

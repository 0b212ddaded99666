//! Tasks of processes, and what they wait for.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::world::{News, Sim};
use crate::wire::AgentFrame;

/// One task.
pub(super) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Starts tasks of processes.
#[derive(Clone, Default)]
pub(super) struct Spawner(pub(super) Rc<RefCell<Vec<(usize, Task)>>>);

impl Spawner {
    pub(super) fn spawn(&self, life: usize, task: Task) {
        self.0.borrow_mut().push((life, task));
    }
}

/// The next message for a process.
pub(super) async fn news(sim: &Sim, life: usize) -> News {
    std::future::poll_fn(|cx| {
        sim.with(|w| match w.lives[life].inbox.pop_front() {
            Some(news) => Poll::Ready(news),
            None => {
                w.lives[life].waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    })
    .await
}

/// The next frame of a session; none when it is broken.
pub(super) async fn frame(sim: &Sim, of: (i64, i64)) -> Option<AgentFrame> {
    std::future::poll_fn(|cx| {
        sim.with(|w| {
            let Some(session) = w.sessions.get_mut(&of).filter(|session| session.up) else {
                return Poll::Ready(None);
            };
            match session.frames.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => {
                    session.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    })
    .await
}

//! One call between a process and something outside: the way there, the effect, the way back, and what goes wrong.
//!
//! The effect happens in the world and not in the caller, so that a process that dies or stands still after it sent
//! something takes nothing back.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::world::{Sim, World};
use crate::model::Micros;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A read of rows.
    Read,
    /// A write of rows.
    Write,
    /// A lease of the key manager.
    Lease,
    /// A call that changes something at a cloud.
    Effect,
    /// A look at a cloud.
    Look,
}

impl Site {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "call read",
            Self::Write => "call write",
            Self::Lease => "call lease",
            Self::Effect => "call effect",
            Self::Look => "call look",
        }
    }
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// Its answer.
    Value(T),
    /// It was refused before its effect.
    Refused,
    /// Nobody knows.
    Lost,
}

/// What a call suffers; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Good {
        there: i64,
        back: i64,
    },
    /// Refused before the effect.
    Refused {
        after: i64,
    },
    /// Nothing happens, and nobody knows.
    Never {
        after: i64,
    },
    /// It happens, and nobody knows.
    LostAnswer {
        there: i64,
        after: i64,
    },
    /// It happens after its caller was told that nobody knows.
    Late {
        there: i64,
        after: i64,
    },
    /// It happens twice; the second answers.
    Twice {
        there: i64,
        again: i64,
        back: i64,
    },
}

impl Fate {
    pub(super) const KINDS: [&'static str; 6] = ["good", "refused", "never", "answer lost", "late", "twice"];

    pub(super) const fn number(self) -> usize {
        match self {
            Self::Good { .. } => 0,
            Self::Refused { .. } => 1,
            Self::Never { .. } => 2,
            Self::LostAnswer { .. } => 3,
            Self::Late { .. } => 4,
            Self::Twice { .. } => 5,
        }
    }
}

struct Slot<T> {
    answer: Option<Answer<T>>,
    waker: Option<Waker>,
}

/// Waits for an answer.
pub(super) struct Pending<T>(Arc<Mutex<Slot<T>>>);

impl<T> Clone for Pending<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Pending<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Slot { answer: None, waker: None })))
    }

    fn fill(&self, answer: Answer<T>) {
        let mut slot = self.0.lock().expect("no panic");
        slot.answer = Some(answer);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Answer<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<T>> {
        let mut slot = self.0.lock().expect("no panic");
        if let Some(answer) = slot.answer.take() {
            return Poll::Ready(answer);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Sends a call now; its answer may be waited for or dropped.
pub(super) fn call<T: Send + 'static>(
    sim: &Sim,
    site: Site,
    mut effect: impl FnMut(&mut World) -> T + Send + 'static,
) -> Pending<T> {
    let pending = Pending::new();
    let slot = pending.clone();
    sim.with(|w| {
        let fate = w.fate(site);
        w.note(site.name(), fate.number() as u64, 0);
        match fate {
            Fate::Good { there, back } => w.after(there, move |w| {
                let value = effect(w);
                w.after(back, move |_| slot.fill(Answer::Value(value)));
            }),
            Fate::Refused { after } => w.after(after, move |_| slot.fill(Answer::Refused)),
            Fate::Never { after } => w.after(after, move |_| slot.fill(Answer::Lost)),
            Fate::LostAnswer { there, after } | Fate::Late { there, after } => {
                w.after(after, move |_| slot.fill(Answer::Lost));
                w.after(there, move |w| drop(effect(w)));
            }
            Fate::Twice { there, again, back } => w.after(there, move |w| {
                drop(effect(w));
                w.after(again, move |w| {
                    let value = effect(w);
                    w.after(back, move |_| slot.fill(Answer::Value(value)));
                });
            }),
        }
    });
    pending
}

/// Waits in virtual time.
pub(super) struct Sleep {
    sim: Sim,
    at: Micros,
    asked: bool,
}

pub(super) fn sleep(sim: &Sim, duration: Duration) -> Sleep {
    let at = sim.with(|w| w.now.plus(duration));
    Sleep { sim: sim.clone(), at, asked: false }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (at, asked) = (self.at, self.asked);
        let over = self.sim.with(|w| {
            if w.now < at && !asked {
                w.wake_at(at, cx.waker().clone());
            }
            w.now >= at
        });
        self.asked = true;
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

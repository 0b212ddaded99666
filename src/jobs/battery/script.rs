//! Which call of which port suffers what, and the clock all of them share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::jobs::ports::Clock;
use crate::model::{ErrorClass, Micros};

/// What goes wrong with one call of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Refused for this reason; nothing is done.
    Refuse(ErrorClass),
    /// Nothing is done, and nobody knows.
    Unknown,
    /// Done, and nobody knows.
    Answer,
    /// Stands still until the caller's limit.
    Stall,
    /// Done, and the call never returns.
    Hang,
    /// A create that lands after its caller gave up.
    Late,
    /// The port panics.
    Panic,
    /// The process dies before the call.
    KillBefore,
    /// The process dies after the effect.
    KillAfter,
    /// A person asks for the cancel just before.
    Cancel,
    /// The same, and the process dies after the call.
    CancelKill,
    /// The job's time is over just before.
    TooLate,
}

/// See the module.
#[derive(Default)]
pub(super) struct Script {
    now: AtomicI64,
    calls: AtomicU32,
    fault: Mutex<Option<(u32, Fault)>>,
    deadly: Mutex<Option<&'static str>>,
    hanging: Mutex<Option<&'static str>>,
    /// Told when the process is to die.
    pub(super) dead: Notify,
    /// Told, and answered through `cancelled`, when a person asks for a cancel.
    pub(super) cancel: Notify,
    pub(super) cancelled: Notify,
}

impl Script {
    pub(super) fn begin(&self, fault: Option<(u32, Fault)>) {
        self.calls.store(0, Ordering::SeqCst);
        *self.fault.lock().expect("no panic") = fault;
        self.now.store(Micros::wall().0, Ordering::SeqCst);
    }

    /// Lets every call of this name kill the process.
    pub(super) fn deadly(&self, name: &'static str) {
        *self.deadly.lock().expect("no panic") = Some(name);
    }

    /// Lets no call kill the process any more.
    pub(super) fn harmless(&self) {
        *self.deadly.lock().expect("no panic") = None;
    }

    /// Lets the next call of this name never return.
    pub(super) fn hang(&self, name: &'static str) {
        *self.hanging.lock().expect("no panic") = Some(name);
    }

    pub(super) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn now(&self) -> Micros {
        Micros(self.now.load(Ordering::SeqCst))
    }

    pub(super) fn advance_to(&self, at: Micros) {
        self.now.fetch_max(at.0, Ordering::SeqCst);
    }

    /// Whether the next call suffers this fault.
    pub(super) fn will(&self, _: &'static str, wanted: &Fault) -> bool {
        let fault = self.fault.lock().expect("no panic");
        fault.as_ref().is_some_and(|(at, fault)| *at == self.calls() + 1 && fault == wanted)
    }

    /// One call passes; the fault it suffers, once it is its turn.
    pub(super) async fn pass(&self, name: &'static str) -> Option<Fault> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.hanging.lock().expect("no panic").take_if(|hanging| *hanging == name).is_some() {
            return Some(Fault::Hang);
        }
        if *self.deadly.lock().expect("no panic") == Some(name) {
            return self.die().await;
        }
        let due = {
            let mut fault = self.fault.lock().expect("no panic");
            if fault.as_ref().is_some_and(|(at, _)| *at == call) {
                fault.take().map(|(_, f)| f)
            } else {
                None
            }
        };
        match due {
            Some(Fault::KillBefore) => self.die().await,
            Some(Fault::Panic) => panic!("on demand in {name}"),
            Some(Fault::Cancel | Fault::CancelKill) => {
                self.cancel.notify_one();
                self.cancelled.notified().await;
                (due == Some(Fault::CancelKill)).then_some(Fault::KillAfter)
            }
            Some(Fault::TooLate) => {
                self.advance_to(self.now().plus(Duration::from_secs(3600)));
                None
            }
            Some(Fault::Stall) => {
                self.sleep(Duration::from_secs(2)).await;
                due
            }
            due => due,
        }
    }

    /// The process dies: this call never returns.
    pub(super) async fn die<T>(&self) -> T {
        self.dead.notify_one();
        std::future::pending().await
    }
}

#[async_trait(?Send)]
impl Clock for Script {
    fn now(&self) -> Micros {
        Self::now(self)
    }

    async fn sleep(&self, duration: Duration) {
        self.advance_to(Self::now(self).plus(duration));
        tokio::task::yield_now().await;
    }
}

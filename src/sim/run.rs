//! The scheduler: one thread, one choice at a time, all from the seed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use super::faults::Figures;
use super::house::House;
use super::outside::{client, furnish, trouble};
use super::ports::Common;
use super::tasks::{Spawner, Task};
use super::watchers::Watcher;
use super::world::{BEGIN, Life, Order, Role, SECOND, Sim, World};
use super::wrong::Wrong;
use crate::cloud::TokenClass;
use crate::model::{Boot, Micros, dice};

/// Clients of a run, each with one job.
const CLIENTS: u64 = 30;
/// When all is healed at the latest.
const HEALED: i64 = 60 * SECOND;
/// When idle jobs are looked for, after all was healed, and looked at again.
const FIRST_LOOK: i64 = 20 * SECOND;
const SECOND_LOOK: i64 = 40 * SECOND;
/// After this no job may be open: the longest deadline, Q, the margin of the plan, and a minute.
const OVER: i64 = (40 + 8 + 120 + 12 + 30 + 60) * SECOND;
/// Steps after which a run that is not over never will be.
const MOST_STEPS: u64 = 400_000;

struct Bell {
    task: usize,
    rung: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().expect("no panic").push(self.task);
    }
}

struct Slot {
    life: usize,
    task: Option<Task>,
    waker: Waker,
    /// Whether it stands among those to be polled.
    ready: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) hash: u64,
    pub(super) figures: Figures,
    pub(super) violation: Option<String>,
    pub(super) tail: String,
}

struct Scheduler {
    sim: Sim,
    spawner: Spawner,
    common: Common,
    slots: Vec<Slot>,
    ready: Vec<usize>,
    rung: Arc<Mutex<Vec<usize>>>,
    steps: u64,
    polls: u64,
    /// Jobs that idled at the first look after all was healed.
    idle: Option<BTreeMap<usize, &'static str>>,
}

/// Which class the cloud of a seed is of.
pub(super) const fn class_of(seed: u64) -> TokenClass {
    match seed % 8 {
        0..=2 => TokenClass::K,
        3 | 4 => TokenClass::S,
        5 | 6 => TokenClass::T,
        _ => TokenClass::N,
    }
}

/// Runs one seed to its end.
pub(super) fn run(seed: u64, wrong: Option<Wrong>) -> Outcome {
    run_in(seed, class_of(seed), wrong)
}

/// The same in a class that is named.
pub(super) fn run_in(seed: u64, class: TokenClass, wrong: Option<Wrong>) -> Outcome {
    dice::settle(Some(seed));
    let mut scheduler = Scheduler::new(seed, class, wrong);
    scheduler.play();
    dice::settle(None);
    let (steps, polls) = (scheduler.steps, scheduler.polls);
    scheduler.sim.with(|w| {
        w.figures.steps = steps;
        w.figures.polls = polls;
        Outcome {
            hash: w.trace.hash(),
            figures: w.figures.clone(),
            violation: w.violation.take(),
            tail: w.trace.tail(),
        }
    })
}

impl Scheduler {
    fn new(seed: u64, class: TokenClass, wrong: Option<Wrong>) -> Self {
        let sim = Sim::new(World::new(seed, class, wrong));
        let mut scheduler = Self {
            common: Common::new(),
            sim,
            spawner: Spawner::default(),
            slots: Vec::new(),
            ready: Vec::new(),
            rung: Arc::default(),
            steps: 0,
            polls: 0,
            idle: None,
        };
        scheduler.sim.with(furnish);
        scheduler.begin();
        scheduler
    }

    fn begin(&mut self) {
        let outside = self.boot(Role::Outside);
        let healed = Micros(BEGIN.0 + HEALED);
        self.spawner.spawn(outside, Box::pin(trouble(self.sim.clone(), healed)));
        for number in 0..CLIENTS {
            self.spawner.spawn(outside, Box::pin(client(self.sim.clone(), number)));
        }
        let dispatchers = self.sim.with(|w| w.chance.range(1, 3));
        let monitors = self.sim.with(|w| w.chance.range(1, 2));
        for _ in 0..dispatchers {
            self.boot(Role::Dispatcher);
        }
        for _ in 0..monitors {
            self.boot(Role::Monitor);
        }
        self.boot(Role::Worker);
    }

    /// A new life of a process.
    fn boot(&mut self, role: Role) -> usize {
        let life = self.sim.with(|w| {
            w.note("begins", w.lives.len() as u64, role as u64);
            w.lives.push(Life {
                role,
                boot: Boot::random(),
                alive: true,
                paused: false,
                beat_sent: Micros(0),
                inbox: std::collections::VecDeque::new(),
                waker: None,
                running: HashSet::new(),
            });
            w.lives.len() - 1
        });
        match role {
            Role::Outside => {}
            Role::Dispatcher => House::start(&self.sim, life, &self.common, &self.spawner),
            Role::Monitor | Role::Worker => Watcher::start(&self.sim, life, role, &self.spawner),
        }
        life
    }

    /// A process dies: what it had begun is dropped, what it had sent goes on. Another one follows.
    fn kill(&mut self, life: usize) {
        let role = self.sim.with(|w| {
            let dying = &mut w.lives[life];
            let was = std::mem::replace(&mut dying.alive, false);
            dying.paused = false;
            dying.inbox.clear();
            dying.running.clear();
            let role = dying.role;
            was.then(|| {
                w.figures.crashes += 1;
                w.note("dies", life as u64, role as u64);
                let sessions: Vec<(i64, i64)> = w.sessions_of(life);
                sessions.into_iter().for_each(|(server, number)| w.break_session(server, number));
                let pause = w.chance.range(SECOND / 10, 12 * SECOND);
                w.after(pause, move |w| w.orders.push(Order::Boot(role)));
                role
            })
        });
        if role.is_some() {
            for slot in self.slots.iter_mut().filter(|slot| slot.life == life) {
                slot.task = None;
            }
        }
    }

    fn obey(&mut self) {
        loop {
            let orders = self.sim.with(|w| std::mem::take(&mut w.orders));
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Kill(life) => self.kill(life),
                    Order::Boot(role) => {
                        self.boot(role);
                    }
                }
            }
        }
    }

    /// Takes in tasks that were started and those that were woken.
    fn gather(&mut self) {
        let started = std::mem::take(&mut *self.spawner.0.borrow_mut());
        for (life, task) in started {
            let number = self.slots.len();
            let bell = Bell { task: number, rung: Arc::clone(&self.rung) };
            let waker = Waker::from(Arc::new(bell));
            self.slots.push(Slot { life, task: Some(task), waker, ready: true });
            self.ready.push(number);
        }
        let rung = std::mem::take(&mut *self.rung.lock().expect("no panic"));
        for number in rung {
            let slot = &mut self.slots[number];
            if !slot.ready && slot.task.is_some() {
                slot.ready = true;
                self.ready.push(number);
            }
        }
    }

    /// Places among the ready whose process does not stand still.
    fn runnable(&mut self) -> Vec<usize> {
        let (slots, sim) = (&mut self.slots, &self.sim);
        self.ready.retain(|number| slots[*number].task.is_some());
        sim.with(|w| {
            let awake = |number: &usize| !w.lives[slots[*number].life].paused;
            (0..self.ready.len()).filter(|at| awake(&self.ready[*at])).collect()
        })
    }

    /// One choice: a task that is ready, or what happens next in the world.
    fn step(&mut self) -> bool {
        self.gather();
        let runnable = self.runnable();
        let chosen = self.sim.with(|w| {
            let due = w.next_at().is_some_and(|at| at <= w.now);
            if runnable.is_empty() || due && w.chance.one_in(2) {
                return None;
            }
            Some(*w.chance.pick(&runnable))
        });
        self.steps += 1;
        match chosen {
            Some(at) => self.poll(at),
            None if !self.sim.with(World::happen) => return false,
            None => {}
        }
        self.obey();
        true
    }

    fn poll(&mut self, at: usize) {
        let number = self.ready.swap_remove(at);
        self.polls += 1;
        self.sim.with(|w| w.trace.mix(number as u64));
        let slot = &mut self.slots[number];
        slot.ready = false;
        let Some(task) = &mut slot.task else { return };
        let waker = slot.waker.clone();
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            slot.task = None;
        }
    }

    fn play(&mut self) {
        while self.steps < MOST_STEPS {
            if !self.step() || self.sim.with(|w| w.violation.is_some()) {
                return;
            }
            if self.is_over() {
                return self.settle();
            }
        }
        self.sim.with(|w| {
            let open = w.rows.jobs.iter().filter(|e| e.job().ended_at.is_none()).count();
            w.violated(format!("liveness: {open} jobs are open after {MOST_STEPS} steps"));
        });
    }

    /// Whether every client was answered and every job has ended; what must be so on the way is asked here.
    fn is_over(&mut self) -> bool {
        if !self.steps.is_multiple_of(16) {
            return false;
        }
        let idle = &mut self.idle;
        self.sim.with(|w| {
            let healed = w.now.0 - BEGIN.0 - HEALED;
            match idle {
                None if healed > FIRST_LOOK => *idle = Some(w.idle()),
                Some(before) if healed > SECOND_LOOK && !before.is_empty() => {
                    let still = w.idle();
                    let both = before.iter().find(|(i, why)| still.get(*i) == Some(*why));
                    if let Some((i, why)) = both {
                        let text = format!("{why}; job {i}: {:#?}", w.rows.jobs[*i].history);
                        w.violated(text);
                    }
                    before.clear();
                }
                _ => {}
            }
            let open = w.rows.jobs.iter().position(|e| e.job().ended_at.is_none());
            if let Some(i) = open.filter(|_| w.now.0 > BEGIN.0 + OVER) {
                let text = format!("I13: a job never ends: {:#?}", w.rows.jobs[i].history);
                w.violated(text);
            }
            healed > 0 && open.is_none() && w.checks.accepted.len() as u64 == CLIENTS
        })
    }

    /// Lets everything land that is still on its way, and judges.
    fn settle(&mut self) {
        let until = self.sim.with(|w| Micros(w.now.0 + 70 * SECOND));
        while self.sim.with(|w| w.next_at().is_some_and(|at| at <= until)) {
            // Processes have nothing to do any more; what they sent arrives all the same.
            self.steps += 1;
            self.sim.with(World::happen);
            self.sim.with(|w| w.orders.clear());
        }
        self.sim.with(World::judge);
    }
}

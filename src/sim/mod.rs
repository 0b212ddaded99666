//! A simulation of the job core: the real code under virtual time, a seeded scheduler and faults at every call. For
//! tests only.
//!
//! What is real: the plan and the driver of `jobs`, the monitor's `CloudLook`, the judgements of `worker`, the
//! directory and the stop-watches of `registry`, the session's machine of `agents`, the guest's journal of `agent`.
//! What is played: the world (`world`, `wire`, `faults`), a cloud of one class (`cloud`), guests (`guest`), clients
//! and trouble (`outside`), the handlers of the actors around the real parts (`house`, `session`, `watchers`), and rows
//! (`rows`), which `differential` holds to SQL. `run` is the scheduler: one thread, each choice from the seed.
//! `check` says what must hold, `wrong` what is made wrong on purpose to see that the checks see it.
//!
//! A violation is told with its seed and the end of its trace. `DISPATCHER_TEST_SIM_SEED=<seed>` replays it; more in
//! `tests/README.md`.

mod calls;
mod chance;
mod check;
mod cloud;
mod differential;
mod faults;
mod guest;
mod house;
mod outside;
mod ports;
mod rows;
mod run;
mod session;
mod tasks;
mod tests;
mod trace;
mod watchers;
mod wire;
mod world;
mod wrong;

//! A simulation of the job core: the real code under virtual time, a seeded scheduler and faults at every call.

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
mod tests;
mod trace;
mod watchers;
mod wire;
mod world;
mod wrong;

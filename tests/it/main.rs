//! One integration binary: the real executable, its databases and its promises. `tests/README.md` says how to run it.

#![cfg(test)]
#![expect(clippy::string_slice, reason = "a wrong cut of a text fails the test, as it should")]

#[cfg(test)]
mod absent;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod blocked;
#[cfg(all(test, feature = "amqp"))]
mod broker;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cloud_process;
#[cfg(all(test, feature = "mysql", feature = "amqp"))]
mod cluster;
#[cfg(test)]
mod commits;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod down;
#[cfg(test)]
mod events;
mod full_disk;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod janitor;
#[cfg(all(test, feature = "mysql"))]
mod mariadb;
#[cfg(test)]
mod migrations;
#[cfg(all(test, feature = "amqp"))]
mod queue;
#[cfg(test)]
mod ready;
mod restore;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod starved;

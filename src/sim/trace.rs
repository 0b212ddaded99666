//! What happened, as a number to compare runs by, and the last lines to read when a check fails.

use std::collections::VecDeque;

use crate::model::Micros;

/// Lines kept to be read.
const TAIL: usize = 120;

/// One line.
#[derive(Clone, Debug)]
struct Line {
    at: Micros,
    what: &'static str,
    of: u64,
    with: u64,
}

/// Every decision of the scheduler, every call, answer and move of a row.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    began: Micros,
    tail: VecDeque<Line>,
}

impl Trace {
    pub(super) fn new(began: Micros) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, began, tail: VecDeque::with_capacity(TAIL) }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Takes a number into account without a line for it.
    pub(super) const fn mix(&mut self, number: u64) {
        let mixed = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ (mixed >> 29);
    }

    pub(super) fn note(&mut self, at: Micros, what: &'static str, of: u64, with: u64) {
        let word = what.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.mix(word);
        self.mix(of);
        self.mix(with);
        self.mix(at.0.unsigned_abs());
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(Line { at, what, of, with });
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> String {
        let lines = self.tail.iter().map(|line| {
            let ms = line.at.since(self.began).as_millis();
            format!("{:>4}.{:03} s  {} {} {}", ms / 1000, ms % 1000, line.what, line.of, line.with)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

//! What goes wrong, how often, and how often it did.

use super::chance::Chance;
use super::wire::{Fate, Site};
use super::world::SECOND;
use crate::cloud::TokenClass;
use crate::model::Micros;

/// How much goes wrong in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Calls of a thousand that suffer each kind of fault; zero once all is healed.
    rate: u64,
    /// Until when no database answers.
    pub(super) outage: Micros,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) steps: u64,
    pub(super) polls: u64,
    pub(super) jobs: u64,
    /// By state: complete, failed, cancelled, unresolved.
    pub(super) ends: [u64; 4],
    /// By [`Fate::number`].
    pub(super) fates: [u64; 6],
    /// Lost, good, twice.
    pub(super) messages: [u64; 3],
    pub(super) crashes: u64,
    pub(super) pauses: u64,
    pub(super) takeovers: u64,
    pub(super) declared_dead: u64,
    pub(super) guest_crashes: u64,
    pub(super) broken_sessions: u64,
    pub(super) stale_reads: u64,
    pub(super) outages: u64,
    pub(super) lost_servers: u64,
    pub(super) cancels: u64,
    pub(super) looks: u64,
}

impl Figures {
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        pairs(&mut self.ends, &other.ends);
        pairs(&mut self.fates, &other.fates);
        pairs(&mut self.messages, &other.messages);
        self.steps += other.steps;
        self.polls += other.polls;
        self.jobs += other.jobs;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.takeovers += other.takeovers;
        self.declared_dead += other.declared_dead;
        self.guest_crashes += other.guest_crashes;
        self.broken_sessions += other.broken_sessions;
        self.stale_reads += other.stale_reads;
        self.outages += other.outages;
        self.lost_servers += other.lost_servers;
        self.cancels += other.cancels;
        self.looks += other.looks;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [complete, failed, cancelled, unresolved] = self.ends;
        writeln!(f, "{} steps, {} of them polls; {} jobs", self.steps, self.polls, self.jobs)?;
        writeln!(
            f,
            "ends: {complete} complete, {failed} failed, {cancelled} cancelled, {unresolved} unresolved"
        )?;
        let calls = Fate::KINDS.iter().zip(self.fates).map(|(kind, n)| format!("{n} {kind}"));
        writeln!(f, "calls: {}; {} stale reads", calls.collect::<Vec<_>>().join(", "), self.stale_reads)?;
        let [lost, good, twice] = self.messages;
        writeln!(f, "hints: {good} good, {lost} lost, {twice} twice")?;
        writeln!(
            f,
            "processes: {} crashes, {} stood still and woke, {} declared dead, {} jobs taken over",
            self.crashes, self.pauses, self.declared_dead, self.takeovers
        )?;
        write!(
            f,
            "{} outages of the database, {} crashes of guests, {} broken sessions, {} servers lost, {} cancels, {} looks at guests",
            self.outages,
            self.guest_crashes,
            self.broken_sessions,
            self.lost_servers,
            self.cancels,
            self.looks
        )
    }
}

impl Faults {
    pub(super) fn new(chance: &mut Chance) -> Self {
        Self { rate: *chance.pick(&[0, 5, 15, 30]), outage: Micros(0) }
    }

    /// From now on all is well.
    pub(super) const fn heal(&mut self) {
        self.rate = 0;
        self.outage = Micros(0);
    }

    fn quick(chance: &mut Chance, site: Site) -> i64 {
        match site {
            Site::Read | Site::Write => chance.range(100, 3_000),
            Site::Lease => chance.range(500, 20_000),
            Site::Effect | Site::Look => chance.range(10_000, 300_000),
        }
    }

    pub(super) fn fate(self, chance: &mut Chance, (site, class): (Site, TokenClass), now: Micros) -> Fate {
        let (there, back) = (Self::quick(chance, site), Self::quick(chance, site));
        let rows = matches!(site, Site::Read | Site::Write);
        if rows && now < self.outage {
            return Fate::Refused { after: there };
        }
        let rate = if site == Site::Effect { self.rate * 3 } else { self.rate };
        if rate == 0 || !chance.permille(rate * 6) {
            return Fate::Good { there, back };
        }
        let slow = chance.range(SECOND / 10, 3 * SECOND);
        match chance.below(6) {
            0 => Fate::Refused { after: there },
            1 => Fate::Never { after: slow },
            2 => Fate::LostAnswer { there, after: there + slow },
            3 if site == Site::Effect => {
                // So late as the provider's class allows: an expired signature is turned away when it arrives.
                let most = if class == TokenClass::T { 60 } else { 20 };
                Fate::Late { there: slow + chance.range(0, most * SECOND), after: slow }
            }
            4 if site == Site::Write => Fate::Twice { there, again: chance.range(0, SECOND / 2), back },
            _ => Fate::Good { there: slow, back: chance.range(0, 3 * SECOND) },
        }
    }

    /// How often a message arrives.
    pub(super) fn copies(self, chance: &mut Chance) -> usize {
        match chance.below(10) {
            0 if self.rate > 0 => 0,
            1 if self.rate > 0 => 2,
            _ => 1,
        }
    }

    /// How long a message is on its way.
    pub(super) fn message(self, chance: &mut Chance) -> i64 {
        if self.rate > 0 && chance.one_in(10) {
            chance.range(0, 8 * SECOND)
        } else {
            chance.range(100, 20_000)
        }
    }

    /// Whether something rare happens now.
    pub(super) const fn strikes(self, chance: &mut Chance, permille: u64) -> bool {
        self.rate > 0 && chance.permille(permille)
    }
}

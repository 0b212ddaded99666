//! Who may ask now: clock window, replays, rates. Pure; the caller brings the time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use super::super::wire::{LeaseRequest, WINDOW};
use crate::model::{CustomerId, Micros, Uid};

/// Request ids are remembered this long: a request dated at the far end of the window stays good for two windows.
const REMEMBERED: Duration = Duration::from_secs(2 * WINDOW.as_secs() + 10);

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one node, known by its certificate.
    pub node: Rate,
    /// Of one tenant, over all nodes.
    pub customer: Rate,
    /// Request ids remembered at once; when they are used up, everybody waits.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            node: Rate { burst: 500, per_second: 100 },
            customer: Rate { burst: 250, per_second: 50 },
            remembered: 200_000,
        }
    }
}

/// A token bucket's size and refill.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Most requests at once.
    pub burst: u32,
    /// Requests a second, in the long run.
    pub per_second: u32,
}

/// Both clocks of the key manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// For comparing with what others wrote.
    pub(super) wall: Micros,
    /// Since start; never jumps.
    pub(super) uptime: Duration,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Go on.
    Admitted,
    /// The clocks differ too much.
    Clock,
    /// Seen before.
    Replayed,
    /// Too many; `first` since the rate was last kept, which is worth an alarm.
    Limited { whose: &'static str, first: bool },
}

/// State of admission.
pub(super) struct Admission {
    limits: Limits,
    seen: HashSet<Uid>,
    order: VecDeque<(Duration, Uid)>,
    nodes: Buckets<[u8; 32]>,
    customers: Buckets<CustomerId>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            seen: HashSet::new(),
            order: VecDeque::new(),
            nodes: Buckets::new("node", limits.node),
            customers: Buckets::new("tenant", limits.customer),
            limits,
        }
    }

    /// Decides on one request of the peer with this certificate hash.
    pub(super) fn decide(&mut self, peer: [u8; 32], request: &LeaseRequest, now: Moment) -> Turn {
        self.forget(now.uptime);
        // The rates first: a flood must not fill the memory of request ids.
        if let Some(limited) = self.nodes.take(peer, now.uptime) {
            return limited;
        }
        if let Some(limited) = self.customers.take(request.customer, now.uptime) {
            return limited;
        }
        if request.skew(now.wall) > WINDOW {
            return Turn::Clock;
        }
        if self.seen.contains(&request.request_id) {
            return Turn::Replayed;
        }
        if self.seen.len() >= self.limits.remembered {
            return Turn::Limited { whose: "memory", first: true };
        }
        self.seen.insert(request.request_id);
        self.order.push_back((now.uptime, request.request_id));
        Turn::Admitted
    }

    fn forget(&mut self, uptime: Duration) {
        while let Some((at, id)) = self.order.front().copied() {
            if uptime.saturating_sub(at) < REMEMBERED {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&id);
        }
    }
}

/// Token buckets by key, in bounded memory.
struct Buckets<K> {
    whose: &'static str,
    rate: Rate,
    buckets: HashMap<K, Bucket>,
    swept: Option<Duration>,
}

struct Bucket {
    /// Tokens in millionths, so that the refill of a short while is not lost.
    tokens: u64,
    at: Duration,
    alarmed: bool,
}

const TOKEN: u64 = 1_000_000;

/// Most keys with a bucket of their own.
const MAX_BUCKETS: usize = 10_000;

impl<K: Eq + Hash> Buckets<K> {
    fn new(whose: &'static str, rate: Rate) -> Self {
        Self { whose, rate, buckets: HashMap::new(), swept: None }
    }

    /// Takes one token, or says that none is left.
    fn take(&mut self, key: K, uptime: Duration) -> Option<Turn> {
        let (rate, whose) = (self.rate, self.whose);
        let full = u64::from(rate.burst) * TOKEN;
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            self.sweep(uptime);
            if self.buckets.len() >= MAX_BUCKETS {
                return Some(Turn::Limited { whose: "memory", first: true });
            }
        }
        let bucket =
            self.buckets.entry(key).or_insert_with(|| Bucket { tokens: full, at: uptime, alarmed: false });
        bucket.tokens = bucket.refilled(rate, uptime);
        bucket.at = uptime;
        if bucket.tokens < TOKEN {
            let first = !std::mem::replace(&mut bucket.alarmed, true);
            return Some(Turn::Limited { whose, first });
        }
        bucket.tokens -= TOKEN;
        // Half full again: the flood is over, the next one is news.
        bucket.alarmed &= bucket.tokens < full / 2;
        None
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Drops the buckets that are full again. At most once a second, as it looks at all of them.
    fn sweep(&mut self, uptime: Duration) {
        let due = self.swept.is_none_or(|at| uptime.saturating_sub(at) >= Duration::from_secs(1));
        if due {
            let (rate, full) = (self.rate, u64::from(self.rate.burst) * TOKEN);
            self.buckets.retain(|_, bucket| bucket.refilled(rate, uptime) < full);
            self.swept = Some(uptime);
        }
    }
}

impl Bucket {
    fn refilled(&self, rate: Rate, uptime: Duration) -> u64 {
        let passed = u64::try_from(uptime.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(rate.per_second));
        self.tokens.saturating_add(gained).min(u64::from(rate.burst) * TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::wire::{LeaseRequest, tests::request};
    use super::{Admission, Limits, Moment, Rate, Turn};
    use crate::model::{CustomerId, Micros, Uid};

    const PEER: [u8; 32] = [1; 32];

    fn at(seconds: u64) -> Moment {
        let uptime = Duration::from_secs(seconds);
        Moment { wall: Micros(1_000_000_000).plus(uptime), uptime }
    }

    fn dated(moment: Moment) -> LeaseRequest {
        LeaseRequest { issued_at: moment.wall, request_id: Uid::random(), ..request() }
    }

    #[test]
    fn a_request_is_good_once_and_within_the_window() {
        let mut admission = Admission::new(Limits::default());
        let asked = dated(at(60));
        assert_eq!(admission.decide(PEER, &asked, at(0)), Turn::Admitted, "dated 60 s ahead");
        for second in [0, 1, 119, 120] {
            assert_eq!(admission.decide(PEER, &asked, at(second)), Turn::Replayed, "after {second} s");
        }
        // Forgotten only when its date alone refuses it.
        assert_eq!(admission.decide(PEER, &asked, at(131)), Turn::Clock);
        assert!(admission.seen.is_empty());
        assert_eq!(admission.decide(PEER, &dated(at(0)), at(61)), Turn::Clock);
        assert_eq!(admission.decide(PEER, &dated(at(61)), at(0)), Turn::Clock);
        assert_eq!(admission.decide(PEER, &dated(at(0)), at(60)), Turn::Admitted);
    }

    #[test]
    fn a_thousand_requests_meet_the_rate_and_alarm_once() {
        let mut admission = Admission::new(Limits::default());
        let turns: Vec<Turn> = (0..1000).map(|_| admission.decide(PEER, &dated(at(0)), at(0))).collect();
        assert_eq!(turns.iter().filter(|t| **t == Turn::Admitted).count(), 250, "the tenant's burst");
        let alarms = turns.iter().filter(|t| matches!(t, Turn::Limited { first: true, .. })).count();
        assert_eq!(alarms, 2, "one for the tenant, one for the node");
        let other = LeaseRequest { customer: CustomerId(9), ..dated(at(0)) };
        assert_eq!(admission.decide([2; 32], &other, at(0)), Turn::Admitted, "others are not touched");
        assert_eq!(admission.decide(PEER, &dated(at(1)), at(1)), Turn::Admitted, "a second refills");
    }

    #[test]
    fn memory_is_bounded_and_closes_the_door() {
        let rate = Rate { burst: 100_000, per_second: 1 };
        let mut admission = Admission::new(Limits { node: rate, customer: rate, remembered: 10 });
        let turns: Vec<Turn> = (0..20).map(|_| admission.decide(PEER, &dated(at(0)), at(0))).collect();
        assert_eq!(turns.iter().filter(|t| **t == Turn::Admitted).count(), 10);
        assert_eq!(admission.seen.len(), 10);
        assert_eq!(admission.decide(PEER, &dated(at(200)), at(200)), Turn::Admitted);
    }

    #[test]
    fn ten_thousand_invented_tenants_do_not_grow_it_further() {
        let rate = Rate { burst: 100_000, per_second: 100 };
        let mut admission = Admission::new(Limits { node: rate, ..Limits::default() });
        for customer in 0..30_000 {
            admission.decide(PEER, &LeaseRequest { customer: CustomerId(customer), ..dated(at(0)) }, at(0));
        }
        assert!(admission.customers.buckets.len() <= super::MAX_BUCKETS);
    }
}

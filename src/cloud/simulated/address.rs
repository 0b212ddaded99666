//! Addresses of guests: 127.1.x.y, one for the life of a server.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

/// Last octets in use: 0 and 255 look like a network and a broadcast address to some programs.
const HOSTS: u64 = 254;
/// How many addresses there are.
pub(super) const ADDRESSES: u64 = 256 * HOSTS;

/// Hands out addresses one after the other, from a place that differs between data folders, so that two clouds on
/// one machine rarely meet.
#[derive(Debug)]
pub(super) struct Addresses {
    next: AtomicU64,
    port: u16,
}

impl Addresses {
    /// Starts behind the `used` addresses handed out before.
    pub(super) fn new(data: &Path, used: u64, port: u16) -> Self {
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let start = digest.iter().take(4).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        Self { next: AtomicU64::new((start % ADDRESSES).wrapping_add(used)), port }
    }

    /// The next address that is not `held` and where the guests' port is free; none when all are taken.
    pub(super) fn take(&self, held: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        (0..ADDRESSES)
            .map(|_| address(self.next.fetch_add(1, Ordering::Relaxed)))
            .find(|address| !held(*address) && TcpListener::bind((*address, self.port)).is_ok())
    }
}

fn address(number: u64) -> Ipv4Addr {
    let place = number % ADDRESSES;
    let octet = |n: u64| u8::try_from(n).unwrap_or(1);
    Ipv4Addr::new(127, 1, octet(place / HOSTS), octet(place % HOSTS + 1))
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES, Addresses, address};
    use std::collections::HashSet;
    use std::net::TcpListener;
    use std::path::Path;

    #[test]
    fn all_addresses_differ_and_none_looks_like_a_network() {
        let all: HashSet<_> = (0..ADDRESSES).map(address).collect();
        assert_eq!(u64::try_from(all.len()), Ok(ADDRESSES));
        assert!(all.iter().all(|a| a.octets()[3] != 0 && a.octets()[3] != 255));
    }

    #[test]
    fn an_address_in_use_is_passed_over() {
        let held = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = held.local_addr().expect("bound").port();
        let first = Addresses::new(Path::new("/a"), 0, port).take(|_| false).expect("free");
        let _guest = TcpListener::bind((first, port)).expect("just seen free");
        let again = Addresses::new(Path::new("/a"), 0, port);
        let second = again.take(|_| false).expect("free");
        assert_ne!(first, second);
        assert_eq!(again.take(|_| true), None);
    }
}

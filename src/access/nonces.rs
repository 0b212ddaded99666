//! Nonces of signed reads, remembered by this process alone: a repeated read does no harm, so it costs no write.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::signature::native;

/// Two generations of nonces. One generation lasts a whole window (both sides of the clock), so a nonce is remembered
/// at least as long as its timestamp is fresh, unless more than [`Nonces::MOST`] reads come in that time: then the
/// older generation is forgotten early, which bounds the memory and lets an old *read* pass again, nothing more.
#[derive(Default)]
pub(super) struct Nonces {
    inner: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    current: HashSet<String>,
    previous: HashSet<String>,
    began_ms: i64,
}

impl Nonces {
    /// Most nonces in one generation; about 10 MB for two.
    const MOST: usize = 50_000;

    /// Whether this nonce of this key is new; remembers it.
    pub(super) fn first_seen(&self, key: &str, nonce: &str, now_ms: i64) -> bool {
        let value = native::replay_value(&format!("{key}\n{nonce}"));
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms.saturating_sub(inner.began_ms) > 2 * native::WINDOW_MS || inner.current.len() >= Self::MOST
        {
            inner.previous = std::mem::take(&mut inner.current);
            inner.began_ms = now_ms;
        }
        !inner.previous.contains(&value) && inner.current.insert(value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Nonces, native};

    #[test]
    fn a_nonce_is_remembered_for_a_whole_window_and_belongs_to_its_key() {
        let nonces = Nonces::default();
        assert!(nonces.first_seen("k", "a", 1_000_000));
        assert!(!nonces.first_seen("k", "a", 1_000_000));
        assert!(nonces.first_seen("l", "a", 1_000_000));
        assert!(!nonces.first_seen("k", "a", 1_000_000 + 2 * native::WINDOW_MS));
    }

    #[test]
    fn memory_is_bounded() {
        let nonces = Nonces::default();
        for n in 0..3 * Nonces::MOST {
            assert!(nonces.first_seen("k", &n.to_string(), 0));
        }
        let inner = nonces.inner.lock().expect("nobody panicked");
        assert!(inner.current.len() + inner.previous.len() <= 2 * Nonces::MOST);
    }
}

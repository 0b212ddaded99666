//! Chance and time that a test settles for its own thread, so that a run can be repeated to the bit.

use std::cell::Cell;

use super::Micros;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static WALL: Cell<Option<Micros>> = const { Cell::new(None) };
}

/// Lets everything random on this thread follow from a seed; none gives it back to the operating system.
pub(crate) fn settle(seed: Option<u64>) {
    SEED.set(seed);
}

/// Lets the wall clock of this thread stand; none lets it go again.
pub(crate) fn stand_still(at: Option<Micros>) {
    WALL.set(at);
}

/// Fills the bytes from the settled seed; false where none is.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut state) = SEED.get() else { return false };
    for chunk in bytes.chunks_mut(8) {
        let word = next(&mut state).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    SEED.set(Some(state));
    true
}

/// The standing wall clock, where one stands.
pub(crate) fn wall() -> Option<Micros> {
    WALL.get()
}

/// The next number of a seeded sequence (`SplitMix64`).
pub(crate) const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

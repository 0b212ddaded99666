//! Random choices that come again with the same seed.

/// The `SplitMix64` generator.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`.
    pub(super) const fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

#[test]
fn the_same_seed_gives_the_same_choices() {
    let draw = |seed| {
        let mut rng = Rng::new(seed);
        [rng.below(100), rng.below(100), rng.below(100)]
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

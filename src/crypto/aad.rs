//! Associated data: the place where sealed bytes belong.

use super::key::DOMAIN;

/// A list of named parts that sealed bytes are bound to. Every name and value is written behind its length, so that
/// ("ab", "c") and ("a", "bc") differ. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Begins a list for one purpose, such as `credential`.
    #[must_use]
    pub fn new(purpose: &str) -> Self {
        let mut aad = Self(Vec::with_capacity(256));
        aad.push(DOMAIN.as_bytes());
        aad.push(purpose.as_bytes());
        aad
    }

    /// The list with one more part.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.push(name.as_bytes());
        self.push(value.as_ref());
        self
    }

    /// The list as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, part: &[u8]) {
        // 64 bits of length: a part in memory always fits, so two lists never share their bytes.
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, Strategy as _, any, prop_assert_eq, prop_assume, proptest};

    use super::Aad;

    fn of(parts: &[(String, Vec<u8>)]) -> Aad {
        parts.iter().fold(Aad::new("test"), |aad, (name, value)| aad.with(name, value))
    }

    #[test]
    fn the_border_between_parts_counts() {
        let one = Aad::new("p").with("ab", "c");
        let other = Aad::new("p").with("a", "bc");
        assert_ne!(one, other);
        assert_ne!(Aad::new("p").with("a", "").with("b", ""), Aad::new("p").with("a", "b"));
        assert_ne!(Aad::new("pa"), Aad::new("p").with("a", ""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn different_lists_have_different_bytes(
            a in vec(("[ab]{0,3}", vec(any::<bool>().prop_map(u8::from), 0..3)), 0..4),
            b in vec(("[ab]{0,3}", vec(any::<bool>().prop_map(u8::from), 0..3)), 0..4),
        ) {
            prop_assume!(a != b);
            prop_assert_eq!(of(&a) == of(&b), false);
        }
    }
}

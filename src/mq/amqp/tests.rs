pub(super) const POISON: &[u8] = b"poison on demand";

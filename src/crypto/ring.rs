//! The sealed envelope: `magic "DKM1" | alg u8 | key id 16 | nonce 24 (AES-256-GCM: 12) | ciphertext | tag 16`.
//!
//! Algorithm 1 is XChaCha20-Poly1305, 2 is AES-256-GCM. A list is each part behind its length (64 bits, big endian).
//! The tag covers the list ("dispatcher/v1", "envelope", "header", header, "place", place), where the header is all
//! before the ciphertext and the place the caller's [`Aad`], itself such a list. With HKDF-SHA256 without salt and
//! the info "dispatcher/v1" 0 label 0 purpose, the cipher's key is HKDF(key, label "aead", purpose the algorithm's
//! name) and the key id the first 16 bytes of HKDF(key, label "key-id", purpose "").

use super::aead::Call;
use super::{Aad, Algorithm, Error, Key, KeyId, Secret};

const MAGIC: &[u8; 4] = b"DKM1";
const KEY_ID_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// Keys of one purpose: one active, which seals, and any number that only open what they sealed before.
pub struct KeyRing {
    active: Key,
    decrypt_only: Vec<Key>,
    algorithm: Algorithm,
}

/// What [`KeyRing::open_with`] found besides the plaintext.
pub struct Opened {
    /// The plaintext.
    pub plain: Secret,
    /// How it was sealed.
    pub algorithm: Algorithm,
    /// The key that sealed it.
    pub key_id: KeyId,
}

impl KeyRing {
    /// A ring of one active key, sealing with XChaCha20-Poly1305.
    #[must_use]
    pub fn new(active: Key) -> Self {
        Self { active, decrypt_only: Vec::new(), algorithm: Algorithm::default() }
    }

    /// The ring, sealing with this algorithm from now on. It opens both, whatever is set here.
    #[must_use]
    pub fn sealing_with(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The ring with a further key that opens and never seals.
    #[must_use]
    pub fn with_decrypt_only(mut self, key: Key) -> Self {
        self.decrypt_only.push(key);
        self
    }

    /// Makes this key the active one; the former active key only opens from now on.
    pub fn rotate(&mut self, next: Key) {
        let former = std::mem::replace(&mut self.active, next);
        let active = self.active.id();
        self.decrypt_only.retain(|key| key.id() != active);
        self.decrypt_only.push(former);
    }

    /// Name of the key that seals.
    #[must_use]
    pub fn active_id(&self) -> KeyId {
        self.active.id()
    }

    /// The algorithm that seals.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Seals under the active key with a fresh random nonce. The result is 61 bytes (AES-256-GCM: 49) longer than
    /// the plaintext and opens only with the same `aad`.
    ///
    /// # Panics
    /// When the operating system has no random source, and for plaintexts of 64 GiB and more.
    #[must_use]
    pub fn seal(&self, aad: &Aad, plain: &[u8]) -> Vec<u8> {
        let nonce = self.algorithm.nonce();
        let mut sealed =
            Vec::with_capacity(MAGIC.len() + 1 + KEY_ID_LEN + nonce.len() + plain.len() + TAG_LEN);
        sealed.extend_from_slice(MAGIC);
        sealed.push(self.algorithm.code());
        sealed.extend_from_slice(self.active.id().as_bytes());
        sealed.extend_from_slice(&nonce);
        let bound = bound(&sealed, aad);
        let key = self.algorithm.cipher_key(&self.active);
        let call = Call { algorithm: self.algorithm, key: &key, nonce: &nonce, aad: &bound };
        #[expect(clippy::expect_used, reason = "the nonce has its length, and no plaintext here has 64 GiB")]
        let body = call.encrypt(plain).expect("a message within the cipher's limit");
        sealed.extend_from_slice(&body);
        sealed
    }

    /// Opens an envelope with the one key it names.
    ///
    /// # Errors
    /// [`Error::NotSealed`], [`Error::UnknownAlgorithm`], [`Error::UnknownKey`], or [`Error::Refused`] for any other
    /// `aad` and for any changed bit.
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> Result<Secret, Error> {
        self.open_with(aad, sealed).map(|opened| opened.plain)
    }

    /// As [`KeyRing::open`]; tells algorithm and key as well.
    ///
    /// # Errors
    /// As [`KeyRing::open`].
    pub fn open_with(&self, aad: &Aad, sealed: &[u8]) -> Result<Opened, Error> {
        let envelope = Envelope::parse(sealed)?;
        let key = self.key(envelope.key_id).ok_or(Error::UnknownKey(envelope.key_id))?;
        let cipher_key = envelope.algorithm.cipher_key(key);
        let bound = bound(envelope.header, aad);
        let call =
            Call { algorithm: envelope.algorithm, key: &cipher_key, nonce: envelope.nonce, aad: &bound };
        let plain = call.decrypt(envelope.body).ok_or(Error::Refused(envelope.key_id))?;
        Ok(Opened { plain: Secret::new(plain), algorithm: envelope.algorithm, key_id: envelope.key_id })
    }

    fn key(&self, id: KeyId) -> Option<&Key> {
        std::iter::once(&self.active).chain(&self.decrypt_only).find(|key| key.id() == id)
    }
}

/// Name of the key that an envelope says it was sealed under; proves nothing by itself.
///
/// # Errors
/// [`Error::NotSealed`] or [`Error::UnknownAlgorithm`].
pub fn key_id_of(sealed: &[u8]) -> Result<KeyId, Error> {
    Envelope::parse(sealed).map(|envelope| envelope.key_id)
}

/// What the tag covers besides the ciphertext: the header and the caller's list.
fn bound(header: &[u8], aad: &Aad) -> Vec<u8> {
    Aad::new("envelope").with("header", header).with("place", aad.as_bytes()).as_bytes().to_vec()
}

struct Envelope<'a> {
    algorithm: Algorithm,
    key_id: KeyId,
    header: &'a [u8],
    nonce: &'a [u8],
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn parse(sealed: &'a [u8]) -> Result<Self, Error> {
        let not_sealed = || Error::NotSealed(sealed.len());
        let rest = sealed.strip_prefix(MAGIC).ok_or_else(not_sealed)?;
        let (code, rest) = rest.split_first().ok_or_else(not_sealed)?;
        let algorithm = Algorithm::from_code(*code).ok_or(Error::UnknownAlgorithm(*code))?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or_else(not_sealed)?;
        let (nonce, body) = rest.split_at_checked(algorithm.nonce_len()).ok_or_else(not_sealed)?;
        if body.len() < TAG_LEN {
            return Err(not_sealed());
        }
        let header = sealed.get(..sealed.len() - body.len()).ok_or_else(not_sealed)?;
        Ok(Self { algorithm, key_id: KeyId::from_bytes(*key_id), header, nonce, body })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
    use proptest::sample::Index;

    use super::{Aad, Algorithm, Error, Key, KeyRing, key_id_of};
    use crate::crypto::hex;

    fn aad() -> Aad {
        Aad::new("test").with("tenant", "7")
    }

    fn rings() -> [KeyRing; 2] {
        [KeyRing::new(Key::random()), KeyRing::new(Key::random()).sealing_with(Algorithm::Aes256Gcm)]
    }

    #[test]
    fn the_envelope_has_the_published_layout() {
        for (ring, nonce) in rings().iter().zip([24, 12]) {
            let sealed = ring.seal(&aad(), b"plain");
            assert_eq!(sealed.len(), 4 + 1 + 16 + nonce + 5 + 16);
            assert!(sealed.starts_with(b"DKM1"));
            assert_eq!(sealed[5..21], *ring.active_id().as_bytes());
            assert_eq!(key_id_of(&sealed), Ok(ring.active_id()));
            assert_eq!(ring.open(&aad(), &sealed).map(|s| s.expose().to_vec()), Ok(b"plain".to_vec()));
        }
    }

    /// Made by another implementation (Python's `cryptography`, with `HChaCha20` written out) from the description alone.
    #[test]
    fn envelopes_of_another_implementation_open() {
        let ring = KeyRing::new(Key::from_bytes([5; 32]));
        for sealed in [
            "444b4d3101929391f4c6d7295ca63b0fb8f9cff03d000102030405060708090a0b0c0d0e0f1011121314151617ab7a0ba5e8fdb1ea\
                645fc7260bb243bf674b4747f431b06ae499ceca9b",
            "444b4d3102929391f4c6d7295ca63b0fb8f9cff03d000102030405060708090a0b84a118dfbea2729beaa66e49f08e9aa80fca2775\
                eb0bbd508184db66e8",
        ] {
            let plain = ring.open(&aad(), &hex::decode(sealed).expect("hexadecimal"));
            assert_eq!(plain.expect("it opens").expose(), b"kept for ever");
        }
    }

    #[test]
    fn another_place_opens_nothing() {
        let ring = KeyRing::new(Key::random());
        let sealed = ring.seal(&aad(), b"plain");
        for other in [Aad::new("test"), Aad::new("test").with("tenant", "8"), aad().with("x", "")] {
            assert_eq!(ring.open(&other, &sealed).err(), Some(Error::Refused(ring.active_id())));
        }
    }

    #[test]
    fn every_cut_is_refused() {
        for ring in rings() {
            let sealed = ring.seal(&aad(), b"plain");
            for len in 0..sealed.len() {
                assert!(ring.open(&aad(), &sealed[..len]).is_err(), "{len} bytes opened");
            }
        }
    }

    #[test]
    fn the_named_key_opens_and_no_other_is_tried() {
        let mut ring = KeyRing::new(Key::from_bytes([1; 32]));
        let sealed = ring.seal(&aad(), b"plain");
        ring.rotate(Key::from_bytes([2; 32]));
        assert!(ring.open(&aad(), &sealed).is_ok(), "the former key still opens");
        assert_eq!(key_id_of(&ring.seal(&aad(), b"")), Ok(Key::from_bytes([2; 32]).id()));

        // The same bytes under the name of the other key on the ring: the right key is there, yet is not asked.
        let mut renamed = sealed.clone();
        renamed[5..21].copy_from_slice(Key::from_bytes([2; 32]).id().as_bytes());
        assert_eq!(ring.open(&aad(), &renamed).err(), Some(Error::Refused(Key::from_bytes([2; 32]).id())));

        let stranger = KeyRing::new(Key::from_bytes([3; 32]));
        assert_eq!(
            stranger.open(&aad(), &sealed).err(),
            Some(Error::UnknownKey(Key::from_bytes([1; 32]).id()))
        );
    }

    #[test]
    fn the_algorithm_byte_cannot_be_exchanged() {
        let ring = KeyRing::new(Key::random());
        let mut sealed = ring.seal(&aad(), b"a plaintext longer than the nonces differ");
        sealed[4] = Algorithm::Aes256Gcm.code();
        assert_eq!(ring.open(&aad(), &sealed).err(), Some(Error::Refused(ring.active_id())));
        sealed[4] = 9;
        assert_eq!(ring.open(&aad(), &sealed).err(), Some(Error::UnknownAlgorithm(9)));
    }

    #[test]
    fn a_hundred_thousand_nonces_are_unique() {
        let nonces: HashSet<Vec<u8>> = (0..100_000).map(|_| Algorithm::XChaCha20Poly1305.nonce()).collect();
        assert_eq!(nonces.len(), 100_000);
        let ring = KeyRing::new(Key::random());
        let sealed: HashSet<Vec<u8>> = (0..1_000).map(|_| ring.seal(&aad(), b"")[21..45].to_vec()).collect();
        assert_eq!(sealed.len(), 1_000, "each envelope carries a nonce of its own");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_single_flipped_bit_is_refused(
            plain in proptest::collection::vec(any::<u8>(), 0..64), place in any::<Index>(), aes in any::<bool>(),
        ) {
            let algorithm = if aes { Algorithm::Aes256Gcm } else { Algorithm::XChaCha20Poly1305 };
            let ring = KeyRing::new(Key::from_bytes([5; 32])).sealing_with(algorithm);
            let mut sealed = ring.seal(&aad(), &plain);
            let bit = place.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ring.open(&aad(), &sealed).is_err(), "bit {} flipped and still opened", bit);
        }

        #[test]
        fn bytes_from_outside_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let ring = KeyRing::new(Key::from_bytes([5; 32]));
            prop_assert!(ring.open(&aad(), &bytes).is_err());
            let mut headed = b"DKM1\x01".to_vec();
            headed.extend_from_slice(&bytes);
            prop_assert!(ring.open(&aad(), &headed).is_err());
        }
    }
}

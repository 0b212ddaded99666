//! The two ciphers behind one face.

use aes_gcm::Aes256Gcm;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, AeadCore, KeyInit, Nonce, Payload};
use zeroize::Zeroizing;

use super::{Key, random_bytes};

/// How bytes are sealed. Both have 256-bit keys and a tag of 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): random nonces of 24 bytes are safe for about 2^80 messages.
    #[default]
    XChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D), for sites that must have AES. Its nonces are random 12 bytes: give the ring
    /// another key long before 2^32 messages.
    Aes256Gcm,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &'static [Self] = &[Self::XChaCha20Poly1305, Self::Aes256Gcm];

    /// The name that settings, logs and timelines show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "XChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }

    /// The byte in the envelope.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::XChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.code() == code)
    }

    pub(super) const fn nonce_len(self) -> usize {
        match self {
            Self::XChaCha20Poly1305 => 24,
            Self::Aes256Gcm => 12,
        }
    }

    /// A fresh random nonce. Never a counter: counters repeat when a snapshot is put back.
    pub(super) fn nonce(self) -> Vec<u8> {
        match self {
            Self::XChaCha20Poly1305 => random_bytes::<24>().to_vec(),
            Self::Aes256Gcm => random_bytes::<12>().to_vec(),
        }
    }

    /// The cipher key that a key has for this algorithm: one key is never used by two ciphers.
    pub(super) fn cipher_key(self, key: &Key) -> Zeroizing<[u8; 32]> {
        key.expand("aead", self.as_str())
    }
}

/// One message for a cipher: its key, nonce and associated data.
pub(super) struct Call<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key: &'a [u8; 32],
    pub(super) nonce: &'a [u8],
    pub(super) aad: &'a [u8],
}

impl Call<'_> {
    /// Ciphertext and tag; nothing for a nonce of wrong length or more than 64 GiB.
    pub(super) fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        match self.algorithm {
            Algorithm::XChaCha20Poly1305 => self.encrypt_with::<XChaCha20Poly1305>(plain),
            Algorithm::Aes256Gcm => self.encrypt_with::<Aes256Gcm>(plain),
        }
    }

    /// The plaintext, if key, nonce, associated data, ciphertext and tag fit together.
    pub(super) fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        match self.algorithm {
            Algorithm::XChaCha20Poly1305 => self.decrypt_with::<XChaCha20Poly1305>(sealed),
            Algorithm::Aes256Gcm => self.decrypt_with::<Aes256Gcm>(sealed),
        }
    }

    fn encrypt_with<C: Aead + KeyInit + AeadCore>(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let nonce = Nonce::<C>::try_from(self.nonce).ok()?;
        let cipher = C::new_from_slice(self.key).ok()?;
        cipher.encrypt(&nonce, Payload { msg: plain, aad: self.aad }).ok()
    }

    fn decrypt_with<C: Aead + KeyInit + AeadCore>(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let nonce = Nonce::<C>::try_from(self.nonce).ok()?;
        let cipher = C::new_from_slice(self.key).ok()?;
        cipher.decrypt(&nonce, Payload { msg: sealed, aad: self.aad }).ok()
    }
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::ChaCha20Poly1305;

    use super::{Algorithm, Call};
    use crate::crypto::hex;

    const SUNSCREEN: &[u8] =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
        future, sunscreen would be it.";

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).expect("a vector")
    }

    fn key_80_to_9f() -> [u8; 32] {
        std::array::from_fn(|i| 0x80 + u8::try_from(i).expect("small"))
    }

    #[test]
    fn xchacha_draft_03_appendix_a_3_1() {
        let (key, nonce) = (key_80_to_9f(), (0x40..0x58).collect::<Vec<u8>>());
        let aad = bytes("50515253c0c1c2c3c4c5c6c7");
        let call = Call { algorithm: Algorithm::XChaCha20Poly1305, key: &key, nonce: &nonce, aad: &aad };
        let sealed = call.encrypt(SUNSCREEN).expect("a short message");
        let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4e\
            da7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
            21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49";
        assert_eq!(hex::encode(&sealed), expected);
        assert_eq!(call.decrypt(&sealed).as_deref(), Some(SUNSCREEN));
    }

    #[test]
    fn rfc_8439_section_2_8_2() {
        let key = key_80_to_9f();
        let nonce = bytes("070000004041424344454647");
        let aad = bytes("50515253c0c1c2c3c4c5c6c7");
        let call = Call { algorithm: Algorithm::XChaCha20Poly1305, key: &key, nonce: &nonce, aad: &aad };
        let sealed = call.encrypt_with::<ChaCha20Poly1305>(SUNSCREEN).expect("a short message");
        let expected = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da\
            92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
            3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
        assert_eq!(hex::encode(&sealed), expected);
    }

    #[test]
    fn aes_256_gcm_test_case_14_of_its_specification() {
        let call = Call { algorithm: Algorithm::Aes256Gcm, key: &[0; 32], nonce: &[0; 12], aad: b"" };
        let sealed = call.encrypt(&[0; 16]).expect("a short message");
        assert_eq!(hex::encode(&sealed), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn a_nonce_of_another_length_is_refused() {
        let call = Call { algorithm: Algorithm::Aes256Gcm, key: &[0; 32], nonce: &[0; 24], aad: b"" };
        assert_eq!(call.encrypt(b"x"), None);
    }
}

//! Message authentication, hashes and the token a cloud sees.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Aad, Key};
use crate::model::JobUid;

/// HMAC-SHA256 (RFC 2104) over the parts one behind the other, without anything between them.
///
/// Signatures of other protocols prescribe that form. Who invents a format puts lengths in, as [`Aad`] does.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// SHA-256 of these bytes.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes.as_ref()).into()
}

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn same(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    a.as_ref().ct_eq(b.as_ref()).into()
}

/// The idempotency token of one effect at a cloud: 52 lower-case base32 characters.
///
/// It depends on the installation, the job, the step and the variant of the request, and on nothing that differs
/// between two tries of the same request: neither epoch, node, try nor time.
#[must_use]
pub fn token(install: &Key, job: JobUid, step: &str, variant: u32) -> String {
    let what = Aad::new("cloud-token")
        .with("job", job.0.as_bytes())
        .with("step", step)
        .with("variant", variant.to_be_bytes());
    base32(&hmac_sha256(install.derive("cloud-token").expose(), &[what.as_bytes()]))
}

/// RFC 4648 base32 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        buffer = (buffer << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit32(buffer >> bits));
        }
    }
    if bits > 0 {
        text.push(digit32(buffer << (5 - bits)));
    }
    text
}

fn digit32(value: u32) -> char {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    DIGITS.get((value & 31) as usize).copied().map_or('a', char::from)
}

#[cfg(test)]
mod tests {
    use super::{base32, hmac_sha256, same, sha256, token};
    use crate::crypto::{Key, hex};
    use crate::model::{JobUid, Uid};

    #[test]
    fn rfc_4231_case_2_and_fips_180_2() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(&hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"])), expected);
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(&sha256("abc")), expected);
    }

    #[test]
    fn rfc_4648_base32() {
        for (plain, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
        ] {
            assert_eq!(base32(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_token_is_the_same_every_time_and_differs_by_each_part() {
        let (install, job) = (Key::from_bytes([1; 32]), JobUid(Uid::from_bytes([2; 16])));
        let first = token(&install, job, "create", 0);
        assert_eq!(first.len(), 52);
        assert_eq!(first, token(&install, job, "create", 0));
        // Kept for ever: another value would make servers twice after an upgrade.
        assert_eq!(first, "s7cohu3qtiqnkcjjzetqqkp5yqpqnw25dy4zsqtltle537xenkbq");
        for other in [
            token(&Key::from_bytes([3; 32]), job, "create", 0),
            token(&install, JobUid(Uid::from_bytes([4; 16])), "create", 0),
            token(&install, job, "creat", 0),
            token(&install, job, "create", 1),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn comparison_is_by_value() {
        assert!(same("abc", b"abc"));
        assert!(!same("abc", "abd") && !same("abc", "ab"));
    }
}

//! Passwords of people: Argon2id in the PHC text form. Slow on purpose: call it on a blocking thread.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};

/// Longest password taken, in bytes; more would only cost time.
pub const LONGEST: usize = 1024;

/// The hash to be stored, with a random salt; nothing when the password is longer than [`LONGEST`].
#[must_use]
pub fn hash(password: &str) -> Option<String> {
    if password.len() > LONGEST {
        return None;
    }
    Argon2::default().hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}

/// Whether a password belongs to a stored hash. An empty or unreadable hash costs the same time and fits nothing, so
/// that a caller without an account cannot be told from one with a wrong password.
#[must_use]
pub fn verify(password: &str, stored: &str) -> bool {
    if password.len() > LONGEST {
        return false;
    }
    match PasswordHash::new(stored) {
        Ok(stored) => Argon2::default().verify_password(password.as_bytes(), &stored).is_ok(),
        Err(_) => {
            let _ = hash(password);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, hash, verify};

    #[test]
    fn only_the_right_password_fits() {
        let stored = hash("correct horse").expect("short enough");
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        assert!(verify("correct horse", &stored));
        assert!(!verify("correct horsf", &stored));
        assert!(!verify("", &stored));
        assert!(!verify("", "") && !verify("x", "not a hash"));
        assert!(hash(&"x".repeat(LONGEST + 1)).is_none());
    }
}

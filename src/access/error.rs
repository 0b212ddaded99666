//! Why a caller is not let in.

use crate::store;

/// Refusal of a caller. No text tells anything about a secret: a wrong signature says only that it is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A header that the signature needs is absent.
    #[error("header {0} is missing; sign the request with your access key")]
    MissingHeader(&'static str),
    /// A header is there more than once, or is no text that can stand in it.
    #[error("header {name} is not usable: {remedy}")]
    BadHeader {
        /// Its name.
        name: &'static str,
        /// What it must look like.
        remedy: &'static str,
    },
    /// Signed too long ago or in the future.
    #[error(
        "timestamp {sent} is outside the window of {window_secs} seconds around the server's time {now} \
         (milliseconds since 1970); set your clock and sign again"
    )]
    Stale {
        /// What the caller signed.
        sent: i64,
        /// The server's clock.
        now: i64,
        /// Half the window.
        window_secs: i64,
    },
    /// Nobody has this key, or it is not active.
    #[error("access key \"{0}\" is unknown or not active; list your keys with GET admin/ApiKey")]
    UnknownKey(String),
    /// The signature does not belong to this request.
    #[error("the signature does not match; sign {0}, with the secret of this access key")]
    WrongSignature(&'static str),
    /// A read was repeated with the same nonce.
    #[error("the nonce was used before; make a new one for each request")]
    Replayed,
    /// Signed well, but not allowed.
    #[error("{name} may not {action} {resource}; ask an administrator for a role that grants it")]
    Forbidden {
        /// Who asked.
        name: String,
        /// What for.
        action: &'static str,
        /// On what.
        resource: &'static str,
    },
    /// The database behind the keys does not answer.
    #[error("access keys cannot be checked now")]
    Store(#[source] store::Error),
    /// A stored secret cannot be opened: it was sealed under another key, or changed.
    #[error("the stored secret of access key \"{0}\" cannot be opened; make a new key")]
    Unreadable(String, #[source] crate::crypto::Error),
}

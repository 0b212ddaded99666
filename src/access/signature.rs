//! Signatures of requests: what is signed, how, and how old it may be. Pure; used by the server and by the client of
//! the command line alike. Test vectors: `docs/api-signatures.md`.

use crate::crypto::{Aad, base64, hex, hmac_sha256, same, sha256};

/// The API of dated versions, as the clients written for it sign: `contracts` call it the five parts.
pub mod dated {
    use super::{Aad, base64, hex, hmac_sha256, same, sha256};

    /// Half the window around the server's clock, in milliseconds.
    pub const WINDOW_MS: i64 = 300_000;

    /// What a client signs. Neither query, host nor body is covered.
    #[derive(Clone, Copy, Debug)]
    pub struct Parts<'a> {
        /// Header `x-esauth-access`.
        pub access_key: &'a str,
        /// Upper case.
        pub method: &'a str,
        /// Raw path, without the query.
        pub path: &'a str,
        /// Header `x-esauth-timestamp`, as sent.
        pub timestamp: &'a str,
        /// Header `User-Agent`, as sent.
        pub user_agent: &'a str,
    }

    /// Standard base64 of HMAC-SHA256 over the parts, joined by colons.
    #[must_use]
    pub fn sign(secret: &[u8], parts: &Parts<'_>) -> String {
        let text = [parts.access_key, parts.method, parts.path, parts.timestamp, parts.user_agent].join(":");
        base64::encode(hmac_sha256(secret, &[text.as_bytes()]))
    }

    /// Whether a signature is that of these parts, in constant time.
    #[must_use]
    pub fn verify(secret: &[u8], parts: &Parts<'_>, signature: &str) -> bool {
        same(sign(secret, parts), signature)
    }

    /// What makes a signed write unique: signature, query, body and idempotency key, as 64 hexadecimal digits. Two
    /// equal writes within one millisecond have equal signatures, and only the key tells a repeat from a replay.
    #[must_use]
    pub fn replay_value(signature: &str, query: &str, body: &[u8], idempotency_key: Option<&str>) -> String {
        let what =
            Aad::new("dated-replay").with("signature", signature).with("query", query).with("body", body);
        let what = match idempotency_key {
            Some(key) => what.with("key", key),
            None => what,
        };
        hex::encode(&sha256(what.as_bytes()))
    }
}

/// The native API: method, path, query, body, host, time, nonce and key are all covered.
pub mod native {
    use super::{Aad, hex, hmac_sha256, same, sha256};

    /// Half the window around the server's clock, in milliseconds.
    pub const WINDOW_MS: i64 = 120_000;
    /// Header with the access key.
    pub const KEY_HEADER: &str = "x-dispatcher-key";
    /// Header with the time in milliseconds since 1970, decimal.
    pub const TIMESTAMP_HEADER: &str = "x-dispatcher-timestamp";
    /// Header with 16 to 64 letters, digits, `-` or `_`, new for each request.
    pub const NONCE_HEADER: &str = "x-dispatcher-nonce";
    /// Header with the signature, 64 lower-case hexadecimal digits.
    pub const SIGNATURE_HEADER: &str = "x-dispatcher-signature";

    /// What is signed.
    #[derive(Clone, Copy, Debug)]
    pub struct Parts<'a> {
        /// Upper case.
        pub method: &'a str,
        /// Raw path as sent, percent signs and all.
        pub path: &'a str,
        /// Raw query as sent, without the question mark; empty where there is none.
        pub query: &'a str,
        /// The body; empty where there is none.
        pub body: &'a [u8],
        /// Header `Host` as sent, with the port.
        pub host: &'a str,
        /// Milliseconds since 1970.
        pub timestamp_ms: i64,
        /// New for each request.
        pub nonce: &'a str,
        /// The access key.
        pub key_id: &'a str,
    }

    /// The text that is signed: nine lines. None of the parts can hold a line feed, because HTTP forbids it in each.
    ///
    /// The query's parameters are sorted by name; those of one name keep their order, so that two different requests
    /// never share a text.
    #[must_use]
    pub fn canonical(parts: &Parts<'_>) -> String {
        let mut query: Vec<&str> = parts.query.split('&').filter(|pair| !pair.is_empty()).collect();
        query.sort_by_key(|pair| pair.split_once('=').map_or(*pair, |(name, _)| name));
        [
            "dispatcher-signature-v1",
            parts.method,
            parts.path,
            &query.join("&"),
            &hex::encode(&sha256(parts.body)),
            parts.host,
            &parts.timestamp_ms.to_string(),
            parts.nonce,
            parts.key_id,
        ]
        .join("\n")
    }

    /// HMAC-SHA256 over [`canonical`], as lower-case hexadecimal digits.
    #[must_use]
    pub fn sign(secret: &[u8], parts: &Parts<'_>) -> String {
        hex::encode(&hmac_sha256(secret, &[canonical(parts).as_bytes()]))
    }

    /// Whether a signature is that of these parts, in constant time.
    #[must_use]
    pub fn verify(secret: &[u8], parts: &Parts<'_>, signature: &str) -> bool {
        same(sign(secret, parts), signature)
    }

    /// Whether this text may be a nonce.
    #[must_use]
    pub fn is_nonce(text: &str) -> bool {
        (16..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }

    /// What makes a signed write unique, as 64 hexadecimal digits: its nonce.
    #[must_use]
    pub fn replay_value(nonce: &str) -> String {
        hex::encode(&sha256(Aad::new("native-replay").with("nonce", nonce).as_bytes()))
    }
}

/// Whether a timestamp lies within the window around a clock, both in milliseconds.
#[must_use]
pub const fn is_fresh(sent_ms: i64, now_ms: i64, window_ms: i64) -> bool {
    sent_ms.abs_diff(now_ms) <= window_ms.unsigned_abs()
}

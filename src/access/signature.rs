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

    /// What makes a signed write unique: signature, query, body and idempotency key, as 64 hexadecimal digits.
    ///
    /// Two equal writes within one millisecond have equal signatures, and only the key tells a repeat from a replay.
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
    /// The query's parameters are sorted by what their names mean (percent signs and plus signs decoded); those of one
    /// name keep their order, so that two requests with different meanings never share a text.
    #[must_use]
    pub fn canonical(parts: &Parts<'_>) -> String {
        let mut query: Vec<&str> = parts.query.split('&').filter(|pair| !pair.is_empty()).collect();
        query.sort_by_cached_key(|pair| meaning(pair.split_once('=').map_or(*pair, |(name, _)| name)));
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

    /// The bytes a name of a query stands for.
    pub(super) fn meaning(name: &str) -> Vec<u8> {
        let (mut rest, mut bytes) = (name.as_bytes(), Vec::with_capacity(name.len()));
        while let Some((first, tail)) = rest.split_first() {
            let escaped = tail.first_chunk::<2>().filter(|_| *first == b'%');
            let decoded = escaped
                .and_then(|pair| std::str::from_utf8(pair).ok())
                .and_then(|digits| hex::decode(digits).ok());
            rest = match decoded {
                Some(byte) => {
                    bytes.extend(byte);
                    tail.get(2..).unwrap_or_default()
                }
                None => {
                    bytes.push(if *first == b'+' { b' ' } else { *first });
                    tail
                }
            };
        }
        bytes
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::{dated, is_fresh, native};

    /// The published vectors: what other programs are written against.
    const PAGE: &str = include_str!("../../docs/api-signatures.md");

    #[test]
    fn the_published_vectors_hold() {
        let json = PAGE.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
        let page: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let text = |value: &serde_json::Value, name: &str| value[name].as_str().expect(name).to_owned();
        let secret = text(&page, "secretKey");
        let key = text(&page, "accessKey");
        let (old, new) =
            (page["dated"].as_array().expect("a list"), page["native"].as_array().expect("a list"));
        assert_eq!((old.len(), new.len()), (3, 4));
        for vector in old {
            let [method, path, timestamp, agent] =
                ["method", "path", "timestamp", "userAgent"].map(|name| text(vector, name));
            let parts = dated::Parts {
                access_key: &key,
                method: &method,
                path: &path,
                timestamp: &timestamp,
                user_agent: &agent,
            };
            assert_eq!(dated::sign(secret.as_bytes(), &parts), text(vector, "signature"));
        }
        for vector in new {
            let [method, path, query, body, host, nonce] =
                ["method", "path", "query", "body", "host", "nonce"].map(|name| text(vector, name));
            let parts = native::Parts {
                method: &method,
                path: &path,
                query: &query,
                body: body.as_bytes(),
                host: &host,
                timestamp_ms: vector["timestamp"].as_i64().expect("a number"),
                nonce: &nonce,
                key_id: &key,
            };
            assert_eq!(native::sign(secret.as_bytes(), &parts), text(vector, "signature"));
        }
    }

    fn parts<'a>(query: &'a str, body: &'a [u8]) -> native::Parts<'a> {
        native::Parts {
            method: "POST",
            path: "/api/v1/jobs",
            query,
            body,
            host: "localhost",
            timestamp_ms: 1,
            nonce: "0123456789abcdef",
            key_id: "K",
        }
    }

    #[test]
    fn every_part_is_covered() {
        let whole = parts("a=1", b"b");
        let signature = native::sign(b"secret", &whole);
        assert!(native::verify(b"secret", &whole, &signature));
        assert!(!native::verify(b"Secret", &whole, &signature));
        for other in [
            native::Parts { method: "PUT", ..whole },
            native::Parts { path: "/api/v1/jobs/", ..whole },
            native::Parts { path: "/api//v1/jobs", ..whole },
            native::Parts { path: "/api/v1%2Fjobs", ..whole },
            native::Parts { query: "a=2", ..whole },
            native::Parts { query: "", ..whole },
            native::Parts { body: b"c", ..whole },
            native::Parts { host: "otherhost", ..whole },
            native::Parts { timestamp_ms: 2, ..whole },
            native::Parts { nonce: "0123456789abcdeg", ..whole },
            native::Parts { key_id: "L", ..whole },
        ] {
            assert!(!native::verify(b"secret", &other, &signature), "{other:?}");
        }
    }

    #[test]
    fn order_of_names_is_free_and_order_of_values_is_not() {
        let same = |a: &str, b: &str| native::canonical(&parts(a, b"")) == native::canonical(&parts(b, b""));
        assert!(same("a=1&b=2", "b=2&a=1"));
        assert!(!same("a=1&a=2", "a=2&a=1"));
        assert!(!same("a=1&%61=2", "%61=2&a=1"), "%61 is an a: the first value of it counts");
        assert!(!same("a+=1&a%20=2", "a%20=2&a+=1"));
        assert!(!same("a=1", "a=1&b"));
        assert!(!same("a=1&b=2", "a=1%26b=2"));
    }

    #[test]
    fn the_window_has_two_sides() {
        assert!(is_fresh(100, 200, 100) && is_fresh(300, 200, 100));
        assert!(!is_fresh(99, 200, 100) && !is_fresh(301, 200, 100));
        assert!(!is_fresh(i64::MIN, i64::MAX, 100) && !is_fresh(i64::MAX, i64::MIN, 100));
    }

    #[test]
    fn a_replay_value_depends_on_all_that_the_old_signature_leaves_out() {
        let values = [
            dated::replay_value("s", "q", b"b", None),
            dated::replay_value("t", "q", b"b", None),
            dated::replay_value("s", "", b"qb", None),
            dated::replay_value("s", "q", b"c", None),
            dated::replay_value("s", "q", b"b", Some("")),
            dated::replay_value("s", "q", b"b", Some("k")),
            native::replay_value("s"),
        ];
        let different: std::collections::BTreeSet<&String> = values.iter().collect();
        assert_eq!(different.len(), values.len());
        assert!(values.iter().all(|value| value.len() == 64));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn requests_that_mean_different_things_never_share_a_text(a in "[ab%61=&+]{0,10}", b in "[ab%61=&+]{0,10}") {
            let read = |query: &str| {
                let mut pairs: Vec<(String, String)> = query
                    .split('&')
                    .filter(|pair| !pair.is_empty())
                    .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                    .map(|(name, value)| (String::from_utf8_lossy(&native::meaning(name)).into_owned(), value.to_owned()))
                    .collect();
                pairs.sort_by(|x, y| x.0.cmp(&y.0));
                pairs
            };
            prop_assume!(read(&a) != read(&b));
            prop_assert!(native::canonical(&parts(&a, b"")) != native::canonical(&parts(&b, b"")));
        }

        #[test]
        fn any_body_has_its_own_signature(a in proptest::collection::vec(any::<u8>(), 0..32), bit in 0_usize..256) {
            prop_assume!(!a.is_empty());
            let mut b = a.clone();
            b[bit / 8 % a.len()] ^= 1 << (bit % 8);
            let same = native::sign(b"k", &parts("", &a)) == native::sign(b"k", &parts("", &b));
            prop_assert_eq!(same, false);
        }
    }
}

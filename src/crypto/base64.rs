//! Base64 text (RFC 4648), standard and for URLs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::Error;

/// Standard alphabet with padding.
#[must_use]
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of text in the standard alphabet; padding is required and nothing else may stand in it.
///
/// # Errors
/// [`Error::Encoding`].
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text).ok().ok_or(Error::Encoding("base64"))
}

/// Alphabet for URLs and file names, without padding.
#[must_use]
pub fn encode_url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of text in the alphabet for URLs, without padding.
///
/// # Errors
/// [`Error::Encoding`].
pub fn decode_url(text: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(text).ok().ok_or(Error::Encoding("base64 for URLs"))
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_url, encode, encode_url};

    #[test]
    fn each_alphabet_reads_its_own_text() {
        let bytes = [0xfb, 0xff, 0xfe, 0x01];
        assert_eq!(encode(bytes), "+//+AQ==");
        assert_eq!(encode_url(bytes), "-__-AQ");
        assert_eq!(decode("+//+AQ=="), Ok(bytes.to_vec()));
        assert_eq!(decode_url("-__-AQ"), Ok(bytes.to_vec()));
        assert!(decode("+//+AQ").is_err() && decode("-__-AQ==").is_err() && decode_url("+//+AQ").is_err());
    }
}

//! Lower-case hexadecimal text.

use std::fmt::Write as _;

use super::Error;

/// Two lower-case digits a byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal text, digits of either case.
///
/// # Errors
/// [`Error::Encoding`] for an odd number of characters and for anything that is no digit.
pub fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| odd.is_empty()).ok_or(Error::Encoding("hexadecimal"))
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn text_and_bytes_are_one() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Ok(all));
        assert_eq!(encode(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(decode("FfA0"), Ok(vec![0xff, 0xa0]));
        for bad in ["f", "0x", "é0", " 1", "+1"] {
            assert!(decode(bad).is_err(), "{bad} was read");
        }
    }
}

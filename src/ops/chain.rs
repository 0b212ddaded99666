//! An error together with everything that caused it.

use std::error::Error;
use std::fmt;

/// Most causes shown; a longer chain is a loop or a mistake.
const MOST_CAUSES: usize = 16;

/// Shows an error and its sources, outermost first, joined by `": "`.
///
/// `Display` of our errors never repeats the source, so nothing is shown twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        for _ in 0..MOST_CAUSES {
            let Some(cause) = source else { return Ok(()) };
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        if source.is_some() { f.write_str(": ...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Chain;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] std::num::ParseIntError);

    #[derive(Debug, thiserror::Error)]
    #[error("round")]
    struct Endless;

    #[derive(Debug, thiserror::Error)]
    #[error("link")]
    struct Link(#[source] Box<dyn std::error::Error>);

    #[test]
    fn causes_follow_their_effect_once() {
        let error = Outer("x".parse::<u32>().expect_err("no number"));
        assert_eq!(Chain(&error).to_string(), "cannot open the store: invalid digit found in string");
        assert_eq!(Chain(&Endless).to_string(), "round");
    }

    #[test]
    fn a_very_long_chain_is_cut() {
        let mut error: Box<dyn std::error::Error> = Box::new(Endless);
        for _ in 0..40 {
            error = Box::new(Link(error));
        }
        let text = Chain(error.as_ref()).to_string();
        assert_eq!(text.matches("link").count(), 17);
        assert!(text.ends_with(": ..."), "{text}");
    }
}

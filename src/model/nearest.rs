//! What somebody probably meant.

/// The known name that differs least, if it differs little.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = plain(name);
    let begun = |known: &&&str| wanted.len() >= 3 && plain(known).starts_with(&wanted);
    let alike = || {
        known
            .iter()
            .map(|known| (distance(&wanted, &plain(known)), *known))
            .min()
            .filter(|(distance, known)| *distance <= 1 + known.len() / 3)
            .map(|(_, known)| known)
    };
    known.iter().find(begun).copied().or_else(alike)
}

/// Insertions, deletions and replacements between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (above, y) in row.iter().skip(1).zip(&b) {
            left = (corner + usize::from(x != *y)).min(above + 1).min(left + 1);
            corner = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn the_distance_of_words_is_that_of_typing() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
        assert_eq!(nearest("stat", &["kind", "state"]), Some("state"));
        assert_eq!(nearest("xyzzy", &["kind", "state"]), None);
    }
}

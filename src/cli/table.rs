//! Tables for people: aligned columns, nothing but text, safe to show on a terminal.

use std::io::{self, Write};

/// Longest cell in characters; the rest is cut and marked.
const WIDEST: usize = 100;

/// Writes rows under headings. The last column is not padded.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut dyn Write, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell, WIDEST)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(out, headings.iter().copied(), &widths)?;
    rows.iter().try_for_each(|row| line(out, row.iter().map(String::as_str), &widths))
}

fn line<'a>(out: &mut dyn Write, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> io::Result<()> {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        text.push_str(cell);
        let padding = width.saturating_sub(cell.chars().count()) + 2;
        text.extend(std::iter::repeat_n(' ', padding));
    }
    writeln!(out, "{}", text.trim_end())
}

/// Text from outside made harmless for a terminal: control and direction characters become visible, and it is cut at
/// `longest` characters.
#[must_use]
pub fn clean(text: &str, longest: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(longest));
    for (i, c) in text.chars().enumerate() {
        if i == longest {
            shown.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => shown.push('�'),
            c if c.is_control() => shown.push('�'),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{clean, write};

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        let rows = vec![vec!["1".to_owned(), "ü".to_owned()], vec!["10001".to_owned(), String::new()]];
        let mut out = Vec::new();
        write(&mut out, &["ID", "NAME"], &rows).expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "ID     NAME\n1      ü\n10001\n");
    }

    #[test]
    fn a_terminal_gets_no_escape_and_no_turned_text() {
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\nd", 100), "a�[31mb�c d");
        assert_eq!(clean("abcdef", 3), "abc…");
    }
}

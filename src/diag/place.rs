//! Byte offsets → lines and columns as editors count them: from 1, columns in characters.

use std::ops::Range;

use super::Span;
use crate::files::Files;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Where the span starts and where it ends (the column after its last character).
pub fn of(files: &Files, span: Span) -> (Place, Place) {
    let text = &files.get(span.file).text;
    let range = clamp(text, span.range());
    (place(text, range.start), place(text, range.end))
}

/// The range inside `text`, between characters.
pub fn clamp(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(range.start.min(text.len()));
    let end = text.ceil_char_boundary(range.end.clamp(start, text.len()));
    start..end
}

fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    Place { line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        let text = "a: b\nü: 'é'\r\nc";
        let check = |offset, line, column| {
            assert_eq!(place(text, offset), Place { line, column }, "{offset}")
        };
        check(0, 1, 1);
        check(3, 1, 4);
        check(5, 2, 1);
        check(7, 2, 2);
        check(12, 2, 6);
        check(text.len(), 3, 2);
        assert_eq!(clamp("é", 1..1), 0..2);
        assert_eq!(clamp("ab", 5..9), 2..2);
    }
}

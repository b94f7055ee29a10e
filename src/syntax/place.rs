//! Decoded text → where each of its bytes stands in the file. Exact for every visible character; white space that YAML
//! folds or strips is placed beside it.

use std::ops::Range;

use crate::diag::{FileId, Span};

use super::Text;

/// What stands between the decoded text and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Plain scalars and the lines of block scalars: only white space differs.
    Bare,
    /// `''` is a quote.
    Single,
    /// Escapes that start with `\`.
    Double,
}

pub(super) fn span(text: &Text, file: FileId, range: Range<usize>) -> Span {
    let length = text.text.len();
    let start = range.start.min(length);
    let end = range.end.clamp(start, length);
    let first = place(text, start).0;
    let last = if end == start { first } else { place(text, end - 1).1 };
    Span::new(file, first..last.max(first))
}

/// Where byte `at` stands, and where the file goes on after it: never past its run, which an escape makes shorter.
fn place(text: &Text, at: usize) -> (usize, usize) {
    let index = text.places.partition_point(|(decoded, _)| *decoded <= at).saturating_sub(1);
    let Some(&(decoded, raw)) = text.places.get(index) else { return (0, 0) };
    let limit = text.places.get(index + 1).map_or(usize::MAX, |next| next.1);
    let start = raw + at.saturating_sub(decoded);
    (start.min(limit), (start + 1).min(limit))
}

/// The runs of `decoded`, whose source is `raw` (without quotes or block header), which starts at `base` in the file.
pub(super) fn align(decoded: &str, raw: &str, base: usize, style: Style) -> Vec<(usize, usize)> {
    let mut runs = Runs { places: Vec::new(), base };
    let mut source = Source { raw, at: 0, style };
    for (offset, character) in decoded.char_indices() {
        if character.is_whitespace() {
            source.space(character, |at| runs.push(offset, at));
        } else {
            source.visible(character, |at| runs.push(offset, at));
        }
        // What follows a character that is longer or shorter in the file starts a run of its own.
        runs.push(offset + character.len_utf8(), source.at);
    }
    if runs.places.is_empty() {
        runs.push(0, 0);
    }
    runs.places
}

struct Runs {
    places: Vec<(usize, usize)>,
    base: usize,
}

impl Runs {
    fn push(&mut self, decoded: usize, raw: usize) {
        let raw = raw + self.base;
        if let Some(&(last_decoded, last_raw)) = self.places.last() {
            if raw.checked_sub(last_raw) == Some(decoded - last_decoded) {
                return;
            }
            if last_decoded == decoded {
                self.places.pop();
                return self.push(decoded, raw - self.base);
            }
        }
        self.places.push((decoded, raw));
    }
}

struct Source<'a> {
    raw: &'a str,
    at: usize,
    style: Style,
}

impl Source<'_> {
    fn rest(&self) -> &str {
        self.raw.get(self.at..).unwrap_or("")
    }

    /// Length in the file of the escape that stands here; `None` if none does.
    fn escape(&self) -> Option<usize> {
        let rest = self.rest();
        match self.style {
            Style::Bare => None,
            Style::Single => rest.starts_with("''").then_some(2),
            Style::Double => {
                let letter = rest.strip_prefix('\\')?.chars().next()?;
                let length = match letter {
                    'x' => 4,
                    'u' if is_high_surrogate(rest) => 12,
                    'u' => 6,
                    'U' => 10,
                    other => 1 + other.len_utf8(),
                };
                Some(length.min(rest.len()))
            }
        }
    }

    /// An escaped line break, which yields nothing.
    fn joins_lines(&self) -> bool {
        self.style == Style::Double
            && (self.rest().starts_with("\\\n") || self.rest().starts_with("\\\r"))
    }

    fn skip_space(&mut self) {
        loop {
            if self.joins_lines() {
                self.at += 2;
            } else if let Some(space) =
                self.rest().chars().next().filter(|character| character.is_whitespace())
            {
                self.at += space.len_utf8();
            } else {
                return;
            }
        }
    }

    fn visible(&mut self, character: char, place: impl FnOnce(usize)) {
        self.skip_space();
        place(self.at);
        let length = self.escape().unwrap_or(character.len_utf8());
        self.at = (self.at + length).min(self.raw.len());
    }

    fn space(&mut self, character: char, place: impl FnOnce(usize)) {
        while self.joins_lines() {
            self.at += 2;
            while let Some(space) = self.rest().chars().next().filter(|next| next.is_whitespace()) {
                self.at += space.len_utf8();
            }
        }
        if character == '\n' {
            // The line's trailing blanks and its `\r` are not part of the text.
            let blanks = self.rest().find(|next| !matches!(next, ' ' | '\t' | '\r')).unwrap_or(0);
            if self.rest().get(blanks..).is_some_and(|rest| rest.starts_with('\n')) {
                self.at += blanks;
            }
        }
        place(self.at);
        if let Some(length) = self.escape() {
            self.at += length;
        } else if let Some(next) = self.rest().chars().next().filter(|next| next.is_whitespace()) {
            self.at += next.len_utf8();
        }
    }
}

fn is_high_surrogate(escape: &str) -> bool {
    escape
        .get(2..6)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .is_some_and(|unit| (0xD800..0xDC00).contains(&unit))
}

#[cfg(test)]
mod tests {
    use crate::diag::FileId;
    use crate::syntax::parse;

    /// In the value of the first key, `part` is found in the file as `expected`.
    fn check(yaml: &str, part: &str, expected: &str) {
        let parsed = parse(FileId(0), yaml);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let node = parsed.node.unwrap();
        let text = node.as_map().unwrap()[0].value.as_text().unwrap();
        let start =
            text.text.find(part).unwrap_or_else(|| panic!("no {part:?} in {:?}", text.text));
        let span = text.span(FileId(0), start..start + part.len());
        assert_eq!(yaml.get(span.range()), Some(expected), "{yaml:?} {:?}", text.places);
    }

    #[test]
    fn plain() {
        check("a: one {{ two }} three", "{{ two }}", "{{ two }}");
        check("a: one\n   two\n\n   three\n", "three", "three");
        check("a: one\r\n   two\r\n", "two", "two");
        check("a: größe {{ é }} ü", "{{ é }}", "{{ é }}");
    }

    #[test]
    fn quoted() {
        check("a: 'it''s {{ x }}'", "{{ x }}", "{{ x }}");
        check("a: 'it''s'", "t's", "t''s");
        check(r#"a: "q\"uo\\te\n {{ x }}""#, "{{ x }}", "{{ x }}");
        check(r#"a: "\u00e9\x41\U0001F600\ud83d\ude00 {{ x }} y""#, "{{ x }}", "{{ x }}");
        check("a: \"one \\\n    two {{ x }}\"", "{{ x }}", "{{ x }}");
        check("a: \"one\n\n    two\n    {{ x }}\"", "{{ x }}", "{{ x }}");
        check(r#"a: "one\ttwo""#, "two", "two");
    }

    #[test]
    fn block() {
        check("a: |\n  one\n    two\n\n  {{ x }}\n", "{{ x }}", "{{ x }}");
        check("a: |2- # note\n  one\n    two\n", "two", "two");
        check("a: >\n  one\n  two\n\n  {{ x }}\n\n", "{{ x }}", "{{ x }}");
        check("a: |\r\n  one\r\n  {{ x }}\r\n", "{{ x }}", "{{ x }}");
        check("a:\n  - |\n    x\nb: y\n".trim_start_matches("a:\n  - |\n    x\n"), "y", "y");
        check("a: |\n  one \n  two\n", "two", "two");
    }
}

//! For people: excerpts with carets, in the manner of rustc.

use std::collections::BTreeSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str as clean,
};

use super::{Diagnostic, Severity, Span, count, place};
use crate::files::Files;

/// Columns of a terminal; longer lines are cut around the caret.
const WIDTH: usize = 140;

/// The diagnostics in their order, a blank line after each.
pub fn render(files: &Files, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[group(files, diagnostic)]));
        text.push_str("\n\n");
    }
    text
}

/// `2 errors, 1 warning in 3 files`; `None` where there is nothing to count.
pub fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let (errors, warnings) = count(diagnostics);
    let files: BTreeSet<_> = diagnostics.iter().map(|diagnostic| diagnostic.span.file).collect();
    let counted: Vec<String> = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| plural(number, word))
        .collect();
    (!counted.is_empty())
        .then(|| format!("{} in {}", counted.join(", "), plural(files.len(), "file")))
}

/// `1 file`, `2 files`
pub fn plural(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn group<'a>(files: &'a Files, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(
        level.primary_title(clean(&diagnostic.message)).id(diagnostic.code.as_str()),
    );
    // The diagnostic's own file first, then those that only explain it.
    let others: BTreeSet<_> = diagnostic
        .related
        .iter()
        .map(|(span, _)| span.file)
        .filter(|file| *file != diagnostic.span.file)
        .collect();
    for file in std::iter::once(diagnostic.span.file).chain(others) {
        let source = files.get(file);
        if source.text.is_empty() {
            group = group.element(Origin::path(clean(&files.shown(file))));
            continue;
        }
        let mut snippet = Snippet::source(files.excerpt(file)).path(clean(&files.shown(file)));
        if file == diagnostic.span.file {
            let annotation = AnnotationKind::Primary.span(range(files, diagnostic.span));
            snippet = snippet.annotation(match diagnostic.label.as_str() {
                "" => annotation,
                label => annotation.label(clean(label)),
            });
        }
        for (span, message) in diagnostic.related.iter().filter(|(span, _)| span.file == file) {
            snippet = snippet.annotation(
                AnnotationKind::Context.span(range(files, *span)).label(clean(message)),
            );
        }
        group = group.element(snippet);
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(clean(help)));
    }
    group
}

/// What the carets stand under: the first line of a long value says enough.
fn range(files: &Files, span: Span) -> std::ops::Range<usize> {
    let text = &files.get(span.file).text;
    let range = place::clamp(text, span.range());
    let first_line = text.get(range.clone()).and_then(|part| part.find(['\n', '\r']));
    range.start..first_line.map_or(range.end, |length| range.start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::code::Code;
    use crate::diag::example::example;

    #[test]
    fn reads_like_a_compiler() {
        let (files, diagnostics) = example();
        let text = render(&files, &diagnostics, false) + &summary(&diagnostics).unwrap();
        insta::assert_snapshot!(text);
        assert!(render(&files, &diagnostics, true).contains("\u{1b}["));
    }

    #[test]
    fn json() {
        let (files, diagnostics) = example();
        insta::assert_snapshot!(super::super::json::render(&files, &diagnostics));
    }

    /// The place in the header is the one that machines get.
    #[test]
    fn columns_agree() {
        for text in ["a: \t日本 x", "ü: 'é' x", "a: 👩‍👩‍👧 x", "a: 1\r\nb: x", "\u{301}x"]
        {
            let mut files = Files::new("");
            let file = files.add("a.yaml", text);
            let at = text.rfind('x').unwrap();
            let span = Span::new(file, at..at + 1);
            let shown = render(&files, &[Diagnostic::new(Code::UnknownKey, span, "x")], false);
            let (start, _) = place::of(&files, span);
            assert!(
                shown.contains(&format!("--> a.yaml:{}:{}\n", start.line, start.column)),
                "{text:?} {start:?} {shown}"
            );
        }
    }

    #[test]
    fn counts() {
        assert_eq!(summary(&[]), None);
        assert_eq!(plural(2, "route"), "2 routes");
    }
}

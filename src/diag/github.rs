//! For the log of a GitHub workflow: commands that become annotations in the pull request.

use super::repository::Repository;
use super::{Diagnostic, Severity, place};
use crate::files::Files;

/// One command a line, in the diagnostics' order.
pub fn render(files: &Files, diagnostics: &[Diagnostic], repository: &Repository) -> String {
    diagnostics.iter().map(|diagnostic| one(files, diagnostic, repository) + "\n").collect()
}

fn one(files: &Files, diagnostic: &Diagnostic, repository: &Repository) -> String {
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let (start, end) = place::of(files, diagnostic.span);
    let file = property(&repository.path(files, diagnostic.span.file));
    let mut properties =
        format!("file={file},line={},col={},endLine={}", start.line, start.column, end.line);
    // GitHub takes columns as those of one line.
    if start.line == end.line {
        properties += &format!(",endColumn={}", end.column);
    }
    let title = format!("{} {}", diagnostic.code.as_str(), diagnostic.code.name());
    let mut words = diagnostic.words();
    for (span, message) in &diagnostic.related {
        let (at, _) = place::of(files, *span);
        let file = repository.path(files, span.file);
        words += &format!("\n{message}: {file}:{}:{}", at.line, at.column);
    }
    format!("::{command} {properties},title={}::{}", property(&title), data(&words))
}

/// A message: what would end the line, and the sign that escapes.
fn data(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '%' => escaped.push_str("%25"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            // The log is read in a browser and in terminals, which would obey.
            letter if letter.is_control() && letter != '\t' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A property's value: also what would end it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Span;
    use crate::diag::code::Code;
    use crate::diag::example::{example, repository};

    #[test]
    fn annotates() {
        let (files, diagnostics) = example();
        insta::assert_snapshot!(render(&files, &diagnostics, &repository()));
        assert_eq!(render(&files, &[], &repository()), "");
    }

    /// A text of the user's cannot start a command of its own.
    #[test]
    fn one_finding_is_one_line() {
        let mut files = Files::new("");
        let file = files.add("a\n::error::b.yaml", "a: b");
        let text = "100 %\r\n::set-env name=a::b";
        let diagnostic =
            Diagnostic::new(Code::UnknownKey, Span::new(file, 0..1), text).help("a:\nb");
        assert_eq!(
            render(&files, &[diagnostic], &repository()),
            "::error file=<eu>%3A 50 %25%2C ä/a%0A%3A%3Aerror%3A%3Ab.yaml,line=1,col=1,endLine=1,endColumn=2,\
             title=R012 unknown-key::100 %25%0D%0A::set-env name=a::b%0Ahelp: a:%0Ab\n"
        );
    }
}

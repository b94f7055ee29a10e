//! For test reports: JUnit XML, in which each file is a test that passes or fails.

use std::collections::BTreeMap;

use super::repository::Repository;
use super::{Diagnostic, FileId, Severity, place};
use crate::files::Files;

/// One suite with a test for each of `checked` and for each file of a diagnostic. Errors fail it, under `strict` warnings
/// too; otherwise they stand in the test's output.
pub fn render(
    files: &Files,
    checked: &[FileId],
    diagnostics: &[Diagnostic],
    strict: bool,
    repository: &Repository,
) -> String {
    let mut cases: BTreeMap<String, Vec<&Diagnostic>> =
        checked.iter().map(|file| (repository.path(files, *file), Vec::new())).collect();
    for diagnostic in diagnostics {
        cases.entry(repository.path(files, diagnostic.span.file)).or_default().push(diagnostic);
    }
    let fails = |diagnostic: &Diagnostic| strict || diagnostic.severity == Severity::Error;
    let failed =
        cases.values().filter(|found| found.iter().any(|diagnostic| fails(diagnostic))).count();
    let counts =
        format!("tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\"", cases.len());
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"router\" {counts}>\n  <testsuite name=\"router check\" {counts}>\n"
    );
    for (path, found) in &cases {
        let name = attribute(path);
        xml += &format!("    <testcase classname=\"router check\" name=\"{name}\" file=\"{name}\"");
        if found.is_empty() {
            xml += "/>\n";
            continue;
        }
        xml += ">\n";
        let (failures, warnings): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
            found.iter().copied().partition(|diagnostic| fails(diagnostic));
        for diagnostic in failures {
            xml += &format!(
                "      <failure message=\"{}\" type=\"{} {}\">{}</failure>\n",
                attribute(&diagnostic.message),
                diagnostic.code.as_str(),
                diagnostic.code.name(),
                escape(&text(files, diagnostic, repository))
            );
        }
        if !warnings.is_empty() {
            let texts: Vec<String> = warnings
                .into_iter()
                .map(|diagnostic| escape(&text(files, diagnostic, repository)))
                .collect();
            xml += &format!("      <system-out>{}</system-out>\n", texts.join("\n\n"));
        }
        xml += "    </testcase>\n";
    }
    xml + "  </testsuite>\n</testsuites>\n"
}

/// A finding as a compiler's line says it, with what explains it beneath.
fn text(files: &Files, diagnostic: &Diagnostic, repository: &Repository) -> String {
    let place = |span| {
        let (start, _) = place::of(files, span);
        format!("{}:{}:{}", repository.path(files, span.file), start.line, start.column)
    };
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let code = diagnostic.code.as_str();
    let mut text =
        format!("{}: {severity}[{code}]: {}", place(diagnostic.span), diagnostic.words());
    for (span, message) in &diagnostic.related {
        text += &format!("\n{}: {message}", place(*span));
    }
    text
}

/// For a value in double quotes, in which a reader makes spaces of plain tabs and line ends.
fn attribute(text: &str) -> String {
    escape(text).replace('\t', "&#9;").replace('\n', "&#10;")
}

/// For text. What XML 1.0 cannot hold, not even escaped, is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' => escaped.push(letter),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::example::{example, repository};

    fn shown(strict: bool) -> String {
        let (mut files, diagnostics) = example();
        files.add("routes/ok.yaml", "route: ok");
        let checked: Vec<_> = files.iter().map(|(id, _)| id).collect();
        render(&files, &checked, &diagnostics, strict, &repository())
    }

    #[test]
    fn each_file_is_a_test() {
        insta::assert_snapshot!(shown(false));
    }

    #[test]
    fn warnings_fail_where_they_should() {
        insta::assert_snapshot!(shown(true));
    }

    #[test]
    fn holds_a_suite_where_nothing_is_found() {
        insta::assert_snapshot!(render(&Files::new(""), &[], &[], false, &repository()));
    }

    /// A parser reads what was meant, whatever the text holds.
    #[test]
    fn is_xml() {
        use quick_xml::Reader;
        use quick_xml::events::Event;
        for strict in [false, true] {
            let xml = shown(strict);
            let mut reader = Reader::from_str(&xml);
            reader.config_mut().check_end_names = true;
            let mut cases = 0;
            loop {
                match reader.read_event().expect("XML") {
                    Event::Start(tag) | Event::Empty(tag) => {
                        cases += usize::from(tag.name().as_ref() == "testcase");
                        for attribute in tag.attributes() {
                            attribute.expect("an attribute");
                        }
                    }
                    Event::Eof => break,
                    _ => {}
                }
            }
            assert_eq!(cases, 4);
        }
        let replaced = "a\u{fffd}\u{fffd}\u{fffd}&lt;&amp;&gt;&quot;";
        assert_eq!(escape("a\u{0}\u{1b}\u{ffff}<&>\"\n"), format!("{replaced}\n"));
        assert_eq!(attribute("a\u{0}\u{1b}\u{ffff}<&>\"\n"), format!("{replaced}&#10;"));
    }
}

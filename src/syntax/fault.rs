//! What the parser could not read → a diagnostic that a person can act on.

use std::ops::Range;

use granit_parser::{ErrorKind, ScanError};

use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, Span};

const QUOTE_IN_FLOW: &str = "inside `{ }` and `[ ]`, quote a text that holds brackets, braces or commas: { from: \"$.items[0].id\" }";

/// The parser's error at its place.
pub(super) fn explain(file: FileId, text: &str, error: &ScanError) -> Diagnostic {
    let at = floor(text, error.marker().byte_offset().unwrap_or(text.len()));
    let here = one_character(text, at);
    let fault = |range: Range<usize>, message: String, help: &str| {
        Diagnostic::new(Code::YamlSyntax, Span::new(file, range), message).help(help)
    };
    match error.kind() {
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabAtBlockScalarStart => fault(
            tab_of_line(text, at),
            "a tab is used to indent".to_owned(),
            "YAML is indented by spaces: write two spaces in place of each tab",
        ),
        ErrorKind::MappingValueNotAllowed => {
            let line = text.get(line_start(text, at)..at).unwrap_or("");
            if line.contains(": ") {
                fault(
                    here,
                    "this text holds a second `:` and is not quoted".to_owned(),
                    "quote the whole value: \"a: b\"; or start a mapping on the next line, indented further",
                )
            } else if let Some(glued) = glued_key(text, at) {
                let key = text.get(glued.clone()).unwrap_or("").to_owned();
                fault(
                    glued,
                    format!("`{key}` needs a space after its `:`"),
                    &format!("write `{key} …`"),
                )
            } else {
                fault(
                    line_words(text, at),
                    "this line goes on with the text of the line above, so it cannot be a key"
                        .to_owned(),
                    "either this line is indented too far, or the line above lacks its `:` (a key over deeper keys has no value of its own)",
                )
            }
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
            let line = text.get(line_start(text, at)..at).unwrap_or("");
            if line.trim().is_empty() {
                fault(
                    line_words(text, at),
                    "the indentation of this line fits nothing above it".to_owned(),
                    "start it in exactly the same column as the keys that it belongs to",
                )
            } else {
                fault(
                    here,
                    "a key is expected here".to_owned(),
                    "quote the whole value if this is part of a text",
                )
            }
        }
        ErrorKind::ExpectedBlockSequenceEntry => fault(
            line_words(text, at),
            "the lines above are a list, and this line is no entry of it".to_owned(),
            "start it with `- ` as the other entries, or indent it as the key that it belongs to",
        ),
        ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::BlockEntryInFlowCollection => fault(
            here,
            "a list entry `- ` cannot start here".to_owned(),
            "put the list on the lines below its key; a text that starts with `- ` must be quoted",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => fault(
            line_words(text, at),
            "this key has no `:`".to_owned(),
            "write `key: value`, with a space after the `:`",
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => fault(
            here,
            "text goes on after the closing quote".to_owned(),
            "quote the whole value; inside '…' a quote is written '', inside \"…\" it is written \\\"",
        ),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            fault(here, "this quote is never closed".to_owned(), "close it at the end of the text")
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            let range = unknown_escape(text, at).unwrap_or(here);
            let escape = text.get(range.clone()).unwrap_or("").to_owned();
            fault(
                range,
                format!("`{escape}` is no escape that YAML knows"),
                "write the text in single quotes, where `\\` is just a `\\`, or double it: `\\\\`",
            )
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::UnexpectedEofFlowMapping => {
            fault(here, "expected `,` or `}` here".to_owned(), QUOTE_IN_FLOW)
        }
        ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::UnexpectedEofFlowSequence => {
            fault(here, "expected `,` or `]` here".to_owned(), QUOTE_IN_FLOW)
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            let close = if *open == '[' { ']' } else { '}' };
            fault(
                here,
                format!("this `{open}` is never closed"),
                &format!("close it by `{close}`; {QUOTE_IN_FLOW}"),
            )
        }
        ErrorKind::InvalidColonPlacement | ErrorKind::UnexpectedEofImplicitFlowMapping => fault(
            here,
            "a `:` cannot stand here, inside brackets".to_owned(),
            "most likely a `[` or `{` above is never closed",
        ),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            fault(here, format!("`{close}` cannot close the `{open}` before it"), QUOTE_IN_FLOW)
        }
        ErrorKind::MisplacedFlowCollectionEnd => fault(
            here,
            "this bracket closes nothing".to_owned(),
            "remove it, or quote the whole value if it is part of a text",
        ),
        ErrorKind::UnexpectedCharacter { character } => fault(
            here,
            format!("a text cannot start with `{character}` unless it is quoted"),
            &format!("quote the whole value: \"{character}…\""),
        ),
        ErrorKind::MissingAnchorOrAliasName => fault(
            here,
            "`*` and `&` start an alias and an anchor in YAML, and no name follows".to_owned(),
            "to mean the character itself, quote it: \"*\"",
        ),
        ErrorKind::RecursionLimitExceeded => too_deep(file, here, super::build::DEPTH_MAX),
        kind => {
            fault(here, format!("not valid YAML: {kind}"), "quote the value if it is meant as text")
        }
    }
}

/// `key: {{ … }}`: YAML reads two mappings. `flow`: it stands inside `{ }` or `[ ]`, where a `,` ends it.
pub(super) fn unquoted_template(file: FileId, text: &str, at: usize, flow: bool) -> Diagnostic {
    let line = text.get(at..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let template = line.find("}}").map_or(line.len(), |end| end + 2);
    let tail = line.get(template..).unwrap_or("");
    let tail = match flow {
        true => tail.split([',', '}', ']']).next().unwrap_or(""),
        false => tail.split(" #").next().unwrap_or(""),
    };
    let length = template + tail.trim_end().len();
    let value = line.get(..length).unwrap_or(line);
    Diagnostic::new(
        Code::YamlSyntax,
        Span::new(file, at..at + length),
        "a value that starts with `{{` must be quoted",
    )
    .label("YAML reads a mapping here")
    .help(format!("quote the whole value: {}", quoted(value)))
}

/// `text: Order #{{ … }}`: the template is a comment, and nothing else would say so.
pub(super) fn swallowed_by_comment(
    file: FileId,
    text: &str,
    plain: Range<usize>,
) -> Option<Diagnostic> {
    let rest = text.get(plain.end..)?.lines().next()?;
    let comment = rest.trim_start();
    if !comment.starts_with('#') || !comment.contains("{{") {
        return None;
    }
    let start = plain.end + (rest.len() - comment.len());
    let value = text.get(plain.start..start + comment.len())?.trim_end();
    let span = Span::new(file, start..start + comment.trim_end().len());
    let diagnostic =
        Diagnostic::new(Code::SwallowedTemplate, span, "this part of the text is a comment")
            .label("YAML reads no further than the `#`")
            .help(format!(
                "to mean it, quote the whole value: \"{value}\"; a real comment does without `{{{{`"
            ));
    Some(diagnostic)
}

/// `*.paid`: YAML reads an alias.
pub(super) fn unknown_alias(file: FileId, range: Range<usize>, name: &str) -> Diagnostic {
    let message = format!("`*{name}` repeats a value marked `&{name}`, and none stands above");
    Diagnostic::new(Code::YamlSyntax, Span::new(file, range), message)
        .label("YAML reads an alias here")
        .help(format!("to mean a text that starts with `*`, quote it: \"*{name}\""))
}

/// `!orders/test`: YAML reads a tag.
pub(super) fn tag(file: FileId, text: &str, range: Range<usize>) -> Diagnostic {
    let written = text.get(range.clone()).unwrap_or("").trim_end();
    let range = range.start..range.start + written.len();
    Diagnostic::new(
        Code::YamlSyntax,
        Span::new(file, range),
        "a text that starts with `!` must be quoted",
    )
    .label("YAML reads a tag here")
    .help(format!("write \"{written}\""))
}

pub(super) fn too_deep(file: FileId, range: Range<usize>, levels: usize) -> Diagnostic {
    Diagnostic::new(
        Code::YamlSyntax,
        Span::new(file, range),
        format!("nested deeper than {levels} levels"),
    )
    .help("nothing in a configuration needs that: look for brackets that are never closed")
}

/// As YAML quotes it, in the simpler way.
fn quoted(value: &str) -> String {
    if value.contains(['"', '\\']) {
        format!("'{}'", value.replace('\'', "''"))
    } else {
        format!("\"{value}\"")
    }
}

/// In the line above that of `at`, the key of `key:value`, whose missing space makes a text of it.
fn glued_key(text: &str, at: usize) -> Option<Range<usize>> {
    let end = line_start(text, at).checked_sub(1)?;
    let start = line_start(text, end);
    let line = text.get(start..end)?;
    let entry = line.trim_start_matches([' ', '-']);
    let key = entry.split(':').next().unwrap_or("");
    let after = entry.get(key.len() + 1..).and_then(|rest| rest.chars().next());
    let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    let key_start = start + line.len() - entry.len();
    let glued =
        !key.is_empty() && key.chars().all(word) && after.is_some_and(|next| !next.is_whitespace());
    glued.then(|| key_start..key_start + key.len() + 1)
}

fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

fn one_character(text: &str, at: usize) -> Range<usize> {
    let length = text
        .get(at..)
        .and_then(|rest| rest.chars().next())
        .filter(|next| *next != '\n')
        .map_or(0, char::len_utf8);
    at..at + length
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1)
}

/// The line of `at` without its indentation, up to the `:` of its key.
fn line_words(text: &str, at: usize) -> Range<usize> {
    let start = line_start(text, at);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let indent = line.len() - line.trim_start().len();
    let words = line.trim();
    let length = words.find(": ").or(words.strip_suffix(':').map(str::len)).unwrap_or(words.len());
    start + indent..start + indent + length
}

fn tab_of_line(text: &str, at: usize) -> Range<usize> {
    let start = line_start(text, at);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    match line.find('\t') {
        Some(tab) => start + tab..start + tab + 1,
        None => one_character(text, at),
    }
}

/// The first escape of the double-quoted text at `at` that YAML does not know.
fn unknown_escape(text: &str, at: usize) -> Option<Range<usize>> {
    let mut characters = text.get(at..)?.char_indices().skip(1);
    while let Some((offset, character)) = characters.next() {
        if character == '\\' {
            let (_, escaped) = characters.next()?;
            if !"0abtnvfre \"/\\N_LPxuU\t\n\r".contains(escaped) {
                return Some(at + offset..at + offset + 1 + escaped.len_utf8());
            }
        }
    }
    None
}

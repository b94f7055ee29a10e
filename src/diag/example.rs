//! Findings that the renderers' tests show: several files, characters of several bytes, what a terminal would obey, a
//! place past the end.

use super::code::Code;
use super::repository::Repository;
use super::{Diagnostic, Span};
use crate::files::Files;

pub(super) fn example() -> (Files, Vec<Diagnostic>) {
    let mut files = Files::new("");
    let a = files.add("routes/a.yaml", "route: ä\nsetps:\n  - name: x\n    call: 1\n");
    let b = files.add("routes/b.yaml", "# b\nroute: ä\n");
    let gone = files.add("routes/gone.yaml", "");
    let mut diagnostics = vec![
        Diagnostic::new(
            Code::UnreadableFile,
            Span::new(gone, 0..0),
            "cannot read the file: permission denied",
        ),
        Diagnostic::new(Code::DuplicateName, Span::new(b, 11..13), "two routes are named `ä`")
            .label("named again")
            .related(Span::new(a, 7..9), "first named here")
            .help("a route's name is unique"),
        Diagnostic::new(Code::UnknownKey, Span::new(a, 10..15), "unknown key `setps` in a route")
            .help("did you mean `steps`?")
            .fix(Span::new(a, 10..15), "steps"),
        Diagnostic::new(
            Code::UnsafeRepeat,
            Span::new(a, 19..9999),
            "a \u{1b}[31mvalue\u{1b}[0m of many lines",
        )
        .label("here"),
    ];
    super::sort(&files, &mut diagnostics);
    (files, diagnostics)
}

/// A folder whose name every format has to escape in its own way.
pub(super) fn repository() -> Repository {
    Repository { root: "/repo".into(), folder: "/repo/<eu>: 50 %, ä".into() }
}

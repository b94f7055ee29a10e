//! For people: excerpts with carets.

use super::Diagnostic;
use crate::files::Files;

/// All diagnostics as one text, ordered by file and line.
pub fn render(files: &Files, diagnostics: &[Diagnostic], colour: bool) -> String {
    let _ = (files, diagnostics, colour);
    todo!()
}

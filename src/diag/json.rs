//! For machines: `router check --format json`.

use super::Diagnostic;
use crate::files::Files;

/// One object, as the language's last section gives it.
pub fn render(files: &Files, diagnostics: &[Diagnostic]) -> String {
    let _ = (files, diagnostics);
    todo!()
}

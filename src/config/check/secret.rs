//! Secret references: which ones a configuration names, and where.

use std::path::PathBuf;

use super::context::{Checker, string};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::SecretRef;
use crate::syntax::Node;

impl Checker {
    /// `{ env: … }`, `{ file: … }` or `{ literal: … }`; remembered for `resolve`.
    pub(super) fn secret_ref(&mut self, node: &Node) -> Option<SecretRef> {
        let reference = if let Some(variable) = string(node, "env") {
            if !is_variable(&variable) {
                self.bad_variable(node, &variable);
                return None;
            }
            SecretRef::Env(variable)
        } else if let Some(path) = string(node, "file") {
            SecretRef::File(self.files.folder_of(node.span.file).join(PathBuf::from(path)))
        } else {
            let literal = string(node, "literal")?;
            let place = node.get("literal")?.span;
            if literal.is_empty() {
                self.error(
                    Code::InvalidValue,
                    place,
                    "an empty secret protects nothing",
                    "write `{ env: NAME }` or `{ file: PATH }`",
                );
                return None;
            }
            self.files.hide(place);
            self.push(
                Diagnostic::new(Code::LiteralSecret, node.span, "a secret stands in the file")
                    .label("readable by everyone who can read this file")
                    .help("write `{ env: NAME }` or `{ file: PATH }`"),
            );
            SecretRef::Literal(literal.into())
        };
        self.references.secrets.entry(reference.clone()).or_insert(node.span);
        Some(reference)
    }

    /// The name of an environment variable that cannot be one.
    pub(super) fn bad_variable(&mut self, node: &Node, variable: &str) {
        let span = node.get("env").map_or(node.span, |node| node.span);
        self.push(
            Diagnostic::new(
                Code::InvalidValue,
                span,
                format!("`{variable}` is no name of a variable"),
            )
            .help("use letters, digits and `_`, such as `STRIPE_WEBHOOK_SECRET`"),
        );
    }
}

pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

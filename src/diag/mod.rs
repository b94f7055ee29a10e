//! What is wrong in a user's files: where, what, and what to write instead. Diagnostics are gathered, never an early
//! return: one run reports all.

pub mod code;
#[cfg(test)]
mod example;
pub mod github;
pub mod human;
pub mod json;
pub mod junit;
pub mod place;
pub mod repository;
pub mod sarif;
pub mod suggest;

use std::ops::Range;

use code::Code;

/// Index of a [`crate::files::SourceText`] in its [`crate::files::Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A byte range of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub file: FileId,
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(file: FileId, range: Range<usize>) -> Self {
        Self { file, start: range.start, end: range.end }
    }

    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    pub span: Span,
    /// A few words under the caret; may be empty.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Other places that explain it: "first declared here".
    pub related: Vec<(Span, String)>,
    /// A replacement that is always right.
    pub fix: Option<Fix>,
}

/// In the order in which people read: by file, then place, the same finding once.
pub fn sort(files: &crate::files::Files, diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|left, right| {
        let key =
            |diagnostic: &Diagnostic| (diagnostic.span.start, diagnostic.span.end, diagnostic.code);
        let name = |diagnostic: &Diagnostic| &files.get(diagnostic.span.file).name;
        name(left)
            .cmp(name(right))
            .then(key(left).cmp(&key(right)))
            .then(left.message.cmp(&right.message))
    });
    diagnostics.dedup_by(|next, kept| {
        (next.code, next.span, &next.message) == (kept.code, kept.span, &kept.message)
    });
}

/// How many errors, how many warnings.
pub fn count(diagnostics: &[Diagnostic]) -> (usize, usize) {
    let errors =
        diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    (errors, diagnostics.len() - errors)
}

#[derive(Clone, Debug)]
pub struct Fix {
    pub span: Span,
    pub replacement: String,
}

impl Diagnostic {
    /// An error or warning as its code says, at `span`.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            span,
            label: String::new(),
            help: None,
            related: Vec::new(),
            fix: None,
        }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push((span, message.into()));
        self
    }

    /// The message and, on a line of its own, the way out: for formats that show one text.
    pub fn words(&self) -> String {
        match &self.help {
            Some(help) => format!("{}\nhelp: {help}", self.message),
            None => self.message.clone(),
        }
    }

    pub fn fix(mut self, span: Span, replacement: impl Into<String>) -> Self {
        self.fix = Some(Fix { span, replacement: replacement.into() });
        self
    }
}

//! What the rules share: the files, the findings, and how they read a tree whose shape was already reported on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;

use super::provider::Preset;
use super::text::Config;
use crate::config::{References, units};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, Span};
use crate::files::Files;
use crate::syntax::{Node, Text, Value};

pub(super) struct Checker {
    pub(super) files: Files,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) references: References,
    /// Built in or of `providers/`, by name; compiled where a source takes them.
    pub(super) presets: BTreeMap<String, Preset>,
    /// Presets that a source takes.
    pub(super) taken: BTreeSet<String>,
    /// Files that the route at hand named, for its revision.
    pub(super) attached: Vec<FileId>,
    /// What the source at hand gives under `verify.config`.
    pub(super) config: Config,
}

impl Checker {
    pub(super) fn new(files: Files) -> Self {
        let references = References { root: files.root.clone(), ..References::default() };
        Self {
            files,
            diagnostics: Vec::new(),
            references,
            presets: BTreeMap::new(),
            taken: BTreeSet::new(),
            attached: Vec::new(),
            config: Config::new(),
        }
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// `help` says what to write instead: no error goes without it.
    pub(super) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Diagnostic::new(code, span, message).help(help));
    }
}

/// The text under `key` with its place, where there is one.
pub(super) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a Text> {
    node.get(key)?.as_text()
}

pub(super) fn string(node: &Node, key: &str) -> Option<String> {
    text(node, key).map(|text| text.text.clone())
}

pub(super) fn name(node: &Node, key: &str) -> Option<(String, Span)> {
    let value = node.get(key)?;
    Some((value.as_text()?.text.clone(), value.span))
}

pub(super) fn duration(node: &Node, key: &str) -> Option<Duration> {
    units::duration(&text(node, key)?.text).ok()
}

pub(super) fn count(node: &Node, key: &str) -> Option<u64> {
    node.get(key)?.as_number()?.parse().ok()
}

pub(super) fn size(node: &Node, key: &str) -> Option<usize> {
    let node = node.get(key)?;
    let written = node.as_number().or(node.as_text().map(|text| text.text.as_str()))?;
    usize::try_from(units::size(written).ok()?).ok()
}

/// A scalar as text: a number and true/false as they are spelt.
pub(super) fn scalar(node: &Node) -> Option<Text> {
    let plain = |text: String| Text { text, quoted: false, places: vec![(0, node.span.start)] };
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) => Some(plain(number.clone())),
        Value::Bool(value) => Some(plain(value.to_string())),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// One node or the nodes of a list.
pub(super) fn many(node: Option<&Node>) -> &[Node] {
    match node {
        None => &[],
        Some(node) => node.as_list().unwrap_or(std::slice::from_ref(node)),
    }
}

/// The tree as JSON; every digit of a number is kept.
pub(super) fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => number_json(number),
        Value::Text(text) => Json::String(text.text.clone()),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => {
            pairs.iter().map(|pair| (pair.key.text.clone(), json(&pair.value))).collect()
        }
    }
}

/// A spelling that JSON does not have (`.inf`) stays text.
pub(super) fn number_json(number: &str) -> Json {
    serde_json::from_str(number).unwrap_or_else(|_| Json::String(number.to_owned()))
}

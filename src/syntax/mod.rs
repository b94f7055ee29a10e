//! YAML text → a tree in which every key and value knows its place. Bad input still yields a tree, with its faults
//! beside it.

mod build;
mod fault;
mod mapping;
mod place;
mod scalar;

use std::ops::Range;

use crate::diag::{Diagnostic, FileId, Span};

/// What [`parse`] found.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `None` only where the text is not YAML at all; an empty file is [`Value::Null`].
    pub node: Option<Node>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads one YAML 1.2 document (core schema, merge keys, anchors) within bounds of size, depth and expansion.
pub fn parse(file: FileId, text: &str) -> Parsed {
    build::parse(file, text)
}

/// One YAML value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    /// As JSON spells it, with every digit that was written: `1_000` is `1000`, `1.10` stays, `0x1F` is `31`.
    Number(String),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<Pair>),
}

#[derive(Clone, Debug)]
pub struct Pair {
    pub key: Text,
    pub key_span: Span,
    pub value: Node,
}

/// A decoded string that can say where each of its bytes stands in the file.
#[derive(Clone, Debug)]
pub struct Text {
    pub text: String,
    pub quoted: bool,
    /// For runs of the decoded text: (offset in `text`, offset in the file). Sorted; the first is at 0.
    pub places: Vec<(usize, usize)>,
}

impl Node {
    pub fn as_map(&self) -> Option<&[Pair]> {
        match &self.value {
            Value::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&Text> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number as JSON spells it, with every digit that was written.
    pub fn as_number(&self) -> Option<&str> {
        match &self.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match &self.value {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The pair with this key, where this is a mapping that has it.
    pub fn pair(&self, key: &str) -> Option<&Pair> {
        self.as_map()?.iter().find(|pair| pair.key.text == key)
    }

    /// The value under this key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.pair(key)?.value)
    }

    /// What a person calls it: "a list", "a number".
    pub fn kind_name(&self) -> &'static str {
        self.value.kind_name()
    }
}

impl Value {
    pub fn kind_name(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Text {
    /// Where these bytes of the decoded text stand in the file.
    pub fn span(&self, file: FileId, range: Range<usize>) -> Span {
        place::span(self, file, range)
    }
}

#[cfg(test)]
mod tests;

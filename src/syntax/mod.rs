//! YAML text → a tree in which every key and value knows its place. Bad input still yields a tree, with its faults
//! beside it.

use crate::diag::Span;

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
    /// The number as written (core schema), underscores removed.
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

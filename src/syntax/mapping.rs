//! A mapping as it grows: keys and values in turn, no key twice, merges last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Pair, Text, Value};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, Span};

#[derive(Default)]
pub(super) struct OpenMap {
    pairs: Vec<Pair>,
    /// Where each key stands first.
    keys: BTreeMap<String, Span>,
    /// Read, and waiting for its value.
    key: Option<Key>,
    merges: Vec<Node>,
}

struct Key {
    /// `None`: a key that cannot be one; already reported, and its value is left out.
    text: Option<Text>,
    span: Span,
}

impl OpenMap {
    /// The key that waits for its value.
    pub(super) fn waiting_key(&self) -> Option<Span> {
        self.key.as_ref().map(|key| key.span)
    }

    /// Takes the next node, a key or its value. `file` is the file's text.
    pub(super) fn add(&mut self, node: Node, file: &str, diagnostics: &mut Vec<Diagnostic>) {
        match self.key.take() {
            None => {
                self.key = Some(Key { span: node.span, text: key_text(node, file, diagnostics) })
            }
            Some(Key { text: Some(text), span }) => self.pair(text, span, node, diagnostics),
            Some(Key { text: None, .. }) => {}
        }
    }

    fn pair(&mut self, key: Text, key_span: Span, value: Node, diagnostics: &mut Vec<Diagnostic>) {
        if key.text == "<<" && !key.quoted {
            self.merges.push(value);
            return;
        }
        if let Some(first) = self.keys.get(&key.text) {
            let message = format!("the key `{}` stands here twice", key.text);
            let diagnostic = Diagnostic::new(Code::DuplicateKey, key_span, message)
                .label("given again")
                .related(*first, "first given here")
                .help("keep one of the two");
            diagnostics.push(diagnostic);
            return;
        }
        self.keys.insert(key.text.clone(), key_span);
        self.pairs.push(Pair { key, key_span, value });
    }

    /// Its own pairs, then those of its `<<`: what is given wins over what is merged, the first over the next.
    pub(super) fn finish(self, diagnostics: &mut Vec<Diagnostic>) -> Vec<Pair> {
        let OpenMap { mut pairs, keys, merges, .. } = self;
        let mut known: BTreeSet<String> = keys.into_keys().collect();
        for merge in merges {
            let parts = match merge.value {
                Value::List(items) => items,
                Value::Map(_)
                | Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Text(_) => vec![merge],
            };
            for part in parts {
                let kind = part.value.kind_name();
                let Value::Map(more) = part.value else {
                    let message = format!("`<<` takes a mapping to merge, and this is {kind}");
                    let diagnostic = Diagnostic::new(Code::YamlSyntax, part.span, message)
                        .help("write `<<: *anchor`, where `&anchor` marks a mapping");
                    diagnostics.push(diagnostic);
                    continue;
                };
                pairs.extend(more.into_iter().filter(|pair| known.insert(pair.key.text.clone())));
            }
        }
        pairs
    }
}

fn key_text(node: Node, file: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Text> {
    let span = node.span;
    let fault =
        |message: String, help: &str| Diagnostic::new(Code::YamlSyntax, span, message).help(help);
    match node.value {
        Value::Text(text) => Some(text),
        // `200: …` and `true: …` are keys as they are written.
        Value::Number(_) | Value::Bool(_) | Value::Null if span.start < span.end => {
            let written = file.get(span.range()).unwrap_or("").to_owned();
            Some(Text { text: written, quoted: false, places: vec![(0, span.start)] })
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => {
            diagnostics.push(fault("a key is missing here".to_owned(), "write `key: value`"));
            None
        }
        Value::List(_) | Value::Map(_) => {
            let message = format!("a key must be text, and this one is {}", node.value.kind_name());
            let help = "write `key: value`; a text that starts with `{` or `[` must be quoted";
            diagnostics.push(fault(message, help));
            None
        }
    }
}

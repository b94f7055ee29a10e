//! `when` of a handshake and `require` of a scheme → [`Conditions`].

use http::Method;
use regex::bytes::Regex;

use super::context::{Checker, scalar, string};
use super::text::{Use, place};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::syntax::{Node, Pair};
use crate::verify::condition::{Condition, Conditions, Expected};
use crate::verify::text::{Part, Selector};

impl Checker {
    pub(super) fn conditions(&mut self, node: &Node) -> Option<Conditions> {
        let method =
            string(node, "method").and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let mut all = Vec::new();
        if let Some(media) = string(node, "content_type") {
            let expected = Expected::Equal(vec![Part::Literal(media.to_ascii_lowercase())]);
            all.push(Condition { at: Selector::ContentType, expected });
        }
        for (key, prefix) in
            [("header", "header."), ("query", "query."), ("form", "form."), ("json", "json:")]
        {
            for pair in node.get(key).and_then(Node::as_map).unwrap_or_default() {
                all.push(self.expectation(pair, prefix)?);
            }
        }
        Some(Conditions { method, all })
    }

    fn expectation(&mut self, pair: &Pair, prefix: &str) -> Option<Condition> {
        let Some(at) = place(&format!("{prefix}{}", pair.key.text)) else {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    pair.key_span,
                    format!("`{}` is no place in a request", pair.key.text),
                )
                .help("write a header's or a parameter's name, or for `json` a path to one value such as `$.type` or `$[0].type`"),
            );
            return None;
        };
        let expected = match (pair.value.as_bool(), pair.value.get("match")) {
            (Some(true), _) => Expected::Present,
            (Some(false), _) => Expected::Absent,
            (None, Some(pattern)) => Expected::Match(self.anchored(pattern)?),
            (None, None) => {
                let text = scalar(&pair.value)?;
                Expected::Equal(self.layout_of(&text, &pair.value, Use::Value)?)
            }
        };
        Some(Condition { at, expected })
    }

    /// An expression for a whole value.
    pub(super) fn anchored(&mut self, node: &Node) -> Option<Regex> {
        self.expression(node, Regex::new)
    }

    /// The same for a text.
    pub(super) fn anchored_text(&mut self, node: &Node) -> Option<regex::Regex> {
        self.expression(node, regex::Regex::new)
    }

    fn expression<R>(
        &mut self,
        node: &Node,
        compile: impl Fn(&str) -> Result<R, regex::Error>,
    ) -> Option<R> {
        let pattern = &node.as_text()?.text;
        match compile(&format!("^(?:{pattern})$")) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let message = format!("`{pattern}` is no regular expression: {error}");
                self.error(
                    Code::RegexSyntax,
                    node.span,
                    message,
                    "escape `.`, `(` or `[` by a `\\`",
                );
                None
            }
        }
    }
}

//! Templates and conditions: compiled at load, strict, native types, bounded. The only place that knows minijinja.
//!
//! A number that is only shown keeps the text that it came with: `19.90` stays `19.90` through a path, `if`/`else`,
//! `default`, `or`, `set`, a loop, `first`, `last`, `~`, `join` and the literals of lists and objects. Operators, tests
//! and all other filters compute: with exact integers of up to 128 bits, and with 64-bit floats, so `19.90 * 2` is
//! `39.8`. Sums of money are computed in whole numbers: `amount | minor_units(2)` is exact or an error, and `money(2)`
//! leads back.
//!
//! Texts spell values as JSON does, in `{{ }}`, `~` and `join` alike; `none` has no text. A header is found in any case
//! of its name, and one that came several times reads as its first; the extraction `{ header: NAME, all: true }` has
//! them all. A namespace keeps texts, numbers and booleans.

pub mod body;
pub mod context;
mod environment;
mod filters;
mod look;
mod lower;
pub mod names;
mod piece;
pub(crate) mod time;
pub mod url;
mod value;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use context::Context;
use names::{Fault, FaultKind, Names, Reads};
use piece::{Body, Compiled, Piece};

/// One compiled template. One whole `{{ expression }}` keeps the type of its value; anything else is text.
#[derive(Debug)]
pub struct Template {
    text: String,
    reads: Reads,
    body: Body,
}

impl Template {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let cut = piece::cut(text, names)?;
        let template = Self { text: text.to_owned(), reads: cut.reads, body: cut.body };
        template.refuse_raw_url()?;
        Ok(template)
    }

    fn refuse_raw_url(&self) -> Result<(), Vec<Fault>> {
        let Body::Pieces(pieces) = &self.body else { return Ok(()) };
        let faults: Vec<_> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Compiled(compiled) if compiled.raw_url => Some(Fault {
                    kind: FaultKind::Syntax,
                    message: "`raw_url` has a meaning in URLs alone".to_owned(),
                    range: compiled.range.clone(),
                    help: Some("leave it out: nothing is encoded here".to_owned()),
                }),
                Piece::Compiled(_) | Piece::Literal(_) => None,
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the secrets that it reads.
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.reads.secrets
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// `None`: left out by `optional`.
    pub fn render(&self, context: &Context) -> Result<Option<Json>, RenderError> {
        guarded(&self.reads, context, |context| match self.whole() {
            Some(compiled) => match compiled.eval(context)? {
                Json::Null if compiled.optional => Ok(None),
                json => Ok(Some(json)),
            },
            None => Ok(self.joined(context)?.map(Json::from)),
        })
    }

    /// The value as text, for headers, parameters and keys; `none` is an error.
    pub fn render_text(&self, context: &Context) -> Result<Option<String>, RenderError> {
        guarded(&self.reads, context, |context| match self.whole() {
            Some(compiled) => compiled.eval_text(context),
            None => self.joined(context),
        })
    }

    /// The text of a value that this template gave.
    pub(crate) fn text_of(&self, json: &Json) -> Result<String, RenderError> {
        value::text_of(json)
            .map_err(|message| RenderError { message, expression: self.text.clone() })
    }

    fn joined(&self, context: &Context) -> Result<Option<String>, RenderError> {
        match &self.body {
            Body::Blocks(blocks) => blocks.render(context).map(Some),
            Body::Pieces(pieces) => piece::join(pieces, context, |_, text, out| {
                out.push_str(&text);
                Ok(())
            }),
        }
    }

    fn whole(&self) -> Option<&Compiled> {
        let Body::Pieces(pieces) = &self.body else { return None };
        let mut whole = None;
        for piece in pieces {
            match piece {
                Piece::Literal(text) if text.trim().is_empty() => {}
                Piece::Literal(_) => return None,
                Piece::Compiled(_) if whole.is_some() => return None,
                Piece::Compiled(compiled) => whole = Some(compiled),
            }
        }
        whole
    }
}

/// `a == 1`, or one whole `{{ a == 1 }}`.
#[derive(Debug)]
pub struct Condition {
    text: String,
    reads: Reads,
    compiled: Compiled,
}

impl Condition {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let mut reads = Reads::default();
        let compiled = if text.contains("{{") || text.contains("{%") {
            let template = Template::compile(text, names)?;
            let whole = template.whole().is_some();
            reads = template.reads;
            let piece = match template.body {
                Body::Pieces(pieces) if whole => pieces.into_iter().find_map(|piece| match piece {
                    Piece::Compiled(compiled) => Some(compiled),
                    Piece::Literal(_) => None,
                }),
                Body::Pieces(_) | Body::Blocks(_) => None,
            };
            piece.ok_or_else(|| {
                vec![Fault {
                    kind: FaultKind::Syntax,
                    message: "a condition is one expression".to_owned(),
                    range: 0..text.len(),
                    help: Some("write `a == 1` or one whole `{{ a == 1 }}`".to_owned()),
                }]
            })?
        } else {
            piece::compile_bare(text, names, &mut reads)?
        };
        if compiled.optional || compiled.raw_url {
            return Err(vec![Fault {
                kind: FaultKind::Syntax,
                message: "a condition yields true or false; `optional` and `raw_url` do not"
                    .to_owned(),
                range: compiled.range,
                help: Some("compare: `fields.email is not none`, `fields.total > 100`".to_owned()),
            }]);
        }
        Ok(Self { text: text.to_owned(), reads, compiled })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// An error where the value is not a boolean.
    pub fn holds(&self, context: &Context) -> Result<bool, RenderError> {
        guarded(&self.reads, context, |context| match self.compiled.eval(context)? {
            Json::Bool(holds) => Ok(holds),
            other => {
                let found = shorten(&other.to_string());
                let message = format!("a condition must yield true or false, found {found}");
                Err(self.compiled.error(message))
            }
        })
    }
}

/// An error of an expression that reads secrets is told with the redacted values, so that no part of a secret, however
/// it was transformed, gets into a message.
fn guarded<T>(
    reads: &Reads,
    context: &Context,
    render: impl Fn(&Context) -> Result<T, RenderError>,
) -> Result<T, RenderError> {
    render(context).map_err(|error| {
        if reads.secrets.is_empty() || context.is_redacted() {
            let message = context.without_secrets(error.message);
            return RenderError { message, expression: error.expression };
        }
        match render(&context.redacted()) {
            Err(told) => told,
            Ok(_) => RenderError {
                message: "it fails with the values of its secrets, which are not shown".to_owned(),
                expression: error.expression,
            },
        }
    })
}

/// Permanent: the same values would fail again. Names the expression, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{expression}`")]
pub struct RenderError {
    pub message: String,
    pub expression: String,
}

/// What was found, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

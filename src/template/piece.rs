//! A template's text cut into literal pieces and compiled expressions. Here sizes and nesting are bounded, before any
//! recursive parser sees the text.

use std::ops::Range;

use minijinja::machinery::ast::{CallArg, Expr};
use minijinja::machinery::{Token, parse, parse_expr, tokenize};
use minijinja::{Environment, Expression, Value};
use serde_json::Value as Json;

use super::RenderError;
use super::context::Context;
use super::environment::{ENVIRONMENT, syntax};
use super::look::{Looker, plain_path};
use super::lower;
use super::names::{Fault, FaultKind, Names, Reads};
use super::value::{OUTPUT_BYTES_MAX, PathKey, short, text_of, to_json};

const TEXT_BYTES_MAX: usize = 16 << 10;
/// Tokens of one `{{ }}` or `{% %}`: bounds how deep an expression can nest.
const TOKENS_MAX: usize = 400;
const BLOCKS_MAX: usize = 200;

#[derive(Debug)]
pub(super) enum Piece {
    Literal(String),
    Compiled(Compiled),
}

/// One compiled expression.
pub(super) struct Compiled {
    /// As written, trimmed.
    pub(super) text: String,
    /// In the bytes of the template.
    pub(super) range: Range<usize>,
    how: How,
    pub(super) optional: bool,
    pub(super) raw_url: bool,
}

enum How {
    /// Data and names alone, with a default at most: needs no engine, keeps numbers exact.
    Path {
        root: String,
        keys: Vec<PathKey>,
        default: Option<Value>,
    },
    Engine(Expression<'static, 'static>),
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

impl Compiled {
    pub(super) fn eval(&self, context: &Context) -> Result<Json, RenderError> {
        let value = match &self.how {
            How::Path { root, keys, default } => {
                let found = context.lookup(root, keys);
                found.map(|value| match default {
                    Some(other) if value.is_none() => other.clone(),
                    _ => value,
                })
            }
            How::Engine(expression) => {
                expression.eval(context.value()).map_err(|error| short(&error))
            }
        };
        value.and_then(|value| to_json(&value)).map_err(|message| self.error(message))
    }

    /// `None`: left out.
    pub(super) fn eval_text(&self, context: &Context) -> Result<Option<String>, RenderError> {
        match self.eval(context)? {
            Json::Null if self.optional => Ok(None),
            json => text_of(&json).map(Some).map_err(|message| self.error(message)),
        }
    }

    pub(super) fn error(&self, message: String) -> RenderError {
        RenderError { message, expression: self.text.clone() }
    }
}

pub(super) struct Blocks {
    environment: Environment<'static>,
    pub(super) text: String,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

const BLOCKS_NAME: &str = "template";

impl Blocks {
    pub(super) fn render(&self, context: &Context) -> Result<String, RenderError> {
        let fail = |message: String| RenderError { message, expression: self.text.clone() };
        let mut out = Bounded(Vec::new());
        let template =
            self.environment.get_template(BLOCKS_NAME).map_err(|error| fail(short(&error)))?;
        template.render_captured_to(context.value(), &mut out).map_err(|error| {
            let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
            fail(format!("{}{line}", short(&error)))
        })?;
        String::from_utf8(out.0).map_err(|_| fail("the text is not UTF-8".to_owned()))
    }
}

struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(std::io::Error::other("the text is too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub(super) enum Body {
    Pieces(Vec<Piece>),
    /// With `{% %}`: always text.
    Blocks(Box<Blocks>),
}

pub(super) struct Cut {
    pub(super) body: Body,
    pub(super) reads: Reads,
}

fn syntax_fault(message: impl Into<String>, range: Range<usize>) -> Fault {
    Fault { kind: FaultKind::Syntax, message: message.into(), range, help: None }
}

fn engine_fault(error: &minijinja::Error, offset: usize, whole: Range<usize>) -> Fault {
    let range = match error.range() {
        Some(range) => range.start + offset..range.end + offset,
        None => whole,
    };
    syntax_fault(short(error), range)
}

pub(super) fn cut(text: &str, names: &Names) -> Result<Cut, Vec<Fault>> {
    let whole = 0..text.len();
    if text.len() > TEXT_BYTES_MAX {
        let message =
            format!("the template has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(vec![syntax_fault(message, whole)]);
    }
    let mut pieces = Vec::new();
    let mut open = None;
    let mut tokens = 0;
    let mut blocks = 0;
    let mut ranges = Vec::new();
    for token in tokenize(text, false, syntax()) {
        let (token, span) = token.map_err(|error| vec![engine_fault(&error, 0, whole.clone())])?;
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        match token {
            Token::TemplateData(literal) => pieces.push(Err(literal.to_owned())),
            Token::VariableStart => {
                open = Some(end);
                tokens = 0;
            }
            Token::VariableEnd => {
                if let Some(from) = open.take() {
                    ranges.push(from..start);
                    pieces.push(Ok(from..start));
                }
            }
            Token::BlockStart => {
                blocks += 1;
                tokens = 0;
                open = Some(start);
            }
            Token::BlockEnd => open = None,
            _ => {
                tokens += 1;
                if tokens > TOKENS_MAX {
                    let message = format!("the expression has more than {TOKENS_MAX} parts");
                    return Err(vec![syntax_fault(message, start..end)]);
                }
            }
        }
    }
    if let Some(from) = open {
        return Err(vec![syntax_fault("`{{` is not closed", from.saturating_sub(2)..text.len())]);
    }
    if blocks > BLOCKS_MAX {
        let message = format!("the template has more than {BLOCKS_MAX} `{{% %}}`");
        return Err(vec![syntax_fault(message, whole)]);
    }
    if blocks > 0 {
        return cut_blocks(text, names);
    }
    let mut faults = Vec::new();
    let mut reads = Reads::default();
    let mut done = Vec::new();
    for piece in pieces {
        match piece {
            Err(literal) => done.push(Piece::Literal(literal)),
            Ok(range) => match compile(text, range, names, &mut reads) {
                Ok(compiled) => done.push(Piece::Compiled(compiled)),
                Err(more) => faults.extend(more),
            },
        }
    }
    if faults.is_empty() { Ok(Cut { body: Body::Pieces(done), reads }) } else { Err(faults) }
}

/// A condition without braces, or the inside of `{{ }}`.
pub(super) fn compile_bare(
    text: &str,
    names: &Names,
    reads: &mut Reads,
) -> Result<Compiled, Vec<Fault>> {
    let whole = 0..text.len();
    if text.len() > TEXT_BYTES_MAX {
        return Err(vec![syntax_fault("the expression is larger than 16 KiB", whole)]);
    }
    for (count, token) in tokenize(text, true, syntax()).enumerate() {
        let (_, span) = token.map_err(|error| vec![engine_fault(&error, 0, whole.clone())])?;
        if count >= TOKENS_MAX {
            let message = format!("the expression has more than {TOKENS_MAX} parts");
            let range = span.start_offset as usize..span.end_offset as usize;
            return Err(vec![syntax_fault(message, range)]);
        }
    }
    compile(text, whole, names, reads)
}

fn compile(
    text: &str,
    range: Range<usize>,
    names: &Names,
    reads: &mut Reads,
) -> Result<Compiled, Vec<Fault>> {
    let inner = text.get(range.clone()).unwrap_or_default();
    let lead = inner.len() - inner.trim_start().len();
    let inner = inner.trim();
    let offset = range.start + lead;
    let range = offset..offset + inner.len();
    let expr =
        parse_expr(inner).map_err(|error| vec![engine_fault(&error, offset, range.clone())])?;
    let mut looker = Looker::new(names);
    looker.whole(&expr);
    let mut found = looker.found;
    for fault in &mut found.faults {
        fault.range = fault.range.start + offset..fault.range.end + offset;
    }
    if !found.faults.is_empty() {
        return Err(found.faults);
    }
    merge(reads, found.reads);

    let (mut optional, mut raw_url) = (false, false);
    let mut value = &expr;
    while let Expr::Filter(filter) = value
        && let Some(inner) = &filter.expr
    {
        match filter.name {
            "optional" => optional = true,
            "raw_url" => raw_url = true,
            _ => break,
        }
        value = inner;
    }
    let how = match plain(value) {
        Some(path) => path,
        None => {
            let expression = ENVIRONMENT
                .compile_expression_owned(lower::expression(&expr))
                .map_err(|error| vec![syntax_fault(short(&error), range.clone())])?;
            How::Engine(expression)
        }
    };
    Ok(Compiled { text: inner.to_owned(), range, how, optional, raw_url })
}

/// A path through data and names, or one with a constant default.
fn plain(expr: &Expr<'_>) -> Option<How> {
    if let Some((root, keys)) = plain_path(expr) {
        return Some(How::Path { root, keys, default: None });
    }
    let Expr::Filter(filter) = expr else { return None };
    let (root, keys) = plain_path(filter.expr.as_ref()?)?;
    match (filter.name, filter.args.as_slice()) {
        ("default" | "d", [CallArg::Pos(Expr::Const(other))]) => {
            Some(How::Path { root, keys, default: Some(other.value.clone()) })
        }
        _ => None,
    }
}

fn cut_blocks(text: &str, names: &Names) -> Result<Cut, Vec<Fault>> {
    let whole = 0..text.len();
    let tree = parse(text, BLOCKS_NAME, syntax())
        .map_err(|error| vec![engine_fault(&error, 0, whole.clone())])?;
    let mut looker = Looker::new(names);
    looker.stmt(&tree);
    let found = looker.found;
    if !found.faults.is_empty() {
        return Err(found.faults);
    }
    let mut environment = ENVIRONMENT.clone();
    environment
        .add_template_owned(BLOCKS_NAME, lower::template(&tree))
        .map_err(|error| vec![syntax_fault(short(&error), whole)])?;
    let blocks = Blocks { environment, text: text.to_owned() };
    Ok(Cut { body: Body::Blocks(Box::new(blocks)), reads: found.reads })
}

fn merge(reads: &mut Reads, more: Reads) {
    reads.roots.extend(more.roots);
    reads.fields.extend(more.fields);
    reads.steps.extend(more.steps);
    reads.secrets.extend(more.secrets);
    reads.env.extend(more.env);
}

/// The text of all pieces. `None`: one of them is left out, and so the whole.
pub(super) fn join(
    pieces: &[Piece],
    context: &Context,
    mut each: impl FnMut(&Compiled, String, &mut String) -> Result<(), RenderError>,
) -> Result<Option<String>, RenderError> {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Compiled(compiled) => {
                let Some(text) = compiled.eval_text(context)? else { return Ok(None) };
                each(compiled, text, &mut out)?;
                if out.len() > OUTPUT_BYTES_MAX {
                    return Err(compiled.error("the text is too large".to_owned()));
                }
            }
        }
    }
    Ok(Some(out))
}

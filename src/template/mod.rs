//! Templates and conditions: compiled at load, strict, native types, bounded. The only place that knows minijinja.

pub mod body;
pub mod context;
pub mod names;
pub mod url;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use context::Context;
use names::{Fault, Names, Reads};

/// One compiled template. One whole `{{ expression }}` keeps the type of its value; anything else is text.
#[derive(Debug)]
pub struct Template;

impl Template {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let _ = (text, names);
        todo!()
    }

    pub fn text(&self) -> &str {
        todo!()
    }

    /// Names of the secrets that it reads.
    pub fn secrets(&self) -> &BTreeSet<String> {
        todo!()
    }

    pub fn reads(&self) -> &Reads {
        todo!()
    }

    /// `None`: left out by `optional`.
    pub fn render(&self, context: &Context) -> Result<Option<Json>, RenderError> {
        let _ = context;
        todo!()
    }

    /// The value as text, for headers, parameters and keys; `none` is an error.
    pub fn render_text(&self, context: &Context) -> Result<Option<String>, RenderError> {
        let _ = context;
        todo!()
    }
}

/// `a == 1`, or one whole `{{ a == 1 }}`.
#[derive(Debug)]
pub struct Condition;

impl Condition {
    pub fn compile(text: &str, names: &Names) -> Result<Self, Vec<Fault>> {
        let _ = (text, names);
        todo!()
    }

    pub fn text(&self) -> &str {
        todo!()
    }

    pub fn reads(&self) -> &Reads {
        todo!()
    }

    /// An error where the value is not a boolean.
    pub fn holds(&self, context: &Context) -> Result<bool, RenderError> {
        let _ = context;
        todo!()
    }
}

/// Permanent: the same values would fail again. Names the expression, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{expression}`")]
pub struct RenderError {
    pub message: String,
    pub expression: String,
}

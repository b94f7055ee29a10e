//! URLs: every `{{ }}` is percent-encoded as one segment or value.

use super::RenderError;
use super::context::Context;
use super::names::{Fault, Names, Reads};

/// A whole URL, or a path for a destination.
#[derive(Debug)]
pub struct UrlTemplate;

impl UrlTemplate {
    /// The template and its warnings, or its faults.
    pub fn compile(text: &str, names: &Names) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let _ = (text, names);
        todo!()
    }

    pub fn text(&self) -> &str {
        todo!()
    }

    pub fn reads(&self) -> &Reads {
        todo!()
    }

    /// The text before the first expression.
    pub fn literal_start(&self) -> &str {
        todo!()
    }

    pub fn render(&self, context: &Context) -> Result<String, RenderError> {
        let _ = context;
        todo!()
    }
}

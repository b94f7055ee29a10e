//! Bodies: JSON trees, forms, texts, or the event's own body.

use serde_json::Value as Json;

use super::context::Context;
use super::{RenderError, Template};

#[derive(Debug)]
pub enum BodyTemplate {
    None,
    Json(JsonTemplate),
    /// A list repeats its parameter.
    Form(Vec<(String, Template)>),
    Text(Template),
    /// The event's body as it came.
    Raw,
}

/// A JSON tree whose texts are templates.
#[derive(Debug)]
pub enum JsonTemplate {
    Literal(Json),
    Template(Template),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    /// `None`: left out by `optional`.
    pub fn render(&self, context: &Context) -> Result<Option<Json>, RenderError> {
        let _ = context;
        todo!()
    }
}

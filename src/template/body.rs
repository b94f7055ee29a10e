//! Bodies: JSON trees, forms, texts, or the event's own body.

use serde_json::{Map, Value as Json};

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

impl BodyTemplate {
    /// Every template in it.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            BodyTemplate::None | BodyTemplate::Raw => Vec::new(),
            BodyTemplate::Json(json) => json.templates(),
            BodyTemplate::Form(entries) => entries.iter().map(|(_, template)| template).collect(),
            BodyTemplate::Text(template) => vec![template],
        }
    }
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
        match self {
            JsonTemplate::Literal(json) => Ok(Some(json.clone())),
            JsonTemplate::Template(template) => template.render(context),
            JsonTemplate::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for item in items {
                    out.extend(item.render(context)?);
                }
                Ok(Some(Json::Array(out)))
            }
            JsonTemplate::Object(members) => {
                let mut out = Map::with_capacity(members.len());
                for (key, member) in members {
                    if let Some(value) = member.render(context)? {
                        out.insert(key.clone(), value);
                    }
                }
                Ok(Some(Json::Object(out)))
            }
        }
    }

    pub fn templates(&self) -> Vec<&Template> {
        match self {
            JsonTemplate::Literal(_) => Vec::new(),
            JsonTemplate::Template(template) => vec![template],
            JsonTemplate::List(items) => items.iter().flat_map(JsonTemplate::templates).collect(),
            JsonTemplate::Object(members) => {
                members.iter().flat_map(|(_, member)| member.templates()).collect()
            }
        }
    }
}

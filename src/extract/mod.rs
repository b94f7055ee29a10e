//! Extractions: JSONPath, header, query, … → typed values, as the route language words them. Pure.

pub mod jsonpath;
pub mod types;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::template::Template;
use crate::template::context::Context;
use jsonpath::JsonPath;
use types::Type;

/// One extraction, checked and compiled.
#[derive(Debug)]
pub struct Extraction {
    pub from: From,
    pub type_: Option<Type>,
    pub required: bool,
    pub default: Option<Json>,
    pub one_of: Option<Vec<Json>>,
    pub pattern: Option<Pattern>,
    pub map: Option<BTreeMap<String, Json>>,
    /// Maps every element; implies `all`.
    pub each: Option<Vec<(String, Extraction)>>,
    /// Every hit, as a list; without it the first.
    pub all: bool,
    /// strftime format, `unix` or `unix_ms`, of a `timestamp`.
    pub format: Option<String>,
    /// Zone of a `timestamp` that names none; UTC without it.
    pub zone: Option<jiff::tz::TimeZone>,
}

impl Extraction {
    /// The value at `from` as it is.
    pub fn plain(from: From) -> Self {
        Self {
            from,
            type_: None,
            required: false,
            default: None,
            one_of: None,
            pattern: None,
            map: None,
            each: None,
            all: false,
            format: None,
            zone: None,
        }
    }

    pub fn apply(&self, input: &Input<'_>) -> Result<Option<Json>, ExtractFault> {
        let _ = input;
        todo!()
    }
}

#[derive(Debug)]
pub enum From {
    Path(JsonPath),
    Header(String),
    Query(String),
    Form(String),
    PathPart(String),
    Value(Template),
}

/// `match`: an anchored regex; with one capture group the group is the value.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub regex: regex::Regex,
    pub text: String,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        todo!()
    }
}

/// What extractions read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub payload: &'a Json,
    pub envelope_headers: &'a [(String, String)],
    pub query: &'a [(String, String)],
    pub path: &'a [(String, String)],
    pub form: Option<&'a Json>,
    pub context: &'a Context,
}

/// Why an extraction did not yield: for review, never retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExtractFault {
    /// `missing_field`, `wrong_type`, `not_one_of`, `no_match`, `missing_mapping`, `template`
    pub cause: &'static str,
    /// Where it looked: `$.customer.email`, `header X-Topic`.
    pub path: String,
    pub message: String,
}

/// A fault with its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {fault}")]
pub struct FieldFault {
    pub field: String,
    pub fault: ExtractFault,
}

/// The route's fields for one event; an absent one is `null`.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    pub fields: Map<String, Json>,
}

pub fn map_fields(
    fields: &[(String, Extraction)],
    input: &Input<'_>,
) -> Result<Mapped, FieldFault> {
    let _ = (fields, input);
    todo!()
}

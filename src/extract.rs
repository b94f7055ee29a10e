//! Extractions: JSONPath, header, query, … → typed values, as the route language words them. Pure.

use crate::template::Template;

/// A compiled JSONPath (RFC 9535).
#[derive(Clone, Debug)]
pub struct JsonPath {
    pub text: String,
}

#[derive(Debug)]
pub struct Extraction {
    pub from: From,
}

#[derive(Debug)]
pub enum From {
    Path(JsonPath),
    Value(Template),
}

/// The route's fields for one event.
#[derive(Clone, Debug)]
pub struct Mapped {
    pub fields: serde_json::Map<String, serde_json::Value>,
}

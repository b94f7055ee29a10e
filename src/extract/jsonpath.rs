//! JSONPath (RFC 9535), parsed at load and bounded. The only place that knows jsonpath-rust.

use std::ops::Range;

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use serde_json::Value as Json;

/// A compiled JSONPath.
#[derive(Clone, Debug)]
pub struct JsonPath {
    pub text: String,
    query: JpQuery,
    /// Where it may hit more than one value: `[*]`, a slice, a filter, several selectors or `..`.
    many: bool,
}

/// What is wrong with a JSONPath, in bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFault {
    pub message: String,
    pub range: Range<usize>,
}

impl JsonPath {
    /// The path and its warnings.
    pub fn parse(text: &str) -> Result<(Self, Vec<PathFault>), PathFault> {
        let _ = text;
        todo!()
    }

    pub fn hits<'a>(&self, payload: &'a Json) -> Vec<&'a Json> {
        let _ = (&self.query, payload);
        todo!()
    }

    pub fn may_hit_many(&self) -> bool {
        self.many
    }
}

fn _many(segment: &Segment) -> bool {
    matches!(segment, Segment::Selector(Selector::Wildcard))
}

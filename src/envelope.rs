//! The kept form of a notification, as plain data. `ingress` makes one, and only from a `Verified`.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use crate::name::{CorrelationId, EventId, SourceName, Uid};

/// One verified notification as it is stored. Headers, query and body are what the sender sent, less credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    pub uid: Uid,
    pub event_id: EventId,
    /// `""` where the source names no type or the payload has none.
    pub event_type: String,
    pub source: SourceName,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub correlation_id: CorrelationId,
    pub method: String,
    /// The `{name}` parts of the source's path, in order of appearance.
    pub path: Vec<(String, String)>,
    /// Decoded query parameters in order. A parameter that carried a credential has the value `[redacted]`.
    pub query: Vec<(String, String)>,
    /// Header names in lower case, in order of arrival. A header that carried a credential has the value `[redacted]`.
    pub headers: Vec<(String, String)>,
    /// How `body` is to be read.
    pub body_kind: BodyKind,
    /// The raw bytes as they came.
    pub body: Bytes,
    /// Why the payload, id or time could not be read, for a person. Such an event is in review and has no deliveries.
    pub malformed: Option<String>,
}

/// How the raw body becomes the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    Json,
    /// An object name → text, a list where a name is repeated.
    Form,
    /// UTF-8 text: the payload is a string.
    Text,
    /// The payload is `null`; only `raw: true` can forward the body.
    Binary,
}

impl BodyKind {
    /// The payload in `body`, or why it cannot be read, for a person.
    pub fn payload(self, body: &[u8]) -> Result<Json, String> {
        match self {
            BodyKind::Json => serde_json::from_slice(body)
                .map_err(|error| format!("the body is not valid JSON: {error}")),
            BodyKind::Form => Ok(form(body)),
            BodyKind::Text => match std::str::from_utf8(body) {
                Ok(text) => Ok(Json::String(text.to_owned())),
                Err(error) => Err(format!("the body is not UTF-8 text: {error}")),
            },
            BodyKind::Binary => Ok(Json::Null),
        }
    }
}

fn form(body: &[u8]) -> Json {
    let mut names: Map<String, Json> = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        let value = Json::String(value.into_owned());
        match names.get_mut(&*name) {
            None => {
                names.insert(name.into_owned(), value);
            }
            Some(Json::Array(values)) => values.push(value),
            Some(first) => *first = Json::Array(vec![first.take(), value]),
        }
    }
    Json::Object(names)
}

/// One identity of an event within its source and path parts: what makes a second arrival a duplicate.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Identity {
    /// The event id. Under `on_conflict: new_event` a second body adds its digest (hex) and so is an event of its own.
    Id { id: String, body: Option<String> },
    /// A further identity of `event.same_as`.
    SameAs(String),
}

/// What a second, really different body under a known id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Keep the body, count it, show it.
    Review,
    /// Count it.
    Ignore,
    /// Take it in as an event of its own: identity id + body digest.
    NewEvent,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: BodyKind, body: &[u8], expected: Option<Json>) {
        assert_eq!(kind.payload(body).ok(), expected);
    }

    #[test]
    fn bodies_become_payloads() {
        check(BodyKind::Json, br#"{"a": 1.10}"#, serde_json::from_str(r#"{"a": 1.10}"#).ok());
        check(BodyKind::Json, b"", None);
        check(BodyKind::Json, b"{\"a\": 1} x", None);
        check(
            BodyKind::Form,
            b"a=1&b=x+y&a=2&a=3",
            Some(json!({"a": ["1", "2", "3"], "b": "x y"})),
        );
        check(BodyKind::Form, b"", Some(json!({})));
        check(BodyKind::Text, "grüß".as_bytes(), Some(json!("grüß")));
        check(BodyKind::Text, &[0xff], None);
        check(BodyKind::Binary, &[0xff], Some(Json::Null));
    }
}

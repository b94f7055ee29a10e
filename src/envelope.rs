//! The kept form of a notification, as plain data. `ingress` makes one, and only from a `Verified`.

use bytes::Bytes;
use jiff::Timestamp;

use crate::body::BodyKind;
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

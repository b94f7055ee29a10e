//! Log lines, one function per kind. Each line of an event has the same fields under the API's names. What a sender wrote
//! is escaped and cut, so it can neither forge a line nor flood one.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::envelope::Envelope;
use crate::name::{CorrelationId, EventId, RouteName, SourceName, Uid};

/// Longer values are cut here.
const FIELD_CHARS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

/// Sends log lines to stderr from now on: level `info`, unless `RUST_LOG` says otherwise. A second call changes nothing.
pub fn init(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        Format::Human => {
            lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
        }
        Format::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // The only error is that a subscriber is installed already.
    drop(installed);
}

/// A change of a delivery's status.
#[derive(Clone, Copy, Debug)]
pub struct StatusLine<'a> {
    pub event_id: &'a EventId,
    pub event_type: &'a str,
    pub route: &'a RouteName,
    /// The status from now on.
    pub status: &'static str,
    /// Attempts of the step that made the change, or of the delivery.
    pub attempt: u32,
    /// What made the change: an outcome, or the reason.
    pub result: &'a str,
    pub correlation_id: &'a CorrelationId,
}

/// One line per change of a delivery's status. A delivery that goes to review is a warning.
pub fn status(line: StatusLine<'_>) {
    let StatusLine { event_id, event_type, route, status, attempt, result, correlation_id } = line;
    macro_rules! write_line {
        ($level:ident) => {
            tracing::$level!(
                eventId = &*field(event_id.as_str()),
                eventType = &*field(event_type),
                route = &*field(route.as_str()),
                status,
                attempt,
                result = &*field(result),
                correlationId = &*field(correlation_id.as_str()),
                "delivery {status}"
            )
        };
    }
    if status == "failed" { write_line!(warn) } else { write_line!(info) }
}

/// An event was made durable; `routes` take it.
pub fn accepted(envelope: &Envelope, routes: &[RouteName]) {
    let status = match routes {
        _ if envelope.malformed.is_some() => "malformed",
        [] => "unrouted",
        _ => "queued",
    };
    let routes: Vec<&str> = routes.iter().map(RouteName::as_str).collect();
    received(envelope, &routes.join(","), status, "accepted");
}

/// An event was known already: nothing changes.
pub fn duplicate(envelope: &Envelope) {
    received(envelope, "", "", "duplicate");
}

/// A provider's challenge was answered.
pub fn handshake(source: &SourceName) {
    tracing::info!(source = &*field(source.as_str()), result = "handshake", "challenge answered");
}

/// Keys of a provider could not be had; requests that need them are answered 503.
pub fn keys_not_fetched(place: &str, why: &str) {
    tracing::warn!(
        result = "keys_not_fetched",
        place = &*field(place),
        reason = &*field(why),
        "a provider's keys could not be fetched"
    );
}

/// A handshake brought a secret, which is kept. Its fingerprint is no secret.
pub fn secret_captured(source: &SourceName, id: Uid, fingerprint: &str, armed_by: &str) {
    tracing::info!(
        source = &*field(source.as_str()),
        result = "secret_captured",
        secretId = %id,
        fingerprint,
        armedBy = &*field(armed_by),
        "secret captured; the source is disarmed"
    );
}

/// An operator acted on a source.
pub fn source_operated(source: &SourceName, actor: &str, action: &str, detail: &str) {
    tracing::info!(
        source = &*field(source.as_str()),
        actor = &*field(actor),
        action = &*field(action),
        detail = &*field(detail),
        "operator action"
    );
}

fn received(envelope: &Envelope, route: &str, status: &'static str, result: &'static str) {
    tracing::info!(
        eventId = &*field(envelope.event_id.as_str()),
        eventType = &*field(&envelope.event_type),
        source = &*field(envelope.source.as_str()),
        route = &*field(route),
        status,
        attempt = 0,
        result,
        correlationId = &*field(envelope.correlation_id.as_str()),
        "event {result}"
    );
}

/// A known event id came with another body.
pub fn conflict(envelope: &Envelope) {
    tracing::warn!(
        eventId = &*field(envelope.event_id.as_str()),
        eventType = &*field(&envelope.event_type),
        source = &*field(envelope.source.as_str()),
        result = "conflict",
        correlationId = &*field(envelope.correlation_id.as_str()),
        "event conflict"
    );
}

/// A request was taken and held no event under `event.split`.
pub fn empty_batch(source: &SourceName) {
    tracing::info!(
        source = &*field(source.as_str()),
        result = "empty_batch",
        "request without events"
    );
}

/// A request was refused before anything was stored. `source` is `None` where the path is unknown.
pub fn rejected(source: Option<&SourceName>, reason: &'static str, detail: &str) {
    tracing::warn!(
        source = &*field(source.map_or("", SourceName::as_str)),
        result = "rejected",
        reason,
        detail = &*field(detail),
        "request rejected"
    );
}

/// An operator acted on an event.
pub fn operated(
    event_id: &EventId,
    route: &RouteName,
    actor: &str,
    action: &str,
    status: &'static str,
) {
    tracing::info!(
        eventId = &*field(event_id.as_str()),
        route = &*field(route.as_str()),
        status,
        actor = &*field(actor),
        action = &*field(action),
        "operator action"
    );
}

/// `text` on one line: control characters and invisible direction marks as `\u{..}`, at most so many characters.
pub fn field(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && !is_direction_mark(c);
    // A character has at least one byte, so few bytes are few characters.
    if text.len() <= FIELD_CHARS_MAX && text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(FIELD_CHARS_MAX) {
        if harmless(c) {
            shown.push(c);
        } else {
            write!(shown, "{}", c.escape_unicode()).expect("writing to a String does not fail");
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// Characters that reorder or break what a terminal shows.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_on_one_line() {
        fn check(text: &str, expected: &str) {
            assert_eq!(field(text), expected);
        }
        check("evt_1", "evt_1");
        check("grün", "grün");
        check("a\n2026 INFO forged", "a\\u{a}2026 INFO forged");
        check("\u{1b}[2J", "\\u{1b}[2J");
        check("\u{202e}abc", "\\u{202e}abc");
        check(&"x".repeat(256), &"x".repeat(256));
        check(&"ü".repeat(257), &format!("{}…", "ü".repeat(256)));
    }

    #[test]
    fn a_status_line_has_the_agreed_fields() {
        #[derive(Clone, Default)]
        struct Buffer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            status(StatusLine {
                event_id: &"evt\n1".into(),
                event_type: "order.paid",
                route: &"orders".into(),
                status: "failed",
                attempt: 3,
                result: "status_422",
                correlation_id: &"c-1".into(),
            });
        });
        let bytes = buffer.0.lock().unwrap().clone();
        let mut line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        line.as_object_mut().unwrap().remove("timestamp");
        let expected = serde_json::json!({
            "level": "WARN", "message": "delivery failed", "eventId": "evt\\u{a}1",
            "eventType": "order.paid", "route": "orders", "status": "failed", "attempt": 3,
            "result": "status_422", "correlationId": "c-1", "target": "router::telemetry::log",
        });
        assert_eq!(line, expected);
    }
}

//! Events as the API shows them. Stored views enter, JSON in camelCase leaves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::delivery::state::{Attempt, DeliveryState, Entry, Reason, Status, StepState, What};
use crate::store::{CauseCount, DeliveryView, EventStatus, EventSummary, EventView};

/// One event with everything that happened to it.
pub(super) fn event(view: &EventView) -> Json {
    let envelope = &view.envelope;
    let attempts: u32 = view.deliveries.iter().map(|delivery| delivery.state.attempts()).sum();
    let conflicting: Vec<Json> = view
        .conflicts
        .iter()
        .map(|conflict| {
            json!({
                "number": conflict.number,
                "receivedAt": conflict.received_at.to_string(),
                "body": body(&conflict.body),
            })
        })
        .collect();
    json!({
        "eventId": envelope.event_id,
        "eventType": envelope.event_type,
        "source": envelope.source,
        "occurredAt": time(envelope.occurred_at),
        "receivedAt": envelope.received_at.to_string(),
        "correlationId": envelope.correlation_id,
        "uid": envelope.uid,
        // A malformed body has no payload; `body` shows what came.
        "payload": envelope.body_kind.payload(&envelope.body).unwrap_or(Json::Null),
        "processing": { "status": status(view), "attempts": attempts },
        "duplicates": view.duplicates,
        "conflicts": view.conflict_count,
        "deliveries": view.deliveries.iter().map(delivery).collect::<Vec<_>>(),
        "malformed": envelope.malformed,
        "method": envelope.method,
        "path": pairs(&envelope.path),
        "query": pairs(&envelope.query),
        "headers": pairs(&envelope.headers),
        "body": body(&envelope.body),
        "bodyKind": envelope.body_kind,
        "conflictingBodies": conflicting,
    })
}

/// One row of a list.
pub(super) fn row(event: &EventSummary) -> Json {
    let deliveries: Vec<Json> = event
        .deliveries
        .iter()
        .map(|(route, status, cause)| json!({ "route": route, "status": status, "cause": cause }))
        .collect();
    json!({
        "eventId": event.event_id,
        "eventType": event.event_type,
        "source": event.source,
        "receivedAt": event.received_at.to_string(),
        "uid": event.uid,
        "processing": { "status": event.status.to_string(), "attempts": event.attempts },
        "deliveries": deliveries,
    })
}

pub(super) fn cause(cause: &CauseCount) -> Json {
    json!({ "route": cause.route, "cause": cause.cause, "count": cause.count })
}

/// Every status that a list can be filtered by.
pub(super) const STATUSES: [EventStatus; 7] = [
    EventStatus::Delivery(Status::Queued),
    EventStatus::Delivery(Status::Processing),
    EventStatus::Delivery(Status::Succeeded),
    EventStatus::Delivery(Status::Failed),
    EventStatus::Delivery(Status::Ignored),
    EventStatus::Unrouted,
    EventStatus::Malformed,
];

fn status(view: &EventView) -> &'static str {
    if view.envelope.malformed.is_some() {
        return Status::Failed.as_str();
    }
    [Status::Failed, Status::Processing, Status::Queued, Status::Succeeded, Status::Ignored]
        .into_iter()
        .find(|status| view.deliveries.iter().any(|delivery| delivery.state.status == *status))
        .map_or("unrouted", Status::as_str)
}

fn delivery(view: &DeliveryView) -> Json {
    let DeliveryState { id, revision, status, version, due_at, reason, steps, .. } = &view.state;
    json!({
        "id": id.to_string(),
        "route": id.route,
        "revision": revision,
        "status": status,
        "version": version,
        "attempts": view.state.attempts(),
        "dueAt": time(*due_at),
        "reason": reason.as_ref().map(self::reason),
        "steps": steps.iter().map(|state| step(state, &view.entries)).collect::<Vec<_>>(),
        "journal": view.entries.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn reason(reason: &Reason) -> Json {
    json!({ "cause": reason.cause, "subject": reason.subject, "message": reason.message })
}

fn step(state: &StepState, entries: &[Entry]) -> Json {
    // What the newest attempt sends or sent.
    let request = entries.iter().rev().find_map(|entry| match &entry.what {
        What::Intended { step, request, .. } if *step == state.step => Some(request),
        _ => None,
    });
    let attempts: Vec<Json> = entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Attempted { step, attempt } if *step == state.step => {
                Some(self::attempt(attempt))
            }
            What::Intended { .. }
            | What::Attempted { .. }
            | What::StepDecided { .. }
            | What::Decided { .. }
            | What::Operated { .. } => None,
        })
        .collect();
    json!({
        "name": state.step,
        "element": state.element,
        "status": state.status,
        "idempotencyKey": state.key.as_ref().map(|key| &key.text),
        "generation": state.generation,
        "request": request,
        "saved": state.saved,
        "reason": state.reason,
        "dueAt": time(state.due_at),
        "waitsFor": state.waits_for.as_ref().map(|claim| &claim.key),
        "attempts": attempts,
    })
}

fn attempt(attempt: &Attempt) -> Json {
    json!({
        "number": attempt.number,
        "at": attempt.started_at.to_string(),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "durationMs": attempt.duration_ms,
        "result": attempt.result,
        "detail": attempt.detail,
        "next": time(attempt.next),
    })
}

fn entry(entry: &Entry) -> Json {
    let at = entry.at.to_string();
    match &entry.what {
        What::Intended { step, attempt, key, request, digest } => json!({
            "at": at, "what": "intended", "step": step, "attempt": attempt,
            "idempotencyKey": key.as_ref().map(|key| &key.text), "request": request,
            "digest": digest,
        }),
        What::Attempted { step, attempt } => json!({
            "at": at, "what": "attempted", "step": step, "attempt": attempt.number,
            "outcome": attempt.outcome, "status": attempt.status, "result": attempt.result,
            "next": time(attempt.next),
        }),
        What::StepDecided { step, status, why } => json!({
            "at": at, "what": "step_decided", "step": step, "status": status, "why": why,
        }),
        What::Decided { why } => json!({ "at": at, "what": "decided", "why": why }),
        What::Operated { actor, action, note } => json!({
            "at": at, "what": "operated", "actor": actor, "action": action, "note": note,
        }),
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

pub(super) fn pairs(pairs: &[(String, String)]) -> Vec<Json> {
    pairs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// As text where it is text, else as base64.
fn body(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "bytes": bytes.len(), "text": text }),
        Err(_) => json!({ "bytes": bytes.len(), "base64": STANDARD.encode(bytes) }),
    }
}

//! Route + fields → the request as it will leave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::Value as Json;
use url::Url;

use crate::config::{Destination, Resolved, Route, Step};
use crate::delivery::state::IdempotencyKey;
use crate::envelope::Envelope;
use crate::name::{Lane, RouteName, StepName};
use crate::template::RenderError;
use crate::template::context::Context;

/// A request as it will leave, secrets in it, and its redacted likeness. The destination's `auth` is not in it: `call`
/// adds it.
pub struct OutgoingRequest {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The same with secrets as `[secret NAME]`.
    pub shown: Shown,
    /// SHA-256 (hex) of the redacted likeness.
    pub digest: String,
    pub destination: Option<Arc<Destination>>,
    pub lane: Lane,
    pub key: Option<IdempotencyKey>,
    pub timeout: Duration,
}

impl std::fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shown.fmt(f)
    }
}

/// A request as people may see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The step's call as it will leave. `body` is the event's own, for `raw: true`.
pub fn render_call(
    step: &Step,
    route: &Route,
    context: &Context,
    key: Option<&IdempotencyKey>,
    body: &Bytes,
    resolved: &Resolved,
) -> Result<OutgoingRequest, RenderError> {
    let _ = (step, route, context, key, body, resolved);
    todo!()
}

/// The step's explicit key; `None` where the step names none (then the key is derived).
pub fn explicit_key(step: &Step, context: &Context) -> Result<Option<IdempotencyKey>, RenderError> {
    let _ = (step, context);
    todo!()
}

/// The key of a step that names none.
pub fn derived_key(
    key_base: &str,
    route: &RouteName,
    step: &StepName,
    element: Option<u32>,
    generation: u32,
) -> String {
    let _ = (key_base, route, step, element, generation);
    todo!()
}

/// Roots `event payload headers query path env secrets delivery`; the engine adds fields, steps, response and
/// idempotency_key.
pub fn event_context(
    envelope: &Envelope,
    payload: &Json,
    route: &Route,
    resolved: &Resolved,
    delivery_id: &str,
    attempt: u32,
    now: Timestamp,
) -> Context {
    let _ = (envelope, payload, route, resolved, delivery_id, attempt, now);
    todo!()
}

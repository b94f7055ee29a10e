//! An event → the names and values that its templates read.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::config::{Resolved, Route};
use crate::envelope::Envelope;
use crate::template::context::Context;

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
    let mut context = Context::new(now, delivery_id);
    context.set(
        "event",
        &json!({
            "id": envelope.event_id.as_str(),
            "type": envelope.event_type,
            "source": envelope.source.as_str(),
            "occurred_at": envelope.occurred_at.map(|at| at.to_string()),
            "received_at": envelope.received_at.to_string(),
        }),
    );
    context.set("payload", payload);
    context.set("headers", &object(&envelope.headers));
    context.set("query", &object(&envelope.query));
    context.set("path", &object(&envelope.path));
    context.set("delivery", &json!({ "id": delivery_id, "attempt": attempt }));
    context.set("%correlation", &json!({ "id": envelope.correlation_id.as_str() }));
    let env = route.env.iter().map(|(name, var)| {
        let value = resolved.env.get(&var.variable).or(var.default.as_ref());
        (name.clone(), value.map_or(Json::Null, |value| Json::from(value.as_str())))
    });
    context.set("env", &Json::Object(env.collect()));
    for (name, reference) in &route.secrets {
        if let Some(value) = resolved.secret(reference) {
            context.set_secret(name, value.clone());
        }
    }
    context
}

/// Name → value; of a repeated name the first counts.
fn object(pairs: &[(String, String)]) -> Json {
    let mut out = Map::with_capacity(pairs.len());
    for (name, value) in pairs {
        out.entry(name.as_str()).or_insert_with(|| Json::from(value.as_str()));
    }
    Json::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repeated_name_the_first_counts() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = [pair("a", "1"), pair("b", "2"), pair("a", "3")];
        assert_eq!(object(&pairs), json!({ "a": "1", "b": "2" }));
    }
}

//! What an outcome means for its step, by the step's own `success`, `retry.on` and `save`; and what of it people may see.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::config::{RetryOn, Step, Success};
use crate::delivery::decide::Verdict;
use crate::delivery::outcome::Outcome;
use crate::delivery::policy::retry_after;
use crate::delivery::state::Reason;
use crate::extract::Input;
use crate::secret::Vault;
use crate::template::context::Context;
use crate::world::transport::{NotSentKind, WireResponse};

/// Of what the other side said, at most this much is kept.
const DETAIL_BYTES_MAX: usize = 16 * 1024;
/// Shorter secrets are not looked for in answers: they would be found everywhere.
const SECRET_LOOKED_FOR_MIN: usize = 4;

/// `context` is what the call's own templates read; `response` is added here.
pub(super) fn judge(step: &Step, outcome: &Outcome, context: &Context, now: Timestamp) -> Verdict {
    let reason = |cause: &str, message: String| Reason {
        cause: cause.to_owned(),
        subject: Some(step.name.to_string()),
        message,
    };
    let by_kind = |timed_out: bool, message: String| {
        let cause = if timed_out { "timeout" } else { "network" };
        let why = reason(cause, message);
        let worth = step.retry_on.iter().any(|on| match on {
            RetryOn::Network => !timed_out,
            RetryOn::Timeout => timed_out,
            RetryOn::Status(_) | RetryOn::Condition(_) => false,
        });
        match worth {
            true => Verdict::Transient { why, retry_after: None },
            false => Verdict::Permanent { why },
        }
    };
    match outcome {
        Outcome::NotSent { why, kind } => match kind {
            NotSentKind::Refused => {
                Verdict::Permanent { why: reason("refused", format!("not sent: {why}")) }
            }
            NotSentKind::Connect => by_kind(false, format!("not sent: {why}")),
            NotSentKind::ConnectTimeout => by_kind(true, format!("not sent: {why}")),
        },
        Outcome::SentNoAnswer { why, timed_out } => {
            by_kind(*timed_out, format!("{why}; whether it was done is unknown"))
        }
        Outcome::Interrupted => by_kind(
            false,
            "the router ended while the call was out; whether it was done is unknown".to_owned(),
        ),
        Outcome::Answered(response) => answered(step, response, context, now, reason),
    }
}

fn answered(
    step: &Step,
    response: &WireResponse,
    context: &Context,
    now: Timestamp,
    reason: impl Fn(&str, String) -> Reason,
) -> Verdict {
    let headers = headers(response);
    let payload = serde_json::from_slice(&response.body).unwrap_or(Json::Null);
    let mut context = context.clone();
    context.set("response", &shown(response, &headers, &payload));

    let status = response.status;
    let success = match &step.success {
        Success::Statuses(statuses) => statuses.iter().any(|wanted| wanted.matches(status)),
        Success::Condition(condition) => match condition.holds(&context) {
            Ok(holds) => holds,
            Err(error) => {
                let message =
                    format!("it answered {status}, and `success` cannot be decided: {error}");
                return Verdict::Permanent { why: reason("condition", message) };
            }
        },
    };
    if success {
        let (saved, missing) = save(step, &headers, &payload, &context);
        let missing = missing.map(|(name, message)| {
            let message =
                format!("it succeeded and is not sent again, but `save` lacks `{name}`: {message}");
            reason("saved_missing", message)
        });
        return Verdict::Success { saved, missing };
    }
    let why = match status {
        200..=299 => {
            reason("not_successful", format!("it answered {status}, but `success` does not hold"))
        }
        _ => reason(&format!("status_{status}"), format!("it answered {status}")),
    };
    let worth = step.retry_on.iter().any(|on| match on {
        RetryOn::Network | RetryOn::Timeout => false,
        RetryOn::Status(wanted) => wanted.matches(status),
        // One that cannot be decided asks for nothing.
        RetryOn::Condition(condition) => condition.holds(&context).unwrap_or(false),
    });
    if !worth {
        return Verdict::Permanent { why };
    }
    let asked = headers.iter().find(|(name, _)| name == "retry-after");
    Verdict::Transient { why, retry_after: asked.and_then(|(_, value)| retry_after(value, now)) }
}

/// Lower-case names in order.
fn headers(response: &WireResponse) -> Vec<(String, String)> {
    response
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// `response` as templates read it. A header that came several times is one text, as HTTP has it.
fn shown(response: &WireResponse, headers: &[(String, String)], payload: &Json) -> Json {
    let mut named: Map<String, Json> = Map::new();
    for (name, value) in headers {
        let joined = match named.get(name) {
            Some(Json::String(first)) => format!("{first}, {value}"),
            _ => value.clone(),
        };
        named.insert(name.clone(), Json::String(joined));
    }
    json!({
        "status": response.status,
        "headers": named,
        "json": payload,
        "text": String::from_utf8_lossy(&response.body),
    })
}

/// What the step saves; nothing found is `none`. The first fault does not keep the other names from being saved.
fn save(
    step: &Step,
    headers: &[(String, String)],
    payload: &Json,
    context: &Context,
) -> (Map<String, Json>, Option<(String, String)>) {
    let input =
        Input { payload, envelope_headers: headers, query: &[], path: &[], form: None, context };
    let mut saved = Map::new();
    let mut missing = None;
    for (name, extraction) in &step.save {
        let value = match extraction.apply(&input) {
            Ok(value) => value.unwrap_or(Json::Null),
            Err(fault) => {
                missing = missing.or(Some((name.clone(), fault.message)));
                Json::Null
            }
        };
        saved.insert(name.clone(), value);
    }
    (saved, missing)
}

/// What the journal keeps of an outcome for people: no secret, and not too much.
pub(super) fn detail(outcome: &Outcome, vault: &Vault) -> String {
    let text = match outcome {
        Outcome::NotSent { why, .. } | Outcome::SentNoAnswer { why, .. } => why.clone(),
        Outcome::Interrupted => "the router ended while the call was out".to_owned(),
        Outcome::Answered(response) => String::from_utf8_lossy(&response.body).into_owned(),
    };
    // Redacted before it is cut: half a secret is still one.
    let mut text = redact(text, vault);
    if text.len() > DETAIL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text.push('…');
    }
    text
}

/// An answer may repeat what it was sent.
fn redact(text: String, vault: &Vault) -> String {
    vault
        .values()
        .map(|secret| secret.expose())
        .filter(|secret| secret.len() >= SECRET_LOOKED_FOR_MIN)
        .fold(text, |text, secret| match text.contains(secret) {
            true => text.replace(secret, "[secret]"),
            false => text,
        })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::secret::{SecretRef, SecretValue};

    #[test]
    fn details_hold_no_secret_and_are_bounded() {
        let mut vault = Vault::default();
        vault.insert(SecretRef::Env("T".to_owned()), SecretValue::new("tok_123"));
        vault.insert(SecretRef::Env("S".to_owned()), SecretValue::new("e"));
        let answer = |body: String| {
            Outcome::Answered(WireResponse {
                status: 401,
                headers: HeaderMap::new(),
                body: Bytes::from(body),
                truncated: false,
            })
        };
        assert_eq!(detail(&answer("bad token tok_123!".to_owned()), &vault), "bad token [secret]!");
        let long = detail(&answer("ä".repeat(20_000)), &vault);
        assert!(long.len() <= DETAIL_BYTES_MAX + '…'.len_utf8());
        let edge = format!("{}tok_123", "x".repeat(DETAIL_BYTES_MAX - 3));
        assert!(!detail(&answer(edge), &vault).contains("tok"));
    }

    #[test]
    fn headers_that_come_several_times_are_one_text() {
        let mut headers_in = HeaderMap::new();
        headers_in.append("X-A", "1".parse().unwrap());
        headers_in.append("x-a", "2".parse().unwrap());
        let response =
            WireResponse { status: 200, headers: headers_in, body: Bytes::new(), truncated: false };
        let shown = shown(&response, &headers(&response), &Json::Null);
        assert_eq!(shown["headers"]["x-a"], "1, 2");
    }
}

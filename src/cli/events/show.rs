//! One event of the API as a timeline for a person.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::super::remote::{field_long, moment, text};

/// What happened to the event: the envelope, each delivery, each step with its attempts.
pub(super) fn timeline(event: &Json, now: Timestamp) -> String {
    let mut shown = String::new();
    let received: Option<Timestamp> = event["receivedAt"].as_str().and_then(|at| at.parse().ok());
    let mut line = |text: String| {
        shown.push_str(text.trim_end());
        shown.push('\n');
    };
    let processing = &event["processing"];
    line(format!(
        "{}  {}  {} after {}",
        text(&event["eventId"]),
        text(&event["eventType"]),
        match event["malformed"].is_null() {
            true => text(&processing["status"]),
            false => "malformed".to_owned(),
        },
        match &processing["attempts"] {
            one if *one == 1 => "1 attempt".to_owned(),
            many => format!("{} attempts", text(many)),
        }
    ));
    line(format!("  source       {}", text(&event["source"])));
    line(format!("  received     {}", moment(&event["receivedAt"])));
    line(format!("  occurred     {}", moment(&event["occurredAt"])));
    line(format!("  correlation  {}", text(&event["correlationId"])));
    line(format!("  uid          {}", text(&event["uid"])));
    line(format!(
        "  duplicates   {}, conflicts {}",
        text(&event["duplicates"]),
        text(&event["conflicts"])
    ));
    if let Some(why) = event["malformed"].as_str() {
        line(format!("  malformed    {}", field_long(why)));
    }
    let deliveries = event["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default();
    if deliveries.is_empty() && event["malformed"].is_null() {
        line("\n  no route took it".to_owned());
    }
    for delivery in deliveries {
        line(format!("\nroute {}: {}", text(&delivery["route"]), text(&delivery["status"])));
        if let Some(why) = delivery["reason"]["message"].as_str() {
            line(format!("  why: {}", field_long(why)));
        }
        if let Some(due) = delivery["dueAt"].as_str() {
            line(format!("  next {}", due_at(due, now)));
        }
        for step in delivery["steps"].as_array().into_iter().flatten() {
            self::step(&mut line, step, &delivery["reason"]["message"], received);
        }
        for entry in delivery["journal"].as_array().into_iter().flatten() {
            if entry["what"] == "operated" {
                let note = entry["note"].as_str().map(|note| format!(": {}", field_long(note)));
                line(format!(
                    "  {}  {} by {}{}",
                    offset(received, entry["at"].as_str().unwrap_or_default()),
                    text(&entry["action"]),
                    text(&entry["actor"]),
                    note.unwrap_or_default()
                ));
            }
        }
        if delivery["status"] == "failed" {
            line(format!(
                "  once the cause is mended: router events replay {}",
                text(&event["uid"])
            ));
        }
    }
    shown
}

fn step(line: &mut dyn FnMut(String), step: &Json, said: &Json, received: Option<Timestamp>) {
    line(format!("  step {}: {}", text(&step["name"]), text(&step["status"])));
    if let Some(request) = step["request"].as_str() {
        line(format!("    {}", field_long(request)));
    }
    if step["idempotencyKey"].is_string() {
        line(format!("    key {}", text(&step["idempotencyKey"])));
    }
    for attempt in step["attempts"].as_array().into_iter().flatten() {
        let mut words = format!(
            "    {}  attempt {}  {}",
            offset(received, attempt["at"].as_str().unwrap_or_default()),
            text(&attempt["number"]),
            text(&attempt["outcome"]),
        );
        if let Some(status) = attempt["status"].as_u64() {
            words.push_str(&format!(" {status}"));
        }
        words.push_str(&format!(" in {} ms", text(&attempt["durationMs"])));
        if attempt["result"] != "succeeded" {
            words.push_str(&format!(
                "  {}: {}",
                text(&attempt["result"]),
                text(&attempt["detail"])
            ));
        }
        if let Some(next) = attempt["next"].as_str() {
            words.push_str(&format!("  again at {}", offset(received, next)));
        }
        line(words);
    }
    if step["status"] == "running" {
        line("    one attempt is under way".to_owned());
    }
    // The delivery's reason is most often its step's: once is enough.
    if let Some(why) = step["reason"].as_str().filter(|_| step["reason"] != *said) {
        line(format!("    why: {}", field_long(why)));
    }
    for (name, value) in step["saved"].as_object().into_iter().flatten() {
        line(format!("    saved {} = {}", field_long(name), text(value)));
    }
}

/// When something is due, by the clock and from now: `at 10:02:25Z, in 2m 30s`.
fn due_at(due: &str, now: Timestamp) -> String {
    let Ok(at) = due.parse::<Timestamp>() else { return format!("at {}", field_long(due)) };
    let left = at.duration_since(now).as_secs();
    let shown = moment(&Json::String(due.to_owned()));
    match left {
        ..=0 => format!("at {shown}, now due"),
        1..60 => format!("at {shown}, in {left}s"),
        60..3600 => format!("at {shown}, in {}m {}s", left / 60, left % 60),
        _ => format!("at {shown}, in {}h {}m", left / 3600, left / 60 % 60),
    }
}

/// Time since the receipt: `+12.345s`.
fn offset(received: Option<Timestamp>, at: &str) -> String {
    match (received, at.parse::<Timestamp>()) {
        (Some(received), Ok(at)) => {
            format!("{:+.3}s", at.duration_since(received).as_secs_f64())
        }
        (None, _) | (_, Err(_)) => field_long(at),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_due_says_when_and_how_soon() {
        fn check(due: &str, expected: &str) {
            assert_eq!(due_at(due, "2026-11-23T10:00:00Z".parse().unwrap()), expected);
        }
        check("2026-11-23T09:59:59Z", "at 2026-11-23T09:59:59.000Z, now due");
        check("2026-11-23T10:00:30.5Z", "at 2026-11-23T10:00:30.500Z, in 30s");
        check("2026-11-23T10:02:30Z", "at 2026-11-23T10:02:30.000Z, in 2m 30s");
        check("2026-11-24T11:05:00Z", "at 2026-11-24T11:05:00.000Z, in 25h 5m");
        check("soon\n", "at soon\\u{a}");
    }

    #[test]
    fn a_timeline_answers_what_happened() {
        let event = json!({
            "eventId": "evt_1", "eventType": "order.paid", "source": "shop", "occurredAt": null,
            "receivedAt": "2026-11-23T10:00:00Z", "correlationId": "c-1", "uid": "u-1",
            "processing": { "status": "failed", "attempts": 2 }, "duplicates": 2, "conflicts": 0,
            "malformed": null,
            "deliveries": [{
                "route": "orders", "status": "failed", "dueAt": null,
                "reason": { "cause": "status_422", "subject": "ship", "message": "ship answered 422" },
                "steps": [{
                    "name": "ship", "status": "failed", "idempotencyKey": "k-1", "reason": "ship answered 422",
                    "request": "POST https://ship.example/v1/shipments",
                    "saved": { "id": "s_1\n" },
                    "attempts": [
                        { "number": 1, "at": "2026-11-23T10:00:00.010Z", "outcome": "sent_no_answer", "status": null,
                          "durationMs": 10000, "result": "transient", "detail": "timed out", "next": "2026-11-23T10:00:11Z" },
                        { "number": 2, "at": "2026-11-23T10:00:11Z", "outcome": "answered", "status": 422,
                          "durationMs": 5, "result": "permanent", "detail": "no\u{1b}[2J", "next": null },
                    ],
                }],
                "journal": [{ "at": "2026-11-23T10:05:00Z", "what": "operated", "actor": "ops", "action": "replay", "note": "fixed" }],
            }],
        });
        insta::assert_snapshot!(timeline(&event, "2026-11-23T10:06:00Z".parse().unwrap()));
    }
}

//! Places, ids and handshakes of a preset in words.

use serde_json::{Map, Value as Json};

/// A scalar as it is written.
pub(super) fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(value) => Some(value.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// One value or those of a list.
pub(super) fn many(value: &Json) -> &[Json] {
    match value {
        Json::Null => &[],
        Json::Array(items) => items,
        one => std::slice::from_ref(one),
    }
}

pub(super) fn list_of<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// Where something stands, or what it is made of.
pub(super) fn place(value: &Json) -> String {
    let Some(map) = value.as_object() else {
        if let Json::Array(items) = value {
            let places: Vec<String> = items.iter().map(place).collect();
            return places.join("; where that is absent, ");
        }
        return format!("`{}`", text(value).unwrap_or_default());
    };
    let mut words = match base(map) {
        Some(words) => words,
        None => match map.get("from") {
            Some(from) => place(from),
            None => format!("`{value}`"),
        },
    };
    if let Some(format) = map.get("format").and_then(text) {
        words += &match format.as_str() {
            "unix" => " (seconds since 1970)".to_owned(),
            "unix_ms" => " (milliseconds since 1970)".to_owned(),
            "rfc3339" => " (RFC 3339)".to_owned(),
            other => format!(" (`{other}`)"),
        };
    }
    words
}

fn base(map: &Map<String, Json>) -> Option<String> {
    let named = |key: &str| map.get(key).and_then(text);
    let words = [
        ("header", "the header "),
        ("query", "the query parameter "),
        ("form", "the form field "),
        ("path", "the part of the path "),
        ("json", "the body's "),
    ];
    for (key, before) in words {
        if let Some(name) = named(key) {
            return Some(format!("{before}`{name}`"));
        }
    }
    if map.contains_key("bearer") {
        return Some("`Authorization: Bearer …`".to_owned());
    }
    if let Some(user) = named("basic") {
        return Some(format!("`Authorization: Basic …`, as the password of the user `{user}`"));
    }
    if map.contains_key("body") {
        return Some("the body, which is the token".to_owned());
    }
    if let Some(name) = named("detached") {
        return Some(format!("the header `{name}`, detached from the body"));
    }
    named("value").map(|template| format!("by the template `{template}`"))
}

/// Nothing that the provider gives is the id, but a hash that stands for one.
pub(super) fn is_derived(id: &Json) -> bool {
    match id {
        Json::Object(map) => map.contains_key("hash"),
        Json::Array(items) => items.iter().any(is_derived),
        _ => false,
    }
}

pub(super) fn id(rule: &Json) -> String {
    let one = |rule: &Json| match rule.get("hash") {
        Some(Json::Array(parts)) => {
            let parts: Vec<String> = parts.iter().map(place).collect();
            format!(
                "a hash of {} (best effort: events that agree in these count as one)",
                list_of(&parts)
            )
        }
        Some(_) => {
            "the hash of the body (best effort: a resend that differs is another event)".to_owned()
        }
        None => place(rule),
    };
    match rule {
        Json::Array(rules) => {
            rules.iter().map(one).collect::<Vec<_>>().join("; where that is absent, ")
        }
        rule => one(rule),
    }
}

/// `200, empty`, `202 with the body …`
pub(super) fn respond(respond: &Json) -> String {
    let status = text(&respond["status"]).unwrap_or_else(|| "200".to_owned());
    let headers = respond["headers"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = headers
        .map(|(name, value)| format!("the header `{name}: {}`", text(value).unwrap_or_default()))
        .collect();
    if let Some(body) = respond.get("body").filter(|body| !body.is_null()) {
        let body = text(body).unwrap_or_else(|| body.to_string());
        parts.push(format!("the body `{body}`"));
    }
    match parts.is_empty() {
        true => format!("{status}, empty"),
        false => format!("{status} with {}", parts.join(" and ")),
    }
}

pub(super) fn handshake(handshake: &Json) -> String {
    let proof = match handshake["verify"].as_bool() {
        Some(false) => "needs no proof of the sender",
        _ => "must be proved as events are",
    };
    let mut words = format!(
        "{} {proof}; it is answered by {}.",
        capital(&conditions(&handshake["when"])),
        respond(&handshake["respond"])
    );
    if let Some(at) = handshake.get("capture_secret") {
        words += &format!(
            " The secret comes in {}, and is taken while `router sources arm` waits for it.",
            place(at)
        );
    }
    if let Some(confirm) = handshake.get("confirm") {
        words += &format!(
            " Before that the router itself asks for the URL in {}, if its host is `{}`.",
            place(&confirm["get"]),
            text(&confirm["host"]).unwrap_or_default()
        );
    }
    words
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What a request must be: `POST with …, without …`
pub(super) fn conditions(when: &Json) -> String {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    if let Some(media) = text(&when["content_type"]) {
        with.push(format!("the content type `{media}`"));
    }
    for kind in ["header", "query", "form", "json"] {
        for (name, expected) in when[kind].as_object().into_iter().flatten() {
            let at = |says: &str| match kind {
                "header" => format!("the header `{name}`{says}"),
                "query" => format!("the query parameter `{name}`{says}"),
                "form" => format!("the form field `{name}`{says}"),
                _ => format!("`{name}`{says} in the body"),
            };
            match expected {
                Json::Bool(true) => with.push(at("")),
                Json::Bool(false) => without.push(at("")),
                Json::Object(map) => {
                    let pattern = map.get("match").and_then(text).unwrap_or_default();
                    with.push(at(&format!(" that matches `{pattern}`")));
                }
                expected => {
                    let expected = text(expected).unwrap_or_default();
                    with.push(at(&format!(" = `{expected}`")));
                }
            }
        }
    }
    let mut words = match text(&when["method"]) {
        Some(method) => format!("a {method}"),
        None => "a request".to_owned(),
    };
    for (before, list) in [(" with ", with), (" without ", without)] {
        if !list.is_empty() {
            words += &format!("{before}{}", list.join(" and "));
        }
    }
    words
}

#![no_main]
//! What becomes of an authentic request: the body by its form, `event.split`, and the rules that look for id, type and time
//! in headers, query, form and JSON.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use router_fuzz::{Judge, judge, request};

static SOURCES: LazyLock<BTreeMap<&str, Judge>> = LazyLock::new(|| {
    let sources = [
        (
            "json",
            "event: { id: [ $.id, { hash: body } ], type: $.type, occurred_at: { from: $.at, format: unix } }, body: json",
        ),
        (
            "by-type",
            "event: { id: [ { header: X-Id }, { query: id }, { hash: [ $.a, $.b ] } ], type: { header: X-Type }, occurred_at: { header: X-At, format: unix_ms } }",
        ),
        (
            "split",
            "event: { id: $.id, type: $.type, split: \"$[*]\", occurred_at: $.at }, body: json",
        ),
        (
            "deep",
            "event: { id: { hash: body }, type: $.type, split: \"$.a[*].b[*]\", occurred_at: { from: $.at } }, body: json",
        ),
        (
            "path",
            "event: { id: \"$..id\", type: \"$.items[?@.n > 1].kind\", occurred_at: { from: $.at, format: \"%d.%m.%Y %H:%M\", zone: Europe/Berlin } }, body: json",
        ),
        (
            "form",
            "event: { id: [ { form: id }, { hash: body } ], type: { form: type } }, body: form",
        ),
        ("json-in", "event: { id: $.id, type: { form: kind } }, body: { json_in: payload }"),
        (
            "base64-in",
            "event: { id: $.message.messageId, type: $.message.data.type }, body: { base64_in: $.message.data }",
        ),
        ("jwt", "event: { id: $.jti }, body: jwt"),
        ("text", "event: { id: { hash: body } }, body: text"),
        ("binary", "event: { id: { hash: body } }, body: binary"),
        (
            "xml",
            "event: { id: $.id, type: $.kind }, body: { xml: { id: /n/@id, kind: /n/kind, item: /n/items/item } }",
        ),
    ];
    let judges = sources.iter().map(|(name, rest)| {
        (*name, judge(name, &format!("{{ path: /r, verify: {{ none: fuzzing }}, {rest} }}")))
    });
    judges.collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((name, received)) = request(data) else { return };
    if let Some(judge) = SOURCES.get(name) {
        judge.judge(received);
    }
});

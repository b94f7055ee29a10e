#![no_main]
//! Requests to every preset and to sources of every other form: how signatures, times, tokens and conditions are read from
//! headers, queries and bodies.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use router_fuzz::{Judge, PRESETS, SECRET, judge, request};

/// What presets have not, or not all of it.
static OWN: LazyLock<BTreeMap<String, Judge>> = LazyLock::new(|| {
    let sources = [
        (
            "own-form",
            "hmac: sha256, signed: \"{timestamp}.{form.token}.{body}\", signature: { form: signature }, timestamp: { form: timestamp }, tolerance: 5m",
        ),
        (
            "own-query",
            "hmac: sha512, signed: \"{timestamp}{method}{target}{url}{body}\", signature: { query: sig, encoding: base64url }, timestamp: { query: at, format: rfc3339 }, tolerance: 5m",
        ),
        (
            "own-json",
            "hmac: sha1, signed: \"{json:$.id}|{timestamp}\", signature: { json: $.proof.signature, encoding: base64 }, timestamp: { json: $.at, format: unix_ms }, tolerance: 5m",
        ),
        (
            "own-each",
            "for_each: \"$.events[*]\", hmac: sha256, signed: \"{json:$.id}.{json:$.amount}\", signature: { json: $.signature }",
        ),
        (
            "own-positional",
            "hmac: sha256, signed: \"{timestamp}{body}\", signature: { header: X-Sig, parse: \"{timestamp},{signature}\" }, tolerance: 5m",
        ),
        (
            "own-groups",
            "hmac: sha256, signed: \"{timestamp}.{body}\", signature: { header: X-Sig, parse: \"t={timestamp},v1={signature}\", group_separator: \" \" }, tolerance: 5m",
        ),
        (
            "own-list",
            "digest: sha256, signed: \"{body}{secret}\", signature: { header: X-Sig, parse: \"sha256={signature}\", separator: \";\" }",
        ),
        ("own-basic", "token: { basic: user }"),
        (
            "own-token",
            "any_of: [ { token: { json: $.auth.token } }, { token: { form: token } }, { token: { query: token } }, { token: { bearer: true } } ]",
        ),
        (
            "own-require",
            "require: { content_type: application/json, json: { $.type: event, $.other: false }, query: { kind: { match: \"[a-z]{1,9}\" } } }, token: { header: X-Token }",
        ),
    ];
    let judges = sources.iter().map(|(name, verify)| {
        let source = format!("{{ path: /r, verify: {{ {verify}, secret: {{ literal: \"{SECRET}\" }} }}, event: {{ id: {{ hash: body }} }} }}");
        ((*name).to_owned(), judge(name, &source))
    });
    judges.collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((name, received)) = request(data) else { return };
    if let Some(judge) = OWN.get(name).or_else(|| PRESETS.get(name)) {
        judge.judge(received);
    }
});

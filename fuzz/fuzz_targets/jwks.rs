#![no_main]
//! Key sets as they are fetched, and tokens that are judged by them.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use router::verify::Received;
use router::verify::fetched::{Fetched, KeySet};
use router_fuzz::{Judge, judge};

static SOURCE: LazyLock<Judge> = LazyLock::new(|| {
    judge(
        "jwks",
        "{ path: /r, verify: { jwt: { bearer: true, algorithms: [ RS256, ES256, EdDSA ] }, jwks: \"https://keys.example/jwks\" }, event: { id: { hash: body } } }",
    )
});

/// One of each algorithm, with and without a key's name; that no signature of them holds is no matter here.
const TOKENS: [&str; 4] = [
    "eyJhbGciOiJSUzI1NiJ9.e30.",
    "eyJhbGciOiJFUzI1NiJ9.e30.",
    "eyJhbGciOiJFZERTQSJ9.e30.",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.",
];

fuzz_target!(|data: &[u8]| {
    let Ok(set) = KeySet::jwks(data) else { return };
    set.knows(Some("a"));
    let fetched = Fetched::everywhere(set);
    // As long as those of RSA and of P-256.
    for length in [256, 64] {
        for token in TOKENS {
            let signature = "A".repeat((length * 4usize).div_ceil(3));
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(&format!("Bearer {token}{signature}"));
            headers.insert("authorization", value.expect("a header"));
            SOURCE.judge_by(
                Received {
                    method: Method::POST,
                    target: "/r".to_owned(),
                    path: Vec::new(),
                    query: Vec::new(),
                    headers,
                    body: "{}".into(),
                    received_at: Timestamp::from_second(1_700_000_000).expect("a time"),
                },
                &fetched,
            );
        }
    }
});

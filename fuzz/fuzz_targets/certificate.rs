#![no_main]
//! Certificates as they are fetched: PEM as it comes, and DER that is put into PEM here.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use router::verify::Received;
use router::verify::fetched::{Fetched, KeySet};
use router_fuzz::{Judge, judge};

static SOURCES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let source = |scheme: &str, name: &str| {
        format!(
            "{{ path: /r, verify: {{ {scheme}, signed: \"{{body}}\", signature: {{ header: X-Sig, encoding: base64 }}, certificate: {{ url: {{ header: X-Cert }}, host: \"keys\\\\.example\"{name} }} }}, event: {{ id: {{ hash: body }} }} }}"
        )
    };
    vec![
        judge("rsa", &source("rsa: sha256", "")),
        judge("ecdsa", &source("ecdsa: p256_sha256", "")),
        judge("named", &source("rsa: sha256", ", name: keys.example")),
    ]
});

fuzz_target!(|data: &[u8]| {
    let pem = match data.starts_with(b"-----") {
        true => data.to_vec(),
        false => {
            let base64 = STANDARD.encode(data);
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
                .into_bytes()
        }
    };
    let Ok(chain) = KeySet::chain(&pem) else { return };
    let fetched = Fetched::everywhere(chain);
    for source in &*SOURCES {
        let mut headers = HeaderMap::new();
        headers.insert("x-cert", HeaderValue::from_static("https://keys.example/a.pem"));
        headers.insert("x-sig", HeaderValue::from_static("AAAA"));
        source.judge_by(
            Received {
                method: Method::POST,
                target: "/r".to_owned(),
                path: Vec::new(),
                query: Vec::new(),
                headers,
                body: "{}".into(),
                received_at: Timestamp::from_second(1_780_000_000).expect("a time"),
            },
            &fetched,
        );
    }
});

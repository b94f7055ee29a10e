#![no_main]
//! JSON Web Tokens wherever one may stand: as they come, and signed well, so that their claims are read.
//!
//! The first byte says where the token stands and whether it is signed here; then HEADER, a line feed and CLAIMS, or the
//! token itself.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use router::verify::Received;
use router_fuzz::{Judge, SECRET, judge};

static SOURCES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let secret = format!("secret: {{ literal: \"{SECRET}\" }}");
    let claims = "required: [ exp ], claims: { iss: [ a, b ], aud: \"{url}\", ok: true }";
    let verify = [
        format!(
            "jwt: {{ header: X-Token, prefix: \"JWT \", algorithms: [ HS256, HS512 ], {claims} }}, tolerance: 5m, {secret}"
        ),
        format!("jwt: {{ bearer: true, algorithms: HS256 }}, {secret}"),
        format!("jwt: {{ body: true, algorithms: HS512 }}, {secret}"),
        format!("jwt: {{ json: $.token, algorithms: HS256, required: [ jti ] }}, {secret}"),
        format!("jwt: {{ detached: X-Jws, algorithms: HS256 }}, {secret}"),
        format!(
            "jwt: {{ bearer: true, algorithms: [ RS256, ES256, EdDSA ], {claims} }}, jwks: \"https://keys.example/jwks\""
        ),
    ];
    let event = "event: { id: [ $.jti, { hash: body } ] }";
    let sources = verify
        .iter()
        .map(|verify| judge("jwt", &format!("{{ path: /r, verify: {{ {verify} }}, {event} }}")));
    sources.collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let place = usize::from(first & 7) % SOURCES.len();
    let token = match first & 8 {
        0 => rest.to_vec(),
        _ => signed(rest, place),
    };
    let mut headers = HeaderMap::new();
    let mut body = b"{\"id\":1}".to_vec();
    let header = |prefix: &str| HeaderValue::from_bytes(&[prefix.as_bytes(), &token].concat()).ok();
    let put = match place {
        0 => header("JWT ").map(|it| headers.insert("x-token", it)),
        2 => {
            body = token;
            Some(None)
        }
        3 => {
            let token = String::from_utf8_lossy(&token);
            body = serde_json::json!({ "token": token }).to_string().into_bytes();
            Some(None)
        }
        4 => header("").map(|it| headers.insert("x-jws", it)),
        _ => header("bearer ").map(|it| headers.insert("authorization", it)),
    };
    if put.is_none() {
        return;
    }
    SOURCES[place].judge(Received {
        method: Method::POST,
        target: "/r".to_owned(),
        path: Vec::new(),
        query: Vec::new(),
        headers,
        body: body.into(),
        received_at: Timestamp::from_second(1_700_000_000).expect("a time"),
    });
});

/// HEADER and CLAIMS as a token whose signature holds, if its header names the algorithm.
fn signed(data: &[u8], place: usize) -> Vec<u8> {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, claims) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let header = BASE64_URL.encode(header);
    let content = if place == 4 { String::new() } else { BASE64_URL.encode(claims) };
    let message = match place {
        4 => format!("{header}.{{\"id\":1}}"),
        _ => format!("{header}.{content}"),
    };
    let signature = match place {
        2 => router_fuzz::hmac_sha512(message.as_bytes()),
        _ => router_fuzz::hmac_sha256(message.as_bytes()),
    };
    format!("{header}.{content}.{}", BASE64_URL.encode(signature)).into_bytes()
}

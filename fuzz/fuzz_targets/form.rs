#![no_main]
//! Forms. The first line is the Content-Type, what follows is the body.

use libfuzzer_sys::fuzz_target;
use router::body::form::{self, FormSyntax};
use router::body::{BodyKind, BodyRule};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (first, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let content_type = String::from_utf8_lossy(first);
    if let Some(syntax) = FormSyntax::named(&content_type) {
        drop(form::fields(&syntax, body));
    }
    let rules = [
        BodyRule::Form,
        BodyRule::JsonIn { field: "payload".to_owned() },
        BodyRule::Base64In {
            path: vec!["data".to_owned()],
            document: router::body::Document::Json,
        },
    ];
    for rule in rules {
        let kind: BodyKind = rule.kind(Some(&content_type));
        if let Ok(payload) = kind.payload(body) {
            drop(kind.fields(body, &payload));
            // What was read is kept, and must be readable where it is read again.
            assert_eq!(kind.payload(body), Ok(payload));
        }
    }
});

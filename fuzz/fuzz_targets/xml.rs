#![no_main]
//! XML, by names that meet elements, attributes and lists; alone and in base64.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use router::body::xml::{XmlNames, XmlPath};
use router::body::{BodyKind, Document};

static NAMES: LazyLock<XmlNames> = LazyLock::new(|| {
    let names = [
        ("id", "/n/@id"),
        ("kind", "/n/kind"),
        ("item", "/n/items/item"),
        ("attribute", "/n/items/item/@a"),
    ];
    let path = |text| XmlPath::parse(text).expect("a path");
    XmlNames(names.map(|(name, text)| (name.to_owned(), path(text))).into())
});

fuzz_target!(|data: &[u8]| {
    let plain = BodyKind::Xml { names: NAMES.clone() }.payload(data);
    if data.len() > 4096 {
        return;
    }
    let document = Document::Xml { names: NAMES.clone() };
    let wrapped = BodyKind::Base64In { path: vec!["d".to_owned()], document, form: None };
    let body = format!("{{\"d\":\"{}\"}}", STANDARD.encode(data));
    // An empty text holds no document and stays; otherwise both ways read the same.
    if let (Ok(plain), false) = (plain, data.is_empty()) {
        let wrapped = wrapped.payload(body.as_bytes());
        assert_eq!(wrapped.map(|it| it["d"].clone()), Ok(plain));
    }
});

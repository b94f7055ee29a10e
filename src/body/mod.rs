//! Bytes and how they are to be read → the payload. Knows nothing of requests but their Content-Type, and of nobody who
//! asks; what it cannot read it says in words for a person.

pub mod form;
pub mod xml;

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use self::form::{Field, FormSyntax};
use self::xml::XmlNames;

/// How a source wants its bodies read. With the Content-Type of a request it becomes a [`BodyKind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRule {
    Json,
    Form,
    Text,
    Binary,
    Jwt,
    JsonIn { field: String },
    Base64In { path: Vec<String>, document: Document },
    Xml { names: XmlNames },
}

/// How a raw body becomes the payload: kept with each event, so that its bytes can be read again as they were read first.
/// Its form is written to disk: a kind is never changed, and new ones stand at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    Json,
    /// An object name → text, a list where a name is repeated.
    Form,
    /// UTF-8 text: the payload is a string.
    Text,
    /// The payload is `null`; only `raw: true` can forward the body.
    Binary,
    /// A form of `multipart/form-data`, with the boundary that its Content-Type named.
    Multipart {
        boundary: String,
    },
    /// A compact JWS (RFC 7515): the payload is its claims.
    Jwt,
    /// A form in one field of which the payload stands as JSON.
    JsonIn {
        field: String,
        form: FormSyntax,
    },
    /// JSON, or a form, in which the base64 at `path` is replaced by the document that it holds.
    Base64In {
        path: Vec<String>,
        document: Document,
        form: Option<FormSyntax>,
    },
    /// An object name → text that stands at a path of the XML, a list where there are several.
    Xml {
        names: XmlNames,
    },
}

/// What base64 holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    Json,
    Text,
    Xml { names: XmlNames },
}

/// Of a payload that is put together: what serde_json would read again if it were written down.
const DEPTH_MAX: usize = 127;

impl BodyRule {
    pub fn kind(&self, content_type: Option<&str>) -> BodyKind {
        let form = || content_type.and_then(FormSyntax::named);
        match self.clone() {
            BodyRule::Json => BodyKind::Json,
            BodyRule::Form => match form() {
                Some(FormSyntax::Multipart { boundary }) => BodyKind::Multipart { boundary },
                Some(FormSyntax::Urlencoded) | None => BodyKind::Form,
            },
            BodyRule::Text => BodyKind::Text,
            BodyRule::Binary => BodyKind::Binary,
            BodyRule::Jwt => BodyKind::Jwt,
            BodyRule::JsonIn { field } => {
                BodyKind::JsonIn { field, form: form().unwrap_or(FormSyntax::Urlencoded) }
            }
            BodyRule::Base64In { path, document } => {
                BodyKind::Base64In { path, document, form: form() }
            }
            BodyRule::Xml { names } => BodyKind::Xml { names },
        }
    }
}

impl BodyKind {
    /// The payload in `body`, or why it cannot be read, for a person.
    pub fn payload(&self, body: &[u8]) -> Result<Json, String> {
        match self {
            BodyKind::Json => serde_json::from_slice(body)
                .map_err(|error| format!("the body is not valid JSON: {error}")),
            BodyKind::Form => form::object(&FormSyntax::Urlencoded, body),
            BodyKind::Multipart { boundary } => form::object(&multipart(boundary), body),
            BodyKind::Text => match std::str::from_utf8(body) {
                Ok(text) => Ok(Json::String(text.to_owned())),
                Err(error) => Err(format!("the body is not UTF-8 text: {error}")),
            },
            BodyKind::Binary => Ok(Json::Null),
            BodyKind::Jwt => serde_json::from_slice(&claims(body)?)
                .map_err(|error| format!("the claims of the JWT are not valid JSON: {error}")),
            BodyKind::JsonIn { field, form } => {
                let field = the_field(field, form::fields(form, body)?)?;
                serde_json::from_slice(&field.value).map_err(|error| {
                    format!("the form field `{}` is not valid JSON: {error}", field.name)
                })
            }
            BodyKind::Base64In { path, document, form } => {
                let mut payload = match form {
                    Some(form) => form::object(form, body)?,
                    None => BodyKind::Json.payload(body)?,
                };
                replace(&mut payload, path, document)?;
                Ok(payload)
            }
            BodyKind::Xml { names } => {
                names.read(body).map_err(|why| format!("the body is not XML that is read: {why}"))
            }
        }
    }

    /// The fields of a body that is a form, as an object; `payload` is what was read of it.
    pub fn fields<'a>(&self, body: &[u8], payload: &'a Json) -> Option<Cow<'a, Json>> {
        match self {
            BodyKind::Form
            | BodyKind::Multipart { .. }
            | BodyKind::Base64In { form: Some(_), .. } => Some(Cow::Borrowed(payload)),
            BodyKind::JsonIn { form, .. } => form::object(form, body).ok().map(Cow::Owned),
            BodyKind::Json
            | BodyKind::Text
            | BodyKind::Binary
            | BodyKind::Jwt
            | BodyKind::Base64In { form: None, .. }
            | BodyKind::Xml { .. } => None,
        }
    }

    /// The JSON text that `payload` was read from, in which each of its parts has a place. Where the payload was put
    /// together there is none, and it is written down. `None` where the payload is no JSON of the sender's.
    pub fn json_text<'a>(&self, body: &'a [u8], payload: &Json) -> Option<Cow<'a, [u8]>> {
        match self {
            BodyKind::Json => Some(Cow::Borrowed(body)),
            BodyKind::Jwt => claims(body).ok().map(Cow::Owned),
            BodyKind::JsonIn { field, form } => {
                let field = the_field(field, form::fields(form, body).ok()?).ok()?;
                Some(Cow::Owned(field.value))
            }
            BodyKind::Base64In { .. } => Some(Cow::Owned(payload.to_string().into_bytes())),
            BodyKind::Form
            | BodyKind::Multipart { .. }
            | BodyKind::Text
            | BodyKind::Binary
            | BodyKind::Xml { .. } => None,
        }
    }

    /// What a payload says of its body.
    pub fn covers(&self) -> Covers {
        match self {
            BodyKind::Json
            | BodyKind::Form
            | BodyKind::Multipart { .. }
            | BodyKind::Jwt
            | BodyKind::JsonIn { .. }
            | BodyKind::Base64In { document: Document::Json | Document::Text, .. } => Covers::All,
            BodyKind::Base64In { document: Document::Xml { .. }, .. } | BodyKind::Xml { .. } => {
                Covers::Part
            }
            BodyKind::Text | BodyKind::Binary => Covers::Bytes,
        }
    }
}

/// How much of what a sender says stands in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// It means what the body means, however the body was written.
    All,
    /// What the source named; two bodies with one payload may mean two things.
    Part,
    /// The body has no structure.
    Bytes,
}

fn multipart(boundary: &str) -> FormSyntax {
    FormSyntax::Multipart { boundary: boundary.to_owned() }
}

/// The one field of that name. Two are never read as one of them.
fn the_field(name: &str, fields: Vec<Field>) -> Result<Field, String> {
    let mut named = fields.into_iter().filter(|field| field.name == name);
    match (named.next(), named.next()) {
        (Some(field), None) => Ok(field),
        (None, _) => Err(format!("the form has no field `{name}`")),
        (Some(_), Some(_)) => Err(format!("the form has the field `{name}` more than once")),
    }
}

/// The second part of a compact JWS, decoded. Whether it is true is not asked here.
fn claims(body: &[u8]) -> Result<Vec<u8>, String> {
    let body = body.trim_ascii();
    let mut parts = body.split(|byte| *byte == b'.');
    let claims = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(_), None) if !header.is_empty() => claims,
        _ => return Err("the body is no JWT: it does not have three parts".to_owned()),
    };
    BASE64_URL
        .decode(claims)
        .map_err(|_| "the body is no JWT: its second part is not base64url".to_owned())
}

/// RFC 7515, 2, has no padding; some senders do.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// In either alphabet, padded or not, with line breaks or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    let plain: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    BASE64.decode(plain).ok()
}

/// Puts what the base64 at `path` holds in its place. What is absent, null or empty stays: there is no document.
fn replace(payload: &mut Json, path: &[String], document: &Document) -> Result<(), String> {
    let mut place = payload;
    for name in path {
        match place.get_mut(name) {
            Some(member) => place = member,
            None => return Ok(()),
        }
    }
    let at = || format!("`$.{}`", path.join("."));
    let bytes = match place {
        Json::Null => return Ok(()),
        Json::String(text) if text.is_empty() => return Ok(()),
        Json::String(text) => base64(text).ok_or_else(|| format!("{} is not base64", at()))?,
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            return Err(format!("{} is not one text, so it is no base64", at()));
        }
    };
    let read = match document {
        Document::Json => serde_json::from_slice(&bytes)
            .map_err(|error| format!("it is not valid JSON: {error}"))
            .and_then(|read| match depth(&read) + path.len() {
                0..=DEPTH_MAX => Ok(read),
                _ => Err("it is nested too deeply".to_owned()),
            }),
        Document::Text => String::from_utf8(bytes)
            .map(Json::String)
            .map_err(|_| "it is not UTF-8 text".to_owned()),
        Document::Xml { names } => names.read(&bytes),
    };
    *place = read.map_err(|why| format!("what {} holds cannot be read: {why}", at()))?;
    Ok(())
}

/// Bounded, for what is asked was read by a reader that is.
fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(kind: &BodyKind, body: &[u8], expected: Option<Json>) {
        assert_eq!(kind.payload(body).ok(), expected, "{kind:?}");
    }

    fn base64_in(path: &str, document: Document, form: Option<FormSyntax>) -> BodyKind {
        BodyKind::Base64In { path: path.split('.').map(str::to_owned).collect(), document, form }
    }

    fn json_in(field: &str) -> BodyKind {
        BodyKind::JsonIn { field: field.to_owned(), form: FormSyntax::Urlencoded }
    }

    #[test]
    fn bodies_become_payloads() {
        check(&BodyKind::Json, br#"{"a": 1.10}"#, serde_json::from_str(r#"{"a": 1.10}"#).ok());
        check(&BodyKind::Json, b"", None);
        check(&BodyKind::Json, b"{\"a\": 1} x", None);
        check(
            &BodyKind::Form,
            b"a=1&b=x+y&a=2&a=3",
            Some(json!({"a": ["1", "2", "3"], "b": "x y"})),
        );
        check(&BodyKind::Form, b"", Some(json!({})));
        check(&BodyKind::Text, "grüß".as_bytes(), Some(json!("grüß")));
        check(&BodyKind::Text, &[0xff], None);
        check(&BodyKind::Binary, &[0xff], Some(Json::Null));
    }

    #[test]
    fn the_second_part_of_a_jws_is_its_claims() {
        // RFC 7515, A.1.
        let body = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk\n";
        let claims = json!({"iss": "joe", "exp": 1300819380, "http://example.com/is_root": true});
        check(&BodyKind::Jwt, body, Some(claims));
        for body in ["", "a", "a.e30", "a.e30.c.d", ".e30.c", "a.?.c", "a.bm8.c", "a.b.c.d.e"] {
            check(&BodyKind::Jwt, body.as_bytes(), None);
        }
        check(&BodyKind::Jwt, b"a.e30=.c", Some(json!({})));
        check(&BodyKind::Jwt, b"a.e30.", Some(json!({})));
    }

    #[test]
    fn json_stands_in_a_field_of_a_form() {
        let kind = json_in("payload");
        check(
            &kind,
            b"a=1&payload=%5B%7B%22n%22%3A1.10%7D%5D",
            serde_json::from_str("[{\"n\":1.10}]").ok(),
        );
        check(&kind, b"a=1", None);
        check(&kind, b"payload=1&payload=1", None);
        check(&kind, b"payload=%7B", None);
        check(&kind, b"payload=", None);
        let body = b"payload=%7B%7D&token=t";
        let fields = kind.fields(body, &json!({})).map(Cow::into_owned);
        assert_eq!(fields, Some(json!({"payload": "{}", "token": "t"})));
        assert_eq!(kind.json_text(body, &json!({})).as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn base64_is_replaced_by_what_it_holds() {
        let kind = base64_in("message.data", Document::Json, None);
        let read = json!({"message": {"data": {"a": ">>>?"}, "id": "7"}});
        for data in [
            "eyJhIjoiPj4+PyJ9",
            "eyJhIjoiPj4-PyJ9",
            "eyJhIjoi\\r\\n Pj4+PyJ9",
            "eyJhIjoiPj4+PyJ9====",
        ] {
            let body = format!(r#"{{"message":{{"data":"{data}","id":"7"}}}}"#);
            let expected = (!data.ends_with("====")).then(|| read.clone());
            check(&kind, body.as_bytes(), expected);
        }
        // Attributes alone, and what is not where it is looked for.
        for body in [
            r#"{"message":{"id":"7"}}"#,
            r#"{"message":{"data":null}}"#,
            r#"{"message":{"data":""}}"#,
            r#"{"message":"x"}"#,
            "[1]",
        ] {
            check(&kind, body.as_bytes(), serde_json::from_str(body).ok());
        }
        for body in [
            r#"{"message":{"data":7}}"#,
            r#"{"message":{"data":["e30="]}}"#,
            r#"{"message":{"data":"e"}}"#,
            r#"{"message":{"data":"bm8="}}"#,
            "{",
        ] {
            check(&kind, body.as_bytes(), None);
        }
        let text = base64_in("d", Document::Text, None);
        check(&text, br#"{"d":"Z3LDvMOf"}"#, Some(json!({"d": "grüß"})));
        check(&text, br#"{"d":"/w=="}"#, None);
        let names = XmlNames::from([("kind", "/notification/kind")]);
        let kind = base64_in("bt_payload", Document::Xml { names }, Some(FormSyntax::Urlencoded));
        let body = b"bt_signature=s&bt_payload=PG5vdGlmaWNhdGlvbj48a2luZD5jaGVjazwva2luZD48L25vdGlmaWNhdGlvbj4%3D%0A";
        check(&kind, body, Some(json!({"bt_signature": "s", "bt_payload": {"kind": "check"}})));
    }

    #[test]
    fn what_is_put_together_can_be_read_again() {
        let kind = base64_in("a.b", Document::Json, None);
        for (deep, expected) in [(125, true), (126, false)] {
            let inner = BASE64.encode(format!("{}{}", "[".repeat(deep), "]".repeat(deep)));
            let payload = kind.payload(format!(r#"{{"a":{{"b":"{inner}"}}}}"#).as_bytes());
            assert_eq!(payload.is_ok(), expected, "{deep}");
            if let Ok(payload) = payload {
                assert!(serde_json::from_str::<Json>(&payload.to_string()).is_ok());
            }
        }
    }

    #[test]
    fn a_rule_and_a_content_type_make_a_kind() {
        let boundary = "b".to_owned();
        let multipart = FormSyntax::Multipart { boundary: boundary.clone() };
        let named = Some("multipart/form-data; boundary=b");
        let check = |rule: &BodyRule, content_type, expected| {
            assert_eq!(rule.kind(content_type), expected, "{rule:?} {content_type:?}");
        };
        check(&BodyRule::Form, None, BodyKind::Form);
        check(&BodyRule::Form, Some("application/json"), BodyKind::Form);
        check(&BodyRule::Form, named, BodyKind::Multipart { boundary });
        check(&BodyRule::Json, named, BodyKind::Json);
        let json_in = BodyRule::JsonIn { field: "p".to_owned() };
        let kind = |form| BodyKind::JsonIn { field: "p".to_owned(), form };
        check(&json_in, None, kind(FormSyntax::Urlencoded));
        check(&json_in, named, kind(multipart.clone()));
        let in_data = BodyRule::Base64In { path: vec!["d".to_owned()], document: Document::Json };
        let kind = |form| base64_in("d", Document::Json, form);
        check(&in_data, Some("application/json"), kind(None));
        check(
            &in_data,
            Some("application/x-www-form-urlencoded"),
            kind(Some(FormSyntax::Urlencoded)),
        );
        check(&in_data, named, kind(Some(multipart)));
    }

    /// What a kind is called where it is shown and exported. It is never renamed.
    #[test]
    fn kinds_have_their_names() {
        let check = |kind: BodyKind, expected: Json| {
            assert_eq!(serde_json::to_value(&kind).unwrap(), expected);
            assert_eq!(serde_json::from_value::<BodyKind>(expected).unwrap(), kind);
        };
        check(BodyKind::Json, json!("json"));
        check(BodyKind::Form, json!("form"));
        check(BodyKind::Text, json!("text"));
        check(BodyKind::Binary, json!("binary"));
        check(
            BodyKind::Multipart { boundary: "b".to_owned() },
            json!({"multipart": {"boundary": "b"}}),
        );
        check(BodyKind::Jwt, json!("jwt"));
        check(json_in("p"), json!({"json_in": {"field": "p", "form": "urlencoded"}}));
        let names = || XmlNames::from([("kind", "/n/kind"), ("at", "/n/@at")]);
        check(
            base64_in("a.b", Document::Xml { names: names() }, None),
            json!({"base64_in": {
                "path": ["a", "b"],
                "document": {"xml": {"names": [["kind", "/n/kind"], ["at", "/n/@at"]]}},
                "form": null,
            }}),
        );
        check(
            BodyKind::Xml { names: names() },
            json!({"xml": {"names": [["kind", "/n/kind"], ["at", "/n/@at"]]}}),
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            text in "[-_A-Za-z0-9+/=. \\r\\n]{0,80}",
        ) {
            let names = || XmlNames::from([("a", "/a/b"), ("c", "/a/@c")]);
            let json = format!(r#"{{"d":{}}}"#, Json::from(text.as_str()));
            for kind in [
                BodyKind::Form,
                BodyKind::Jwt,
                json_in("a"),
                base64_in("d", Document::Json, None),
                base64_in("d", Document::Text, None),
                base64_in("d", Document::Xml { names: names() }, Some(FormSyntax::Urlencoded)),
            ] {
                for body in [&bytes[..], text.as_bytes(), json.as_bytes(), format!("a={text}").as_bytes()] {
                    if let Ok(payload) = kind.payload(body) {
                        drop(kind.fields(body, &payload));
                        drop(kind.json_text(body, &payload));
                    }
                }
            }
        }

        #[test]
        fn any_base64_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(base64(&BASE64.encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(base64(&BASE64_URL.encode(&bytes)), Some(bytes));
        }
    }
}

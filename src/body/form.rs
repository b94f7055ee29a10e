//! The one reader of forms, urlencoded and multipart: what verifies a field and what makes the payload see the same fields.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

/// How a form is written. It stands on disk as a part of [`super::BodyKind`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormSyntax {
    Urlencoded,
    /// RFC 7578. The boundary is empty where the Content-Type names none that can be one.
    Multipart {
        boundary: String,
    },
}

/// One field, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
    pub filename: Option<String>,
    pub content_type: Option<String>,
}

/// Parts of a multipart form: each costs far more than its bytes.
const PARTS_MAX: usize = 1_000;
/// Fields of an urlencoded form: each costs many times its bytes.
const FIELDS_MAX: usize = 10_000;
/// RFC 2046, 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

impl FormSyntax {
    /// That of a Content-Type which names a form.
    pub fn named(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Self::Urlencoded);
        }
        let boundary = || multer::parse_boundary(content_type).unwrap_or_default();
        media
            .eq_ignore_ascii_case("multipart/form-data")
            .then(|| Self::Multipart { boundary: boundary() })
    }
}

/// All fields of a body, or why they cannot be read, for a person.
pub fn fields(syntax: &FormSyntax, body: &[u8]) -> Result<Vec<Field>, String> {
    match syntax {
        FormSyntax::Urlencoded => {
            let pairs = url::form_urlencoded::parse(body).take(FIELDS_MAX + 1);
            let fields: Vec<Field> = pairs
                .map(|(name, value)| Field {
                    name: name.into_owned(),
                    value: value.into_owned().into_bytes(),
                    filename: None,
                    content_type: None,
                })
                .collect();
            match fields.len() {
                0..=FIELDS_MAX => Ok(fields),
                _ => Err(format!("the form has more than {FIELDS_MAX} fields")),
            }
        }
        FormSyntax::Multipart { boundary } => parts(boundary, body),
    }
}

/// Name → text, a list where a name is repeated. Of a part that is no text stands what it is.
pub(super) fn object(syntax: &FormSyntax, body: &[u8]) -> Result<Json, String> {
    let mut names: Map<String, Json> = Map::new();
    for field in fields(syntax, body)? {
        let value = match String::from_utf8(field.value) {
            Ok(text) => Json::String(text),
            Err(error) => {
                let bytes = error.as_bytes();
                json!({
                    "filename": field.filename,
                    "content_type": field.content_type,
                    "size": bytes.len(),
                    // Two files of one size are two: bodies are compared by their payloads.
                    "sha256": hex::encode(Sha256::digest(bytes)),
                })
            }
        };
        add(&mut names, field.name, value);
    }
    Ok(Json::Object(names))
}

/// The value of a name; a list of values where it has several.
pub(super) fn add(names: &mut Map<String, Json>, name: String, value: Json) {
    match names.get_mut(&name) {
        None => {
            names.insert(name, value);
        }
        Some(Json::Array(values)) => values.push(value),
        Some(first) => *first = Json::Array(vec![first.take(), value]),
    }
}

fn parts(boundary: &str, body: &[u8]) -> Result<Vec<Field>, String> {
    if !(1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) {
        let why = "the Content-Type names no `boundary` of at most 70 characters";
        return Err(format!("the multipart form cannot be read: {why}"));
    }
    let whole = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(body))]);
    let mut form = multer::Multipart::new(whole, boundary);
    let read = async {
        let mut fields = Vec::new();
        while let Some(part) = form.next_field().await.map_err(|error| error.to_string())? {
            if fields.len() == PARTS_MAX {
                return Err(format!("it has more than {PARTS_MAX} parts"));
            }
            let name = part.name().ok_or("a part has no name")?.to_owned();
            let filename = part.file_name().map(str::to_owned);
            let content_type = part
                .headers()
                .get(http::header::CONTENT_TYPE)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            let value = part.bytes().await.map_err(|error| error.to_string())?.to_vec();
            fields.push(Field { name, value, filename, content_type });
        }
        Ok(fields)
    };
    // All of it is there, so nothing is ever waited for; a reader that waits has met an end that it did not expect.
    let read = read.now_or_never().unwrap_or_else(|| Err("it ends in the middle".to_owned()));
    read.map_err(|why: String| format!("the multipart form cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn multipart() -> FormSyntax {
        FormSyntax::Multipart { boundary: "b7".to_owned() }
    }

    fn check(body: &[u8], expected: Option<Json>) {
        let read = object(&multipart(), body);
        assert_eq!(read.clone().ok(), expected, "{read:?} {}", String::from_utf8_lossy(body));
    }

    #[test]
    fn a_content_type_names_a_form() {
        let check = |text: &str, expected: Option<Option<&str>>| {
            let expected = expected.map(|boundary| match boundary {
                None => FormSyntax::Urlencoded,
                Some(boundary) => FormSyntax::Multipart { boundary: boundary.to_owned() },
            });
            assert_eq!(FormSyntax::named(text), expected, "{text}");
        };
        check("application/x-www-form-urlencoded; charset=utf-8", Some(None));
        check("Application/X-WWW-Form-Urlencoded", Some(None));
        check("multipart/form-data; boundary=----A1", Some(Some("----A1")));
        check("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"", Some(Some("a b")));
        check("multipart/form-data", Some(Some("")));
        check("multipart/mixed; boundary=a", None);
        check("application/json", None);
        check("", None);
    }

    #[test]
    fn parts_become_fields() {
        check(
            b"--b7\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b7\r\ncontent-disposition: form-data; name=b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b7\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b7--\r\n",
            Some(json!({"a": ["1", ""], "b": "{}"})),
        );
        check(
            b"--b7\r\nContent-Disposition: form-data; name=f; filename=\"x y.txt\"\r\n\r\ntext\r\n--b7\r\nContent-Disposition: form-data; name=g; filename=\"g.png\"\r\nContent-Type: image/png\r\n\r\n\xff\xd8\r\n--b7--",
            Some(json!({"f": "text", "g": {
                "filename": "g.png", "content_type": "image/png", "size": 2,
                "sha256": hex::encode(Sha256::digest(b"\xff\xd8")),
            }})),
        );
        check(b"--b7--", Some(json!({})));
    }

    #[test]
    fn what_is_no_form_is_said() {
        for body in [
            &b""[..],
            b"a=1",
            b"--b8\r\n",
            b"--b7\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
            b"--b7\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b7",
            b"--b7\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b7--",
            b"--b7\r\n\r\n1\r\n--b7--",
        ] {
            check(body, None);
        }
        let many = "--b7\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
        let read = |times| object(&multipart(), format!("{}--b7--", many.repeat(times)).as_bytes());
        assert!(read(PARTS_MAX).is_ok());
        assert!(read(PARTS_MAX + 1).is_err());
        for boundary in ["", &"b".repeat(71)] {
            let syntax = FormSyntax::Multipart { boundary: boundary.to_owned() };
            assert!(fields(&syntax, b"--\r\n").unwrap_err().contains("boundary"));
        }
    }

    proptest! {
        #[test]
        fn no_multipart_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            pieces in prop::collection::vec(prop::sample::select(vec![
                "--b7", "--", "\r\n", "\r", "\n", "\r\n\r\n", "Content-Disposition: form-data; name=", "\"a\"", "a",
                "; filename=", "\\\"", ":", " ", "Content-Type: x/y", "\u{fc}",
            ]), 0..30),
        ) {
            drop(object(&multipart(), &bytes));
            drop(object(&multipart(), pieces.concat().as_bytes()));
            drop(FormSyntax::named(&format!("multipart/form-data; boundary={}", pieces.concat())));
        }

        #[test]
        fn any_value_comes_back(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = b"--b7\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n".to_vec();
            body.extend(&value);
            body.extend(b"\r\n--b7--\r\n");
            prop_assume!(!value.windows(4).any(|part| part == b"--b7"));
            let fields = fields(&multipart(), &body).unwrap();
            prop_assert_eq!(&fields[0].value, &value);
        }
    }
}

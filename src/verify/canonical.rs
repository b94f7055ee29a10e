//! Forms of a request that the sender and the router can both make, so that one can sign and the other check what a proxy or
//! a parser may have written otherwise. Where a request has no such form, or two, there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use url::Url;

use super::request::{Found, Request, member, scalar};
use super::text::Selector;
use crate::body::form::Field;

#[derive(Clone, Debug, PartialEq)]
pub enum Canonical {
    /// The fields of the form, sorted by name: name and value without anything between. Of a name that is repeated its
    /// values, sorted, each once.
    SortedForm,
    /// PHP's `serialize` of the fields of the form without this one, sorted by name, all as strings.
    PhpSerialize { without: String },
    /// `name\nvalue\n` for each of these members of the JSON body; an optional one that is absent is left out.
    Lines(Vec<Line>),
    /// `name:value` joined by `;` for the headers that this header lists, in its order. Those that are required must be in
    /// the list.
    HeaderLines { list: String, required: Vec<String> },
    /// RFC 8785: JSON with sorted names and without blanks.
    Jcs,
    /// The method, the path and the sorted query without `jwt`, joined by `&` (what Atlassian Connect calls the canonical
    /// request).
    AtlassianRequest,
    /// The URL with what is sorted of query and form behind it, joined by `?` and `.` as it depends on which of them are there.
    PlivoV3,
}

impl Canonical {
    /// The whole body is in it.
    pub fn has_body(&self) -> bool {
        match self {
            Canonical::SortedForm
            | Canonical::PhpSerialize { .. }
            | Canonical::Lines(_)
            | Canonical::Jcs
            | Canonical::PlivoV3 => true,
            Canonical::HeaderLines { .. } | Canonical::AtlassianRequest => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub optional: bool,
}

/// How many fields, headers or names a canonical form takes.
const PIECES_MAX: usize = 10_000;

pub(super) fn write(form: &Canonical, request: &Request<'_>) -> Option<Vec<u8>> {
    match form {
        Canonical::SortedForm => {
            let mut sorted = sorted(fields(request)?)?;
            sorted.dedup();
            Some(joined(&sorted, "", "").into())
        }
        Canonical::PhpSerialize { without } => php_serialize(fields(request)?, without),
        Canonical::Lines(lines) => named_lines(lines, request.json()?),
        Canonical::HeaderLines { list, required } => header_lines(list, required, request),
        Canonical::Jcs => {
            let mut text = String::new();
            jcs(request.json()?, &mut text);
            Some(text.into())
        }
        Canonical::AtlassianRequest => Some(atlassian_request(request).into_bytes()),
        Canonical::PlivoV3 => plivo_v3(request).map(String::into_bytes),
    }
}

type Pair = (String, String);

/// The fields of the form as texts.
fn fields(request: &Request<'_>) -> Option<Vec<Pair>> {
    let text =
        |field: &Field| Some((field.name.clone(), String::from_utf8(field.value.clone()).ok()?));
    request.form().iter().map(text).collect()
}

/// By name, and of one name by value.
type Sorted = Vec<Pair>;

fn sorted(pairs: impl IntoIterator<Item = Pair>) -> Option<Sorted> {
    let mut sorted: Sorted = pairs.into_iter().take(PIECES_MAX + 1).collect();
    sorted.sort();
    (sorted.len() <= PIECES_MAX).then_some(sorted)
}

fn joined(sorted: &Sorted, assign: &str, between: &str) -> String {
    let pairs = sorted.iter().map(|(name, value)| format!("{name}{assign}{value}"));
    pairs.collect::<Vec<_>>().join(between)
}

fn php_serialize(pairs: Vec<Pair>, without: &str) -> Option<Vec<u8>> {
    if pairs.len() > PIECES_MAX {
        return None;
    }
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        // PHP would keep the last one; a sender that means another must not be believed.
        if name != without && fields.insert(name, value).is_some() {
            return None;
        }
    }
    let mut text = format!("a:{}:{{", fields.len());
    for (name, value) in &fields {
        for part in [name, value] {
            write!(text, "s:{}:\"{part}\";", part.len()).ok()?;
        }
    }
    text.push('}');
    Some(text.into())
}

fn named_lines(lines: &[Line], json: &Json) -> Option<Vec<u8>> {
    let mut text = String::new();
    for Line { name, optional } in lines {
        match member(json, &format!("$.{name}")).filter(|value| !value.is_null()) {
            None if *optional => {}
            None => return None,
            Some(value) => {
                let value = scalar(value)?;
                write!(text, "{name}\n{value}\n").ok()?;
            }
        }
    }
    Some(text.into())
}

fn header_lines(list: &str, required: &[String], request: &Request<'_>) -> Option<Vec<u8>> {
    let header = |name: &str| match request.find(&Selector::Header(name.to_ascii_lowercase())) {
        Found::Once(value) => String::from_utf8(value.into_owned()).ok(),
        Found::Absent | Found::Repeated => None,
    };
    let names = header(list)?;
    let names: Vec<String> =
        names.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    if names.len() > PIECES_MAX || !required.iter().all(|name| names.contains(name)) {
        return None;
    }
    let lines: Option<Vec<String>> =
        names.iter().map(|name| Some(format!("{name}:{}", header(name)?.trim()))).collect();
    Some(lines?.join(";").into_bytes())
}

/// RFC 8785.
fn jcs(json: &Json, text: &mut String) {
    match json {
        Json::Null => text.push_str("null"),
        Json::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Json::Number(number) => match number.as_f64() {
            // As ECMAScript writes a number, which is what the standard says.
            Some(number) => text.push_str(ryu_js::Buffer::new().format(number)),
            None => text.push_str(&number.to_string()),
        },
        Json::String(string) => quoted(string, text),
        Json::Array(items) => {
            text.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                jcs(item, text);
            }
            text.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (number, (name, value)) in members.into_iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                quoted(name, text);
                text.push(':');
                jcs(value, text);
            }
            text.push('}');
        }
    }
}

fn quoted(string: &str, text: &mut String) {
    text.push_str(&Json::String(string.to_owned()).to_string());
}

/// As the sender's own libraries put URL, query and form together: the `?` stands also before a form alone, the `.` only
/// between both.
fn plivo_v3(request: &Request<'_>) -> Option<String> {
    let url = Url::parse(&request.url()?).ok()?;
    let query = sorted(url.query_pairs().into_owned())?;
    let form = match request.received.method {
        // What a GET would bring in a body is not signed.
        http::Method::GET if !request.received.body.is_empty() => return None,
        http::Method::GET => Sorted::new(),
        _ => sorted(fields(request)?)?,
    };
    let mut base = url.clone();
    base.set_query(None);
    let mut text = base.to_string();
    if !query.is_empty() || !form.is_empty() {
        text.push('?');
        text.push_str(&joined(&query, "=", "&"));
    }
    if !query.is_empty() && !form.is_empty() {
        text.push('.');
    }
    text.push_str(&joined(&form, "", ""));
    Some(text)
}

/// Names sorted, of a repeated name the values sorted and joined by commas, all escaped but for unreserved characters
/// (RFC 3986, 2.3).
fn atlassian_request(request: &Request<'_>) -> String {
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let escaped = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.received.query.iter().filter(|(name, _)| name != "jwt") {
        query.entry(escaped(name)).or_default().push(escaped(value));
    }
    let pairs = query.into_iter().map(|(name, mut values)| {
        values.sort();
        format!("{name}={}", values.join(","))
    });
    let pairs: Vec<String> = pairs.collect();
    let path = request.raw_path().replace('&', "%26");
    let path = match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    format!("{}&{path}&{}", request.received.method, pairs.join("&"))
}

/// Decodes the escapes of the characters in `set`.
pub(super) fn url_decode(bytes: &[u8], set: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| *first == b'%');
        let byte = escape.and_then(|digits| hex::decode(digits).ok()?.first().copied());
        match byte.filter(|byte| set.as_bytes().contains(byte)) {
            Some(byte) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

pub(super) fn with_port(url: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(url).ok()?;
    let url = Url::parse(text).ok()?;
    if url.port().is_some() {
        return Some(text.to_owned());
    }
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let at = text.find(host)? + host.len();
    Some(format!("{}:{port}{}", text.get(..at)?, text.get(at..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_set_alone_are_decoded() {
        let check = |text: &str, expected: &str| {
            assert_eq!(url_decode(text.as_bytes(), ":/?@"), expected.as_bytes(), "{text}");
        };
        check("https%3A%2F%2fa%20b", "https://a%20b");
        check("%", "%");
        check("%3", "%3");
        check("%3A", ":");
        check("%zz%3a", "%zz:");
        check("", "");
    }

    #[test]
    fn a_port_is_written_out() {
        let check = |text: &str, expected: &str| {
            assert_eq!(with_port(text.as_bytes()).as_deref(), Some(expected), "{text}");
        };
        check("https://a.example/b?c=d", "https://a.example:443/b?c=d");
        check("http://a.example/", "http://a.example:80/");
        check("https://a.example:8443/", "https://a.example:8443/");
        assert_eq!(with_port(b"no url"), None);
    }

    #[test]
    fn jcs_is_as_rfc_8785_has_it() {
        // Its own sample (3.2.2 and 3.2.3).
        let sample: Json = serde_json::from_str(
            r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
        )
        .unwrap();
        let mut text = String::new();
        jcs(&sample, &mut text);
        assert_eq!(
            text,
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        let names: Json =
            serde_json::from_str(r#"{"\ufb33":1,"\ud83d\ude00":2,"\u20ac":3,"1":4,"\r":5}"#)
                .unwrap();
        let mut text = String::new();
        jcs(&names, &mut text);
        assert_eq!(text, "{\"\\r\":5,\"1\":4,\"€\":3,\"😀\":2,\"\u{fb33}\":1}");
    }

    #[test]
    fn php_serializes_sorted_fields() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = vec![pair("b", "2"), pair("p_signature", "x"), pair("a", "jön")];
        let text = php_serialize(pairs, "p_signature").unwrap();
        assert_eq!(text, "a:2:{s:1:\"a\";s:4:\"jön\";s:1:\"b\";s:1:\"2\";}".as_bytes());
        assert_eq!(php_serialize(vec![pair("a", "1"), pair("a", "2")], ""), None);
    }
}

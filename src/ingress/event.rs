//! A verified request → the event (under `split`: the events) as it will be stored, with its identities and the deliveries
//! of its routes. Pure.
//!
//! What cannot be read (payload, id, type or time) makes the event malformed: it is kept for a person and has no
//! deliveries. Of a name that stands twice in a JSON object the last value counts, here and everywhere after.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::canonical::canonical;
use super::elements;
use crate::body::{BodyKind, BodyRule, Covers};
use crate::config::{EventRules, IdRule, MissingId, OnMalformed, Route, Source};
use crate::envelope::{Envelope, Identity};
use crate::extract::{ExtractFault, Extraction, From, Input};
use crate::name::{CorrelationId, EventId, Uid};
use crate::store::{NewDelivery, NewEvent};
use crate::template::context::Context;
use crate::verify::{Received, Verified};

/// What stands for a credential.
const REDACTED: &str = "[redacted]";
/// A longer id is replaced by its hash: it is a key in the store and in calls.
const ID_BYTES_MAX: usize = 255;
const CORRELATION_CHARS_MAX: usize = 128;

/// Why the source wants an authentic request refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(String),
    MissingId,
    /// `event.split` makes so many events of it.
    TooMany(usize),
}

/// The event of a request; under `event.split` those of its elements, which may be none. `uid` is asked for each.
pub fn new_events(
    source: &Source,
    routes: &[Arc<Route>],
    verified: &Verified,
    split_max: usize,
    mut uid: impl FnMut() -> Uid,
) -> Result<Vec<NewEvent>, Refused> {
    let received = verified.received();
    let first = uid();
    let request = Request {
        source,
        routes,
        received,
        headers: headers(verified),
        query: query(verified),
        correlation_id: correlation_id(&received.headers, first),
    };
    let (kind, payload) = read_payload(source.body.as_ref(), received);
    let (Some(path), Ok(whole)) = (&source.event.split, &payload) else {
        let digest = match (received.body.is_empty(), received.target.split_once('?')) {
            // What a request without a body says stands in its query.
            (true, Some((_, query))) => Sha256::digest(format!("?{query}")).into(),
            _ => digest_body(&kind, payload.as_ref().ok(), &received.body, &source.event),
        };
        let piece = Piece {
            kind,
            payload: payload.as_ref().map_err(Clone::clone),
            body: received.body.clone(),
            digest,
            derived_id: hex::encode(digest),
        };
        return Ok(vec![request.event(piece, first)?]);
    };

    let Some(text) = kind.json_text(&received.body, whole) else {
        // The check lets no such source through.
        return Err(Refused::Malformed("the body is nothing that can be split".to_owned()));
    };
    let elements = elements::hits(path, whole);
    if elements.len() > split_max {
        return Err(Refused::TooMany(elements.len()));
    }
    let places = elements::places(&text, whole, &elements);
    let mut equals: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut uids = std::iter::once(first).chain(std::iter::repeat_with(uid));
    let mut events = Vec::with_capacity(elements.len());
    for ((element, place), uid) in elements.into_iter().zip(places).zip(&mut uids) {
        // A copy: a part of the body would keep all of it in memory for as long as one of its events.
        let body = Bytes::copy_from_slice(text.get(place).unwrap_or_default());
        let kind = BodyKind::Json;
        let digest = digest_body(&kind, Some(element), &body, &source.event);
        let number = equals.entry(digest).or_default();
        *number += 1;
        let derived_id = format!("{}-{number}", hex::encode(digest));
        events.push(
            request.event(Piece { kind, payload: Ok(element), body, digest, derived_id }, uid)?,
        );
    }
    Ok(events)
}

/// What all events of one request share.
struct Request<'a> {
    source: &'a Source,
    routes: &'a [Arc<Route>],
    received: &'a Received,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    correlation_id: CorrelationId,
}

/// What becomes one event: a whole body, or an element of one.
struct Piece<'a> {
    kind: BodyKind,
    /// Or why it cannot be read.
    payload: Result<&'a Json, String>,
    body: Bytes,
    digest: [u8; 32],
    /// What stands for the id where none is found: the digest, of an element with its number among its equals, so that
    /// two that look alike in one POST are two, and a resend of both is no third.
    derived_id: String,
}

impl Request<'_> {
    fn event(&self, piece: Piece<'_>, uid: Uid) -> Result<NewEvent, Refused> {
        let Self { source, received, .. } = self;
        let mut trouble = Trouble::default();
        let payload = match piece.payload {
            Ok(payload) => payload,
            Err(why) => {
                trouble.note(why);
                &Json::Null
            }
        };
        let fields = piece.kind.fields(&piece.body, payload);
        let mut reader = Reader {
            payload,
            form: fields.as_deref(),
            headers: &self.headers,
            query: &self.query,
            path: &received.path,
            context: Context::new(received.received_at, &uid.to_string()),
        };
        let templated = templated(&source.event);
        if templated {
            reader.context.set("payload", payload);
            reader.context.set("headers", &object(&self.headers));
            reader.context.set("query", &object(&self.query));
            reader.context.set("path", &object(&received.path));
        }
        let mut about = json!({
            "source": source.name.as_str(),
            "received_at": received.received_at.to_string(),
        });
        let event_type = reader.optional(source.event.type_.as_ref(), "type", &mut trouble);
        let event_type = event_type.unwrap_or_default();
        let occurred_at = reader
            .optional(source.event.occurred_at.as_ref(), "occurred_at", &mut trouble)
            .and_then(|text| match text.parse::<Timestamp>() {
                Ok(time) => Some(time),
                Err(_) => {
                    trouble.note("event.occurred_at did not give a time".to_owned());
                    None
                }
            });
        if templated {
            about["type"] = event_type.as_str().into();
            about["occurred_at"] = occurred_at.map(|time| time.to_string()).into();
            reader.context.set("event", &about);
        }

        let derived_id = piece.derived_id;
        let found = event_id(&source.event, &reader, &derived_id, uid, &mut trouble).map(short);
        if templated {
            about["id"] = found.clone().into();
            reader.context.set("event", &about);
        }
        let mut further = Vec::new();
        for rule in &source.event.same_as {
            match reader.text(rule) {
                Ok(Some(text)) if !text.is_empty() => further.push(Identity::SameAs(short(text))),
                Ok(_) => {}
                Err(fault) => trouble.note(format!("event.same_as: {fault}")),
            }
        }
        if let (OnMalformed::Reject, Some(why)) = (source.on_malformed, &trouble.first) {
            return Err(Refused::Malformed(why.clone()));
        }
        let event_id = match (found, source.event.missing_id) {
            (Some(id), _) => id,
            (None, MissingId::Derive) => derived_id,
            (None, MissingId::Review) => {
                trouble.note("the source's rules found no event id".to_owned());
                derived_id
            }
            // What could not be read at all has no id to miss.
            (None, MissingId::Reject) if trouble.first.is_some() => derived_id,
            (None, MissingId::Reject) => return Err(Refused::MissingId),
        };
        let mut identities = vec![Identity::Id { id: event_id.clone(), body: None }];
        identities.append(&mut further);

        let body_hash = hex::encode(piece.digest);
        let deliveries = match trouble.first {
            Some(_) => Vec::new(),
            None => self
                .routes
                .iter()
                .filter(|route| route.on.matches(&event_type))
                .map(|route| NewDelivery {
                    route: route.name.clone(),
                    revision: route.revision.clone(),
                    key_base: key_base(source, received, &event_id, None),
                    key_base_with_body: key_base(source, received, &event_id, Some(&body_hash)),
                })
                .collect(),
        };
        let envelope = Envelope {
            uid,
            event_id: EventId::from(event_id),
            event_type,
            source: source.name.clone(),
            occurred_at,
            received_at: received.received_at,
            correlation_id: self.correlation_id.clone(),
            method: received.method.to_string(),
            path: received.path.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body_kind: piece.kind,
            body: piece.body,
            malformed: trouble.first,
        };
        Ok(NewEvent {
            envelope,
            identities,
            body_digest: piece.digest,
            on_conflict: source.event.on_conflict,
            deliveries,
        })
    }
}

/// The first thing that could not be read; what follows is mostly its echo.
#[derive(Default)]
struct Trouble {
    first: Option<String>,
}

impl Trouble {
    fn note(&mut self, why: String) {
        self.first.get_or_insert(why);
    }
}

/// The kind of the body and what is in it. Without a `body` in the source the Content-Type decides; where there is none
/// either, a body that reads as JSON is JSON and any other is bytes.
fn read_payload(rule: Option<&BodyRule>, received: &Received) -> (BodyKind, Result<Json, String>) {
    let content_type = received.content_type();
    let content_type = content_type.as_deref();
    let kind = match (rule, content_type) {
        (Some(rule), _) => Some(rule.kind(content_type)),
        (None, Some(content_type)) => Some(kind_of(content_type)),
        (None, None) => None,
    };
    match kind {
        Some(kind) => {
            let payload = kind.payload(&received.body);
            (kind, payload)
        }
        None => match BodyKind::Json.payload(&received.body) {
            Ok(payload) => (BodyKind::Json, Ok(payload)),
            Err(_) => (BodyKind::Binary, BodyKind::Binary.payload(&received.body)),
        },
    }
}

fn kind_of(content_type: &str) -> BodyKind {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/json" | "text/json" => BodyKind::Json,
        "application/x-www-form-urlencoded" | "multipart/form-data" => {
            BodyRule::Form.kind(Some(content_type))
        }
        _ if media.ends_with("+json") => BodyKind::Json,
        _ if media.starts_with("text/") => BodyKind::Text,
        _ => BodyKind::Binary,
    }
}

fn digest_body(
    kind: &BodyKind,
    payload: Option<&Json>,
    body: &[u8],
    rules: &EventRules,
) -> [u8; 32] {
    match (kind.covers(), payload) {
        // What the source did not name may differ, and two such bodies are not one. Where it says what is volatile, it
        // speaks of the payload, so that is what is compared.
        (Covers::Part, Some(_)) if rules.volatile.is_empty() => Sha256::digest(body).into(),
        (Covers::All | Covers::Part, Some(payload)) => {
            let volatile: Vec<&Json> =
                rules.volatile.iter().flat_map(|path| path.hits(payload)).collect();
            Sha256::digest(canonical(payload, &volatile)).into()
        }
        (Covers::Bytes, _) | (_, None) => Sha256::digest(body).into(),
    }
}

/// What the source's extractions read.
struct Reader<'a> {
    payload: &'a Json,
    form: Option<&'a Json>,
    headers: &'a [(String, String)],
    query: &'a [(String, String)],
    path: &'a [(String, String)],
    context: Context,
}

impl Reader<'_> {
    fn value(&self, rule: &Extraction) -> Result<Option<Json>, ExtractFault> {
        let found = rule.apply(&Input {
            payload: self.payload,
            envelope_headers: self.headers,
            query: self.query,
            path: self.path,
            form: self.form,
            context: &self.context,
        })?;
        Ok(found.filter(|value| !value.is_null()))
    }

    /// A single value as text.
    fn text(&self, rule: &Extraction) -> Result<Option<String>, String> {
        match self.value(rule).map_err(|fault| fault.to_string())? {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(Json::Number(number)) => Ok(Some(number.to_string())),
            Some(Json::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(Json::Array(_)) => Err("it is a list, not one value".to_owned()),
            Some(Json::Object(_)) => Err("it is an object, not one value".to_owned()),
        }
    }

    fn optional(
        &self,
        rule: Option<&Extraction>,
        name: &str,
        trouble: &mut Trouble,
    ) -> Option<String> {
        self.text(rule?).unwrap_or_else(|fault| {
            trouble.note(format!("event.{name}: {fault}"));
            None
        })
    }
}

/// By the first rule that yields. An empty text yields nothing: it would make strangers look alike.
fn event_id(
    rules: &EventRules,
    reader: &Reader<'_>,
    derived_id: &str,
    uid: Uid,
    trouble: &mut Trouble,
) -> Option<String> {
    for rule in &rules.id {
        let found = match rule {
            IdRule::Extract(rule) => reader.text(rule),
            IdRule::HashBody => Ok(Some(derived_id.to_owned())),
            IdRule::Arrival => Ok(Some(uid.to_string())),
            IdRule::Hash(rules) => hash_values(rules, reader),
        };
        match found {
            Ok(Some(id)) if !id.is_empty() => return Some(id),
            Ok(_) => {}
            Err(fault) => trouble.note(format!("event.id: {fault}")),
        }
    }
    None
}

fn hash_values(rules: &[Extraction], reader: &Reader<'_>) -> Result<Option<String>, String> {
    let mut hash = Sha256::new();
    let mut any = false;
    for rule in rules {
        let value = reader.value(rule).map_err(|fault| fault.to_string())?;
        any |= value.is_some();
        add(&mut hash, &canonical(&value.unwrap_or(Json::Null), &[]));
    }
    Ok(any.then(|| hex::encode(hash.finalize())))
}

fn short(id: String) -> String {
    if id.len() <= ID_BYTES_MAX { id } else { hex::encode(Sha256::digest(&id)) }
}

/// What derived idempotency keys start with. Every part is preceded by its length, so no two lists of parts are alike.
fn key_base(source: &Source, received: &Received, id: &str, body_hash: Option<&str>) -> String {
    let mut hash = Sha256::new();
    add(&mut hash, source.name.as_str());
    hash.update((received.path.len() as u64).to_be_bytes());
    for (name, value) in &received.path {
        add(&mut hash, name);
        add(&mut hash, value);
    }
    add(&mut hash, id);
    if let Some(body_hash) = body_hash {
        add(&mut hash, body_hash);
    }
    hex::encode(hash.finalize())
}

fn add(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// Names in lower case (hyper's own), values as text, credentials blotted out.
fn headers(verified: &Verified) -> Vec<(String, String)> {
    verified
        .received()
        .headers
        .iter()
        .map(|(name, value)| {
            let secret = verified.secret_headers().iter().any(|secret| secret == name.as_str());
            let value = if secret {
                REDACTED.to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

fn query(verified: &Verified) -> Vec<(String, String)> {
    verified
        .received()
        .query
        .iter()
        .map(|(name, value)| {
            let secret = verified.secret_query().contains(name);
            (name.clone(), if secret { REDACTED.to_owned() } else { value.clone() })
        })
        .collect()
}

/// Pairs as a template reads them; of a repeated name the first counts.
fn object(pairs: &[(String, String)]) -> Json {
    let mut object = serde_json::Map::new();
    for (name, value) in pairs {
        object.entry(name).or_insert_with(|| Json::from(value.as_str()));
    }
    Json::Object(object)
}

/// Whether any rule renders a template; only then the names of templates are made.
fn templated(rules: &EventRules) -> bool {
    fn one(rule: &Extraction) -> bool {
        matches!(rule.from, From::Value(_)) || rule.each.iter().flatten().any(|(_, rule)| one(rule))
    }
    let ids = rules.id.iter().flat_map(|rule| match rule {
        IdRule::Extract(rule) => std::slice::from_ref(rule),
        IdRule::HashBody | IdRule::Arrival => &[],
        IdRule::Hash(rules) => rules,
    });
    ids.chain(&rules.same_as).chain(&rules.type_).chain(&rules.occurred_at).any(one)
}

/// The sender's own id where it is a token that can be logged and sent on; else the trace it belongs to; else the
/// uid of the (first) event.
fn correlation_id(headers: &HeaderMap, uid: Uid) -> CorrelationId {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/+=@".contains(c);
        (1..=CORRELATION_CHARS_MAX).contains(&id.len()) && id.chars().all(allowed)
    };
    if let Some(id) = text("x-correlation-id").filter(sane) {
        return CorrelationId::from(id);
    }
    // W3C Trace Context: version-traceid-parentid-flags.
    let trace = text("traceparent").and_then(|parent| parent.split('-').nth(1)).filter(|trace| {
        trace.len() == 32
            && trace.bytes().all(|byte| byte.is_ascii_hexdigit())
            && trace.bytes().any(|byte| byte != b'0')
    });
    trace.map_or_else(|| CorrelationId::from(uid.to_string()), CorrelationId::from)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::body::Document;
    use crate::body::xml::{XmlNames, XmlPath};

    fn received(headers: &[(&'static str, &str)], body: &[u8]) -> Received {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Received {
            method: Method::POST,
            target: "/".to_owned(),
            path: Vec::new(),
            query: Vec::new(),
            headers: map,
            body: Bytes::copy_from_slice(body),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_content_type_says_how_a_body_is_read() {
        let check =
            |content_type: Option<&str>, body: &[u8], expected: (BodyKind, Option<Json>)| {
                let headers: Vec<_> =
                    content_type.map(|value| ("content-type", value)).into_iter().collect();
                let (kind, payload) = read_payload(None, &received(&headers, body));
                assert_eq!((kind, payload.ok()), expected, "{content_type:?} {body:?}");
            };
        check(Some("application/json"), b"[1]", (BodyKind::Json, Some(json!([1]))));
        check(Some("Application/JSON; charset=utf-8"), b"{", (BodyKind::Json, None));
        check(Some("application/cloudevents+json"), b"1", (BodyKind::Json, Some(json!(1))));
        check(
            Some("application/x-www-form-urlencoded"),
            b"a=1&a=2&b=%20",
            (BodyKind::Form, Some(json!({"a": ["1", "2"], "b": " "}))),
        );
        check(
            Some("multipart/form-data; boundary=b"),
            b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--",
            (BodyKind::Multipart { boundary: "b".to_owned() }, Some(json!({"a": "1"}))),
        );
        check(
            Some("multipart/form-data"),
            b"--b--",
            (BodyKind::Multipart { boundary: String::new() }, None),
        );
        check(Some("text/plain"), b"hi", (BodyKind::Text, Some(json!("hi"))));
        check(Some("text/plain"), b"\xff", (BodyKind::Text, None));
        check(Some("image/png"), b"\xff", (BodyKind::Binary, Some(Json::Null)));
        check(None, b"{}", (BodyKind::Json, Some(json!({}))));
        check(None, b"hi", (BodyKind::Binary, Some(Json::Null)));
        // Of a name that stands twice the last value counts.
        check(None, br#"{"a":1,"a":2}"#, (BodyKind::Json, Some(json!({"a": 2}))));
    }

    #[test]
    fn bodies_are_compared_by_what_they_say() {
        let check = |rule: BodyRule, volatile: &[&str], one: &str, other: &str, same: bool| {
            let rules = EventRules {
                id: Vec::new(),
                missing_id: MissingId::Derive,
                same_as: Vec::new(),
                volatile: volatile
                    .iter()
                    .map(|path| crate::extract::jsonpath::JsonPath::parse(path).unwrap().0)
                    .collect(),
                on_conflict: crate::envelope::OnConflict::Review,
                split: None,
                type_: None,
                occurred_at: None,
            };
            let digest = |body: &str| {
                let (kind, payload) = read_payload(Some(&rule), &received(&[], body.as_bytes()));
                digest_body(&kind, Some(&payload.unwrap()), body.as_bytes(), &rules)
            };
            assert_eq!(digest(one) == digest(other), same, "{rule:?} {one} {other}");
        };
        check(BodyRule::Json, &[], r#"{"a":1,"b":2}"#, r#"{ "b":2, "a":1 }"#, true);
        check(BodyRule::Text, &[], "a", "a ", false);
        // Signed anew, with the same claims.
        check(BodyRule::Jwt, &[], "a.e30.x", "b.e30.y", true);
        let json_in = || BodyRule::JsonIn { field: "p".to_owned() };
        check(json_in(), &[], "p=%7B%7D&t=1", "t=2&p=%20{}", true);
        check(json_in(), &["$.n"], "p={\"n\":1}", "p={\"n\":2}", true);
        let base64_in = |document| BodyRule::Base64In { path: vec!["d".to_owned()], document };
        check(base64_in(Document::Json), &[], r#"{"d":"e30="}"#, r#"{"d":"eyB9"}"#, true);
        // What is not read of XML may differ, and then it is not the same.
        let names = || XmlNames(vec![("a".to_owned(), XmlPath::parse("/n/a").unwrap())]);
        let xml = || BodyRule::Xml { names: names() };
        check(xml(), &[], "<n><a>1</a><b>1</b></n>", "<n><a>1</a><b>2</b></n>", false);
        check(xml(), &["$.b"], "<n><a>1</a><b>1</b></n>", "<n><a>1</a><b>2</b></n>", true);
        check(xml(), &["$.b"], "<n><a>1</a></n>", "<n><a>2</a></n>", false);
        let in_form = || base64_in(Document::Xml { names: names() });
        check(in_form(), &[], r#"{"d":"PG4vPg=="}"#, r#"{"d":"PG4gLz4="}"#, false);
    }

    #[test]
    fn only_sane_ids_correlate() {
        let uid = Uid(Uuid::nil());
        let check = |headers: &[(&'static str, &str)], expected: Option<&str>| {
            let found = correlation_id(&received(headers, b"").headers, uid);
            assert_eq!(found.as_str(), expected.unwrap_or(&uid.to_string()), "{headers:?}");
        };
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let long = "a".repeat(129);
        check(&[("x-correlation-id", "order-7")], Some("order-7"));
        check(&[("x-correlation-id", "order-7"), ("traceparent", trace)], Some("order-7"));
        check(&[("traceparent", trace)], Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for (name, value) in [
            ("x-correlation-id", ""),
            ("x-correlation-id", "two words"),
            ("x-correlation-id", "<b>"),
            ("x-correlation-id", "\u{fc}"),
            ("x-correlation-id", long.as_str()),
            ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            ("traceparent", "00-4bf9-1-1"),
            ("traceparent", ""),
        ] {
            check(&[(name, value)], None);
        }
    }

    #[test]
    fn long_ids_are_hashed() {
        assert_eq!(short("a".repeat(255)), "a".repeat(255));
        assert_eq!(short("a".repeat(256)).len(), 64);
        assert_ne!(short("a".repeat(256)), short("a".repeat(257)));
    }

    proptest! {
        #[test]
        fn no_body_or_header_panics(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let mut received = received(&[], &body);
            for name in ["content-type", "x-correlation-id", "traceparent"] {
                received.headers.insert(name, value.clone());
            }
            let correlation = correlation_id(&received.headers, Uid(Uuid::nil()));
            prop_assert!((1..=CORRELATION_CHARS_MAX).contains(&correlation.as_str().len()));
            for rule in [None, Some(BodyRule::Json), Some(BodyRule::Form), Some(BodyRule::Text)] {
                if let (_, Ok(payload)) = read_payload(rule.as_ref(), &received) {
                    let text = canonical(&payload, &[]);
                    prop_assert!(serde_json::from_str::<Json>(&text).is_ok());
                }
            }
        }
    }
}

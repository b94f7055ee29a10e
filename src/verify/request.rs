//! What a scheme may look at: the request, the keys, the source's URL, and under `for_each` the element at hand.

use std::borrow::Cow;
use std::cell::OnceCell;

use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::Value as Json;
use url::Url;

use super::Received;
use super::fetched::Fetched;
use super::scheme::{JsonStep, json_place};
use super::text::Selector;
use crate::body::form::{self, Field, FormSyntax};
use crate::body::{BodyKind, BodyRule};
use crate::secret::{SecretRef, SecretValue, Vault};

/// The keys that a verification may use.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// What the configuration names.
    pub vault: &'a Vault,
    /// What handshakes brought for this source and path, the newest first.
    pub captured: &'a [SecretValue],
    /// What was fetched for this request.
    pub fetched: &'a Fetched,
    /// Of a sender: its private key, where the router fetches the public one.
    pub private: Option<&'a SecretValue>,
}

impl<'a> Keys<'a> {
    /// Those of the configuration alone.
    pub fn of(vault: &'a Vault) -> Self {
        Self { vault, captured: &[], fetched: Fetched::NOTHING, private: None }
    }
}

/// What a source says of its requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The source's URL as the provider knows it; the query that came stands for its own.
    pub public_url: Option<&'a Url>,
    /// How bodies are read: of a form with JSON in a field, `json:` reads that field.
    pub body: Option<&'a BodyRule>,
}

pub(super) struct Request<'a> {
    pub(super) received: &'a Received,
    pub(super) keys: Keys<'a>,
    pub(super) about: About<'a>,
    pub(super) now: Timestamp,
    /// The element that stands for the body where JSON is read.
    element: Option<&'a Json>,
    /// The body is parsed once, and only where something asks for it. `None`: it is no JSON.
    json: OnceCell<Option<Json>>,
    form: OnceCell<Option<Vec<Field>>>,
}

/// How often something that must be there once is there.
#[derive(Debug, PartialEq)]
pub(super) enum Found<T> {
    Absent,
    Once(T),
    Repeated,
}

pub(super) fn once<T>(mut values: impl Iterator<Item = T>) -> Found<T> {
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => Found::Once(value),
        (Some(_), Some(_)) => Found::Repeated,
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(
        received: &'a Received,
        keys: Keys<'a>,
        about: About<'a>,
        now: Timestamp,
    ) -> Self {
        let (json, form) = (OnceCell::new(), OnceCell::new());
        Self { received, keys, about, now, element: None, json, form }
    }

    /// The same request, of whose JSON only `element` is looked at.
    pub(super) fn within<'b>(&'b self, element: &'b Json) -> Request<'b> {
        Request {
            received: self.received,
            keys: self.keys,
            about: self.about,
            now: self.now,
            element: Some(element),
            json: OnceCell::new(),
            form: OnceCell::new(),
        }
    }

    pub(super) fn secret(&self, reference: &SecretRef) -> Option<&'a SecretValue> {
        self.keys.vault.get(reference)
    }

    /// The JSON that the scheme reads; `None` where the body is none.
    pub(super) fn json(&self) -> Option<&Json> {
        let read = || {
            let body = &self.received.body;
            match self.about.body {
                Some(rule @ BodyRule::JsonIn { .. }) => {
                    rule.kind(self.received.content_type().as_deref()).payload(body).ok()
                }
                // Whose payload is a form is read as nothing else.
                None if self.form_syntax().is_some() => None,
                _ => serde_json::from_slice(body).ok(),
            }
        };
        match self.element {
            Some(element) => Some(element),
            None => self.json.get_or_init(read).as_ref(),
        }
    }

    /// The fields of the form. `None`: the payload is read as no form, or cannot be; what proves the sender must stand in
    /// what becomes the event.
    pub(super) fn form(&self) -> Option<&[Field]> {
        let read = || form::fields(&self.form_syntax()?, &self.received.body).ok();
        self.form.get_or_init(read).as_deref()
    }

    fn form_syntax(&self) -> Option<FormSyntax> {
        let content_type = self.received.content_type();
        let Some(rule) = self.about.body else {
            return content_type.as_deref().and_then(FormSyntax::named);
        };
        match rule.kind(content_type.as_deref()) {
            BodyKind::Form => Some(FormSyntax::Urlencoded),
            BodyKind::Multipart { boundary } => Some(FormSyntax::Multipart { boundary }),
            BodyKind::JsonIn { form, .. } => Some(form),
            BodyKind::Base64In { form, .. } => form,
            BodyKind::Json
            | BodyKind::Text
            | BodyKind::Binary
            | BodyKind::Jwt
            | BodyKind::Xml { .. } => None,
        }
    }

    /// The one value at a place. A second header or parameter of a name is never guessed about: which one the sender and the
    /// router would each mean differs.
    pub(super) fn find(&self, selector: &Selector) -> Found<Cow<'a, [u8]>> {
        once(self.find_all(selector).into_iter())
    }

    pub(super) fn find_all(&self, selector: &Selector) -> Vec<Cow<'a, [u8]>> {
        let Received { headers, query, path, .. } = self.received;
        match selector {
            Selector::Header(name) => {
                headers.get_all(name.as_str()).iter().map(|value| value.as_bytes().into()).collect()
            }
            Selector::ContentType => headers
                .get_all(CONTENT_TYPE)
                .iter()
                .map(|value| media_type(value.as_bytes()).into())
                .collect(),
            Selector::Query(name) => {
                let values = query.iter().filter(|(key, _)| key == name);
                values.map(|(_, value)| value.as_bytes().into()).collect()
            }
            Selector::PathPart(name) => {
                let values = path.iter().filter(|(key, _)| key == name);
                values.map(|(_, value)| value.as_bytes().into()).collect()
            }
            Selector::Form(name) => {
                let fields =
                    self.form().unwrap_or_default().iter().filter(|field| field.name == *name);
                fields.map(|field| field.value.clone().into()).collect()
            }
            Selector::Json(path) => {
                let found = self.json().and_then(|json| member(json, path)).and_then(scalar);
                found.map(|text| text.into_bytes().into()).into_iter().collect()
            }
        }
    }

    /// The source's URL with the query that came: what is read of the request is what was signed.
    pub(super) fn url(&self) -> Option<String> {
        let url = self.about.public_url?;
        let Some(query) = self.raw_query() else { return Some(url.to_string()) };
        let mut base = url.clone();
        base.set_query(None);
        Some(format!("{base}?{query}"))
    }

    /// The path as it came, without the query.
    pub(super) fn raw_path(&self) -> &'a str {
        let target = &self.received.target;
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    fn raw_query(&self) -> Option<&'a str> {
        self.received.target.split_once('?').map(|(_, query)| query)
    }
}

impl Received {
    /// By which the body is read, here and everywhere after.
    pub fn content_type(&self) -> Option<Cow<'_, str>> {
        let value = self.headers.get(CONTENT_TYPE)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }
}

/// `text/html; charset=utf-8` → `text/html`
fn media_type(value: &[u8]) -> Vec<u8> {
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media.trim_ascii().to_ascii_lowercase()
}

/// What stands at a path of names and places (see [`super::scheme::json_place`]).
pub(super) fn member<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    json_place(path)?.into_iter().try_fold(json, |json, step| match step {
        JsonStep::Name(name) => json.get(name),
        JsonStep::Index(index) => json.get(index),
    })
}

/// A text or a number, as text.
pub(super) fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

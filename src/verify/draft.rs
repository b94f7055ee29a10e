//! A request that is being made: what it has, and what is put into it so that its sender proves itself.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use url::{Url, form_urlencoded};

use super::Received;
use super::request::About;
use super::scheme::plain_members;
use super::sign::SignError;
use super::text::Selector;
use crate::body::BodyRule;
use crate::body::form::FormSyntax;

/// A request before its sender proves itself.
#[derive(Clone, Debug)]
pub struct Unsigned {
    pub method: Method,
    /// The source's URL as the provider knows it, query included.
    pub url: Url,
    /// The `{name}` parts of the source's path.
    pub path: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The id to sign where the scheme signs one (`{id}`) and no header gives it yet.
    pub id: String,
    /// How the source reads bodies.
    pub body_rule: Option<BodyRule>,
}

/// What the request needs besides what it has: set these headers and query parameters, send this body.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    pub headers: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    /// The same body, but for what proves the sender and stands in it.
    pub body: Bytes,
}

/// A request that is being signed.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) unsigned: Unsigned,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl Draft {
    pub(super) fn of(unsigned: &Unsigned) -> Self {
        Self { unsigned: unsigned.clone(), headers: Vec::new(), query: Vec::new() }
    }

    pub(super) fn proof(self) -> Proof {
        Proof { headers: self.headers, query: self.query, body: self.unsigned.body }
    }

    /// The same, of JSON a whole number as one: so a provider writes it.
    pub(super) fn set_plain(&mut self, at: &Selector, value: String) -> Result<(), SignError> {
        match (at, value.parse::<i64>()) {
            (Selector::Json(path), Ok(number)) if number.to_string() == value => {
                self.set_json(at, path, json!(number))
            }
            _ => self.set(at, value),
        }
    }

    fn set_json(&mut self, at: &Selector, path: &str, value: Json) -> Result<(), SignError> {
        let no_room = || SignError::Place(at.to_string());
        let field = match &self.unsigned.body_rule {
            Some(BodyRule::JsonIn { field }) => field.clone(),
            _ => {
                let placed = place(&self.unsigned.body, path, value);
                self.unsigned.body = placed.ok_or_else(no_room)?;
                return Ok(());
            }
        };
        let text = form_urlencoded::parse(&self.unsigned.body)
            .find_map(|(name, text)| (*name == field).then(|| text.into_owned()))
            .ok_or_else(no_room)?;
        let placed = place(text.as_bytes(), path, value).ok_or_else(no_room)?;
        let placed = String::from_utf8_lossy(&placed).into_owned();
        self.set(&Selector::Form(field), placed)
    }

    pub(super) fn set(&mut self, at: &Selector, value: String) -> Result<(), SignError> {
        let no_room = || SignError::Place(at.to_string());
        match at {
            Selector::Header(name) => {
                let (known, written) = (HeaderName::try_from(name), HeaderValue::try_from(&value));
                let (Ok(known), Ok(written)) = (known, written) else { return Err(no_room()) };
                self.unsigned.headers.insert(known, written);
                self.headers.push((name.clone(), value));
            }
            Selector::Query(name) => {
                self.unsigned.url.query_pairs_mut().append_pair(name, &value);
                self.query.push((name.clone(), value));
            }
            Selector::Json(path) => self.set_json(at, path, Json::String(value))?,
            Selector::Form(name) => {
                let content_type = self.unsigned.headers.get(http::header::CONTENT_TYPE);
                let syntax = content_type.and_then(|it| FormSyntax::named(it.to_str().ok()?));
                if matches!(syntax, Some(FormSyntax::Multipart { .. })) {
                    return Err(SignError::Place(format!(
                        "{} of a multipart body: give the sample urlencoded",
                        at
                    )));
                }
                let others: Vec<_> = form_urlencoded::parse(&self.unsigned.body)
                    .filter(|(key, _)| key != name)
                    .map(|(key, value)| (key.into_owned(), value.into_owned()))
                    .collect();
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(others).append_pair(name, &value);
                self.unsigned.body = form.finish().into();
            }
            Selector::ContentType | Selector::PathPart(_) => return Err(no_room()),
        }
        Ok(())
    }

    pub(super) fn about(&self) -> About<'_> {
        About { public_url: Some(&self.unsigned.url), body: self.unsigned.body_rule.as_ref() }
    }

    pub(super) fn received(&self, now: Timestamp) -> Received {
        let Unsigned { method, url, path, headers, body, .. } = &self.unsigned;
        let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned()));
        Received {
            method: method.clone(),
            target: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            path: path.clone(),
            query: query.collect(),
            headers: headers.clone(),
            body: body.clone(),
            received_at: now,
        }
    }
}

/// The body with `token` at `path`; objects on the way are made, anything else in the way is an obstacle.
fn place(body: &[u8], path: &str, token: Json) -> Option<Bytes> {
    let mut root: Json = serde_json::from_slice(body).ok()?;
    let mut place = &mut root;
    for name in plain_members(path)? {
        if place.is_null() {
            *place = Json::Object(Map::new());
        }
        place = place.as_object_mut()?.entry(name).or_insert(Json::Null);
    }
    *place = token;
    Some(root.to_string().into())
}

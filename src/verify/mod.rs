//! Did the sender prove itself? Pure: the time is an argument, secrets come from the vault, nothing is fetched.

mod algorithm;
pub mod handshake;
pub mod scheme;
pub mod sign;
mod signature;
mod signing;
#[cfg(test)]
mod tests;
mod time;
mod token;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::Value as Json;
use url::Url;

use crate::body::form::{self, FormSyntax};
use crate::secret::Vault;
use scheme::{Rejection, Scheme, Selector, TokenAt, plain_members};

/// A request with its whole body, bound to a source, not yet trusted.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    /// The request target as it came, not decoded: path and query.
    pub target: String,
    /// The `{name}` parts of the source's path, percent-decoded.
    pub path: Vec<(String, String)>,
    /// Decoded parameters in order.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub received_at: Timestamp,
}

/// A request whose sender proved itself. Only `verify` makes one; only a `Verified` becomes an envelope.
#[derive(Clone, Debug)]
pub struct Verified {
    received: Received,
    /// Header names (lower case) whose values are credentials: they are not stored.
    secret_headers: Vec<String>,
    /// Query parameters whose values are credentials.
    secret_query: Vec<String>,
}

impl Verified {
    pub fn received(&self) -> &Received {
        &self.received
    }

    pub fn secret_headers(&self) -> &[String] {
        &self.secret_headers
    }

    pub fn secret_query(&self) -> &[String] {
        &self.secret_query
    }
}

/// Checks `received` against `scheme`. `public_url` is the source's URL as the provider knows it; the query that came is
/// added where it has none. Every doubt is a rejection.
pub fn verify(
    scheme: &Scheme,
    received: Received,
    vault: &Vault,
    public_url: Option<&Url>,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    prove(scheme, &received, vault, public_url, now)?;
    // Credentials of branches that did not verify, and of proxies and browsers, are no less secret.
    let mut secret_headers: Vec<String> =
        ["authorization", "proxy-authorization", "cookie"].map(String::from).into();
    let mut secret_query = Vec::new();
    credentials(scheme, &mut secret_headers, &mut secret_query);
    Ok(Verified { received, secret_headers, secret_query })
}

fn prove(
    scheme: &Scheme,
    received: &Received,
    vault: &Vault,
    public_url: Option<&Url>,
    now: Timestamp,
) -> Result<(), Rejection> {
    match scheme {
        Scheme::Signing(signing) => signing::check(signing, received, vault, public_url, now),
        Scheme::Token(token) => token::check(token, received, vault),
        Scheme::AnyOf(schemes) => {
            let mut reason = Rejection::MissingSignature;
            for scheme in schemes {
                match prove(scheme, received, vault, public_url, now) {
                    Ok(()) => return Ok(()),
                    // What was there and wrong tells more than what was not there.
                    // A right signature that came too late tells most.
                    Err(rejection) if reason.is_absence() || rejection.is_of_time() => {
                        reason = rejection;
                    }
                    Err(_) => {}
                }
            }
            Err(reason)
        }
        Scheme::AllOf(schemes) => {
            schemes.iter().try_for_each(|scheme| prove(scheme, received, vault, public_url, now))
        }
        Scheme::None { .. } => Ok(()),
    }
}

fn credentials(scheme: &Scheme, headers: &mut Vec<String>, query: &mut Vec<String>) {
    match scheme {
        Scheme::Token(token) => match &token.at {
            TokenAt::Header(name) => headers.push(name.to_ascii_lowercase()),
            TokenAt::Query(name) => query.push(name.clone()),
            TokenAt::Json(_) | TokenAt::Form(_) | TokenAt::Bearer | TokenAt::Basic { .. } => {}
        },
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
            for scheme in schemes {
                credentials(scheme, headers, query);
            }
        }
        Scheme::Signing(_) | Scheme::None { .. } => {}
    }
}

/// How often something that must be there once is there.
enum Found<T> {
    Absent,
    Once(T),
    Repeated,
}

impl Received {
    /// The value behind a selector. Two values are never read as one of them: which one a proxy, the sender and the
    /// router would each mean differs.
    fn find(&self, selector: &Selector) -> Found<Cow<'_, [u8]>> {
        once(self.find_all(selector).into_iter())
    }

    fn find_all(&self, selector: &Selector) -> Vec<Cow<'_, [u8]>> {
        match selector {
            Selector::Header(name) => {
                let values = self.headers.get_all(name.as_str());
                values.iter().map(|value| value.as_bytes().into()).collect()
            }
            Selector::Query(name) => {
                let values = self.query.iter().filter(|(key, _)| key == name);
                values.map(|(_, value)| value.as_bytes().into()).collect()
            }
            Selector::Form(name) => {
                let content_type = self.content_type();
                let syntax = content_type.as_deref().and_then(FormSyntax::named);
                // What cannot be read as a form has no fields.
                let fields = form::fields(&syntax.unwrap_or(FormSyntax::Urlencoded), &self.body);
                let named = fields.unwrap_or_default().into_iter().filter(|it| it.name == *name);
                named.map(|field| field.value.into()).collect()
            }
            Selector::Json(path) => {
                in_json(path, &self.body).map(|text| text.into_bytes().into()).into_iter().collect()
            }
        }
    }

    /// By which the body is read, here and everywhere after.
    pub fn content_type(&self) -> Option<Cow<'_, str>> {
        let value = self.headers.get(http::header::CONTENT_TYPE)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }

    /// The path as it came, without the query.
    fn raw_path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    fn raw_query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// What stands at a path of plain members in a JSON body.
fn member(path: &str, body: &[u8]) -> serde_json::Result<Option<Json>> {
    let mut value: Json = serde_json::from_slice(body)?;
    let Some(names) = plain_members(path) else { return Ok(None) };
    for name in names {
        match value.get_mut(name).map(Json::take) {
            Some(found) => value = found,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// The text or number in a JSON body.
fn in_json(path: &str, body: &[u8]) -> Option<String> {
    match member(path, body).ok()?? {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn once<T>(mut values: impl Iterator<Item = T>) -> Found<T> {
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => Found::Once(value),
        (Some(_), Some(_)) => Found::Repeated,
    }
}

//! The sender's side of every scheme: what a request must carry so that [`super::verify`] takes it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use url::Url;

use super::scheme::{Hmac, Part, Scheme, Selector, SignatureSyntax, Token, TokenAt, plain_members};
use super::{hmac, signature, time};
use crate::secret::{SecretRef, SecretValue, Vault};

/// A request before its sender proves itself.
#[derive(Clone, Debug)]
pub struct Unsigned {
    pub method: Method,
    /// The source's URL as the provider knows it, query included.
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The id to sign where the scheme signs one (`{id}`) and no header gives it yet.
    pub id: String,
}

/// What the request needs besides what it has: set these headers and query parameters, send this body.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    pub headers: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    /// The same body, but for a token that stands in it.
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the scheme has no secret number {0}")]
    NoSuchSecret(usize),
    #[error("the secret {0} has no value")]
    MissingSecret(String),
    #[error("the secret {name} cannot be used: {why}")]
    UnusableSecret { name: String, why: String },
    #[error("the token cannot be placed in the body at {0}")]
    TokenPlace(String),
    #[error("the signed text names {0}, which the request does not have")]
    MissingPart(String),
}

/// Signs with secret number `which` (from 0) of the scheme; of `any_of` the first scheme signs that can read the secret.
pub fn sign(
    scheme: &Scheme,
    vault: &Vault,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    match scheme {
        Scheme::Hmac(hmac) => sign_hmac(hmac, vault, unsigned, now, which),
        Scheme::Token(token) => show_token(token, vault, unsigned, which),
        Scheme::AnyOf(schemes) => {
            let mut first = Err(SignError::NoSuchSecret(which));
            for (number, scheme) in schemes.iter().enumerate() {
                let signed = sign(scheme, vault, unsigned, now, which);
                // A secret that one scheme cannot read may be another's.
                if !matches!(signed, Err(SignError::UnusableSecret { .. })) {
                    return signed;
                }
                if number == 0 {
                    first = signed;
                }
            }
            first
        }
        Scheme::None { .. } => Ok(Proof::nothing(unsigned)),
    }
}

impl Proof {
    fn nothing(unsigned: &Unsigned) -> Self {
        Self { headers: Vec::new(), query: Vec::new(), body: unsigned.body.clone() }
    }

    fn set(&mut self, at: &Selector, value: String) {
        match at {
            Selector::Header(name) => self.headers.push((name.clone(), value)),
            Selector::Query(name) => self.query.push((name.clone(), value)),
        }
    }
}

impl Unsigned {
    fn read(&self, at: &Selector) -> Option<String> {
        match at {
            Selector::Header(name) => {
                let value = self.headers.get(name.as_str())?;
                std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
            }
            Selector::Query(name) => {
                self.url.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned())
            }
        }
    }
}

fn secret<'a>(
    secrets: &[SecretRef],
    vault: &'a Vault,
    which: usize,
) -> Result<(String, &'a SecretValue), SignError> {
    let reference = secrets.get(which).ok_or(SignError::NoSuchSecret(which))?;
    let name = format!("{reference:?}");
    match vault.get(reference) {
        Some(value) => Ok((name, value)),
        None => Err(SignError::MissingSecret(name)),
    }
}

fn sign_hmac(
    scheme: &Hmac,
    vault: &Vault,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    let (name, value) = secret(&scheme.secrets, vault, which)?;
    let key = scheme
        .key(value.expose())
        .map_err(|why| SignError::UnusableSecret { name, why: why.to_owned() })?;
    let mut proof = Proof::nothing(unsigned);

    let time = time::write(now, scheme.time_unit());
    let in_signature =
        matches!(scheme.signature.syntax, SignatureSyntax::Pairs { timestamp_key: Some(_), .. });
    if let (Some(at), false) = (&scheme.timestamp, in_signature) {
        proof.set(&at.selector, time.clone());
    }
    let id = scheme.id.as_ref().map(|at| {
        unsigned.read(at).unwrap_or_else(|| {
            proof.set(at, unsigned.id.clone());
            unsigned.id.clone()
        })
    });

    let mut message: Vec<Cow<'_, [u8]>> = Vec::new();
    for part in &scheme.signed {
        let text = |text: String| Cow::Owned(text.into_bytes());
        let missing = |what: String| SignError::MissingPart(what);
        message.push(match part {
            Part::Literal(literal) => Cow::Borrowed(literal.as_bytes()),
            Part::Body => Cow::Borrowed(&unsigned.body),
            Part::Method => Cow::Borrowed(unsigned.method.as_str().as_bytes()),
            Part::Path => Cow::Borrowed(unsigned.url.path().as_bytes()),
            Part::Url => Cow::Borrowed(unsigned.url.as_str().as_bytes()),
            Part::Timestamp => text(time.clone()),
            Part::Id => text(id.clone().ok_or_else(|| missing("{id}".to_owned()))?),
            Part::Query(name) => text(
                unsigned
                    .read(&Selector::Query(name.clone()))
                    .ok_or_else(|| missing(format!("the query parameter {name}")))?,
            ),
            Part::Header(name) => text(
                unsigned
                    .read(&Selector::Header(name.clone()))
                    .ok_or_else(|| missing(format!("the header {name}")))?,
            ),
            Part::Sig(key) => return Err(missing(format!("{{sig.{key}}}"))),
        });
    }
    let message: Vec<&[u8]> = message.iter().map(AsRef::as_ref).collect();
    let mac = hmac::mac(scheme.algorithm, &key, &message);
    let value = signature::write(&mac, &scheme.signature, Some(&time));
    proof.set(&scheme.signature.at, value);
    Ok(proof)
}

fn show_token(
    token: &Token,
    vault: &Vault,
    unsigned: &Unsigned,
    which: usize,
) -> Result<Proof, SignError> {
    let (_, value) = secret(&token.secrets, vault, which)?;
    let value = value.expose();
    let mut proof = Proof::nothing(unsigned);
    match &token.at {
        TokenAt::Header(name) => proof.headers.push((name.clone(), value.to_owned())),
        TokenAt::Query(name) => proof.query.push((name.clone(), value.to_owned())),
        TokenAt::Bearer => {
            proof.headers.push(("authorization".to_owned(), format!("Bearer {value}")));
        }
        TokenAt::Basic { user } => {
            let credentials = STANDARD.encode(format!("{user}:{value}"));
            proof.headers.push(("authorization".to_owned(), format!("Basic {credentials}")));
        }
        TokenAt::Json(path) => {
            proof.body = place(&unsigned.body, path, value)
                .ok_or_else(|| SignError::TokenPlace(path.clone()))?;
        }
    }
    Ok(proof)
}

/// The body with `token` at `path`; objects on the way are made, anything else in the way is an obstacle.
fn place(body: &[u8], path: &str, token: &str) -> Option<Bytes> {
    let mut root: Json = serde_json::from_slice(body).ok()?;
    let mut place = &mut root;
    for name in plain_members(path)? {
        if place.is_null() {
            *place = Json::Object(Map::new());
        }
        place = place.as_object_mut()?.entry(name).or_insert(Json::Null);
    }
    *place = Json::String(token.to_owned());
    Some(root.to_string().into())
}

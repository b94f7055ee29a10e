//! The sender's side of every scheme: what a request must carry so that [`super::verify`] takes it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use url::{Url, form_urlencoded};

use super::scheme::{Algorithm, Part, Scheme, Selector, Signing, Token, TokenAt, plain_members};
use super::{algorithm, in_json, signature, time};
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
    /// The same body, but for what proves the sender and stands in it.
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
    #[error("there is no room for what proves the sender in the body at {0}")]
    Place(String),
    #[error("the sender signs with a private key, and {name} is none: {why}")]
    NoPrivateKey { name: String, why: &'static str },
    #[error("the signed text names {0}, which the request does not have")]
    MissingPart(String),
}

/// Signs with secret number `which` (from 0) of the scheme; of `any_of` the first scheme signs that can read the secret.
/// `vault` holds what the sender has: for a scheme with public keys the private key, as PKCS#8 in PEM, in the public key's
/// place.
pub fn sign(
    scheme: &Scheme,
    vault: &Vault,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    match scheme {
        Scheme::Signing(signing) => sign_text(signing, vault, unsigned, now, which),
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
        Scheme::AllOf(schemes) => {
            let mut whole = Proof::nothing(unsigned);
            for scheme in schemes {
                let unsigned = Unsigned { body: whole.body.clone(), ..unsigned.clone() };
                let proof = sign(scheme, vault, &unsigned, now, which)?;
                whole.headers.extend(proof.headers);
                whole.query.extend(proof.query);
                whole.body = proof.body;
            }
            Ok(whole)
        }
        Scheme::None { .. } => Ok(Proof::nothing(unsigned)),
    }
}

impl Proof {
    fn nothing(unsigned: &Unsigned) -> Self {
        Self { headers: Vec::new(), query: Vec::new(), body: unsigned.body.clone() }
    }

    fn set(&mut self, at: &Selector, value: String) -> Result<(), SignError> {
        match at {
            Selector::Header(name) => self.headers.push((name.clone(), value)),
            Selector::Query(name) => self.query.push((name.clone(), value)),
            Selector::Json(path) => {
                let body = place(&self.body, path, &value);
                self.body = body.ok_or_else(|| SignError::Place(path.clone()))?;
            }
            Selector::Form(name) => {
                let others: Vec<_> = form_urlencoded::parse(&self.body)
                    .filter(|(key, _)| key != name)
                    .map(|(key, value)| (key.into_owned(), value.into_owned()))
                    .collect();
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(others).append_pair(name, &value);
                self.body = form.finish().into();
            }
        }
        Ok(())
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
            Selector::Json(path) => in_json(path, &self.body),
            Selector::Form(name) => form_urlencoded::parse(&self.body)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned()),
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

fn sign_text(
    scheme: &Signing,
    vault: &Vault,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    let (name, value) = secret(&scheme.secrets, vault, which)?;
    let mut proof = Proof::nothing(unsigned);

    let time = time::write(now, scheme.time_unit());
    if let (Some(at), false) = (&scheme.timestamp, scheme.signature.syntax.names_time()) {
        proof.set(&at.selector, time.clone())?;
    }
    let mut id = None;
    if let Some(at) = &scheme.id {
        let known = unsigned.read(at);
        if known.is_none() {
            proof.set(at, unsigned.id.clone())?;
        }
        id = Some(known.unwrap_or_else(|| unsigned.id.clone()));
    }

    let key = match scheme.algorithm {
        Algorithm::PublicKey(_) => None,
        Algorithm::Hmac(_) | Algorithm::Digest(_) => {
            let key = scheme.key(value.expose());
            Some(key.map_err(|why| SignError::UnusableSecret {
                name: name.clone(),
                why: why.to_owned(),
            })?)
        }
    };
    let key: &[u8] = key.as_ref().map_or(&[], |key| key);
    let body = proof.body.clone();
    let read = |at: &Selector| {
        let found = Unsigned { body: body.clone(), ..unsigned.clone() }.read(at);
        found.ok_or_else(|| SignError::MissingPart(described(at)))
    };
    let mut message: Vec<Cow<'_, [u8]>> = Vec::new();
    for part in &scheme.signed {
        let text = |text: String| Cow::Owned(text.into_bytes());
        let missing = |what: &str| SignError::MissingPart(what.to_owned());
        message.push(match part {
            Part::Literal(literal) => Cow::Borrowed(literal.as_bytes()),
            Part::Body => Cow::Borrowed(&body),
            Part::Method => Cow::Borrowed(unsigned.method.as_str().as_bytes()),
            Part::Path => Cow::Borrowed(unsigned.url.path().as_bytes()),
            Part::Url => Cow::Borrowed(unsigned.url.as_str().as_bytes()),
            Part::Timestamp => text(time.clone()),
            Part::Id => text(id.clone().ok_or_else(|| missing("{id}"))?),
            Part::At(at) => text(read(at)?),
            Part::Lower(at) => text(read(at)?.to_ascii_lowercase()),
            Part::Sig(key) => return Err(missing(&format!("{{sig.{key}}}"))),
            Part::Secret => Cow::Borrowed(key),
        });
    }
    let message: Vec<&[u8]> = message.iter().map(AsRef::as_ref).collect();
    let signed = match scheme.algorithm {
        Algorithm::Hmac(hash) => algorithm::mac(hash, key, &message),
        Algorithm::Digest(hash) => algorithm::digest(hash, &message),
        Algorithm::PublicKey(kind) => algorithm::sign(kind, value.expose(), &message)
            .map_err(|why| SignError::NoPrivateKey { name, why })?,
    };
    let value = signature::write(&signed, &scheme.signature, Some(&time));
    proof.set(&scheme.signature.at, value)?;
    Ok(proof)
}

fn described(at: &Selector) -> String {
    match at {
        Selector::Header(name) => format!("the header {name}"),
        Selector::Query(name) => format!("the query parameter {name}"),
        Selector::Json(path) => format!("the value at {path} of the body"),
        Selector::Form(name) => format!("the form field {name}"),
    }
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
        TokenAt::Json(path) => proof.set(&Selector::Json(path.clone()), value.to_owned())?,
        TokenAt::Form(name) => proof.set(&Selector::Form(name.clone()), value.to_owned())?,
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

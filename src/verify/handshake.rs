//! Challenges: what a provider asks before it sends events, and the answer that it waits for. Nothing of it becomes an
//! event.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value as Json};

use super::scheme::{Algorithm, Hash, Scheme, Selector, Signing};
use super::{Found, Received, algorithm, member};
use crate::secret::{SecretValue, Vault};

/// Longest piece of a request that an answer takes up.
const ECHO_BYTES_MAX: usize = 4096;
/// Longest secret that is captured.
const CAPTURED_BYTES_MAX: usize = 1024;

/// One kind of challenge, compiled.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// `None`: each that the source takes.
    pub method: Option<Method>,
    pub when: Vec<Condition>,
    /// The sender proves itself first.
    pub verify: bool,
    /// Where the secret stands that it brings.
    pub capture: Option<Selector>,
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, Text)>,
    pub body: Option<Body>,
}

#[derive(Clone, Debug)]
pub struct Condition {
    pub at: Selector,
    pub expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Present,
    Absent,
    Equal(String),
}

#[derive(Clone, Debug)]
pub enum Body {
    Text(Text),
    Json(Tree),
}

/// JSON whose texts are templates.
#[derive(Clone, Debug)]
pub enum Tree {
    Text(Text),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    Fixed(Json),
}

/// Pieces in order.
pub type Text = Vec<Piece>;

#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Literal(String),
    At(Selector),
    /// HMAC of what stands there, by the scheme's first secret that can be read.
    Hmac {
        hash: Hash,
        encoding: MacEncoding,
        of: Selector,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacEncoding {
    Hex,
    Base64,
}

/// The answer to a challenge.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A challenge that cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// What the answer takes up is missing, there twice, or longer than 4 KiB.
    Piece,
    /// No secret of the scheme can be read.
    Secret,
    /// What it brings is no secret: missing, there twice, longer than 1 KiB, or more than visible ASCII.
    Captured,
}

impl Handshake {
    /// The request is this challenge.
    pub fn fits(&self, received: &Received) -> bool {
        self.method.as_ref().is_none_or(|method| *method == received.method)
            && self.when.iter().all(|condition| condition.holds(received))
    }

    /// The secret that stands at `at`.
    pub fn secret(received: &Received, at: &Selector) -> Result<SecretValue, Unanswerable> {
        let Found::Once(bytes) = received.find(at) else { return Err(Unanswerable::Captured) };
        let fits = (1..=CAPTURED_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(&bytes) {
            Ok(text) if fits => Ok(SecretValue::new(text)),
            _ => Err(Unanswerable::Captured),
        }
    }

    pub fn answer(
        &self,
        received: &Received,
        scheme: &Scheme,
        vault: &Vault,
    ) -> Result<Answer, Unanswerable> {
        let write = Write { received, scheme, vault };
        let mut headers = HeaderMap::new();
        // What a stranger wrote must not be taken for a page.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let body = match &self.body {
            None => Bytes::new(),
            Some(Body::Text(text)) => {
                let kind = HeaderValue::from_static("text/plain; charset=utf-8");
                headers.insert(CONTENT_TYPE, kind);
                write.text(text)?.into()
            }
            Some(Body::Json(tree)) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                write.json(tree)?.to_string().into()
            }
        };
        for (name, text) in &self.headers {
            let value = HeaderValue::from_str(&write.text(text)?);
            headers.insert(name.clone(), value.map_err(|_| Unanswerable::Piece)?);
        }
        Ok(Answer { status: self.status, headers, body })
    }
}

impl Condition {
    fn holds(&self, received: &Received) -> bool {
        match (&self.expected, &self.at) {
            (Expected::Present, Selector::Json(path)) => is_in_json(path, &received.body),
            (Expected::Absent, Selector::Json(path)) => !is_in_json(path, &received.body),
            (Expected::Present, at) => !received.find_all(at).is_empty(),
            (Expected::Absent, at) => received.find_all(at).is_empty(),
            (Expected::Equal(text), at) => {
                matches!(received.find(at), Found::Once(found) if *found == *text.as_bytes())
            }
        }
    }
}

/// Anything but null stands there.
fn is_in_json(path: &str, body: &[u8]) -> bool {
    member(path, body).is_ok_and(|found| found.is_some_and(|found| !found.is_null()))
}

struct Write<'a> {
    received: &'a Received,
    scheme: &'a Scheme,
    vault: &'a Vault,
}

impl Write<'_> {
    fn text(&self, text: &Text) -> Result<String, Unanswerable> {
        text.iter()
            .map(|piece| match piece {
                Piece::Literal(literal) => Ok(literal.clone()),
                Piece::At(at) => self.read(at),
                Piece::Hmac { hash, encoding, of } => {
                    let message = self.read(of)?;
                    let key = shared_key(self.scheme, self.vault).ok_or(Unanswerable::Secret)?;
                    let mac = algorithm::mac(*hash, &key, &[message.as_bytes()]);
                    Ok(match encoding {
                        MacEncoding::Hex => hex::encode(mac),
                        MacEncoding::Base64 => STANDARD.encode(mac),
                    })
                }
            })
            .collect()
    }

    fn read(&self, at: &Selector) -> Result<String, Unanswerable> {
        let Found::Once(bytes) = self.received.find(at) else { return Err(Unanswerable::Piece) };
        if bytes.len() > ECHO_BYTES_MAX {
            return Err(Unanswerable::Piece);
        }
        String::from_utf8(bytes.into_owned()).map_err(|_| Unanswerable::Piece)
    }

    fn json(&self, tree: &Tree) -> Result<Json, Unanswerable> {
        Ok(match tree {
            Tree::Text(text) => Json::String(self.text(text)?),
            Tree::Fixed(json) => json.clone(),
            Tree::List(items) => {
                Json::Array(items.iter().map(|item| self.json(item)).collect::<Result<_, _>>()?)
            }
            Tree::Map(pairs) => {
                let pairs = pairs.iter().map(|(name, tree)| Ok((name.clone(), self.json(tree)?)));
                Json::Object(pairs.collect::<Result<Map<_, _>, _>>()?)
            }
        })
    }
}

fn shared_key(scheme: &Scheme, vault: &Vault) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    match scheme {
        Scheme::Signing(signing @ Signing { algorithm: Algorithm::Hmac(_), secrets, .. }) => {
            secrets.iter().find_map(|secret| signing.key(vault.get(secret)?.expose()).ok())
        }
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
            schemes.iter().find_map(|scheme| shared_key(scheme, vault))
        }
        Scheme::Signing(_) | Scheme::Token(_) | Scheme::None { .. } => None,
    }
}

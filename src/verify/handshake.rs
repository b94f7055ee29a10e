//! Challenges: what a provider asks before it sends events, and the answer that it waits for. Nothing of it becomes an
//! event.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value as Json};
use url::Url;

use super::Received;
use super::condition::{Conditions, Expected};
use super::fetched::is_safe;
use super::request::{About, Found, Keys, Request};
use super::scheme::{Algorithm, Scheme, Signing};
use super::text::{Filter, Lack, Layout, Part, Selector, Text};
use crate::secret::SecretValue;

/// Longest text that an answer takes up.
const ECHO_BYTES_MAX: usize = 4096;
/// Longest secret that is captured.
const CAPTURED_BYTES_MAX: usize = 1024;

/// One kind of challenge, compiled.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Without a method: each that the source takes.
    pub when: Conditions,
    /// The sender proves itself first.
    pub verify: bool,
    /// Where the secret stands that it brings.
    pub capture: Option<Selector>,
    /// The URL that is asked for before the answer leaves, and with it the provider confirmed.
    pub confirm: Option<Confirm>,
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, Text)>,
    pub body: Option<Body>,
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

impl Unanswerable {
    /// For a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::Piece => "what the answer takes up is missing, there twice or too long",
            Self::Secret => "no secret of the scheme can be read",
            Self::Captured => "what it brings is no secret: 1 to 1024 visible ASCII characters",
        }
    }
}

/// Where the challenge names a URL, and which ones are the provider's.
#[derive(Clone, Debug)]
pub struct Confirm {
    pub url: Selector,
    /// The whole host and the whole path.
    pub host: Regex,
    pub path: Option<Regex>,
}

impl Confirm {
    /// The URL, if it is one of the provider's.
    pub fn place(&self, asked: Asked<'_>) -> Option<Url> {
        let Found::Once(text) = asked.request().find(&self.url) else { return None };
        let url = Url::parse(std::str::from_utf8(&text).ok()?).ok()?;
        let pinned = self.host.is_match(url.host_str()?)
            && self.path.as_ref().is_none_or(|path| path.is_match(url.path()));
        let is_plain = url.fragment().is_none() && (url.port().is_none() || url.scheme() == "http");
        (pinned && is_plain && is_safe(&url)).then_some(url)
    }
}

/// What a challenge is looked at with: as for a verification.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub received: &'a Received,
    pub scheme: &'a Scheme,
    pub keys: Keys<'a>,
    pub about: About<'a>,
    pub now: Timestamp,
}

impl<'a> Asked<'a> {
    fn request(self) -> Request<'a> {
        Request::new(self.received, self.keys, self.about, self.now)
    }
}

/// The first of `handshakes` that the request is.
pub fn find<'h>(handshakes: &'h [Handshake], asked: Asked<'_>) -> Option<&'h Handshake> {
    let request = asked.request();
    handshakes.iter().find(|handshake| handshake.when.hold(&request))
}

impl Handshake {
    /// The secret that stands at `at`.
    pub fn secret(asked: Asked<'_>, at: &Selector) -> Result<SecretValue, Unanswerable> {
        let Found::Once(bytes) = asked.request().find(at) else {
            return Err(Unanswerable::Captured);
        };
        let fits = (1..=CAPTURED_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(&bytes) {
            Ok(text) if fits => Ok(SecretValue::new(text)),
            _ => Err(Unanswerable::Captured),
        }
    }

    /// A place whose HMAC the answer gives though nothing bounds what stands there: with `verify: false` the answer would
    /// sign for strangers.
    pub fn signs_anything(&self, scheme: &Scheme) -> Option<String> {
        let is_body = signs_bare_body(scheme);
        let mut texts: Vec<&Text> = self.headers.iter().map(|(_, text)| text).collect();
        match &self.body {
            None => {}
            Some(Body::Text(text)) => texts.push(text),
            Some(Body::Json(tree)) => tree.texts(&mut texts),
        }
        let is_bounded = |at: &Selector| {
            let of = self.when.all.iter().filter(|condition| condition.at == *at);
            of.into_iter().any(|it| match &it.expected {
                // A body of one word is a body, too.
                Expected::Match(pattern) => {
                    !(is_body && JSON_WORDS.iter().any(|word| pattern.is_match(word.as_bytes())))
                }
                Expected::Equal(text) => text
                    .iter()
                    .all(|part| matches!(part.source(), Part::Literal(_) | Part::Config(_))),
                Expected::Present | Expected::Absent => false,
            })
        };
        texts.into_iter().flatten().find_map(|part| match part {
            Part::Filtered(of, filters)
                if filters.iter().any(|filter| matches!(filter, Filter::Hmac { .. })) =>
            {
                match of.source() {
                    Part::At(at) if is_bounded(at) => None,
                    Part::At(at) => Some(at.to_string()),
                    other => Some(format!("{other:?}")),
                }
            }
            _ => None,
        })
    }

    pub fn answer(&self, asked: Asked<'_>) -> Result<Answer, Unanswerable> {
        let request = asked.request();
        let key = shared_key(asked.scheme, &request);
        let key = key.as_ref().map(|key| &key[..]);
        let write = Write { layout: Layout { key, ..Layout::of(&request) } };
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

impl Tree {
    pub(super) fn texts<'t>(&'t self, found: &mut Vec<&'t Text>) {
        match self {
            Tree::Text(text) => found.push(text),
            Tree::List(items) => items.iter().for_each(|item| item.texts(found)),
            Tree::Map(pairs) => pairs.iter().for_each(|(_, tree)| tree.texts(found)),
            Tree::Fixed(_) => {}
        }
    }
}

/// What JSON can be without a bracket or a quotation mark.
const JSON_WORDS: &[&str] = &[
    "0",
    "1",
    "12345",
    "1234567890123456789012345",
    "-1",
    "1.5",
    "1E5",
    "1e-5",
    "true",
    "false",
    "null",
    "{}",
    "[]",
    "\"\"",
];

/// The body alone is what some part of the scheme signs.
fn signs_bare_body(scheme: &Scheme) -> bool {
    match scheme {
        Scheme::Signing(signing) => signing.signed == [Part::Body],
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => schemes.iter().any(signs_bare_body),
        Scheme::ForEach { scheme, .. } => signs_bare_body(scheme),
        Scheme::Token(_) | Scheme::Jwt(_) | Scheme::Require(_) | Scheme::None { .. } => false,
    }
}

struct Write<'a, 'r> {
    layout: Layout<'a, 'r>,
}

impl Write<'_, '_> {
    fn text(&self, text: &Text) -> Result<String, Unanswerable> {
        // Also where only a hash of it leaves: what is longer is no challenge.
        for part in text {
            if let Part::At(at) = part.source()
                && self.layout.request.find_all(at).iter().any(|it| it.len() > ECHO_BYTES_MAX)
            {
                return Err(Unanswerable::Piece);
            }
        }
        let written = self.layout.whole(text).map_err(|lack| match lack {
            Lack::Key => Unanswerable::Secret,
            Lack::Absent(_) | Lack::Unclear(_) | Lack::Time => Unanswerable::Piece,
        })?;
        if written.len() > ECHO_BYTES_MAX {
            return Err(Unanswerable::Piece);
        }
        String::from_utf8(written).map_err(|_| Unanswerable::Piece)
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

fn shared_key(scheme: &Scheme, request: &Request<'_>) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    match scheme {
        Scheme::Signing(signing @ Signing { algorithm: Algorithm::Hmac(_), secrets, .. }) => {
            secrets.values(request).ok()?.into_iter().find_map(|it| signing.key(it.expose()).ok())
        }
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
            schemes.iter().find_map(|scheme| shared_key(scheme, request))
        }
        Scheme::ForEach { scheme, .. } => shared_key(scheme, request),
        Scheme::Signing(_)
        | Scheme::Token(_)
        | Scheme::Jwt(_)
        | Scheme::Require(_)
        | Scheme::None { .. } => None,
    }
}

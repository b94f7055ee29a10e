//! Texts that are laid out of a request: what is signed, what must be equal, what an answer says.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::algorithm;
use super::canonical::{self, Canonical};
use super::request::{Found, Request};
use super::scheme::{Hash, SignatureEncoding};
use super::signature::Parsed;
use crate::secret::SecretRef;

/// Pieces in order.
pub type Text = Vec<Part>;

/// One piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Literal(String),
    Body,
    Method,
    Url,
    /// The path as it came.
    Path,
    /// The request target as it came: path and query.
    Target,
    Timestamp,
    Id,
    At(Selector),
    /// A field of the parsed signature header.
    Sig(String),
    /// The secret itself, of a digest.
    Secret,
    /// A value of `config` that is a secret.
    Config(SecretRef),
    /// A form of the request that both sides can make.
    Canonical(Canonical),
    /// A piece through filters, in order.
    Filtered(Box<Part>, Vec<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    Header(String),
    /// The media type, in lower case and without its parameters.
    ContentType,
    Query(String),
    /// A `{name}` part of the source's path.
    PathPart(String),
    /// A text or number of the JSON body, by a path to one value (see [`super::scheme::json_place`]).
    Json(String),
    /// A field of a body that is a form.
    Form(String),
}

/// As a message names it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Header(name) => write!(f, "the header {name}"),
            Selector::ContentType => f.write_str("the content type"),
            Selector::Query(name) => write!(f, "the query parameter {name}"),
            Selector::PathPart(name) => write!(f, "the part {name} of the path"),
            Selector::Json(path) => write!(f, "the value at {path} of the body"),
            Selector::Form(name) => write!(f, "the form field {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// ASCII alone, as in header names and hexadecimal digits.
    Lower,
    Upper,
    Digest {
        hash: Hash,
        encoding: SignatureEncoding,
    },
    /// By the scheme's first shared secret: in answers alone.
    Hmac {
        hash: Hash,
        encoding: SignatureEncoding,
    },
    /// CRC-32 (ISO 3309) as a decimal number.
    Crc32,
    /// Percent-escapes of these characters, and of no others, are decoded.
    UrlDecode(String),
    /// A URL whose port is the usual one of its scheme gets it written out.
    WithPort,
    /// Nothing where the piece is absent; otherwise the piece between these two.
    Optional {
        before: String,
        after: String,
    },
}

/// Why a text cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Lack<'t> {
    Absent(&'t Part),
    /// There twice, or of no form that the piece can have.
    Unclear(&'t Part),
    Time,
    /// No shared secret of the scheme can be read.
    Key,
}

/// A piece of a text: the body is never copied.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Bytes(Cow<'a, [u8]>),
    Secret,
}

impl Piece<'_> {
    pub(super) fn bytes<'a>(&'a self, secret: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Secret => secret,
        }
    }
}

/// What a text is laid out of, beside the request.
pub(super) struct Layout<'a, 'r> {
    pub(super) request: &'a Request<'r>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) id: Option<&'a Selector>,
    /// The signature header that was read.
    pub(super) parsed: Option<&'a Parsed<'a>>,
    /// Of `hmac` in an answer.
    pub(super) key: Option<&'a [u8]>,
}

impl<'a, 'r> Layout<'a, 'r> {
    pub(super) fn of(request: &'a Request<'r>) -> Self {
        Self { request, timestamp: None, id: None, parsed: None, key: None }
    }

    /// The pieces, with places left for the secret.
    pub(super) fn pieces<'t>(&self, text: &'t [Part]) -> Result<Vec<Piece<'a>>, Lack<'t>>
    where
        't: 'a,
    {
        text.iter()
            .map(|part| match part {
                Part::Secret => Ok(Piece::Secret),
                _ => self.bytes(part).map(Piece::Bytes),
            })
            .collect()
    }

    /// The whole text. `{secret}` has no place in it.
    pub(super) fn whole<'t>(&self, text: &'t [Part]) -> Result<Vec<u8>, Lack<'t>>
    where
        't: 'a,
    {
        let pieces = self.pieces(text)?;
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.bytes(&[])).collect();
        Ok(pieces.concat())
    }

    fn bytes<'t>(&self, part: &'t Part) -> Result<Cow<'a, [u8]>, Lack<'t>>
    where
        't: 'a,
    {
        let request = self.request;
        let select = |selector: &Selector| match request.find(selector) {
            Found::Absent => Err(Lack::Absent(part)),
            Found::Repeated => Err(Lack::Unclear(part)),
            Found::Once(bytes) => Ok(bytes),
        };
        Ok(match part {
            Part::Literal(text) => text.as_bytes().into(),
            Part::Body => (&*request.received.body).into(),
            Part::Method => request.received.method.as_str().as_bytes().into(),
            Part::Path => request.raw_path().as_bytes().into(),
            Part::Target => request.received.target.as_bytes().into(),
            Part::Url => request.url().ok_or(Lack::Unclear(part))?.into_bytes().into(),
            Part::Timestamp => self.timestamp.ok_or(Lack::Time)?.as_bytes().into(),
            Part::Id => select(self.id.ok_or(Lack::Unclear(part))?)?,
            Part::At(selector) => select(selector)?,
            Part::Sig(key) => match self.parsed.map(|parsed| parsed.field(key)) {
                Some(Found::Once(text)) => text.as_bytes().into(),
                _ => return Err(Lack::Unclear(part)),
            },
            Part::Config(secret) => {
                let value = request.secret(secret).ok_or(Lack::Unclear(part))?;
                value.expose().as_bytes().into()
            }
            Part::Canonical(form) => {
                canonical::write(form, request).ok_or(Lack::Unclear(part))?.into()
            }
            Part::Secret => Cow::Borrowed(&[]),
            Part::Filtered(inner, filters) => {
                let optional = filters.iter().any(|it| matches!(it, Filter::Optional { .. }));
                let mut bytes = match self.bytes(inner) {
                    Err(Lack::Absent(_)) if optional => return Ok(Cow::Borrowed(&[])),
                    found => found?,
                };
                for filter in filters {
                    bytes = self.filtered(filter, bytes, part)?;
                }
                bytes
            }
        })
    }

    fn filtered<'t>(
        &self,
        filter: &Filter,
        bytes: Cow<'a, [u8]>,
        part: &'t Part,
    ) -> Result<Cow<'a, [u8]>, Lack<'t>> {
        Ok(match filter {
            Filter::Lower => bytes.to_ascii_lowercase().into(),
            Filter::Upper => bytes.to_ascii_uppercase().into(),
            Filter::Digest { hash, encoding } => {
                encoded(&algorithm::digest(*hash, &[&bytes]), *encoding).into_bytes().into()
            }
            Filter::Hmac { hash, encoding } => {
                let key = self.key.ok_or(Lack::Key)?;
                encoded(&algorithm::mac(*hash, key, &[&bytes]), *encoding).into_bytes().into()
            }
            Filter::Crc32 => crc32fast::hash(&bytes).to_string().into_bytes().into(),
            Filter::UrlDecode(set) => canonical::url_decode(&bytes, set).into(),
            Filter::WithPort => {
                canonical::with_port(&bytes).ok_or(Lack::Unclear(part))?.into_bytes().into()
            }
            Filter::Optional { before, after } => {
                [before.as_bytes(), &bytes, after.as_bytes()].concat().into()
            }
        })
    }
}

pub(super) fn encoded(bytes: &[u8], encoding: SignatureEncoding) -> String {
    match encoding {
        SignatureEncoding::Hex => hex::encode(bytes),
        SignatureEncoding::Base64 => STANDARD.encode(bytes),
        SignatureEncoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

impl Part {
    /// The part itself, or what it filters.
    pub fn source(&self) -> &Part {
        match self {
            Part::Filtered(inner, _) => inner.source(),
            part => part,
        }
    }
}

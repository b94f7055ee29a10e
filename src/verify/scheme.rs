//! The compiled verification language: what a preset or a route's `verify` becomes.

use std::time::Duration;

use crate::secret::SecretRef;

#[derive(Clone, Debug)]
pub enum Scheme {
    Hmac(Hmac),
    Token(Token),
    /// One that verifies is enough.
    AnyOf(Vec<Scheme>),
    /// Nobody is asked; the reason is the author's.
    None {
        why: String,
    },
}

/// How much a scheme proves, in the words of `check`, `providers show` and the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    Signed,
    Partial,
    Token,
    Open,
}

#[derive(Clone, Debug)]
pub struct Hmac {
    pub algorithm: HmacAlgorithm,
    /// Any of them verifies.
    pub secrets: Vec<SecretRef>,
    pub secret_encoding: SecretEncoding,
    /// Taken off the front of the secret before decoding, where it is there.
    pub strip_prefix: Option<String>,
    /// The signed text.
    pub signed: Vec<Part>,
    pub signature: Signature,
    /// Where the signed time is, unless `signature.parse` names it.
    pub timestamp: Option<TimestampAt>,
    /// Where the signed id is (`{id}`).
    pub id: Option<Selector>,
    /// Greatest distance between the signed time and now, either way.
    pub tolerance: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    Utf8,
    Base64,
    Hex,
}

/// One piece of a `signed` template.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Literal(String),
    Body,
    Method,
    Url,
    Path,
    Timestamp,
    Id,
    Query(String),
    Header(String),
    /// A field of the parsed signature header.
    Sig(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    Header(String),
    Query(String),
}

#[derive(Clone, Debug)]
pub struct TimestampAt {
    pub selector: Selector,
    pub unit: TimeUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    UnixSeconds,
    UnixMillis,
    Rfc3339,
}

#[derive(Clone, Debug)]
pub struct Signature {
    pub at: Selector,
    pub encoding: SignatureEncoding,
    pub syntax: SignatureSyntax,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    Hex,
    Base64,
}

impl Hmac {
    /// The key bytes behind the text of a secret, or why there are none. The same reading as at verification, so a
    /// configuration whose secret cannot be read is refused before it runs.
    pub fn key(&self, secret: &str) -> Result<Vec<u8>, &'static str> {
        let _ = secret;
        todo!()
    }
}

/// How signatures stand in the header.
#[derive(Clone, Debug, PartialEq)]
pub enum SignatureSyntax {
    /// The whole value, after a fixed prefix (`sha256=`), which may be empty.
    Prefix(String),
    /// `parse: "t={timestamp},v1={signature}"`: pairs split by `separator`; every pair whose key is one of
    /// `signature_keys` is tried; others are kept for `{timestamp}` and `{sig.K}`.
    Pairs { separator: char, assign: char, signature_key: String, timestamp_key: Option<String> },
    /// `parse: "v1,{signature}"` with `separator: " "`: a list in which every item with this tag is tried.
    Tagged { separator: char, tag: String },
}

#[derive(Clone, Debug)]
pub struct Token {
    pub at: TokenAt,
    pub secrets: Vec<SecretRef>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenAt {
    Header(String),
    Query(String),
    /// A string in the JSON body (a JSONPath as written).
    Json(String),
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …` with this user; the secret is the password.
    Basic {
        user: String,
    },
}

/// Why a request was turned away. The log, the metric and the list of rejections say which; the sender gets 401 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    MissingSignature,
    MalformedSignature,
    WrongSignature,
    MissingTimestamp,
    MalformedTimestamp,
    StaleTimestamp,
    FutureTimestamp,
    MissingToken,
    MalformedToken,
    WrongToken,
    /// No secret of the scheme has a value that its encoding can read.
    UnusableSecret,
}

impl Rejection {
    /// As it stands in log lines and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::MissingSignature => "missing_signature",
            Rejection::MalformedSignature => "malformed_signature",
            Rejection::WrongSignature => "wrong_signature",
            Rejection::MissingTimestamp => "missing_timestamp",
            Rejection::MalformedTimestamp => "malformed_timestamp",
            Rejection::StaleTimestamp => "stale_timestamp",
            Rejection::FutureTimestamp => "future_timestamp",
            Rejection::MissingToken => "missing_token",
            Rejection::MalformedToken => "malformed_token",
            Rejection::WrongToken => "wrong_token",
            Rejection::UnusableSecret => "unusable_secret",
        }
    }
}

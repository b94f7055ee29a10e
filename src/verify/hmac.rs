//! Keyed hashes over a text that the scheme lays out.

use ::hmac::{Hmac as Keyed, KeyInit, Mac};
use jiff::Timestamp;
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};
use url::Url;

use super::scheme::{Hmac, HmacAlgorithm, Part, Rejection, Selector, SignatureSyntax};
use super::signature::{self, Parsed};
use super::{Found, Received, time};
use crate::secret::Vault;

pub(super) fn check(
    hmac: &Hmac,
    received: &Received,
    vault: &Vault,
    public_url: Option<&Url>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let header = signature_text(hmac, received)?;
    let parsed = signature::parse(&header, &hmac.signature)?;
    let timestamp = timestamp_text(hmac, received, &parsed)?;
    let signed_at = match (hmac.tolerance, timestamp) {
        (None, _) => None,
        (Some(_), None) => return Err(Rejection::MissingTimestamp),
        (Some(tolerance), Some(text)) => {
            let at = time::read(text, hmac.time_unit()).ok_or(Rejection::MalformedTimestamp)?;
            Some((at, tolerance))
        }
    };
    let message = message(hmac, received, &parsed, timestamp, public_url)?;
    let message: Vec<&[u8]> = message.iter().map(AsRef::as_ref).collect();

    let (mut matches, mut usable) = (Choice::from(0), false);
    for secret in hmac.secrets.iter().filter_map(|reference| vault.get(reference)) {
        let Ok(key) = hmac.key(secret.expose()) else { continue };
        usable = true;
        let expected = mac(hmac.algorithm, &key, &message);
        for candidate in &parsed.candidates {
            matches |= expected.ct_eq(candidate);
        }
    }
    match (usable, bool::from(matches)) {
        (false, _) => return Err(Rejection::UnusableSecret),
        (true, false) => return Err(Rejection::WrongSignature),
        (true, true) => {}
    }
    // Last, so that `stale` is said of an authentic request only.
    signed_at.map_or(Ok(()), |(at, tolerance)| time::judge(at, now, tolerance))
}

pub(super) fn mac(algorithm: HmacAlgorithm, key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    match algorithm {
        HmacAlgorithm::Sha1 => keyed::<Keyed<Sha1>>(key, message),
        HmacAlgorithm::Sha256 => keyed::<Keyed<Sha256>>(key, message),
        HmacAlgorithm::Sha512 => keyed::<Keyed<Sha512>>(key, message),
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in message {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn signature_text(hmac: &Hmac, received: &Received) -> Result<String, Rejection> {
    let lines: Vec<&[u8]> = match &hmac.signature.at {
        Selector::Header(name) => {
            received.headers.get_all(name.as_str()).iter().map(|value| value.as_bytes()).collect()
        }
        Selector::Query(name) => received
            .query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, v)| v.as_bytes())
            .collect(),
    };
    if lines.is_empty() {
        return Err(Rejection::MissingSignature);
    }
    let lines: Vec<&str> = lines
        .into_iter()
        .map(std::str::from_utf8)
        .collect::<Result<_, _>>()
        .map_err(|_| Rejection::MalformedSignature)?;
    signature::join(&lines, &hmac.signature.syntax)
        .map(std::borrow::Cow::into_owned)
        .ok_or(Rejection::MalformedSignature)
}

fn timestamp_text<'a>(
    hmac: &Hmac,
    received: &'a Received,
    parsed: &Parsed<'a>,
) -> Result<Option<&'a str>, Rejection> {
    let found = match (&hmac.signature.syntax, &hmac.timestamp) {
        (SignatureSyntax::Pairs { timestamp_key: Some(key), .. }, _) => parsed.field(key),
        (_, Some(at)) => match received.find(&at.selector) {
            Found::Absent => Found::Absent,
            Found::Repeated => Found::Repeated,
            Found::Once(bytes) => {
                Found::Once(std::str::from_utf8(bytes).map_err(|_| Rejection::MalformedTimestamp)?)
            }
        },
        (_, None) => return Ok(None),
    };
    match found {
        Found::Absent => Err(Rejection::MissingTimestamp),
        Found::Repeated => Err(Rejection::MalformedTimestamp),
        Found::Once(text) => Ok(Some(text)),
    }
}

/// A piece of the signed text: the body is never copied.
pub(super) enum Piece<'a> {
    Borrowed(&'a [u8]),
    Owned(String),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Borrowed(bytes) => bytes,
            Piece::Owned(text) => text.as_bytes(),
        }
    }
}

/// The signed text in order. A part that the request lacks, or has twice, cannot have been signed.
fn message<'a>(
    hmac: &'a Hmac,
    received: &'a Received,
    parsed: &Parsed<'a>,
    timestamp: Option<&'a str>,
    public_url: Option<&Url>,
) -> Result<Vec<Piece<'a>>, Rejection> {
    let select = |selector: &Selector| match received.find(selector) {
        Found::Absent => Err(Rejection::MissingSignature),
        Found::Repeated => Err(Rejection::MalformedSignature),
        Found::Once(bytes) => Ok(Piece::Borrowed(bytes)),
    };
    hmac.signed
        .iter()
        .map(|part| match part {
            Part::Literal(text) => Ok(Piece::Borrowed(text.as_bytes())),
            Part::Body => Ok(Piece::Borrowed(&received.body)),
            Part::Method => Ok(Piece::Borrowed(received.method.as_str().as_bytes())),
            Part::Path => Ok(Piece::Borrowed(received.raw_path().as_bytes())),
            Part::Url => {
                let url = public_url.ok_or(Rejection::MalformedSignature)?;
                Ok(Piece::Owned(match (url.query(), received.raw_query()) {
                    (None, Some(query)) => format!("{url}?{query}"),
                    _ => url.to_string(),
                }))
            }
            Part::Timestamp => {
                let text = timestamp.ok_or(Rejection::MissingTimestamp)?;
                Ok(Piece::Borrowed(text.as_bytes()))
            }
            Part::Id => select(hmac.id.as_ref().ok_or(Rejection::MalformedSignature)?),
            Part::Query(name) => select(&Selector::Query(name.clone())),
            Part::Header(name) => select(&Selector::Header(name.clone())),
            Part::Sig(key) => match parsed.field(key) {
                Found::Once(text) => Ok(Piece::Borrowed(text.as_bytes())),
                Found::Absent | Found::Repeated => Err(Rejection::MalformedSignature),
            },
        })
        .collect()
}

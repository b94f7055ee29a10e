//! Signatures over a text that the scheme lays out.

use std::borrow::Cow;

use jiff::Timestamp;
use subtle::Choice;
use url::Url;

use super::scheme::{Part, Rejection, Selector, Signing};
use super::signature::{self, Parsed};
use super::{Found, Received, algorithm, time};
use crate::secret::Vault;

pub(super) fn check(
    signing: &Signing,
    received: &Received,
    vault: &Vault,
    public_url: Option<&Url>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let header = signature_text(signing, received)?;
    let parsed = signature::parse(&header, &signing.signature)?;
    let timestamp = timestamp_text(signing, received, &parsed)?;
    let signed_at = match (signing.tolerance, &timestamp) {
        (None, _) => None,
        (Some(_), None) => return Err(Rejection::MissingTimestamp),
        (Some(tolerance), Some(text)) => {
            let at = time::read(text, signing.time_unit()).ok_or(Rejection::MalformedTimestamp)?;
            Some((at, tolerance))
        }
    };
    let message = message(signing, received, &parsed, timestamp.as_deref(), public_url)?;

    let (mut matches, mut usable) = (Choice::from(0), false);
    for secret in signing.secrets.iter().filter_map(|reference| vault.get(reference)) {
        let Ok(key) = signing.key(secret.expose()) else { continue };
        usable = true;
        let message: Vec<&[u8]> = message.iter().map(|piece| piece.bytes(&key)).collect();
        matches |= algorithm::is_signed(signing.algorithm, &key, &message, &parsed.candidates);
    }
    match (usable, bool::from(matches)) {
        (false, _) => return Err(Rejection::UnusableSecret),
        (true, false) => return Err(Rejection::WrongSignature),
        (true, true) => {}
    }
    // Last, so that `stale` is said of an authentic request only.
    signed_at.map_or(Ok(()), |(at, tolerance)| time::judge(at, now, tolerance))
}

fn signature_text(signing: &Signing, received: &Received) -> Result<String, Rejection> {
    let lines = received.find_all(&signing.signature.at);
    if lines.is_empty() {
        return Err(Rejection::MissingSignature);
    }
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| std::str::from_utf8(line))
        .collect::<Result<_, _>>()
        .map_err(|_| Rejection::MalformedSignature)?;
    signature::join(&lines, &signing.signature.syntax)
        .map(Cow::into_owned)
        .ok_or(Rejection::MalformedSignature)
}

fn timestamp_text<'a>(
    signing: &Signing,
    received: &'a Received,
    parsed: &Parsed<'a>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    if signing.signature.syntax.names_time() {
        return match parsed.time() {
            Found::Absent => Err(Rejection::MissingTimestamp),
            Found::Repeated => Err(Rejection::MalformedTimestamp),
            Found::Once(text) => Ok(Some(text.into())),
        };
    }
    let Some(at) = &signing.timestamp else { return Ok(None) };
    match received.find(&at.selector) {
        Found::Absent => Err(Rejection::MissingTimestamp),
        Found::Repeated => Err(Rejection::MalformedTimestamp),
        Found::Once(Cow::Borrowed(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Rejection::MalformedTimestamp)?;
            Ok(Some(text.into()))
        }
        Found::Once(Cow::Owned(bytes)) => {
            let text = String::from_utf8(bytes).map_err(|_| Rejection::MalformedTimestamp)?;
            Ok(Some(text.into()))
        }
    }
}

/// A piece of the signed text: the body is never copied.
enum Piece<'a> {
    Bytes(Cow<'a, [u8]>),
    Secret,
}

impl Piece<'_> {
    fn bytes<'a>(&'a self, secret: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Secret => secret,
        }
    }
}

/// The signed text in order. A part that the request lacks, or has twice, cannot have been signed.
fn message<'a>(
    signing: &'a Signing,
    received: &'a Received,
    parsed: &Parsed<'a>,
    timestamp: Option<&'a str>,
    public_url: Option<&Url>,
) -> Result<Vec<Piece<'a>>, Rejection> {
    let select = |selector: &Selector| match received.find(selector) {
        Found::Absent => Err(Rejection::MissingSignature),
        Found::Repeated => Err(Rejection::MalformedSignature),
        Found::Once(bytes) => Ok(bytes),
    };
    let bytes = |part: &'a Part| -> Result<Cow<'a, [u8]>, Rejection> {
        Ok(match part {
            Part::Literal(text) => text.as_bytes().into(),
            Part::Body => (&*received.body).into(),
            Part::Method => received.method.as_str().as_bytes().into(),
            Part::Path => received.raw_path().as_bytes().into(),
            Part::Url => {
                let url = public_url.ok_or(Rejection::MalformedSignature)?;
                match (url.query(), received.raw_query()) {
                    (None, Some(query)) => format!("{url}?{query}").into_bytes().into(),
                    _ => url.to_string().into_bytes().into(),
                }
            }
            Part::Timestamp => timestamp.ok_or(Rejection::MissingTimestamp)?.as_bytes().into(),
            Part::Id => select(signing.id.as_ref().ok_or(Rejection::MalformedSignature)?)?,
            Part::At(selector) => select(selector)?,
            Part::Lower(selector) => select(selector)?.to_ascii_lowercase().into(),
            Part::Sig(key) => match parsed.field(key) {
                Found::Once(text) => text.as_bytes().into(),
                Found::Absent | Found::Repeated => return Err(Rejection::MalformedSignature),
            },
            Part::Secret => Cow::Borrowed(&[]),
        })
    };
    let piece = |part: &'a Part| match part {
        Part::Secret => Ok(Piece::Secret),
        _ => bytes(part).map(Piece::Bytes),
    };
    signing.signed.iter().map(piece).collect()
}

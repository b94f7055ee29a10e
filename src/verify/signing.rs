//! Signatures over a text that the scheme lays out.

use std::borrow::Cow;

use subtle::Choice;

use super::request::{Found, Request};
use super::scheme::{Rejection, Signing};
use super::signature::{self, Parsed};
use super::text::{Lack, Layout};
use super::{algorithm, time};

/// How many groups of a signature are looked at.
const GROUPS_MAX: usize = 16;

pub(super) fn check(signing: &Signing, request: &Request<'_>) -> Result<(), Rejection> {
    let header = signature_text(signing, request)?;
    let Some(between) = signing.signature.groups else {
        return check_one(signing, request, &header);
    };
    let mut verdict = Err(Rejection::MalformedSignature);
    for group in header.split(between).filter(|group| !group.is_empty()).take(GROUPS_MAX) {
        match check_one(signing, request, group) {
            Ok(()) => return Ok(()),
            Err(reason) if verdict == Err(Rejection::MalformedSignature) || reason.is_of_time() => {
                verdict = Err(reason);
            }
            Err(_) => {}
        }
    }
    verdict
}

fn check_one(signing: &Signing, request: &Request<'_>, header: &str) -> Result<(), Rejection> {
    let parsed = signature::parse(header, &signing.signature)?;
    let timestamp = timestamp_text(signing, request, &parsed)?;
    let signed_at = match (signing.tolerance, &timestamp) {
        (None, _) => None,
        (Some(_), None) => return Err(Rejection::MissingTimestamp),
        (Some(tolerance), Some(text)) => {
            let at = time::read(text, signing.time_unit()).ok_or(Rejection::MalformedTimestamp)?;
            Some((at, tolerance))
        }
    };
    let layout = Layout {
        request,
        timestamp: timestamp.as_deref(),
        id: signing.id.as_ref(),
        parsed: Some(&parsed),
        key: None,
    };
    let message = layout.pieces(&signing.signed).map_err(rejection)?;

    let (mut matches, mut usable) = (Choice::from(0), false);
    for secret in signing.secrets.values(request)? {
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
    signed_at.map_or(Ok(()), |(at, tolerance)| time::judge(at, request.now, tolerance))
}

/// A part that the request lacks, or has twice, cannot have been signed.
fn rejection(lack: Lack<'_>) -> Rejection {
    match lack {
        Lack::Absent(_) => Rejection::MissingSignature,
        Lack::Unclear(_) | Lack::Key => Rejection::MalformedSignature,
        Lack::Time => Rejection::MissingTimestamp,
    }
}

fn signature_text(signing: &Signing, request: &Request<'_>) -> Result<String, Rejection> {
    let lines = request.find_all(&signing.signature.at);
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
    request: &Request<'a>,
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
    match request.find(&at.selector) {
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

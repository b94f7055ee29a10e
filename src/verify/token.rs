//! A secret that the sender simply shows.

use std::borrow::Cow;

use base64::Engine;
use serde_json::Value as Json;
use subtle::Choice;

use super::condition::equal;
use super::request::{Found, Request, member};
use super::scheme::{BASE64, Rejection, Token, TokenAt};
use super::text::Selector;

pub(super) fn check(token: &Token, request: &Request<'_>) -> Result<(), Rejection> {
    let find = |selector: Selector| single(request.find(&selector));
    let header = |name: &str| find(Selector::Header(name.to_owned()));
    let whole = |shown: Vec<u8>| (Choice::from(1), shown);
    let (mut matches, shown) = match &token.at {
        TokenAt::Header(name) => whole(header(name)?),
        TokenAt::Query(name) => whole(find(Selector::Query(name.clone()))?),
        TokenAt::Form(name) => whole(find(Selector::Form(name.clone()))?),
        TokenAt::Json(path) => whole(in_json(path, request)?.into_bytes()),
        TokenAt::Bearer => whole(after_scheme(&header("authorization")?, "bearer")?.to_vec()),
        TokenAt::Basic { user } => {
            let decoded = BASE64
                .decode(after_scheme(&header("authorization")?, "basic")?)
                .map_err(|_| Rejection::MalformedToken)?;
            let colon =
                decoded.iter().position(|byte| *byte == b':').ok_or(Rejection::MalformedToken)?;
            let (name, password) = decoded.split_at(colon);
            (equal(name, user.as_bytes()), password.iter().skip(1).copied().collect())
        }
    };
    let (mut any, mut usable) = (Choice::from(0), false);
    for secret in token.secrets.values(request)? {
        let secret = secret.expose().as_bytes();
        // An empty secret is no secret: it would let in whoever shows nothing.
        if !secret.is_empty() {
            usable = true;
            any |= equal(&shown, secret);
        }
    }
    matches &= any;
    match (usable, bool::from(matches)) {
        (false, _) => Err(Rejection::UnusableSecret),
        (true, false) => Err(Rejection::WrongToken),
        (true, true) => Ok(()),
    }
}

fn single(found: Found<Cow<'_, [u8]>>) -> Result<Vec<u8>, Rejection> {
    match found {
        Found::Absent => Err(Rejection::MissingToken),
        Found::Once(value) => Ok(value.into_owned()),
        Found::Repeated => Err(Rejection::MalformedToken),
    }
}

/// The credentials after `Bearer` or `Basic`; scheme names are case-insensitive (RFC 9110, 11.1).
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Result<&'a [u8], Rejection> {
    let end = value.iter().position(|byte| *byte == b' ').ok_or(Rejection::MalformedToken)?;
    let (name, rest) = value.split_at(end);
    if name.eq_ignore_ascii_case(scheme.as_bytes()) {
        Ok(rest.trim_ascii())
    } else {
        Err(Rejection::MalformedToken)
    }
}

fn in_json(path: &str, request: &Request<'_>) -> Result<String, Rejection> {
    let json = request.json().ok_or(Rejection::MalformedToken)?;
    match member(json, path).ok_or(Rejection::MissingToken)? {
        Json::String(text) => Ok(text.clone()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(Rejection::MalformedToken)
        }
    }
}

//! A secret that the sender simply shows.

use std::borrow::Cow;

use base64::Engine;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::scheme::{BASE64, Rejection, Selector, Token, TokenAt};
use super::{Found, Received, member};
use crate::secret::Vault;

pub(super) fn check(token: &Token, received: &Received, vault: &Vault) -> Result<(), Rejection> {
    let find = |selector: Selector| single(received.find(&selector));
    let header = |name: &str| find(Selector::Header(name.to_owned()));
    let whole = |shown: Vec<u8>| (Choice::from(1), shown);
    let (mut matches, shown) = match &token.at {
        TokenAt::Header(name) => whole(header(name)?),
        TokenAt::Query(name) => whole(find(Selector::Query(name.clone()))?),
        TokenAt::Form(name) => whole(find(Selector::Form(name.clone()))?),
        TokenAt::Json(path) => whole(in_body(path, &received.body)?.into_bytes()),
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
    for secret in token.secrets.iter().filter_map(|reference| vault.get(reference)) {
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

/// Compares digests, so that neither the place of the first difference nor the secret's length shows in the time.
fn equal(left: &[u8], right: &[u8]) -> Choice {
    Sha256::digest(left).as_slice().ct_eq(Sha256::digest(right).as_slice())
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

fn in_body(path: &str, body: &[u8]) -> Result<String, Rejection> {
    let found = member(path, body).map_err(|_| Rejection::MalformedToken)?;
    match found.ok_or(Rejection::MissingToken)? {
        Json::String(text) => Ok(text),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(Rejection::MalformedToken)
        }
    }
}

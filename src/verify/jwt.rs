//! JSON Web Tokens in the compact form (RFC 7519, RFC 7515): the signature by an algorithm that the scheme pins, then the
//! claims.

use std::time::Duration;

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::algorithm::{self, JwtAlgorithm};
use super::condition::equal;
use super::fetched::{KeySet, KeysAt, Want};
use super::request::{Found, Request};
use super::scheme::{BASE64_URL, KeyForm, Rejection, Secrets};
use super::text::{Layout, Selector, Text};
use super::time;
use crate::secret::SecretRef;

#[derive(Clone, Debug)]
pub struct Jwt {
    pub at: JwtAt,
    /// The only ones that are taken; what the token says is compared with them.
    pub algorithms: Vec<JwtAlgorithm>,
    pub keys: JwtKeys,
    /// The claims that must be there, whatever they say.
    pub required: Vec<String>,
    pub claims: Vec<Claim>,
    /// Greatest distance between `iat` and now, either way; then `iat` must be there.
    pub tolerance: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JwtAt {
    /// A header; without its prefix, such as `JWT `, it is no token.
    Header {
        name: String,
        prefix: String,
    },
    /// `Authorization: Bearer …`
    Bearer,
    At(Selector),
    /// The body is the token.
    Body,
    /// A header with a token without content; the body is the content (RFC 7797, `b64: false`).
    Detached {
        name: String,
    },
}

#[derive(Clone, Debug)]
pub enum JwtKeys {
    /// Shared secrets, or public keys.
    Secrets {
        secrets: Secrets,
        form: KeyForm,
    },
    Fetched(KeysAt),
    /// A JWK set in a file.
    Pinned(SecretRef),
}

#[derive(Clone, Debug)]
pub struct Claim {
    pub name: String,
    /// One of them.
    pub expected: Vec<ExpectedClaim>,
}

#[derive(Clone, Debug)]
pub enum ExpectedClaim {
    Bool(bool),
    Text(Text),
}

/// Longest token in a header or a field.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What two clocks may be apart where `exp` and `nbf` are looked at.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    crit: Vec<String>,
    b64: Option<bool>,
}

/// A token, taken apart and not yet believed.
struct Parts {
    header: Header,
    /// Header and content as they are signed.
    signed: Vec<u8>,
    signature: Vec<u8>,
    /// Nothing where the content is detached.
    claims: Map<String, Json>,
}

pub(super) fn check(jwt: &Jwt, request: &Request<'_>) -> Result<(), Rejection> {
    let parts = parts(jwt, request)?;
    let algorithm = algorithm_of(jwt, &parts.header)?;
    signed(jwt, request, algorithm, &parts)?;
    claims(jwt, request, &parts.claims)
}

/// The keys that the token needs and that have to be fetched. Of a token that is none nothing is.
pub(super) fn want(jwt: &Jwt, request: &Request<'_>) -> Option<Want> {
    let JwtKeys::Fetched(at) = &jwt.keys else { return None };
    let parts = parts(jwt, request).ok()?;
    algorithm_of(jwt, &parts.header).ok()?;
    Some(Want { at: at.clone(), key_id: parts.header.kid })
}

fn token(jwt: &Jwt, request: &Request<'_>) -> Result<String, Rejection> {
    let find = |selector: &Selector| match request.find(selector) {
        Found::Once(bytes) => {
            String::from_utf8(bytes.into_owned()).map_err(|_| Rejection::MalformedToken)
        }
        Found::Absent => Err(Rejection::MissingToken),
        Found::Repeated => Err(Rejection::MalformedToken),
    };
    let header = |name: &str| find(&Selector::Header(name.to_owned()));
    let text = match &jwt.at {
        JwtAt::Header { name, prefix } => {
            let text = header(name)?;
            text.strip_prefix(prefix.as_str()).ok_or(Rejection::MalformedToken)?.to_owned()
        }
        JwtAt::Detached { name } => header(name)?,
        JwtAt::Bearer => {
            let text = header("authorization")?;
            let (scheme, token) = text.split_once(' ').ok_or(Rejection::MalformedToken)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Rejection::MalformedToken);
            }
            token.to_owned()
        }
        JwtAt::At(selector) => find(selector)?,
        JwtAt::Body => {
            let body = std::str::from_utf8(&request.received.body);
            return body.map(|text| text.trim().to_owned()).map_err(|_| Rejection::MalformedToken);
        }
    };
    match text.trim() {
        text if text.len() <= TOKEN_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(Rejection::MalformedToken),
    }
}

fn parts(jwt: &Jwt, request: &Request<'_>) -> Result<Parts, Rejection> {
    let token = token(jwt, request)?;
    let malformed = || Rejection::MalformedToken;
    let decode = |text: &str| BASE64_URL.decode(text).map_err(|_| Rejection::MalformedToken);
    let mut segments = token.split('.');
    let (Some(header), Some(content), Some(signature), None) =
        (segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return Err(malformed());
    };
    let parsed: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
    let detached = matches!(jwt.at, JwtAt::Detached { .. });
    // An extension that is not understood must not be passed over (RFC 7515, 4.1.11).
    let is_understood = match detached {
        true => parsed.crit == ["b64"] && parsed.b64 == Some(false),
        false => parsed.crit.is_empty(),
    };
    if !is_understood || detached != content.is_empty() {
        return Err(malformed());
    }
    let (signed, claims) = match detached {
        true => ([header.as_bytes(), b".", &request.received.body].concat(), Map::new()),
        false => {
            let claims = serde_json::from_slice(&decode(content)?).map_err(|_| malformed())?;
            (format!("{header}.{content}").into_bytes(), claims)
        }
    };
    let signature = decode(signature)?;
    Ok(Parts { header: parsed, signed, signature, claims })
}

fn algorithm_of(jwt: &Jwt, header: &Header) -> Result<JwtAlgorithm, Rejection> {
    let known = jwt.algorithms.iter().find(|algorithm| algorithm.name() == header.alg);
    known.copied().ok_or(Rejection::WrongAlgorithm)
}

fn signed(
    jwt: &Jwt,
    request: &Request<'_>,
    algorithm: JwtAlgorithm,
    parts: &Parts,
) -> Result<(), Rejection> {
    let is_by =
        |key: &[u8]| bool::from(algorithm::is_jws(algorithm, key, &parts.signed, &parts.signature));
    match &jwt.keys {
        JwtKeys::Secrets { secrets, form } => {
            let (mut any, mut usable) = (false, false);
            for secret in secrets.values(request)? {
                let Ok(key) = form.key(secret.expose(), algorithm.public_key()) else { continue };
                usable = true;
                any |= is_by(&key);
            }
            match (usable, any) {
                (false, _) => Err(Rejection::UnusableSecret),
                (true, false) => Err(Rejection::WrongSignature),
                (true, true) => Ok(()),
            }
        }
        JwtKeys::Fetched(at) => {
            let set = request.keys.fetched.get(at).ok_or(Rejection::KeyUnavailable)?;
            signed_by_set(set, algorithm, parts, is_by)
        }
        JwtKeys::Pinned(reference) => {
            let text = request.secret(reference).ok_or(Rejection::UnusableSecret)?;
            let set = KeySet::jwks(text.expose().as_bytes());
            signed_by_set(&set.map_err(|_| Rejection::UnusableSecret)?, algorithm, parts, is_by)
        }
    }
}

fn signed_by_set(
    set: &KeySet,
    algorithm: JwtAlgorithm,
    parts: &Parts,
    is_by: impl Fn(&[u8]) -> bool,
) -> Result<(), Rejection> {
    let KeySet::Keys(keys) = set else { return Err(Rejection::KeyUnavailable) };
    let wanted = parts.header.kid.as_deref();
    let mut candidates = keys
        .iter()
        .filter(|key| wanted.is_none_or(|id| key.id.as_deref() == Some(id)))
        .filter(|key| key.algorithm.as_deref().is_none_or(|name| name == algorithm.name()))
        .filter_map(|key| key.key.of(algorithm))
        .peekable();
    if candidates.peek().is_none() {
        return Err(Rejection::UnknownKey);
    }
    match candidates.any(is_by) {
        true => Ok(()),
        false => Err(Rejection::WrongSignature),
    }
}

fn claims(jwt: &Jwt, request: &Request<'_>, claims: &Map<String, Json>) -> Result<(), Rejection> {
    let missing = |name: &String| claims.get(name).is_none_or(Json::is_null);
    if jwt.required.iter().any(missing) {
        return Err(Rejection::WrongClaim);
    }
    for claim in &jwt.claims {
        let found = claims.get(&claim.name).ok_or(Rejection::WrongClaim)?;
        if !claim.expected.iter().any(|expected| fits(expected, found, request)) {
            return Err(Rejection::WrongClaim);
        }
    }
    let time = |name: &str| match claims.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => numeric_date(json).map(Some).ok_or(Rejection::MalformedTimestamp),
    };
    if time("exp")?.is_some_and(|at| request.now.duration_since(at) >= LEEWAY) {
        return Err(Rejection::StaleTimestamp);
    }
    if time("nbf")?.is_some_and(|at| at.duration_since(request.now) > LEEWAY) {
        return Err(Rejection::FutureTimestamp);
    }
    match (jwt.tolerance, time("iat")?) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Rejection::MissingTimestamp),
        (Some(tolerance), Some(at)) => time::judge(at, request.now, tolerance),
    }
}

/// Seconds, perhaps with a fraction (RFC 7519, 2), which does not count here.
fn numeric_date(json: &Json) -> Option<Timestamp> {
    let seconds = json.as_number()?.as_f64()?;
    // What a time can be is far within what an `f64` holds exactly.
    let in_range = (-1e11..1e11).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, reason = "the range was looked at")]
    in_range.then(|| Timestamp::from_second(seconds as i64).ok()).flatten()
}

fn fits(expected: &ExpectedClaim, found: &Json, request: &Request<'_>) -> bool {
    match (expected, found) {
        // `aud` may be a list (RFC 7519, 4.1.3).
        (_, Json::Array(items)) => items.iter().any(|item| fits(expected, item, request)),
        (ExpectedClaim::Bool(expected), Json::Bool(found)) => expected == found,
        (ExpectedClaim::Text(text), Json::String(found)) => Layout::of(request)
            .whole(text)
            .is_ok_and(|expected| equal(&expected, found.as_bytes()).into()),
        (ExpectedClaim::Text(text), Json::Number(found)) => Layout::of(request)
            .whole(text)
            .is_ok_and(|expected| expected == found.to_string().as_bytes()),
        _ => false,
    }
}

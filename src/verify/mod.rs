//! Did the sender prove itself? Pure: the time is an argument, secrets come from the vault, nothing is fetched.

pub mod algorithm;
pub mod canonical;
pub mod certificate;
pub mod challenge;
pub mod condition;
pub mod draft;
pub mod elements;
pub mod fetched;
pub mod handshake;
pub mod jwt;
pub mod rejection;
mod request;
pub mod scheme;
pub mod secrets;
pub mod sign;
mod signature;
mod signing;
#[cfg(test)]
mod tests;
pub mod text;
mod time;
mod token;

pub use request::{About, Keys};

use bytes::Bytes;
use fetched::Want;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use jwt::JwtAt;
use request::Request;
use scheme::{Rejection, Scheme, TokenAt};
use text::Selector;

/// A request with its whole body, bound to a source, not yet trusted.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    /// The request target as it came, not decoded: path and query.
    pub target: String,
    /// The `{name}` parts of the source's path, percent-decoded.
    pub path: Vec<(String, String)>,
    /// Decoded parameters in order.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub received_at: Timestamp,
}

/// A request whose sender proved itself. Only `verify` makes one; only a `Verified` becomes an envelope.
#[derive(Clone, Debug)]
pub struct Verified {
    received: Received,
    /// Header names (lower case) whose values are credentials: they are not stored.
    secret_headers: Vec<String>,
    /// Query parameters whose values are credentials.
    secret_query: Vec<String>,
}

impl Verified {
    pub fn received(&self) -> &Received {
        &self.received
    }

    pub fn secret_headers(&self) -> &[String] {
        &self.secret_headers
    }

    pub fn secret_query(&self) -> &[String] {
        &self.secret_query
    }
}

/// Checks `received` against `scheme`. Every doubt is a rejection.
pub fn verify(
    scheme: &Scheme,
    received: Received,
    keys: Keys<'_>,
    about: About<'_>,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    prove(scheme, &Request::new(&received, keys, about, now))?;
    // Credentials of branches that did not verify, and of proxies and browsers, are no less secret.
    let mut secret_headers: Vec<String> =
        ["authorization", "proxy-authorization", "cookie"].map(String::from).into();
    let mut secret_query = Vec::new();
    credentials(scheme, &mut secret_headers, &mut secret_query);
    Ok(Verified { received, secret_headers, secret_query })
}

/// The keys that have to be fetched before `received` can be verified; mostly none. A stranger cannot have anything fetched
/// but what the scheme pins.
pub fn wants(
    scheme: &Scheme,
    received: &Received,
    keys: Keys<'_>,
    about: About<'_>,
    now: Timestamp,
) -> Vec<Want> {
    let mut wants = Vec::new();
    let mut find = |scheme: &Scheme, request: &Request<'_>| {
        let found = match scheme {
            _ if wants.len() >= WANTS_MAX => None,
            Scheme::Signing(signing) => signing::want(signing, request),
            Scheme::Jwt(jwt) => jwt::want(jwt, request),
            _ => None,
        };
        wants.extend(found.filter(|want| !wants.contains(want)));
    };
    if scheme.fetches() {
        each(scheme, &Request::new(received, keys, about, now), &mut find);
    }
    wants
}

/// How many keys one request may have fetched.
const WANTS_MAX: usize = 4;

/// Every scheme that the request may have to pass.
fn each(scheme: &Scheme, request: &Request<'_>, visit: &mut dyn FnMut(&Scheme, &Request<'_>)) {
    match scheme {
        Scheme::AnyOf(schemes) => {
            for scheme in schemes {
                each(scheme, request, visit);
            }
        }
        Scheme::AllOf(schemes) => {
            for scheme in schemes {
                if matches!(scheme, Scheme::Require(conditions) if !conditions.hold(request)) {
                    return;
                }
                each(scheme, request, visit);
            }
        }
        Scheme::ForEach { path, scheme } => {
            let Some(json) = request.json() else { return };
            for element in elements::hits(path, json) {
                each(scheme, &request.within(element), visit);
            }
        }
        Scheme::Signing(_)
        | Scheme::Token(_)
        | Scheme::Jwt(_)
        | Scheme::Require(_)
        | Scheme::None { .. } => visit(scheme, request),
    }
}

fn prove(scheme: &Scheme, request: &Request<'_>) -> Result<(), Rejection> {
    match scheme {
        Scheme::Signing(signing) => signing::check(signing, request),
        Scheme::Token(token) => token::check(token, request),
        Scheme::Jwt(jwt) => jwt::check(jwt, request),
        Scheme::AnyOf(schemes) => {
            let mut reason = Rejection::MissingSignature;
            for scheme in schemes {
                match prove(scheme, request) {
                    Ok(()) => return Ok(()),
                    // What was there and wrong tells more than what was not there.
                    // A right signature that came too late tells most.
                    // And of whom nothing could be known is not refused.
                    _ if reason == Rejection::KeyUnavailable => {}
                    Err(rejection)
                        if reason.is_absence()
                            || rejection.is_of_time()
                            || rejection == Rejection::KeyUnavailable =>
                    {
                        reason = rejection;
                    }
                    Err(_) => {}
                }
            }
            Err(reason)
        }
        Scheme::AllOf(schemes) => schemes.iter().try_for_each(|scheme| prove(scheme, request)),
        Scheme::Require(conditions) => conditions.check(request),
        Scheme::ForEach { path, scheme } => {
            let json = request.json().ok_or(Rejection::MalformedSignature)?;
            let elements = elements::hits(path, json);
            // Nothing of what is nobody's is believed.
            if elements.is_empty() {
                return Err(Rejection::MissingSignature);
            }
            elements.into_iter().try_for_each(|element| prove(scheme, &request.within(element)))
        }
        Scheme::None { .. } => Ok(()),
    }
}

fn credentials(scheme: &Scheme, headers: &mut Vec<String>, query: &mut Vec<String>) {
    match scheme {
        Scheme::Token(token) => match &token.at {
            TokenAt::Header(name) => headers.push(name.to_ascii_lowercase()),
            TokenAt::Query(name) => query.push(name.clone()),
            TokenAt::Json(_) | TokenAt::Form(_) | TokenAt::Bearer | TokenAt::Basic { .. } => {}
        },
        Scheme::AnyOf(schemes) | Scheme::AllOf(schemes) => {
            for scheme in schemes {
                credentials(scheme, headers, query);
            }
        }
        Scheme::ForEach { scheme, .. } => credentials(scheme, headers, query),
        Scheme::Jwt(jwt) => match &jwt.at {
            JwtAt::Header { name, .. } => headers.push(name.to_ascii_lowercase()),
            JwtAt::At(Selector::Query(name)) => query.push(name.clone()),
            // The body is what is kept, and a token without content proves nothing but that.
            JwtAt::Bearer | JwtAt::At(_) | JwtAt::Body | JwtAt::Detached { .. } => {}
        },
        Scheme::Signing(_) | Scheme::Require(_) | Scheme::None { .. } => {}
    }
}

//! Did the sender prove itself? Pure: the time is an argument, secrets come from the vault, nothing is fetched.

mod algorithm;
pub mod canonical;
pub mod condition;
pub mod elements;
pub mod handshake;
mod request;
pub mod scheme;
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
use http::{HeaderMap, Method};
use jiff::Timestamp;
use request::Request;
use scheme::{Rejection, Scheme, TokenAt};

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

fn prove(scheme: &Scheme, request: &Request<'_>) -> Result<(), Rejection> {
    match scheme {
        Scheme::Signing(signing) => signing::check(signing, request),
        Scheme::Token(token) => token::check(token, request),
        Scheme::AnyOf(schemes) => {
            let mut reason = Rejection::MissingSignature;
            for scheme in schemes {
                match prove(scheme, request) {
                    Ok(()) => return Ok(()),
                    // What was there and wrong tells more than what was not there.
                    // A right signature that came too late tells most.
                    Err(rejection) if reason.is_absence() || rejection.is_of_time() => {
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
        Scheme::Signing(_) | Scheme::Require(_) | Scheme::None { .. } => {}
    }
}

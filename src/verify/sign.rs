//! The sender's side of every scheme: what a request must carry so that [`super::verify`] takes it.

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use url::Url;

use super::scheme::Scheme;
use crate::secret::Vault;

/// A request before its sender proves itself.
#[derive(Clone, Debug)]
pub struct Unsigned {
    pub method: Method,
    /// The source's URL as the provider knows it, query included.
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The id to sign where the scheme signs one (`{id}`) and no header gives it yet.
    pub id: String,
}

/// What the request needs besides what it has: set these headers and query parameters, send this body.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    pub headers: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    /// The same body, but for a token that stands in it.
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the scheme has no secret number {0}")]
    NoSuchSecret(usize),
    #[error("the secret {0} has no value")]
    MissingSecret(String),
    #[error("the secret {name} cannot be used: {why}")]
    UnusableSecret { name: String, why: String },
    #[error("the token cannot be placed in the body at {0}")]
    TokenPlace(String),
    #[error("the signed text names {0}, which the request does not have")]
    MissingPart(String),
}

/// Signs with secret number `which` (from 0) of the scheme; of `any_of` the first scheme signs.
pub fn sign(
    scheme: &Scheme,
    vault: &Vault,
    unsigned: &Unsigned,
    now: Timestamp,
    which: usize,
) -> Result<Proof, SignError> {
    let _ = (scheme, vault, unsigned, now, which);
    todo!()
}

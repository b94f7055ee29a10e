//! Did the sender prove itself? Pure: the time is an argument, secrets come from the vault, nothing is fetched.

pub mod scheme;
pub mod sign;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use url::Url;

use crate::secret::Vault;
use scheme::{Rejection, Scheme};

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

/// Checks `received` against `scheme`. `public_url` is the source's URL as the provider knows it; the query that came is
/// added where it has none. Every doubt is a rejection.
pub fn verify(
    scheme: &Scheme,
    received: Received,
    vault: &Vault,
    public_url: Option<&Url>,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    let _ = (scheme, received, vault, public_url, now);
    todo!()
}

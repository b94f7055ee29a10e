//! Did the sender prove itself? Pure: the time is an argument, secrets come from the vault, nothing is fetched.

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;

/// A request with its whole body, bound to a source, not yet trusted.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
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

pub mod scheme;

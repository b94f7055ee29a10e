//! Small HTTP clients of the command line: the admin API's JSON, and a plain request for `router send`. They go where the
//! operator points them, so the egress fence does not stand before them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value as Json;
use url::Url;

use crate::secret::SecretValue;
use crate::world::transport::WireResponse;

/// A client of a running router's admin API.
pub struct ApiClient {
    base: Url,
    token: Option<SecretValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url} answered {status} with something that is not JSON")]
    NotJson { url: String, status: u16 },
}

impl ApiClient {
    pub fn new(base: Url, token: Option<SecretValue>) -> Result<Self, ApiError> {
        Ok(Self { base, token })
    }

    /// `path` starts with `/` and is percent-encoded already; answers status and body.
    pub async fn get(
        &self,
        path: &str,
        query: &[(String, String)],
    ) -> Result<(u16, Json), ApiError> {
        drop((path, query, &self.base, &self.token));
        todo!()
    }

    pub async fn post(&self, path: &str, body: &Json) -> Result<(u16, Json), ApiError> {
        drop((path, body, &self.base, &self.token));
        todo!()
    }
}

/// Sends one request as it is and waits at most `limit` for the answer.
pub async fn send(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<WireResponse, ApiError> {
    drop((method, url, headers, body, limit));
    todo!()
}

//! Small HTTP clients of the command line: the admin API's JSON, and a plain request for `router send`. They go where the
//! operator points them, so the egress fence does not stand before them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value as Json;
use url::Url;

use super::http::{cause, client};
use crate::secret::SecretValue;
use crate::world::transport::WireResponse;

/// A list of events may be long, but not endless.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of a running router's admin API.
pub struct ApiClient {
    base: Url,
    token: Option<SecretValue>,
    client: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error(
        "{url} answered {status} with something that is not JSON; is this the admin address of a router?"
    )]
    NotJson { url: String, status: u16 },
}

impl ApiClient {
    /// `base` is the router's admin address, such as `http://127.0.0.1:8081`.
    pub fn new(base: Url, token: Option<SecretValue>) -> Result<Self, ApiError> {
        let client = build(&base, TIMEOUT)?;
        Ok(Self { base, token, client })
    }

    /// `path` starts with `/` and is percent-encoded already; answers status and body.
    pub async fn get(
        &self,
        path: &str,
        query: &[(String, String)],
    ) -> Result<(u16, Json), ApiError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(self.client.get(url.clone()), &url).await
    }

    /// The bytes that stand at `path`, or the refusal in JSON.
    pub async fn get_bytes(
        &self,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Result<Bytes, (u16, Json)>, ApiError> {
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.client.get(url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = receive(request, &url).await?;
        if (200..300).contains(&answer.status) {
            return Ok(Ok(answer.body));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(json) => Ok(Err((answer.status, json))),
            Err(_) => Err(ApiError::NotJson { url: shown(&url), status: answer.status }),
        }
    }

    pub async fn post(&self, path: &str, body: &Json) -> Result<(u16, Json), ApiError> {
        let url = self.url(path);
        let request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.ask(request, &url).await
    }

    pub async fn delete(&self, path: &str) -> Result<(u16, Json), ApiError> {
        let url = self.url(path);
        // A browser's form can send none with this type: the router asks for it before every change.
        let request = self.client.delete(url.clone()).header(CONTENT_TYPE, "application/json");
        self.ask(request, &url).await
    }

    /// Like [`Self::get`], with the answer as it comes: JSON lines are no JSON.
    pub async fn get_lines(
        &self,
        path: &str,
        query: &[(String, String)],
    ) -> Result<WireResponse, ApiError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.get(url.clone()).header(ACCEPT, "application/x-ndjson");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        receive(request, &url).await
    }

    pub async fn post_lines(&self, path: &str, lines: String) -> Result<(u16, Json), ApiError> {
        let url = self.url(path);
        let request =
            self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-ndjson").body(lines);
        self.ask(request, &url).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        // A base with a path of its own (behind a proxy) keeps it. `set_path` leaves `%XX` as it is.
        let base_path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base_path}{path}"));
        url
    }

    async fn ask(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
    ) -> Result<(u16, Json), ApiError> {
        let mut request = request.header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = receive(request, url).await?;
        if answer.body.is_empty() {
            return Ok((answer.status, Json::Null));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(json) => Ok((answer.status, json)),
            Err(_) => Err(ApiError::NotJson { url: shown(url), status: answer.status }),
        }
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
    let request = build(url, limit)?.request(method, url.clone()).headers(headers).body(body);
    receive(request, url).await
}

fn build(url: &Url, limit: Duration) -> Result<reqwest::Client, ApiError> {
    client()
        .timeout(limit)
        .build()
        .map_err(|error| ApiError::Unreachable { url: shown(url), why: cause(&error) })
}

async fn receive(request: reqwest::RequestBuilder, url: &Url) -> Result<WireResponse, ApiError> {
    let unreachable =
        |error: reqwest::Error| ApiError::Unreachable { url: shown(url), why: cause(&error) };
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let (body, truncated) =
        super::http::read_body(&mut response, ANSWER_BYTES_MAX).await.map_err(unreachable)?;
    Ok(WireResponse { status, headers, body, truncated })
}

/// The URL without credentials.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail on a URL that can have a host, and one without has no credentials.
    let _gone = (url.set_username(""), url.set_password(None));
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_base_and_keep_their_encoding() {
        let check = |base: &str, path: &str, expected: &str| {
            let client = ApiClient::new(Url::parse(base).unwrap(), None).unwrap();
            assert_eq!(client.url(path).as_str(), expected);
        };
        check("http://127.0.0.1:8081", "/api/v1/events", "http://127.0.0.1:8081/api/v1/events");
        check("http://a.example/router/", "/readyz", "http://a.example/router/readyz");
        check("http://a.example", "/api/v1/events/a%2Fb", "http://a.example/api/v1/events/a%2Fb");
    }

    #[test]
    fn credentials_in_a_url_are_not_shown() {
        let url = Url::parse("http://me:secret@a.example/x").unwrap();
        assert_eq!(shown(&url), "http://a.example/x");
    }
}

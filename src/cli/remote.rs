//! How commands ask a running router through its API, and how they show its answers to a person.

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use url::Url;

use super::err;
use crate::call::api::{ApiClient, ApiError};
use crate::secret::SecretValue;
use crate::telemetry::log::field;

/// What stays as it is within one part of a path (RFC 3986, unreserved).
const PATH_PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
#[derive(clap::Args, Debug)]
pub(super) struct RemoteArgs {
    /// The admin address of the router [env: ROUTER_URL] [default: http://127.0.0.1:8081]
    #[arg(long, global = true)]
    pub(super) url: Option<String>,
    /// Print JSON for machines
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The router that `url`, `$ROUTER_URL` or nothing names. `None`, after saying why: that is no address.
pub(super) fn connect(url: Option<String>) -> anyhow::Result<Option<Api>> {
    let url = url
        .or_else(|| std::env::var("ROUTER_URL").ok().filter(|url| !url.is_empty()))
        .unwrap_or_else(|| "http://127.0.0.1:8081".to_owned());
    let base = match Url::parse(&url) {
        Ok(base) if matches!(base.scheme(), "http" | "https") => base,
        Ok(_) | Err(_) => {
            err(&format!("error: `{url}` is not an http URL; try http://127.0.0.1:8081\n"));
            return Ok(None);
        }
    };
    let token = std::env::var("ROUTER_TOKEN").ok().filter(|token| !token.is_empty());
    Ok(Some(Api(ApiClient::new(base, token.map(SecretValue::new))?)))
}

/// The API, with its refusals as errors for a person.
pub(super) struct Api(pub(super) ApiClient);

impl Api {
    pub(super) async fn get(&self, path: &str, query: &[(String, String)]) -> anyhow::Result<Json> {
        accepted(self.0.get(path, query).await)
    }

    pub(super) async fn post(&self, path: &str, body: &Json) -> anyhow::Result<Json> {
        accepted(self.0.post(path, body).await)
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Json> {
        accepted(self.0.delete(path).await)
    }
}

pub(super) fn accepted(answer: Result<(u16, Json), ApiError>) -> anyhow::Result<Json> {
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error @ ApiError::Unreachable { .. }) => {
            return Err(error).context(
                "no router answers; is `router serve` running there? Name its admin address by --url or $ROUTER_URL",
            );
        }
        Err(error @ ApiError::NotJson { .. }) => return Err(error.into()),
    };
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let mut message = match body["detail"].as_str() {
        Some(detail) => field_long(detail),
        None => format!("the router answered {status}"),
    };
    if status == 401 {
        message.push_str("; put a token in $ROUTER_TOKEN");
    }
    for found in body["matches"].as_array().into_iter().flatten() {
        message.push_str(&format!(
            "\n  router events show {}   # source {}, received {}",
            text(&found["uid"]),
            text(&found["source"]),
            text(&found["receivedAt"])
        ));
    }
    bail!(message)
}

/// One part of a path.
pub(super) fn path_part(id: &str) -> String {
    // A part of dots alone would be taken as a way up.
    match id {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        id => utf8_percent_encode(id, PATH_PART).to_string(),
    }
}

/// A value on one line, safe for a terminal; `-` where there is none.
pub(super) fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) if text.is_empty() => "-".to_owned(),
        Json::String(text) => field(text).into_owned(),
        other => field(&other.to_string()).into_owned(),
    }
}

/// A time to the millisecond, which is what a person compares.
pub(super) fn moment(value: &Json) -> String {
    match value.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()) {
        Some(at) => format!("{at:.3}"),
        None => text(value),
    }
}

/// Like [`text`], for sentences of the router's own, which may be long.
pub(super) fn field_long(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

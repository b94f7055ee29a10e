//! A checked step and what its templates read → the request as it will leave, with its redacted likeness. Refuses to
//! know the network; the destination's `auth` is added by `call`.

pub mod context;
pub mod key;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use url::Url;

use crate::config::{Call, Destination, DestinationUrl, Idempotency, Resolved, Route, Step};
use crate::delivery::state::IdempotencyKey;
use crate::name::Lane;
use crate::template::body::BodyTemplate;
use crate::template::context::Context;
use crate::template::url::encode;
use crate::template::{RenderError, Template};

/// Longer request lines are cut in the journal.
const LINE_CHARS_MAX: usize = 512;
const AGENT: &str = concat!("router/", env!("CARGO_PKG_VERSION"));
const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

/// A request as it will leave, secrets in it, and its redacted likeness. The destination's `auth` is not in it: `call`
/// adds it.
pub struct OutgoingRequest {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The same with secrets as `[secret NAME]`.
    pub shown: Shown,
    /// SHA-256 (hex) of the redacted likeness.
    pub digest: String,
    pub destination: Option<Arc<Destination>>,
    pub lane: Lane,
    pub key: Option<IdempotencyKey>,
    pub timeout: Duration,
}

impl std::fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shown.fmt(f)
    }
}

/// A request as people may see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Shown {
    /// Method and URL, for the journal: at most [`LINE_CHARS_MAX`] characters.
    pub fn line(&self) -> String {
        let line = format!("{} {}", self.method, self.url);
        if line.chars().count() <= LINE_CHARS_MAX {
            return line;
        }
        line.chars().take(LINE_CHARS_MAX).chain(['…']).collect()
    }
}

/// The step's call as it will leave. `body` is the event's own, for `raw: true`.
pub fn render_call(
    step: &Step,
    route: &Route,
    context: &Context,
    key: Option<&IdempotencyKey>,
    body: &Bytes,
    resolved: &Resolved,
) -> Result<OutgoingRequest, RenderError> {
    let call = &step.call;
    let real = compose(step, context, key, body, resolved)?;
    let secret_url = call.to.as_ref().is_some_and(|to| matches!(to.url, DestinationUrl::Secret(_)));
    let mut shown = if reads_secrets(call) {
        match compose(step, &context.redacted(), key, body, resolved) {
            Ok(redacted) => show(call, &redacted),
            // A stand-in cannot always take a secret's place, in `b64decode` for one: then nothing is shown.
            Err(_) => Shown {
                method: call.method.to_string(),
                url: "[secret]".to_owned(),
                headers: Vec::new(),
                body: "[secret]".to_owned(),
            },
        }
    } else {
        show(call, &real)
    };
    if secret_url {
        shown.url = "[secret]".to_owned();
    }
    let secrets = route.secrets.iter().filter_map(|(name, at)| Some((name, resolved.secret(at)?)));
    for (name, secret) in secrets.filter(|(_, secret)| !secret.expose().is_empty()) {
        let hide = |text: &mut String| {
            if text.contains(secret.expose()) {
                *text = text.replace(secret.expose(), &format!("[secret {name}]"));
            }
        };
        hide(&mut shown.url);
        hide(&mut shown.body);
        shown.headers.iter_mut().for_each(|(_, value)| hide(value));
    }
    let digest = digest(&shown, matches!(call.body, BodyTemplate::Raw).then_some(&real.body));
    let lane = match &call.to {
        Some(destination) => destination.lane.clone(),
        None => lane_of(&real.url),
    };
    Ok(OutgoingRequest {
        method: call.method.clone(),
        url: real.url,
        headers: real.headers,
        body: real.body,
        shown,
        digest,
        destination: call.to.clone(),
        lane,
        key: key.cloned(),
        timeout: step.timeout,
    })
}

struct Composed {
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

fn compose(
    step: &Step,
    context: &Context,
    key: Option<&IdempotencyKey>,
    event_body: &Bytes,
    resolved: &Resolved,
) -> Result<Composed, RenderError> {
    let call = &step.call;
    let url = url(call, context, resolved)?;
    let mut headers = HeaderMap::new();
    let (body, content_type) = body(&call.body, context, event_body)?;
    let body_type = match &call.body {
        // The body as it came keeps the type that it came with.
        BodyTemplate::Raw => context.text("headers", "content-type"),
        _ => content_type.map(str::to_owned),
    };
    if let Some(value) = body_type.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(id) = context.text("%correlation", "id")
        && let Ok(value) = HeaderValue::try_from(id)
    {
        headers.insert(CORRELATION_HEADER, value);
    }
    let declared = call.to.as_ref().map_or(&Idempotency::Unknown, |to| &to.idempotency);
    if let Some(key) = key.filter(|_| call.method != Method::GET) {
        let name = match declared {
            Idempotency::Header(name) => Some(name.clone()),
            Idempotency::Unknown => Some(HeaderName::from_static("idempotency-key")),
            Idempotency::Body | Idempotency::None => None,
        };
        if let Some(name) = name {
            let value = HeaderValue::try_from(&key.text).map_err(|_| RenderError {
                message: "the key cannot be sent as a header".to_owned(),
                expression: "idempotency_key".to_owned(),
            })?;
            headers.insert(name, value);
        }
    }
    for (name, template) in &call.headers {
        if let Some(text) = template.render_text(context)? {
            let value = HeaderValue::try_from(&text).map_err(|_| RenderError {
                message: format!("the header {name} must not hold line breaks or other controls"),
                expression: template.text().to_owned(),
            })?;
            headers.insert(name.clone(), value);
        }
    }
    Ok(Composed { url, headers, body })
}

fn url(call: &Call, context: &Context, resolved: &Resolved) -> Result<Url, RenderError> {
    let fail = |message: String| RenderError { message, expression: call.url.text().to_owned() };
    let rendered = call.url.render(context)?;
    let mut url = match &call.to {
        None => Url::parse(&rendered)
            .map_err(|error| fail(format!("the URL cannot be read: {error}")))?,
        Some(destination) => {
            let mut base = match &destination.url {
                DestinationUrl::Plain(url) => url.clone(),
                DestinationUrl::Secret(reference) => {
                    let text = resolved.secret(reference).ok_or_else(|| {
                        fail(format!("the URL of `{}` is not set", destination.lane))
                    })?;
                    // What is wrong with a secret URL is not told in its own words.
                    Url::parse(text.expose()).map_err(|_| {
                        fail(format!("the URL of `{}` cannot be read", destination.lane))
                    })?
                }
            };
            join(&mut base, &rendered);
            base
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fail("a URL begins with http:// or https://".to_owned()));
    }
    // Percent-encoded as in the URL itself: `%20` is a space to everybody, `+` only to readers of forms.
    let mut pairs = Vec::new();
    for (name, template) in &call.query {
        for value in texts(template, context)? {
            pairs.push(format!("{}={}", encode(name), encode(&value)));
        }
    }
    if !pairs.is_empty() {
        let own = url.query().filter(|query| !query.is_empty()).map(str::to_owned);
        let all: Vec<String> = own.into_iter().chain(pairs).collect();
        url.set_query(Some(&all.join("&")));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Appends a path and query; `""` leaves the destination's URL as it is.
fn join(base: &mut Url, rendered: &str) {
    let rendered = rendered.split('#').next().unwrap_or_default();
    let (path, query) = match rendered.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rendered, None),
    };
    if !path.is_empty() {
        let start = base.path().trim_end_matches('/').to_owned();
        let slash = if path.starts_with('/') { "" } else { "/" };
        base.set_path(&format!("{start}{slash}{path}"));
    }
    match (query, base.query().map(str::to_owned)) {
        (Some(query), Some(own)) if !own.is_empty() => {
            base.set_query(Some(&format!("{own}&{query}")));
        }
        (Some(query), _) => base.set_query(Some(query)),
        (None, _) => {}
    }
}

fn body(
    body: &BodyTemplate,
    context: &Context,
    event_body: &Bytes,
) -> Result<(Bytes, Option<&'static str>), RenderError> {
    Ok(match body {
        BodyTemplate::None => (Bytes::new(), None),
        BodyTemplate::Raw => (event_body.clone(), None),
        BodyTemplate::Json(json) => {
            let json = json.render(context)?.unwrap_or(Json::Null);
            (Bytes::from(json.to_string()), Some("application/json"))
        }
        BodyTemplate::Text(template) => {
            let text = template.render_text(context)?.unwrap_or_default();
            (Bytes::from(text), Some("text/plain; charset=utf-8"))
        }
        BodyTemplate::Form(entries) => {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            for (name, template) in entries {
                for value in texts(template, context)? {
                    form.append_pair(name, &value);
                }
            }
            (Bytes::from(form.finish()), Some("application/x-www-form-urlencoded"))
        }
    })
}

/// The values of one parameter: a list repeats it, one that is left out has none.
fn texts(template: &Template, context: &Context) -> Result<Vec<String>, RenderError> {
    match template.render(context)? {
        None => Ok(Vec::new()),
        Some(Json::Array(items)) => {
            items.iter().map(|item| template.text_of(item)).collect::<Result<_, _>>()
        }
        Some(value) => Ok(vec![template.text_of(&value)?]),
    }
}

fn reads_secrets(call: &Call) -> bool {
    !call.url.reads().secrets.is_empty()
        || call.headers.iter().any(|(_, template)| !template.secrets().is_empty())
        || call.query.iter().any(|(_, template)| !template.secrets().is_empty())
        || call.body.templates().iter().any(|template| !template.secrets().is_empty())
}

fn show(call: &Call, composed: &Composed) -> Shown {
    let headers = composed.headers.iter().map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let body = match std::str::from_utf8(&composed.body) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("[{} bytes]", composed.body.len()),
    };
    Shown {
        method: call.method.to_string(),
        url: composed.url.to_string(),
        headers: headers.collect(),
        body,
    }
}

/// Over what is shown, so that it never tells two secrets apart; a raw body counts by its own bytes.
fn digest(shown: &Shown, raw: Option<&Bytes>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(shown.method.as_bytes());
    part(shown.url.as_bytes());
    for (name, value) in &shown.headers {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(raw.map_or(shown.body.as_bytes(), |raw| raw));
    hex::encode(hash.finalize())
}

/// What calls with a whole URL share: `scheme://host:port`.
fn lane_of(url: &Url) -> Lane {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Lane::from(format!("{}://{host}:{port}", url.scheme()))
}

#[cfg(test)]
mod tests;

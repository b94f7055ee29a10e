//! What the targets share: sources of every form, and requests out of bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use router::config::check::load;
use router::config::resolve::{Process, resolve};
use router::config::{Resolved, Route, Source};
use router::diag::Severity;
use router::files::Files;
use router::ingress::event::new_events;
use router::name::Uid;
use router::simulate::stand_in;
use router::verify::fetched::Fetched;
use router::verify::handshake::{self, Asked};
use router::verify::{About, Keys, Received, verify, wants};
use serde_json::Value as Json;
use url::Url;

/// What requests are signed with where the target signs them itself.
pub const SECRET: &str = "a secret of the fuzzing alone";

/// A source, ready to judge requests.
pub struct Judge {
    pub source: Arc<Source>,
    route: Arc<Route>,
    resolved: Resolved,
    fetched: Fetched,
    url: Url,
}

/// `name` → a source that is written so. A source that the check does not let through is a fault of this folder.
pub fn judge(name: &str, source: &str) -> Judge {
    try_judge(name, source).unwrap_or_else(|why| panic!("the source {name}: {why}"))
}

fn try_judge(name: &str, source: &str) -> Result<Judge, String> {
    let mut files = Files::new("/nowhere");
    files.add("router.yaml", "public_url: https://hooks.example.com\n");
    files.add(
        "routes/r.yaml",
        format!("route: {name}\nsource: {source}\nsteps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"),
    );
    let loaded = load(files);
    let errors = loaded.diagnostics.iter().filter(|it| it.severity == Severity::Error);
    let errors: Vec<&str> = errors.map(|it| it.message.as_str()).collect();
    let set = loaded.set.filter(|_| errors.is_empty()).ok_or_else(|| errors.join("; "))?;
    let (resolved, _unset) = resolve(&set, &Process);
    let source = set.sources.values().next().cloned().ok_or("no source")?;
    let route = set.routes.values().next().cloned().ok_or("no route")?;
    let (_, fetched) = stand_in::fetched(&source.verify.scheme);
    let url = Url::parse("https://hooks.example.com/r").map_err(|error| error.to_string())?;
    Ok(Judge { source, route, resolved, fetched, url })
}

/// Every built-in preset that needs nothing but a secret, with the secret of its first vector.
pub static PRESETS: LazyLock<BTreeMap<String, Judge>> = LazyLock::new(|| {
    let vectors: Json = serde_json::from_str(include_str!("../../tests/vectors/presets.json"))
        .expect("the vectors are JSON");
    let mut judges = BTreeMap::new();
    for vector in vectors.as_array().into_iter().flatten() {
        let (Some(name), Some(secret)) = (vector["provider"].as_str(), vector["secret"].as_str())
        else {
            continue;
        };
        let secret = Json::from(secret);
        let source = format!(
            "{{ path: /r, verify: {{ provider: {name}, secret: {{ literal: {secret} }} }} }}"
        );
        if let Ok(judge) = try_judge(name, &source) {
            judges.entry(name.to_owned()).or_insert(judge);
        }
    }
    assert!(judges.len() > 50, "most presets can be tried: {}", judges.len());
    judges
});

impl Judge {
    /// Everything that the router does with a stranger's request before it stores an event. `true`: there was one.
    pub fn judge(&self, received: Received) -> bool {
        self.judge_by(received, &self.fetched)
    }

    pub fn judge_by(&self, received: Received, fetched: &Fetched) -> bool {
        let Self { source, route, resolved, url, .. } = self;
        let now = received.received_at;
        let keys = Keys { fetched, ..Keys::of(&resolved.vault) };
        let about = About { public_url: Some(url), body: source.body.as_ref() };
        let scheme = &source.verify.scheme;
        drop(wants(scheme, &received, keys, about, now));
        let asked = Asked { received: &received, scheme, keys, about, now };
        if let Some(handshake) = handshake::find(&source.handshakes, asked) {
            drop(handshake.answer(asked));
            drop(handshake.confirm.as_ref().map(|confirm| confirm.place(asked)));
        }
        let Ok(verified) = verify(scheme, received, keys, about, now) else { return false };
        // Many elements cost time and find nothing that few do not.
        new_events(source, std::slice::from_ref(route), &verified, 100, || Uid(UID)).is_ok_and(
            |events| {
                for event in &events {
                    drop(event.envelope.body_kind.payload(&event.envelope.body));
                }
                !events.is_empty()
            },
        )
    }
}

const UID: uuid::Uuid = uuid::Uuid::from_u128(1);

/// A request, written so that seeds can be read and mutated line by line:
///
/// ```text
/// NAME UNIX_SECONDS
/// METHOD /path?query
/// Header: value
///
/// body
/// ```
///
/// `None`: it is none, or one that no HTTP server would let through.
pub fn request(data: &[u8]) -> Option<(&str, Received)> {
    let (first, rest) = line(data)?;
    let (name, at) = first.split_once(' ')?;
    let at = Timestamp::from_second(at.parse().ok()?).ok()?;
    let (second, mut rest) = line(rest)?;
    let (method, target) = second.split_once(' ')?;
    let uri: http::Uri = target.parse().ok()?;
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = query.into_owned().collect();
    let mut headers = HeaderMap::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (header, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':')?;
        headers.append(
            HeaderName::from_bytes(&header[..colon]).ok()?,
            HeaderValue::from_bytes(header[colon + 1..].trim_ascii()).ok()?,
        );
    }
    let received = Received {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        target: uri.path_and_query()?.as_str().to_owned(),
        path: vec![("shop".to_owned(), uri.path().to_owned())],
        query,
        headers,
        body: bytes::Bytes::copy_from_slice(rest),
        received_at: at,
    };
    Some((name, received))
}

fn line(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
}

pub fn hmac_sha256(message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

pub fn hmac_sha512(message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha512>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

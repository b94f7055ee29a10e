//! A request that others signed, and the source that is to take it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use router::config::check::load;
use router::config::resolve::{Process, resolve};
use router::config::{Resolved, Source};
use router::diag::Severity;
use router::files::Files;
use router::secret::{SecretValue, Vault};
use router::verify::fetched::{Fetched, KeySet};
use router::verify::scheme::Rejection;
use router::verify::{About, Keys, Received, verify, wants};
use serde::Deserialize;
use serde_json::json;
use url::Url;

#[derive(Clone, Deserialize)]
pub(crate) struct Vector {
    pub(crate) provider: String,
    /// Empty where keys come otherwise.
    #[serde(default)]
    pub(crate) secret: String,
    #[serde(default = "post")]
    pub(crate) method: String,
    /// As the provider knows it, with the query.
    #[serde(default = "hook")]
    pub(crate) url: String,
    pub(crate) body: String,
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) at: i64,
    /// What is fetched: a key set, or a certificate.
    pub(crate) jwks: Option<String>,
    pub(crate) certificate: Option<String>,
    /// What handshakes brought.
    #[serde(default)]
    pub(crate) captured: Vec<String>,
}

pub(crate) fn post() -> String {
    "POST".to_owned()
}

pub(crate) fn hook() -> String {
    "https://hooks.example.com/r".to_owned()
}

impl Vector {
    pub(crate) fn url(&self) -> Url {
        self.url.parse().unwrap()
    }
}

/// Ours, those that the providers publish, and those that libraries of the providers made.
pub(crate) fn vectors() -> Vec<Vector> {
    [
        include_str!("../vectors/presets.json"),
        include_str!("../vectors/published.json"),
        include_str!("../vectors/libraries.json"),
        include_str!("../vectors/tokens.json"),
    ]
    .into_iter()
    .flat_map(|text| serde_json::from_str::<Vec<Vector>>(text).unwrap())
    .collect()
}

pub(crate) fn source(vector: &Vector) -> (Arc<Source>, Resolved) {
    let Vector { provider, secret, config, .. } = vector;
    let mut files = Files::new("/nowhere");
    let secret = match secret.as_str() {
        "" => String::new(),
        secret => format!("secret: {{ literal: {} }}", json!(secret)),
    };
    let config = json!(config);
    let config =
        if vector.config.is_empty() { String::new() } else { format!("config: {config}, ") };
    files.add("router.yaml", "public_url: https://hooks.example.com\n");
    files.add(
        "routes/r.yaml",
        format!(
            "route: r\nsource: {{ path: /r, verify: {{ provider: {provider}, {config}{secret} }} }}\n\
             steps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
        ),
    );
    let loaded = load(files);
    let errors: Vec<_> =
        loaded.diagnostics.iter().filter(|it| it.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{provider}: {errors:?}");
    let set = loaded.set.unwrap();
    let (resolved, problems) = resolve(&set, &Process);
    assert!(problems.is_empty(), "{provider}: {problems:?}");
    (set.sources.values().next().unwrap().clone(), resolved)
}

pub(crate) fn received(vector: &Vector) -> Received {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let query = vector.url().query_pairs().into_owned().collect();
    Received {
        method: vector.method.parse().unwrap(),
        target: vector.url()[url::Position::BeforePath..].to_owned(),
        path: Vec::new(),
        query,
        headers,
        body: vector.body.clone().into(),
        received_at: at(vector),
    }
}

pub(crate) fn at(vector: &Vector) -> Timestamp {
    Timestamp::from_second(vector.at).unwrap()
}

/// The URL that stands in the source: the query is what comes.
pub(crate) fn public_url(vector: &Vector) -> Url {
    let mut url = vector.url();
    url.set_query(None);
    url
}

/// What the router has beside the configuration.
pub(crate) struct Beside {
    pub(crate) fetched: Fetched,
    pub(crate) captured: Vec<SecretValue>,
}

impl Beside {
    /// Keys are only where the vector as it is says that they are.
    pub(crate) fn of(vector: &Vector, source: &Source) -> Self {
        let set = match (&vector.jwks, &vector.certificate) {
            (Some(set), _) => Some(KeySet::jwks(set.as_bytes()).unwrap()),
            (None, Some(chain)) => Some(KeySet::chain(chain.as_bytes()).unwrap()),
            (None, None) => None,
        };
        let mut fetched = Fetched::default();
        if let Some(set) = set.map(Arc::new) {
            let (received, url, vault) = (received(vector), public_url(vector), Vault::default());
            let about = About { public_url: Some(&url), body: source.body.as_ref() };
            let scheme = &source.verify.scheme;
            for want in wants(scheme, &received, Keys::of(&vault), about, at(vector)) {
                fetched.insert(want.at, Arc::clone(&set));
            }
        }
        let captured = vector.captured.iter().map(|text| SecretValue::new(text.as_str()));
        Self { fetched, captured: captured.collect() }
    }

    pub(crate) fn keys<'a>(&'a self, vault: &'a Vault) -> Keys<'a> {
        Keys { captured: &self.captured, fetched: &self.fetched, ..Keys::of(vault) }
    }
}

pub(crate) fn judged(
    vector: &Vector,
    source: &Source,
    vault: &Vault,
    request: Received,
    now: Timestamp,
) -> Result<(), Rejection> {
    let url = public_url(vector);
    verify(
        &source.verify.scheme,
        request,
        Beside::of(vector, source).keys(vault),
        About { public_url: Some(&url), body: source.body.as_ref() },
        now,
    )
    .map(drop)
}

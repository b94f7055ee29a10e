//! Providers' keys that have to be fetched, over real sockets and a real process: a key set, a certificate, and the GET that
//! confirms a subscription.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use bytes::Bytes;
use http::{HeaderMap, Method};
use router::cli::check::load;
use router::files::Location;
use router::secret::{SecretValue, Vault};
use router::simulate::downstream::{Answer, Downstream, Reply};
use router::simulate::stand_in;
use router::verify::Keys;
use router::verify::draft::Unsigned;
use router::verify::scheme::{PublicKey, Scheme};
use router::verify::sign::sign;
use router::world::World;
use serde_json::{Value as Json, json};
use support::{Folder, Router, client};

const STEPS: &str =
    "steps: [ { name: note, call: { post: \"http://DOWN/notes\", json: {} }, repeat: ok } ]";

struct Rig {
    provider: Downstream,
    router: Router,
    schemes: Vec<Scheme>,
}

/// Sources `r0`, `r1`, … with these keys; `DOWN` stands for where the provider keeps its own.
async fn rig(sources: &[&str]) -> Rig {
    let provider = Downstream::start(World::real().clock).await.unwrap();
    let address = provider.address().to_string();
    let fill = |text: String| text.replace("DOWN", &address);
    let files: Vec<(String, String)> = sources
        .iter()
        .enumerate()
        .map(|(number, source)| {
            let text = format!(
                "route: r{number}\nsource:\n  path: /r{number}\n  event: {{ id: $.id }}\n{source}\n{STEPS}\n"
            );
            (format!("routes/r{number}.yaml"), fill(text))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let folder = Folder::new(&fill("egress: { allow: [ \"DOWN\" ] }".to_owned()), &files);
    let set = load(&Location::Folder(folder.path().to_owned())).set;
    let set = set.expect("a checked configuration");
    let schemes = set.sources.values().map(|source| source.verify.scheme.clone()).collect();
    let router = Router::start(&folder, &[]);
    Rig { provider, router, schemes }
}

impl Rig {
    fn serves(&self, path: &str, body: impl Into<Bytes>) {
        let answer = Answer::new(200, body);
        self.provider.always(Method::GET, path, move |_| Reply::Answer(answer.clone()));
    }

    fn fetches(&self, path: &str) -> usize {
        self.provider.requests_to(&Method::GET, path).len()
    }

    /// POSTs to source `number` as its sender signs; with `spoilt` another body than that.
    async fn post(&self, number: usize, body: &Json, spoilt: bool) -> u16 {
        let private = SecretValue::new(stand_in::key_pair(PublicKey::RsaSha256).private);
        let vault = Vault::default();
        let keys = Keys { private: Some(&private), ..Keys::of(&vault) };
        let unsigned = Unsigned {
            method: Method::POST,
            url: self.router.url(&format!("/r{number}")).parse().unwrap(),
            path: Vec::new(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
            id: String::new(),
            body_rule: None,
        };
        let now = World::real().clock.now();
        let proof = sign(&self.schemes[number], keys, &unsigned, now, 0).unwrap();
        let mut request = client().post(unsigned.url);
        for (name, value) in proof.headers {
            request = request.header(name, value);
        }
        let body = if spoilt { json!({ "id": "other" }).to_string().into() } else { proof.body };
        request.body(body).send().await.unwrap().status().as_u16()
    }
}

/// A key set and a certificate of the stand-in's key.
fn published(what: &str) -> String {
    let vectors: Vec<Json> = serde_json::from_str(include_str!("vectors/tokens.json")).unwrap();
    let found = vectors.iter().find_map(|vector| vector.get(what)).unwrap();
    found.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_verified_by_a_key_that_is_fetched_once() {
    let jwt = "jwt: { header: X-Token, algorithms: [RS256], required: [exp], claims: { hash: \"{body|sha256}\" } }";
    let rig = rig(&[
        &format!("  verify: {{ {jwt}, jwks: \"http://DOWN/keys\" }}"),
        &format!("  verify: {{ {jwt}, jwks: {{ issuer: \"http://DOWN/issuer\" }} }}"),
        &format!("  verify: {{ {jwt}, jwks: \"http://DOWN/gone\" }}"),
    ])
    .await;
    rig.serves("/keys", published("jwks"));
    let keys = rig.provider.url("/keys");
    rig.serves("/issuer/.well-known/openid-configuration", json!({ "jwks_uri": keys }).to_string());
    rig.provider.always(Method::GET, "/gone", |_| Reply::status(500));

    for id in ["a", "b"] {
        assert_eq!(rig.post(0, &json!({ "id": id }), false).await, 200);
    }
    assert_eq!(rig.post(0, &json!({ "id": "c" }), true).await, 401);
    assert_eq!(rig.fetches("/keys"), 1);
    assert_eq!(rig.post(1, &json!({ "id": "d" }), false).await, 200);
    assert_eq!(
        (rig.fetches("/issuer/.well-known/openid-configuration"), rig.fetches("/keys")),
        (1, 2)
    );

    // Nothing is known against a sender whose keys cannot be had.
    for _ in 0..2 {
        assert_eq!(rig.post(2, &json!({ "id": "e" }), false).await, 503);
    }
    assert_eq!(rig.fetches("/gone"), 1);
    rig.router.wait_for_log("keys_not_fetched").await;
    let metrics = rig.router.metrics().await;
    for line in [
        r#"router_key_fetches_total{result="succeeded"} 2"#,
        r#"router_key_fetches_total{result="failed"} 1"#,
        r#"router_requests_rejected_total{source="r2",reason="key_unavailable"} 2"#,
        r#"router_requests_rejected_total{source="r0",reason="wrong_claim"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_fetched_from_its_own_host_and_a_subscription_is_confirmed() {
    let verify = "rsa: sha256, signed: \"{body|lines:id,type,cert,confirm?}\", signature: { json: $.signature, encoding: base64 }, certificate: { url: { json: $.cert }, host: '127\\.0\\.0\\.1', path: '/certs/[a-z]+' }";
    let rig = rig(&[&format!(
        "  verify: {{ {verify} }}\n  handshake: {{ when: {{ json: {{ $.type: subscribe }} }}, confirm: {{ get: {{ json: $.confirm }}, host: '127\\.0\\.0\\.1' }} }}"
    )])
    .await;
    rig.serves("/certs/one", published("certificate"));
    rig.serves("/confirm", "yes");
    rig.provider.always(Method::GET, "/refuse", |_| Reply::status(403));
    let url = |path: &str| rig.provider.url(path);
    let event = |id: &str, cert: &str| json!({ "id": id, "type": "event", "cert": cert });

    assert_eq!(rig.post(0, &event("a", &url("/certs/one")), false).await, 200);
    assert_eq!(rig.post(0, &event("a", &url("/certs/one")), true).await, 401);
    // A stranger has nothing fetched from where the provider keeps no certificates.
    for foreign in [url("/keys"), url("/certs/one").replace("127.0.0.1", "localhost")] {
        assert_eq!(rig.post(0, &event("b", &foreign), false).await, 401, "{foreign}");
    }
    assert_eq!(rig.fetches("/keys"), 0);
    assert_eq!(rig.fetches("/certs/one"), 1);

    let subscribe = |confirm: &str| json!({ "id": "s", "type": "subscribe", "cert": url("/certs/one"), "confirm": confirm });
    assert_eq!(rig.post(0, &subscribe(&url("/confirm")), false).await, 200);
    assert_eq!(rig.fetches("/confirm"), 1);
    assert_eq!(rig.post(0, &subscribe(&url("/confirm")), true).await, 401);
    assert_eq!(rig.fetches("/confirm"), 1);
    assert_eq!(rig.post(0, &subscribe(&url("/refuse")), false).await, 503);
    let elsewhere = url("/confirm").replace("127.0.0.1", "localhost");
    assert_eq!(rig.post(0, &subscribe(&elsewhere), false).await, 400);
    assert_eq!(rig.fetches("/confirm"), 1);
    assert!(rig.router.event("s").await.is_none());
}

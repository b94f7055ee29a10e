//! One step of one route, rendered for one event.

use super::context::event_context;
use super::key::explicit_key;
use super::*;
use crate::body::BodyKind;
use crate::config::RouteSet;
use crate::config::check::load;
use crate::envelope::Envelope;
use crate::files::Files;
use crate::name::Uid;
use crate::secret::{SecretRef, SecretValue};

const SERVER: &str = "
destinations:
  api: { url: https://api.example/base/, idempotency: { header: X-Key } }
  keyed: { url: 'https://api.example/v1?tenant=7', idempotency: body }
  plain: { url: https://api.example, idempotency: none }
  quiet: { url: https://api.example }
  hidden: { url: { env: HIDDEN_URL }, idempotency: none }
";

const BODY: &[u8] = b"{ \"id\": 1001, \"amount\": 19.90, \"name\": \"Ada & Co\", \"tags\": [\"a b\", \"c\"], \"blank\": \"  \", \"lines\": \"x\\r\\ny\" }";

fn set(step: &str) -> RouteSet {
    let mut files = Files::new("/nowhere");
    files.add("router.yaml", SERVER);
    let route = format!(
        "route: orders
source: {{ path: '/in/{{shop}}', verify: {{ none: test }}, event: {{ id: $.id }} }}
secrets: {{ token: {{ env: TOKEN }} }}
env: {{ region: {{ env: REGION, default: eu }} }}
fields: {{ amount: $.amount }}
steps:
  - name: send
    {step}
"
    );
    files.add("routes/orders.yaml", route);
    let loaded = load(files);
    loaded.set.unwrap_or_else(|| panic!("{step}: {:?}", loaded.diagnostics))
}

fn envelope() -> Envelope {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Envelope {
        uid: Uid(uuid::Uuid::nil()),
        event_id: "evt_1".into(),
        event_type: "order.paid".to_owned(),
        source: "orders".into(),
        occurred_at: None,
        received_at: "2026-11-23T10:00:00Z".parse().unwrap(),
        correlation_id: "corr-1".into(),
        method: "POST".to_owned(),
        path: vec![pair("shop", "north")],
        query: vec![pair("page", "2")],
        headers: vec![
            pair("content-type", "application/vnd.acme+json"),
            pair("x-topic", "orders/paid"),
            pair("x-topic", "second"),
        ],
        body_kind: BodyKind::Json,
        body: Bytes::from_static(BODY),
        malformed: None,
    }
}

fn render_with(step: &str, key: Option<&str>, token: &str) -> Result<OutgoingRequest, RenderError> {
    let set = set(step);
    let route = set.routes.values().next().unwrap();
    let mut resolved = Resolved::default();
    resolved.vault.insert(SecretRef::Env("TOKEN".to_owned()), SecretValue::new(token));
    let hidden = SecretValue::new("https://hooks.example/T0P/S3CR3T");
    resolved.vault.insert(SecretRef::Env("HIDDEN_URL".to_owned()), hidden);
    let envelope = envelope();
    let payload = envelope.body_kind.payload(&envelope.body).unwrap();
    let now = envelope.received_at;
    let mut context = event_context(&envelope, &payload, route, &resolved, "d-1", 1, now);
    context.set("fields", &serde_json::json!({ "amount": payload["amount"] }));
    let step = &route.steps[0];
    let key = match key {
        Some(text) => Some(IdempotencyKey { text: text.to_owned(), explicit: false }),
        None => explicit_key(step, &context)?,
    };
    if let Some(key) = &key {
        context.set("idempotency_key", &Json::from(key.text.as_str()));
    }
    render_call(step, route, &context, key.as_ref(), &envelope.body, &resolved)
}

fn render(step: &str) -> Result<OutgoingRequest, RenderError> {
    render_with(step, None, "s3cr3t-value")
}

/// The request line by line, without what every request has.
fn told(request: &OutgoingRequest) -> String {
    let mut out = format!("{} {}", request.method, request.url);
    for (name, value) in &request.headers {
        if *name != USER_AGENT && *name != CORRELATION_HEADER {
            out.push_str(&format!("\n{name}: {}", value.to_str().unwrap()));
        }
    }
    if !request.body.is_empty() {
        out.push_str(&format!("\n\n{}", String::from_utf8_lossy(&request.body)));
    }
    out
}

#[track_caller]
fn check(call: &str, expected: &str) {
    let request =
        render(&format!("call: {call}")).unwrap_or_else(|error| panic!("{call}: {error}"));
    assert_eq!(told(&request), expected, "{call}");
}

#[track_caller]
fn check_error(step: &str, part: &str) {
    match render(step) {
        Ok(request) => panic!("{step}: rendered {}", told(&request)),
        Err(error) => assert!(error.to_string().contains(part), "{step}: {error}"),
    }
}

#[test]
fn urls_are_appended_to_the_base() {
    check("{ to: api, get: /orders }", "GET https://api.example/base/orders");
    check("{ to: api, get: '/orders?a=1' }", "GET https://api.example/base/orders?a=1");
    check("{ to: keyed, get: '/orders?a=1' }", "GET https://api.example/v1/orders?tenant=7&a=1");
    check("{ to: keyed, get: /orders }", "GET https://api.example/v1/orders?tenant=7");
    check("{ to: plain, get: '/a#b' }", "GET https://api.example/a");
    check("{ to: plain, get: '/{{ payload.name }}' }", "GET https://api.example/Ada%20%26%20Co");
    check("{ to: plain, get: '/{{ path.shop }}/' }", "GET https://api.example/north/");
    check("{ get: 'https://other.example/{{ payload.id }}' }", "GET https://other.example/1001");
}

#[test]
fn an_empty_path_is_the_destination_itself() {
    check("{ to: api, get: '' }", "GET https://api.example/base/");
    check("{ to: keyed, get: '' }", "GET https://api.example/v1?tenant=7");
}

#[test]
fn queries() {
    check(
        "{ to: plain, get: /a, query: { id: '{{ payload.id }}', tag: '{{ payload.tags }}', no: '{{ payload.nothing | optional }}', text: 'x {{ payload.name }}' } }",
        "GET https://api.example/a?id=1001&tag=a%20b&tag=c&text=x%20Ada%20%26%20Co",
    );
    check(
        "{ to: keyed, get: '/a?b=1', query: { c: 2 } }",
        "GET https://api.example/v1/a?tenant=7&b=1&c=2",
    );
    check_error(
        "call: { to: plain, get: /a, query: { a: '{{ payload.nothing }}' } }",
        "payload.nothing",
    );
}

#[test]
fn bodies() {
    let json = "POST https://api.example/a\ncontent-type: application/json\n\n";
    check(
        "{ to: plain, post: /a, json: { id: '{{ payload.id }}', amount: '{{ fields.amount }}', text: 'n {{ payload.id }}', no: '{{ payload.no | optional }}', null: ~, list: [1, '{{ payload.no | optional }}', '{{ payload.tags }}'] } }",
        &format!(
            "{json}{}",
            r#"{"id":1001,"amount":19.90,"text":"n 1001","null":null,"list":[1,["a b","c"]]}"#
        ),
    );
    check(
        "{ to: plain, post: /a, form: { id: '{{ payload.id }}', tag: '{{ payload.tags }}', no: '{{ payload.no | optional }}' } }",
        "POST https://api.example/a\ncontent-type: application/x-www-form-urlencoded\n\nid=1001&tag=a+b&tag=c",
    );
    check(
        "{ to: plain, post: /a, text: 'Order {{ payload.id }}' }",
        "POST https://api.example/a\ncontent-type: text/plain; charset=utf-8\n\nOrder 1001",
    );
    check(
        "{ to: plain, put: /a, raw: true }",
        &format!(
            "PUT https://api.example/a\ncontent-type: application/vnd.acme+json\n\n{}",
            std::str::from_utf8(BODY).unwrap()
        ),
    );
    check("{ to: plain, delete: /a }", "DELETE https://api.example/a");
}

#[test]
fn headers_are_templates_too() {
    check(
        "{ to: plain, post: /a, headers: { X-Id: '{{ payload.id }}', X-No: '{{ payload.no | optional }}', Content-Type: application/cbor }, text: x }",
        "POST https://api.example/a\ncontent-type: application/cbor\nx-id: 1001\n\nx",
    );
    let request = render("call: { to: plain, post: /a }").unwrap();
    assert_eq!(request.headers[CORRELATION_HEADER], "corr-1");
    assert_eq!(request.headers[USER_AGENT], AGENT);
}

#[test]
fn no_value_adds_a_header() {
    check_error(
        "call: { to: plain, post: /a, headers: { X-Lines: '{{ payload.lines }}' } }",
        "x-lines must not hold line breaks",
    );
    check_error("call: { to: plain, post: /a, headers: { X-No: '{{ payload.no }}' } }", "none");
}

#[test]
fn incoming_headers_are_found_in_any_case_and_the_first_counts() {
    check(
        r#"{ to: plain, post: "/a", json: ["{{ headers['X-Topic'] }}", "{{ headers['x-topic'] }}", "{{ headers['X-TOPIC'] ~ '!' }}", "{{ headers['X-Other'] }}"] }"#,
        "POST https://api.example/a\ncontent-type: application/json\n\n[\"orders/paid\",\"orders/paid\",\"orders/paid!\",null]",
    );
}

#[test]
fn keys_go_where_the_destination_says() {
    let sent = |to: &str, method: &str| {
        let step = format!("call: {{ to: {to}, {method}: /a }}");
        let request = render_with(&step, Some("key-1"), "t").unwrap();
        let names = ["x-key", "idempotency-key"];
        let found = names.into_iter().filter(|name| request.headers.contains_key(*name));
        (found.collect::<Vec<_>>(), request.key.is_some())
    };
    assert_eq!(sent("api", "post"), (vec!["x-key"], true));
    assert_eq!(sent("quiet", "patch"), (vec!["idempotency-key"], true));
    assert_eq!(sent("keyed", "post"), (vec![], true));
    assert_eq!(sent("plain", "post"), (vec![], true));
    assert_eq!(sent("api", "get"), (vec![], true));
    let step = "call: { to: keyed, post: /a, json: { key: '{{ idempotency_key }}' } }";
    let request = render_with(step, Some("key-1"), "t").unwrap();
    assert_eq!(&*request.body, br#"{"key":"key-1"}"#);
}

#[test]
fn explicit_keys() {
    let key = |template: &str| {
        let step = format!("idempotency_key: \"{template}\"\n    call: {{ to: api, post: /a }}");
        render(&step).map(|request| request.key.unwrap())
    };
    let found = key("ship-{{ path.shop }}-{{ payload.id }}").unwrap();
    assert_eq!(found, IdempotencyKey { text: "ship-north-1001".to_owned(), explicit: true });
    for template in
        ["{{ payload.nothing }}", "{{ payload.nothing | optional }}", "{{ payload.blank }}"]
    {
        assert!(key(template).is_err(), "{template}");
    }
    let long = "{{ path.shop }}{{ 'x' * 300 }}";
    assert_eq!(key(long).unwrap().text.len(), 64);
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let step = "call: { to: api, post: '/{{ secrets.token }}', headers: { X-Token: 'T {{ secrets.token }}', X-Hash: '{{ secrets.token | sha256 }}' }, json: { token: '{{ secrets.token }}' } }";
    let request = render(step).unwrap();
    assert!(told(&request).contains("x-token: T s3cr3t-value"));
    assert!(request.url.as_str().ends_with("/s3cr3t-value"));
    let shown = format!("{:?} {request:?}", request.shown);
    let hash = hex::encode(Sha256::digest("s3cr3t-value"));
    assert!(!shown.contains("s3cr3t") && !shown.contains(&hash), "{shown}");
    assert!(
        shown.contains("T [secret token]") && shown.contains(r#"\"[secret token]\""#),
        "{shown}"
    );
    // What no template names is hidden too, wherever it comes from.
    let request =
        render_with("call: { to: api, post: /a, text: 'x orders/paid' }", None, "orders/paid")
            .unwrap();
    assert_eq!(request.shown.body, "x [secret token]");
    // A stand-in is not base64: then nothing is shown.
    let step = "call: { to: api, post: /a, text: '{{ secrets.token | b64decode }}' }";
    let request = render_with(step, None, "YWJj").unwrap();
    assert_eq!((&*request.body, &*request.shown.body), (&b"abc"[..], "[secret]"));
}

#[test]
fn a_secret_url_is_never_shown() {
    let request = render("call: { to: hidden, post: /more, json: {} }").unwrap();
    assert_eq!(request.url.as_str(), "https://hooks.example/T0P/S3CR3T/more");
    assert_eq!(request.shown.url, "[secret]");
    assert!(!format!("{request:?}").contains("S3CR3T"));
    assert_eq!(request.lane.as_str(), "hidden");
}

#[test]
fn digests_are_stable_and_know_no_secret() {
    let digest = |step: &str, token: &str| render_with(step, Some("k"), token).unwrap().digest;
    let step = "call: { to: api, post: /a, headers: { X-Token: '{{ secrets.token }}' }, json: { id: '{{ payload.id }}' } }";
    assert_eq!(digest(step, "one-secret"), digest(step, "two-secret"));
    let others = [
        digest("call: { to: api, post: /a, json: { id: 1001 } }", "t"),
        digest("call: { to: api, put: /a, json: { id: 1001 } }", "t"),
        digest("call: { to: api, post: /b, json: { id: 1001 } }", "t"),
        digest("call: { to: api, post: /a, json: { id: '1001' } }", "t"),
        digest("call: { to: api, post: /a, raw: true }", "t"),
    ];
    for (at, one) in others.iter().enumerate() {
        assert!(!others[..at].contains(one), "{at}");
    }
}

#[test]
fn whole_urls_share_a_lane_by_host() {
    let lane = |url: &str| render(&format!("call: {{ get: '{url}' }}")).unwrap().lane;
    assert_eq!(lane("https://a.example/x"), lane("https://a.example:443/y?z=1"));
    assert_ne!(lane("https://a.example/x"), lane("http://a.example/x"));
    assert_eq!(lane("https://a.example/x").as_str(), "https://a.example:443");
}

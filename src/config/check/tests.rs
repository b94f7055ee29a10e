//! The loader as its users meet it: files in, findings out, each with the text that it marks.

use std::path::Path;

use super::*;
use crate::body::xml::{XmlNames, XmlPath};
use crate::body::{BodyRule, Document};

/// Loads `files`; each finding as `CODE message | marked text`.
pub(super) fn findings(files: &[(&str, &str)]) -> (Loaded, Vec<String>) {
    let mut set = Files::new(Path::new("/config"));
    for (name, text) in files {
        set.add(*name, *text);
    }
    let loaded = load(set);
    let shown = loaded
        .diagnostics
        .iter()
        .map(|it| {
            let text = &loaded.files.get(it.span.file).text;
            let marked = text.get(it.span.range()).unwrap_or("<no such place>");
            format!("{} {} | {marked}", it.code.as_str(), it.message)
        })
        .collect();
    (loaded, shown)
}

pub(super) fn check(files: &[(&str, &str)], expected: &[&str]) -> Loaded {
    let (loaded, shown) = findings(files);
    assert_eq!(shown, expected);
    let errors = loaded.diagnostics.iter().any(|it| it.severity == Severity::Error);
    assert_eq!(loaded.set.is_none(), errors, "a set exists exactly where there is no error");
    loaded
}

const SERVER: &str = "
destinations:
  fulfilment: { url: https://fulfil.example, auth: { bearer: { env: FULFIL_TOKEN } }, idempotency: { header: Idempotency-Key } }
  mail: { url: { env: MAIL_URL }, idempotency: { header: Idempotency-Key }, timeout: 5s }
  slack: { url: { env: SLACK_URL }, idempotency: none }
";

const MAIN: &str = r#"
route: store-orders
description: A paid order becomes one shipment and one receipt.
owner: fulfilment@example.com

source:
  path: /hooks/store
  verify: { provider: shopify, secret: { env: SHOPIFY_WEBHOOK_SECRET } }
  event:
    id: { header: X-Shopify-Event-Id }
    type: { header: X-Shopify-Topic }
    occurred_at: $.created_at

on: [orders/paid]

fields:
  order_id: $.id
  email: { from: $.customer.email, type: string }
  items:
    from: $.line_items[*]
    each: { sku: { from: $.sku, required: true }, quantity: { from: $.quantity, type: integer } }

steps:
  - name: create_shipment
    call:
      to: fulfilment
      post: /v1/shipments
      json:
        reference: "{{ fields.order_id }}"
        lines: "{{ fields.items }}"
    idempotency_key: "ship-{{ fields.order_id }}"
    save: { shipment_id: $.id }

  - name: email_receipt
    when: fields.email is not none
    call:
      to: mail
      post: /send
      json:
        to: "{{ fields.email }}"
        text: |
          Thank you! Your parcel {{ steps.create_shipment.shipment_id }} is on its way.
"#;

#[test]
fn the_main_example_loads() {
    let loaded = check(&[("router.yaml", SERVER), ("routes/store-orders.yaml", MAIN)], &[]);
    let set = loaded.set.unwrap();
    let route = set.routes.values().next().unwrap();
    assert_eq!(route.steps.len(), 2);
    assert_eq!(route.steps[1].needs.iter().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(route.steps[1].timeout.as_secs(), 5);
    let source = set.sources.values().next().unwrap();
    assert_eq!(source.verify.provider.as_deref(), Some("shopify"));
    assert_eq!(source.name.as_str(), "store-orders");
    assert!(route.on.matches("orders/paid"));
    assert!(!route.on.matches(""));
}

/// A route with one step around `extra` top-level lines.
fn route(extra: &str) -> String {
    format!(
        "route: r\nsource: {{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }} }}\n\
         steps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n{extra}\n"
    )
}

fn check_route(extra: &str, expected: &[&str]) {
    check(&[("routes/r.yaml", &route(extra))], expected);
}

/// A route whose steps are `steps`, beside the destinations of [`SERVER`].
fn check_steps(steps: &str, expected: &[&str]) {
    let route = format!(
        "route: r\nsource: {{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }} }}\nfields: {{ id: $.id }}\nsteps:\n{steps}\n"
    );
    check(&[("router.yaml", SERVER), ("routes/r.yaml", &route)], expected);
}

fn check_source(source: &str, expected: &[&str]) -> Loaded {
    let route = format!(
        "route: r\nsource: {source}\nsteps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
    );
    check(&[("routes/r.yaml", &route)], expected)
}

/// What is said of a key of the language that is not built.
fn later(line: &str) -> String {
    let key = line.split(':').next().unwrap();
    format!("R016 `{key}` is part of the language, but this version does not carry it out | {key}")
}

#[test]
fn forms() {
    check_route("descripton: x", &["R012 a route has no key `descripton` | descripton"]);
    check_route("owner: 7", &["R014 `owner` must be text, and this is a number | 7"]);
    check_route("timeout: 10", &["R015 the duration 10 has no unit | 10"]);
    check_route(
        "retry: { jitter: fulll, attempts: 0 }",
        &["R015 `jitter` cannot be `fulll` | fulll", "R015 `attempts` cannot be `0` | 0"],
    );
    check(&[("routes/r.yaml", "")], &["R013 the file is empty: a route needs keys | "]);
    check(
        &[("routes/r.yaml", "rout: r\n")],
        &[
            "R012 a route has no key `rout` | rout",
            "R013 a route needs `source` | rout",
            "R013 a route needs `steps` | rout",
        ],
    );
    check_route(
        "fields: { Id: $.id, b: id }",
        &[
            "R015 a field cannot be called `Id` | Id",
            "R015 `b` must be a JSONPath, and `id` does not start with `$` | id",
        ],
    );
}

#[test]
fn bodies() {
    let body = |body: &str, expected: Option<BodyRule>| {
        let source = format!(
            "{{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }}, body: {body} }}"
        );
        let set = check_source(&source, &[]).set.unwrap();
        assert_eq!(set.sources.values().next().unwrap().body, expected, "{body}");
    };
    let names = || XmlNames(vec![("a".to_owned(), XmlPath::parse("/n/@a").unwrap())]);
    let path = || vec!["message".to_owned(), "data".to_owned()];
    let base64_in = |document| Some(BodyRule::Base64In { path: path(), document });
    for (word, rule) in [
        ("json", BodyRule::Json),
        ("form", BodyRule::Form),
        ("text", BodyRule::Text),
        ("binary", BodyRule::Binary),
        ("jwt", BodyRule::Jwt),
    ] {
        body(word, Some(rule));
    }
    body("{ json_in: payload }", Some(BodyRule::JsonIn { field: "payload".to_owned() }));
    body("{ base64_in: $.message.data }", base64_in(Document::Json));
    body("{ base64_in: $.message.data, as: json }", base64_in(Document::Json));
    body("{ base64_in: $.message.data, as: text }", base64_in(Document::Text));
    body(
        "{ base64_in: $.message.data, as: { xml: { a: /n/@a } } }",
        base64_in(Document::Xml { names: names() }),
    );
    body("{ xml: { a: /n/@a } }", Some(BodyRule::Xml { names: names() }));

    // What cannot be split is said, what can is taken.
    for (kind, expected) in [
        ("jwt", None),
        ("{ json_in: p }", None),
        ("{ base64_in: $.d }", None),
        ("form", Some("R015 `split` takes JSON apart, and the body is `form` | form")),
        (
            "{ xml: { a: /n } }",
            Some("R015 `split` takes JSON apart, and the body is `xml` | { xml: { a: /n } }"),
        ),
    ] {
        let source = format!(
            "{{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id, split: '$[*]' }}, body: {kind} }}"
        );
        check_source(&source, expected.as_slice());
    }
    let many: Vec<String> = (0..65).map(|number| format!("a{number}: /n")).collect();
    let source = format!(
        "{{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }}, body: {{ xml: {{ {} }} }} }}",
        many.join(", ")
    );
    let place = format!("R015 `xml` names more than 64 places | {{ {} }}", many.join(", "));
    check_source(&source, &[&place]);
}

#[test]
fn not_built_yet() {
    for key in [
        "payload_schema: a.json",
        "order: { by: $.id }",
        "paused: true",
        "dry_run: true",
        "on_failure: []",
    ] {
        check_route(key, &[&later(key)]);
    }
    for key in [
        "for_each: fields.id",
        "lookup: { get: /x }",
        "at_most_once: true",
        "approve: true",
        "delay: 5m",
    ] {
        check_steps(
            &format!("  - name: s\n    call: {{ get: https://a.example/ }}\n    {key}"),
            &[&later(key)],
        );
    }
    check_source(
        "{ path: /r, verify: { none: x }, event: { id: $.id }, reconcile: {}, allow_ips: [], rate_limit: 1/s }",
        &[
            "R050 nobody checks who sends here | x",
            "R016 `reconcile` is part of the language, but this version does not carry it out | reconcile",
            "R016 `allow_ips` is part of the language, but this version does not carry it out | allow_ips",
            "R016 `rate_limit` is part of the language, but this version does not carry it out | rate_limit",
        ],
    );
    check_source(
        "{ path: /r, verify: { mtls: x, secret: { env: S } }, event: { id: $.id } }",
        &["R016 `mtls` is part of the language, but this version does not carry it out | mtls"],
    );
    check(
        &[(
            "router.yaml",
            "store: postgres://x\ntls: {}\nalerts: []\negress: { proxy: x }\ndestinations: { a: { url: https://a.example, rate: 2/s, auth: { oauth2: {} } } }\n",
        )],
        &[
            "R016 `postgres://` as `store` is part of the language, but this version does not carry it out | postgres://x",
            "R016 `tls` is part of the language, but this version does not carry it out | tls",
            "R016 `alerts` is part of the language, but this version does not carry it out | alerts",
            "R016 `proxy` is part of the language, but this version does not carry it out | proxy",
            "R016 `rate` is part of the language, but this version does not carry it out | rate",
            "R016 `oauth2` is part of the language, but this version does not carry it out | oauth2",
        ],
    );
}

#[test]
fn steps_and_templates() {
    check_steps(
        "  - { name: a, call: { to: mial, post: /x } }",
        &["R032 there is no destination `mial` | mial"],
    );
    check_steps(
        "  - { name: a, call: { to: slack, post: '' } }",
        &["R053 `slack` takes no idempotency key: a repeat may do it twice | post"],
    );
    check_steps(
        "  - { name: a, call: { post: https://x.example/ } }",
        &["R053 whether a repeat does it twice is not known | post"],
    );
    check_steps(
        "  - { name: a, call: { post: /x } }",
        &["R015 without `to` the URL must be whole | /x"],
    );
    check_steps(
        "  - { name: a, needs: [b], call: { get: https://x.example/ } }\n  - { name: b, call: { get: https://x.example/ } }",
        &["R033 `a` needs `b`, which needs `a` in turn | b"],
    );
    check_steps(
        "  - { name: a, call: { get: https://x.example/ }, save: { n: $.n } }\n  - { name: b, needs: [], call: { get: \"https://x.example/{{ steps.a.n }}\" } }",
        &["R022 `steps.a` is read here, but this step does not need `a` | steps.a"],
    );
    check_steps(
        "  - { name: a, call: { get: \"https://x.example/{{ fields.ids }}\" } }",
        &["R022 `fields` has no `ids` | fields.ids"],
    );
    check_steps(
        "  - { name: a, call: { get: https://x.example/, json: {} } }",
        &["R015 a GET has no body | json"],
    );
    check_steps(
        "  - { name: a, call: { get: https://x.example/, headers: { Host: x, 'a b': y } } }",
        &["R015 `Host` is set by the router itself | Host", "R015 `a b` is no header name | 'a b'"],
    );
    check_steps(
        "  - { name: a, idempotency_key: ship, call: { get: https://x.example/ } }",
        &["R056 this key is the same for every event | ship"],
    );
    check_steps(
        "  - { name: a, retry: { on: [netwrok, 5xx] }, success: [2xx, 700], call: { get: https://x.example/ } }",
        &[
            "R015 `netwrok` is nothing that is tried again | netwrok",
            "R015 `700` is no status | 700",
        ],
    );
    check_steps(
        "  - { name: a, call: { get: https://x.example/ } }\n  - { name: a, was: a, call: { get: https://x.example/ } }",
        &["R030 a second step is called `a` | a", "R030 `a` is a step of this route still | a"],
    );
}

#[test]
fn warnings_of_urls_and_keys() {
    check_steps(
        "  - { name: a, call: { get: \"https://x.example/{{ fields.id | raw_url }}\" } }",
        &[
            "R054 `raw_url` puts the value into the URL as it is, slashes and all | fields.id | raw_url",
        ],
    );
    let tenant = |key: &str| {
        format!(
            "route: r\nsource: {{ path: '/r/{{shop}}', verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }} }}\n\
             fields: {{ id: $.id, tenant: {{ path: shop }} }}\nsteps: [ {{ name: s, idempotency_key: \"{key}\", call: {{ get: https://a.example/ }} }} ]\n"
        )
    };
    check(
        &[("routes/r.yaml", &tenant("{{ fields.id }}"))],
        &[
            "R055 the source's path has `{shop}`, and this key does not name it | \"{{ fields.id }}\"",
        ],
    );
    check(&[("routes/r.yaml", &tenant("{{ path.shop }}-{{ fields.id }}"))], &[]);
    check(&[("routes/r.yaml", &tenant("{{ fields.tenant }}-{{ fields.id }}"))], &[]);
}

#[test]
fn destinations() {
    let with = |destination: &str, call: &str, expected: &[&str]| {
        let route = format!(
            "route: r\nsource: {{ path: /r, verify: {{ token: {{ bearer: true }}, secret: {{ env: S }} }}, event: {{ id: $.id }} }}\nsteps: [ {{ name: s, call: {{ to: d, {call} }} }} ]\n"
        );
        let server =
            format!("destinations: {{ d: {{ url: https://d.example, {destination} }} }}\n");
        check(&[("router.yaml", &server), ("routes/r.yaml", &route)], expected)
    };
    let key = "auth: { header: X-Key, value: { env: K } }";
    let loaded = with(key, "get: /x", &[]);
    let set = loaded.set.unwrap();
    assert!(matches!(
        &set.destinations.values().next().unwrap().auth,
        Some(crate::config::Auth::Header { name, .. }) if name == "x-key"
    ));
    with(
        key,
        "get: /x, headers: { x-key: y, Accept: a, accept: b }",
        &[
            "R015 `x-key` is set by the destination's `auth` | x-key",
            "R015 `accept` is given twice | accept",
        ],
    );
    with(
        "auth: { header: Host, value: { env: K } }",
        "get: /x",
        &["R015 `host` is set by the router itself | Host"],
    );
    with(
        "idempotency: { header: X-Once }",
        "get: /x, headers: { X-Once: y, Content-Length: 1, Transfer-Encoding: chunked }",
        &[
            "R015 `X-Once` carries the idempotency key | X-Once",
            "R015 `Content-Length` is set by the router itself | Content-Length",
            "R015 `Transfer-Encoding` is set by the router itself | Transfer-Encoding",
        ],
    );
    with(
        "idempotency: body",
        "post: /x, json: { id: 1 }",
        &["R053 `d` takes its key in the body, and this call places none | post"],
    );
    with("idempotency: body", "post: /x, json: { id: \"{{ idempotency_key }}\" }", &[]);
}

#[test]
fn retry_merges_key_by_key() {
    let route = "route: r\nsource: { path: /r, verify: { token: { bearer: true }, secret: { env: S } }, event: { id: $.id } }\n\
         retry: { attempts: 5, first: 2s, on: [429] }\nsteps:\n\
         - { name: a, retry: { first: 3s, jitter: none }, call: { get: https://a.example/ } }\n\
         - { name: b, retry: { on: [network] }, call: { get: https://a.example/ } }\n";
    let set = check(&[("routes/r.yaml", route)], &[]).set.unwrap();
    let [a, b] = set.routes[&"r".into()].steps.as_slice() else { panic!("two steps") };
    let built_in = crate::delivery::policy::Retry::default();
    assert_eq!((a.retry.attempts, a.retry.first.as_secs()), (5, 3));
    assert_eq!((b.retry.attempts, b.retry.first.as_secs()), (5, 2));
    assert_eq!((a.retry.within, a.retry.max), (built_in.within, built_in.max));
    assert_eq!(a.retry.jitter, crate::delivery::policy::Jitter::None);
    assert_eq!(b.retry.jitter, built_in.jitter);
    assert!(matches!(a.retry_on[..], [crate::config::RetryOn::Status(_)]));
    assert!(matches!(b.retry_on[..], [crate::config::RetryOn::Network]));
}

#[test]
fn alternatives_and_answers() {
    let loaded = check_source(
        "{ path: /r, verify: { secret: { env: S }, any_of: [ { token: { bearer: true } }, { hmac: sha256, signature: { header: X-S }, secret: { env: T } } ] }, event: { id: $.id }, respond: { status: 202, headers: { X-A: b }, body: { ok: true } } }",
        &[],
    );
    let set = loaded.set.unwrap();
    let source = &set.sources[&"r".into()];
    assert!(
        matches!(&source.verify.scheme, crate::verify::scheme::Scheme::AnyOf(all) if all.len() == 2)
    );
    assert_eq!(source.verify.strength, crate::verify::scheme::Strength::Token);
    assert_eq!(source.respond.status, 202);
    assert_eq!(source.respond.headers["x-a"], "b");
    assert_eq!(source.respond.headers["content-type"], "application/json");
    assert_eq!(source.respond.body.as_ref(), b"{\"ok\":true}");
    check_source(
        "{ path: /r, verify: { any_of: [ { token: { bearer: true } } ] }, event: { id: $.id } }",
        &["R013 the verification needs `secret` | any_of"],
    );
    check_source(
        "{ path: /r, verify: { any_of: [], secret: { env: S } }, event: { id: $.id } }",
        &["R015 a list of no schemes verifies nothing | []"],
    );
    check_source(
        "{ path: /r, verify: { token: { bearer: true }, secret: { env: S } }, event: { id: $.id }, respond: { status: 404 } }",
        &["R015 `status` cannot be `404` | 404"],
    );
    check_source(
        "{ path: /r, verify: { token: { bearer: true }, secret: { env: S } }, event: { id: $.id }, respond: { headers: { Connection: close } } }",
        &["R015 `connection` is set by the server | Connection"],
    );
}

#[test]
fn sources() {
    check_source(
        "{ path: r, verify: { none: x }, event: { id: $.id } }",
        &["R015 the path `r` does not start with `/` | r", "R050 nobody checks who sends here | x"],
    );
    check_source(
        "{ path: '/r/{Shop}', verify: { provider: stripee, secret: { env: S } } }",
        &[
            "R015 `{Shop}` cannot name a part of the path | '/r/{Shop}'",
            "R032 there is no provider preset `stripee` | stripee",
        ],
    );
    check_source(
        "{ path: /r, verify: { provider: stripe } }",
        &["R013 the verification needs `secret` | provider"],
    );
    check_source(
        "{ path: /r, verify: { provider: stripe, secret: { literal: x } }, dedupe: 1d }",
        &[
            "R042 a secret stands in the file | { literal: x }",
            "R057 Stripe resends for longer than ids are remembered | 1d",
        ],
    );
    check_source(
        "{ path: /r, verify: { hmac: sha256, secret: { env: S }, signature: { header: X-S } } }",
        &["R051 no event id is named: the hash of the body stands for it | verify"],
    );
    check_source(
        "{ path: /r, verify: { hmac: sha256, secret: { env: S }, signed: '{timestamp}.{bdy}', signature: { header: X-S } }, event: { id: { hash: body } } }",
        &[
            "R022 `{bdy}` names nothing of a request | {bdy}",
            "R051 the event id is derived | { hash: body }",
        ],
    );
    check_source(
        "{ path: /r, verify: { secret: { env: S } }, event: { id: '$.a[' } }",
        &[
            "R013 a verification says how the sender proves itself | secret",
            "R020 the JSONPath is not complete | ",
        ],
    );
    check_source("stroe", &["R032 there is no source `stroe` | stroe"]);
    check_source(
        "{ path: /r, verify: { token: { bearer: true }, secret: { env: S } }, event: { id: '$.a[*]', occurred_at: { from: $.t, format: '%Q', zone: Mars } } }",
        &[
            "R052 `$.a[*]` may hit several values, and only the first is taken | '$.a[*]'",
            "R015 there is no time zone `Mars` | Mars",
        ],
    );
}

#[test]
fn presets_all_compile() {
    for (name, yaml) in crate::config::preset::BUILT_IN {
        let config: String = yaml
            .split_once("\nconfig:\n")
            .map(|(_, rest)| rest.lines().take_while(|line| line.starts_with("  ")).collect())
            .map(|lines: Vec<&str>| {
                let name = |line: &&str| line.trim().split(':').next().map(|it| format!("{it}: x"));
                lines.iter().filter_map(name).collect::<Vec<_>>().join(", ")
            })
            .map(|names| format!("config: {{ {names} }}, "))
            .unwrap_or_default();
        let captured = if yaml.contains("capture_secret") { "{ captured: true }, " } else { "" };
        let source = format!(
            "{{ path: /r, verify: {{ provider: {name}, {config}secret: [ {captured}{{ env: A }}, {{ env: B }} ] }} }}"
        );
        // Some providers have no id, and `check` says so.
        let derived = yaml.split("{ hash: ").skip(1).map(|text| {
            let mut depth = 1;
            let hashed = text.chars().take_while(|c| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth > 0
            });
            format!("R051 the event id is derived | {{ hash: {}}}", hashed.collect::<String>())
        });
        let derived: Vec<String> = derived.collect();
        let expected: Vec<&str> = derived.iter().map(String::as_str).collect();
        check_source(&source, &expected);
    }
}

#[test]
fn settings_in_tokens() {
    let preset = "provider: p\nconfig:\n  user: the user\n  header: { about: the header, default: X-A }\n\
        verify: { any_of: [ { token: { basic: \"{config.user}\" } }, { token: { header: \"{config.header}\" } } ] }\n\
        event: { id: $.id }\n";
    let with = |config: &str, expected: &[&str]| {
        let route = format!(
            "route: r\nsource: {{ path: /r, verify: {{ provider: p, secret: {{ env: S }}, config: {config} }} }}\n\
             steps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
        );
        check(&[("providers/p.yaml", preset), ("routes/r.yaml", &route)], expected)
    };
    let places = |loaded: Loaded| {
        let set = loaded.set.unwrap();
        let crate::verify::scheme::Scheme::AnyOf(schemes) = &set.sources[&"r".into()].verify.scheme
        else {
            panic!("no alternatives");
        };
        let at = |scheme: &crate::verify::scheme::Scheme| match scheme {
            crate::verify::scheme::Scheme::Token(token) => token.at.clone(),
            _ => panic!("no token"),
        };
        schemes.iter().map(at).collect::<Vec<_>>()
    };
    use crate::verify::scheme::TokenAt;
    assert_eq!(
        places(with("{ user: jo }", &[])),
        [TokenAt::Basic { user: "jo".to_owned() }, TokenAt::Header("x-a".to_owned())]
    );
    assert_eq!(
        places(with("{ user: \"\", header: X-B }", &[])),
        [TokenAt::Basic { user: String::new() }, TokenAt::Header("x-b".to_owned())]
    );
    with(
        "{ user: { env: U } }",
        &[
            "R015 `config.user` is a secret, and the scheme itself needs the text | \"{config.user}\"",
        ],
    );
    with("{ user: jo, header: \"a b\" }", &["R015 `a b` is no header name | \"{config.header}\""]);
    check_source(
        "{ path: /r, verify: { token: { query: \"{config.a}\" }, secret: { env: S } }, event: { id: $.id } }",
        &["R015 `config` has no `a` | \"{config.a}\""],
    );
}

#[test]
fn names_across_files() {
    let one = route("");
    check(
        &[("routes/a.yaml", &one), ("routes/b.yaml", &one)],
        &["R030 a second route is called `r` | r"],
    );
    let other = one.replace("route: r", "route: q");
    check(
        &[("routes/a.yaml", &one), ("routes/b.yaml", &other)],
        &["R031 `/r` and `/r` would take the same requests | /r"],
    );
    let other = other.replace("/r", "/{any}");
    check(
        &[("routes/a.yaml", &one.replace("/r", "/{all}")), ("routes/b.yaml", &other)],
        &["R001 expected `,` or `}` here | {", "R001 expected `,` or `}` here | {"],
    );
    check(
        &[(
            "router.yaml",
            "admin: { listen: 0.0.0.0:8081 }\nlisten: 8080\negress: { allow: [10.0.0.0/8, localhost:9000, 10.0.0.300] }\n",
        )],
        &[
            "R060 the API on 0.0.0.0:8081 is open to everyone who reaches it | 0.0.0.0:8081",
            "R014 `listen` must be text, and this is a number | 8080",
            "R015 `10.0.0.300` is no address, network or host | 10.0.0.300",
        ],
    );
    check(
        &[
            ("routes/a.yaml", &route("fields: { plan: { from: $.p, map: { file: skus.csv } } }")),
            ("routes/skus.csv", "a,b\nc\na,d\n"),
        ],
        &[
            "R015 a row has two columns, code and value; this one has 1 | c",
            "R002 a second row for `a` | a,d",
        ],
    );
    check(
        &[("routes/a.yaml", &route("fields: { plan: { from: $.p, match: '(' } }"))],
        &["R023 `(` is no regular expression: unclosed group | '('"],
    );
}

const SHARED: &str =
    "source: store\npath: /s/{shop}\nverify: { provider: stripe, secret: { env: S } }\n";

fn on_shared(name: &str) -> String {
    format!(
        "route: {name}\nsource: store\nsteps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
    )
}

#[test]
fn a_revision_is_its_own_files_and_compiles_again() {
    let files = |shared: &str, other: &str| {
        let loaded = check(
            &[
                ("routes/a.yaml", &on_shared("a")),
                ("routes/b.yaml", other),
                ("sources/store.yaml", shared),
            ],
            &[],
        );
        loaded.set.unwrap()
    };
    let set = files(SHARED, &on_shared("b"));
    let route = &set.routes[&"a".into()];
    let again = compile_revision(&route.revision_text, &set).unwrap();
    assert_eq!(again.revision, route.revision);
    assert_eq!(again.steps.len(), 1);

    let other_edited = files(SHARED, &on_shared("c"));
    assert_eq!(other_edited.routes[&"a".into()].revision, route.revision);
    let source_edited = files(&format!("{SHARED}dedupe: 60d\n"), &on_shared("b"));
    assert_ne!(source_edited.routes[&"a".into()].revision, route.revision);
    assert!(compile_revision("{}", &set).is_err());
    assert!(compile_revision("no", &set).is_err());
}

#[test]
fn a_teams_own_preset_wins() {
    let own = "provider: stripe\nverify: { token: { header: X-T } }\nevent: { id: $.own }\n";
    let source = "{ path: /r, verify: { provider: stripe, secret: { env: S } } }";
    let route = format!(
        "route: r\nsource: {source}\nsteps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"
    );
    let loaded = check(&[("providers/stripe.yaml", own), ("routes/r.yaml", &route)], &[]);
    let set = loaded.set.unwrap();
    assert!(matches!(
        set.sources[&"r".into()].verify.scheme,
        crate::verify::scheme::Scheme::Token(_)
    ));
}

proptest::proptest! {
    /// Whatever is cut out of, put into or swapped in a file: no panic, and a set exactly where there is no error.
    #[test]
    fn load_never_panics(cuts in proptest::collection::vec((0usize..2000, 0usize..40, "[a-z$:{}\\[\\]\"'|>*&!,#\n \\-0-9.%]{0,12}"), 1..4)) {
        let mut text = MAIN.to_owned();
        for (at, length, put) in cuts {
            let floor = |mut at: usize| { at = at.min(text.len()); while !text.is_char_boundary(at) { at -= 1; } at };
            let (start, end) = (floor(at), floor(at + length));
            text.replace_range(start..end, &put);
        }
        let (loaded, _) = findings(&[("router.yaml", SERVER), ("routes/a.yaml", &text)]);
        let errors = loaded.diagnostics.iter().any(|it| it.severity == Severity::Error);
        proptest::prop_assert_eq!(loaded.set.is_none(), errors);
    }

    #[test]
    fn load_never_panics_on_noise(text in "(route|source|steps|verify|on|- |: |\\{|\\}|\\[|\n|  |[a-z$*&!'\"]){0,60}") {
        for name in ["router.yaml", "routes/a.yaml", "sources/a.yaml", "providers/a.yaml"] {
            findings(&[(name, &text)]);
        }
    }
}

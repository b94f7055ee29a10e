//! The route language over real sockets, clause by clause: what the YAML says, what the sender gets, what leaves for the
//! downstream, what an operator reads.
#![expect(
    clippy::disallowed_methods,
    reason = "a test bounds its waits for a real process by the real clock"
)]

mod support;

use std::sync::Arc;

use http::Method;
use router::simulate::downstream::{Answer, Downstream, Keys, Reply, Request};
use router::world::clock::SystemClock;
use serde_json::{Value as Json, json};
use support::{Folder, Router, client};

/// A router on routes of its own, its downstream, and a client that plays the provider.
struct Rig {
    downstream: Downstream,
    folder: Folder,
    router: Router,
    client: reqwest::Client,
}

/// `server` are further keys of `router.yaml`; `DOWN` stands for the downstream's address, which calls may reach.
async fn rig(server: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Rig {
    let egress = if server.contains("egress:") { "" } else { "egress: { allow: [ \"DOWN\" ] }" };
    let downstream =
        Downstream::start(Arc::new(SystemClock::start())).await.expect("a port on loopback");
    let address = downstream.address().to_string();
    let fill = |text: &str| text.replace("DOWN", &address);
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (*name, fill(text))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, &**text)).collect();
    let folder = Folder::new(&fill(&format!("{egress}\n{server}")), &files);
    let router = Router::start(&folder, env);
    Rig { downstream, folder, router, client: client() }
}

/// An answer to the sender.
#[derive(Debug, PartialEq)]
struct Answered {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Rig {
    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answered {
        let mut request = self.client.request(method, self.router.url(path)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        Answered {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await.expect("a body"),
        }
    }

    /// POSTs JSON; the status.
    async fn post(&self, path: &str, body: &Json) -> u16 {
        let headers = [("content-type", "application/json")];
        self.request(Method::POST, path, &headers, body.to_string()).await.status
    }

    /// The only request to `path`.
    fn only(&self, path: &str) -> Request {
        let mut found = self.downstream.requests();
        found.retain(|request| request.path == path);
        assert_eq!(found.len(), 1, "requests to {path}: {found:#?}");
        found.remove(0)
    }

    /// Rows of `GET /api/v1/events?{query}`.
    async fn list(&self, query: &str) -> Vec<Json> {
        let url = format!("http://{}/api/v1/events?{query}", self.router.admin);
        let answer = self.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let page: Json =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        page["events"].as_array().expect("events").clone()
    }
}

fn step<'a>(event: &'a Json, name: &str) -> &'a Json {
    let mut steps = event["deliveries"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|delivery| delivery["steps"].as_array().into_iter().flatten());
    steps.find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name} in {event:#}"))
}

/// A route on `/NAME` whose one step tells the downstream what it read.
fn echo(name: &str, source: &str, rest: &str) -> (String, String) {
    let text = format!(
        "route: {name}\nsource:\n  path: /{name}\n  verify: {{ none: a test }}\n{source}\n{rest}\n"
    );
    (format!("routes/{name}.yaml"), text)
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(name, text)| (&**name, &**text)).collect()
}

const TELL: &str = "steps: [ { name: tell, call: { post: \"http://DOWN/tell\", json: { id: \"{{ event.id }}\" } }, repeat: ok } ]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_one_event_is_decided_by_the_source() {
    let files = [
        echo(
            "same-as",
            "  event: { id: $.id, same_as: { value: \"{{ event.type }}:{{ payload.order }}\" }, type: $.type }",
            TELL,
        ),
        echo("volatile", "  event: { id: $.id, volatile: [ $.sent_at, \"$.tries[*].at\" ] }", TELL),
        echo("review", "  event: { id: $.id }", TELL),
        echo("ignore", "  event: { id: $.id, on_conflict: ignore }", TELL),
        echo("anew", "  event: { id: $.id, on_conflict: new_event }", TELL),
        echo("derive", "  event: { id: $.id, missing_id: derive }", TELL),
        echo("noid", "  event: { id: $.id, missing_id: review }", TELL),
        echo("reject", "  event: { id: $.id, missing_id: reject }", TELL),
        echo("first", "  event: { id: [ { header: X-Id }, { query: id }, $.id ] }", TELL),
        echo("hashed", "  event: { id: { hash: [ $.a, { header: X-B } ] } }", TELL),
        echo("hashbody", "  event: { id: { hash: body }, volatile: [ $.n ] }", TELL),
    ];
    let rig = rig("", &borrowed(&files), &[]).await;
    let parts = rig.post("/same-as", &json!({ "id": "s1", "type": "paid", "order": 7 })).await;
    assert_eq!(parts, 200);
    assert_eq!(rig.post("/same-as", &json!({ "id": "s2", "type": "paid", "order": 7 })).await, 200);
    assert_eq!(rig.post("/same-as", &json!({ "id": "s3", "type": "sent", "order": 7 })).await, 200);
    assert_eq!(rig.router.event_when("s1", "succeeded").await["duplicates"], 1);
    assert!(rig.router.event("s2").await.is_none());
    rig.router.event_when("s3", "succeeded").await;

    let volatile = |sent: u32, amount: u32| json!({ "amount": amount, "id": "v1", "sent_at": sent, "tries": [ { "at": sent } ] });
    for (sent, amount) in [(1, 5), (2, 5), (3, 6)] {
        assert_eq!(rig.post("/volatile", &volatile(sent, amount)).await, 200);
    }
    let event = rig.router.event_when("v1", "succeeded").await;
    assert_eq!((&event["duplicates"], &event["conflicts"]), (&json!(1), &json!(1)), "{event:#}");
    // The order of members and spaces are no difference.
    let headers = [("content-type", "application/json")];
    rig.request(
        Method::POST,
        "/volatile",
        &headers,
        "{ \"id\" : \"v1\",\n\"tries\": [], \"amount\": 5 }",
    )
    .await;
    assert_eq!(rig.router.event("v1").await.expect("it is there")["conflicts"], 2);
    rig.request(
        Method::POST,
        "/volatile",
        &headers,
        "{ \"id\" : \"v1\",\n\"tries\": [{}], \"amount\": 5 }",
    )
    .await;
    let event = rig.router.event("v1").await.expect("it is there");
    assert_eq!((&event["duplicates"], &event["conflicts"]), (&json!(2), &json!(2)), "{event:#}");

    for (path, conflicts, events) in [("review", 1, 1), ("ignore", 1, 1), ("anew", 0, 2)] {
        for amount in [1, 2, 2, 1] {
            let body = json!({ "id": path, "amount": amount });
            assert_eq!(rig.post(&format!("/{path}"), &body).await, 200, "{path}");
        }
        let rows = rig.list(&format!("source={path}")).await;
        assert_eq!(rows.len(), events, "{path}: {rows:#?}");
        if events == 1 {
            let event = rig.router.event_when(path, "succeeded").await;
            assert!(event["conflicts"].as_u64() >= Some(conflicts), "{path}: {event:#}");
            assert_eq!(event["payload"]["amount"], 1);
        } else {
            // Two actions with two keys: the second is really new.
            for row in rows {
                rig.router.event_when(row["uid"].as_str().expect("text"), "succeeded").await;
            }
        }
    }
    let anew: std::collections::BTreeSet<_> = rig
        .downstream
        .actions()
        .into_iter()
        .filter(|action| action.json()["id"] == "anew")
        .map(|action| action.key)
        .collect();
    assert_eq!(anew.len(), 2, "{anew:?}");

    for n in [1, 1, 2] {
        assert_eq!(rig.post("/derive", &json!({ "n": n })).await, 200);
    }
    assert_eq!(rig.list("source=derive").await.len(), 2);
    // An empty id is no id.
    assert_eq!(rig.post("/derive", &json!({ "id": "", "n": 9 })).await, 200);
    assert_eq!(rig.post("/derive", &json!({ "id": "", "n": 8 })).await, 200);
    assert_eq!(rig.list("source=derive").await.len(), 4);
    assert_eq!(rig.post("/noid", &json!({ "n": 1 })).await, 200);
    let rows = rig.list("source=noid").await;
    assert_eq!(rows[0]["processing"]["status"], "malformed", "{rows:#?}");
    assert_eq!(rig.post("/reject", &json!({ "n": 1 })).await, 400);
    assert!(rig.list("source=reject").await.is_empty());

    let body = "{\"id\":\"f3\"}";
    for (path, headers, id) in [
        ("/first?id=f2", &[("x-id", "f1")][..], "f1"),
        ("/first?id=f2", &[], "f2"),
        ("/first", &[], "f3"),
    ] {
        assert_eq!(rig.request(Method::POST, path, headers, body).await.status, 200);
        rig.router.event_when(id, "succeeded").await;
    }
    for (body, header) in [(1, "b"), (1, "b"), (1, "c"), (2, "b")] {
        let body = json!({ "a": body, "noise": header.len() }).to_string();
        rig.request(Method::POST, "/hashed", &[("x-b", header)], body).await;
    }
    assert_eq!(rig.list("source=hashed").await.len(), 3);
    for body in [json!({ "n": 1, "m": 1 }), json!({ "m": 1, "n": 2 }), json!({ "n": 1, "m": 2 })] {
        rig.post("/hashbody", &body).await;
    }
    assert_eq!(rig.list("source=hashbody").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_says_is_what_a_sender_gets() {
    let files = [
        echo("respond", "  event: { id: $.id }\n  respond: { status: 202, headers: { X-Got: it }, body: { ok: true } }", TELL),
        echo("said", "  event: { id: $.id }\n  respond: { body: thanks }", TELL),
        echo("methods", "  event: { id: { hash: body } }\n  methods: [POST, PUT]", TELL),
        echo("small", "  event: { id: { hash: body } }\n  max_body: 1KiB", TELL),
        echo("strict", "  event: { id: $.id }\n  on_malformed: reject\n  body: json", TELL),
        echo("lenient", "  event: { id: $.id }\n  body: json", TELL),
        echo("typed", "  event: { id: $.id, type: $.type }", &format!("on: [ \"orders/*\", \"!*test\" ]\n{TELL}")),
        echo("times", "  event: { id: $.id, occurred_at: $.at }", TELL),
        echo("zoned", "  event: { id: $.id, occurred_at: { from: $.at, format: \"%d.%m.%Y %H:%M\", zone: Europe/Berlin } }", TELL),
        ("sources/shared.yaml".to_owned(), "source: shared\npath: /shared/{shop}\nverify: { none: a test }\nevent: { id: $.id, type: $.type }\n".to_owned()),
        ("routes/one.yaml".to_owned(), format!("route: one\nsource: shared\n{TELL}\n")),
        ("routes/deep/two.yaml".to_owned(), format!("route: two\nsource: shared\non: paid\n{}\n", TELL.replace("event.id", "path.shop"))),
    ];
    let rig = rig("", &borrowed(&files), &[]).await;
    for _ in 0..2 {
        let answer = rig.request(Method::POST, "/respond", &[], "{\"id\":\"r1\"}").await;
        assert_eq!((answer.status, &*answer.body), (202, "{\"ok\":true}"));
        assert_eq!(answer.headers["x-got"], "it");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    assert_eq!(rig.request(Method::POST, "/said", &[], "{\"id\":\"r2\"}").await.body, "thanks");
    let plain = rig.request(Method::POST, "/lenient", &[], "{\"id\":\"plain\"}").await;
    assert_eq!((plain.status, &*plain.body), (200, ""));

    assert_eq!(rig.request(Method::PUT, "/methods", &[], "{}").await.status, 200);
    let refused = rig.request(Method::DELETE, "/methods", &[], "").await;
    assert_eq!(
        (refused.status, refused.headers["allow"].to_str().expect("text")),
        (405, "POST, PUT")
    );
    assert_eq!(rig.request(Method::POST, "/small", &[], vec![b'1'; 1024]).await.status, 200);
    assert_eq!(rig.request(Method::POST, "/small", &[], vec![b'1'; 1025]).await.status, 413);
    assert_eq!(rig.request(Method::POST, "/none", &[], "").await.status, 404);
    assert_eq!(rig.request(Method::POST, "/respond/", &[], "{}").await.status, 404);

    assert_eq!(rig.request(Method::POST, "/strict", &[], "{\"id\":").await.status, 400);
    assert!(rig.list("source=strict").await.is_empty());
    assert_eq!(rig.request(Method::POST, "/lenient", &[], "{\"id\":").await.status, 200);
    let malformed = rig.list("source=lenient&status=malformed").await;
    assert_eq!(malformed.len(), 1);
    let uid = malformed[0]["uid"].as_str().expect("text");
    let event = rig.router.event(uid).await.expect("it is there");
    assert_eq!(event["processing"]["status"], "failed");
    assert_eq!(event["body"]["text"], "{\"id\":");

    for (id, event_type, status) in [
        ("t1", json!("orders/a/b"), "succeeded"),
        ("t2", json!("orders/test"), "unrouted"),
        ("t3", json!("Orders/a"), "unrouted"),
        ("t4", Json::Null, "unrouted"),
    ] {
        assert_eq!(rig.post("/typed", &json!({ "id": id, "type": event_type })).await, 200);
        rig.router.event_when(id, status).await;
    }
    for (path, id, at, expected) in [
        ("/times", "at1", json!("2026-11-23T10:00:00+02:00"), json!("2026-11-23T08:00:00Z")),
        ("/times", "at2", json!("Mon, 23 Nov 2026 10:00:00 GMT"), json!("2026-11-23T10:00:00Z")),
        ("/times", "at3", json!(1_764_000_000), json!("2025-11-24T16:00:00Z")),
        ("/times", "at4", json!(1_764_000_000_500_u64), json!("2025-11-24T16:00:00.5Z")),
        ("/times", "at5", json!("2026-11-23T10:00:00"), json!("2026-11-23T10:00:00Z")),
        ("/times", "at6", Json::Null, Json::Null),
        ("/zoned", "at7", json!("23.11.2026 10:00"), json!("2026-11-23T09:00:00Z")),
    ] {
        assert_eq!(rig.post(path, &json!({ "id": id, "at": at })).await, 200);
        assert_eq!(
            rig.router.event(id).await.expect("it is there")["occurredAt"],
            expected,
            "{id}"
        );
    }
    assert_eq!(rig.post("/times", &json!({ "id": "at8", "at": "soon" })).await, 200);
    assert_eq!(
        rig.router.event("at8").await.expect("it is there")["processing"]["status"],
        "failed"
    );

    // One event, one delivery per route that wants it; the path's parts keep shops apart.
    for (shop, id, event_type) in [("a", "sh1", "paid"), ("a", "sh2", "sent"), ("b", "sh1", "paid")]
    {
        let body = json!({ "id": id, "type": event_type });
        assert_eq!(rig.post(&format!("/shared/{shop}"), &body).await, 200);
    }
    let rows = rig.list("source=shared").await;
    let mut deliveries: Vec<usize> =
        rows.iter().map(|row| row["deliveries"].as_array().map_or(0, Vec::len)).collect();
    deliveries.sort_unstable();
    assert_eq!(deliveries, [1, 2, 2], "{rows:#?}");
    let url = format!("http://{}/api/v1/events/sh1", rig.router.admin);
    let answer = rig.client.get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 409);
    let problem: Json =
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(problem["matches"].as_array().map(Vec::len), Some(2), "{problem:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_what_the_step_says() {
    let calls = r#"
when: payload.go
secrets: { token: { file: ../token.txt } }
env: { plan: { env: LANGUAGE_TEST_PLAN, default: free }, region: LANGUAGE_TEST_REGION }
fields:
  id: { from: $.id, type: string, required: true }
  amount: { from: $.amount, type: decimal }
  tags: { from: "$.lines[*].tag", all: true }
  lines: { from: "$.lines[*]", each: { sku: { from: $.sku, map: { a: alpha }, default: other }, n: { from: $.n, type: integer } } }
  size: { from: $.size, one_of: [S, M], default: M }
  code: { from: $.ref, match: "ref-([0-9]+)" }
  mapped: { from: $.plan, map: { file: ../plans.csv } }
  gone: $.gone
  kind: { header: X-Kind }
  q: { query: q }
  text: { value: "{{ payload.id }}/{{ event.type | default('none') }}" }
steps:
  - name: types
    call:
      put: "http://DOWN/types"
      headers: { X-Plan: "{{ env.plan }}-{{ env.region }}", X-Gone: "{{ fields.gone | optional }}", X-Token: "{{ secrets.token }}" }
      query: { q: "{{ fields.q }}", gone: "{{ fields.gone | optional }}", n: 1 }
      json: { amount: "{{ fields.amount }}", tags: "{{ fields.tags }}", lines: "{{ fields.lines }}", size: "{{ fields.size }}", code: "{{ fields.code }}", mapped: "{{ fields.mapped }}", kind: "{{ fields.kind }}", text: "{{ fields.text }}", gone: "{{ fields.gone | optional }}", none: "{{ fields.gone }}", list: [ 1, "{{ fields.gone | optional }}", "{{ 1 == 1 }}" ], mixed: "n={{ payload.n }} {{ true }}", literal: 12.50 }
    idempotency_key: "k-{{ fields.id }}"
    save: { where: { header: Location }, said: { value: "{{ response.text | length }}" }, code: { value: "{{ response.status }}" }, missing: { from: $.nothing, default: dflt }, none: $.nothing, first: { from: "$.list[*].v", all: true } }
    success: [ 201, 4xx ]
  - name: get
    call: { get: "http://DOWN/get/{{ payload.weird }}/{{ payload.weird | raw_url }}?x={{ payload.weird }}" }
  - name: form
    call: { post: "http://DOWN/form", form: { a: "{{ fields.id }}", b: "x & y", c: "{{ fields.gone | optional }}", where: "{{ steps.types.where }}", status: "{{ steps.types.status }}" } }
  - name: text
    call: { patch: "http://DOWN/text", text: "said {{ steps.types.said }} {{ steps.types.missing }} {{ steps.types.none is none }} {{ steps.types.first }}" }
  - name: raw
    call: { post: "http://DOWN/raw", raw: true }
  - name: delete
    call: { to: base, delete: "/things/{{ fields.id }}", query: { k: "{{ idempotency_key }}" } }
  - name: base
    call: { to: base, post: "", json: [ "{{ delivery.attempt }}" ] }
  - name: hidden
    call: { to: hidden, post: /x, text: "t" }
  - name: keyless
    call: { to: keyless, post: /keyless }
    repeat: ok
  - name: named
    call: { to: named, post: /named }
"#;
    let server = r#"
destinations:
  base: { url: "http://DOWN/v1/", auth: { bearer: { env: LANGUAGE_TEST_TOKEN } }, timeout: 5s }
  hidden: { url: { env: LANGUAGE_TEST_URL }, auth: { basic: { user: me, password: { file: token.txt } } }, idempotency: body }
  keyless: { url: "http://DOWN", idempotency: none, auth: { header: X-Api-Key, value: { literal: abcdef } } }
  named: { url: "http://DOWN", idempotency: { header: X-Once } }
"#;
    let files = [
        echo("calls", "  event: { id: $.id }", calls),
        ("token.txt".to_owned(), "  from-a-file\n".to_owned()),
        ("plans.csv".to_owned(), "code,value\nprice_1,pro\n".to_owned()),
    ];
    let probe = Downstream::start(Arc::new(SystemClock::start())).await.expect("a port");
    let hidden = format!("http://{}/hooks/s3cr3t", probe.address());
    let server = format!("egress: {{ allow: [ \"DOWN\", \"{}\" ] }}\n{server}", probe.address());
    let rig = rig(
        &server,
        &borrowed(&files),
        &[
            ("LANGUAGE_TEST_REGION", "eu"),
            ("LANGUAGE_TEST_TOKEN", "tok-bearer"),
            ("LANGUAGE_TEST_URL", &hidden),
        ],
    )
    .await;
    rig.downstream.always(Method::PUT, "/types", |_| {
        Reply::Answer(
            Answer::new(409, r#"{"list":[{"v":1},{"v":"2"}]}"#).header("location", "/made/1"),
        )
    });
    assert_eq!(rig.post("/calls", &json!({ "id": "no", "go": false })).await, 200);
    let ignored = rig.router.event_when("no", "ignored").await;
    assert_eq!(ignored["deliveries"][0]["status"], "ignored");
    let body = r#"{"id":"c1","go":true,"amount":10.10,"lines":[{"sku":"a","tag":1,"n":"2"},{"sku":"b","tag":"x","n":3}],"ref":"ref-77","plan":"price_1","weird":"a/b c?&=ü","n":3}"#;
    let answer = rig
        .request(
            Method::POST,
            "/calls?q=a%20b",
            &[
                ("content-type", "application/json"),
                ("x-kind", "K"),
                ("x-correlation-id", "corr-1"),
            ],
            body,
        )
        .await;
    assert_eq!(answer.status, 200);
    let event = rig.router.event_when("c1", "succeeded").await;
    assert_eq!(event["correlationId"], "corr-1");

    let types = rig.only("/types");
    let sent = String::from_utf8(types.body.to_vec()).expect("text");
    let expected = r#"{"amount":"10.10","tags":[1,"x"],"lines":[{"sku":"alpha","n":2},{"sku":"other","n":3}],"size":"M","code":"77","mapped":"pro","kind":"K","text":"c1/","none":null,"list":[1,true],"mixed":"n=3 true","literal":12.50}"#;
    assert_eq!(sent, expected);
    assert_eq!(types.method, Method::PUT);
    assert_eq!(types.query.as_deref(), Some("q=a%20b&n=1"));
    assert_eq!(types.key(), Some("k-c1"));
    for (name, value) in [
        ("x-plan", Some("free-eu")),
        ("x-gone", None),
        ("x-token", Some("from-a-file")),
        ("content-type", Some("application/json")),
        ("x-correlation-id", Some("corr-1")),
    ] {
        assert_eq!(types.header(name), value, "{name}");
    }
    let saved = json!({ "where": "/made/1", "said": 28, "code": 409, "missing": "dflt", "none": null, "first": [1, "2"] });
    assert_eq!(step(&event, "types")["saved"], saved);
    assert_eq!(step(&event, "types")["idempotencyKey"], "k-c1");

    let get = rig.downstream.requests().into_iter().find(|request| request.method == Method::GET);
    let get = get.expect("a GET");
    assert_eq!((get.key(), get.body.len()), (None, 0));
    assert!(get.path.starts_with("/get/a%2Fb%20c%3F%26%3D%C3%BC/a/b"), "{}", get.path);

    let form = rig.only("/form");
    assert_eq!(&*form.body, b"a=c1&b=x+%26+y&where=%2Fmade%2F1&status=succeeded");
    assert_eq!(form.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(form.key().is_some());
    let text = rig.only("/text");
    assert_eq!((text.method.as_str(), &*text.body), ("PATCH", &b"said 28 dflt true [1,\"2\"]"[..]));
    let raw = rig.only("/raw");
    assert_eq!(
        (&*raw.body, raw.header("content-type")),
        (body.as_bytes(), Some("application/json"))
    );
    let delete = rig.only("/v1/things/c1");
    assert_eq!(delete.header("authorization"), Some("Bearer tok-bearer"));
    assert_eq!(delete.query.as_deref(), delete.key().map(|key| format!("k={key}")).as_deref());
    assert_eq!(rig.only("/v1/").json(), json!([1]));
    let hidden = probe.requests();
    assert_eq!(hidden.len(), 1);
    assert_eq!(hidden[0].path, "/hooks/s3cr3t/x");
    assert_eq!(hidden[0].header("authorization"), Some("Basic bWU6ZnJvbS1hLWZpbGU="));
    assert_eq!(hidden[0].key(), None);
    let keyless = rig.only("/keyless");
    assert_eq!((keyless.key(), keyless.header("x-api-key")), (None, Some("abcdef")));
    let named = rig.only("/named");
    assert!(named.key().is_none() && named.header("x-once").is_some());

    // Nothing secret is kept or said.
    let shown = event.to_string();
    let Rig { router, .. } = rig;
    let log = router.stop().1.join("\n");
    for secret in ["from-a-file", "tok-bearer", "s3cr3t"] {
        assert!(!shown.contains(secret) && !log.contains(secret), "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_run_as_their_guards_say() {
    const QUICK: &str = "retry: { first: 10ms, max: 20ms, attempts: 3 }\n";
    let route = |name: &str, steps: &str| {
        echo(name, "  event: { id: $.id }", &format!("{QUICK}steps:\n{steps}"))
    };
    let files = [
        // Fan-out: one branch fails, the other finishes, what needs the failed one is not run.
        route(
            "fan",
            r#"
  - { name: bad, needs: [], call: { post: "http://DOWN/bad" } }
  - { name: after_bad, needs: [bad], call: { post: "http://DOWN/after" } }
  - { name: good, needs: [], call: { post: "http://DOWN/good" }, save: { id: $.id } }
  - { name: after_good, needs: [good], call: { post: "http://DOWN/after-good", json: { id: "{{ steps.good.id }}" } } }
"#,
        ),
        // At once: each of the two answers only when both are there.
        route(
            "side",
            r#"
  - { name: left, needs: [], call: { post: "http://DOWN/left" } }
  - { name: right, needs: [], call: { post: "http://DOWN/right" } }
"#,
        ),
        route(
            "skip",
            r#"
  - { name: never, when: payload.never is not none, call: { post: "http://DOWN/never" }, save: { id: $.id } }
  - { name: then, when: "{{ steps.never.status == 'skipped' }}", call: { post: "http://DOWN/then", json: { id: "{{ steps.never.id }}", status: "{{ steps.never.status }}" } } }
"#,
        ),
        route(
            "cond",
            r#"
  - { name: ask, call: { post: "http://DOWN/cond" }, success: response.status == 200 and response.json.state == "done", retry: { on: [ "response.json.state == 'busy'", 5xx ] } }
"#,
        ),
        route(
            "never-again",
            r#"
  - { name: ask, call: { post: "http://DOWN/once" }, retry: { on: [ network ] } }
"#,
        ),
        route(
            "falsy",
            r#"
  - { name: ask, call: { post: "http://DOWN/false" }, success: response.json.ok }
"#,
        ),
        route(
            "need",
            r#"
  - { name: make, call: { post: "http://DOWN/make" }, save: { id: { from: $.id, required: true } } }
  - { name: use, call: { post: "http://DOWN/use", json: { id: "{{ steps.make.id }}" } } }
"#,
        ),
        route(
            "slow",
            r#"
  - { name: wait, call: { post: "http://DOWN/slow" }, timeout: 150ms }
"#,
        ),
        route(
            "nothing",
            r#"
  - { name: say, call: { post: "http://DOWN/say", text: "Hello {{ payload.name }}" } }
"#,
        ),
        route(
            "escape",
            r#"
  - { name: say, call: { post: "http://DOWN/a/{{ payload.part }}/b" } }
"#,
        ),
        route(
            "fence",
            r#"
  - { name: out, call: { post: "http://127.0.0.1:9/x" } }
"#,
        ),
        route(
            "fence-named",
            r#"
  - { name: out, call: { post: "http://localhost:9/x" } }
"#,
        ),
        route(
            "error",
            r#"
  - { name: bad, when: payload.n > 1, call: { post: "http://DOWN/error" } }
"#,
        ),
        route(
            "explicit",
            r#"
  - { name: once, call: { post: "http://DOWN/once-per-order" }, idempotency_key: "o-{{ payload.order }}", save: { n: $.n } }
  - { name: tell, call: { post: "http://DOWN/told", json: { n: "{{ steps.once.n }}", status: "{{ steps.once.status }}" } } }
"#,
        ),
    ];
    let rig = rig("", &borrowed(&files), &[]).await;
    let down = &rig.downstream;
    down.keys(Keys::Ignored);
    let answers = |path: &str, replies: Vec<Reply>| down.script(Method::POST, path, replies);
    let run = async |path: &str, body: Json, status: &str| {
        let mut body = body;
        let id = format!("{path}-{}", body["n"]);
        body["id"] = id.clone().into();
        assert_eq!(rig.post(&format!("/{path}"), &body).await, 200);
        rig.router.event_when(&id, status).await
    };
    let states = |event: &Json| -> Vec<String> {
        let steps = event["deliveries"][0]["steps"].as_array().expect("steps");
        let mut states: Vec<String> = steps
            .iter()
            .map(|step| format!("{}={}", step["name"], step["status"]).replace('"', ""))
            .collect();
        states.sort_unstable();
        states
    };
    let count = |path: &str| down.requests().iter().filter(|request| request.path == path).count();

    answers("/bad", vec![Reply::status(400)]);
    down.always(Method::POST, "/good", |_| Reply::json(201, &json!({ "id": 5 })));
    let event = run("fan", json!({}), "failed").await;
    assert_eq!(
        states(&event),
        ["after_bad=not_run", "after_good=succeeded", "bad=failed", "good=succeeded"]
    );
    assert_eq!((count("/after"), rig.only("/after-good").json()), (0, json!({ "id": 5 })));
    assert_eq!(event["deliveries"][0]["reason"]["cause"], "status_400");

    answers("/left", vec![Reply::Hang]);
    let sent = rig.post("/side", &json!({ "id": "side" })).await;
    assert_eq!(sent, 200);
    tokio::time::timeout(
        support::PATIENCE,
        down.wait_until(|down| {
            let seen = |path: &str| down.requests().iter().any(|request| request.path == path);
            seen("/left") && seen("/right")
        }),
    )
    .await
    .expect("both at once");

    let event = run("skip", json!({}), "succeeded").await;
    assert_eq!(states(&event), ["never=skipped", "then=succeeded"]);
    assert_eq!(rig.only("/then").json(), json!({ "id": null, "status": "skipped" }));

    let state = |state: &str| Reply::json(200, &json!({ "state": state }));
    answers("/cond", vec![state("busy"), Reply::status(500), state("done"), state("odd")]);
    let event = run("cond", json!({ "n": 1 }), "succeeded").await;
    let attempts = step(&event, "ask")["attempts"].as_array().expect("attempts").clone();
    assert_eq!(attempts.len(), 3);
    for (index, status) in [200, 500, 200].into_iter().enumerate() {
        let attempt = &attempts[index];
        assert_eq!(
            (&attempt["number"], &attempt["status"], &attempt["outcome"]),
            (&json!(index + 1), &json!(status), &json!("answered"))
        );
        assert!(attempt["durationMs"].is_u64() && attempt["at"].is_string());
        assert_eq!(attempt["next"].is_string(), index < 2, "{attempt}");
    }
    let event = run("cond", json!({ "n": 2 }), "failed").await;
    assert_eq!(event["processing"]["attempts"], 1);
    answers("/once", vec![Reply::status(503)]);
    assert_eq!(run("never-again", json!({}), "failed").await["processing"]["attempts"], 1);
    answers(
        "/false",
        vec![Reply::json(200, &json!({ "ok": false })), Reply::json(200, &json!({ "ok": "yes" }))],
    );
    assert_eq!(run("falsy", json!({ "n": 1 }), "failed").await["processing"]["attempts"], 1);
    // A condition must yield a boolean.
    let event = run("falsy", json!({ "n": 2 }), "failed").await;
    assert!(event["deliveries"][0]["reason"].to_string().contains("success"), "{event:#}");

    let event = run("need", json!({}), "failed").await;
    assert_eq!(states(&event), ["make=succeeded", "use=not_run"], "{event:#}");
    assert_eq!((count("/make"), count("/use")), (1, 0));
    assert!(event["deliveries"][0]["reason"]["message"].to_string().contains("id"), "{event:#}");

    answers("/slow", vec![Reply::Hang, Reply::status(200)]);
    let event = run("slow", json!({}), "succeeded").await;
    let attempts = &step(&event, "wait")["attempts"];
    assert_eq!(
        (&attempts[0]["outcome"], &attempts[0]["status"]),
        (&json!("sent_no_answer"), &Json::Null)
    );
    assert!(attempts[0]["durationMs"].as_u64() >= Some(140), "{attempts:#}");

    let event = run("nothing", json!({}), "failed").await;
    assert!(
        event["deliveries"][0]["reason"]["message"].to_string().contains("payload.name"),
        "{event:#}"
    );
    assert_eq!(count("/say"), 0);
    for part in ["..", "."] {
        let event = run("escape", json!({ "part": part, "n": part.len() }), "failed").await;
        assert_eq!(event["processing"]["attempts"], 0, "{event:#}");
    }
    for path in ["fence", "fence-named"] {
        let event = run(path, json!({}), "failed").await;
        let attempts = &step(&event, "out")["attempts"];
        assert_eq!(attempts[0]["outcome"], "not_sent", "{event:#}");
        assert_eq!(attempts.as_array().map(Vec::len), Some(1));
    }
    let event = run("error", json!({ "n": "x" }), "failed").await;
    assert!(event["deliveries"][0]["reason"]["message"].to_string().contains("when"), "{event:#}");

    answers("/once-per-order", vec![Reply::json(200, &json!({ "n": 42 }))]);
    run("explicit", json!({ "n": 1, "order": 7 }), "succeeded").await;
    let event = run("explicit", json!({ "n": 2, "order": 7 }), "succeeded").await;
    assert_eq!(states(&event), ["once=already_done", "tell=succeeded"]);
    assert_eq!(step(&event, "once")["saved"], json!({ "n": 42 }));
    assert_eq!(count("/once-per-order"), 1);
    let told: Vec<Json> =
        down.requests_to(&Method::POST, "/told").iter().map(Request::json).collect();
    assert_eq!(
        told,
        [json!({ "n": 42, "status": "succeeded" }), json!({ "n": 42, "status": "already_done" })]
    );
}

/// A route with every fault of its kind is told at its place, by the agreed members.
#[test]
fn the_commands_answer_by_their_exit_codes() {
    let run = |folder: &Folder, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
            .args(args)
            .current_dir(folder.path())
            .env("LANGUAGE_TEST_SECRET", "sesame")
            .output()
            .expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    // Anchors and merge keys, every spelling of durations, sizes and counts, a preset of the team, a file as a secret.
    let good = r#"
route: good
source:
  path: /good
  verify: { provider: acme, secret: [ { file: ../secret.txt }, { env: LANGUAGE_TEST_SECRET } ] }
  max_body: 2_048KiB
  dedupe: 1w2d
retry: &gently { first: 1_500ms, max: 1h30m, attempts: 1_0, for: 2d }
steps:
  - { name: one, was: first_one, call: { get: "https://api.example/x" }, retry: { <<: *gently, factor: 1.5, on: [ 5xx, 409, network, "response.status == 418" ] }, timeout: 1m30s }
  - { name: two, needs: [], call: { get: "https://api.example/y" } }
"#;
    let acme = "provider: acme\ndocs: https://acme.example/webhooks\nstrength: signed\nverify: { hmac: sha256, signed: \"{body}\", signature: { header: X-Acme } }\nevent: { id: $.id, type: $.kind }\n";
    let folder = Folder::new(
        "limits: { connections: 10, backlog: 1_000, header_timeout: 5s, body_timeout: 10_000ms, min_free_disk: 1MiB }\nworkers: 2",
        &[
            ("routes/good.yaml", good),
            ("providers/acme.yaml", acme),
            ("secret.txt", "s3cret\n"),
            ("p.json", "{\"id\":\"e\",\"kind\":\"k\"}"),
        ],
    );
    let directory = folder.path().to_str().expect("UTF-8").to_owned();
    let config = folder.path().join("router.yaml");
    let config = config.to_str().expect("UTF-8");
    for args in [
        &["check"][..],
        &["check", "--strict"],
        &["check", "--env"],
        &["-C", &directory, "check"],
        &["check", "-C", &directory],
        &["--config", config, "check"],
        &["check", &directory],
        &["check", "routes/good.yaml"],
        &["schema", "route"],
        &["schema", "config"],
        &["schema", "source"],
        &["schema", "provider"],
        &["providers", "list"],
        &["providers", "show", "acme"],
        &["providers", "show", "stripe"],
        &["try", "good", "--payload", "p.json"],
    ] {
        let (code, out, err) = run(&folder, args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    }
    for args in [
        &["bogus"][..],
        &["check", "no/such/path"],
        &["check", "--format", "xml"],
        &["-C", "no/such/folder", "check"],
        &["schema", "bogus"],
        &["-C", ".", "--config", config, "check"],
    ] {
        assert_eq!(run(&folder, args).0, Some(2), "{args:?}");
    }

    folder.write("routes/bad.yaml", "route: bad\nsource: { path: /b, verify: { none: x } }\nstesp: []\nsteps: [ { name: s, call: { get: https://a.example }, for_each: a } ]\n");
    let (code, out, _) = run(&folder, &["check", "--format", "json"]);
    assert_eq!(code, Some(1));
    let report: Json = serde_json::from_str(&out).expect("one JSON object");
    let members = |object: &Json| -> Vec<String> {
        object.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(members(&report), ["root", "diagnostics", "errors", "warnings"]);
    assert_eq!(report["errors"], 2, "{report:#}");
    let found = report["diagnostics"].as_array().expect("a list");
    for diagnostic in found {
        assert_eq!(
            members(diagnostic),
            [
                "code",
                "name",
                "severity",
                "message",
                "file",
                "line",
                "column",
                "endLine",
                "endColumn",
                "help",
                "fix",
                "related"
            ]
        );
    }
    let unknown = found.iter().find(|it| it["name"] == "unknown-key").expect("the slip");
    let place = json!([
        unknown["code"],
        unknown["severity"],
        unknown["file"],
        unknown["line"],
        unknown["column"],
        unknown["endLine"],
        unknown["endColumn"]
    ]);
    assert_eq!(place, json!(["R012", "error", "routes/bad.yaml", 3, 1, 3, 6]));
    assert!(unknown["help"].as_str().expect("text").contains("steps"), "{unknown:#}");
    assert!(found.iter().any(|it| it["name"] == "not-built-yet" && it["line"] == 4), "{report:#}");

    // A public admin address without a token, a missing secret: neither runs.
    folder.write("routes/bad.yaml", "");
    std::fs::remove_file(folder.path().join("routes/bad.yaml")).expect("it is there");
    folder.write("open.yaml", "listen: 127.0.0.1:0\nadmin: { listen: 0.0.0.0:0 }\n");
    let (code, _, err) = run(&folder, &["--config", "open.yaml", "serve"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("open.yaml:2:") && err.contains("tokens"), "{err}");
    folder.write("secret.txt", " \n");
    let (code, out, err) = run(&folder, &["check", "--env"]);
    assert_eq!(code, Some(1), "{out}{err}");
}

/// `router send`: the very same request again is a duplicate, a bad signature is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_signed_and_sent() {
    let route = "route: sent\nsource: { path: \"/sent/{shop}\", verify: { provider: github, secret: { env: LANGUAGE_TEST_SECRET } }, event: { id: $.id } }\nsteps: [ { name: tell, call: { post: \"http://DOWN/tell\" }, repeat: ok } ]\n";
    let env = [("LANGUAGE_TEST_SECRET", "sesame")];
    let rig = rig("", &[("routes/sent.yaml", route), ("p.json", "{\"id\":\"snd\"}")], &env).await;
    let to = rig.router.url("/sent/a");
    let send = |more: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
            .current_dir(rig.folder.path())
            .args(["send", "sent", "--payload", "p.json", "--to", &to, "--path", "shop=a"])
            .args(more)
            .envs(env)
            .output()
            .expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), out + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, said) = send(&["--duplicate", "2"]);
    assert_eq!((code, said.matches("200 OK").count()), (Some(0), 3), "{said}");
    let (code, said) = send(&["--bad-signature"]);
    assert!(code == Some(0) && said.contains("401"), "{said}");
    assert_eq!(rig.router.event_when("snd", "succeeded").await["duplicates"], 2);
    assert_eq!(rig.downstream.requests().len(), 1);
}

/// What the sender signs of the URL is what the router checks; a bad signature gets what the source has for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_signs_the_url_that_the_provider_knows() {
    let route = |name: &str, source: &str| {
        let text = format!(
            "route: {name}\nsource: {{ path: /{name}, {source}, event: {{ id: $.id }} }}\n{TELL}\n"
        );
        (format!("routes/{name}.yaml"), text)
    };
    let by = |provider: &str| {
        format!("verify: {{ provider: {provider}, secret: {{ env: LANGUAGE_TEST_SECRET }} }}")
    };
    let own_url = "public_url: \"https://elsewhere.example/calls\"";
    let files = [
        route("calls", &format!("{own_url}, {}", by("twilio"))),
        route("shop", &by("square")),
        route("debits", &by("gocardless")),
        (
            "routes/classic.yaml".to_owned(),
            format!(
                "route: classic\nsource: {{ path: /classic, {} }}\n{TELL}\n",
                by("paddle-classic").replace("env: LANGUAGE_TEST_SECRET", "file: ../key.pem")
            ),
        ),
        ("key.pem".to_owned(), include_str!("../src/simulate/stand_in/rsa.pub.pem").to_owned()),
        ("form.txt".to_owned(), "id=f1&alert_id=c1&x=j%C3%B6n".to_owned()),
        ("p.json".to_owned(), "{\"id\":\"p1\",\"events\":[{\"id\":\"d1\"}]}".to_owned()),
    ];
    let env = [("LANGUAGE_TEST_SECRET", "sesame")];
    let rig = rig("public_url: https://hooks.example.com/base", &borrowed(&files), &env).await;
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
            .current_dir(rig.folder.path())
            .args(args)
            .envs(env)
            .output()
            .expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), out + &String::from_utf8_lossy(&output.stderr))
    };
    let form =
        ["--payload", "form.txt", "--header", "content-type:application/x-www-form-urlencoded"];
    let json = ["--payload", "p.json"];
    for (route, sample, answers, bad) in [
        ("calls", &form[..], "204", "401"),
        ("shop", &json[..], "200", "401"),
        ("debits", &json[..], "200", "498"),
    ] {
        let to = rig.router.url(&format!("/{route}"));
        let send = [&["send", route, "--to", &to][..], sample].concat();
        let (code, said) = run(&send);
        assert!(code == Some(0) && said.contains(answers), "{route}: {said}");
        let (code, said) = run(&[&send[..], &["--bad-signature"]].concat());
        assert!(code == Some(0) && said.contains(bad), "{route}: {said}");
    }
    // Signed with a query that the sample has, with one that the signing adds, and with what no key of ours can make.
    for args in [
        &[&["try", "calls", "--query", "a=1"][..], &form].concat()[..],
        &[&["try", "calls", "--query", "a=1"][..], &json].concat(),
        &[&["try", "classic"][..], &form].concat(),
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
}

/// `event.split`: an element is the payload of its event everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_elements_of_one_post_are_events() {
    let preset = "provider: acme\nverify: { token: { header: X-Token } }\nevent: { id: $.id, type: $.kind, split: \"$[*]\" }\nbody: json\n";
    let by_preset = |name: &str, event: &str| {
        let text = format!(
            "route: {name}\nsource:\n  path: /{name}\n  verify: {{ provider: acme, secret: {{ env: LANGUAGE_TEST_SECRET }} }}\n{event}\n{TELL}\n"
        );
        (format!("routes/{name}.yaml"), text)
    };
    let each = "on: [paid]\nwhen: payload.n > 1\nfields: { n: { from: $.n, type: decimal } }\nsteps:\n  - { name: told, call: { post: \"http://DOWN/each\", json: { n: \"{{ fields.n }}\", whole: \"{{ payload }}\" } }, repeat: ok }\n  - { name: raw, call: { post: \"http://DOWN/raw\", raw: true }, repeat: ok }";
    let files = [
        ("providers/acme.yaml".to_owned(), preset.to_owned()),
        by_preset("taken", ""),
        by_preset("whole", "  event: { split: false, id: { hash: body }, type: { value: all } }"),
        echo(
            "each",
            "  event: { id: $.id, type: $.type, split: \"$.list[?@.type]\", volatile: [ $.try ] }",
            each,
        ),
        echo("derived", "  event: { id: $.id, split: \"$[*]\", volatile: [ $.try ] }", TELL),
        ("batch.json".to_owned(), "{\"list\":[{\"id\":\"t1\",\"type\":\"paid\",\"n\":2},{\"id\":\"t2\",\"type\":\"lost\"},{}]}".to_owned()),
        ("none.json".to_owned(), "{\"id\":\"t1\",\"type\":\"paid\"}".to_owned()),
    ];
    let env = [("LANGUAGE_TEST_SECRET", "sesame")];
    let rig = rig("limits: { split: 2_000 }", &borrowed(&files), &env).await;

    let token = [("x-token", "sesame"), ("content-type", "text/plain")];
    let body = "[ {\"id\":\"p1\",\"kind\":\"a\"}, {\"id\":\"p2\",\"kind\":\"b\"} ]";
    for path in ["/taken", "/whole"] {
        assert_eq!(rig.request(Method::POST, path, &token, body).await.status, 200);
    }
    for (id, kind) in [("p1", "a"), ("p2", "b")] {
        let event = rig.router.event_when(id, "succeeded").await;
        assert_eq!((&event["eventType"], &event["payload"]["kind"]), (&json!(kind), &json!(kind)));
    }
    let whole = rig.list("source=whole").await;
    assert_eq!((whole.len(), &whole[0]["eventType"]), (1, &json!("all")), "{whole:#?}");

    let body = "{\"of\":\"x\",\"list\":[{\"id\":\"e1\",\"type\":\"paid\",\"n\": 1.50},{\"id\":\"e2\",\"type\":\"paid\",\"n\":1},{\"id\":\"e3\",\"type\":\"lost\"},{\"id\":\"e4\"}]}";
    assert_eq!(rig.request(Method::POST, "/each", &[], body).await.status, 200);
    let event = rig.router.event_when("e1", "succeeded").await;
    assert_eq!(
        event["payload"],
        serde_json::from_str::<Json>("{\"id\":\"e1\",\"type\":\"paid\",\"n\":1.50}").expect("JSON")
    );
    rig.router.event_when("e2", "ignored").await;
    rig.router.event_when("e3", "unrouted").await;
    assert!(rig.router.event("e4").await.is_none());
    assert_eq!(
        rig.only("/each").body,
        "{\"n\":\"1.50\",\"whole\":{\"id\":\"e1\",\"type\":\"paid\",\"n\":1.50}}"
    );
    assert_eq!(rig.only("/raw").body, "{\"id\":\"e1\",\"type\":\"paid\",\"n\": 1.50}");

    // What changes on a resend does not count, of an element as of a body. A POST may hold thousands.
    for attempt in [1, 2] {
        let events: Vec<Json> =
            (0..2_000).map(|number| json!({ "n": number / 2, "try": attempt })).collect();
        assert_eq!(rig.post("/derived", &json!(events)).await, 200);
    }
    let metrics = rig.router.metrics().await;
    for line in [
        "router_events_accepted_total{source=\"derived\"} 2000\n",
        "router_events_duplicate_total{source=\"derived\"} 2000\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    let many: Vec<Json> = (0..2_001).map(|number| json!({ "id": number })).collect();
    assert_eq!(rig.post("/derived", &json!(many)).await, 413);

    // A sample is a whole POST.
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
            .current_dir(rig.folder.path())
            .args(args)
            .output()
            .expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), out, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, out, err) = run(&["try", "each", "--payload", "batch.json", "--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let tried: Json = serde_json::from_str(&out).expect("JSON");
    let seen: Vec<_> = tried["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| (&event["eventId"], &event["status"]))
        .collect();
    assert_eq!(seen, [(&json!("t1"), &json!("succeeded")), (&json!("t2"), &json!("unrouted"))]);
    let (code, out, _) = run(&["try", "each", "--payload", "batch.json"]);
    assert!(code == Some(0) && out.contains("event 2 of the POST\nevent   t2"), "{out}");
    let (code, _, err) = run(&["try", "each", "--payload", "none.json"]);
    assert!(code != Some(0) && err.contains("`$.list[?@.type]`"), "{err}");
    let to = rig.router.url("/each");
    let (code, out, err) = run(&["send", "each", "--payload", "batch.json", "--to", &to]);
    assert_eq!(code, Some(0), "{out}{err}");
    rig.router.event_when("t1", "succeeded").await;
}

/// `body`: what the sender's bytes are to the route, in every form that they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_read_as_the_source_says() {
    let tell = "fields: { id: $.id, more: { form: more } }\nsteps:\n  - { name: tell, call: { post: \"http://DOWN/NAME\", json: { id: \"{{ fields.id }}\", more: \"{{ fields.more }}\" } }, repeat: ok }";
    let route = |name: &str, source: &str| echo(name, source, &tell.replace("NAME", name));
    let token = "route: token\nsource:\n  path: /token\n  verify: { token: { form: pass }, secret: { env: LANGUAGE_TEST_SECRET } }\n  event: { id: $.id }\n".to_owned();
    let files = [
        route("json-in", "  event: { id: $.id }\n  body: { json_in: payload }"),
        echo("batch", "  event: { id: $._id, type: $.event, split: \"$[*]\" }\n  body: { json_in: mandrill_events }", "steps: [ { name: tell, call: { post: \"http://DOWN/batch\", raw: true }, repeat: ok } ]"),
        ("routes/token.yaml".to_owned(), format!("{token}{TELL}\n")),
        route("jwt", "  event: { id: $.id }\n  body: jwt"),
        echo("pubsub", "  event: { id: $.message.messageId }\n  body: { base64_in: $.message.data }", "steps: [ { name: tell, call: { post: \"http://DOWN/pubsub\", json: { n: \"{{ payload.message.data.n }}\" } }, repeat: ok } ]"),
        route("xml", "  event: { id: $.id }\n  body: { xml: { id: /n/@id, item: /n/items/item } }"),
        ("in.json".to_owned(), "{\"id\": \"t1\"}\n".to_owned()),
        ("in.multipart".to_owned(), "--b7\r\nContent-Disposition: form-data; name=payload\r\n\r\n{\"id\":\"t2\"}\r\n--b7--\r\n".to_owned()),
    ];
    let env = [("LANGUAGE_TEST_SECRET", "sesame")];
    let rig = rig("", &borrowed(&files), &env).await;

    let urlencoded = [("content-type", "application/x-www-form-urlencoded")];
    let multipart = [("content-type", "multipart/form-data; boundary=\"b7\"")];
    let part = |name: &str, value: &str| {
        format!("--b7\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        rig.request(Method::POST, path, headers, body).await.status
    };

    let body = "payload=%7B%22id%22%3A%22j1%22%7D&more=m";
    assert_eq!(post("/json-in", &urlencoded, body).await, 200);
    let event = rig.router.event_when("j1", "succeeded").await;
    assert_eq!(event["payload"], json!({ "id": "j1" }));
    assert_eq!(rig.only("/json-in").body, "{\"id\":\"j1\",\"more\":\"m\"}");
    // The same document in a form that is written in another way is the same event, not a conflict.
    let body = [part("payload", "{ \"id\": \"j1\" }"), part("more", "m"), "--b7--".to_owned()];
    assert_eq!(post("/json-in", &multipart, &body.concat()).await, 200);
    let event = rig.router.event_when("j1", "succeeded").await;
    assert_eq!((&event["duplicates"], &event["conflicts"]), (&json!(1), &json!(0)));
    assert_eq!(post("/json-in", &urlencoded, "payload=%7B").await, 200);
    let malformed = rig.list("source=json-in&status=malformed").await;
    assert_eq!(malformed.len(), 1, "{malformed:#?}");

    let batch = "[{\"_id\":\"b1\",\"n\": 1.50},{\"_id\":\"b2\"}]";
    let body = [part("mandrill_events", batch), "--b7--\r\n".to_owned()].concat();
    assert_eq!(post("/batch", &multipart, &body).await, 200);
    for (id, body) in [("b1", "{\"_id\":\"b1\",\"n\": 1.50}"), ("b2", "{\"_id\":\"b2\"}")] {
        rig.router.event_when(id, "succeeded").await;
        assert!(rig.downstream.requests().iter().any(|it| it.path == "/batch" && it.body == body));
    }

    let body = |pass: &str| [part("id", "f1"), part("pass", pass), "--b7--".to_owned()].concat();
    assert_eq!(post("/token", &multipart, &body("guess")).await, 401);
    assert_eq!(post("/token", &urlencoded, &body("sesame")).await, 401);
    assert_eq!(post("/token", &multipart, &body("sesame")).await, 200);
    let event = rig.router.event_when("f1", "succeeded").await;
    assert_eq!(event["bodyKind"], json!({ "multipart": { "boundary": "b7" } }));
    assert_eq!(event["payload"]["id"], "f1");

    assert_eq!(post("/jwt", &[], "eyJhbGciOiJFUzI1NiJ9.eyJpZCI6ImMxIn0.c2ln").await, 200);
    let event = rig.router.event_when("c1", "succeeded").await;
    assert_eq!(event["payload"], json!({ "id": "c1" }));

    // Of the second there are attributes alone.
    for (id, data) in [("p1", ",\"data\":\"eyJuIjoxLjUwfQ\""), ("p2", "")] {
        let body = format!("{{\"message\":{{\"messageId\":\"{id}\"{data}}}}}");
        assert_eq!(post("/pubsub", &[], &body).await, 200);
        let event = rig.router.event_when(id, "succeeded").await;
        assert_eq!(event["payload"]["message"]["messageId"], id);
    }
    let sent =
        |body| rig.downstream.requests().iter().any(|it| it.path == "/pubsub" && it.body == body);
    assert!(sent("{\"n\":1.50}") && sent("{\"n\":null}"));

    let body = "<?xml version=\"1.0\"?>\n<a:n xmlns:a=\"u\" id=\"x1\"><a:items><a:item>1</a:item><a:item>2</a:item></a:items></a:n>";
    assert_eq!(post("/xml", &[("content-type", "text/xml")], body).await, 200);
    let event = rig.router.event_when("x1", "succeeded").await;
    assert_eq!(event["payload"], json!({ "id": "x1", "item": ["1", "2"] }));
    assert_eq!(post("/xml", &[], &body.replace("<a:n ", "<!DOCTYPE n><a:n ")).await, 200);
    assert_eq!(rig.list("source=xml&status=malformed").await.len(), 1);

    // A sample is the document alone, or the whole form.
    for (file, id) in [("in.json", "t1"), ("in.multipart", "t2")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_router"))
            .current_dir(rig.folder.path())
            .args(["try", "json-in", "--payload", file, "--json"])
            .output()
            .expect("it starts");
        let tried: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&tried["eventId"], &tried["fields"]["id"]),
            (&json!(id), &json!(id)),
            "{tried:#}"
        );
    }
}

/// Bounds of `router.yaml` as a sender and a downstream meet them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let files = [echo(
        "work",
        "  event: { id: $.id }",
        "steps: [ { name: hang, call: { post: \"http://DOWN/hang\" }, timeout: 30s, retry: { attempts: 1 } } ]",
    )];
    let server = "workers: 1\nlimits: { backlog: 3, body_timeout: 200ms, header_timeout: 300ms }";
    let rig = rig(server, &borrowed(&files), &[]).await;
    rig.downstream.always(Method::POST, "/hang", |_| Reply::Hang);
    for (id, status) in [("w1", 200), ("w2", 200), ("w3", 200), ("w4", 503)] {
        let answer = rig.request(Method::POST, "/work", &[], json!({ "id": id }).to_string()).await;
        assert_eq!(answer.status, status, "{id}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
    // A resend of what is there costs nothing, so it is taken even now.
    assert_eq!(rig.post("/work", &json!({ "id": "w1" })).await, 200);
    rig.router.event_when("w1", "processing").await;
    let calls = rig.router.metrics().await;
    assert!(calls.contains("router_calls_in_flight 1\n"), "{calls}");
    assert!(rig.downstream.requests().len() <= 1, "more calls than workers");

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut slow = tokio::net::TcpStream::connect(rig.router.ingress).await.expect("a connection");
    slow.write_all(b"POST /work HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        .await
        .expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// Challenges of providers are answered, and nothing of them is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_are_answered_and_are_no_events() {
    let route = |name: &str, provider: &str| {
        let text = format!(
            "route: {name}\nsource:\n  path: /{name}\n  verify: {{ provider: {provider}, secret: {{ literal: hush }} }}\n{TELL}\n"
        );
        (format!("routes/{name}.yaml"), text)
    };
    let own = "route: own\nsource:\n  path: /own\n  verify: { token: { header: X-Token }, secret: { literal: hush } }\n  event: { id: $.id }\n  handshake:\n    - when: { method: OPTIONS, header: { WebHook-Request-Origin: true } }\n      verify: false\n      respond: { status: 204, headers: { WebHook-Allowed-Origin: \"{header.WebHook-Request-Origin}\" } }\n    - when: { method: GET }\n";
    let files = [
        route("slack", "slack"),
        route("x", "x-twitter"),
        ("routes/own.yaml".to_owned(), format!("{own}{TELL}\n")),
    ];
    let rig = rig("", &borrowed(&files), &[]).await;

    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aB"}"#;
    let now = jiff::Timestamp::now().as_second().to_string();
    let mac = |text: String| {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"hush").expect("any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes()
    };
    let signature = format!("v0={}", hex::encode(mac(format!("v0:{now}:{body}"))));
    let headers = [("x-slack-signature", &*signature), ("x-slack-request-timestamp", &*now)];
    let answer = rig.request(Method::POST, "/slack", &headers, body).await;
    assert_eq!((answer.status, &*answer.body), (200, "3eZbrw1aB"));
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let answer = rig.request(Method::POST, "/slack", &headers[1..], body).await;
    assert_eq!((answer.status, &*answer.body), (401, ""));

    let answer = rig.request(Method::GET, "/x?crc_token=abc", &[], "").await;
    let token =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mac("abc".into()));
    let expected = json!({ "response_token": format!("sha256={token}") }).to_string();
    assert_eq!((answer.status, answer.body), (200, expected));
    let refused = rig.request(Method::GET, "/x", &[], "").await;
    assert_eq!(
        (refused.status, refused.headers["allow"].to_str().expect("text")),
        (405, "POST, GET")
    );
    // By the same secret X signs its events: what could be one of them is no challenge.
    for forged in ["%7B%7D".to_owned(), "a".repeat(5000)] {
        let path = format!("/x?crc_token={forged}");
        assert_eq!(rig.request(Method::GET, &path, &[], "").await.status, 405, "{forged}");
    }

    let origin = [("webhook-request-origin", "events.example")];
    let answer = rig.request(Method::OPTIONS, "/own", &origin, "").await;
    assert_eq!(
        (answer.status, &answer.headers["webhook-allowed-origin"]),
        (204, &"events.example".parse().expect("a value"))
    );
    assert_eq!(rig.request(Method::OPTIONS, "/own", &[], "").await.status, 405);
    assert_eq!(rig.request(Method::GET, "/own", &[], "").await.status, 401);
    assert_eq!(rig.request(Method::GET, "/own", &[("x-token", "hush")], "").await.status, 200);
    assert_eq!(rig.request(Method::PUT, "/own", &[], "").await.status, 405);

    assert!(rig.list("").await.is_empty());
    let answer = rig.request(Method::POST, "/own", &[("x-token", "hush")], "{\"id\":\"e1\"}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(rig.list("").await.len(), 1);
}

//! The admin listener over a real socket, with a store in memory.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use router::admin::{self, Admin};
use router::arming::Arming;
use router::body::BodyKind;
use router::config::{
    AdminToken, EventRules, IdRule, Limits, Live, MissingId, OnMalformed, References, Resolved,
    Respond, Role, Route, RouteSet, Server, Source, Step, Verification,
};
use router::delivery::outcome::OutcomeClass;
use router::delivery::state::{
    Attempt, AttemptResult, Entry, Reason, Status, StepState, StepStatus, Transition, What,
};
use router::envelope::{Envelope, Identity, OnConflict};
use router::name::Uid;
use router::secret::{SecretRef, SecretValue};
use router::store::captured::CapturedSecret;
use router::store::memory::MemoryStore;
use router::store::{Change, Durability, NewDelivery, NewEvent, Recorded, Store, Term};
use router::telemetry::Metrics;
use router::verify::condition::Conditions;
use router::verify::handshake::Handshake;
use router::verify::scheme::{Scheme, Strength};
use router::verify::text::Selector;
use router::world::World;
use router::world::clock::ManualClock;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const NOW: &str = "2026-11-23T10:00:00Z";

struct Bench {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    trouble: watch::Sender<Option<String>>,
    stop: watch::Sender<bool>,
    live: watch::Sender<Arc<Live>>,
    arming: Arc<Arming>,
    clock: Arc<ManualClock>,
    served: tokio::task::JoinHandle<Result<(), admin::ServeError>>,
}

fn live(routes: Vec<Route>, tokens: &[(&str, Role)]) -> Live {
    let reference = |token: &str| SecretRef::Literal(token.into());
    let mut resolved = Resolved::default();
    for (token, _) in tokens {
        resolved.vault.insert(reference(token), SecretValue::new(*token));
    }
    let tokens = tokens
        .iter()
        .map(|(token, role)| AdminToken {
            name: format!("name of {token}"),
            role: *role,
            token: reference(token),
        })
        .collect();
    let server = Server {
        listen: "127.0.0.1:0".parse().unwrap(),
        public_url: None,
        admin: router::config::Admin { listen: "127.0.0.1:0".parse().unwrap(), tokens },
        store: "data".into(),
        workers: 1,
        limits: Limits {
            connections: 10,
            backlog: 10,
            split: 10_000,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(5),
            min_free_disk_bytes: 0,
        },
        egress_allow: Vec::new(),
        audit_retain: Duration::from_secs(1),
    };
    let routes = routes.into_iter().map(|route| (route.name.clone(), Arc::new(route))).collect();
    let set = RouteSet {
        server,
        sources: BTreeMap::new(),
        routes,
        destinations: BTreeMap::new(),
        references: References::default(),
    };
    Live { set, resolved }
}

fn route(name: &str, steps: Vec<Step>) -> Route {
    Route {
        name: name.into(),
        description: None,
        owner: None,
        docs: None,
        labels: BTreeMap::new(),
        source: "shop".into(),
        on: router::config::EventFilter { all: true, ..Default::default() },
        when: None,
        fields: Vec::new(),
        secrets: BTreeMap::new(),
        env: BTreeMap::new(),
        steps,
        revision: "newest".into(),
        revision_text: "text".into(),
    }
}

impl Bench {
    async fn start(routes: Vec<Route>, tokens: &[(&str, Role)]) -> Self {
        let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
        let world = World { clock: clock.clone(), ..World::real() };
        let store = Arc::new(MemoryStore::new(world.clone()));
        let (live_sender, live) = watch::channel(Arc::new(live(routes, tokens)));
        let (trouble, trouble_receiver) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arming = Arc::new(Arming::new(clock.clone()));
        let admin = Admin {
            world,
            store: store.clone(),
            live,
            metrics: Arc::new(Metrics::new()),
            trouble: trouble_receiver,
            arming: arming.clone(),
        };
        let served = tokio::spawn(admin::serve(listener, admin, stopped));
        Self { address, store, trouble, stop, live: live_sender, arming, clock, served }
    }

    /// Sends one request as it is written and reads the whole answer.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    async fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(&format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")).await
    }

    async fn delete(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!(
            "DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    async fn accept(&self, number: u128, id: &str, source: &str, routes: &[&str]) {
        let event = event(number, id, source, routes);
        self.store.accept(vec![event]).await.unwrap();
    }

    /// The delivery fails: `ship` by a 422, perhaps after `charge` has succeeded.
    async fn fail(&self, charged: bool) {
        let claim = self.store.claim(1).await.unwrap().remove(0);
        let at: Timestamp = NOW.parse().unwrap();
        let mut charge = StepState::new("charge".into());
        charge.status = StepStatus::Succeeded;
        charge.attempts = 1;
        charge.saved.insert("charge_id".into(), json!("ch_1"));
        let mut ship = StepState::new("ship".into());
        ship.status = StepStatus::Failed;
        ship.attempts = 1;
        ship.attempts_since_replay = 1;
        ship.first_attempt_at = Some(at);
        ship.reason = Some("ship answered 422".into());
        let attempt = Attempt {
            number: 1,
            started_at: at,
            duration_ms: 12,
            outcome: OutcomeClass::Answered,
            status: Some(422),
            detail: "no stock".into(),
            result: AttemptResult::Permanent,
            next: None,
        };
        let reason = Reason {
            cause: "status_422".into(),
            subject: Some("ship".into()),
            message: "ship answered 422".into(),
        };
        let change = Change {
            entry: Entry { at, what: What::Attempted { step: "ship".into(), attempt } },
            transition: Transition {
                status: Status::Failed,
                due_at: None,
                reason: Some(reason),
                steps: if charged { vec![charge, ship] } else { vec![ship] },
                revision: None,
            },
            terms: vec![Term { field: "order".into(), value: "a&b 7".into() }],
        };
        let (id, version) = (claim.state.id.clone(), claim.state.version);
        let recorded =
            self.store.record(&id, claim.fence, version, change, Durability::Synced).await;
        assert!(matches!(recorded, Ok(Recorded::Recorded(_))), "{recorded:?}");
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn is_problem(&self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

fn event(number: u128, id: &str, source: &str, routes: &[&str]) -> NewEvent {
    let envelope = Envelope {
        uid: Uid(uuid::Uuid::from_u128(number)),
        event_id: id.into(),
        event_type: "order.paid".into(),
        source: source.into(),
        occurred_at: None,
        received_at: NOW.parse().unwrap(),
        correlation_id: "c-1".into(),
        method: "POST".into(),
        path: Vec::new(),
        query: vec![("a".into(), "b".into())],
        headers: vec![("x-topic".into(), "orders".into())],
        body_kind: BodyKind::Json,
        body: r#"{"total":12.30}"#.into(),
        malformed: None,
    };
    let delivery = |route: &&str| NewDelivery {
        route: (*route).into(),
        revision: "first".into(),
        key_base: "base".into(),
        key_base_with_body: "base-body".into(),
    };
    NewEvent {
        envelope,
        identities: vec![Identity::Id { id: id.into(), body: None }],
        body_digest: [0; 32],
        on_conflict: OnConflict::Review,
        deliveries: routes.iter().map(delivery).collect(),
    }
}

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn health_readiness_and_the_end() {
    let bench = Bench::start(Vec::new(), &[]).await;
    assert_eq!(bench.get("/healthz").await.status, 200);
    assert_eq!(bench.get("/readyz").await.status, 200);
    bench.trouble.send_replace(Some("the workers have ended".into()));
    let answer = bench.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"], json!(["the workers have ended"]));
    bench.stop.send_replace(true);
    bench.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn metrics_are_valid_lines() {
    let bench = Bench::start(Vec::new(), &[]).await;
    bench.accept(1, "evt_1", "shop", &["orders"]).await;
    let answer = bench.get("/metrics").await;
    let line = regex::Regex::new(
        r#"^(# (HELP|TYPE|UNIT) [a-z_]+ .+|# EOF|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.eE]+)$"#,
    )
    .unwrap();
    for text in answer.body.lines() {
        assert!(line.is_match(text), "{text}");
    }
    assert!(answer.body.contains("router_deliveries{status=\"queued\"} 1\n"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn an_event_has_the_agreed_shape() {
    let bench = Bench::start(Vec::new(), &[]).await;
    bench.accept(1, "evt_1", "shop", &["orders"]).await;
    bench.fail(true).await;
    let answer = bench.get("/api/v1/events/evt_1").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    insta::assert_snapshot!(format!("{:#}", answer.json()));
}

#[tokio::test]
async fn ids_are_percent_encoded_and_uids_work() {
    let bench = Bench::start(Vec::new(), &[]).await;
    bench.accept(7, "a/b c?ü", "shop", &[]).await;
    for path in ["a%2Fb%20c%3F%C3%BC", "00000000-0000-0000-0000-000000000007"] {
        let answer = bench.get(&format!("/api/v1/events/{path}")).await;
        assert_eq!(answer.json()["eventId"], "a/b c?ü");
        assert_eq!(answer.json()["processing"]["status"], "unrouted");
    }
    bench.get("/api/v1/events/%FF").await.is_problem(400, "not UTF-8");
    bench.get("/api/v1/events/evt_0").await.is_problem(404, "evt_0");
}

#[tokio::test]
async fn an_ambiguous_id_names_its_matches() {
    let bench = Bench::start(Vec::new(), &[]).await;
    bench.accept(1, "evt_1", "shop", &[]).await;
    bench.accept(2, "evt_1", "bank", &[]).await;
    let answer = bench.get("/api/v1/events/evt_1").await;
    answer.is_problem(409, "2 events");
    assert_eq!(answer.json()["matches"].as_array().unwrap().len(), 2);
    let answer = bench.get("/api/v1/events/evt_1?source=bank").await;
    assert_eq!(answer.json()["source"], "bank");
}

#[tokio::test]
async fn events_are_found_by_field_and_cause_and_causes_are_counted() {
    let bench = Bench::start(Vec::new(), &[]).await;
    for number in 1..=3 {
        bench.accept(number, &format!("evt_{number}"), "shop", &["orders"]).await;
    }
    bench.fail(false).await;
    let found = async |query: &str| {
        let answer = bench.get(&format!("/api/v1/events?{query}")).await;
        let page = answer.json();
        assert!(page["asOf"].is_string(), "{page}");
        let ids = page["events"].as_array().unwrap().iter();
        ids.map(|event| event["eventId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("route=orders&field.order=a%26b+7").await, ["evt_1"]);
    assert_eq!(found("cause=status_422").await, ["evt_1"]);
    assert_eq!(found("eventId=evt_2").await, ["evt_2"]);
    assert_eq!(found("correlationId=c-1").await.len(), 3);
    for nothing in ["route=orders&field.order=7", "route=other&field.order=a%26b+7", "cause=none"] {
        assert!(found(nothing).await.is_empty(), "{nothing}");
    }
    bench.get("/api/v1/events?field.order=7").await.is_problem(400, "name the route");
    bench.get("/api/v1/events?route=orders&field.=7").await.is_problem(400, "field.NAME=VALUE");
    let two = "/api/v1/events?route=orders&field.a=1&field.b=2";
    bench.get(two).await.is_problem(400, "one field");
    let expected = json!([{ "route": "orders", "cause": "status_422", "count": 1 }]);
    assert_eq!(bench.get("/api/v1/causes").await.json(), expected);
    bench.get("/api/v1/causes?x=1").await.is_problem(400, "`x`");
}

#[tokio::test]
async fn pages_follow_each_other() {
    let bench = Bench::start(Vec::new(), &[]).await;
    for number in 1..=5 {
        bench.accept(number, &format!("evt_{number}"), "shop", &[]).await;
    }
    let (mut seen, mut query) = (Vec::new(), String::new());
    loop {
        let page = bench.get(&format!("/api/v1/events?limit=2&order=oldest{query}")).await.json();
        for event in page["events"].as_array().unwrap() {
            seen.push(event["eventId"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        query = format!("&cursor={next}");
    }
    assert_eq!(seen, ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"]);
    bench.get("/api/v1/events?limit=501").await.is_problem(400, "limit");
    bench.get("/api/v1/events?stauts=failed").await.is_problem(400, "stauts");
    bench.get("/api/v1/events?status=lost").await.is_problem(400, "queued");
}

#[tokio::test]
async fn a_replay_needs_something_to_replay() {
    let bench = Bench::start(vec![route("orders", Vec::new())], &[]).await;
    bench.accept(1, "evt_1", "shop", &["orders"]).await;
    let path = "/api/v1/events/evt_1/replay";
    bench.post(path, JSON, "{}").await.is_problem(409, "`orders` is queued");
    bench.fail(true).await;
    // `charge` succeeded, and the newest revision has no such step.
    bench.post(path, JSON, "{}").await.is_problem(409, "was: charge");
    bench.post(path, JSON, r#"{"rout":"x"}"#).await.is_problem(400, "rout");
}

#[tokio::test]
async fn a_failed_delivery_goes_back_to_the_queue() {
    let bench = Bench::start(vec![route("orders", Vec::new())], &[]).await;
    bench.accept(1, "evt_1", "shop", &["orders"]).await;
    bench.fail(false).await;
    let path = "/api/v1/events/evt_1/replay";
    let other = bench.post(path, JSON, r#"{"route":"other"}"#).await;
    other.is_problem(409, "no such route");
    let answer = bench.post(path, JSON, r#"{"route":"orders"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let event = bench.get("/api/v1/events/evt_1").await.json();
    assert_eq!(event["deliveries"][0]["status"], "queued");
    assert_eq!(event["deliveries"][0]["revision"], "newest");
    let text = bench.store.revision_get(&"newest".into()).await.unwrap();
    assert_eq!(text.as_deref(), Some("text"));
    bench.post(path, JSON, "{}").await.is_problem(409, "`orders` is queued");
}

#[tokio::test]
async fn an_unrouted_event_is_routed_anew() {
    let bench = Bench::start(vec![route("orders", Vec::new())], &[]).await;
    bench.accept(1, "evt_1", "shop", &[]).await;
    let answer = bench.post("/api/v1/events/evt_1/replay", JSON, r#"{"note":"late"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let event = bench.get("/api/v1/events/evt_1").await.json();
    assert_eq!(event["deliveries"][0]["status"], "queued");
    assert_eq!(event["deliveries"][0]["revision"], "newest");
    assert_eq!(event["deliveries"][0]["journal"][0]["note"], "late");
    assert_eq!(event["deliveries"][0]["journal"][0]["actor"], "local");
}

#[tokio::test]
async fn tokens_and_roles() {
    let bench = Bench::start(Vec::new(), &[("see", Role::Viewer), ("act", Role::Operator)]).await;
    bench.accept(1, "evt_1", "shop", &[]).await;
    let list = "/api/v1/events";
    assert_eq!(bench.get("/healthz").await.status, 200);
    for headers in [
        "",
        "authorization: Bearer se\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic see\r\n",
    ] {
        let answer = bench.get_with(list, headers).await;
        answer.is_problem(401, "token");
        assert!(answer.head.contains("www-authenticate: bearer"));
        bench.get_with("/metrics", headers).await.is_problem(401, "token");
    }
    assert_eq!(bench.get_with(list, "authorization: Bearer see\r\n").await.status, 200);
    let replay = "/api/v1/events/evt_1/replay";
    let viewer = format!("authorization: bearer see\r\n{JSON}");
    bench.post(replay, &viewer, "{}").await.is_problem(403, "operator");
    let operator = format!("authorization: Bearer act\r\n{JSON}");
    bench.post(replay, &operator, "{}").await.is_problem(409, "no route");
}

#[tokio::test]
async fn only_an_admin_has_the_files_of_the_store() {
    let tokens = [("act", Role::Operator), ("all", Role::Admin)];
    let bench = Bench::start(Vec::new(), &tokens).await;
    let operator = "authorization: Bearer act\r\n";
    let admin = "authorization: Bearer all\r\n";
    for path in ["/api/v1/store/files", "/api/v1/store/files/key"] {
        bench.get(path).await.is_problem(401, "token");
        bench.get_with(path, operator).await.is_problem(403, "admin");
    }
    // This store is in memory.
    bench.get_with("/api/v1/store/files", admin).await.is_problem(503, "keeps no files");
    bench.get_with("/api/v1/store/files/key", admin).await.is_problem(404, "no file");
    let wrong = "/api/v1/store/files/key?offset=first";
    bench.get_with(wrong, admin).await.is_problem(400, "number of bytes");
}

#[tokio::test]
async fn a_browser_is_kept_out() {
    let bench = Bench::start(Vec::new(), &[]).await;
    let foreign = "GET /api/v1/events HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    bench.raw(foreign).await.is_problem(421, "Host");
    let form = "content-type: text/plain\r\n";
    let replay = "/api/v1/events/evt_1/replay";
    bench.post(replay, form, "{}").await.is_problem(415, "application/json");
    bench.post(replay, "", "").await.is_problem(415, "application/json");
    let answer = bench.get("/healthz").await;
    for header in [
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "content-security-policy: default-src 'none'",
    ] {
        assert!(answer.head.contains(header), "{}", answer.head);
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let bench = Bench::start(Vec::new(), &[]).await;
    bench.get("/nowhere").await.is_problem(404, "`/` names");
    let answer = bench.post("/api/v1/events", JSON, "{}").await;
    answer.is_problem(405, "method");
    assert!(answer.head.contains("allow: get,head"), "{}", answer.head);
    bench.accept(1, "evt_1", "shop", &[]).await;
    let large = "x".repeat(65 * 1024);
    bench.post("/api/v1/events/evt_1/replay", JSON, &large).await.is_problem(413, "too large");
}

#[tokio::test]
async fn a_public_address_needs_a_token() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let world = World::real();
    let (_live, live) = watch::channel(Arc::new(live(Vec::new(), &[])));
    let (_trouble, trouble) = watch::channel(None);
    let (_stop, stop) = watch::channel(false);
    let store = Arc::new(MemoryStore::new(world.clone()));
    let arming = Arc::new(Arming::new(world.clock.clone()));
    let admin = Admin { world, store, live, metrics: Arc::new(Metrics::new()), trouble, arming };
    let served = admin::serve(listener, admin, stop).await;
    assert!(matches!(served, Err(admin::ServeError::PublicWithoutToken(_))), "{served:?}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a bound on a wait for real sockets")]
async fn silent_connections_are_bounded_in_number_and_in_time() {
    use router::admin::door::{CONNECTION_LIMIT, CONNECTIONS_MAX};
    let bench = Bench::start(Vec::new(), &[]).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        silent.push(stream);
    }
    // The next one waits outside until the time of those inside is over.
    let waiting = bench.get("/healthz");
    tokio::pin!(waiting);
    let soon = tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await;
    assert!(soon.is_err(), "it was let in");
    bench.clock.advance(CONNECTION_LIMIT);
    let answer = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    assert_eq!(answer.status, 200);
    for mut stream in silent {
        let mut rest = Vec::new();
        // Closed, by an end or by a reset.
        drop(stream.read_to_end(&mut rest).await);
    }
}

const LINES: &str = "content-type: application/x-ndjson\r\n";

#[tokio::test]
async fn a_store_goes_out_and_in_as_lines() {
    let bench = Bench::start(Vec::new(), &[]).await;
    for number in 1..=3 {
        bench.accept(number, &format!("evt_{number}"), "shop", &["orders"]).await;
    }
    bench.fail(true).await;
    let answer = bench.get("/api/v1/store/export").await;
    assert!(answer.head.contains("content-type: application/x-ndjson"), "{}", answer.head);
    assert!(!answer.head.contains("router-next-cursor"), "it is one page");
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 5, "header, three events, end");
    let chosen = bench.get("/api/v1/store/export?status=failed").await;
    assert_eq!(chosen.body.lines().count(), 3);
    bench.get("/api/v1/store/export?cursor=x").await.is_problem(400, "Router-Next-Cursor");
    bench.get("/api/v1/store/export?limit=1").await.is_problem(400, "`limit`");

    let other = Bench::start(Vec::new(), &[]).await;
    let post = async |body: &str| other.post("/api/v1/store/import", LINES, body).await;
    post(&lines[1..].join("\n")).await.is_problem(400, "not the header");
    let wrong = format!("{}\n{}\n{{}}\n{}\n", lines[0], lines[1], lines[2]);
    let answer = post(&wrong).await;
    answer.is_problem(400, "line 3: ");
    let problem = answer.json();
    assert_eq!((&problem["line"], &problem["soFar"]["imported"]), (&json!(3), &json!(1)));
    let answer = post(&lines.join("\n")).await;
    let expected = json!({ "imported": 2, "skipped": { "known": 1 }, "others": 0, "records": 5 });
    assert_eq!((answer.status, answer.json()), (200, expected));
    for number in 1..=3 {
        let path = format!("/api/v1/events/evt_{number}");
        assert_eq!(bench.get(&path).await.json(), other.get(&path).await.json());
    }
    let form = "content-type: text/plain\r\n";
    other.post("/api/v1/store/import", form, "").await.is_problem(415, "application/json");
    // More than others may send.
    let large = format!("{}{}\n", lines.join("\n"), " ".repeat(100_000));
    assert_eq!(post(&large).await.status, 200);
}

#[tokio::test]
async fn only_an_admin_takes_a_store_out_or_in() {
    let tokens = [("view", Role::Viewer), ("operate", Role::Operator), ("admin", Role::Admin)];
    let bench = Bench::start(Vec::new(), &tokens).await;
    for (token, status) in [("view", 403), ("operate", 403), ("admin", 200)] {
        let token = format!("authorization: Bearer {token}\r\n");
        assert_eq!(bench.get_with("/api/v1/store/export", &token).await.status, status);
        let headers = format!("{token}{LINES}");
        assert_eq!(bench.post("/api/v1/store/import", &headers, "").await.status, status);
    }
    assert_eq!(bench.get("/api/v1/store/export").await.status, 401);
}

/// One source takes secrets out of handshakes, the other does not.
fn sources() -> Vec<Source> {
    let at = Selector::Header("x-hook-secret".to_owned());
    let handshake = Handshake {
        when: Conditions { method: None, all: Vec::new() },
        verify: false,
        confirm: None,
        capture: Some(at),
        status: StatusCode::OK,
        headers: Vec::new(),
        body: None,
    };
    let source = |name: &str, handshakes| Source {
        name: name.into(),
        path: format!("/hooks/{name}/{{team}}"),
        methods: vec![Method::POST],
        verify: Verification {
            scheme: Scheme::None { why: "a test".to_owned() },
            strength: Strength::Open,
            provider: Some("asana".to_owned()),
        },
        event: EventRules {
            id: vec![IdRule::HashBody],
            missing_id: MissingId::Derive,
            same_as: Vec::new(),
            volatile: Vec::new(),
            on_conflict: OnConflict::Review,
            split: None,
            type_: None,
            occurred_at: None,
        },
        body: None,
        max_body_bytes: 1024,
        respond: Respond {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            unverified: StatusCode::UNAUTHORIZED,
        },
        handshakes,
        on_malformed: OnMalformed::Review,
        retain: Duration::from_secs(60),
        dedupe: Duration::from_secs(60),
        public_url: None,
    };
    vec![source("orders", Vec::new()), source("tasks", vec![handshake])]
}

impl Bench {
    async fn with_sources(tokens: &[(&str, Role)]) -> Self {
        let bench = Self::start(Vec::new(), tokens).await;
        let mut live = live(Vec::new(), tokens);
        let named = sources().into_iter().map(|source| (source.name.clone(), Arc::new(source)));
        live.set.sources = named.collect();
        bench.live.send_replace(Arc::new(live));
        bench
    }

    async fn capture(&self, number: u128, source: &str) {
        let secret = CapturedSecret {
            id: Uid(uuid::Uuid::from_u128(number)),
            source: source.into(),
            path: vec![("team".into(), "a".into())],
            value: SecretValue::new(format!("s3cret{number}")),
            captured_at: NOW.parse().unwrap(),
            armed_by: "ann".to_owned(),
        };
        self.store.capture(secret).await.unwrap();
    }
}

#[tokio::test]
async fn a_source_is_armed_for_a_while_and_can_be_disarmed() {
    let bench = Bench::with_sources(&[]).await;
    let armed = bench.post("/api/v1/sources/tasks/arm", JSON, r#"{ "for": "90s" }"#).await;
    assert_eq!(armed.status, 200, "{}", armed.body);
    let until = json!("2026-11-23T10:01:30Z");
    let path = "/hooks/tasks/{team}";
    assert_eq!(armed.json(), json!({ "name": "tasks", "path": path, "armedUntil": until }));
    assert_eq!(bench.arming.left(&"tasks".into()), Some(Duration::from_secs(90)));
    bench.clock.advance(Duration::from_secs(30));
    let listed = bench.get("/api/v1/sources").await.json();
    assert_eq!(listed["sources"][1]["armedUntil"], until);
    bench.clock.advance(Duration::from_secs(60));
    let listed = bench.get("/api/v1/sources").await.json();
    assert_eq!(listed["sources"][1]["armedUntil"], Json::Null);

    let armed = bench.post("/api/v1/sources/tasks/arm", JSON, "").await.json();
    assert_eq!(armed["armedUntil"], "2026-11-23T10:11:30Z", "ten minutes unless told otherwise");
    for was_armed in [true, false] {
        let disarmed = bench.post("/api/v1/sources/tasks/disarm", JSON, "{}").await.json();
        assert_eq!(disarmed, json!({ "name": "tasks", "wasArmed": was_armed }));
    }

    let arm = async |name: &str, body: &str| {
        bench.post(&format!("/api/v1/sources/{name}/arm"), JSON, body).await
    };
    arm("orders", "").await.is_problem(409, "none of its handshakes has `capture_secret`");
    arm("none", "").await.is_problem(404, "no source `none`");
    for time in ["25h", "0s", "soon", "-1m"] {
        let body = json!({ "for": time }).to_string();
        arm("tasks", &body).await.is_problem(400, "`for` is");
    }
    arm("tasks", r#"{ "until": "10m" }"#).await.is_problem(400, "the body must be");
    assert_eq!(bench.arming.left(&"tasks".into()), None);
    bench.post("/api/v1/sources/none/disarm", JSON, "{}").await.is_problem(404, "no source");
}

#[tokio::test]
async fn captured_secrets_are_listed_without_their_values_and_dropped() {
    let bench = Bench::with_sources(&[]).await;
    bench.capture(1, "tasks").await;
    bench.capture(2, "gone").await;
    let listed = bench.get("/api/v1/sources").await;
    assert!(!listed.body.contains("s3cret"), "{}", listed.body);
    let secret = |number: u8, fingerprint: &str| {
        json!({
            "id": format!("00000000-0000-0000-0000-00000000000{number}"), "armedBy": "ann",
            "path": [{ "name": "team", "value": "a" }], "capturedAt": NOW,
            "fingerprint": fingerprint,
        })
    };
    let of_config = |name: &str, captures: bool, secrets: Vec<Json>| {
        json!({
            "name": name, "path": format!("/hooks/{name}/{{team}}"), "provider": "asana",
            "captures": captures, "armedUntil": null, "secrets": secrets,
        })
    };
    // The first 8 digits of what `printf s3cret1 | sha256sum` says.
    let expected = json!({ "sources": [
        of_config("orders", false, Vec::new()),
        of_config("tasks", true, vec![secret(1, "02f7835f")]),
        { "name": "gone", "path": null, "provider": null, "captures": false, "armedUntil": null,
          "secrets": [secret(2, "3aa61053")] },
    ] });
    assert_eq!(listed.json(), expected);

    let drop_at = async |source: &str, id: &str| {
        bench.delete(&format!("/api/v1/sources/{source}/secrets/{id}"), JSON).await
    };
    let id = "00000000-0000-0000-0000-000000000001";
    drop_at("orders", id).await.is_problem(404, "no captured secret");
    drop_at("tasks", "1").await.is_problem(404, "no captured secret `1`");
    bench
        .delete(&format!("/api/v1/sources/tasks/secrets/{id}"), "")
        .await
        .is_problem(415, "application/json");
    let dropped = drop_at("tasks", id).await;
    assert_eq!((dropped.status, &*dropped.body), (204, ""));
    drop_at("tasks", id).await.is_problem(404, "no captured secret");
    // Of a source that the configuration does not have any more, too.
    assert_eq!(drop_at("gone", "00000000-0000-0000-0000-000000000002").await.status, 204);
    assert!(bench.store.secrets().await.unwrap().is_empty());
    bench.get("/api/v1/sources?name=tasks").await.is_problem(400, "takes none");
}

#[tokio::test]
async fn a_viewer_sees_sources_and_changes_nothing() {
    let bench = Bench::with_sources(&[("look", Role::Viewer), ("act", Role::Operator)]).await;
    bench.capture(1, "tasks").await;
    bench.get("/api/v1/sources").await.is_problem(401, "token");
    let viewer = "authorization: Bearer look\r\n";
    assert_eq!(bench.get_with("/api/v1/sources", viewer).await.status, 200);
    let headers = format!("{JSON}{viewer}");
    let secret = "/api/v1/sources/tasks/secrets/00000000-0000-0000-0000-000000000001";
    for path in ["/api/v1/sources/tasks/arm", "/api/v1/sources/tasks/disarm"] {
        bench.post(path, &headers, "").await.is_problem(403, "operator");
    }
    bench.delete(secret, &headers).await.is_problem(403, "operator");
    let headers = format!("{JSON}authorization: Bearer act\r\n");
    assert_eq!(bench.post("/api/v1/sources/tasks/arm", &headers, "").await.status, 200);
    let taken = bench.arming.take(&"tasks".into(), &[]).unwrap();
    assert_eq!(taken.by(), "name of act");
    assert_eq!(bench.delete(secret, &headers).await.status, 204);
}

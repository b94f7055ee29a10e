//! The ingress from outside: real sockets, bytes in, bytes out, a store in memory behind it.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::SignedDuration;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use futures_util::future::BoxFuture;
use router::arming::Arming;
use router::call::keys::KeyFetcher;
use router::config::{
    Admin, EventFilter, EventRules, IdRule, Limits, Live, MissingId, OnMalformed, References,
    Resolved, Respond, Route, RouteSet, Server, Source, Verification,
};
use router::envelope::OnConflict;
use router::extract::jsonpath::JsonPath;
use router::extract::{Extraction, From};
use router::ingress::{Ingress, serve};
use router::name::{RevisionHash, RouteName, SourceName};
use router::secret::{SecretRef, SecretValue, Vault};
use router::store::captured::CAPTURED_MAX;
use router::store::memory::MemoryStore;
use router::store::{Budget, EventView, Query, Store};
use router::telemetry::{Backlog, Metrics};
use router::verify::Keys;
use router::verify::condition::{Condition, Conditions, Expected};
use router::verify::draft::Unsigned;
use router::verify::handshake::Handshake;
use router::verify::scheme::{
    Algorithm, Hash, KeyForm, Scheme, Signature, SignatureEncoding, SignatureSyntax, Signing,
    Strength,
};
use router::verify::sign::sign;
use router::verify::text::{Part, Selector};
use router::world::World;
use router::world::clock::timeout;
use router::world::transport::{NotSentKind, Sent, Transport, WireRequest};

/// Longer than anything here takes on a loaded machine; reaching it is a failure, never a way to wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the tests that wait for a limit set it to.
const SHORT: Duration = Duration::from_millis(200);
const MAX_BODY: usize = 1024;

fn secret(text: &str) -> SecretRef {
    SecretRef::Literal(text.into())
}

/// Stripe's scheme; `old` and `new` both verify.
fn scheme() -> Scheme {
    Scheme::Signing(Signing {
        algorithm: Algorithm::Hmac(Hash::Sha256),
        secrets: vec![secret("old"), secret("new")].into(),
        form: KeyForm::default(),
        certificate: None,
        signed: vec![Part::Timestamp, Part::Literal(".".to_owned()), Part::Body],
        signature: Signature {
            at: Selector::Header("X-Signature".to_owned()),
            groups: None,
            encoding: SignatureEncoding::Hex,
            syntax: SignatureSyntax::Pairs {
                separator: ',',
                assign: '=',
                signature_key: "v1".to_owned(),
                timestamp_key: Some("t".to_owned()),
            },
        },
        timestamp: None,
        id: None,
        tolerance: Some(Duration::from_secs(300)),
    })
}

fn source(name: &str, path: &str) -> Source {
    Source {
        name: SourceName::from(name),
        path: path.to_owned(),
        methods: vec![Method::POST],
        verify: Verification { scheme: scheme(), strength: Strength::Signed, provider: None },
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
        max_body_bytes: MAX_BODY,
        respond: Respond {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            unverified: StatusCode::UNAUTHORIZED,
        },
        handshakes: Vec::new(),
        on_malformed: OnMalformed::Review,
        retain: Duration::from_secs(60),
        dedupe: Duration::from_secs(3600),
        public_url: None,
    }
}

fn route(name: &str, source: &str) -> Route {
    Route {
        name: RouteName::from(name),
        description: None,
        owner: None,
        docs: None,
        labels: BTreeMap::new(),
        source: SourceName::from(source),
        on: EventFilter { all: true, ..EventFilter::default() },
        when: None,
        fields: Vec::new(),
        secrets: BTreeMap::new(),
        env: BTreeMap::new(),
        steps: Vec::new(),
        revision: RevisionHash::from("r1"),
        revision_text: "".into(),
    }
}

fn live(sources: Vec<Source>, limits: Limits) -> Arc<Live> {
    let mut vault = Vault::default();
    for text in ["old", "new", "other"] {
        vault.insert(secret(text), SecretValue::new(text));
    }
    let set = RouteSet {
        references: References::default(),
        server: Server {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            admin: Admin { listen: "127.0.0.1:0".parse().unwrap(), tokens: Vec::new() },
            store: "data".into(),
            workers: 1,
            limits,
            egress_allow: Vec::new(),
            audit_retain: Duration::from_secs(60),
        },
        sources: sources
            .into_iter()
            .map(|source| (source.name.clone(), Arc::new(source)))
            .collect(),
        routes: [(RouteName::from("ship"), Arc::new(route("ship", "store")))].into(),
        destinations: BTreeMap::new(),
    };
    Arc::new(Live { set, resolved: Resolved { vault, ..Resolved::default() } })
}

fn limits() -> Limits {
    Limits {
        connections: 256,
        backlog: 1_000_000,
        split: 10_000,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        min_free_disk_bytes: 0,
    }
}

struct Running {
    world: World,
    address: SocketAddr,
    store: Arc<MemoryStore>,
    live: watch::Sender<Arc<Live>>,
    stop: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    arming: Arc<Arming>,
    ended: tokio::task::JoinHandle<()>,
}

/// A network on which nobody answers.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: WireRequest, _: Duration) -> BoxFuture<'_, Sent> {
        Box::pin(async {
            Sent::NotSent { why: "nobody is there".to_owned(), kind: NotSentKind::Connect }
        })
    }
}

impl Running {
    async fn start(sources: Vec<Source>, limits: Limits) -> Self {
        Self::start_on(sources, limits, u64::MAX).await
    }

    async fn start_on(sources: Vec<Source>, limits: Limits, backlog: u64) -> Self {
        let world = World::real();
        let store = Arc::new(MemoryStore::with_backlog(world.clone(), backlog));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (live, live_seen) = watch::channel(live(sources, limits));
        let (stop, stop_seen) = watch::channel(false);
        let metrics = Arc::new(Metrics::new());
        let arming = Arc::new(Arming::new(world.clock.clone()));
        let deps = Ingress {
            world: world.clone(),
            store: store.clone(),
            live: live_seen,
            metrics: metrics.clone(),
            arming: arming.clone(),
            keys: KeyFetcher::new(Arc::new(Nowhere), &world, metrics.clone()),
        };
        let ended = tokio::spawn(serve(listener, deps, stop_seen));
        Self { world, address, store, live, stop, metrics, arming, ended }
    }

    /// One source `store` at `/hooks/store`, patient limits.
    async fn plain() -> Self {
        Self::start(vec![source("store", "/hooks/store")], limits()).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn within<F: Future>(&self, future: F) -> F::Output {
        timeout(&*self.world.clock, PATIENCE, future)
            .await
            .expect("it took longer than anything here")
    }

    /// Sends `bytes` and reads until the router closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        self.within(async {
            let mut stream = self.connect().await;
            stream.write_all(bytes).await.unwrap();
            read_all(&mut stream).await
        })
        .await
    }

    async fn status(&self, bytes: &[u8]) -> u16 {
        status(&self.exchange(bytes).await)
    }

    async fn events(&self) -> u64 {
        self.store.summary().await.events
    }

    /// All events, in the order of acceptance.
    async fn all(&self) -> Vec<EventView> {
        let budget = Budget { rows_max: 100, examined_max: 1000 };
        let page = self.store.list(Query::default(), None, budget).await.unwrap();
        let mut events = Vec::new();
        for row in page.events {
            events.push(self.store.event(row.uid).await.unwrap().unwrap());
        }
        // The list has the newest first.
        events.reverse();
        events
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.encode(Backlog::default()).lines().any(|have| have == line)
    }

    /// The one event of the store.
    async fn event(&self) -> EventView {
        let budget = Budget { rows_max: 10, examined_max: 100 };
        let page = self.store.list(Query::default(), None, budget).await.unwrap();
        assert_eq!(page.events.len(), 1);
        self.store.event(page.events[0].uid).await.unwrap().unwrap()
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is the answer's end as well.
    let _read = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    status.parse().unwrap()
}

/// The signature header for `body`, by secret number `which` of `scheme`, `age` seconds ago.
fn signature_by(scheme: &Scheme, body: &[u8], which: usize, age: i64) -> String {
    let mut vault = Vault::default();
    for text in ["old", "new", "other"] {
        vault.insert(secret(text), SecretValue::new(text));
    }
    let unsigned = Unsigned {
        method: Method::POST,
        url: "http://localhost/".parse().unwrap(),
        path: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
        id: String::new(),
        body_rule: None,
    };
    let at = World::real().clock.now() - SignedDuration::from_secs(age);
    let proof = sign(scheme, Keys::of(&vault), &unsigned, at, which).unwrap();
    let [(name, value)] = proof.headers.as_slice() else { panic!("one header") };
    format!("{name}: {value}\r\n")
}

fn signature(body: &[u8]) -> String {
    signature_by(&scheme(), body, 0, 0)
}

/// A POST of `body` with these header lines, which closes its connection.
fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn signed_post(path: &str, body: &[u8]) -> Vec<u8> {
    post(path, &format!("content-type: application/json\r\n{}", signature(body)), body)
}

const BODY: &[u8] = br#"{"id":"evt_1"}"#;

#[tokio::test]
async fn accepted_then_duplicate() {
    let router = Running::plain().await;
    let request = signed_post("/hooks/store?a=b%20c", BODY);
    let answer = router.exchange(&request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(router.status(&request).await, 200);
    let event = router.event().await;
    assert_eq!((event.duplicates, event.conflict_count), (1, 0));
    assert_eq!(event.envelope.body, BODY);
    assert_eq!(event.envelope.query, [("a".to_owned(), "b c".to_owned())]);
    assert_eq!(event.envelope.malformed, None);
    assert_eq!(event.deliveries.len(), 1);
}

#[tokio::test]
async fn whoever_does_not_prove_itself_gets_401_and_leaves_nothing() {
    let router = Running::plain().await;
    let stranger = match scheme() {
        Scheme::Signing(hmac) => {
            Scheme::Signing(Signing { secrets: vec![secret("other")].into(), ..hmac })
        }
        other => panic!("an HMAC, not {other:?}"),
    };
    let by = |which, age| signature_by(&scheme(), BODY, which, age);
    for (case, headers) in [
        ("tampered", signature(br#"{"id":"evt_2"}"#)),
        ("wrong secret", signature_by(&stranger, BODY, 0, 0)),
        ("stale", by(0, 400)),
        ("from the future", by(0, -400)),
        ("missing", String::new()),
        ("malformed", "x-signature: hello\r\n".to_owned()),
        ("doubled", format!("{}{}", by(0, 0), by(0, 0))),
        ("not UTF-8", "x-signature: \u{fc}\r\n".to_owned()),
    ] {
        let answer = router.exchange(&post("/hooks/store", &headers, BODY)).await;
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{case}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{case}: {answer}");
    }
    assert_eq!(router.events().await, 0);
    for which in 0..2 {
        assert_eq!(router.status(&post("/hooks/store", &by(which, 0), BODY)).await, 200);
    }
    assert_eq!(router.events().await, 1);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let router = Running::plain().await;
    for path in ["/", "/hooks", "/hooks/store/", "/hooks/store/x", "/hooks/Store", "//", "*"] {
        assert_eq!(router.status(&signed_post(path, BODY)).await, 404, "{path}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW"] {
        let request =
            format!("{method} /hooks/store HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = router.exchange(request.as_bytes()).await;
        assert_eq!(status(&answer), 405, "{method}");
        assert!(answer.to_lowercase().contains("\r\nallow: post\r\n"), "{answer}");
    }
    assert_eq!(router.events().await, 0);
}

#[tokio::test]
async fn too_large_a_body_is_refused_by_its_announcement_and_by_its_size() {
    let router = Running::plain().await;
    let exact = [b"\"", vec![b'a'; MAX_BODY - 2].as_slice(), b"\""].concat();
    assert_eq!(router.status(&signed_post("/hooks/store", &exact)).await, 200);
    // Nothing but the announcement is sent, so nothing but it can be what is answered.
    let announced = "POST /hooks/store HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n";
    let answer = router.exchange(announced.as_bytes()).await;
    assert_eq!(status(&answer), 413);
    // The body has no end: the answer comes as soon as the limit is passed.
    let endless = format!(
        "POST /hooks/store HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n401\r\n{}\r\n",
        "a".repeat(0x401)
    );
    assert_eq!(router.status(endless.as_bytes()).await, 413);
    assert_eq!(router.events().await, 1);
}

#[tokio::test]
async fn a_chunked_body_is_taken() {
    let router = Running::plain().await;
    let request = format!(
        "POST /hooks/store HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n{}\r\n5\r\n{{\"id\"\r\n9\r\n:\"evt_1\"}}\r\n0\r\n\r\n",
        signature(BODY)
    );
    assert_eq!(router.status(request.as_bytes()).await, 200);
    assert_eq!(router.event().await.envelope.body, BODY);
}

#[tokio::test]
async fn two_body_lengths_are_refused_in_either_order() {
    let router = Running::plain().await;
    let signature = signature(BODY);
    for lengths in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nContent-Length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
    ] {
        let request = format!(
            "POST /hooks/store HTTP/1.1\r\nhost: a\r\n{signature}{lengths}\r\ne\r\n{}\r\n0\r\n\r\n",
            String::from_utf8_lossy(BODY)
        );
        assert_eq!(router.status(request.as_bytes()).await, 400, "{lengths}");
        let after_an_empty_line = format!("\r\n{request}");
        assert_eq!(router.status(after_an_empty_line.as_bytes()).await, 400, "{lengths}");
    }
    assert_eq!(router.events().await, 0);
}

#[tokio::test]
async fn a_body_that_dawdles_or_drips_is_answered_408() {
    let limits = Limits { body_timeout: SHORT, ..limits() };
    let router = Running::start(vec![source("store", "/hooks/store")], limits).await;
    let head = "POST /hooks/store HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";
    assert_eq!(router.status(head.as_bytes()).await, 408);

    let answer = router
        .within(async {
            let (mut read, mut write) = router.connect().await.into_split();
            write.write_all(head.as_bytes()).await.unwrap();
            let drip = async {
                // Ends when the router closes.
                while write.write_all(b"a").await.is_ok() {
                    // Not a wait for something: the pace is what makes this a sender that drips.
                    router.world.clock.sleep(SHORT / 20).await;
                }
                std::future::pending().await
            };
            let mut first = [0; 12];
            tokio::select! {
                biased;
                read = read.read_exact(&mut first) => { read.unwrap(); }
                () = drip => {}
            }
            String::from_utf8_lossy(&first).into_owned()
        })
        .await;
    assert_eq!(answer, "HTTP/1.1 408");
}

#[tokio::test]
async fn connections_that_say_nothing_or_never_finish_a_head_are_closed() {
    let limits = Limits { header_timeout: SHORT, ..limits() };
    let router = Running::start(vec![source("store", "/hooks/store")], limits).await;
    assert_eq!(router.exchange(b"").await, "");
    router.exchange(b"POST /hooks/st").await;
    router.exchange(b"POST /hooks/store HTTP/1.1\r\nhost: a\r\nx-a: ").await;
    // An idle connection after an answer ends too.
    let keep = String::from_utf8(signed_post("/hooks/store", BODY)).unwrap();
    let keep = keep.replace("connection: close\r\n", "");
    assert_eq!(router.status(keep.as_bytes()).await, 200);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let router = Running::plain().await;
    let keep = String::from_utf8(signed_post("/hooks/store", BODY)).unwrap();
    let keep = keep.replace("connection: close\r\n", "");
    let close = String::from_utf8(signed_post("/hooks/store", BODY)).unwrap();
    let answer = router.exchange(format!("{keep}{keep}{close}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn over_the_limit_of_connections_503_and_room_again_afterwards() {
    let limits = Limits { connections: 2, ..limits() };
    let router = Running::start(vec![source("store", "/hooks/store")], limits).await;
    let keep = String::from_utf8(signed_post("/hooks/store", BODY)).unwrap();
    let keep = keep.replace("connection: close\r\n", "");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = router.connect().await;
        stream.write_all(keep.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        router.within(stream.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let answer = router.exchange(b"").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    held.clear();
    let served = async {
        while router.status(&signed_post("/hooks/store", BODY)).await != 200 {
            tokio::task::yield_now().await;
        }
    };
    router.within(served).await;
}

#[tokio::test]
async fn a_store_that_refuses_is_503_with_retry_after() {
    let router = Running::start_on(vec![source("store", "/hooks/store")], limits(), 0).await;
    let answer = router.exchange(&signed_post("/hooks/store", BODY)).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    assert_eq!(router.events().await, 0);
}

#[tokio::test]
async fn malformed_but_authentic_is_kept_or_refused_as_the_source_says() {
    let reject = Source { on_malformed: OnMalformed::Reject, ..source("strict", "/strict") };
    let router = Running::start(vec![source("store", "/hooks/store"), reject], limits()).await;
    let bad = br#"{"id":"#;
    assert_eq!(router.status(&signed_post("/strict", bad)).await, 400);
    assert_eq!(router.events().await, 0);
    assert_eq!(router.status(&signed_post("/hooks/store", bad)).await, 200);
    let event = router.event().await;
    assert!(event.envelope.malformed.as_deref().is_some_and(|why| why.contains("JSON")));
    assert_eq!(event.envelope.body, &bad[..]);
    assert!(event.deliveries.is_empty());
    // Deeper than any honest payload.
    let deep = [vec![b'['; 500], vec![b']'; 500]].concat();
    assert_eq!(router.status(&signed_post("/hooks/store", &deep)).await, 200);
    assert_eq!(router.events().await, 2);
}

#[tokio::test]
async fn parts_of_the_path_are_decoded_and_tell_events_apart() {
    let router = Running::start(vec![source("store", "/hooks/{shop}/x")], limits()).await;
    assert_eq!(router.status(&signed_post("/hooks/a%2Fb%20%C3%BC/x", BODY)).await, 200);
    let path = router.event().await.envelope.path.clone();
    assert_eq!(path, [("shop".to_owned(), "a/b ü".to_owned())]);
    assert_eq!(router.status(&signed_post("/hooks/%FF/x", BODY)).await, 404);
    assert_eq!(router.status(&signed_post("/hooks//x", BODY)).await, 404);
    assert_eq!(router.status(&signed_post("/hooks/other/x", BODY)).await, 200);
    assert_eq!(router.events().await, 2);
}

#[tokio::test]
async fn the_answer_is_the_sources_own() {
    let mut respond = source("store", "/hooks/store").respond;
    respond.status = StatusCode::ACCEPTED;
    respond.headers.insert("x-taken", HeaderValue::from_static("yes"));
    respond.body = Bytes::from_static(b"[accepted]");
    let source = Source { respond, ..source("store", "/hooks/store") };
    let router = Running::start(vec![source], limits()).await;
    for _ in 0..2 {
        let answer = router.exchange(&signed_post("/hooks/store", BODY)).await;
        assert_eq!(status(&answer), 202);
        assert!(answer.contains("\r\nx-taken: yes\r\n") && answer.ends_with("[accepted]"));
    }
}

#[tokio::test]
async fn an_id_from_a_header_with_another_body_is_a_conflict() {
    let mut source = source("store", "/hooks/store");
    source.event.id = vec![IdRule::Extract(Extraction::plain(From::Header("X-Id".to_owned())))];
    source.event.missing_id = MissingId::Reject;
    let router = Running::start(vec![source], limits()).await;
    let send = |headers: &str, body: &[u8]| {
        post("/hooks/store", &format!("{headers}{}", signature(body)), body)
    };
    assert_eq!(router.status(&send("", BODY)).await, 400);
    assert_eq!(router.events().await, 0);
    assert_eq!(router.status(&send("x-id: 1\r\n", BODY)).await, 200);
    assert_eq!(router.status(&send("x-id: 1\r\n", br#"{ "id" : "evt_1" }"#)).await, 200);
    assert_eq!(router.status(&send("x-id: 1\r\n", br#"{"id":"evt_2"}"#)).await, 200);
    let event = router.event().await;
    assert_eq!(event.envelope.event_id.as_str(), "1");
    assert_eq!((event.duplicates, event.conflict_count), (1, 1));
}

#[tokio::test]
async fn credentials_and_correlation() {
    let router = Running::plain().await;
    let headers = format!(
        "authorization: Bearer s3cret\r\ncookie: a=s3cret\r\nx-correlation-id: order-7\r\n{}",
        signature(BODY)
    );
    assert_eq!(router.status(&post("/hooks/store", &headers, BODY)).await, 200);
    let envelope = router.event().await.envelope;
    assert_eq!(envelope.correlation_id.as_str(), "order-7");
    assert!(!format!("{envelope:?}").contains("s3cret"));
    let value = |name: &str| {
        envelope.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(value("authorization"), Some("[redacted]"));
    assert_eq!(value("cookie"), Some("[redacted]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_clients_with_one_event_one_is_stored() {
    let router = Running::plain().await;
    let request = signed_post("/hooks/store", BODY);
    let answers = (0..64).map(|_| router.status(&request));
    let answers = join_all(answers).await;
    assert_eq!(answers, [200; 64]);
    assert_eq!(router.event().await.duplicates, 63);
}

#[tokio::test]
async fn a_new_configuration_counts_from_the_next_request() {
    let router = Running::plain().await;
    assert_eq!(router.status(&signed_post("/hooks/store", BODY)).await, 200);
    router.live.send_replace(live(vec![source("store", "/hooks/moved")], limits()));
    assert_eq!(router.status(&signed_post("/hooks/store", BODY)).await, 404);
    assert_eq!(router.status(&signed_post("/hooks/moved", BODY)).await, 200);
    assert_eq!(router.event().await.duplicates, 1);
}

#[tokio::test]
async fn a_stop_lets_what_is_in_flight_finish() {
    let router = Running::plain().await;
    let mut stream = router.connect().await;
    let request = signed_post("/hooks/store", BODY);
    let request = String::from_utf8(request)
        .unwrap()
        .replace("connection: close\r\n", "expect: 100-continue\r\n");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    // The router asks for the body: the request is in flight.
    let mut asked = [0; 25];
    router.within(stream.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    router.stop.send_replace(true);
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = router.within(read_all(&mut stream)).await;
    assert_eq!(status(&answer), 200);
    let Running { world, address, ended, store, .. } = router;
    timeout(&*world.clock, PATIENCE, ended).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(store.summary().await.events, 1);
}

#[test]
fn no_bytes_make_it_fall_or_hang() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limits = Limits { header_timeout: SHORT, body_timeout: SHORT, ..limits() };
    let router = runtime.block_on(Running::start(vec![source("store", "/hooks/{shop}")], limits));
    let piece = prop_oneof![
        Just(b"POST /hooks/a HTTP/1.1\r\n".to_vec()),
        Just(b"host: a\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"content-length: 3\r\n".to_vec()),
        Just(b"transfer-encoding: chunked\r\n".to_vec()),
        Just(b"x-signature: t=1,v1=00\r\n".to_vec()),
        Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let bytes = proptest::collection::vec(piece, 0..10);
    proptest!(ProptestConfig::with_cases(48), |(bytes in bytes)| {
        let bytes = bytes.concat();
        let answer = runtime.block_on(async {
            router
                .within(async {
                    let mut stream = router.connect().await;
                    // The router may have closed already: what it says then is read below.
                    let _written = stream.write_all(&bytes).await;
                    read_all(&mut stream).await
                })
                .await
        });
        prop_assert!(!answer.contains("HTTP/1.1 5"), "{answer}");
        prop_assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    });
    let answer = runtime.block_on(router.exchange(&signed_post("/hooks/a", BODY)));
    assert_eq!(status(&answer), 200);
}

/// A source whose events are the hits of `$.events[*]`, with the id `$.id` where there is one.
fn splitting() -> Source {
    let path = |text: &str| JsonPath::parse(text).unwrap().0;
    let mut source = source("store", "/hooks/store");
    source.event.id = vec![IdRule::Extract(Extraction::plain(From::Path(path("$.id"))))];
    source.event.split = Some(path("$.events[*]"));
    source.body = Some(router::body::BodyRule::Json);
    source
}

/// The bodies of events with how often they came again.
fn bodies(events: &[EventView]) -> Vec<(&str, u64)> {
    let body = |event| std::str::from_utf8(event).unwrap();
    events.iter().map(|event| (body(&event.envelope.body), event.duplicates)).collect()
}

#[tokio::test]
async fn the_elements_of_a_post_are_events_of_their_own() {
    let router = Running::start(vec![splitting()], limits()).await;
    let post = |body: &str| signed_post("/hooks/store", body.as_bytes());
    let three = r#"{"of":"shop","events":[{"id":"a", "n":1.50},{"id":"b"} , {"id":"c","n":[ ]}]}"#;
    assert_eq!(router.status(&post(three)).await, 200);
    let events = router.all().await;
    let elements = [r#"{"id":"a", "n":1.50}"#, r#"{"id":"b"}"#, r#"{"id":"c","n":[ ]}"#];
    assert_eq!(bodies(&events), elements.map(|body| (body, 0)));
    let ids: Vec<&str> = events.iter().map(|event| event.envelope.event_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(events.iter().all(|event| event.deliveries.len() == 1));
    // They came together, and that can be seen.
    assert!(
        events.iter().all(|it| it.envelope.correlation_id == events[0].envelope.correlation_id)
    );

    assert_eq!(router.status(&post(three)).await, 200);
    assert_eq!(bodies(&router.all().await), elements.map(|body| (body, 1)));
    // Some are known, some are new, and an element is the same in whatever company it comes.
    assert_eq!(
        router.status(&post(r#"{"events":[{"id":"d"},{ "id": "b" },{"id":"d"}]}"#)).await,
        200
    );
    assert_eq!(
        bodies(&router.all().await),
        [(elements[0], 1), (elements[1], 2), (elements[2], 1), (r#"{"id":"d"}"#, 1)]
    );
    // The same id with another content is a conflict of that one event alone.
    assert_eq!(router.status(&post(r#"{"events":[{"id":"e"},{"id":"a","n":2}]}"#)).await, 200);
    let events = router.all().await;
    assert_eq!((events.len(), events[0].conflict_count), (5, 1));
    assert!(router.counted(r#"router_events_accepted_total{source="store"} 5"#));
    assert!(router.counted(r#"router_events_duplicate_total{source="store"} 5"#));
    assert!(router.counted(r#"router_events_conflict_total{source="store"} 1"#));
}

/// What is JSON inside of something else is taken apart where it stands, or as it was put together.
#[tokio::test]
async fn elements_in_a_token_a_form_or_base64_are_events() {
    use router::body::{BodyRule, Document};
    let check = async |body: BodyRule, path: &str, post: &str, expected: &[&str]| {
        let mut source = splitting();
        source.event.split = Some(JsonPath::parse(path).unwrap().0);
        source.body = Some(body.clone());
        let router = Running::start(vec![source], limits()).await;
        let request = signed_post("/hooks/store", post.as_bytes());
        assert_eq!(router.status(&request).await, 200);
        assert_eq!(router.status(&request).await, 200);
        let events = router.all().await;
        let expected: Vec<(&str, u64)> = expected.iter().map(|body| (*body, 1)).collect();
        assert_eq!(bodies(&events), expected, "{body:?}");
        assert!(events.iter().all(|it| it.envelope.malformed.is_none()));
    };
    // {"events":[{"id": "a"},{"id":"b"}]}
    let token = "e30.eyJldmVudHMiOlt7ImlkIjogImEifSx7ImlkIjoiYiJ9XX0.c2ln";
    let apart = [r#"{"id": "a"}"#, r#"{"id":"b"}"#];
    check(BodyRule::Jwt, "$.events[*]", token, &apart).await;
    let json_in = BodyRule::JsonIn { field: "p".to_owned() };
    let form =
        "x=1&p=%7B%22events%22%3A%5B%7B%22id%22%3A%20%22a%22%7D%2C%7B%22id%22%3A%22b%22%7D%5D%7D";
    check(json_in, "$.events[*]", form, &apart).await;
    let base64_in = BodyRule::Base64In { path: vec!["d".to_owned()], document: Document::Json };
    let post = r#"{"d":"eyJldmVudHMiOlt7ImlkIjogImEifSx7ImlkIjoiYiJ9XX0","more":[{"id": "c" }]}"#;
    let together = [r#"{"id":"a"}"#, r#"{"id":"b"}"#];
    check(base64_in.clone(), "$.d.events[*]", post, &together).await;
    check(base64_in, "$.more[*]", post, &[r#"{"id":"c"}"#]).await;
}

#[tokio::test]
async fn equal_elements_without_an_id_are_told_apart_by_their_number() {
    let router = Running::start(vec![splitting()], limits()).await;
    let post = |body: &str| signed_post("/hooks/store", body.as_bytes());
    let body = r#"{"events":[{"n":1},{"n":1.0},{"n":2},{"id":"","n":1}]}"#;
    for _ in 0..2 {
        assert_eq!(router.status(&post(body)).await, 200);
    }
    let events = router.all().await;
    assert_eq!(
        bodies(&events),
        [(r#"{"n":1}"#, 1), (r#"{"n":1.0}"#, 1), (r#"{"n":2}"#, 1), (r#"{"id":"","n":1}"#, 1)]
    );
    let ids: Vec<&str> = events.iter().map(|event| event.envelope.event_id.as_str()).collect();
    assert_eq!(ids[0].strip_suffix("-1").unwrap(), ids[1].strip_suffix("-2").unwrap());
    assert!(ids[2].ends_with("-1") && ids[2] != ids[0] && ids[3].ends_with("-1"), "{ids:?}");
    // A third of them is new.
    assert_eq!(router.status(&post(r#"{"events":[{"n":1},{"n":1},{"n":1}]}"#)).await, 200);
    assert_eq!(router.events().await, 5);
}

#[tokio::test]
async fn a_post_without_elements_is_taken_and_leaves_nothing() {
    let router = Running::start(vec![splitting()], limits()).await;
    for body in [r#"{"events":[]}"#, r#"{"events":null}"#, "{}", "[]", "1"] {
        let request = signed_post("/hooks/store", body.as_bytes());
        assert_eq!(router.status(&request).await, 200, "{body}");
    }
    assert_eq!(router.events().await, 0);
    assert!(router.counted(r#"router_requests_empty_batches_total{source="store"} 5"#));
    // What is no JSON is one malformed event, whole, as without `split`.
    assert_eq!(router.status(&signed_post("/hooks/store", b"{\"events\":[")).await, 200);
    let event = router.event().await;
    assert!(event.envelope.malformed.is_some());
    assert_eq!(event.envelope.body, b"{\"events\":[".as_slice());
}

#[tokio::test]
async fn a_post_is_taken_whole_or_not_at_all() {
    let few = Limits { split: 2, ..limits() };
    let router = Running::start(vec![splitting()], few).await;
    let post = |body: &str| signed_post("/hooks/store", body.as_bytes());
    let answer = router.exchange(&post(r#"{"events":[{"id":"a"},{"id":"b"},{"id":"c"}]}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(router.events().await, 0);
    assert!(
        router.counted(
            r#"router_requests_rejected_total{source="store",reason="too_many_events"} 1"#
        )
    );
    assert_eq!(router.status(&post(r#"{"events":[{"id":"a"},{"id":"b"}]}"#)).await, 200);
    assert_eq!(router.events().await, 2);

    // One element that the source wants refused, and a store that takes nothing new.
    let mut strict = splitting();
    strict.event.missing_id = MissingId::Reject;
    let router = Running::start(vec![strict], limits()).await;
    assert_eq!(router.status(&post(r#"{"events":[{"id":"a"},{"n":1}]}"#)).await, 400);
    assert_eq!(router.events().await, 0);
    let router = Running::start_on(vec![splitting()], limits(), 0).await;
    let answer = router.exchange(&post(r#"{"events":[{"id":"a"},{"id":"b"}]}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(router.events().await, 0);

    // Where it may be kept, the one without an id goes to a person and the other is carried out.
    let mut kept = splitting();
    kept.event.missing_id = MissingId::Review;
    let router = Running::start(vec![kept], limits()).await;
    assert_eq!(router.status(&post(r#"{"events":[{"id":"a"},{"n":1}]}"#)).await, 200);
    let events = router.all().await;
    let seen: Vec<_> =
        events.iter().map(|it| (it.envelope.malformed.is_some(), it.deliveries.len())).collect();
    assert_eq!(seen, [(false, 1), (true, 0)]);
}

/// Brings its secret in a header, and wants it back in the answer.
fn capturing() -> Source {
    let at = Selector::Header("x-hook-secret".to_owned());
    let handshake = Handshake {
        when: Conditions {
            method: None,
            all: vec![Condition { at: at.clone(), expected: Expected::Present }],
        },
        verify: false,
        confirm: None,
        capture: Some(at.clone()),
        status: StatusCode::OK,
        headers: vec![(HeaderName::from_static("x-hook-secret"), vec![Part::At(at)])],
        body: None,
    };
    Source { handshakes: vec![handshake], ..source("tasks", "/hooks/{team}") }
}

fn handshake(secret: &str) -> Vec<u8> {
    format!(
        "POST /hooks/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-hook-secret: {secret}\r\ncontent-length: 0\r\n\r\n"
    )
    .into_bytes()
}

const MINUTE: Duration = Duration::from_secs(60);

impl Running {
    fn captured(&self) -> Vec<String> {
        let path = [("team".to_owned(), "a".to_owned())];
        let values = self.store.captured(&"tasks".into(), &path);
        values.iter().map(|value| value.expose().to_owned()).collect()
    }

    fn is_armed(&self) -> bool {
        self.arming.left(&"tasks".into()).is_some()
    }

    fn refused(&self, reason: &str) -> bool {
        let line = format!("requests_rejected_total{{source=\"tasks\",reason=\"{reason}\"}}");
        self.metrics.encode(Backlog::default()).contains(&line)
    }
}

#[tokio::test]
async fn a_secret_is_captured_once_and_only_while_somebody_waits_for_it() {
    let running = Running::start(vec![capturing()], limits()).await;
    assert_eq!(running.status(&handshake("s3cret")).await, 401);
    assert!(running.refused("not_armed"));
    assert!(running.captured().is_empty());

    running.arming.arm("tasks".into(), Vec::new(), MINUTE, "ann");
    for no_secret in ["a b", "\u{e9}", &"x".repeat(1025)] {
        assert_eq!(running.status(&handshake(no_secret)).await, 401, "{no_secret}");
    }
    assert!(running.refused("malformed_handshake"));
    assert!(running.is_armed() && running.captured().is_empty(), "that was no capture");

    let longest = "x".repeat(1024);
    let answer = running.exchange(&handshake(&longest)).await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains(&format!("x-hook-secret: {longest}\r\n")), "{answer}");
    assert_eq!(running.captured(), [longest]);
    let listed = running.store.secrets().await.unwrap();
    assert_eq!((&*listed[0].armed_by, listed.len()), ("ann", 1));
    assert_eq!(running.status(&handshake("another")).await, 401);
    assert!(!running.is_armed());
}

#[tokio::test]
async fn of_many_captures_at_once_one_wins() {
    let running = Running::start(vec![capturing()], limits()).await;
    running.arming.arm("tasks".into(), Vec::new(), MINUTE, "ann");
    let requests: Vec<_> = (0..16).map(|number| handshake(&format!("s{number}"))).collect();
    let answers = join_all(requests.iter().map(|request| running.status(request))).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 15, "{answers:?}");
    let winner = answers.iter().position(|status| *status == 200).unwrap();
    assert_eq!(running.captured(), [format!("s{winner}")]);
}

#[tokio::test]
async fn where_nothing_could_be_kept_the_source_stays_armed() {
    let running = Running::start(vec![capturing()], limits()).await;
    running.arming.arm("tasks".into(), Vec::new(), MINUTE, "ann");
    for number in 0..CAPTURED_MAX {
        running.arming.arm("tasks".into(), Vec::new(), MINUTE, "ann");
        assert_eq!(running.status(&handshake(&format!("s{number}"))).await, 200);
    }
    running.arming.arm("tasks".into(), Vec::new(), MINUTE, "ann");
    assert_eq!(running.status(&handshake("one-more")).await, 401);
    assert!(running.refused("too_many_secrets") && running.is_armed());

    running.store.close().await.unwrap();
    let answer = running.exchange(&handshake("no-store")).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("retry-after"), "{answer}");
    assert!(running.is_armed() && running.captured().len() == CAPTURED_MAX);
}

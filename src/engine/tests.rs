//! The engine on a clock that stands still, a store in memory and a network that answers from a script.

mod power;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::*;
use crate::body::BodyKind;
use crate::config::check::load;
use crate::config::{Resolved, Route};
use crate::delivery::decide;
use crate::delivery::key::key_base;
use crate::delivery::state::{Attempt, DeliveryState, Entry, Status, StepStatus, What};
use crate::envelope::{Envelope, Identity, OnConflict};
use crate::files::Files;
use crate::name::{DeliveryId, Uid};
use crate::secret::{SecretRef, SecretValue};
use crate::store::memory::MemoryStore;
use crate::store::{
    Acceptance, Budget, Change, NewDelivery, NewEvent, Operated, Operation, Query, Term,
};
use crate::world::clock::{Clock, ManualClock};
use crate::world::random::SeededRandom;
use crate::world::spawn::TokioSpawn;
use crate::world::transport::{NotSentKind, Sent, Transport, WireRequest, WireResponse};

/// More turns than any of these tests takes; reaching it is a failure, never a way to wait.
const TURNS_MAX: usize = 200_000;

/// What the other side does with one request.
enum Reply {
    Answer(u16, Vec<(&'static str, &'static str)>, Json),
    Lost,
    Refused,
    /// Never.
    Hang,
    /// A bug in the router.
    Panic,
}

fn ok(json: Json) -> Reply {
    Reply::Answer(200, vec![], json)
}

fn status(status: u16) -> Reply {
    Reply::Answer(status, vec![], Json::Null)
}

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    path: String,
    key: Option<String>,
    body: Json,
    correlation: Option<String>,
    second: i64,
}

/// Answers each path from its list; after the list: 200 `{}`.
struct Script {
    clock: Arc<ManualClock>,
    replies: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    arrived: Mutex<Vec<Arrived>>,
}

impl Script {
    fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().entry(path.to_owned()).or_default().extend(replies);
    }

    fn arrived(&self, path: &str) -> Vec<Arrived> {
        let arrived = self.arrived.lock().unwrap();
        arrived.iter().filter(|request| request.path == path).cloned().collect()
    }

    fn keys(&self, path: &str) -> Vec<String> {
        self.arrived(path).into_iter().map(|request| request.key.unwrap_or_default()).collect()
    }
}

impl Transport for Script {
    fn send(&self, request: WireRequest, deadline: Duration) -> BoxFuture<'_, Sent> {
        let header = |name: &str| {
            request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let path = request.url.path().to_owned();
        self.arrived.lock().unwrap().push(Arrived {
            path: path.clone(),
            key: header("idempotency-key"),
            correlation: header("x-correlation-id"),
            body: serde_json::from_slice(&request.body).unwrap_or(Json::Null),
            second: self.clock.now().as_second() - START,
        });
        let reply = self.replies.lock().unwrap().get_mut(&path).and_then(VecDeque::pop_front);
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            match reply.unwrap_or_else(|| ok(json!({}))) {
                Reply::Answer(status, headers, json) => Sent::Answered(WireResponse {
                    status,
                    headers: headers
                        .into_iter()
                        .map(|(name, value)| {
                            (HeaderName::from_static(name), HeaderValue::from_static(value))
                        })
                        .collect::<HeaderMap>(),
                    body: Bytes::from(json.to_string()),
                    truncated: false,
                }),
                Reply::Lost => Sent::NoAnswer { why: "reset".to_owned(), timed_out: false },
                Reply::Refused => {
                    Sent::NotSent { why: "refused".to_owned(), kind: NotSentKind::Connect }
                }
                Reply::Panic => panic!("on purpose"),
                Reply::Hang => {
                    clock.sleep(deadline).await;
                    Sent::NoAnswer { why: "no answer in time".to_owned(), timed_out: true }
                }
            }
        })
    }
}

const START: i64 = 1_800_000_000;

/// The configuration whose one route has these keys after `source`.
fn live(route: &str) -> Arc<Live> {
    let mut files = Files::new("/nowhere");
    files.add(
        "router.yaml",
        "egress: { allow: [127.0.0.1] }\ndestinations:\n  api:\n    url: http://127.0.0.1:9\n    auth: { bearer: { env: API_TOKEN } }\n    idempotency: { header: Idempotency-Key }\n",
    );
    files.add(
        "routes/orders.yaml",
        format!("route: orders\nsource: {{ path: /in, verify: {{ none: test }}, event: {{ id: $.id }} }}\n{route}"),
    );
    let loaded = load(files);
    let Some(set) = loaded.set else { panic!("{:?}", loaded.diagnostics) };
    let mut resolved = Resolved::default();
    resolved.vault.insert(SecretRef::Env("API_TOKEN".to_owned()), SecretValue::new("tok_secret"));
    Arc::new(Live { set, resolved })
}

/// The event that `payload` makes, for one route.
fn new_event(route: &Route, world: &World, payload: &Json) -> NewEvent {
    let now = world.clock.now();
    let uid = Uid(world.random.uuid_v7(now));
    let event_id = payload["id"].as_str().unwrap().to_owned();
    let envelope = Envelope {
        uid,
        event_id: event_id.as_str().into(),
        event_type: "order.paid".to_owned(),
        source: "orders".into(),
        occurred_at: None,
        received_at: now,
        correlation_id: "corr-1".into(),
        method: "POST".to_owned(),
        path: vec![],
        query: vec![],
        headers: vec![],
        body_kind: BodyKind::Json,
        body: Bytes::from(payload.to_string()),
        malformed: None,
    };
    let base = key_base(&envelope.source, &[], &envelope.event_id, None);
    NewEvent {
        identities: vec![Identity::Id { id: event_id, body: None }],
        body_digest: [0; 32],
        on_conflict: OnConflict::Review,
        deliveries: vec![NewDelivery {
            route: route.name.clone(),
            revision: route.revision.clone(),
            key_base: base.clone(),
            key_base_with_body: base,
        }],
        envelope,
    }
}

struct Bench {
    clock: Arc<ManualClock>,
    world: World,
    script: Arc<Script>,
    store: Arc<MemoryStore>,
    live: watch::Sender<Arc<Live>>,
    engine: Option<Engine>,
}

impl Bench {
    fn new(route: &str) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(START).unwrap()));
        let world = World {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::from_seed(7)),
            spawn: Arc::new(TokioSpawn),
        };
        let script = Arc::new(Script {
            clock: Arc::clone(&clock),
            replies: Mutex::default(),
            arrived: Mutex::default(),
        });
        let store = Arc::new(MemoryStore::new(world.clone()));
        let mut bench = Self {
            clock,
            world,
            script,
            store,
            live: watch::Sender::new(live(route)),
            engine: None,
        };
        bench.start();
        bench
    }

    fn start(&mut self) {
        self.engine = Some(Engine::start(Deps {
            world: self.world.clone(),
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            live: self.live.subscribe(),
            caller: Arc::new(Caller::new(Arc::clone(&self.script) as Arc<dyn Transport>)),
            metrics: Arc::new(Metrics::new()),
        }));
    }

    /// The process dies: what was recorded is all that is left.
    fn kill_and_restart(&mut self) {
        self.engine = None;
        self.store = Arc::new(self.store.reopened().unwrap());
        self.start();
    }

    async fn event(&self, payload: Json) -> DeliveryId {
        let live = Arc::clone(&self.live.borrow());
        let route = &live.set.routes[&"orders".into()];
        self.store
            .revision_put(route.revision.clone(), Arc::clone(&route.revision_text))
            .await
            .unwrap();
        let new = new_event(route, &self.world, &payload);
        let uid = new.envelope.uid;
        let accepted = self.store.accept(vec![new]).await.unwrap();
        assert_eq!(accepted, [Acceptance::Accepted { uid }]);
        DeliveryId { uid, route: route.name.clone() }
    }

    async fn look(&self, id: &DeliveryId) -> (DeliveryState, Vec<Entry>) {
        let view = self.store.event(id.uid).await.unwrap().unwrap();
        let delivery = view.deliveries.into_iter().find(|delivery| delivery.state.id == *id);
        let delivery = delivery.unwrap();
        (delivery.state, delivery.entries)
    }

    /// Lets the engine work, without time passing, until the delivery is so.
    async fn until(&self, id: &DeliveryId, so: impl Fn(&DeliveryState) -> bool) -> DeliveryState {
        for _ in 0..TURNS_MAX {
            let (state, _) = self.look(id).await;
            if so(&state) {
                return state;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never came about: {:#?}", self.look(id).await)
    }

    /// The same for requests.
    async fn until_arrived(&self, path: &str, count: usize) {
        for _ in 0..TURNS_MAX {
            if self.script.arrived(path).len() >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("only {} requests arrived at {path}", self.script.arrived(path).len())
    }

    /// Lets time pass to each next due moment, until the delivery is finished.
    async fn finish(&self, id: &DeliveryId) -> DeliveryState {
        loop {
            let state = self
                .until(id, |state| {
                    let waits = state.status == Status::Queued
                        && state.due_at.is_some_and(|due_at| due_at > self.clock.now());
                    waits || state.status.is_finished()
                })
                .await;
            if state.status.is_finished() {
                return state;
            }
            let left = state.due_at.unwrap().duration_since(self.clock.now());
            self.clock.advance(left.try_into().unwrap());
        }
    }

    async fn attempts(&self, id: &DeliveryId) -> Vec<Attempt> {
        let (_, entries) = self.look(id).await;
        let attempts = entries.into_iter().filter_map(|entry| match entry.what {
            What::Attempted { attempt, .. } => Some(attempt),
            _ => None,
        });
        attempts.collect()
    }

    async fn replay(&self, id: &DeliveryId) {
        let (state, _) = self.look(id).await;
        let live = Arc::clone(&self.live.borrow());
        let route = &live.set.routes[&id.route];
        let transition =
            decide::replay(&state, &route.plan(), route.revision.clone(), self.clock.now())
                .unwrap();
        let what =
            What::Operated { actor: "ops".to_owned(), action: "replay".to_owned(), note: None };
        let change =
            Change { entry: Entry { at: self.clock.now(), what }, transition, terms: Vec::new() };
        let operation = Operation { delivery: id.clone(), version: state.version, change };
        assert!(matches!(self.store.operate(operation).await.unwrap(), Operated::Done(_)));
    }
}

fn step<'a>(state: &'a DeliveryState, name: &str) -> &'a crate::delivery::state::StepState {
    state.step(&name.into()).unwrap()
}

fn cause(state: &DeliveryState) -> &str {
    state.reason.as_ref().map_or("", |reason| &reason.cause)
}

const SHIP: &str = "
fields: { order: $.order }
steps:
  - name: ship
    call: { to: api, post: /ship, json: { order: '{{ fields.order }}' } }
    save: { parcel: $.parcel }
    retry: { attempts: 3, first: 10s, factor: 2, jitter: none }
  - name: mail
    call: { to: api, post: /mail, json: { parcel: '{{ steps.ship.parcel }}' } }
";

#[tokio::test]
async fn steps_run_in_order_with_native_types_and_saved_values() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [ok(json!({"parcel": {"id": 7}}))]);
    let id = bench.event(json!({"id": "evt_1", "order": 1001})).await;
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
    assert_eq!(bench.script.arrived("/ship")[0].body, json!({"order": 1001}));
    assert_eq!(bench.script.arrived("/mail")[0].body, json!({"parcel": {"id": 7}}));
    assert_eq!(bench.script.arrived("/mail")[0].correlation.as_deref(), Some("corr-1"));
    let keys = [bench.script.keys("/ship"), bench.script.keys("/mail")].concat();
    assert!(keys[0] != keys[1] && !keys[0].is_empty());
    assert_eq!(step(&state, "ship").saved["parcel"], json!({"id": 7}));
}

impl Bench {
    /// Ids of the events that are found by a field's value.
    async fn found(&self, field: &str, value: &str) -> Vec<String> {
        let query = Query {
            route: Some("orders".into()),
            field: Some(Term { field: field.to_owned(), value: value.to_owned() }),
            ..Query::default()
        };
        let budget = Budget { rows_max: 10, examined_max: 10 };
        let page = self.store.list(query, None, budget).await.unwrap();
        page.events.iter().map(|event| event.event_id.to_string()).collect()
    }
}

#[tokio::test]
async fn an_event_is_found_by_its_fields_which_are_given_once_per_life() {
    let fields = "{ order: $.order, note: $.note, skus: { from: '$.skus[*]', all: true } }";
    let bench = Bench::new(&SHIP.replace("{ order: $.order }", fields));
    bench.script.on("/ship", [status(503), Reply::Lost, Reply::Refused]);
    let payload = json!({"id": "evt_1", "order": 1001, "note": "", "skus": ["a", "b"]});
    let id = bench.event(payload).await;
    assert_eq!(bench.finish(&id).await.status, Status::Failed);
    let other = bench.event(json!({"id": "evt_2", "order": 7})).await;
    bench.finish(&other).await;
    for (field, value) in [("order", "1001"), ("skus", "a"), ("skus", "b")] {
        assert_eq!(bench.found(field, value).await, ["evt_1"], "{field}={value}");
    }
    for (field, value) in [("order", "1"), ("note", ""), ("note", "1001"), ("skus", "1001")] {
        assert!(bench.found(field, value).await.is_empty(), "{field}={value}");
    }
    // Of its three attempts the first one brought them; a replay, which may map other fields, brings them again.
    assert_eq!(bench.store.changes_with_terms(), 2);
    bench.replay(&id).await;
    bench.script.on("/ship", [status(503), ok(json!({}))]);
    assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
    assert_eq!(bench.store.changes_with_terms(), 3);
}

#[tokio::test]
async fn an_event_is_found_by_its_fields_where_no_call_was_made() {
    let held = SHIP
        .replace("- name: ship", "- name: ship\n    idempotency_key: 'one-{{ payload.key }}'")
        .replace("parcel: '{{ steps.ship.parcel }}'", "parcel: 1");
    let mut bench = Bench::new(&held);
    bench.script.on("/ship", [ok(json!({})), ok(json!({}))]);
    for (event, order) in [("evt_1", 1), ("evt_2", 2)] {
        let id = bench.event(json!({"id": event, "order": order, "key": "k"})).await;
        assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
    }
    assert_eq!(bench.script.arrived("/ship").len(), 1, "the key was held");
    assert_eq!(bench.found("order", "2").await, ["evt_2"]);
    // A template that fails is decided without a call, too.
    let id = bench.event(json!({"id": "evt_3", "order": 3})).await;
    assert_eq!(bench.finish(&id).await.status, Status::Failed);
    assert_eq!(bench.found("order", "3").await, ["evt_3"]);
    bench.kill_and_restart();
    assert_eq!(bench.found("order", "3").await, ["evt_3"]);
}

#[tokio::test]
async fn transient_failures_are_retried_at_the_right_times_with_one_key() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [status(503), Reply::Lost, ok(json!({}))]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
    let arrived = bench.script.arrived("/ship");
    assert_eq!(arrived.iter().map(|request| request.second).collect::<Vec<_>>(), [0, 10, 30]);
    let keys = bench.script.keys("/ship");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(bench.attempts(&id).await.len(), 4);
}

#[tokio::test]
async fn attempts_exhausted_go_to_review_and_come_back_by_replay() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [status(500), Reply::Refused, status(502)]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "attempts_exhausted"));
    assert_eq!(step(&state, "ship").status, StepStatus::Failed);
    assert_eq!(step(&state, "mail").status, StepStatus::NotRun);
    bench.replay(&id).await;
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
    let keys = bench.script.keys("/ship");
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn a_lost_last_attempt_is_unknown() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [Reply::Lost, Reply::Lost, Reply::Lost]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!(step(&state, "ship").status, StepStatus::Unknown);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let bench = Bench::new(SHIP);
    let later = || Reply::Answer(429, vec![("retry-after", "120")], Json::Null);
    bench.script.on("/ship", [later(), ok(json!({}))]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
    assert_eq!(bench.script.arrived("/ship")[1].second, 120);
}

#[tokio::test]
async fn a_refusal_goes_to_review_at_once() {
    let bench = Bench::new(SHIP);
    bench
        .script
        .on("/ship", [Reply::Answer(422, vec![], json!({"error": "no stock, tok_secret"}))]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "status_422"));
    assert_eq!(bench.script.arrived("/ship").len(), 1);
    let attempt = &bench.attempts(&id).await[0];
    assert!(attempt.detail.contains("no stock") && !attempt.detail.contains("tok_secret"));
}

#[tokio::test]
async fn a_missing_required_field_goes_to_review_with_its_name() {
    let route = SHIP.replace("$.order }", "{ from: $.order, required: true } }");
    let bench = Bench::new(&route);
    let id = bench.event(json!({"id": "evt_1"})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "missing_field"));
    let reason = state.reason.unwrap();
    assert_eq!(reason.subject.as_deref(), Some("order"));
    assert!(reason.message.contains("$.order"), "{}", reason.message);
    assert!(bench.script.arrived("/ship").is_empty());
}

#[tokio::test]
async fn a_required_value_that_the_answer_lacks_stops_what_needs_it() {
    let route = SHIP.replace("parcel: $.parcel", "parcel: { from: $.parcel, required: true }");
    let bench = Bench::new(&route);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "saved_missing"));
    assert_eq!(step(&state, "ship").status, StepStatus::Succeeded);
    assert_eq!(step(&state, "mail").status, StepStatus::NotRun);
}

#[tokio::test]
async fn a_false_when_ignores_the_delivery_or_skips_the_step() {
    let bench = Bench::new(&format!("when: payload.paid\n{SHIP}"));
    let id = bench.event(json!({"id": "evt_1", "order": 1, "paid": false})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Ignored, "when_false"));

    let skipping = SHIP.replace("- name: ship", "- name: ship\n    when: payload.paid");
    let skipping =
        skipping.replace("'{{ steps.ship.parcel }}'", "'{{ steps.ship.parcel | default(0) }}'");
    let bench = Bench::new(&skipping);
    let id = bench.event(json!({"id": "evt_1", "order": 1, "paid": false})).await;
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
    assert_eq!(step(&state, "ship").status, StepStatus::Skipped);
    assert!(bench.script.arrived("/ship").is_empty());
    assert_eq!(bench.script.arrived("/mail")[0].body, json!({"parcel": 0}));
}

#[tokio::test]
async fn a_template_that_cannot_be_rendered_names_its_expression() {
    let bench =
        Bench::new(SHIP.replace("/mail, json", "'/mail/{{ steps.ship.parcel }}', json").as_str());
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "template"));
    assert!(state.reason.unwrap().message.contains("steps.ship.parcel"));
}

const FAN_OUT: &str = "
steps:
  - name: a
    needs: []
    call: { to: api, post: /a, json: {} }
  - name: b
    needs: []
    call: { to: api, post: /b, json: {} }
    retry: { first: 10s, jitter: none }
  - name: after_a
    needs: [a]
    call: { to: api, post: /after_a, json: {} }
";

#[tokio::test]
async fn other_branches_finish_before_the_delivery_fails_once() {
    let bench = Bench::new(FAN_OUT);
    bench.script.on("/a", [status(400)]);
    bench.script.on("/b", [status(503), status(503)]);
    let id = bench.event(json!({"id": "evt_1"})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "status_400"));
    assert_eq!(step(&state, "b").status, StepStatus::Succeeded);
    assert_eq!(step(&state, "after_a").status, StepStatus::NotRun);
    assert_eq!(bench.script.arrived("/b").len(), 3);
}

#[tokio::test]
async fn branches_are_out_at_the_same_time() {
    let bench = Bench::new(FAN_OUT);
    bench.script.on("/a", [Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1"})).await;
    bench.until(&id, |state| state.step(&"b".into()).is_some_and(|b| b.status.is_settled())).await;
    assert_eq!(step(&bench.look(&id).await.0, "a").status, StepStatus::Running);
}

const ONE_SHIPMENT: &str = "
fields: { order: $.order }
steps:
  - name: ship
    call: { to: api, post: /ship, json: { order: '{{ fields.order }}' } }
    idempotency_key: 'ship-{{ fields.order }}'
    save: { parcel: $.parcel }
    retry: { first: 10s, jitter: none }
  - name: mail
    call: { to: api, post: /mail, json: { parcel: '{{ steps.ship.parcel }}' } }
";

#[tokio::test]
async fn two_events_with_one_explicit_key_make_one_call() {
    let bench = Bench::new(ONE_SHIPMENT);
    bench.script.on("/ship", [status(503), ok(json!({"parcel": "p7"}))]);
    let first = bench.event(json!({"id": "evt_1", "order": 5})).await;
    let second = bench.event(json!({"id": "evt_2", "order": 5})).await;
    bench.until(&second, |state| cause(state) == "key_held").await;
    let message = bench.look(&second).await.0.reason.unwrap().message;
    assert!(message.contains("evt_1") && message.contains("ship-5"), "{message}");
    let (first, second) = (bench.finish(&first).await, second);
    assert_eq!(first.status, Status::Succeeded);
    let second = bench.finish(&second).await;
    assert_eq!(second.status, Status::Succeeded, "{second:#?}");
    assert_eq!(step(&second, "ship").status, StepStatus::AlreadyDone);
    assert_eq!(step(&second, "ship").saved["parcel"], "p7");
    let other = bench.event(json!({"id": "evt_3", "order": 6})).await;
    assert_eq!(bench.finish(&other).await.status, Status::Succeeded);
    let keys = bench.script.keys("/ship");
    assert_eq!(keys.iter().filter(|key| *key == "ship-5").count(), 2);
    assert_eq!(keys.iter().filter(|key| *key == "ship-6").count(), 1);
    let parcels: Vec<_> = bench.script.arrived("/mail").into_iter().map(|r| r.body).collect();
    assert_eq!(parcels.iter().filter(|body| **body == json!({"parcel": "p7"})).count(), 2);
}

#[tokio::test]
async fn who_waits_for_a_holder_in_review_goes_on_after_its_replay() {
    let bench = Bench::new(ONE_SHIPMENT);
    bench.script.on("/ship", [status(422)]);
    let first = bench.event(json!({"id": "evt_1", "order": 5})).await;
    assert_eq!(bench.finish(&first).await.status, Status::Failed);
    let second = bench.event(json!({"id": "evt_2", "order": 5})).await;
    let waiting = bench.until(&second, |state| cause(state) == "key_held").await;
    assert_eq!((waiting.status, waiting.due_at), (Status::Queued, None));
    bench.script.on("/ship", [ok(json!({"parcel": "p8"}))]);
    bench.replay(&first).await;
    assert_eq!(bench.finish(&first).await.status, Status::Succeeded);
    let second = bench.finish(&second).await;
    assert_eq!(step(&second, "ship").saved["parcel"], "p8");
    assert_eq!(bench.script.arrived("/ship").len(), 2);
}

#[tokio::test]
async fn a_call_cut_off_by_the_end_of_the_process_is_repeated_with_its_key_and_nothing_else() {
    let mut bench = Bench::new(SHIP);
    bench.script.on("/mail", [Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    bench.until_arrived("/mail", 1).await;
    bench.kill_and_restart();
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
    assert_eq!(bench.script.arrived("/ship").len(), 1);
    let keys = bench.script.keys("/mail");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(step(&state, "mail").interruptions, 1);
    assert_eq!(bench.attempts(&id).await.len(), 3);
}

#[tokio::test]
async fn the_third_interruption_goes_to_review() {
    let mut bench = Bench::new(&SHIP.replace("attempts: 3", "attempts: 50"));
    bench.script.on("/ship", [Reply::Hang, Reply::Hang, Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    for times in 1..=3 {
        bench.until_arrived("/ship", times).await;
        bench.kill_and_restart();
        bench
            .until(&id, |state| {
                state.step(&"ship".into()).is_some_and(|ship| ship.interruptions as usize == times)
            })
            .await;
        bench.clock.advance(Duration::from_secs(60));
    }
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "interrupted"));
    assert_eq!(step(&state, "ship").status, StepStatus::Unknown);
    assert_eq!(bench.script.arrived("/ship").len(), 3);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_out_and_starts_nothing() {
    let mut bench = Bench::new(SHIP);
    bench.script.on("/ship", [Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    bench.until_arrived("/ship", 1).await;
    let engine = bench.engine.take().unwrap();
    let (ended, ()) = tokio::join!(engine.shutdown(Duration::from_secs(60)), async {
        tokio::task::yield_now().await;
        bench.clock.advance(Duration::from_secs(10));
    });
    assert_eq!(ended, Ended::Stopped);
    let (state, _) = bench.look(&id).await;
    assert_eq!(step(&state, "ship").status, StepStatus::Waiting);
    assert_eq!(state.status, Status::Queued);
    assert!(bench.script.arrived("/mail").is_empty());
}

#[tokio::test]
async fn a_shutdown_gives_up_at_its_limit() {
    let mut bench = Bench::new(SHIP);
    bench.script.on("/ship", [Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    bench.until_arrived("/ship", 1).await;
    let engine = bench.engine.take().unwrap();
    let (ended, ()) = tokio::join!(engine.shutdown(Duration::from_secs(5)), async {
        tokio::task::yield_now().await;
        bench.clock.advance(Duration::from_secs(5));
    });
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(step(&bench.look(&id).await.0, "ship").status, StepStatus::Running);
}

#[tokio::test]
async fn a_clock_that_jumps_neither_ends_nor_rushes_the_retries() {
    let bench = Bench::new(&SHIP.replace("attempts: 3", "attempts: 5"));
    bench.script.on("/ship", [status(503), status(503), status(503), ok(json!({}))]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let waits = |state: &DeliveryState| state.status == Status::Queued && state.due_at.is_some();
    bench.until(&id, |state| waits(state) && state.attempts() == 1).await;
    // A year ahead: the wait of ten seconds stays one, and `for` is not over.
    bench.clock.jump_to(Timestamp::from_second(START + 366 * 86_400).unwrap());
    assert_eq!(bench.script.arrived("/ship").len(), 1);
    bench.clock.advance(Duration::from_secs(10));
    bench.until(&id, |state| waits(state) && state.attempts() == 2).await;
    // Back again: the wait of twenty seconds stays one too.
    bench.clock.jump_to(Timestamp::from_second(START).unwrap());
    bench.clock.advance(Duration::from_secs(20));
    bench.until(&id, |state| waits(state) && state.attempts() == 3).await;
    bench.clock.advance(Duration::from_secs(40));
    let state = bench.finish(&id).await;
    assert_eq!(state.status, Status::Succeeded, "{state:#?}");
}

#[tokio::test]
async fn a_delivery_keeps_its_revision_until_it_is_replayed() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [status(503), status(422)]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    bench.until(&id, |state| state.status == Status::Queued && state.attempts() == 1).await;
    bench.live.send_replace(live(
        &SHIP.replace("order: '{{ fields.order }}'", "number: '{{ fields.order }}'"),
    ));
    assert_eq!(bench.finish(&id).await.status, Status::Failed);
    bench.replay(&id).await;
    assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
    let bodies: Vec<_> = bench.script.arrived("/ship").into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [json!({"order": 1}), json!({"order": 1}), json!({"number": 1})]);
    let keys = bench.script.keys("/ship");
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn wherever_the_process_ends_what_is_recorded_is_not_repeated_and_keys_stay() {
    // Two intents and two outcomes: a cut after each recorded change, and before the first.
    for version in 0..=4 {
        let mut bench = Bench::new(SHIP);
        let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
        let cut = bench.until(&id, |state| state.version >= version).await;
        let before = [bench.script.arrived("/ship").len(), bench.script.arrived("/mail").len()];
        bench.kill_and_restart();
        let state = bench.finish(&id).await;
        assert_eq!(state.status, Status::Succeeded, "cut at {version}: {state:#?}");
        for (path, before) in [("/ship", before[0]), ("/mail", before[1])] {
            let keys = bench.script.keys(path);
            assert!(keys.iter().all(|key| *key == keys[0] && !key.is_empty()), "{keys:?}");
            let name = path.trim_start_matches('/');
            let recorded = cut.step(&name.into()).is_some_and(|step| step.status.is_settled());
            assert_eq!(keys.len() > before, !recorded, "cut at {version}, {path}");
            assert!(keys.len() <= before + 1, "cut at {version}, {path}");
        }
    }
}

#[tokio::test]
async fn a_bug_in_one_delivery_puts_that_one_in_review() {
    let bench = Bench::new(SHIP);
    bench.script.on("/ship", [Reply::Panic]);
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "bug"));
    assert_eq!(step(&state, "ship").status, StepStatus::Unknown);
    let id = bench.event(json!({"id": "evt_2", "order": 1})).await;
    assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn no_more_calls_are_out_than_there_are_workers() {
    let mut steps = "steps:\n".to_owned();
    for name in ["a", "b", "c", "d"] {
        steps += &format!(
            "  - {{ name: {name}, needs: [], call: {{ to: api, post: /work, json: {{}} }}, repeat: ok }}\n"
        );
    }
    let mut bench = Bench::new(&steps);
    bench.engine = None;
    let mut set = Arc::try_unwrap(live(&steps)).unwrap();
    set.set.server.workers = 2;
    bench.live.send_replace(Arc::new(set));
    bench.start();
    bench.script.on("/work", [Reply::Hang, Reply::Hang]);
    let id = bench.event(json!({"id": "evt_1"})).await;
    bench.until_arrived("/work", 2).await;
    // Turns enough for the others to leave, if anything let them.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.script.arrived("/work").len(), 2);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.finish(&id).await.status, Status::Succeeded);
}

#[tokio::test]
async fn a_secret_that_is_gone_is_named() {
    let bench = Bench::new(SHIP);
    let mut without = Arc::try_unwrap(live(SHIP)).unwrap();
    without.resolved = Resolved::default();
    bench.live.send_replace(Arc::new(without));
    let id = bench.event(json!({"id": "evt_1", "order": 1})).await;
    let state = bench.finish(&id).await;
    assert_eq!((state.status, cause(&state)), (Status::Failed, "missing_secret"));
    assert!(state.reason.unwrap().message.contains("API_TOKEN"));
    assert!(bench.script.arrived("/ship").is_empty());
}
